"""Are propensities frequencies? Choices drawn many times, against the chances that were told; counts only.

Candidates of every policy that takes them, lists at every place, and both calls of a cascade. For each: how many
chances were told, the largest distance of a frequency from its chance in standard errors, and how many lie beyond
three (.27 % do where all is right); and the values of other rules by weights of one over the chance, at every place.

    python benchmarks/propensities.py [--draws 50000] [--seed 0]
"""

import argparse

import numpy as np

from banditroute import LinTS, LinUCB, Router
from banditroute.policies import HybridLinUCB, LogisticUCB, SharedLinUCB, SlidingWindow, SquareCB
from banditroute.terms import Cascade

ARMS, D, F = ["a", "b", "c", "d", "e"], 2, 3
CANDIDATES = {
    "SharedLinUCB": lambda: SharedLinUCB(ARMS[:2], D, features=F, mix=0.3, rng=0),
    "SharedLinUCB, products": lambda: SharedLinUCB(
        ARMS[:2], D, features=F, interactions=True, mix=0.3, rng=0
    ),
    "HybridLinUCB": lambda: HybridLinUCB(ARMS[:2], D, features=F, mix=0.3, rng=0),
    "HybridLinUCB, products": lambda: HybridLinUCB(
        ARMS[:2], D, features=F, interactions=True, mix=0.3, rng=0
    ),
    "SlidingWindow": lambda: SlidingWindow(SharedLinUCB(ARMS[:2], D, features=F, mix=0.3, rng=0), 10**9),
}
LISTS = {
    "LinUCB": lambda: LinUCB(ARMS, D, mix=0.3, rng=0),
    "LinTS": lambda: LinTS(ARMS, D, rng=0),
    "SquareCB": lambda: SquareCB(LinUCB(ARMS, D, rng=0)),
    "LogisticUCB": lambda: LogisticUCB(ARMS, D, mix=0.3, rng=0),
}


def off(count, told, draws):
    """Distances of frequencies from chances in standard errors, for chances that are neither 0 nor 1."""
    keys = [key for key, p in told.items() if 1e-4 < p < 1.0 - 1e-4]
    p = np.array([told[key] for key in keys])
    return (np.array([count.get(key, 0) for key in keys]) / draws - p) / np.sqrt(p * (1.0 - p) / draws)


def of_candidates(made, draws, rng, k=None):
    """One set of candidates, arms and guests, two of them alike; chosen so many times, alone or as a list."""
    router = Router(made())
    for _ in range(60):
        names = tuple(rng.choice(["a", "b", "g", "h", "i"], 3, replace=False))
        decision = router.select(rng.standard_normal(D), candidates=(names, rng.standard_normal((3, F))))
        router.update(decision.id, float(rng.random()))
    names, z, x = ("a", "b", "g", "h", "twin"), rng.standard_normal((5, F)), rng.standard_normal(D)
    z[4] = z[3]
    return counted(lambda: router.select(x, candidates=(names, z), k=k), router, draws)


def counted(draw, router, draws):
    """Tell how far frequencies are from the chances that were told, for choices or for places of lists."""
    told, count = {}, {}
    for _ in range(draws):
        made = draw()
        places = enumerate(made.arms) if hasattr(made, "arms") else [(0, made.arm)]
        chances = made.propensities if hasattr(made, "arms") else [made.propensity]
        for key, p in zip(places, chances, strict=True):
            told[key] = p
            count[key] = count.get(key, 0) + 1
        router.cancel(made.id)
    return off(count, told, draws)


def of_lists(made, draws, rng):
    """Lists of three of five arms after some rewards."""
    router = Router(made())
    for i in range(60):
        x = np.array([1.0, rng.random()])
        router.policy.update(i % 5, x, float(rng.random() < 0.2 + 0.1 * (i % 5)))
    return counted(lambda: router.select([1.0, 0.4], k=3), router, draws)


class Watched:
    """A Router that notes which arms each call could go to."""

    def __init__(self, router):
        self.router, self.open = router, []
        self.policy, self.terms = router.policy, router.terms
        self.update, self.cancel = router.update, router.cancel

    def select(self, x, **options):
        self.open.append(options.get("eligible") or frozenset(self.policy.arms))
        return self.router.select(x, **options)


def of_cascade(draws, rng):
    """Weights of one over the chance, of every arm at both calls: distances of their mean from 1."""
    arms, skill = ["a", "b", "c"], np.array([0.5, 0.7, 0.9])
    watched, found = Watched(Router(LinUCB(arms, 1, mix=0.4, rng=0))), {1: [], 2: []}
    cascade = Cascade(watched, costs=[0.0, 0.02, 0.04])
    for _ in range(draws):
        good, call = rng.random(3) < skill, 1
        decision = cascade.start([1.0], prices=[0.0, 0.02, 0.04])
        while decision is not None:
            last, weight = decision, 1.0 / decision.propensity
            found[call].append([weight * (a == decision.arm) - (a in watched.open[-1]) for a in arms])
            decision = cascade.look(last, 1.5 * good[arms.index(last.arm)] + rng.normal())
            call += 1
        cascade.update(last.id, float(good[arms.index(last.arm)]))
    rows = [np.array(one) for one in found.values()]
    return np.concatenate([one.mean(axis=0) / (one.std(axis=0) / np.sqrt(len(one))) for one in rows])


def of_values(draws, rng):
    """IPS at each place of a list: values of always showing one arm there, distances from the truth."""
    router, chance = Router(LinUCB(ARMS, 1, mix=1.0, rng=0)), np.linspace(0.1, 0.9, 5)
    weighed = np.zeros((draws, 3, 5))
    for i in range(draws):
        shown = router.select([1.0], k=3)
        rewards = rng.random(3) < [chance[ARMS.index(arm)] for arm in shown.arms]
        for place, (arm, p) in enumerate(zip(shown.arms, shown.propensities, strict=True)):
            weighed[i, place, ARMS.index(arm)] = rewards[place] / p
        router.cancel(shown.id)
    seen = weighed.any(
        axis=0
    )  # without feedback the order stands, and each place shows what one step leads to
    error = weighed.std(axis=0) / np.sqrt(draws)
    return ((weighed.mean(axis=0) - chance) / np.maximum(error, 1e-12))[seen]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, everything = np.random.default_rng(given.seed), []
    runs = [
        (f"candidates, {n}", lambda m=m: of_candidates(m, given.draws, rng)) for n, m in CANDIDATES.items()
    ]
    runs += [
        (f"lists of candidates, {n}", lambda m=m: of_candidates(m, given.draws, rng, 3))
        for n, m in CANDIDATES.items()
    ]
    runs += [(f"lists, {n}", lambda m=m: of_lists(m, given.draws, rng)) for n, m in LISTS.items()]
    runs += [
        ("cascade, both calls", lambda: of_cascade(given.draws, rng)),
        ("IPS at each place", lambda: of_values(given.draws, rng)),
    ]
    for name, run in runs:
        z = run()
        everything.extend(z)
        print(f"{name:40s} {len(z):4d} chances, furthest {np.abs(z).max():.2f} standard errors", flush=True)
    beyond = int((np.abs(everything) > 3.0).sum())
    print(
        f"{len(everything)} in all, {beyond} beyond three standard errors; {0.0027 * len(everything):.1f} expected"
    )


if __name__ == "__main__":
    main()
