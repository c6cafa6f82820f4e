"""Bars of doubt: do intervals hold, are recommendations right, do sequences hold at every look?

    python benchmarks/doubt.py [intervals] [sequences] [tuning] [--logs N] [--first SEED]

Bars: nominal 95 % intervals of IPS, SNIPS and DR hold in 93-97 % of 200 logs in each of four worlds; confidence
sequences hold under 10,000 looks in at least 95 % of 1,000 streams; of `tune`, wrong deployments at most 5 %, and
"gain ± 2 errors" holds in at least 93 %. Of 200 logs of which 95 % hold, a share between 92 and 98 % is seen: use 1,000
to judge a method, and seeds that it was not chosen on (--first).
"""

import argparse

import numpy as np

from banditroute import Trace
from banditroute.evaluation import ConfidenceSequence, Draws, compare, score, tune
from banditroute.evaluation.draws import Part
from banditroute.evaluation.tuning import confirm
from banditroute.simulation import MatrixEnvironment

WORLDS = ("easy", "heavy", "drifting", "adaptive")
ESTIMATED = ("ips", "snips", "dr")
ARMS, DIM = 3, 4
THETA = np.random.default_rng(99).normal(size=(DIM, ARMS)) * 0.6
LEVEL = np.array([0.0, 0.3, -0.2])


def softmax(scores):
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def log(world, seed, rows=2000):
    """Return a trace of a world, the target (the best arm at mid-time) and the mean rewards of all arms, (n, k)."""
    rng = np.random.default_rng([seed, WORLDS.index(world)])
    x = rng.standard_normal((rows, DIM))
    signal = x @ THETA + LEVEL
    means = 1.0 / (1.0 + np.exp(-signal))
    shares = 0.5 / ARMS + 0.5 * softmax(x @ THETA)
    if world == "heavy":  # what the target plays was often shunned: weights up to 200
        shares = 0.005 + (1.0 - ARMS * 0.005) * softmax(4.0 * (signal + 0.5 * rng.standard_normal((1, ARMS))))
    elif world == "drifting":
        moved = 1.5 * np.linspace(-1.0, 1.0, rows)[:, None] * np.array([1.0, -1.0, 0.5])
        means = 1.0 / (1.0 + np.exp(-(signal + moved)))
    rewards = (rng.random((rows, 1)) < means).astype(float)
    lottery = rng.random(rows)
    if world == "adaptive":
        arms, shares = learning(rewards, lottery)
    else:
        arms = (lottery[:, None] > shares.cumsum(axis=1)[:, :-1]).sum(axis=1)
    each = np.arange(rows)
    trace = Trace(
        names=[str(a) for a in range(ARMS)],
        arms=arms,
        rewards=rewards[each, arms],
        propensities=shares[each, arms],
        contexts=x,
    )
    return trace, signal.argmax(axis=1), means


def learning(rewards, lottery, mix=0.1):
    """Return arms and probabilities of an epsilon-greedy rule that learns as it goes."""
    count, total = np.ones(ARMS), np.full(ARMS, 0.5)
    arms, shares = np.empty(len(rewards), int), np.empty_like(rewards)
    for i, u in enumerate(lottery):
        shares[i] = mix / ARMS
        shares[i, (total / count).argmax()] += 1.0 - mix
        arms[i] = (u > shares[i].cumsum()[:-1]).sum()
        count[arms[i]] += 1.0
        total[arms[i]] += rewards[i, arms[i]]
    return arms, shares


def truth(world):
    """Return the value of the target in a world, from two million rows; adaptive worlds have the easy requests."""
    found = []
    for seed in range(10**6, 10**6 + 20):
        _, target, means = log("easy" if world == "adaptive" else world, seed, 100_000)
        found.append(means[np.arange(len(target)), target].mean())
    return float(np.mean(found))


def coverage(world, logs, value, rows=2000, first=0):
    """Return the share of intervals that hold, by estimator, and how many logs were answered."""
    inside = []
    for seed in range(first, first + logs):
        trace, target, _ = log(world, seed, rows)
        try:
            found = compare(trace, {"best": target}, estimators=ESTIMATED)["best"]
        except ValueError:  # too few rows count
            continue
        inside.append([found[one].low <= value <= found[one].high for one in ESTIMATED])
    return dict(zip(ESTIMATED, np.mean(inside, axis=0), strict=True)), len(inside)


def intervals(logs, first):
    for world in WORLDS:
        value = truth(world)
        found, answered = coverage(world, logs, value, first=first)
        cells = ", ".join(f"{name} {share:.1%}" for name, share in found.items())
        print(f"{world:9s} truth {value:.4f}, {answered} logs: {cells} (bar 93-97 %)", flush=True)


