"""Bars of offline learning: bias, coverage and ranking of the estimators, speed on a million rows, and tuning.

    python benchmarks/evaluation.py [estimates] [speed] [tuning]

`estimates` and `tuning` read the recorded data (see `banditroute.recorded`).
"""

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from recorded import data_file

from banditroute import Trace
from banditroute.evaluation import Draws, compare, evaluate, sweep, tune
from banditroute.simulation import MatrixEnvironment

DRAWS, ROWS = 200, 2500
UNBIASED = ("ips", "snips", "dr")


def environment(name):
    """Return a recorded data set with its first 32 context components."""
    keys = {"llmrouter9": ("scores", 255.0), "pareto4": ("rewards", 1.0)}[name]
    return MatrixEnvironment.from_npz(
        data_file(f"{name}.npz"),
        "minilm_pca64",
        keys[0],
        arms="models",
        scale=keys[1],
        components=32,
        order="replace",
    )


def fitted(x, rewards):
    """Return what a ridge fit on all rewards expects: it only has to be a sensible rule, not an honest one."""
    return x @ np.linalg.solve(x.T @ x + 10.0 * np.eye(x.shape[1]), x.T @ rewards)


def logging_rules(expected):
    count = expected.shape[1]
    soft = np.exp((expected - expected.max(axis=1, keepdims=True)) / 0.1)
    shares = 0.6 ** np.arange(count)
    return {
        "uniform": np.full_like(expected, 1.0 / count),
        "soft": 0.3 / count + 0.7 * soft / soft.sum(axis=1, keepdims=True),
        "skewed": np.broadcast_to(0.2 / count + 0.8 * shares / shares.sum(), expected.shape),
    }


