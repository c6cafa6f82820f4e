import numpy as np
import pytest

from banditroute.errors import UnknownArm
from banditroute.policies import ClusterGraph, OnlineMatching
from naive_graph import state, statistics, trained

CONTEXT = ([0, 2], [0.5, 0.5])
BAD = {
    "unknown cluster": lambda p: p.update(0, [0, 9], [0.5, 0.5], 1.0),
    "negative cluster": lambda p: p.select([-1], [1.0]),
    "cluster twice": lambda p: p.select([2, 2], [0.5, 0.5]),
    "float clusters": lambda p: p.select([0.0, 2.0], [0.5, 0.5]),
    "no cluster": lambda p: p.select([], []),
    "matrix of clusters": lambda p: p.select([[0, 2]], [0.5, 0.5]),
    "fewer weights": lambda p: p.select([0, 2], [1.0]),
    "fewer weights as arrays": lambda p: p.update(0, np.array([0, 2]), np.array([1.0]), 1.0),
    "nan weight": lambda p: p.update(0, np.array([0, 2]), np.array([0.5, np.nan]), 1.0),
    "infinite weight": lambda p: p.scores(np.array([0, 2]), np.array([0.5, np.inf])),
    "negative weight": lambda p: p.top([0, 2], [0.5, -0.5], 3),
    "large weight": lambda p: p.top([0, 2], [0.5, 1e7], 3),
    "text weights": lambda p: p.top([0, 2], ["a", "b"], 3),
    "nan reward": lambda p: p.update(0, *CONTEXT, float("nan")),
    "infinite reward": lambda p: p.update(0, *CONTEXT, np.inf),
    "huge reward": lambda p: p.update(0, *CONTEXT, 1e200),
    "no reward": lambda p: p.update(0, *CONTEXT, None),
    "zero weight": lambda p: p.update(0, *CONTEXT, 1.0, weight=0.0),
    "nan observation weight": lambda p: p.update(0, *CONTEXT, 1.0, weight=float("nan")),
    "unknown item": lambda p: p.update(20, *CONTEXT, 1.0),
    "negative item": lambda p: p.update(-1, *CONTEXT, 1.0),
    "float item": lambda p: p.update(1.0, *CONTEXT, 1.0),
    "unknown name": lambda p: p.update("x", *CONTEXT, 1.0),
    "k of zero": lambda p: p.select(*CONTEXT, k=0),
    "k of half": lambda p: p.top(*CONTEXT, 0.5),
    "no candidates": lambda p: p.select([7], [1.0]),
    "batch, last row": lambda p: p.update_batch([0, 1], [[0, 2], [0, 8]], [[0.5, 0.5]] * 2, [1.0, 1.0]),
    "batch, nan reward": lambda p: p.update_batch([0, 1], [[0], [1]], [[1.0]] * 2, [1.0, np.nan]),
    "batch, item": lambda p: p.update_batch([0, 99], [[0], [1]], [[1.0]] * 2, [1.0, 1.0]),
    "batch, shape": lambda p: p.update_batch([0, 1], [[0, 1]], [[1.0], [1.0]], [1.0, 1.0]),
    "batch, weight": lambda p: p.update_batch(
        [0, 1], [[0], [1]], [[1.0]] * 2, [1.0, 1.0], weight=[1.0, -1.0]
    ),
    "discount of zero": lambda p: p.discount(0.0),
    "add names": lambda p: p.add_items(["x"], [[0]]),
    "add to unknown cluster": lambda p: p.add_items(2, [[0], [8]]),
    "add to a cluster twice": lambda p: p.add_items(1, [[0, 0]]),
    "add, too few rows": lambda p: p.add_items(2, [[0]]),
    "edge that is there": lambda p: p.add_edges([7, 0], [1, int(p.neighbours(0)[0])]),
    "edge given twice": lambda p: p.add_edges([7, 7], [1, 1]),
    "edge to a retired item": lambda p: p.add_edges([7, 7], [1, 19]),
    "edge from nowhere": lambda p: p.add_edges([7, 8], [1, 1]),
    "remove what is not there": lambda p: p.remove_edges([0, 7], [int(p.neighbours(0)[0]), 1]),
    "retire the unknown": lambda p: p.retire_items([0, 20]),
    "merge with a number": lambda p: p.merge(3),
    "merge another edge": lambda p: p.merge(_with_another_edge(p)),
    "merge other edges": lambda p: p.merge(OnlineMatching(ClusterGraph.from_edges([7], [19]), alpha=1.0)),
    "load another kind": lambda p: p.load_state(*_spoiled(p, policy="LinUCB")),
    "load nan": lambda p: p.load_state(*_spoiled(p, truth=np.full((60, 3), np.nan))),
    "load unsorted": lambda p: p.load_state(*_spoiled(p, items=np.zeros(p.n_edges, dtype=int))),
    "load edges of the retired": lambda p: p.load_state(*_spoiled(p, live=np.zeros(20, dtype=np.uint8))),
    "load a cursor": lambda p: p.load_state(*_spoiled(p, cursor=1024)),
    "load a generator": lambda p: p.load_state(*_spoiled(p, rng={"bit_generator": "MT19937"})),
}


