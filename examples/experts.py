"""Experts as candidates: each is known by what its training texts look like, and the set changes with every request."""

import numpy as np

from banditroute import Router
from banditroute.policies import HybridLinUCB


def main() -> tuple[float, float]:
    """Answer 3,000 queries with five of 60 experts at hand; returns mean quality, and that of the most similar one."""
    rng, earned, similar = np.random.default_rng(0), [], []
    unit = rng.standard_normal((60, 16))
    pilots = unit / np.linalg.norm(unit, axis=1, keepdims=True)  # mean embedding of what each was trained on
    size = rng.random(60)  # a large one is better, whatever the query
    router = Router(HybridLinUCB([], 1, features=4, mix=0.02, rng=0))
    for _ in range(3000):
        query = pilots[rng.integers(60)] + 0.3 * rng.standard_normal(16)
        at_hand = rng.choice(60, size=5, replace=False)
        near = pilots[at_hand] @ query / np.linalg.norm(query)
        table = np.stack([np.ones(5), near, near**2, size[at_hand]], axis=1)
        decision = router.select([1.0], candidates=(tuple(f"expert-{e}" for e in at_hand), table))
        truth = 0.3 + 0.3 * near + 0.4 * size[at_hand]
        chosen = at_hand.tolist().index(int(decision.arm.split("-")[1]))
        router.update(decision.id, truth[chosen] + 0.1 * rng.standard_normal())
        earned.append(truth[chosen])
        similar.append(truth[near.argmax()])
    mean, other = float(np.mean(earned[500:])), float(np.mean(similar[500:]))
    print(f"quality {mean:.3f}; the most similar expert: {other:.3f}")
    return mean, other


if __name__ == "__main__":
    main()
