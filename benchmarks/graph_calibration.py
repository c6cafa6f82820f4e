"""How well the estimators of `OnlineMatching` predict: python benchmarks/graph_calibration.py [--seed 0].

Rewards are linear in the weights of the active clusters, E r = w' theta_j, as the paper models them; every
item has an edge to every cluster, and items are shown uniformly at random. Compared with the truth on users
not seen before:

* ratio: mean prediction over mean truth,
* rmse, and the relative error of one context (median, 95 %, largest),
* slope: of the least-squares line of prediction on truth,
* regret: of the item with the largest mean, per request.
"""

import argparse
from typing import NamedTuple

import numpy as np

from banditroute.policies import ClusterGraph, OnlineMatching


class Quality(NamedTuple):
    ratio: float
    rmse: float
    median: float
    tail: float
    largest: float
    slope: float
    regret: float


def quality(predicted, truth):
    error = np.abs(predicted - truth)
    relative = error / np.maximum(np.abs(truth), 1e-12)
    slope = np.polyfit(truth.ravel(), predicted.ravel(), 1)[0]
    shown = truth[np.arange(len(truth)), predicted.argmax(axis=1)]
    return Quality(
        predicted.mean() / truth.mean(),
        np.sqrt((error**2).mean()),
        np.median(relative),
        np.quantile(relative, 0.95),
        relative.max(),
        slope,
        (truth.max(axis=1) - shown).mean(),
    )


def measure(seed=0, *, signed=False, clusters=30, active=5, temperature=0.3, items=20, dim=16, rounds=40_000):
    """Return the quality of each estimator and of full ridge regression."""
    rng = np.random.default_rng(seed)
    draw = rng.standard_normal((2, max(rounds, clusters), dim))
    users, centres = draw / np.linalg.norm(draw, axis=2, keepdims=True)
    edges = np.repeat(np.arange(clusters), items), np.tile(np.arange(items), clusters)
    graph = ClusterGraph.from_edges(*edges, centroids=centres[:clusters])
    theta = rng.uniform(-1.0 if signed else 0.0, 1.0, (items, clusters))
    contexts = [graph.context(user, active=active, temperature=temperature) for user in users]
    c, w = np.array([c for c, _ in contexts]), np.array([w for _, w in contexts])
    dense = np.zeros((len(c), clusters))
    np.put_along_axis(dense, c, w, axis=1)
    truth = dense @ theta.T
    shown = rng.integers(items, size=len(c))
    rewards = truth[np.arange(len(c)), shown] + 0.1 * rng.standard_normal(len(c))
    train = len(c) * 9 // 10
    test = slice(train, None)
    found = {}
    for estimator in ("raw", "mean"):
        policy = OnlineMatching(graph, alpha=1.0, estimator=estimator, rng=seed)
        policy.update_batch(shown[:train], c[:train], w[:train], rewards[:train])
        found[estimator] = quality(np.array([policy.scores(*x).mean for x in contexts[train:]]), truth[test])
    full = np.empty_like(truth[test])
    for j in range(items):
        x = dense[:train][shown[:train] == j]
        y = rewards[:train][shown[:train] == j]
        full[:, j] = dense[test] @ np.linalg.solve(x.T @ x + np.eye(clusters), x.T @ y)
    found["full ridge"] = quality(full, truth[test])
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    titles = f"{'ratio':>8}{'rmse':>8}{'median':>9}{'95 %':>8}{'largest':>9}{'slope':>8}{'regret':>9}"
    for signed in (False, True):
        print(f"\ntheta uniform in [{-1 if signed else 0}, 1], C = 30, K = 5, temperature 0.3, seed {seed}")
        print(f"{'':12}{titles}")
        for name, q in measure(seed, signed=signed).items():
            relative = f"{q.median:9.0%}{q.tail:8.0%}{q.largest:9.0%}"
            if signed:  # the truth is near zero in places, and on average
                print(f"{name:12}{'':8}{q.rmse:8.3f}{'':26}{q.slope:8.2f}{q.regret:9.4f}")
            else:
                print(f"{name:12}{q.ratio:8.2f}{q.rmse:8.3f}{relative}{q.slope:8.2f}{q.regret:9.4f}")


if __name__ == "__main__":
    main()
