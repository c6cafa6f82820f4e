"""Forgetting by a sliding window, widths that grow while an arm rests, and learning at few moments only."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.kernels import layout
from banditroute._core.typing import Floats
from banditroute.policies.base import Policy
from banditroute.policies.linear import LinearPolicy
from banditroute.policies.wrapper import Wrapper, moved

__all__ = ["RarelySwitching", "SlidingWindow", "Stale"]

LOOSEST = 200.0  # largest inflation of a variance, as in ParetoBandit


class SlidingWindow(Wrapper):
    """Any policy, learning from its latest decisions only.

    Parameters
    ----------
    base : Policy
        A new policy; it belongs to the window from then on.
    window : int
        Decisions that count. In buckets of a tenth: at clock index t those of the last ten whole buckets and the
        current one do, so between 1 and 1.1 windows.

    Notes
    -----
    Source: Garivier and Moulines (ALT 2011) without context; Cheung, Simchi-Levi and Zhu (AISTATS 2019) for linear arms
    (equation numbers not checked against the text). At the end of a bucket the policy is learned afresh from what the
    window holds, with nothing subtracted, so rounding does not pile up: about ten updates per decision in all, O(window
    dim) memory, and nothing at all before the window is full. The bounds need a window matched to the speed of change,
    which nobody knows; estimated scales and the pooled prior of `LinUCB` are not covered. An arm that left the window
    is cold, and explored again.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = SlidingWindow(LinUCB(2, 1, rng=0), window=100)
    >>> for t in range(300):
    ...     policy.update(0, [1.0], float(t < 150))
    >>> bool(policy.scores([1.0]).mean[0] < 0.01)
    True
    """

    _kept = ("lessons", "bucket")

    def __init__(self, base: Policy, window: int = 2000) -> None:
        super().__init__(base)
        self.window = check.integer("window", window, low=1)
        self.span = max(1, self.window // 10)
        self._cold = base.copy()
        self._size = base.dim + 4  # arm, reward, weight, clock index, context
        self._store = np.zeros((64, self._size))
        self._held = 0
        self.bucket = np.array(0.0)

    @property
    def lessons(self) -> Floats:
        """Feedback that counts, in order of arrival: rows of arm, reward, weight, clock index and context."""
        return self._store[: self._held]

    @lessons.setter
    def lessons(self, rows: Floats) -> None:
        self._store, self._held = np.array(rows).reshape(-1, self._size), len(rows)

    def _oldest(self) -> float:
        return (float(self.bucket) - -(-self.window // self.span)) * self.span

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        self._move(at)
        if at < self._oldest():
            return
        if self._held == len(self._store):
            self._store = np.concatenate([self._store, np.zeros((max(64, self._held), self._size))])
        self._store[self._held, :4] = a, reward, weight, at
        self._store[self._held, 4:] = x
        self._held += 1
        self.base.update(a, x, reward, weight=weight, at=at)

    def _move(self, at: int) -> None:
        """Enter the bucket of clock index `at`; learn afresh if that leaves something behind."""
        if at // self.span <= self.bucket:
            return
        self.bucket = np.array(float(at // self.span))
        stays = self.lessons[:, 3] >= self._oldest()
        if not stays.all():
            self._store = self.lessons[stays]
            self._held = len(self._store)
            self._relearn()

    def _relearn(self) -> None:
        fresh = self._cold.copy()
        fresh.resize([None] * len(self.arms))
        fresh.rename(self.arms)
        for row in self.lessons:
            fresh.update(int(row[0]), row[4:], row[1], weight=row[2], at=int(row[3]))
        if isinstance(self.base, LinearPolicy):
            _take_over_noise(fresh, self.base)
        else:
            fresh._rng.bit_generator.state = self.base._rng.bit_generator.state
        self.base = fresh
        self._rng = fresh._rng

    def advance(self, at: int) -> None:
        """Forget what clock index `at` leaves behind."""
        self._move(at)
        super().advance(at)

    def rewind(self) -> None:
        """Start a new clock at index 0: what was learned so far counts as learned just now."""
        self.lessons[:, 3] = 0.0
        super().rewind()
        self.bucket = np.array(0.0)

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None."""
        self._store = moved(self.lessons, keep)
        self._held = len(self._store)
        super().resize(keep)


def _take_over_noise(fresh: Any, old: LinearPolicy) -> None:
    """Continue the random numbers of `old`, drawn ahead or not."""
    fresh._rng.bit_generator.state = old._rng.bit_generator.state
    fresh.state.noise[:] = old.state.noise
    fresh.buffer[layout.H_CURSOR] = old.buffer[layout.H_CURSOR]


