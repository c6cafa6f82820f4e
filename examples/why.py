"""Why this arm: the sentence for a person, the sum for a machine, before and after an arm fails."""

import numpy as np

from banditroute import LinUCB, Router
from banditroute.terms import ArmHealth, CostModels

ARMS, USD, SKILL = ["small", "medium", "large"], [0.001, 0.004, 0.02], [0.5, 0.7, 0.9]


def main() -> tuple[str, str, float]:
    """Return the arm that is best for a request, the one after that has failed, and how far the sums are off."""
    rng, health = np.random.default_rng(0), ArmHealth()
    router = Router(LinUCB(ARMS, 2, rng=0), terms=[health, CostModels(ARMS, 2, weights={"usd": 5.0})])
    for _ in range(600):
        decision = router.select([1.0, rng.random()])
        arm = ARMS.index(decision.arm)
        router.update(decision.id, SKILL[arm], cost=USD[arm])
    before = router.explain([1.0, 0.5])
    print(before.sentence)
    health.mark(max(before.arms, key=lambda arm: arm.index).arm, "down")
    after = router.explain([1.0, 0.5])
    print(after)
    off = max(abs(a.mean + a.bonus - sum(a.prices.values()) - a.index) for a in after.arms if not a.closed)
    best = [
        max((a for a in why.arms if not a.closed), key=lambda arm: arm.index).arm for why in (before, after)
    ]
    return best[0], best[1], off


if __name__ == "__main__":
    main()
