"""A threshold for each request: the cheapest arm that is expected to be good enough, else the best there is."""

import numpy as np

from banditroute import LinUCB, Router
from banditroute.terms import cheapest_above

ARMS, USD = ["small", "medium", "large"], np.array([0.1, 1.0, 10.0])


def main() -> tuple[float, float, float]:
    """Route 4,000 requests of known difficulty; returns mean quality, cost, and the cost of always the large arm."""
    rng, quality, usd = np.random.default_rng(0), [], []
    policy = LinUCB(ARMS, 3, rng=0)
    router = Router(policy)
    for _ in range(4000):
        difficulty = rng.random()
        x = np.array([1.0, difficulty, difficulty**2])
        target = 0.80 if difficulty < 0.3 else 0.92 if difficulty > 0.7 else 0.80 + 0.3 * (difficulty - 0.3)
        good = cheapest_above(policy.scores(x), target, USD, width=policy.alpha)  # optimistic while it learns
        decision = router.select(x, eligible=good)
        a = ARMS.index(decision.arm)
        chance = [0.95 - 0.9 * difficulty, 0.96 - 0.3 * difficulty, 0.97 - 0.05 * difficulty][a]
        router.update(decision.id, float(rng.random() < chance), cost=USD[a])
        quality.append(chance)
        usd.append(USD[a])
    mean, cost = float(np.mean(quality[1000:])), float(np.mean(usd[1000:]))
    print(f"quality {mean:.3f} at ${cost:.2f} a request; always the large arm: 0.945 at ${USD[-1]:.2f}")
    return mean, cost, float(USD[-1])


if __name__ == "__main__":
    main()
