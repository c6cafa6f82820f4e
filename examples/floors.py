"""A floor on quality: a cheaper way of running an agent is used as far as the mean quality stays where it must."""

import numpy as np

from banditroute import LinUCB, Router
from banditroute.terms import QualityFloor

WAYS, TOKENS = ["merged", "paired", "apart"], [1.0, 1.6, 3.0]  # how calls of a pipeline are put together


def main() -> tuple[float, float]:
    """Run 6,000 tasks under a floor of 0.80; returns mean quality and tokens of the last 4,000."""
    rng, quality, tokens = np.random.default_rng(0), [], []
    floor = QualityFloor(0.80, TOKENS)
    router = Router(LinUCB(WAYS, 2, rng=0), terms=[floor])
    for _ in range(6000):
        hard = rng.random()
        decision = router.select([1.0, hard])
        way = WAYS.index(decision.arm)
        reward = float(rng.random() < [0.9 - 0.5 * hard, 0.92 - 0.2 * hard, 0.93 - 0.05 * hard][way])
        router.update(decision.id, reward, cost=TOKENS[way])
        quality.append(reward)
        tokens.append(TOKENS[way])
    mean, cost = float(np.mean(quality[2000:])), float(np.mean(tokens[2000:]))
    print(f"quality {mean:.3f} for a floor of 0.80, {cost:.2f} tokens a task of at most {TOKENS[-1]:.2f}")
    return mean, cost


if __name__ == "__main__":
    main()
