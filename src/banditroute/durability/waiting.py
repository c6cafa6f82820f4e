"""What is remembered of decisions on their way to a store, and of answers that wait for them."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from banditroute.records import Answered, Deferred, Extras, Feedback, Origin, Pending, Request

__all__ = ["BATCH", "Kept", "Patience", "Ready", "as_feedback", "batches"]

BATCH = 512  # decisions per round trip


class Kept(NamedTuple):
    """A decision on its way to the store.

    Examples
    --------
    >>> import numpy as np
    >>> Kept(Pending("a", np.ones(1), 1.0, 0.0, 0), 0).generation
    0
    """

    pending: Pending
    generation: int


class Patience(NamedTuple):
    """When to ask for a decision again, and until when.

    Examples
    --------
    >>> Patience(2.0, 0.02, 0.02).until
    2.0
    """

    until: float
    next: float
    pause: float


class Ready(NamedTuple):
    """A decision of another replica, and its answer, before it is taken.

    Examples
    --------
    >>> import numpy as np
    >>> Ready(Pending("a", np.ones(1), 1.0, 0.0, 0), "it", 0, Answered(7, 1.0)).owner
    'it'
    """

    pending: Pending
    owner: str
    generation: int
    answer: Answered


def as_feedback(answer: Answered, pending: Pending, origin: Origin) -> Feedback:
    """Return an answer as feedback on the decision that it answers.

    Examples
    --------
    >>> import numpy as np
    >>> as_feedback(Answered(7, 1.0), Pending("a", np.ones(1), 1.0, 0.0, 3), "here").request.at
    3
    """
    extras = None
    if pending.weights is not None or pending.session is not None:
        extras = Extras(weights=pending.weights, session=pending.session)
    request = Request(pending.context, pending.at, extras)
    key, reward, cost, seconds, failed, *_ = answer
    return Feedback(key, pending.arm, request, reward, cost, seconds, failed, origin)


def batches(events: Iterable[Deferred]) -> Iterator[list[Deferred]]:
    """Yield events by as many as go in one round trip.

    Examples
    --------
    >>> len(list(batches([Deferred(i, None, None, "t") for i in range(1000)])))
    2
    """
    waiting = list(events)
    for start in range(0, len(waiting), BATCH):
        yield waiting[start : start + BATCH]
