"""What decisions keep comes back from journals and snapshots, whatever its length."""

import os

import numpy as np
import pytest

from banditroute import Router, SnapshotError
from banditroute.policies import ClusterGraph, GraphDiagLinUCB
from banditroute.router.kept_rows import unpacked
from banditroute.router.state import capture, restore

D = 12


def made():
    pairs = [(c, str(i)) for c in range(D) for i in range(3)]
    graph = ClusterGraph.from_edges([c for c, _ in pairs], [item for _, item in pairs])
    return Router(GraphDiagLinUCB(graph, alpha=0.5, rng=0))


def asked(router, n=20):
    """Contexts with one to six active clusters: their rows are of different lengths."""
    rng, found = np.random.default_rng(0), []
    for i in range(n):
        x = np.zeros(D)
        x[rng.choice(D, size=1 + i % 6, replace=False)] = 0.5
        found.append(router.select(x, id=f"r{i}").id)
    return found


def test_a_journal_brings_back_decisions_of_the_graph_policy(tmp_path):
    child = os.fork()
    if child == 0:
        router = made()
        router.recover(tmp_path, flush_s=0.01)
        for key in asked(router)[:10]:
            router.update(key, 0.7)
        router.parts.listeners.all[0].flush()
        os._exit(9)
    os.waitpid(child, 0)
    with made() as router:
        assert router.recover(tmp_path)["skipped"] == 0
        assert router.stats()["pending"] == 10 and router.policy.counts.sum() == 10
        assert all(router.update(f"r{i}", 0.5) for i in range(10, 20))


def test_a_snapshot_holds_rows_of_different_lengths(tmp_path):
    router, other = made(), made()
    asked(router)
    router.save(tmp_path / "state")
    other.load(tmp_path / "state")
    for i in range(20):
        assert router.update(f"r{i}", i / 20) and other.update(f"r{i}", i / 20)
    _, one = router.policy.to_state()
    _, two = other.policy.to_state()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_damaged_lengths_are_refused_and_nothing_changes():
    router = made()
    asked(router)
    header, arrays = capture(router)
    assert "pending.length" in arrays
    for lengths in (arrays["pending.length"] + 1, arrays["pending.length"][:-1], -arrays["pending.length"]):
        with pytest.raises(SnapshotError, match="length"):
            restore(router, header, {**arrays, "pending.length": lengths})
    with pytest.raises(SnapshotError, match="keeps"):
        restore(
            router,
            header,
            {**arrays, "pending.length": np.array([40, *[0] * 18, arrays["pending.context"].size - 40])},
        )
    assert router.stats()["pending"] == 20


def test_rows_come_back_as_they_were():
    rng = np.random.default_rng(1)
    for sizes in ([], [3], [3, 5, 1], [3, 0, 2]):
        rows = [rng.standard_normal(size) for size in sizes]
        flat = np.concatenate([np.zeros(0), *rows])
        again = unpacked(
            {"pending.context": flat, "pending.length": np.array(sizes, dtype=np.int64)}, len(rows)
        )
        assert len(again) == len(rows) and all(np.array_equal(a, b) for a, b in zip(rows, again, strict=True))
    table = rng.standard_normal((4, 3))
    assert np.array_equal(np.array(unpacked({"pending.context": table}, 4)), table)
