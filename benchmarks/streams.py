"""Streams of contexts and rewards that every peer sees, made from a seed with numpy alone.

Nothing here imports banditroute: the same file is imported by workers in other virtual environments, and
equal seeds give equal streams in all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CENTRES = 12
SPREAD = 0.15 * np.sqrt(10.0)  # length of the scatter around a centre: 0.15 per coordinate in 10 dimensions
NOISE = 0.1


@dataclass(frozen=True)
class Stream:
    """A linear bandit problem played for T requests.

    The noise of a request is the same whichever arm is played, so that policies can be compared in pairs.

    Parameters
    ----------
    contexts
        (T, d) float64.
    theta
        (N, d) float64, true parameters; the mean reward of arm a is ``theta[a] @ x``.
    noise
        (T,) float64, added to the mean.
    """

    contexts: np.ndarray
    theta: np.ndarray
    noise: np.ndarray

    def reward(self, t: int, arm: int) -> float:
        """Reward of `arm` at request `t`."""
        return float(self.contexts[t] @ self.theta[arm] + self.noise[t])

    def regret(self, arms: np.ndarray) -> float:
        """Cumulative regret in means of playing `arms` (T,) against the best arm of each request."""
        means = self.contexts[: len(arms)] @ self.theta.T
        return float(np.sum(means.max(axis=1) - means[np.arange(len(arms)), arms]))


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clustered(arms: int, dim: int, steps: int, seed: int) -> Stream:
    """Contexts around 12 centres of Zipf popularity; each arm is good near one centre.

    The scatter around a centre has the same length (0.47) in every dimension, so that clusters stay clusters.

    Examples
    --------
    >>> stream = clustered(arms=15, dim=32, steps=100, seed=0)
    >>> stream.contexts.shape, stream.theta.shape, stream.noise.shape
    ((100, 32), (15, 32), (100,))
    """
    rng = np.random.default_rng(seed)
    centres = _unit(rng.standard_normal((CENTRES, dim)))
    popularity = 1.0 / np.arange(1, CENTRES + 1)
    which = rng.choice(CENTRES, size=steps, p=popularity / popularity.sum())
    scatter = SPREAD / np.sqrt(dim) * rng.standard_normal((steps, dim))
    homes = np.concatenate([rng.permutation(CENTRES), rng.integers(CENTRES, size=max(0, arms - CENTRES))])[
        :arms
    ]
    utility = rng.uniform(0.7, 1.0, size=(arms, 1))
    theta = 0.55 * utility * centres[homes] + 0.10 * rng.standard_normal((arms, dim)) / np.sqrt(dim)
    return Stream(_unit(centres[which] + scatter), theta, NOISE * rng.standard_normal(steps))


def isotropic(arms: int, dim: int, steps: int, seed: int) -> Stream:
    """Contexts and parameters uniform on the unit sphere: no structure for a pruned search to exploit.

    Examples
    --------
    >>> stream = isotropic(arms=3, dim=4, steps=5, seed=0)
    >>> stream.regret(np.argmax(stream.contexts @ stream.theta.T, axis=1))
    0.0
    """
    rng = np.random.default_rng(seed)
    theta = _unit(rng.standard_normal((arms, dim)))
    contexts = _unit(rng.standard_normal((steps, dim)))
    return Stream(contexts, theta, NOISE * rng.standard_normal(steps))


STREAMS = {"clustered": clustered, "isotropic": isotropic}
