"""Evidence on an arm made ready without the lock: what follows from it takes far longer than to put it in place."""

import numpy as np

from banditroute._core.kernels import derived, layout
from banditroute._core.typing import Floats
from banditroute.policies.evidence import Sums
from banditroute.policies.linear_slices import changing
from banditroute.policies.linear_state import LinearState

__all__ = ["SUMS", "ArmDraft"]

SUMS = [layout.A_COUNT, layout.A_WEIGHT, layout.A_SQUARE]
DERIVED = [layout.A_RADIUS, layout.A_ERROR, layout.A_TIGHTEN]


class ArmDraft:
    """The numbers of one arm after its sums were replaced: those of `LinearState` and a rebuild, to the last bit.

    Made with the lock held, O(dim); `derive` is called without it, O(dim^3); `apply` with it again, O(dim^2).

    Parameters
    ----------
    state : LinearState
    arm : int
    sums : dict
        ``gram``, ``moment`` and ``sums``, as of the current bucket; they must not change.

    Examples
    --------
    >>> state = LinearState(2, 1, ridge=1.0)
    >>> sums = {"gram": np.zeros(state.pack), "moment": np.ones(state.pad), "sums": np.ones(3)}
    >>> draft = ArmDraft(state, 1, sums)
    >>> draft.derive()
    >>> draft.apply(state), state.theta[:, 0]
    (True, array([0., 1.]))
    """

    def __init__(self, state: LinearState, arm: int, sums: Sums) -> None:
        self._state, self.arm, self._sums = state, arm, sums
        self._prior: Floats = state.prior[arm].copy()
        self._ridges: Floats = state.ridges[arm].copy()
        self._bucket = float(state.buffer[layout.H_BUCKET])
        self._spare: LinearState | None = None

    @property
    def count(self) -> float:
        """Rewards in the evidence."""
        return float(self._sums["sums"][0])

    def derive(self) -> None:
        """Derive inverse, coefficients and bounds."""
        state, sums = self._state, self._sums
        spare = LinearState(1, state.dim, ridge=1.0, diagonal=state.pack == state.pad, rows=1, width=1)
        spare.prior[0], spare.ridges[0] = self._prior, self._ridges
        spare.put(0, sums["gram"])
        spare.moment[0], spare.arm[0, SUMS] = sums["moment"], sums["sums"]
        derived.loosen(spare.buffer, 0)
        derived.rebuild(spare.buffer, 0)
        self._spare = spare

    def apply(self, state: LinearState) -> bool:
        """Put it in place; False, and nothing changed, where what it was derived from has changed since."""
        spare, arm = self._spare, self.arm
        if spare is None or state is not self._state or not self._holds():
            return False
        changing(state, arm)
        state.give_up()
        state.put(arm, self._sums["gram"])
        state.theta[arm], state.moment[arm], state.cov[arm] = spare.theta[0], spare.moment[0], spare.cov[0]
        state.arm[arm, SUMS], state.arm[arm, DERIVED] = spare.arm[0, SUMS], spare.arm[0, DERIVED]
        state.doubt_levels(arm)
        return True

    def _holds(self) -> bool:
        head = self._state.buffer
        return (
            head[layout.H_BUCKET] == self._bucket
            and np.array_equal(self._state.ridges[self.arm], self._ridges)
            and np.array_equal(self._state.prior[self.arm], self._prior)
        )
