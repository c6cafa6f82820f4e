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


class NaiveScales:
    """The pooled prior and the automatic scales as docs/algorithms.md defines them, from all feedback kept."""

    def __init__(
        self, arms, dim, *, alpha="auto", ridge="auto", prior="pooled", diagonal=False, sampling=False
    ):
        self.arms, self.dim, self.diagonal, self.sampling = arms, dim, diagonal, sampling
        self.auto_alpha, self.auto_ridge, self.pooled = alpha == "auto", ridge == "auto", prior == "pooled"
        self.alpha = 0.5 if self.auto_alpha else alpha
        self.ridge = self.level_ridge = 1.0 if self.auto_ridge else ridge
        self.ridges, self.prior, self.cold = np.full(dim, self.ridge), np.zeros(dim), 0.0
        self.few, self.top = 0, 0.0
        self.shares = np.ones(dim)  # what a component counts in the width of a bonus
        self.feedback = [[] for _ in range(arms)]

    def update(self, arm, x, reward):
        self.feedback[arm].append((x, reward))

    def sums(self, arm):
        X = np.array([x for x, _ in self.feedback[arm]]).reshape(-1, self.dim)
        r = np.array([r for _, r in self.feedback[arm]])
        S = X.T @ X
        return (np.diag(np.diag(S)) if self.diagonal else S), X.T @ r

    def solution(self, arm):
        S, b = self.sums(arm)
        A = np.diag(self.ridges) + S
        return np.linalg.inv(A), np.linalg.solve(A, b + self.ridges * self.prior)

    def bonus(self, x):
        x = self.shares * x
        width = np.array([np.sqrt(x @ self.solution(a)[0] @ x) for a in range(self.arms)])
        return self.alpha * width + self.cold * np.minimum(width**2 / (x**2 / self.ridges).sum(), 1.0)

    def index(self, x):
        """What the choice maximises: the mean, or more for an arm that has hardly answered, and the bonus."""
        mean = np.array([x @ self.solution(a)[1] for a in range(self.arms)])
        seldom = np.array([len(arm) for arm in self.feedback]) < self.few
        return np.where(seldom, np.maximum(mean, self.top), mean) + self.bonus(x)

    def refresh(self):
        X = np.array([x for arm in self.feedback for x, _ in arm])
        r = np.array([r for arm in self.feedback for _, r in arm])
        n, level = len(r), np.where((X[0] == X).all(axis=0), X[0], 0.0)
        if self.pooled:
            S, b = (sum(self.sums(a)[i] for a in range(self.arms)) for i in (0, 1))
            self.prior = np.linalg.solve(np.trace(S) / self.dim / n * np.eye(self.dim) + S, b)
        errors, away, free = 0.0, [], []
        for a in range(self.arms):
            if not self.feedback[a]:
                continue
            (S, b), (cov, theta) = self.sums(a), self.solution(a)
            p, left = self.prior, b - S @ self.prior
            own = sum(r * r for _, r in self.feedback[a]) - 2 * b @ p + p @ S @ p - left @ (theta - p)
            errors += max(own, 0.0)  # a diagonal misfit can make it negative
            away.append(theta - p)
            free.append(1.0 - self.ridges * np.diag(cov))
        away, free = np.array(away), np.array(free)
        if (
            self.pooled and level.any()
        ):  # slopes are apart from their own mean, and that is where the prior is
            own = np.where(level == 0.0, away.sum(axis=0) / np.maximum(free.sum(axis=0), 1.0), 0.0)
            away = away - free * own
            self.prior = self.prior + own
        variance = (r @ r) / n - (r.mean() ** 2 if level.any() else 0.0)
        spread = min(np.ptp(r), 4.0 * np.sqrt(variance))
        reach = max(r.max(), 0.0) - min(r.min(), 0.0)
        if len(free) == 1 < self.arms:  # nothing tells yet how far arms are apart
            variance = max(variance, (0.5 * reach) ** 2)
        spare = max(
            n - free.sum(), 0.0
        )  # errors that coefficients have not taken, and four that are all noise
        noise = max((spare * errors / n + 4 * variance) / (spare + 4), (0.02 * spread) ** 2)
        if self.auto_alpha:
            first = min(spread * (0.1 if self.sampling else 0.5), 3.0 * np.sqrt(noise))
            self.alpha = max(np.sqrt(noise), first * min(1.0, np.sqrt(10.0 * self.arms * self.dim / n)))
            self.cold = 0.25 * np.sqrt(variance)
            self.few, self.top = np.floor(np.log2(1.0 + n / (8 * self.arms))), r.max() + 0.5 * reach
        if self.auto_ridge:
            slopes, constant = level == 0.0, level != 0.0
            wanted = np.empty(self.dim)
            for which, size in ((slopes, (X[:, slopes] ** 2).sum() / n), (constant, (level**2).sum())):
                if which.any():
                    own = free[:, which].sum(axis=0)
                    lost = (
                        (free[:, which] ** 2).sum(axis=0) / own if self.pooled else 0.0
                    )  # to the pooled prior
                    first, share, now = 0.2 if which is slopes and constant.any() else 0.5, 1.0, 0.0
                    if which is slopes:  # how much is known of them, against what one arm has
                        determined = (own - lost).sum() / ((own - lost).sum() + slopes.sum())
                        share = (free[:, which] ** 2).sum() / own.sum()
                        now = noise / self.ridges[which][0]
                    wanted[which] = noise / self.likeliest(
                        (away[:, which] ** 2).sum(),
                        (own - lost).sum(),
                        first**2 * variance / size,
                        now * (1 / share - 1),
                        share,
                    )
            if self.auto_alpha and not self.sampling and constant.any() and slopes.any():
                moved = (X[:, slopes] ** 2).sum() / n / wanted[slopes][0]
                self.shares = np.where(slopes, 1.0 - determined * (1.0 - min(1.0, np.sqrt(moved))), 1.0)
            if ((self.ridges < 0.8 * wanted) | (self.ridges > 1.25 * wanted)).any():
                self.ridges = wanted
                self.ridge, self.level_ridge = (wanted[w if w.any() else ~w][0] for w in (slopes, constant))

    @staticmethod
    def likeliest(far, free, middle, blur, share):
        """Maximum of the likelihood of a variance of `free / share` deviations with noise, and its log-normal prior."""
        from scipy.optimize import brentq

        def slope(v):
            whole = np.exp(v) + blur
            told = 0.5 * np.exp(v) / whole * (far / share**2 / whole - free / share)
            return told - (v - np.log(middle)) / 9.0

        return np.exp(brentq(slope, np.log(middle) - 60, np.log(middle) + 60, xtol=1e-13))
