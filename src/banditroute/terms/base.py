"""What every term shares: arms by name or index, its row, and calls that do nothing until a subclass needs them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Arrays, Floats, Header, Mask
from banditroute.errors import UnknownArm
from banditroute.records import Feedback, PriceRow, Request, TermHost

__all__ = ["BaseTerm"]

Asked = Request | ArrayLike | None  # a request of a Router, or a plain context where a term is used by hand


class BaseTerm:
    """A term that prices nothing, closes nothing and learns nothing: write the calls that yours needs.

    A standing term (``per_request`` False) overrides `prices` and perhaps `eligible` and calls `ring` when they have
    changed; a term that depends on the request sets ``per_request`` and overrides `prices`. What is kept for each arm
    follows in `resize`, what must survive a restart goes through `to_state` and `load_state`. Events that come from
    outside go through `tell`, so that a journal has them, and take effect in `replay_mark`.

    Parameters
    ----------
    arms : int or sequence of str, optional
        Names of the arms or their count; a Router's `bind` brings them otherwise.

    Notes
    -----
    By hand, prices are finite and the mask stands apart: ``policy.select(x, prices=t.prices(x),
    eligible=t.eligible(x))``. A Router gets both in one, closed arms at an infinite price. Not thread-safe by hand; a
    Router calls with its lock held.

    Examples
    --------
    >>> class Surcharge(BaseTerm):
    ...     name = "surcharge"
    ...     def prices(self, request=None, *, weights=None):
    ...         return np.where(np.array(self.arms) == "large", 0.1, 0.0)
    >>> Surcharge(["small", "large"]).prices()
    array([0. , 0.1])
    """

    name: str = "term"
    soft: bool = False
    per_request: bool = False

    def __init__(self, arms: int | Iterable[str] | None = None) -> None:
        self.arms: tuple[str, ...] = () if arms is None else check.names("arms", arms)
        self.named = arms is not None and not isinstance(arms, int | np.integer)
        self.row: PriceRow | None = None

    def __repr__(self) -> str:
        """Show the term and how many arms it knows."""
        return f"{type(self).__name__}({self.shown()})"

    def shown(self) -> str:
        """Return what `repr` tells of the state."""
        return f"arms={len(self.arms)}"

    # Arms.

    def index(self, arm: int | str) -> int:
        """Return the index of an arm given by name or index.

        Raises
        ------
        UnknownArm, TypeError
            No such arm.
        """
        if isinstance(arm, str):
            if arm in self.arms:
                return self.arms.index(arm)
            known = repr(list(self.arms)) if len(self.arms) <= 8 else f"the {len(self.arms)} arms"
            raise UnknownArm(f"arm must be one of {known}, got {arm!r}")
        if isinstance(arm, bool) or not isinstance(arm, int | np.integer):
            raise TypeError(f"arm must be a name (str) or an index (int), got {check.shown(arm)}")
        if self.arms and not 0 <= arm < len(self.arms):
            raise UnknownArm(f"arm must be in [0, {len(self.arms) - 1}], got {check.shown(arm)}")
        return int(arm)

    def position(self, arm: int | str) -> int | None:
        """Return the index of an arm, None where the name is gone: late feedback may outlive its arm."""
        return None if isinstance(arm, str) and arm not in self.arms else self.index(arm)

    def reason(self, arm: str) -> str:
        """Return in a few words why the term closes an arm, for explanations; nothing where its name says it."""
        return ""

    def bind(self, arms: tuple[str, ...], row: PriceRow) -> None:
        """Take the row of a Router with these arms; what is known of each follows by its name.

        Raises
        ------
        ValueError
            The term was made for another number of arms; nothing changed.
        """
        known = {name: i for i, name in enumerate(self.arms)}
        if self.named:
            keep = [known.get(name) for name in arms]
        elif self.arms and len(self.arms) != len(arms):
            raise ValueError(
                f"term {self.name!r} must have the {len(arms)} arms {arms}, got {len(self.arms)}"
            )
        else:
            keep = list(range(len(self.arms))) or [None] * len(arms)  # positions get their names
        if keep != list(range(len(self.arms))):
            self.resize(keep)
        gone = [name for name in self.arms if self.named and name not in arms]
        self.arms, self.named, self.row = tuple(arms), True, row
        for name in gone:
            self.forget(name)
        row.ring()

    def add_arm(self, name: str) -> None:
        """Follow an arm that was added; it starts with what is assumed of an unknown one.

        Raises
        ------
        ValueError, TypeError
            The name is no name or known already; nothing changed.
        """
        check.names("name", [name])
        if name in self.arms:
            raise ValueError(f"name must be new, got {name!r}")
        self.resize([*range(len(self.arms)), None])
        self.arms = (*self.arms, name)
        self.ring()

    def remove_arm(self, name: str) -> None:
        """Forget an arm: a later one of that name starts from nothing.

        Raises
        ------
        UnknownArm, ValueError
            No such arm, or the last one; nothing changed.
        """
        gone = self.index(name)
        if len(self.arms) == 1:
            raise ValueError(f"the last arm must stay, got {name!r}")
        keep = [i for i in range(len(self.arms)) if i != gone]
        self.resize(list(keep))
        self.arms = tuple(self.arms[i] for i in keep)
        self.forget(name)
        self.ring()

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start as an unknown one where that is None; `arms` still are the old."""

    def forget(self, name: str) -> None:
        """Drop what is kept by the name of an arm that is gone."""

    # Prices.

    def ring(self) -> None:
        """Say that the row is out of date; from any thread."""
        if self.row is not None:
            self.row.ring()

    def write(self) -> None:
        """Fill the row with `prices`, infinite where `eligible` says no; a term that is asked each time leaves it 0."""
        if self.row is not None and not self.per_request:
            self.row.values[:] = self.joined()

    def joined(self, x: ArrayLike | None = None) -> Floats:
        """Return prices and mask in one, (k,): infinite where closed."""
        prices = self.prices(x)
        finite = np.zeros(len(self.arms)) if prices is None else prices
        return np.where(self.eligible(x), finite, np.inf)

    def prices(self, request: Asked = None, *, weights: Mapping[str, float] | None = None) -> Floats | None:
        """Return the price of each arm, (k,), reward units; None where there is nothing to say."""
        return None

    def eligible(self, request: Asked = None) -> Mask:
        """Return the mask of arms that may serve, (k,)."""
        return np.ones(len(self.arms), dtype=np.bool_)

    # What happens.

    def reserve(self, arm: int | str, request: Asked = None, /) -> Any:
        """See an arm chosen; returns what is to be held until its answer, plain data."""

    def settle(self, arm: int | str, held: Any, feedback: Feedback, /) -> None:
        """See the answer learned."""

    def release(self, arm: int | str, held: Any = None, /) -> None:
        """See a decision end without an answer."""

    def tell(self, details: Mapping[str, Any]) -> None:
        """Pass on what came from outside: through the Router, which journals it, or at once where there is none."""
        host = self.host()
        if host is None:
            self.replay_mark(details)
        else:
            host.tell_term(self.name, details)

    def replay_mark(self, details: Mapping[str, Any]) -> None:
        """Let what came from outside take effect, now or again from a journal."""

    def host(self) -> TermHost | None:
        """Return the Router that this term belongs to, None by hand."""
        return None if self.row is None else self.row.host()

    # State.

    def to_state(self) -> tuple[Header, Arrays]:
        """Return everything needed to continue: a JSON-able header and named arrays."""
        return {"kind": type(self).__name__, "arms": list(self.arms), "named": self.named}, {}

    def load_state(self, header: Header, arrays: Arrays) -> None:
        """Continue from `to_state`, settings apart: they stay those of this object.

        Raises
        ------
        ValueError, TypeError
            It does not fit; nothing changed.
        """
        self.arms, self.named = self.kept_arms(header), bool(check.entry("header", header, "named"))
        self.ring()

    def kept_arms(self, header: Header) -> tuple[str, ...]:
        """Return the arms of a state of this kind of term."""
        kind = check.entry("header", header, "kind")
        if kind != type(self).__name__:
            raise ValueError(f"header must be of a {type(self).__name__}, got {check.shown(kind)}")
        names = check.entry("header", header, "arms")
        return check.names("arms", names) if names else ()


def context_of(asked: Asked) -> ArrayLike | None:
    """Return the context of a request, or the plain context itself."""
    return asked.x if isinstance(asked, Request) else asked


def kept(values: Floats, keep: list[int | None], default: float) -> Floats:
    """Return the values of arms that stay, and `default` for those that are new."""
    return np.array([default if a is None else values[a] for a in keep])