class Stale(Wrapper):
    """A linear policy whose widths grow while an arm rests: ``std_a / sqrt(max(discount^rest, 1 / 200))``.

    Parameters
    ----------
    base : LinearPolicy
        A new `LinUCB`, `LinTS` or `EpsilonGreedy`; forgetting itself or not.
    discount : float
        In (0, 1]: with 0.997 the variance of an arm doubles in 231 decisions; 1 changes nothing.

    Notes
    -----
    Source: ParetoBandit (arXiv 2604.00136; equation numbers not checked against the text), whose authors state that no
    sqrt(T) guarantee survives the inflation: one known to be bad is tried again and again, at a rate that the bounded
    factor keeps low. A rest counts from the newest decision whose reward is known to the newest one of all, so pending
    feedback does not hide an arm. The means do not change; `scores` reports widths without the inflation.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = Stale(LinUCB(2, 1, alpha=1.0, ridge=1.0, rng=0), discount=0.9)
    >>> for arm in [0] * 20 + [1] * 30:
    ...     policy.update(arm, [1.0], 0.5)
    >>> policy.inflation.round(1)
    array([4.9, 1. ])
    """

    _kept = ("last",)

    def __init__(self, base: LinearPolicy, discount: float = 0.997) -> None:
        if not isinstance(base, LinearPolicy):
            raise TypeError(f"base must be a linear policy, got {type(base).__name__}")
        super().__init__(base)
        self.linear = base
        self.discount = check.finite("discount", discount, low=0.0, high=1.0, open_low=True)
        self.span = base.span or max(1, round(0.1 / (1.0 - self.discount)) if self.discount < 1.0 else 0)
        self.last = np.full(len(self.arms), -1.0)

    @property
    def inflation(self) -> Floats:
        """Factor of the width of each arm, shape (k,)."""
        rest = np.maximum(self.clock - 1 - self.last, 0.0)
        return np.asarray(1.0 / np.sqrt(np.maximum(self.discount**rest, 1.0 / LOOSEST)))

    def _spread(self) -> None:
        self.linear.state.arm[:, layout.A_SPREAD] = self.inflation

    def update(
        self, arm: int | str, x: ArrayLike, reward: float, *, weight: float = 1.0, at: int | None = None
    ) -> None:
        """Learn one reward."""
        when = self.clock if at is None else at
        super().update(arm, x, reward, weight=weight, at=at)
        a = self.index(arm)
        self.last[a] = max(self.last[a], when)
        self._spread()

    def advance(self, at: int) -> None:
        """Let the arms rest until clock index `at`."""
        super().advance(at)
        self._spread()

    def rewind(self) -> None:
        """Start a new clock at index 0."""
        self.last -= self.clock
        super().rewind()

    def load_state(self, header: Any, arrays: Any) -> None:
        """Continue from `to_state`."""
        super().load_state(header, arrays)
        self._spread()

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None."""
        self.last = self._rows_kept(self.last, keep, float(self.clock - 1))
        super().resize(keep)


class RarelySwitching(Wrapper):
    """A linear policy that learns in batches: feedback waits until it could double the determinant of an arm.

    Parameters
    ----------
    base : Policy
        A policy whose ``std`` is ``sqrt(x' A^-1 x)``.
    growth : float
        Learn everything that waits once ``sum log(1 + weight x' A_a^-1 x)`` over what waits exceeds ``log(1 + growth)``
        for some arm.

    Notes
    -----
    Source: Abbasi-Yadkori, Pal and Szepesvari, "Improved algorithms for linear stochastic bandits" (NIPS 2011),
    the rule of its section "Saving computation": refresh when det A exceeds 1 + growth times that of the last refresh.
    Widths come from the A in use, so the sum bounds the growth of log det A: learning
    happens no later than the paper's rule would, O(d log T) times in all, at a regret that grows by sqrt(1 + growth).
    That holds for fixed ridge and width. `advance` and `flush` learn at once, off the request path.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = RarelySwitching(LinUCB(2, 1, ridge=1.0, rng=0))
    >>> for _ in range(1000):
    ...     policy.update(0, [1.0], 1.0)
    >>> policy.switches < 20
    True
    """

    _kept = ("waiting", "gain")
    _passed = ()

    def __init__(self, base: Policy, growth: float = 1.0) -> None:
        super().__init__(base)
        self.growth = check.finite("growth", growth, low=0.0, high=1e30)
        self.waiting = np.zeros((0, self.dim + 4))
        self.gain = np.zeros(len(self.arms))
        self.switches = 0

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        self.waiting = np.vstack([self.waiting, [[a, reward, weight, at, *x]]])
        self.gain[a] += np.log1p(weight * self.base.scores(x).std[a] ** 2)
        if self.gain[a] > np.log1p(self.growth):
            self.flush()

    def flush(self) -> None:
        """Learn everything that waits."""
        for row in self.waiting:
            self.base.update(int(row[0]), row[4:], float(row[1]), weight=float(row[2]), at=int(row[3]))
        self.switches += len(self.waiting) > 0
        self.waiting = self.waiting[:0]
        self.gain = np.zeros(len(self.arms))

    def advance(self, at: int) -> None:
        """Learn everything that waits, and tell the base the clock index."""
        self.flush()
        super().advance(at)

    def rewind(self) -> None:
        """Start a new clock at index 0."""
        self.flush()
        super().rewind()

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None."""
        self.waiting = moved(self.waiting, keep)
        self.gain = self._rows_kept(self.gain, keep)
        super().resize(keep)
