"""The yardstick: disjoint LinUCB as a careful numpy user writes it.

All widths come from one BLAS product over the stacked inverses; the update is a Sherman-Morrison step with
the O(d) form of the parameter update.
"""

import numpy as np

DISTRIBUTION = "numpy"
SETTING = "LinUCB, one BLAS scan, Sherman-Morrison"


class Peer:
    """Disjoint LinUCB, ridge 1, on dense (N, d, d) inverses."""

    def __init__(self, arms: int, dim: int, alpha: float, seed: int):
        self.alpha = alpha
        self.inverse = np.tile(np.eye(dim), (arms, 1, 1))
        self.theta = np.zeros((arms, dim))

    def scores(self, x: np.ndarray) -> np.ndarray:
        """Upper confidence bounds, (N,)."""
        arms, dim, _ = self.inverse.shape
        products = (self.inverse.reshape(arms * dim, dim) @ x).reshape(arms, dim)
        return self.theta @ x + self.alpha * np.sqrt(products @ x)

    def select(self, x: np.ndarray) -> int:
        """Index of the arm with the largest upper confidence bound; the first one of equals."""
        return int(self.scores(x).argmax())

    def update(self, arm: int, x: np.ndarray, reward: float) -> None:
        """One observation: O(d^2)."""
        inverse, theta = self.inverse[arm], self.theta[arm]
        v = inverse @ x
        scale = 1.0 + v @ x
        theta += (reward - theta @ x) / scale * v
        v /= np.sqrt(scale)  # the outer product of one vector with itself is symmetric to the last bit
        inverse -= np.outer(v, v)
