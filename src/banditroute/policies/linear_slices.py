"""The state of a linear policy copied arm by arm, while others go on learning."""

from collections.abc import Iterator

import numpy as np

from banditroute._core.kernels import layout
from banditroute._core.typing import Arrays
from banditroute.policies.linear_state import LinearState

__all__ = ["StateCopy", "changing", "learning", "upkeeping"]

HELD = 65_536  # numbers copied at once: half a megabyte, some 200 microseconds
MOST = 64  # arms copied at once


class StateCopy:
    """A `LinearState` as it was when the copy began: `LinearState.to_arrays`, to the last bit.

    What is small is copied at the beginning. An arm is copied in its turn, or before it changes if that comes first:
    whoever is about to write into the buffer calls `changing`. Its vectors and its matrices are kept apart, for a
    refresh that only moves the prior changes the vectors of many arms at once. Where another buffer takes the place
    of this one (arms that come and go, a state that is loaded), this one changes no more.

    Parameters
    ----------
    state : LinearState

    Examples
    --------
    >>> state = LinearState(3, 2, ridge=1.0)
    >>> copy = StateCopy(state)
    >>> changing(state, 1)
    >>> state.theta[1] = 5.0
    >>> for _ in copy.slices():
    ...     pass
    >>> copy.end()
    >>> copy.arrays["theta"].max()
    np.float64(0.0)
    """

    def __init__(self, state: LinearState) -> None:
        self._state, self._arms = state, state.arms
        vectors, matrices = state.rows()
        large = {name: np.empty(block.shape) for name, block in (vectors | matrices).items()}
        self.arrays: Arrays = {name: large.get(name, small) for name, small in state.small().items()} | large
        self._vectors = [(large[name], block) for name, block in vectors.items()]
        self._matrices = [(large[name], block) for name, block in matrices.items() if name != "queue"]
        self._queue = large["queue"], matrices["queue"]
        self._used = state.arm[:, layout.A_QUEUED].astype(np.int64) * state.pad
        self._left = np.ones((2, state.arms), dtype=np.bool_)  # vectors, matrices
        state.copies.append(self)

    def keep_vectors(self, arm: int) -> None:
        """Copy the vectors of an arm, unless that was done."""
        if arm < self._arms and self._left[0, arm]:
            self._left[0, arm] = False
            for copy, block in self._vectors:
                copy[arm] = block[arm]

    def keep(self, arm: int) -> None:
        """Copy an arm, unless that was done."""
        self.keep_vectors(arm)
        if arm < self._arms and self._left[1, arm]:
            self._left[1, arm] = False
            for copy, block in self._matrices:
                copy[arm] = block[arm]
            copy, block = self._queue
            used = self._used[arm]
            copy[arm, :used], copy[arm, used:] = block[arm, :used], 0.0

    def keep_all(self) -> None:
        """Copy all that is left, in one go."""
        for arm in np.flatnonzero(self._left.any(axis=0)).tolist():
            self.keep(arm)

    def slices(self) -> Iterator[None]:
        """Copy arms, a few for each ``next()``."""
        state = self._state
        most = max(1, min(MOST, HELD // (2 * state.pack + (4 + layout.QUEUE) * state.pad)))
        for start in range(0, self._arms, most):
            for arm in range(start, min(start + most, self._arms)):
                self.keep(arm)
            yield

    def end(self) -> None:
        """Have nobody call `keep` any more."""
        if self in self._state.copies:
            self._state.copies.remove(self)


def changing(state: LinearState, arm: int | None = None) -> None:
    """See that this arm, or all of them, are about to change: what is being copied of them is copied first."""
    for copy in state.copies:
        if arm is None:
            copy.keep_all()
        elif 0 <= arm < state.arms:
            copy.keep(arm)


def learning(state: LinearState, arm: int, at: int) -> None:
    """See that an arm is about to learn a reward of clock index `at` (< 0: the next), which may age all of them."""
    s = state.buffer
    if at < 0:
        at = int(s[layout.H_CLOCK])
    ages = s[layout.H_DISCOUNT] < 1.0 and at // int(s[layout.H_SPAN]) > s[layout.H_BUCKET]
    changing(state, None if ages else arm)


def upkeeping(state: LinearState) -> None:
    """See that a slice of upkeep is about to run: the arms that it can reach are copied before."""
    s, errors = state.buffer, state.arm[:, layout.A_ERROR]
    for arm in np.flatnonzero(errors > layout.SEVERE).tolist():
        changing(state, arm)
    phase = s[layout.H_PHASE]
    if phase == layout.MEND:
        changing(state, int(s[layout.H_JOB_ARM]))
    elif phase == layout.IDLE and s[layout.H_LEARNED] < s[layout.H_REFRESH]:
        for arm in np.flatnonzero(errors > layout.REBUILD_ERROR)[:1].tolist():
            changing(state, arm)
    elif phase == layout.MOVE:
        _moving(state, int(s[layout.H_JOB_ARM]), s[layout.H_MOVE] > 0.0)
    else:  # it may get as far as to move arms, in whichever way
        _moving(state, 0, True)
        _moving(state, 0, False)


def _moving(state: LinearState, first: int, inverts: bool) -> None:
    n, size = state.pad, float(state.pack)
    budget = state.buffer[layout.H_BUDGET]
    for arm in range(first, state.arms):
        if budget <= 0.0:
            return
        for copy in state.copies:
            if inverts:
                copy.keep(arm)
            else:
                copy.keep_vectors(arm)
        # Less than what the kernel counts for it. An arm with nothing in gram needs no inverse.
        few = state.arm[arm, layout.A_COUNT] == state.arm[arm, layout.A_QUEUED]
        budget -= size if not inverts else 3.0 * size if few or size == n else 0.5 * n**3
