import io
import json

import numpy as np
import pytest

from banditroute.policies import ClusterGraph, OnlineMatching
from naive_graph import FORMS, random_context, state, statistics, trained

both = pytest.mark.parametrize(("estimator", "precision"), FORMS)


def test_items_and_edges_come_and_go_while_feedback_is_pending():
    rng = np.random.default_rng(31)
    policy, naive, _ = trained(rng, rounds=50)
    live, pending = set(range(20)), []
    for step in range(400):
        noise = policy._edges.noise.copy()
        move = rng.integers(6)
        if move == 0:
            rows = [rng.choice(8, rng.integers(0, 4), replace=False) for _ in range(rng.integers(1, 4))]
            for item, row in zip(policy.add_items(len(rows), rows).tolist(), rows, strict=True):
                live.add(item)
                naive.edges |= {(int(c), item): [0.0, 0.0, 0.0] for c in row}
        elif move == 1 and len(live) > 12:
            gone = {int(i) for i in rng.choice(sorted(live), 2, replace=False)}
            policy.retire_items(sorted(gone))
            live -= gone
            naive.edges = {edge: sums for edge, sums in naive.edges.items() if edge[1] not in gone}
        elif move == 2:
            absent = [(c, j) for c in range(8) for j in live if (c, j) not in naive.edges]
            fresh = [absent[i] for i in rng.choice(len(absent), min(5, len(absent)), replace=False)]
            policy.add_edges(*np.array(fresh).T)
            naive.edges |= {edge: [0.0, 0.0, 0.0] for edge in fresh}
        elif move == 3 and len(naive.edges) > 40:
            there = sorted(naive.edges)
            gone = [there[i] for i in rng.choice(len(there), 4, replace=False)]
            policy.remove_edges(*np.array(gone).T)
            for edge in gone:
                del naive.edges[edge]
        np.testing.assert_array_equal(policy._edges.noise, noise)
        c, w = random_context(rng, 8)
        if naive.scores(c, w):
            pending.append((policy.select(c, w, k=3).item, c, w))
        if len(pending) > 15:
            item, c, w = pending.pop(int(rng.integers(len(pending))))
            assert policy.update(item, c, w, step / 100) == naive.update(item, c, w, step / 100)
        edges = {(c, j) for c in range(8) for j in policy.neighbours(c).tolist()}
        assert edges == set(naive.edges)
        assert policy.n_edges == len(edges)
    want = np.array([naive.edges[edge] for edge in sorted(naive.edges)])
    np.testing.assert_allclose(statistics(policy), want, rtol=1e-12, atol=1e-13)
    assert policy.dropped > 0
    assert policy.n_items > len(live)
    assert policy._edges.room < 20 * len(edges) + 200


def test_names_follow_their_items():
    graph = ClusterGraph.from_edges([0, 0, 1], ["b", "a", "b"])
    assert graph.names == ("b", "a")
    policy = OnlineMatching(graph, alpha=1.0, rng=0)
    assert policy.update("a", [0], [1.0], 0.5)
    policy.retire_items(["a", "a"])
    assert not policy.update("a", [0], [1.0], 0.5)
    assert policy.add_items(["a", "c"], [[1], []]).tolist() == [2, 3]
    assert policy.index("a") == 2
    assert policy.update("a", [1], [1.0], 0.5)
    assert not policy.update(1, [0, 1], [0.5, 0.5], 0.5)  # late feedback to the index of the old one
    assert (policy.learned, policy.dropped) == (2, 2)
    policy.add_edges([0], ["c"])
    assert policy.neighbours(0).tolist() == [0, 3]


@both
def test_save_load_continue_is_continue(estimator, precision):
    rng = np.random.default_rng(43)
    policy, _, _ = trained(rng, estimator=estimator, init_precision=precision)
    policy.add_items(3, [[0, 1], [2], [3, 4]])
    policy.retire_items([4, 21])
    for _ in range(700):
        policy.select([0, 1], [0.5, 0.5], k=3)
    header, arrays = policy.to_state()
    file = io.BytesIO()
    np.savez(file, **arrays)
    file.seek(0)
    other = trained(np.random.default_rng(1), rounds=3, estimator=estimator, init_precision=precision)[0]
    other.load_state(json.loads(json.dumps(header)), np.load(file))
    assert state(other) == state(policy)
    for step in range(600):
        context = random_context(rng, 8)
        k = 1 + step % 4
        pick = policy.select(*context, k=k)
        assert other.select(*context, k=k) == pick
        for one in (policy, other):
            one.update(pick.item, *context, 0.1 * step)
        if step % 100 == 0:
            np.testing.assert_array_equal(policy.top(*context, k).items, other.top(*context, k).items)
            np.testing.assert_array_equal(policy.add_items(1, [[5, 6]]), other.add_items(1, [[5, 6]]))
    assert state(other) == state(policy)


@pytest.mark.parametrize(("clusters", "width"), [(10_000, 100), (500, 2_000)])
def test_a_million_edges_on_a_million_items(clusters, width):
    rng = np.random.default_rng(53)
    items = np.sort(rng.integers(0, 1_000_000, (clusters, width)), axis=1)
    items += np.arange(width)  # distinct within a cluster
    graph = ClusterGraph.from_edges(np.repeat(np.arange(clusters), width), items.ravel(), names=1_002_000)
    policy = OnlineMatching(graph, alpha=0.5, rng=0)
    assert policy.n_edges == 1_000_000
    c, w = np.array([3, 499, 17, 250, 8]), np.array([0.3, 0.3, 0.2, 0.1, 0.1])
    union = np.unique(items[c])
    for item in union:
        policy.update(int(item), c, w, 0.0)
    best = int(items[250, 7])
    policy.update(best, [250], [1.0], 100.0)
    assert policy.select(c, w) == (best, 1.0)
    assert policy.select(c, w, k=10**9).propensity == pytest.approx(1 / len(union), rel=1e-15)
    assert sorted(policy.top(c, w, 10**9).items.tolist()) == union.tolist()
    policy.retire_items(union[union != best])
    (fresh,) = policy.add_items(1, [c])
    assert policy.select(c, w, exploit=True).item == best
    assert policy.select(c, w).item == fresh
