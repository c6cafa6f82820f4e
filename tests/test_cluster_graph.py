import sys

import numpy as np
import pytest

from banditroute.policies import ClusterGraph, OnlineMatching


@pytest.mark.parametrize("library", ["scikit-learn", "scipy"])
def test_embeddings_give_the_items_of_largest_inner_product(library, monkeypatch):
    if library == "scipy":
        monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    else:
        pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    monkeypatch.setattr(
        "banditroute.policies.graph.cluster_graph.BLOCK", 100
    )  # several blocks, the last one short
    rng = np.random.default_rng(47)
    groups = 10.0 * np.eye(5)[:, :4] - 2.0
    users = (groups[:, None] + rng.standard_normal((5, 60, 4))).reshape(-1, 4)
    items = rng.standard_normal((40, 4))
    graph = ClusterGraph.from_embeddings(users, items, clusters=7, width=6, rng=0)
    again = ClusterGraph.from_embeddings(users, items, clusters=7, width=6, rng=0)
    np.testing.assert_array_equal(graph.centroids, again.centroids)
    for c in range(7):
        best = np.argsort(-(items @ graph.centroids[c]))[:6]
        assert graph.neighbours(c).tolist() == sorted(best.tolist())
    near = np.linalg.norm(users[:, None] - graph.centroids, axis=2).min(axis=1)
    assert np.sqrt((near**2).mean()) < 3.0  # one centre for all would give about 9
    user = rng.standard_normal(4)
    c, w = graph.context(user, active=3, temperature=2.0)
    inner = graph.centroids @ user
    np.testing.assert_array_equal(c, np.argsort(-inner)[:3])
    np.testing.assert_allclose(w, np.exp(inner[c] / 2.0) / np.exp(inner[c] / 2.0).sum(), rtol=1e-12)
    _, hard = graph.context(1e4 * user, active=3, temperature=1e-3)
    np.testing.assert_array_equal(hard, [1.0, 0.0, 0.0])
    pick = OnlineMatching(graph, alpha=1.0, rng=0).select(*graph.context(user))
    assert 0 <= pick.item < 40


def test_edges_are_sorted_and_checked():
    graph = ClusterGraph.from_edges([2, 0, 2], [5, 1, 3], names=9, n_clusters=4)
    assert graph.indptr.tolist() == [0, 1, 1, 3, 3]
    assert graph.items.tolist() == [1, 3, 5]
    assert (graph.n_clusters, graph.n_items, graph.n_edges, graph.names) == (4, 9, 3, None)
    named = ClusterGraph.from_edges([0, 1], [1, 0], names=["x", "y", "z"])
    assert (named.n_items, named.names) == (3, ("x", "y", "z"))
    with pytest.raises(ValueError, match="read-only"):
        graph.items[0] = 2
    with pytest.raises(ValueError, match="needs the centroids"):
        graph.context([1.0])
    for bad, text in (
        (
            lambda: ClusterGraph.from_edges([0, 0], [1, 1]),
            "edges must be distinct, got cluster 0, item 1 twice",
        ),
        (lambda: ClusterGraph.from_edges([0], [1, 2]), r"clusters must have shape \(2,\)"),
        (lambda: ClusterGraph.from_edges([0], [3], names=3), r"items must be in \[0, 2\], got 3"),
        (lambda: ClusterGraph.from_edges([0], ["q"], names=["x"]), "items must be among names, got 'q'"),
        (
            lambda: ClusterGraph.from_edges([0], [0], names=["x", "x"]),
            "names must be distinct, got 'x' twice",
        ),
        (lambda: ClusterGraph.from_edges([5], [0], n_clusters=5), r"clusters must be in \[0, 4\], got 5"),
        (
            lambda: ClusterGraph.from_edges([0], [0], centroids=[[1.0]], n_clusters=2),
            "centroids must have 2 rows",
        ),
        (lambda: ClusterGraph.from_edges([], []), "at least one cluster"),
        (
            lambda: ClusterGraph.from_embeddings([[1.0]], [[1.0]], clusters=2, width=1),
            r"clusters must be in \[1, 1\]",
        ),
        (
            lambda: ClusterGraph.from_embeddings([[1.0]], [[1.0]], clusters=1, width=2),
            r"width must be in \[1, 1\]",
        ),
        (
            lambda: ClusterGraph.from_embeddings([[1.0]], [[1.0, 2.0]], clusters=1, width=1),
            "items must have shape",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            bad()
