"""Which items each cluster of users can be shown: the graph of Online Matching, built offline."""

import warnings
from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Ints, Rng

__all__ = ["ClusterGraph"]


BLOCK = 1 << 24  # inner products held at a time, 128 MB
MOST = 1 << 31  # items and edges are numbered with 32 bits


def indices(name: str, value: ArrayLike, *, size: int | None = None, below: int | None = None) -> Ints:
    """Return ``value`` as a writeable, contiguous int64 vector with entries in ``[0, below)``.

    >>> indices("clusters", [2, 0], below=3)
    array([2, 0])
    >>> indices("clusters", [2, 3], below=3)
    Traceback (most recent call last):
    ValueError: clusters must be in [0, 2], got 3 at index 1
    """
    given = np.asarray(value)
    if given.size == 0:
        given = given.astype(np.int64)
    if given.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got dtype {given.dtype}")
    if given.ndim != 1 or size not in (None, len(given)):
        raise ValueError(f"{name} must have shape ({'n' if size is None else size},), got {given.shape}")
    if below is not None and given.size:
        bad = np.flatnonzero((given < 0) | (given >= below))
        if bad.size:
            raise ValueError(f"{name} must be in [0, {below - 1}], got {given[bad[0]]} at index {bad[0]}")
    return np.require(given, dtype=np.int64, requirements=["C", "W"])


