"""What happens in a Router, as plain records: told to listeners, written to journals, replayed from them."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from banditroute.records.decision import Pending

__all__ = ["Answered", "ArmChange", "Decided", "Deferred", "Dropped", "Event", "Marked", "Note", "Why"]

Why = Literal["expired", "cancelled", "answered", "removed", "unknown"]


class Decided(NamedTuple):
    """A decision was made; ``forced`` by the controller, or not.

    Examples
    --------
    >>> import numpy as np
    >>> Decided(7, Pending("math", np.ones(2), 1.0, 0.0, 3), hit=True, forced=False).pending.arm
    'math'
    """

    id: int
    pending: Pending
    hit: bool
    forced: bool


class Answered(NamedTuple):
    """A decision had its feedback; ``foreign`` is the decision itself where another replica made it.

    Examples
    --------
    >>> Answered(7, 0.8).reward
    0.8
    """

    id: int
    reward: float
    cost: float | None = None
    seconds: float | None = None
    failed: bool = False
    foreign: Pending | None = None
    source: str | None = None


class Dropped(NamedTuple):
    """A decision awaits feedback no more: expired, cancelled, answered on another replica, or its arm was removed.

    ``reward`` is the one that was learned in place of an answer, where one is stated for decisions that expire.
    ``unknown``: an answer waited for a decision that nobody made.

    Examples
    --------
    >>> Dropped(7, "expired").why
    'expired'
    """

    id: int
    why: Why
    reward: float | None = None


class Deferred(NamedTuple):
    """An answer waits until the store has said who learns it; None: there is none, the decision expired.

    ``pending`` is the decision where it was made here; ``token`` what the store is asked with, so that a process that
    starts again gets the same word; ``expired`` that the answer is the reward stated for decisions that expire.

    Examples
    --------
    >>> Deferred(7, Answered(7, 0.8), None, "t").answer.reward
    0.8
    """

    id: int
    answer: Answered | None
    pending: Pending | None
    token: str
    expired: bool = False


class ArmChange(NamedTuple):
    """Arms changed: one was added, removed, forgotten (starts cold again), muted or unmuted; ``arms`` are those after.

    Examples
    --------
    >>> ArmChange("added", "c", ("a", "b", "c"), size=1.0, fault=0.1).arm
    'c'
    """

    what: Literal["added", "removed", "forgotten", "muted", "unmuted"]
    arm: str
    arms: tuple[str, ...]
    size: float = 1.0
    fault: float = 0.0


class Marked(NamedTuple):
    """A term was told something from outside, such as that an arm is down: ``details`` are its own, plain data.

    Where they name a ``state`` it stands until the next of the same term and ``arm``, and reaches workers that share a
    store; anything else happened on this worker alone.

    Examples
    --------
    >>> Marked("health", {"arm": "math", "state": "down"}).term
    'health'
    """

    term: str
    details: Mapping[str, Any]


class Note(NamedTuple):
    """What a term saw of an arm, for the other workers of a store: of two under one key the later one counts.

    Examples
    --------
    >>> Note("u17", "math", 1200.0, 5.0).value
    1200.0
    """

    key: str
    arm: str
    value: float
    time: float


Event = Decided | Answered | Dropped | Deferred | ArmChange | Marked
