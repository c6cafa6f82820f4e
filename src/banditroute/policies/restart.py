"""Change detection that restarts one arm, and a little looking at arms that nobody plays."""

from collections import deque
from collections.abc import Mapping
from math import log, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.policies.base import Choice, Policy, Settings
from banditroute.policies.wrapper import Wrapper, whole

__all__ = ["Restarting"]

SHIFTS = np.array([0.125, 0.25, 0.5, 1.0])  # changes that are looked for, in noise scales
SIDES = np.array([[1.0], [-1.0]])  # up, down
CLIP = 4.0  # the largest surprise, in noise scales
WARM = 100  # surprises until their scale is trusted
MEMORY = 3000.0  # surprises that the scale remembers: more than it takes to see a change
LONGEST = 2000  # rewards that an arm can learn again after a restart
MOST = 0.1  # the largest share of looks


class Restarting(Wrapper):
    """Any policy, with a detector per arm that restarts it when its rewards stop being what was predicted.

    A surprise is ``z = ((r - mean) / sqrt(1 + width^2) - its average so far) / s``, clipped to [-4, 4], where s is the
    root mean square of all arms: the noise scale. For changes of ``d`` = 1/8, 1/4, 1/2 and 1 noise scales up and down
    (the sign e) each arm has a sum ``S <- max(0, S + d (e z - width) - log E[exp(d e z)])``, the expectation being the
    mean so far, at least ``exp(d^2 / 2)``. When one exceeds ``log(8e5 / alarms)`` the arm starts cold, and learns again
    from the feedback since that sum was last zero. Whatever the policy says, a request looks at arm a with chance
    ``min(0.1, look s / (what a is expected to earn less than the best, prices included)) / k``.

    Parameters
    ----------
    base : Policy
        A new policy.
    alarms : float
        Restarts that may happen by mistake in 100,000 answers.
    look : float
        What looking may cost a request, in noise scales, in [0, 1]; 0 leaves the choice to the policy. Only what is
        played can be seen to become better: without looks, or ``mix`` of the base, that is what the base explores.

    Notes
    -----
    Source: Page, "Continuous inspection schemes" (Biometrika 41, 1954), for the sums; Lorden (Annals of Mathematical
    Statistics 42, 1971) for the limit: a sum of log likelihood ratios exceeds h by mistake at most once in exp(h)
    observations in the mean, and there are eight sums; Liu, Lee and Shroff (AAAI 2018) for restarting single arms of a
    bandit; Foster and Rakhlin (ICML 2020) for chances inverse to gaps (equation numbers not checked against the text).
    A change of d noise scales is seen after about ``2 log(8e5 / alarms) / d^2`` answers of that arm: 27 where d is 1,
    440 where it is a quarter. What the estimate itself may be wrong by, one width, is no surprise. The limit assumes
    that surprises are as those before; estimated scales, a model that does not fit and late feedback are not covered,
    and restarts depend on the order in which feedback arrives. With shared evidence a restart counts on all replicas:
    what they had learned of the arm before is forgotten by its generation. A base that puts no chance on most arms, as
    `LinUCB` without ``mix``, has propensities above 0 for every open arm once 100 rewards are known.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy, rng = Restarting(LinUCB(2, 1, rng=0)), np.random.default_rng(0)
    >>> for t in range(500):
    ...     policy.update(0, [1.0], (0.8 if t < 400 else 0.1) + 0.1 * rng.standard_normal())
    >>> policy.restarts[0] > 0, policy.scores([1.0]).mean[0] < 0.2
    (np.True_, np.True_)
    """

    refuses_candidates = "it watches and restarts arms, and candidates come and go"
    _kept = ("sums", "runs", "bias", "restarts", "surprise", "moments", "recent")
    _settings = ("alarms", "look")

    def __init__(self, base: Policy, alarms: float = 1.0, look: float = 0.01) -> None:
        super().__init__(base)
        self.alarms = check.finite("alarms", alarms, low=0.0, high=1e5, open_low=True)
        self.look = check.unit("look", look)
        self.limit = log(1e5 * 2 * len(SHIFTS) / self.alarms)
        count = len(self.arms)
        self.sums = np.zeros((count, 2, len(SHIFTS)))  # up, down
        self.runs = np.zeros((count, 2, len(SHIFTS)))  # rewards since the sum was zero
        self.bias = np.zeros((count, 2))  # how many surprises since the start of the arm, and their sum
        self.restarts = np.zeros(count)
        self.surprise = np.zeros(2)  # how many count, and the mean of their squares
        self.moments = np.exp(np.tile(SHIFTS**2 / 2.0, (2, 1)))  # E[exp(d e z)]
        self._rows: list[deque[Floats]] = [deque(maxlen=LONGEST) for _ in self.arms]

    @property
    def recent(self) -> Floats:
        """Feedback that may be learned again, by arm and in order: rows of arm, reward, weight, index and context."""
        rows = [[a, *row] for a, mine in enumerate(self._rows) for row in mine]
        return np.array(rows, dtype=np.float64).reshape(-1, self._width + 4)

    @recent.setter
    def recent(self, rows: Floats) -> None:
        self._rows = [deque(rows[rows[:, 0] == a, 1:], maxlen=LONGEST) for a in range(len(self.arms))]

    # What is learned.

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        mean, spread = self.base.scores(x[: self.dim])
        width = float(spread[a])
        error = (reward - float(mean[a])) / sqrt(1.0 + width * width)
        super()._learn(a, x, reward, weight, at)
        seen, total = self.bias[a].tolist()
        self.bias[a] += 1.0, error
        if seen:  # what a model that does not fit is wrong by all the time is no change
            error -= total / seen
            width = sqrt(width * width + 1.0 / seen)
        size, square = self.surprise.tolist()
        size = min(size + 1.0, MEMORY)
        limit = CLIP * CLIP * square if size > WARM else np.inf  # a change must not pass for noise
        square += (min(error * error, limit) - square) / size
        self.surprise[:] = size, square
        if size <= WARM or square <= 0.0:
            return
        z = SIDES * min(max(error / sqrt(square), -CLIP), CLIP)
        self.moments += (np.exp(SHIFTS * z) - self.moments) / size
        noise = np.maximum(np.log(self.moments), SHIFTS**2 / 2.0)
        sums = self.sums[a] = np.maximum(self.sums[a] + SHIFTS * (z - width) - noise, 0.0)
        runs = self.runs[a] = np.where(sums > 0.0, np.minimum(self.runs[a] + 1.0, LONGEST), 0.0)
        rows = self._rows[a]
        rows.append(np.array([reward, weight, at, *x]))
        while len(rows) > runs.max():
            rows.popleft()
        if sums.max() > self.limit:
            self._restart(a, int(runs.flat[sums.argmax()]))

    def _restart(self, a: int, run: int) -> None:
        rows = list(self._rows[a])[-run:]
        self.base.forget(a)
        for row in rows:
            super()._learn(a, row[3:], float(row[0]), float(row[1]), int(row[2]))
        self._rows[a].clear()
        self.sums[a] = self.runs[a] = self.bias[a] = 0.0
        self.restarts[a] += 1.0

    # How it chooses.

    def _looks(self, x: ArrayLike, effective: Floats) -> Floats | None:
        """Return the chance of a look at each arm, (k,), or None before there are any."""
        size, square = self.surprise.tolist()
        if not self.look or size <= WARM or square <= 0.0:
            return None
        value = self.base.scores(x).mean - (effective - effective.min())
        gap = np.maximum(value.max() - value, 1e-300)
        return np.where(np.isfinite(gap), np.minimum(MOST, self.look * sqrt(square) / gap), 0.0) / len(value)

    def select(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Choice:
        """Choose as the base does, or look; one random number more than the base."""
        return self.select_priced(x, self.effective_prices(prices, eligible))

    def select_priced(self, x: ArrayLike, effective: Floats) -> Choice:
        """As `select`, for a caller that has folded prices and mask already."""
        looks = self._looks(x, effective)
        choice = self.base.select_priced(x, effective)
        drawn = float(self._rng.random()) if self.look else 1.0
        if looks is None:
            return choice
        total = looks.cumsum()
        if drawn >= total[-1]:
            return Choice(choice.arm, (1.0 - float(total[-1])) * choice.propensity + float(looks[choice.arm]))
        arm = int(np.searchsorted(total, drawn, side="right"))
        if choice.propensity != choice.propensity:  # the base was told not to work them out
            return Choice(arm, choice.propensity)
        return Choice(arm, float(self._with_looks(self._own(x, effective), looks)[arm]))

    def _own(self, x: ArrayLike, effective: Floats) -> Floats:
        """Return the propensities of the base, (k,)."""
        open_ = np.isfinite(effective)
        return self.base.propensities(x, prices=np.where(open_, effective, 0.0), eligible=open_)

    def _with_looks(self, own: Floats, looks: Floats) -> Floats:
        return np.asarray((1.0 - looks.cumsum()[-1]) * own + looks)

    def propensities(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Floats:
        """Return the probability of every arm, shape (k,)."""
        effective = self.effective_prices(prices, eligible)
        own, looks = self._own(x, effective), self._looks(x, effective)
        return own if looks is None else self._with_looks(own, looks)

    def redraw(self, kept: Floats) -> None:
        """Use up the random numbers of a decision that is replayed."""
        self.base.redraw(kept)
        if self.look:
            self._rng.random()

    @property
    def rule(self) -> str:
        """How a choice follows."""
        looks = f", and now and then looks at another arm, at a cost of at most {self.look:g} noise scales"
        return f"{self.base.rule}{looks if self.look else ''}"

    # States, arms.

    def load_state(
        self, header: Mapping[str, Any], arrays: Mapping[str, Floats], *, settings: Settings = "strict"
    ) -> None:
        """Continue from `to_state`; of a state of before 0.2.0 the detectors start anew."""
        if not {"moments", "runs"} & set(arrays) and "restarts" in arrays:
            blank = {name: np.zeros(shape) for name, shape in self._shapes(len(arrays["restarts"])).items()
                     if name != "recent"}  # fmt: skip
            blank["moments"] = np.exp(np.tile(SHIFTS**2 / 2.0, (2, 1)))
            blank["recent"] = np.zeros((0, self._width + 4))
            arrays = {**arrays, **blank, "restarts": arrays["restarts"]}
        super().load_state(header, arrays, settings=settings)

    def _shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        own = {"surprise": (2,), "moments": self.moments.shape, "recent": (-1, self._width + 4)}
        return super()._shapes(count) | own

    def _sound(self, own: Mapping[str, Floats], count: int) -> None:
        whole("recent", own["recent"][:, 0], count)
        whole("recent", own["recent"][:, 3], 2.0**53)
        whole("runs", own["runs"], LONGEST + 1)
        if not (own["moments"] > 0.0).all():
            raise ValueError("moments must be > 0")
        held = np.bincount(own["recent"][:, 0].astype(np.int64), minlength=count)
        if (own["runs"].reshape(count, -1).max(axis=1) > held).any():
            raise ValueError("recent must hold the rewards of every run")

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None."""
        self._rows = [deque(() if a is None else self._rows[a], maxlen=LONGEST) for a in keep]
        self.sums, self.runs = self._rows_kept(self.sums, keep), self._rows_kept(self.runs, keep)
        self.bias, self.restarts = self._rows_kept(self.bias, keep), self._rows_kept(self.restarts, keep)
        super().resize(keep)
