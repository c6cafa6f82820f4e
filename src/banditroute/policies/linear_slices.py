"""The state of a linear policy copied arm by arm, while others go on learning."""

from collections.abc import Iterator

import numpy as np

from banditroute._core.kernels import derived, layout
from banditroute._core.typing import Arrays
from banditroute.policies.linear_state import BLOCKS, LinearState

__all__ = ["StateCopy", "changing", "learning"]

HELD = 65_536  # numbers copied at once: half a megabyte, some 200 microseconds
MOST = 64  # arms copied at once


class StateCopy:
    """A `LinearState` as it was when the copy began: `LinearState.to_arrays`, to the last bit.

    What is small is copied at the beginning. An arm is copied in its turn, or before it changes if that comes first:
    whoever is about to write into the buffer calls `changing`. Where another buffer takes its place (arms that come
    and go, a state that is loaded), this one changes no more.

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
        self._state = state
        small = {
            "header": state.buffer[: layout.HEADER].copy(),
            "arm": state.arm.copy(),
            "noise": state.noise.copy(),
        }
        small["arm"][:, layout.A_QUEUED] = 0.0  # what is queued goes into gram as an arm is copied
        rows = state.rows()
        large = {name: np.empty(block.shape) for name, block in rows.items()}
        self.arrays: Arrays = {name: (small | large)[name] for name in ("header", *BLOCKS)}
        self._pairs = [(large[name], block) for name, block in rows.items()]
        self._left = np.ones(state.arms, dtype=np.bool_)
        state.copies.append(self)

    def keep(self, arm: int) -> None:
        """Copy an arm, unless that was done."""
        if not self._left[arm]:
            return
        self._left[arm] = False
        derived.drain(self._state.buffer, arm)
        for copy, block in self._pairs:
            copy[arm] = block[arm]

    def keep_all(self) -> None:
        """Copy all that is left, in one go."""
        for arm in np.flatnonzero(self._left).tolist():
            self.keep(arm)

    def slices(self) -> Iterator[None]:
        """Copy arms, a few for each ``next()``."""
        state = self._state
        most = max(1, min(MOST, HELD // (2 * state.pack + 3 * state.pad)))
        for start in range(0, state.arms, most):
            for arm in range(start, min(start + most, state.arms)):
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
    """See that an arm is about to learn a reward of clock index `at` (< 0: the next), which may age or refresh all."""
    s = state.buffer
    if at < 0:
        at = int(s[layout.H_CLOCK])
    ages = s[layout.H_DISCOUNT] < 1.0 and at // int(s[layout.H_SPAN]) > s[layout.H_BUCKET]
    refreshes = s[layout.H_LEARNED] + 1.0 >= s[layout.H_REFRESH]
    changing(state, None if ages or refreshes else arm)
