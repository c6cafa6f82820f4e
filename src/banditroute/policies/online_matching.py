"""Online Matching: diagonal LinUCB on a graph of user clusters and items."""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from banditroute import _validate as check
from banditroute._edges import NOISE, Edges
from banditroute._kernels import graph as g
from banditroute._kernels import prepare
from banditroute.cluster_graph import ClusterGraph, Ints, Rng

__all__ = ["GraphDiagLinUCB", "ItemScores", "Pick", "Slate"]

Floats = NDArray[np.float64]

INT, FLOAT = np.dtype(np.int64), np.dtype(np.float64)
LIMIT = 1e100  # rewards and weights beyond it are refused: sums of them would overflow


class Pick(NamedTuple):
    """The item chosen for one request and the probability with which it was chosen.

    Examples
    --------
    >>> Pick(7, 0.25).propensity
    0.25
    """

    item: int
    propensity: float


class Slate(NamedTuple):
    """The best items of one request, best first: indices and scores, both of shape (n,).

    Examples
    --------
    >>> Slate(np.array([7]), np.array([0.5])).items
    array([7])
    """

    items: Ints
    scores: Floats


class ItemScores(NamedTuple):
    """Candidates in ascending order with their mean and unscaled width, all of shape (n,).

    Examples
    --------
    >>> ItemScores(np.array([7]), np.array([0.5]), np.array([np.inf])).width
    array([inf])
    """

    items: Ints
    mean: Floats
    width: Floats


def compile_kernels() -> None:
    """Compile every kernel of the request path; a policy does so when it is made."""
    s = Edges(np.array([0, 1]), np.array([0]), alpha=1.0, squared=False, precision=0.0).buffer
    c, w = np.zeros(1, dtype=np.int64), np.ones(1)
    prepare(g.refused, s, c, w)
    prepare(g.pick, s, c, w, 1, 1.0, 0)
    prepare(g.slate, s, c, w, 1, 1.0, w, c, w)
    prepare(g.credit, s, 0, c, w, 1.0, 1.0)
    prepare(g.credit_rows, s, c, c[:, None], w[:, None], w, w, np.zeros(1, dtype=np.bool_))


class GraphDiagLinUCB:
    """Diag-LinUCB of Online Matching: a mean and a width on every edge of a cluster-item graph.

    A request is a few active clusters with weights w (`ClusterGraph.context`); the candidates are the items
    with an edge to any of them. Feedback adds w^2, w reward and w to d, b and s of the edges between the item
    and the active clusters. All are sums: any order, sharding or merging of feedback gives the same state.

    Parameters
    ----------
    graph : ClusterGraph
        The edges to start from.
    alpha : float
        Exploration width, at least 0. At 0 there is no bonus, not for new items either.
    estimator : {"mean", "raw"}
        "mean" (default): theta = b / s, the weighted mean reward of an edge; score = sum w theta +
        alpha sum w sqrt(d) / s. "raw": theta = b / d as in the paper; score = sum w theta +
        alpha sqrt(sum w^2 / d). The ranking is about equally good, but raw means are E[w] / E[w^2] times too
        large (4 times with five clusters), hence useless next to a price or a threshold, and an edge that was
        only seen with a tiny w gets a huge one. With hard assignment (one cluster, weight 1) both are exactly
        LinUCB on one-hot contexts.
    init_precision : float
        0 (default): an edge without evidence has an infinite bound, so that new items come first, in random
        order. Above 0: as if each edge had been seen that often with weight 1 and reward 0 (a ridge prior).
    rng : int, SeedSequence, Generator or None
        Source of randomness: two numbers for `select`, k for `top`.

    Notes
    -----
    Means of "mean" are right in aggregate for rewards of one sign, not for each context: the model is a local
    smoother, slopes are too flat (``benchmarks/graph_calibration.py`` prints by how much). Where an item lacks
    an edge to an active cluster, the term is dropped and the other weights stay as they are. Weights up to
    1e-150 count as zero.

    One object serves one thread at a time, reading included (scratch is shared): hold a lock around calls.
    Memory: 44 bytes an edge and 1 an item for the state, and scratch as the largest decision needs it.

    References
    ----------
    Online Matching: A Real-time Bandit System for Large-scale Recommendations, arXiv 2307.15893, Eq. 7-9, as
    summarised by third parties; "mean" is our own.

    Examples
    --------
    >>> graph = ClusterGraph.from_edges([0, 0, 1], ["jazz", "rock", "rock"])
    >>> policy = GraphDiagLinUCB(graph, alpha=0.5, rng=0)
    >>> for item, reward in [("jazz", 0.2), ("rock", 0.9), ("rock", 0.7)]:
    ...     learned = policy.update(item, [0, 1], [0.7, 0.3], reward)
    >>> policy.scores([0, 1], [0.7, 0.3]).mean.round(3)
    array([0.14, 0.8 ])
    >>> policy.select([0, 1], [0.7, 0.3])
    Pick(item=1, propensity=1.0)
    """

    def __init__(
        self,
        graph: ClusterGraph,
        *,
        alpha: float,
        estimator: Literal["mean", "raw"] = "mean",
        init_precision: float = 0.0,
        rng: Rng = None,
    ) -> None:
        if not isinstance(graph, ClusterGraph):
            raise TypeError(f"graph must be a ClusterGraph, got {type(graph).__name__}")
        if estimator not in ("mean", "raw"):
            raise ValueError(f"estimator must be 'mean' or 'raw', got {estimator!r}")
        self.alpha = check.finite("alpha", alpha, low=0.0, high=LIMIT)
        self.estimator = estimator
        self.init_precision = check.finite("init_precision", init_precision, low=0.0, high=LIMIT)
        self._rng = np.random.default_rng(rng)
        compile_kernels()
        self._edges = self._store(graph.indptr, graph.items)
        self._live = np.ones(graph.n_items, dtype=np.uint8)
        self._name(None if graph.names is None else list(graph.names))
        self.learned = self.dropped = 0  # feedback that taught at least one edge, that met none
        self._draw()

    def _store(self, indptr: Ints, items: NDArray[Any], truth: Floats | None = None) -> Edges:
        squared = self.estimator == "raw"
        return Edges(indptr, items, truth, alpha=self.alpha, squared=squared, precision=self.init_precision)

    def _name(self, names: list[str] | None) -> None:
        self._names = names
        self._index = None if names is None else {name: i for i, name in enumerate(names)}

    def _draw(self) -> None:
        self._edges.noise[:] = self._rng.random(NOISE)
        self._cursor = 0
