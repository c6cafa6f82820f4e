"""LinUCB as a textbook would write it in numpy: all evidence kept, every matrix inverted afresh."""

import numpy as np


class NaiveLinUCB:
    """Textbook LinUCB with prior means, weights, and discounting by buckets straight from its definition.

    Evidence of a decision made in bucket j weighs ``discount ** (span * (now - j))``, now being the latest bucket that a
    decision or feedback belonged to.
    """

    def __init__(self, arms, dim, alpha, ridge, prior=None, discount=1.0, span=1):
        self.arms, self.dim, self.alpha, self.ridge = arms, dim, alpha, ridge
        self.prior = np.zeros((arms, dim)) if prior is None else np.asarray(prior, dtype=float)
        self.discount, self.span = discount, span
        self.evidence = [[] for _ in range(arms)]
        self.clock = self.bucket = 0

    def advance(self, at):
        self.bucket = max(self.bucket, at // self.span)

    def update(self, arm, x, reward, weight=1.0, at=None):
        at = self.clock if at is None else at
        self.clock = max(self.clock, at + 1)
        self.advance(at)
        self.evidence[arm].append((np.array(x, dtype=float), reward, weight, at // self.span))

    def sums(self, arm):
        """Return S, b, the weight and the sum of weighted squared rewards."""
        S, b, total, square = np.zeros((self.dim, self.dim)), np.zeros(self.dim), 0.0, 0.0
        for x, r, w, bucket in self.evidence[arm]:
            w = w * self.discount ** (self.span * (self.bucket - bucket))
            S += w * np.outer(x, x)
            b += w * r * x
            total += w
            square += w * r * r
        return S, b, total, square

    def solution(self, arm):
        """Return cov and theta."""
        S, b, _, _ = self.sums(arm)
        A = self.ridge * np.eye(self.dim) + S
        return np.linalg.inv(A), np.linalg.solve(A, b + self.ridge * self.prior[arm])

    def scores(self, x):
        both = [self.solution(a) for a in range(self.arms)]
        return np.array([theta @ x for _, theta in both]), np.array([np.sqrt(x @ C @ x) for C, _ in both])

    def index(self, x, prices=None):
        mean, std = self.scores(x)
        return mean + self.alpha * std - (0.0 if prices is None else prices)


class PlainLinUCB:
    """The loop most people write: one inverse per arm, recomputed from A after each reward; ties to the first arm."""

    def __init__(self, arms, dim, alpha, ridge):
        self.alpha = alpha
        self.A = np.array([ridge * np.eye(dim)] * arms)
        self.inverse = np.array([np.eye(dim) / ridge] * arms)
        self.b = np.zeros((arms, dim))
        self.theta = np.zeros((arms, dim))

    def index(self, x):
        return self.theta @ x + self.alpha * np.sqrt(np.einsum("i,aij,j->a", x, self.inverse, x))

    def update(self, arm, x, reward):
        self.A[arm] += np.outer(x, x)
        self.b[arm] += reward * x
        self.inverse[arm] = np.linalg.inv(self.A[arm])
        self.theta[arm] = self.inverse[arm] @ self.b[arm]


def differences(policy, stream, alpha, ridge, tie=1e-9):
    """Run both on a stream; return (real differences, ties decided otherwise, largest gap of a tie).

    Where the two choose differently the scores of both arms are compared, in numpy: a gap below `tie` is a tie to
    rounding, and the plain loop follows the choice of the policy so that both go on with the same evidence.
    """
    plain = PlainLinUCB(len(stream.arms), stream.dim, alpha, ridge)
    real = ties = 0
    largest = 0.0
    for x, rewards in zip(stream.contexts, stream.rewards, strict=True):
        arm = policy.select(x).arm
        index = plain.index(x)
        if arm != index.argmax():
            gap = index.max() - index[arm]
            largest = max(largest, gap)
            real += gap > tie
            ties += gap <= tie
        policy.update(arm, x, rewards[arm])
        plain.update(arm, x, rewards[arm])
    return real, ties, largest
