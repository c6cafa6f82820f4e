"""Change detection that restarts one arm."""

from collections.abc import Mapping

import numpy as np

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.policies.base import Policy
from banditroute.policies.wrapper import Wrapper, moved, whole

__all__ = ["Restarting"]


class Restarting(Wrapper):
    """Any policy, with a detector per arm that restarts it when its rewards stop being what was predicted.

    Per arm two cumulative sums of standardised surprises
    ``z = ((r - mean) / sqrt(1 + width^2) - their average so far) / scale``, clipped to [-4, 4]:
    ``up <- max(0, up + z - drift)`` and ``down <- max(0, down - z - drift)``. When one exceeds `threshold` the arm
    starts cold, and learns again from the feedback since that sum was last zero.

    Parameters
    ----------
    base : Policy
        A new policy. Only what is played can be seen to change: give it ``mix`` > 0 if arms may become better.
    threshold : float
        Sum of standardised surprises at which an arm restarts.
    drift : float
        Surprise per observation that counts as none.
    warm : int
        Rewards that an arm learns before its predictions are trusted, after each start.

    Notes
    -----
    Source: Page, "Continuous inspection schemes" (Biometrika 41, 1954), for the sums; Liu, Lee and Shroff (AAAI 2018)
    for restarting single arms of a bandit (equation numbers not checked against the text). The scale is the root mean
    square surprise over all arms, which a change inflates, hence the clipping. In 20,000 rewards of five stationary
    arms, normal or 0 / 1, the defaults made no mistake. The bounds assume piecewise constant rewards, forced uniform
    exploration and changes far enough apart; estimated predictions, contexts and late feedback are not covered, and
    restarts depend on the order in which feedback arrives. With shared evidence a restart counts on all replicas: what
    they had learned of the arm before is forgotten by its generation.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy, rng = Restarting(LinUCB(2, 1, rng=0)), np.random.default_rng(0)
    >>> for t in range(500):
    ...     policy.update(0, [1.0], (0.8 if t < 400 else 0.1) + 0.1 * rng.standard_normal())
    >>> policy.restarts[0] > 0, policy.scores([1.0]).mean[0] < 0.2
    (np.True_, np.True_)
    """

    _kept = ("sums", "seen", "bias", "surprise", "restarts", "recent")
    _settings = ("threshold", "drift", "warm")

    def __init__(self, base: Policy, threshold: float = 10.0, drift: float = 0.5, warm: int = 20) -> None:
        super().__init__(base)
        self.threshold = check.finite("threshold", threshold, low=0.0, high=1e30, open_low=True)
        self.drift = check.finite("drift", drift, low=0.0, high=1e30)
        self.warm = check.integer("warm", warm, low=0)
        count = len(self.arms)
        self.sums = np.zeros((count, 2))  # up, down
        self.seen = np.zeros(count)
        self.bias = np.zeros(count)  # sum of surprises since the start of the arm
        self.restarts = np.zeros(count)
        self.surprise = np.zeros(2)  # decayed weight and sum of squares over all arms
        self.recent = np.zeros((0, self._width + 5))  # side, arm, reward, weight, clock index, context

    def _learn(self, a: int, x: Floats, reward: float, weight: float, at: int) -> None:
        mean, width = self.base.scores(x[: self.dim])
        error = (reward - float(mean[a])) / float(np.sqrt(1.0 + width[a] ** 2))
        super()._learn(a, x, reward, weight, at)
        bias = self.bias[a] / max(self.seen[a], 1.0)  # of a model that does not fit: no change, however large
        self.bias[a] += error
        self.seen[a] += 1.0
        if self.seen[a] <= self.warm:
            return
        error -= bias
        size, squares = self.surprise
        scale = np.sqrt(squares / size) if size >= self.warm else np.inf
        limit = min(error * error, 9.0 * scale * scale)
        self.surprise = 0.999 * self.surprise + [1.0, limit]
        z = float(np.clip(error / scale, -4.0, 4.0)) if scale > 0.0 else 0.0
        for side, signed in enumerate((z, -z)):
            self.sums[a, side] = max(0.0, self.sums[a, side] + signed - self.drift)
            if self.sums[a, side] == 0.0:
                self.recent = self.recent[(self.recent[:, 0] != side) | (self.recent[:, 1] != a)]
            else:
                self.recent = np.vstack([self.recent, [[side, a, reward, weight, at, *x]]])
        if self.sums[a].max() > self.threshold:
            self._restart(a, int(self.sums[a].argmax()))

    def _restart(self, a: int, side: int) -> None:
        rows = self.recent[(self.recent[:, 0] == side) & (self.recent[:, 1] == a)]
        self.base.forget(a)
        for row in rows:
            super()._learn(a, row[5:], float(row[2]), float(row[3]), int(row[4]))
        self.recent = self.recent[self.recent[:, 1] != a]
        self.sums[a] = 0.0
        self.seen[a] = self.bias[a] = 0.0
        self.restarts[a] += 1.0

    def _shapes(self, count: int) -> dict[str, tuple[int, ...]]:
        return super()._shapes(count) | {"surprise": (2,), "recent": (-1, self._width + 5)}

    def _sound(self, own: Mapping[str, Floats], count: int) -> None:
        whole("recent", own["recent"][:, 0], 2)
        whole("recent", own["recent"][:, 1], count)
        whole("recent", own["recent"][:, 4], 2.0**53)

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``, or start cold where that is None."""
        self.recent = moved(self.recent, keep, column=1)
        self.sums, self.seen = self._rows_kept(self.sums, keep), self._rows_kept(self.seen, keep)
        self.bias, self.restarts = self._rows_kept(self.bias, keep), self._rows_kept(self.restarts, keep)
        super().resize(keep)