def _with_another_edge(policy):
    other = policy.copy()
    other.remove_edges([0], policy.neighbours(0)[:1])
    other.add_edges([0], [next(j for j in range(19) if j not in policy.neighbours(0))])
    return other


def _spoiled(policy, **changes):
    header, arrays = policy.to_state()
    for name, value in changes.items():
        (header if name in header else arrays)[name] = value
    return header, arrays


@pytest.mark.parametrize("name", BAD)
def test_a_call_that_raises_changes_nothing(name):
    policy, _, _ = trained(np.random.default_rng(37), rounds=50)
    policy.remove_edges(np.full(len(policy.neighbours(7)), 7), policy.neighbours(7))
    policy.retire_items([19])
    before, buffer = state(policy), policy._edges.truth.tobytes()
    with pytest.raises((ValueError, TypeError, UnknownArm)) as caught:
        BAD[name](policy)
    assert str(caught.value)
    assert state(policy) == before
    assert policy._edges.truth.tobytes() == buffer


def test_errors_name_argument_rule_and_value():
    policy, _, _ = trained(np.random.default_rng(37), rounds=0)
    for call, error, text in (
        (BAD["unknown cluster"], ValueError, r"clusters must be in \[0, 7\], got 9 at index 1"),
        (BAD["cluster twice"], ValueError, r"clusters must be distinct, got \[2, 2\]"),
        (BAD["fewer weights"], ValueError, r"weights must have shape \(2,\), got \(1,\)"),
        (BAD["nan weight"], ValueError, r"weights must be finite, got nan at index 1"),
        (BAD["large weight"], ValueError, r"weights must be in \[0, 1e\+06\], got \[0.5, 10000000.0\]"),
        (BAD["nan reward"], ValueError, "reward must be a finite number, got nan"),
        (BAD["unknown item"], UnknownArm, r"item must be in \[0, 19\], got 20"),
        (BAD["batch, last row"], ValueError, r"clusters in row 1 must be in \[0, 7\], got 8 at index 1"),
        (BAD["merge other edges"], ValueError, "other must have the same items and edges as this"),
    ):
        with pytest.raises(error, match=text):
            call(policy)
    graph = ClusterGraph.from_edges([0], [0])
    for settings in (
        {"alpha": -1.0},
        {"alpha": 1.0, "estimator": "median"},
        {"alpha": 1.0, "init_precision": -1.0},
    ):
        with pytest.raises(ValueError, match="must be"):
            OnlineMatching(graph, **settings)
    with pytest.raises(TypeError, match="graph must be a ClusterGraph"):
        OnlineMatching([[0, 1]], alpha=1.0)


def test_all_forms_of_input_are_alike_and_left_alone():
    policy, _, _ = trained(np.random.default_rng(41))
    c, w = np.array([5, 1, 2]), np.array([0.5, 0.25, 0.25])
    frozen = [c.copy(), w.copy()]
    for array in frozen:
        array.flags.writeable = False
    strided = np.repeat(c, 2)[::2], np.repeat(w, 2)[::2]
    forms = [(c, w), (c.tolist(), w.tolist()), frozen, strided, (c.astype(np.uint8), w.astype(np.float32))]
    twins = [policy.copy() for _ in forms]
    for twin, (cs, ws) in zip(twins, forms, strict=True):
        for k in range(1, 5):
            item = twin.select(cs, ws, k=k).item
            twin.update(np.int32(item), cs, ws, np.float32(0.5), weight=1)
            twin.top(cs, ws, k)
        assert state(twin) == state(twins[0])
    assert c.tolist() == [5, 1, 2]
    assert w.tolist() == [0.5, 0.25, 0.25]
    held = policy.to_state()[1]["truth"]
    held[:] = -1.0
    assert statistics(policy).min() >= -50.0
    assert state(policy) != state(twins[0])
