"""The library itself: LinUCB with ridge 1 and no prior, the same algorithm as the yardstick."""

import numpy as np

from banditroute import LinUCB

DISTRIBUTION = "banditroute"
SETTING = "LinUCB, ridge 1, prior=None"


class Peer:
    """`banditroute.LinUCB` through its public methods."""

    def __init__(self, arms: int, dim: int, alpha: float, seed: int):
        self.policy = LinUCB(arms=arms, dim=dim, alpha=alpha, ridge=1.0, prior=None, rng=seed)

    def select(self, x: np.ndarray) -> int:
        """Index of the chosen arm."""
        return self.policy.select(x).arm

    def update(self, arm: int, x: np.ndarray, reward: float) -> None:
        """One observation."""
        self.policy.update(arm, x, reward)
