"""Online Matching written the slow and obvious way, a dictionary of edges, and policies to compare with it."""

import json
from math import inf, sqrt

import numpy as np

from banditroute.policies import ClusterGraph, OnlineMatching

FORMS = [("mean", 0.0), ("mean", 0.5), ("raw", 0.0), ("raw", 0.5)]  # estimator, init_precision


class NaiveGraph:
    """Edges (cluster, item) -> [d, b, s], in the words of the formulas."""

    def __init__(self, edges, alpha, estimator="mean", init_precision=0.0):
        self.edges = {edge: [0.0, 0.0, 0.0] for edge in edges}
        self.alpha, self.raw, self.prior = alpha, estimator == "raw", init_precision

    def update(self, item, clusters, weights, reward, weight=1.0):
        learned = False
        for c, w in zip(clusters, weights, strict=True):
            if w > 0 and (c, item) in self.edges:
                sums = self.edges[c, item]
                sums[0] += weight * w * w
                sums[1] += weight * w * reward
                sums[2] += weight * w
                learned = True
        return learned

    def scores(self, clusters, weights):
        """Item -> (mean, width), in the order in which the active clusters name the items."""
        found = {}
        for c, w in zip(clusters, weights, strict=True):
            for item in sorted(j for i, j in self.edges if i == c) if w > 0 else ():
                d, b, s = self.edges[c, item]
                d, s = d + self.prior, s + self.prior
                mean, width = found.get(item, (0.0, 0.0))
                if d == 0:
                    found[item] = mean, inf
                elif self.raw:
                    found[item] = mean + w * b / d, width + w * w / d
                else:
                    found[item] = mean + w * b / s, width + w * sqrt(d) / s
        return {item: (mean, sqrt(width) if self.raw else width) for item, (mean, width) in found.items()}

    def totals(self, clusters, weights, exploit=False):
        bonus = 0.0 if exploit else self.alpha
        found = self.scores(clusters, weights)
        return {item: mean + bonus * width if bonus else mean for item, (mean, width) in found.items()}

    def select(self, clusters, weights, k, first, second, exploit=False):
        """The item and its propensity, given two uniform numbers."""
        total = self.totals(clusters, weights, exploit)
        k = min(k, len(total))
        least = sorted(total.values())[-k]
        above = [item for item in total if total[item] > least]
        equal = [item for item in total if total[item] == least]
        place = int(first * k)
        if place < len(above):
            return above[place], 1 / k
        return equal[int(second * len(equal))], (k - len(above)) / k / len(equal)


def random_edges(rng, clusters, items, count):
    codes = rng.choice(clusters * items, count, replace=False)
    return codes // items, codes % items


def random_context(rng, clusters, active=3):
    w = rng.exponential(size=active)
    return rng.choice(clusters, active, replace=False), w / w.sum()


def trained(rng, *, clusters=8, items=20, count=60, rounds=200, among=None, **settings):
    """Return a policy, its naive twin and what both learned; the items are `items` numbers below `among`."""
    ids = np.arange(items) if among is None else np.sort(rng.choice(among, items, replace=False))
    c, j = random_edges(rng, clusters, items, count)
    j = ids[j]
    settings = {"alpha": 0.7, **settings}
    graph = ClusterGraph.from_edges(c, j, names=among or items, n_clusters=clusters)
    policy = OnlineMatching(graph, rng=1, **settings)
    naive = NaiveGraph(zip(c.tolist(), j.tolist(), strict=True), **settings)
    log = [(int(rng.choice(ids)), *random_context(rng, clusters), float(rng.normal())) for _ in range(rounds)]
    for event in log:
        assert policy.update(*event) == naive.update(*event)
    return policy, naive, log


def state(policy):
    header, arrays = policy.to_state()
    return json.dumps(header), {name: array.tobytes() for name, array in arrays.items()}


def statistics(policy):
    return policy.to_state()[1]["truth"]
