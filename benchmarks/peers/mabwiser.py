"""MABWiser's LinUCB. It takes one-row matrices and re-inverts the arm's matrix at every update."""

import numpy as np
from mabwiser.mab import MAB, LearningPolicy

DISTRIBUTION = "mabwiser"
SETTING = "LinUCB, l2_lambda 1"


class Peer:
    """`mabwiser.mab.MAB` with the LinUCB learning policy."""

    def __init__(self, arms: int, dim: int, alpha: float, seed: int):
        self.fitted = False
        policy = LearningPolicy.LinUCB(alpha=alpha, l2_lambda=1.0)
        self.mab = MAB(arms=list(range(arms)), learning_policy=policy, seed=seed)

    def select(self, x: np.ndarray) -> int:
        """Index of the chosen arm; arm 0 before the first update, when the library cannot predict yet."""
        return self.mab.predict(x[None]) if self.fitted else 0

    def update(self, arm: int, x: np.ndarray, reward: float) -> None:
        """One observation."""
        self.mab.partial_fit([arm], [reward], x[None])
        self.fitted = True

    def learn(self, arms: np.ndarray, contexts: np.ndarray, rewards: np.ndarray) -> None:
        """Add a history in one call: the same sums, without one pass over all arms for each observation."""
        self.mab.partial_fit(arms, rewards, contexts)
        self.fitted = True
