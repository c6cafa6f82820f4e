"""Arms that come, go, are forgotten or put in quarantine: what changes in each part of a Router; the lock is held."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from banditroute._core import validation as check
from banditroute.records import ArmChange, Marked, Term
from banditroute.router.feedback_path import FeedbackPath
from banditroute.router.parts import RouterParts

__all__ = ["add_arm", "add_term", "check_name", "forget_arm", "mute", "remove_arm", "tell_term"]

LONGEST = 65_535  # bytes of a name


def check_name(name: Any) -> None:
    """Refuse a name that no file or store could hold.

    Examples
    --------
    >>> check_name("x" * 70_000)
    Traceback (most recent call last):
    ValueError: arms must have names of at most 65535 bytes in UTF-8, got 70000
    """
    if not isinstance(name, str):
        raise TypeError(f"arms must have names that are strings, got {check.shown(name)}")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"arms must have names that are valid Unicode, got {check.shown(name)}") from None
    if size > LONGEST:
        raise ValueError(f"arms must have names of at most {LONGEST} bytes in UTF-8, got {size}")


def add_arm(parts: RouterParts, name: str, size: float, fault: float | None) -> None:
    """Add an arm to every part."""
    check_name(name)
    parts.settle()
    size = check.finite("size", size, low=0.0, open_low=True)
    price = 0.0
    if parts.residence is not None:
        price = parts.residence.new_fault(fault, size)
    elif fault is not None:
        price = check.finite("fault", fault, low=0.0)
    count = len(parts.arms)
    parts.policy.add_arm(name)
    for term in parts.table.terms:
        term.add_arm(name)
    _moved(parts, [*range(count), None], size, price)
    parts.listeners.arms_changed(ArmChange("added", name, parts.arms.names, size, price))


def remove_arm(parts: RouterParts, feedback: FeedbackPath, name: str) -> None:
    """Remove an arm from every part; its pending decisions become nobody's."""
    parts.settle()
    gone = parts.policy.index(name)
    name = parts.arms.names[gone]
    if parts.residence is not None and gone in parts.residence.desired.pinned:
        raise ValueError(f"name must not be pinned, got {name!r}")
    if len(parts.arms) == 1:
        raise ValueError(f"the last arm must stay, got {name!r}")
    if np.delete(parts.arms.muted, gone).all():
        raise ValueError(f"name must not be the last arm that is not in quarantine, got {name!r}")
    for entry in parts.ledger.disown(name):
        feedback.release(name, entry[5])
    parts.policy.remove_arm(name)
    for term in parts.table.terms:
        term.remove_arm(name)
    _moved(parts, [a for a in range(len(parts.arms)) if a != gone])
    parts.unload(name)
    parts.listeners.arms_changed(ArmChange("removed", name, parts.arms.names))


def _moved(parts: RouterParts, keep: list[int | None], size: float = 1.0, fault: float = 0.0) -> None:
    parts.arms.change(parts.policy.arms, keep)
    parts.table.bind(parts.table.terms, parts.arms.names)
    parts.books.masked, parts.books.planned = 0, parts.books.index
    if parts.residence is not None:
        parts.residence.change(keep, size, fault)


def forget_arm(parts: RouterParts, name: str) -> None:
    """Have the policy forget what it learned of an arm."""
    parts.settle()
    arm = parts.policy.index(name)
    parts.policy.forget(arm)
    parts.listeners.arms_changed(ArmChange("forgotten", parts.arms.names[arm], parts.arms.names))


def mute(parts: RouterParts, name: str, muted: bool) -> None:
    """Put an arm in quarantine, or end it."""
    arm = parts.policy.index(name)
    after = parts.arms.muted.copy()
    after[arm] = muted
    if after.all():
        raise ValueError(f"arm must not be the last one that is not in quarantine, got {name!r}")
    parts.arms.muted = after
    parts.table.live = False
    name, names = parts.arms.names[arm], parts.arms.names
    parts.listeners.arms_changed(ArmChange("muted" if muted else "unmuted", name, names))


def add_term(parts: RouterParts, term: Term) -> None:
    """Give one more term a row of the price table, after the others; refused, everything is as it was."""
    before = parts.table.terms
    if term.name in (one.name for one in before):
        raise ValueError(f"term must have a name of its own, got {term.name!r}")
    try:
        parts.table.bind((*before, term), parts.arms.names)
    except ValueError:  # it is for other arms
        parts.table.bind(before, parts.arms.names)
        raise
    finally:
        if parts.residence is not None:
            parts.residence.reprice()


def tell_term(parts: RouterParts, name: str, details: Mapping[str, Any]) -> None:
    """Tell a term something from outside, in a way that a journal can repeat."""
    for term in parts.table.terms:
        if term.name == name:
            term.replay_mark(details)
            parts.listeners.marked(Marked(name, details))
            return
    raise ValueError(f"name must be that of a term, got {name!r}")
