"""Online Matching: diagonal LinUCB on a graph of user clusters and items."""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.kernels import graph as g
from banditroute._core.kernels import prepare
from banditroute._core.typing import Floats, Ints, Rng
from banditroute.policies.graph.cluster_graph import ClusterGraph, indices
from banditroute.policies.graph.edges import NOISE, Edges
from banditroute.policies.graph.live_graph import LiveGraph

__all__ = ["ItemScores", "OnlineMatching", "Pick", "Slate"]


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
    s = Edges(np.array([0, 1]), np.array([0]), 1, squared=False, precision=0.0).buffer
    c, w = np.zeros(1, dtype=np.int64), np.ones(1)
    prepare(g.refused, s, c, w)
    prepare(g.pick, s, c, w, 1, 1.0, 0)
    prepare(g.slate, s, c, w, 1, 1.0, w, c, w)
    prepare(g.credit, s, c, w, 0, 1.0, 1.0)
    prepare(g.credit_rows, s, c, c[:, None], w[:, None], w, w, np.zeros(1, dtype=np.bool_))


class OnlineMatching(LiveGraph):
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
    Means of "mean" are right in aggregate for rewards of one sign, not for each context: the model is a
    local smoother and its slopes are too flat (``benchmarks/graph_calibration.py`` prints by how much). Where
    an item lacks an edge to an active cluster, the term is dropped and the other weights stay as they are.
    Weights up to 1e-150 count as zero.

    One object serves one thread at a time, reading included (scratch is shared): hold a lock around calls.
    Memory: 44 bytes an edge and 1 an item for the state, and scratch as the largest decision needs it.

    References
    ----------
    Online Matching: A Real-time Bandit System for Large-scale Recommendations, arXiv 2307.15893, as
    summarised by third parties, who call it Eq. 7-9 (equation numbers not checked against the text); "mean" is our own.

    Examples
    --------
    >>> graph = ClusterGraph.from_edges([0, 0, 1], ["jazz", "rock", "rock"])
    >>> policy = OnlineMatching(graph, alpha=0.5, rng=0)
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
        compile_kernels()
        indptr, items, count = graph.indptr, graph.items, graph.n_items
        edges = Edges(indptr, items, count, squared=estimator == "raw", precision=self.init_precision)
        super().__init__(edges, count, graph.names, rng)

    def __repr__(self) -> str:
        """Show how many items it knows and how it estimates."""
        learned, how = self.learned, f"alpha={self.alpha:g}, estimator={self.estimator!r}"
        return f"OnlineMatching(items={self.n_items}, learned={learned}, {how})"

    # -- the request path -----------------------------------------------------------------------------------

    def select(self, clusters: ArrayLike, weights: ArrayLike, *, k: int = 1, exploit: bool = False) -> Pick:
        """Choose one item uniformly among the top k of one request.

        With feedback that comes minutes later, k = 1 would send every request of those minutes to the same
        items; a larger k spreads them. Costs about 5 ns for each edge of the active clusters, and 1 to 2 us.

        Parameters
        ----------
        clusters : (K,) int array
            Active clusters, distinct.
        weights : (K,) array
            Their weights in [0, 1e6]; a cluster of weight 0 is not active.
        k : int
            How many of the best items share the choice.
        exploit : bool
            Score by the mean alone.

        Returns
        -------
        Pick
            Index and propensity: 1 / min(k, candidates), except that items which tie at the k-th place
            have equal shares in the places left.

        Raises
        ------
        ValueError, TypeError
            Wrong input, or no candidate; nothing changed.

        Examples
        --------
        >>> policy = OnlineMatching(ClusterGraph.from_edges([0, 0, 0, 0], [0, 1, 2, 3]), alpha=1.0, rng=1)
        >>> policy.select([0], [1.0], k=2).propensity  # all four are new: they tie
        0.25
        """
        if type(k) is not int or k < 1:
            k = check.integer("k", k, low=1)
        s, alpha = self._edges.buffer, 0.0 if exploit else self.alpha
        try:  # the kernel itself is the fastest check that these are the arrays it was compiled for
            item, propensity = g.pick(s, clusters, weights, k, alpha, self._cursor)
        except (TypeError, AttributeError):
            item, propensity = g.pick(s, *self._arrays(clusters, weights), k, alpha, self._cursor)
        if item < 0:
            c, w = self._arrays(clusters, weights)
            self._admit(c, w)
            raise ValueError(f"clusters must have candidates, got none for {c.tolist()}")
        self._cursor += 2
        if self._cursor == NOISE:
            self.draw_noise()
        return Pick(item, propensity)

    def top(self, clusters: ArrayLike, weights: ArrayLike, k: int, *, exploit: bool = False) -> Slate:
        """Return the k best items, best first; ties are broken at random, each way equally likely.

        Parameters
        ----------
        clusters, weights, exploit
            As for `select`.
        k : int
            Length of the slate; shorter where there are fewer candidates, even empty.

        Returns
        -------
        Slate
            Indices and scores, infinite for items without evidence.

        Raises
        ------
        ValueError, TypeError
            Wrong input; nothing changed.

        Examples
        --------
        >>> policy = OnlineMatching(ClusterGraph.from_edges([0, 0], [0, 1]), alpha=0.1, init_precision=1.0)
        >>> policy.update(1, [0], [1.0], 1.0)
        True
        >>> policy.top([0], [1.0], 2).items
        array([1, 0])
        """
        size = min(check.integer("k", k, low=1), self.n_edges)
        c, w = self._arrays(clusters, weights)
        self._admit(c, w)
        items, scores = np.empty(size, dtype=np.int64), np.empty(size)
        alpha = 0.0 if exploit else self.alpha
        n = g.slate(self._edges.buffer, c, w, size, alpha, self._rng.random(size), items, scores)
        order = np.argsort(-scores[:n], kind="stable")
        return Slate(items[:n][order], scores[:n][order])

    def scores(self, clusters: ArrayLike, weights: ArrayLike) -> ItemScores:
        """Mean and unscaled width of every candidate, for inspection; reads only.

        Examples
        --------
        >>> policy = OnlineMatching(ClusterGraph.from_edges([0, 1], [0, 0]), alpha=1.0)
        >>> policy.update(0, [0, 1], [0.5, 0.5], 0.8)
        True
        >>> policy.scores([0, 1], [0.5, 0.5])
        ItemScores(items=array([0]), mean=array([0.8]), width=array([1.]))
        """
        c, w = self._arrays(clusters, weights)
        self._admit(c, w)
        c, w = c[w > g.TINY], w[w > g.TINY]
        places, raw = self._edges.places(c), self.estimator == "raw"
        items, rows = np.unique(self._edges.items[places].astype(np.int64), return_inverse=True)
        share = np.repeat(w, self._edges.size[c])
        theta, spread = self._edges.view[places].T
        mean, width = np.zeros(len(items)), np.zeros(len(items))
        np.add.at(mean, rows, share * theta)
        np.add.at(width, rows, (share**2 if raw else share) * spread)
        return ItemScores(items, mean, np.sqrt(width) if raw else width)

    # -- learning -------------------------------------------------------------------------------------------

    def update(
        self, item: int | str, clusters: ArrayLike, weights: ArrayLike, reward: float, *, weight: float = 1.0
    ) -> bool:
        """Learn one reward; the order does not matter. Costs O(K log W), about 0.1 us for each cluster.

        Parameters
        ----------
        item : int or str
            Index or name.
        clusters, weights : (K,) arrays
            Context of the decision, as it was given to `select`.
        reward : float
            In [-1e100, 1e100].
        weight : float
            Weight of the observation, in (0, 1e100].

        Returns
        -------
        bool
            False when no active cluster has an edge to the item (it was retired, or the edges were removed):
            nothing is learned, and it is counted in `dropped`.

        Raises
        ------
        UnknownArm, ValueError, TypeError
            Wrong input; nothing changed.

        Examples
        --------
        >>> policy = OnlineMatching(ClusterGraph.from_edges([0, 0], [0, 1]), alpha=1.0)
        >>> policy.update(1, [0], [1.0], 0.7)
        True
        """
        if type(item) is not int or not 0 <= item < len(self._live):
            item = self.index(item)
        if type(reward) is not float or not -LIMIT <= reward <= LIMIT:
            reward = check.finite("reward", reward, low=-LIMIT, high=LIMIT)
        if type(weight) is not float or not 0.0 < weight <= LIMIT:
            weight = check.finite("weight", weight, low=0.0, high=LIMIT, open_low=True)
        s = self._edges.buffer
        try:
            count = g.credit(s, clusters, weights, item, reward, weight)
        except (TypeError, AttributeError):
            count = g.credit(s, *self._arrays(clusters, weights), item, reward, weight)
        if count < 0:
            self._admit(*self._arrays(clusters, weights))
        self.learned += count > 0
        self.dropped += count == 0
        return bool(count)

    def update_batch(
        self,
        items: ArrayLike,
        clusters: ArrayLike,
        weights: ArrayLike,
        rewards: ArrayLike,
        *,
        weight: ArrayLike = 1.0,
    ) -> NDArray[np.bool_]:
        """Learn many rewards, exactly as a loop over `update` would; all are checked before any is learned.

        Parameters
        ----------
        items : (n,) int or str array
        clusters, weights : (n, K) arrays
            Distinct clusters in each row; fill up shorter contexts with other clusters of weight 0.
        rewards : (n,) array
        weight : float or (n,) array

        Returns
        -------
        (n,) bool array
            What `update` returns for each row.

        Raises
        ------
        UnknownArm, ValueError, TypeError
            Wrong input; nothing changed.

        Examples
        --------
        >>> policy = OnlineMatching(ClusterGraph.from_edges([0, 0], [0, 1]), alpha=1.0)
        >>> policy.update_batch([1, 0], [[0], [0]], [[1.0], [1.0]], [0.7, 0.1])
        array([ True,  True])
        """
        chosen = self._chosen(items)
        n = len(chosen)
        w = check.matrix("weights", weights, rows=n)
        if np.shape(clusters) != w.shape:
            raise ValueError(f"clusters must have shape {w.shape}, got {np.shape(clusters)}")
        c = indices("clusters", np.ravel(clusters)).reshape(w.shape)
        r = check.vector("rewards", rewards, n)
        v = check.vector("weight", np.broadcast_to(weight, n), n)
        for name, given, low in (("rewards", r, -LIMIT), ("weight", v, np.nextafter(0.0, 1.0))):
            if n and not (given.min() >= low and given.max() <= LIMIT):
                worst = given.min() if given.min() < low else given.max()
                raise ValueError(f"{name} must be in [{low:g}, {LIMIT:g}], got {worst}")
        r, v, w = (np.require(array, requirements=["C", "W"]) for array in (r, v, w))
        learned = np.zeros(n, dtype=np.bool_)
        row = g.credit_rows(self._edges.buffer, chosen, c, w, r, v, learned)
        if row >= 0:
            self._admit(c[row], w[row], f" in row {row}")
        self.learned += int(learned.sum())
        self.dropped += n - int(learned.sum())
        return learned

    # -- border ---------------------------------------------------------------------------------------------

    def admitted(self, clusters: ArrayLike, weights: ArrayLike) -> tuple[Ints, Floats]:
        """Return a context as arrays, or refuse it."""
        c, w = self._arrays(clusters, weights)
        self._admit(c, w)
        return c, w

    @staticmethod
    def _arrays(clusters: ArrayLike, weights: ArrayLike) -> tuple[Ints, Floats]:
        """Return both as the kernels want them; the range of what they hold is checked there, at no cost."""
        c = indices("clusters", clusters)
        return c, np.require(check.vector("weights", weights, len(c)), requirements=["C", "W"])

    def _admit(self, clusters: Ints, weights: Floats, where: str = "") -> None:
        """Raise the error that tells what is wrong with a context, if anything is."""
        if not g.refused(self._edges.buffer, clusters, weights):
            return
        if not len(clusters):
            raise ValueError(f"clusters must name at least one cluster, got none{where}")
        indices(f"clusters{where}", clusters, below=self.n_clusters)
        if len(np.unique(clusters)) < len(clusters):
            raise ValueError(f"clusters must be distinct, got {clusters.tolist()}{where}")
        check.vector(f"weights{where}", weights, len(clusters))
        raise ValueError(f"weights must be in [0, {g.LARGEST:g}], got {weights.tolist()}{where}")
