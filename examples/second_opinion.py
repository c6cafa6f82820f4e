"""A cascade: the small model answers, and the large one is asked too where the answer seems unsure."""

import numpy as np

from banditroute import LinUCB, Router
from banditroute.terms import BudgetPacer, Cascade

ARMS, USD, SKILL, BUDGET = ["small", "large"], np.array([1.0, 10.0]), np.array([0.6, 0.9]), 4.0


def served(looks: bool) -> tuple[float, float]:
    """Serve 3,000 requests; returns quality and cost of the last half."""
    rng, quality, paid = np.random.default_rng(0), [], []
    pacer = BudgetPacer(BUDGET, USD)
    cascade = Cascade(
        Router(LinUCB(ARMS, 1, rng=0), terms=[pacer]), costs=pacer.prices, most=2 if looks else 1
    )
    for _ in range(3000):
        good = rng.random(2) < SKILL
        decision, cost = cascade.start([1.0]), 0.0
        while decision is not None:
            last, arm = decision, ARMS.index(decision.arm)
            cost += USD[arm]
            decision = cascade.look(last, confidence=good[arm] + rng.normal(), cost=USD[arm])
        cascade.update(last.id, float(good[arm]), cost=USD[arm])
        quality.append(good[arm])
        paid.append(cost)
    return float(np.mean(quality[1500:])), float(np.mean(paid[1500:]))


def main() -> tuple[float, float, float]:
    """Return quality with a second call where it pays and without, and the cost with it."""
    (cascaded, cost), (alone, _) = served(True), served(False)
    print(f"right: {cascaded:.3f} with second calls at {cost:.2f} a request, {alone:.3f} without")
    return cascaded, alone, cost


if __name__ == "__main__":
    main()
