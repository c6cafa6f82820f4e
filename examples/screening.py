"""Two stages: a few of many agents by a cheap score, then a learned choice; the reward comes when the task ends."""

import numpy as np

from banditroute import Router
from banditroute.policies import SharedLinUCB
from banditroute.terms import screen, stability


def main() -> tuple[float, float]:
    """Run 1,500 tasks of three steps on 40 agents; returns the share solved, and that of a choice at random."""
    rng, solved = np.random.default_rng(1), []
    skill = rng.uniform(0.2, 1.0, size=40)  # of each agent, unknown; its reputation is a noisy view of it
    reputation = np.clip(skill + 0.1 * rng.standard_normal(40), 0.0, 1.0)
    router = Router(SharedLinUCB([], 1, features=5, rng=0))
    for _ in range(1500):
        steps, success, chance = [], 1.0, 1.0
        for _ in range(3):
            match, load, latency = rng.random(40), rng.random(40), rng.uniform(0.1, 3.0, 40)
            few = np.flatnonzero(screen(match, reputation, stability(load, latency), top=3))
            table = np.stack([np.ones(40), match, load, latency / 2.0, reputation], axis=1)[few]
            works = (1.0 - 0.5 * (1.0 - skill) - 0.3 * load)[few]
            steps.append(router.select([1.0], candidates=(tuple(map(str, few)), table)))
            success *= works[few.tolist().index(int(steps[-1].arm))]
            chance *= works.mean()
        solved.append((rng.random() < success, chance))
        for step in steps:  # every step learns how the whole task ended
            router.update(step.id, float(solved[-1][0]))
    ours, random = (float(value) for value in np.mean(solved[500:], axis=0))
    print(f"solved: {ours:.3f} with what was learned, {random:.3f} at random among the same three")
    return ours, random


if __name__ == "__main__":
    main()
