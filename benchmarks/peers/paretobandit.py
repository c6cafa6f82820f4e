"""ParetoBandit's per-request policy, ``DisjointLinUCBPolicy``, without its text encoder and router around it.

Without forgetting its statistics are those of LinUCB. Its default alpha, 0.01, was tuned for another data
set, so the common alpha is used.
"""

import numpy as np
from pareto_bandit.policy import DisjointLinUCBPolicy

DISTRIBUTION = "paretobandit"
SETTING = "DisjointLinUCBPolicy, no forgetting"


class Peer:
    """`pareto_bandit.policy.DisjointLinUCBPolicy`; its arms are names."""

    def __init__(self, arms: int, dim: int, alpha: float, seed: int):
        self.names = [str(arm) for arm in range(arms)]
        self.policy = DisjointLinUCBPolicy(self.names, dim=dim, alpha=alpha, seed=seed)

    def select(self, x: np.ndarray) -> int:
        """Index of the chosen arm."""
        return int(self.policy.select_arm(x)[0])

    def update(self, arm: int, x: np.ndarray, reward: float) -> None:
        """One observation."""
        self.policy.update(self.names[arm], x, reward)
