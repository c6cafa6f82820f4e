"""A policy and a term belong to one Router: two of them would tell it two stories."""

import weakref

from banditroute.policies import Policy
from banditroute.records import Term

__all__ = ["check_free", "give_back", "take_over"]

_owned: "weakref.WeakKeyDictionary[Policy | Term, weakref.ref[object]]" = weakref.WeakKeyDictionary()


def check_free(what: str, part: Policy | Term) -> None:
    """Refuse a policy or a term that another Router, which is still open, has taken over.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> policy = LinUCB(2, 1)
    >>> router = Router(policy)
    >>> check_free("policy", policy)
    Traceback (most recent call last):
    ValueError: policy must belong to one Router, got one that another Router uses: close that first
    """
    owner = _owned.get(part)
    if owner is not None and owner() is not None:
        raise ValueError(
            f"{what} must belong to one Router, got one that another Router uses: close that first"
        )


def take_over(owner: object, *parts: Policy | Term) -> None:
    """Note whose these are from now on."""
    for part in parts:
        _owned[part] = weakref.ref(owner)


def give_back(*parts: Policy | Term) -> None:
    """Note that these are nobody's."""
    for part in parts:
        _owned.pop(part, None)
