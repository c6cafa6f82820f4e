"""Decisions and what is kept of them until their feedback."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Decision", "Pending"]

Floats = NDArray[np.float64]


class Decision(NamedTuple):
    """One routed request.

    ``id`` is a random 64-bit integer; ``arm`` a name; ``propensity`` the probability with which it was chosen;
    ``hit`` whether it was resident; ``epoch`` the number of residency plans so far; ``time`` the clock, seconds.

    Examples
    --------
    >>> Decision(id=7, arm="math", propensity=1.0, hit=True, epoch=0, time=0.0).arm
    'math'
    """

    id: int
    arm: str
    propensity: float
    hit: bool
    epoch: int
    time: float


class Pending(NamedTuple):
    """What the ledger keeps of a decision until its feedback: all that learning needs.

    Examples
    --------
    >>> Pending("math", np.zeros(2), 1.0, 0.0, 3).at
    3
    """

    arm: str
    context: Floats
    propensity: float
    time: float
    at: int