def candidates(expected, means):
    """Return rules to be valued, as probabilities per row: spread over quality."""
    count = expected.shape[1]
    one = np.eye(count)
    order = np.argsort(means)
    greedy = one[expected.argmax(axis=1)]
    return {
        "greedy": greedy,
        "greedy, 20 % uniform": 0.8 * greedy + 0.2 / count,
        "best arm": np.broadcast_to(one[order[-1]], expected.shape),
        "median arm": np.broadcast_to(one[order[count // 2]], expected.shape),
        "uniform": np.full_like(expected, 1.0 / count),
    }


def estimates():
    pooled = {name: [] for name in UNBIASED}
    wider, scores, wrong, pairs = [], [], 0, 0
    for data in ("llmrouter9", "pareto4"):
        source = environment(data)
        expected = fitted(source.contexts, source.rewards)
        rules = candidates(expected, source.rewards.mean(axis=0))
        truth = {name: float((shares * source.rewards).sum(axis=1).mean()) for name, shares in rules.items()}
        for logging, shares in logging_rules(expected).items():
            found = {name: [] for name in rules}
            for draw in range(DRAWS):
                rng = np.random.default_rng([draw, len(data), len(logging)])
                rows = rng.integers(len(expected), size=ROWS)
                own = shares[rows]
                arms = (rng.random((ROWS, 1)) > own.cumsum(axis=1)[:, :-1]).sum(axis=1)
                each = np.arange(ROWS)
                trace = Trace(
                    names=source.arms,
                    arms=arms,
                    rewards=source.rewards[rows, arms],
                    propensities=own[each, arms],
                    contexts=source.contexts[rows],
                )
                targets = {name: r[rows] for name, r in rules.items()}
                for name, one in compare(trace, targets, estimators=UNBIASED).items():
                    found[name].append(
                        [[one[e].value, one[e].std_error, one[e].low, one[e].high] for e in UNBIASED]
                    )
            table = {name: np.array(values) for name, values in found.items()}  # (draws, estimators, 4)
            for name, values in table.items():
                errors = values[:, :, 0] - truth[name]
                z = errors.mean(axis=0) / (errors.std(axis=0, ddof=1) / np.sqrt(DRAWS))
                inside = (values[:, :, 2] <= truth[name]) & (truth[name] <= values[:, :, 3])
                width = (values[:, :, 3] - values[:, :, 2]).mean(axis=0)
                wider.append(width[2] / width[0])
                scores.append(z[1:])
                for i, e in enumerate(UNBIASED):
                    pooled[e].append(inside[:, i])
                print(
                    f"{data:10s} {logging:8s} {name:21s} truth {truth[name]:.4f}  "
                    + "  ".join(
                        f"{e}: error {errors.mean(axis=0)[i]:+.5f} ({z[i]:+.1f} s.e.) covers {inside[:, i].mean():.1%}"
                        for i, e in enumerate(UNBIASED)
                    )
                    + f"  DR / IPS width {width[2] / width[0]:.2f}"
                )
            if logging == "uniform":
                for a in rules:
                    for b in rules:
                        gap = truth[a] - truth[b]
                        differences = table[a][:, 2, 0] - table[b][:, 2, 0]
                        if gap >= 4.0 * differences.std(ddof=1) and gap > 0:
                            pairs += DRAWS
                            wrong += int((differences <= 0).sum())
    scores = np.array(scores)
    beyond = int((np.abs(scores) > 2.0).sum())
    chance = 0.0455 * scores.size
    print(f"\nbias: {scores.size} mean errors of SNIPS and DR, {beyond} beyond 2 s.e. (chance: {chance:.1f}), "
          f"largest {np.abs(scores).max():.1f}")  # fmt: skip
    for e in UNBIASED:
        print(f"coverage of {e}: {np.concatenate(pooled[e]).mean():.1%} pooled (bar 92-98 %)")
    print(f"ranking under uniform logs: {1.0 - wrong / pairs:.2%} of {pairs} pairs right (bar 99 %)")
    print(f"DR against IPS: widest {max(wider):.3f} (bar 1.05)")


def speed():
    rng = np.random.default_rng(0)
    rows, count, dim = 1_000_000, 9, 33
    contexts = rng.standard_normal((rows, dim))
    theta = rng.standard_normal((count, dim)) / dim
    arms = rng.integers(count, size=rows)
    means = contexts @ theta.T
    rewards = means[np.arange(rows), arms] + 0.1 * rng.standard_normal(rows)
    target = means.argmax(axis=1)
    del means
    trace = Trace(
        names=[str(i) for i in range(count)], arms=arms, rewards=rewards, contexts=contexts,
        propensities=np.full(rows, 1.0 / count), times=np.arange(rows) * 1.0, ids=np.arange(rows).astype(np.uint64),
        hits=np.ones(rows, dtype=bool), versions=np.zeros(rows, dtype=np.int64),
    )  # fmt: skip
    size = sum(c.nbytes for n in Trace.columns() if (c := getattr(trace, n)) is not None)
    start = time.perf_counter()
    evaluate(trace, target)
    took = time.perf_counter() - start
    print(
        f"a million rows, {dim} components, {size / 1e6:.0f} MB: five estimators with intervals {took:.2f} s (bar 5)"
    )
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("npz", "parquet"):
            path = Path(folder, f"log.{suffix}")
            start = time.perf_counter()
            trace.save(path)
            middle = time.perf_counter()
            again = Trace.load(path)
            end = time.perf_counter()
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            assert (again.rewards == trace.rewards).all()
            del again
            print(
                f"{suffix}: save {middle - start:.2f} s, load {end - middle:.2f} s (bar 2 together, npz); peak of "
                f"the process, with two traces, {peak / 1e6:.0f} MB, {peak / size:.2f} times the arrays (bar 3, npz)"
            )


def tuning():
    grid = [{"alpha": a, "ridge": r} for a in (0.03, 0.1, 0.3, 1.0) for r in (0.1, 1.0, 5.0, 20.0)] + [{}]
    for data in ("llmrouter9", "pareto4"):
        draws = Draws(environment(data), 4000)
        start = time.perf_counter()
        found = tune(draws, trials=30, seeds=8)
        took = time.perf_counter() - start
        held = sweep(grid, draws.halves()[1], range(1_000_000, 1_000_020), independent=False).mean(axis=1)
        best = int(held.argmax())
        print(
            f"{data}: chose {found.setting or 'the defaults'} in {took:.0f} s and {len(found.trials)} trials; "
            f"held-out {found.held_out:.4f}, defaults {found.default_held_out:.4f}, "
            f"gain {found.gain:+.4f} +- {found.gain_error:.4f} over rows and 60 paired seeds; "
            f"best of the grid {held[best]:.4f} at {grid[best] or 'the defaults'}, "
            f"share {(found.held_out if found.setting else found.default_held_out) / held[best]:.2%} (bar 99 %)"
        )


def main(parts):
    for name in parts or ("estimates", "speed", "tuning"):
        {"estimates": estimates, "speed": speed, "tuning": tuning}[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
