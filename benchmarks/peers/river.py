"""river's LinUCBDisjoint. Contexts are dictionaries; the width has no alpha, it is sqrt(1 + x' A^-1 x)."""

import numpy as np
from river.bandit import LinUCBDisjoint

DISTRIBUTION = "river"
SETTING = "LinUCBDisjoint, defaults (no alpha)"


class Peer:
    """`river.bandit.LinUCBDisjoint` with its defaults."""

    def __init__(self, arms: int, dim: int, alpha: float, seed: int):
        self.arms = list(range(arms))
        self.features = list(range(dim))
        self.policy = LinUCBDisjoint(seed=seed)

    def select(self, x: np.ndarray) -> int:
        """Index of the chosen arm."""
        return self.policy.pull(self.arms, dict(zip(self.features, x.tolist(), strict=True)))

    def update(self, arm: int, x: np.ndarray, reward: float) -> None:
        """One observation."""
        self.policy.update(arm, dict(zip(self.features, x.tolist(), strict=True)), reward)