def held(streams, looks, seed=0):
    """Return the share of streams on which both bounds hold at every look: weights to 50, value .3."""
    rng, kept = np.random.default_rng(seed), 0
    for _ in range(streams):
        p = np.where(rng.random(looks) < 0.5, 0.02, 0.5)
        weights, rewards = (rng.random(looks) < p) / p, (rng.random(looks) < 0.3) * 1.0
        low = ConfidenceSequence(0.025).add(weights * rewards)
        high = 1.0 - ConfidenceSequence(0.025).add(weights * (1.0 - rewards))
        kept += bool((low <= 0.3).all() and (high >= 0.3).all())
    return kept / streams


def sequences(logs, first):
    print(
        f"sequences: {held(1000, 10_000, first):.1%} of 1,000 streams hold under 10,000 looks (bar 95 %)",
        flush=True,
    )


MORE = {"alpha": 1.0, "ridge": 1.0}


def linear(seed, rows):
    """Return contexts and 0/1 rewards of a world in which settings hardly differ."""
    weights = np.random.default_rng(99).normal(size=(3, 5)) * 0.15
    weights[:, 4] = [0.5, 0.55, 0.6]
    rng = np.random.default_rng(seed)
    x = np.c_[rng.normal(size=(rows, 4)), np.ones(rows)]
    return x, (rng.random((rows, 1)) < np.clip(x @ weights.T, 0.0, 1.0)).astype(float)


def uniform(seed, rows):
    x, rewards = linear(seed, rows)
    arms = np.random.default_rng(1000 + seed).integers(3, size=rows)
    return Trace(
        names=["0", "1", "2"],
        arms=arms,
        rewards=rewards[np.arange(rows), arms],
        propensities=np.full(rows, 1 / 3),
        contexts=x,
    )


def drawn(seed, rows=1000, requests=1500):
    """Return both halves of a matrix of twice so many rows, for draws of so many requests."""
    return Draws(MatrixEnvironment(*linear(seed, 2 * rows), order="replace"), requests).halves()


def replayed(seed, rows=3000):
    """Return both halves of a log of twice so many rows."""
    trace = uniform(seed, 2 * rows)
    return Part(trace[:rows]), Part(trace[rows:])


def errors(logs, first=0, data=drawn, setting=MORE, **confirming):
    """Return how often a setting's gain lies within two errors of its mean over logs, and mean error by true spread."""
    found = [confirm(setting, *data(seed), **confirming) for seed in range(first, first + logs)]
    gains, said = np.array([[each.gain, each.gain_error] for each in found]).T
    held = np.abs(gains - gains.mean()) <= 2.0 * said
    return float(held.mean()), float(said.mean() / gains.std(ddof=1)), float(gains.mean())


def true_gain(setting, seed, logs=12):
    """Return what a setting earns more than the defaults, and its error: over fresh logs, for one says too little."""
    gains = []
    for k in range(logs):
        fresh = Part(uniform(10**6 + 1000 * seed + k, 12_000))
        gains.append(np.mean([score(setting, fresh(s), s) - score({}, fresh(s), s) for s in range(8)]))
    return float(np.mean(gains)), float(np.std(gains, ddof=1) / np.sqrt(logs))


def tuning(logs, first):
    for data, label in ((drawn, "matrices"), (replayed, "logs")):
        share, wide, gain = errors(logs, first, data)
        print(
            f"tune: gain within two errors in {share:.1%} of {logs} {label} (bar 93 %); "
            f"mean error {wide:.2f} times the true spread, mean gain {gain:+.4f}",
            flush=True,
        )
    space = {"alpha": (0.02, 2.0, "log"), "ridge": (0.03, 30.0, "log")}
    deployed, wrong, count = 0, 0, max(logs // 2, 1)
    for seed in range(first + 20, first + 20 + count):
        found = tune(uniform(seed, 6000), space, trials=10, seeds=8, seed=seed)
        if found.setting:
            gain, error = true_gain(found.setting, seed)
            deployed += 1
            wrong += gain < 0.0
            said = f"{found.gain:+.4f} ± {found.gain_error:.4f}"
            print(f"tune: log {seed} said {said}, truly {gain:+.5f} ± {error:.5f}", flush=True)
    print(f"tune: {deployed} of {count} logs deployed, {wrong} wrongly (bar 5 % of the logs)", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART")
    parser.add_argument("--logs", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="first seed")
    args = parser.parse_args()
    for part in args.parts or ("intervals", "sequences", "tuning"):
        {"intervals": intervals, "sequences": sequences, "tuning": tuning}[part](args.logs, args.first)


if __name__ == "__main__":
    main()
