"""Graph Diag-LinUCB at 1e6 edges and 1e6 items: pytest benchmarks/test_bench_graph.py --benchmark-enable.

Requests vary from call to call, so that edges come from the last-level cache or memory as in service. Target: at
most 6 ns an edge of the active clusters. "Shared" graphs have neighbouring clusters active, which name an item 2.6
times on average; in the others the union of the active clusters hardly overlaps.
"""

import time
from itertools import cycle

import numpy as np
import pytest

from banditroute.policies import ClusterGraph, OnlineMatching

EDGES, ITEMS, GROUP, REQUESTS = 1_000_000, 1_000_000, 50, 400

pytestmark = pytest.mark.benchmark(timer=time.process_time)  # other work on the machine is not counted


def make(width, active, shared=False, estimator="mean"):
    """Return a policy with evidence on every edge, and requests."""
    rng = np.random.default_rng(0)
    clusters = EDGES // width
    items = np.empty((clusters, width), dtype=np.int64)
    for c in range(clusters):
        if c % GROUP == 0 or not shared:
            pool = np.unique(rng.integers(0, ITEMS, 3 * width))[: 2 * width]
        items[c] = rng.permutation(pool)[:width]
    graph = ClusterGraph.from_edges(np.repeat(np.arange(clusters), width), items.ravel(), names=ITEMS)
    policy = OnlineMatching(graph, alpha=0.3, estimator=estimator, rng=0)
    n = rng.integers(1, 200, EDGES)
    policy._edges.truth[:] = np.stack([0.05 * n, 0.2 * n * rng.random(EDGES), 0.2 * n], axis=1)
    policy._edges.derive()
    within = GROUP if shared else clusters
    first = GROUP * rng.integers(0, clusters // GROUP, REQUESTS) if shared else np.zeros(REQUESTS, dtype=int)
    requests = [
        (a + rng.choice(within, active, replace=False), np.full(active, 1 / active))
        for a in first[: max(2, 20_000_000 // (active * width))]
    ]
    return policy, requests


def measure(benchmark, capsys, what, call, requests, edges=0):
    """Time rounds of about a millisecond, on other requests each, and print the fastest and the median round."""
    count = max(1, min(len(requests), 200_000 // max(edges, 1_000)))
    start = cycle(range(0, len(requests) - count + 1, count))

    def setup():
        first = next(start)
        return (requests[first : first + count],), {}

    benchmark.pedantic(call, setup=setup, rounds=200 if edges < EDGES else 20, warmup_rounds=2)
    if benchmark.stats is None:  # not enabled: it has run, that is all
        return
    best, median = (getattr(benchmark.stats.stats, name) / count for name in ("min", "median"))
    line = f"\n{what:40} {1e6 * best:10.2f} us (median {1e6 * median:.2f})"
    if edges:
        benchmark.extra_info["ns_per_edge"] = 1e9 * best / edges
        line += f" {1e9 * best / edges:7.2f} ns an edge (median {1e9 * median / edges:.2f})"
    with capsys.disabled():
        print(line, end="")


@pytest.mark.parametrize("estimator", ["mean", "raw"])
@pytest.mark.parametrize("shared", [False, True], ids=["apart", "shared"])
@pytest.mark.parametrize("k", [1, 10, 100])
@pytest.mark.parametrize(("width", "active"), [(100, 5), (200, 5), (2_000, 5), (100, 10_000)])
def test_select(benchmark, capsys, width, active, k, shared, estimator):
    if shared and active > GROUP:
        pytest.skip("the whole graph is active in any case")
    policy, requests = make(width, active, shared, estimator)

    def call(given):
        for clusters, weights in given:
            policy.select(clusters, weights, k=k)

    what = f"select {active} x {width}, k={k}, {'shared' if shared else 'apart'}, {estimator}"
    measure(benchmark, capsys, what, call, requests, active * width)


@pytest.mark.parametrize("width", [200, 2_000])
def test_numpy(benchmark, capsys, width):
    """The reference: the union by numpy.unique, and an argmax."""
    policy, requests = make(width, 5)

    def call(given):
        for clusters, weights in given:
            found = policy.scores(clusters, weights)
            found.items[(found.mean + 0.3 * found.width).argmax()]

    measure(benchmark, capsys, f"numpy 5 x {width}, k=1, apart, mean", call, requests, 5 * width)


@pytest.mark.parametrize("width", [100, 2_000])
def test_update(benchmark, capsys, width):
    policy, requests = make(width, 5)
    events = [(int(policy.neighbours(clusters[0])[7]), clusters, weights) for clusters, weights in requests]

    def call(given):
        for item, clusters, weights in given:
            policy.update(item, clusters, weights, 0.5)

    measure(benchmark, capsys, f"update 5 x {width}", call, events)


def test_update_batch(benchmark, capsys):
    policy, requests = make(100, 5)
    items = [policy.neighbours(clusters[0])[7] for clusters, _ in requests]
    batch = (np.array(column) for column in zip(*requests, strict=True))
    batch = np.array(items), *batch, np.full(len(items), 0.5)

    def call(given):
        policy.update_batch(*batch)

    measure(benchmark, capsys, f"update_batch 5 x 100, {len(items)} rows", call, [None])


@pytest.mark.parametrize("edit", ["add_items", "retire_items", "discount", "merge"])
def test_edit(benchmark, capsys, edit):
    policy, requests = make(100, 5)
    other = policy.copy()
    call = {
        "add_items": lambda given: policy.add_items(1, [given[0][0]]),
        "retire_items": lambda given: policy.retire_items([5]),
        "discount": lambda given: policy.discount(1.0),
        "merge": lambda given: policy.merge(other),
    }[edit]
    measure(benchmark, capsys, f"{edit} at 10,000 x 100", call, requests[:1])