def distinct(name: str, value: Iterable[str]) -> list[str]:
    """Return the names as a list of distinct strings, in time linear in their number.

    >>> distinct("items", ["a", "b"])
    ['a', 'b']
    >>> distinct("items", ["a", "a"])
    Traceback (most recent call last):
    ValueError: items must be distinct, got 'a' twice
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be a count or a sequence of strings, got {value!r}")
    given, seen = list(value), set[str]()
    for item in given:
        if not isinstance(item, str):
            raise TypeError(f"{name} must hold strings, got {item!r}")
        if item in seen:
            raise ValueError(f"{name} must be distinct, got {item!r} twice")
        seen.add(item)
    return given


class ClusterGraph:
    """A bipartite graph: an edge (c, j) says that item j is a candidate for users of cluster c.

    Made by `from_embeddings` or `from_edges`; never changes afterwards. A `OnlineMatching` starts from it
    and edits its own edges while running.

    Attributes
    ----------
    indptr : (n_clusters + 1,) int64 array
        Edges of cluster c are ``items[indptr[c] : indptr[c + 1]]``.
    items : (n_edges,) int64 array
        Item of each edge, ascending within a cluster.
    names : tuple of str or None
        Names of the items, where they have any.
    centroids : (n_clusters, d) array or None
        Needed by `context` only.

    References
    ----------
    Online Matching, arXiv 2307.15893: production has 15,000 to 30,000 clusters of users.

    Examples
    --------
    >>> graph = ClusterGraph.from_edges([0, 0, 1], ["jazz", "rock", "rock"])
    >>> graph.n_clusters, graph.n_items, graph.n_edges
    (2, 2, 3)
    """

    def __init__(
        self, indptr: Ints, items: Ints, n_items: int, names: tuple[str, ...] | None, centroids: Floats | None
    ) -> None:
        self.indptr, self.items, self.n_items = indptr, items, n_items
        self.names, self.centroids = names, centroids
        for array in (indptr, items, centroids):
            if array is not None:
                array.flags.writeable = False

    def __repr__(self) -> str:
        """Show how large it is."""
        return f"ClusterGraph(clusters={self.n_clusters}, items={self.n_items}, edges={self.n_edges})"

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return len(self.indptr) - 1

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return len(self.items)

    @classmethod
    def from_edges(
        cls,
        clusters: ArrayLike,
        items: ArrayLike,
        *,
        names: int | Iterable[str] | None = None,
        n_clusters: int | None = None,
        centroids: ArrayLike | None = None,
    ) -> Self:
        """Build the graph from its edges. Costs a sort of the edges.

        Parameters
        ----------
        clusters : (n,) int array
            Cluster of each edge.
        items : (n,) int or str array
            Item of each edge, an index or a name.
        names : int or sequence of str, optional
            Number or names of all items; by default those that have edges: names in the order in which they
            first appear, or numbers up to the largest.
        n_clusters : int, optional
            By default the number of centroids, or the largest cluster and one.
        centroids : (n_clusters, d) array, optional
            Needed by `context` only.

        Raises
        ------
        ValueError, TypeError
            An edge that is given twice, a cluster or item out of range, or a wrong type.

        Examples
        --------
        >>> graph = ClusterGraph.from_edges([1, 0, 1], [2, 0, 1], names=4)
        >>> graph.neighbours(1)
        array([1, 2])
        """
        centres = None if centroids is None else check.matrix("centroids", centroids).copy()
        known = None if names is None or isinstance(names, int | np.integer) else distinct("names", names)
        count = check.integer("names", names, high=MOST) if known is None and names is not None else None
        given = np.asarray(items)
        if given.dtype.kind in "OUT" and count is None:
            named = given.tolist()
            known = distinct("items", dict.fromkeys(named)) if known is None else known
            index = {name: i for i, name in enumerate(known)}
            unknown = next((name for name in named if name not in index), None)
            if unknown is not None:
                raise ValueError(f"items must be among names, got {unknown!r}")
            given = np.array([index[name] for name in named], dtype=np.int64)
        count = len(known) if known is not None else count
        j = indices("items", given, below=MOST if count is None else count)
        c = indices("clusters", clusters, size=len(j), below=MOST)
        n_items = int(j.max(initial=-1)) + 1 if count is None else count
        wanted = len(centres) if centres is not None else int(c.max(initial=-1)) + 1
        n = wanted if n_clusters is None else check.integer("n_clusters", n_clusters, low=1)
        if centres is not None and len(centres) != n:
            raise ValueError(f"centroids must have {n} rows, got {len(centres)}")
        indices("clusters", c, below=n)
        if n == 0:
            raise ValueError("clusters must name at least one cluster, got none")
        order = np.lexsort((j, c))
        c, j = c[order], j[order]
        twice = np.flatnonzero((c[1:] == c[:-1]) & (j[1:] == j[:-1]))
        if twice.size:
            raise ValueError(f"edges must be distinct, got cluster {c[twice[0]]}, item {j[twice[0]]} twice")
        indptr = np.searchsorted(c, np.arange(n + 1))
        return cls(indptr, j, n_items, None if known is None else tuple(known), centres)

    @classmethod
    def from_embeddings(
        cls,
        users: ArrayLike,
        items: ArrayLike,
        *,
        clusters: int,
        width: int,
        names: Iterable[str] | None = None,
        rng: Rng = None,
    ) -> Self:
        """Cluster users, and connect each cluster to the items of largest inner product with its centroid.

        Costs a k-means of the users (mini-batches where scikit-learn is installed, else Lloyd's with scipy)
        and O(clusters n_items d) for the products, in blocks of 128 MB.

        Parameters
        ----------
        users : (n, d) array
            Sample of user embeddings, n >= clusters.
        items : (m, d) array
            Embeddings of the items in the same space.
        clusters : int
            Number of clusters C.
        width : int
            Edges of each cluster W, in [1, m].
        names : sequence of str, optional
            Names of the items.
        rng : int, SeedSequence, Generator or None
            Seeds the clustering.

        Raises
        ------
        ValueError, TypeError
            Wrong shapes, values that are not finite, more clusters than users, more width than items.

        Examples
        --------
        >>> rng = np.random.default_rng(0)
        >>> users, items = rng.standard_normal((200, 4)), rng.standard_normal((50, 4))
        >>> graph = ClusterGraph.from_embeddings(users, items, clusters=8, width=5, rng=0)
        >>> graph.n_clusters, graph.n_edges
        (8, 40)
        """
        rows = check.matrix("users", users)
        goods = check.matrix("items", items, columns=rows.shape[1])
        count = check.integer("clusters", clusters, low=1, high=len(rows))
        wide = check.integer("width", width, low=1, high=len(goods))
        known = None if names is None else distinct("names", names)
        if known is not None and len(known) != len(goods):
            raise ValueError(f"names must have {len(goods)} entries, got {len(known)}")
        centres = _centroids(rows, count, np.random.default_rng(rng))
        top = np.empty((count, wide), dtype=np.int64)
        block = max(1, BLOCK // len(goods))
        for a in range(0, count, block):
            products = centres[a : a + block] @ goods.T
            top[a : a + block] = np.argpartition(-products, wide - 1, axis=1)[:, :wide]
        top.sort(axis=1)
        names_kept = None if known is None else tuple(known)
        return cls(np.arange(count + 1) * wide, top.ravel(), len(goods), names_kept, centres)

    def neighbours(self, cluster: int) -> Ints:
        """Return the items of a cluster, ascending; raises ``ValueError`` for an unknown cluster.

        Examples
        --------
        >>> ClusterGraph.from_edges([0, 0], [3, 1]).neighbours(0)
        array([1, 3])
        """
        c = check.integer("cluster", cluster, high=self.n_clusters - 1)
        return self.items[self.indptr[c] : self.indptr[c + 1]]

    def context(self, user: ArrayLike, *, active: int = 5, temperature: float = 0.3) -> tuple[Ints, Floats]:
        """Return the closest clusters of a user and their weights, largest first.

        The weights are the softmax of the inner products with the centroids over `temperature`, among the
        active clusters only (Eq. 10 of the paper, whose values are not known to us; the defaults are those of
        ``benchmarks/graph_calibration.py``). Given an item instead, the clusters are those to connect it to.
        Costs O(n_clusters d).

        Parameters
        ----------
        user : (d,) array
            Embedding.
        active : int
            Number of clusters K, in [1, n_clusters].
        temperature : float
            Above 0; small values approach the hard assignment, as K = 1 does.

        Returns
        -------
        clusters : (K,) int64 array
        weights : (K,) float array
            At least 0, sums to 1.

        Raises
        ------
        ValueError, TypeError
            Wrong shape or value, or a graph without centroids.

        Examples
        --------
        >>> graph = ClusterGraph.from_edges([0, 1], [0, 1], centroids=[[1, 0], [0, 1]])
        >>> clusters, weights = graph.context([0.2, 0.5], active=2)
        >>> clusters, weights.round(3)
        (array([1, 0]), array([0.731, 0.269]))
        """
        if self.centroids is None:
            raise ValueError("context needs the centroids of the clusters, got a graph without")
        x = check.vector("user", user, self.centroids.shape[1])
        k = check.integer("active", active, low=1, high=self.n_clusters)
        scale = check.finite("temperature", temperature, low=0.0, open_low=True)
        products = self.centroids @ x
        chosen = np.argpartition(-products, k - 1)[:k]
        chosen = chosen[np.lexsort((chosen, -products[chosen]))]
        weights = np.exp((products[chosen] - products[chosen[0]]) / scale)
        return chosen, weights / weights.sum()


def _centroids(users: Floats, count: int, rng: np.random.Generator) -> Floats:
    """Return `count` cluster centres of the users."""
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ImportError:
        from scipy.cluster.vq import kmeans2

        start = users[rng.choice(len(users), count, replace=False)]
        with warnings.catch_warnings():  # an empty cluster keeps its place
            warnings.simplefilter("ignore", UserWarning)
            centres: Floats = kmeans2(users, start, iter=20, minit="matrix")[0]
        return centres
    seed, batch = int(rng.integers(2**31)), max(1024, count)
    fit = MiniBatchKMeans(count, n_init=1, batch_size=batch, random_state=seed).fit(users)
    return np.ascontiguousarray(fit.cluster_centers_, dtype=np.float64)
