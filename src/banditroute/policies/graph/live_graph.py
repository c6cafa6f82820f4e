"""The state of a policy on a graph: items and edges that come and go, and what was learned on them."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Ints, Rng
from banditroute.errors import UnknownArm
from banditroute.policies.graph.cluster_graph import MOST, distinct, indices
from banditroute.policies.graph.edges import NOISE, Edges

__all__ = ["LiveGraph"]


class LiveGraph:
    """Edges with their statistics, to edit, merge, fade and save.

    Items are numbered for good, so that late feedback never meets another item.

    Attributes
    ----------
    learned, dropped : int
        Feedback that taught at least one edge, and feedback that met none.
    """

    def __init__(self, edges: Edges, n_items: int, names: tuple[str, ...] | None, rng: Rng) -> None:
        self._edges = edges
        self._live = np.ones(n_items, dtype=np.uint8)
        self.positions = None if names is None else {name: i for i, name in enumerate(names)}
        self._rng = np.random.default_rng(rng)
        self.learned = self.dropped = 0
        self.draw_noise()

    def draw_noise(self) -> None:
        """Prefetch the next block of random numbers."""
        self._edges.noise[:] = self._rng.random(NOISE)
        self._cursor = 0

    @property
    def generator(self) -> np.random.Generator:
        """The source of random numbers."""
        return self._rng

    def take(self, generator: np.random.Generator) -> None:
        """Go on with another generator; what was drawn ahead is dropped."""
        self._rng = generator
        self.draw_noise()

    def living(self) -> Ints:
        """Return the items that were not retired, ascending."""
        return np.flatnonzero(self._live)

    def sums(self, item: int) -> Floats:
        """Return the sums d, b, s of an item's edges, (n_clusters, 3): 0 where there is no edge."""
        given = np.zeros((self.n_clusters, 3))
        places = self._edges.find(np.arange(self.n_clusters), np.full(self.n_clusters, self.index(item)))
        given[places >= 0] = self._edges.truth[places[places >= 0]]
        return given

    def set_sums(self, item: int, sums: Floats) -> None:
        """Put sums in the place of those on an item's edges; rows of clusters without an edge are left out."""
        places = self._edges.find(np.arange(self.n_clusters), np.full(self.n_clusters, self.index(item)))
        self._edges.truth[places[places >= 0]] = sums[places >= 0]
        self._edges.derive()

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return self._edges.clusters

    @property
    def n_items(self) -> int:
        """Number of items ever, retired ones included: indices are below it."""
        return len(self._live)

    @property
    def n_edges(self) -> int:
        """Number of edges."""
        return int(self._edges.size.sum())

    def index(self, item: int | str) -> int:
        """Return the index of an item given by name (str) or index (int); a retired one keeps both.

        Raises
        ------
        UnknownArm
            There never was such an item.

        Examples
        --------
        >>> from banditroute.policies.graph.cluster_graph import ClusterGraph
        >>> from banditroute.policies.graph.online_matching import OnlineMatching
        >>> OnlineMatching(ClusterGraph.from_edges([0, 0], ["a", "b"]), alpha=1.0).index("b")
        1
        """
        if isinstance(item, str):
            if self.positions is None:
                raise TypeError(f"item must be an index, as this graph has no names, got {item!r}")
            if item not in self.positions:
                raise UnknownArm(f"item must be one of the {self.n_items} of the graph, got {item!r}")
            return self.positions[item]
        if isinstance(item, bool) or not isinstance(item, int | np.integer):
            raise TypeError(f"item must be a name (str) or an index (int), got {item!r}")
        if not 0 <= item < self.n_items:
            raise UnknownArm(f"item must be in [0, {self.n_items - 1}], got {item}")
        return int(item)

    def neighbours(self, cluster: int) -> Ints:
        """Return the items of a cluster as they are now, ascending.

        Examples
        --------
        >>> from banditroute.policies.graph.cluster_graph import ClusterGraph
        >>> from banditroute.policies.graph.online_matching import OnlineMatching
        >>> policy = OnlineMatching(ClusterGraph.from_edges([0, 0], [0, 1]), alpha=1.0)
        >>> policy.retire_items([0])
        >>> policy.neighbours(0)
        array([1])
        """
        c = check.integer("cluster", cluster, high=self.n_clusters - 1)
        first, size = self._edges.first[c], self._edges.size[c]
        return self._edges.items[first : first + size].astype(np.int64)

    def add_items(self, items: int | Iterable[str], clusters: Sequence[ArrayLike]) -> Ints:
        """Add items with edges to clusters; their edges start without evidence.

        Costs as `add_edges`, and O(n_items) bytes copied.

        Parameters
        ----------
        items : int or sequence of str
            Names of the items, or how many, as the graph has names or not. The name of a retired item may be
            used again, and then means the new one.
        clusters : sequence of int arrays
            For each item, the clusters to connect it to (`ClusterGraph.context` of its embedding finds them).

        Returns
        -------
        (n,) int64 array
            Indices of the new items, above all others.

        Raises
        ------
        ValueError, TypeError
            Names where there are none or the other way round, a name that lives, a cluster that is unknown or
            given twice; nothing changed.

        Examples
        --------
        >>> from banditroute.policies.graph.cluster_graph import ClusterGraph
        >>> from banditroute.policies.graph.online_matching import OnlineMatching
        >>> policy = OnlineMatching(ClusterGraph.from_edges([0, 1], [0, 1]), alpha=1.0)
        >>> policy.add_items(2, [[0, 1], [1]])
        array([2, 3])
        """
        if self.positions is None:
            names, count = [], check.integer("items", items, low=1, high=MOST - self.n_items)
        elif isinstance(items, int | np.integer):
            raise TypeError(f"items must be names, as those of this graph, got {items!r}")
        else:
            names = distinct("items", items)
            count = len(names)
            taken = next((n for n in names if n in self.positions and self._live[self.positions[n]]), None)
            if taken is not None:
                raise ValueError(f"items must be new, got {taken!r}")
        if len(clusters) != count:
            raise ValueError(f"clusters must have an entry for each of {count} items, got {len(clusters)}")
        rows = [indices(f"clusters[{i}]", c, below=self.n_clusters) for i, c in enumerate(clusters)]
        for i, row in enumerate(rows):
            if len(np.unique(row)) < len(row):
                raise ValueError(f"clusters[{i}] must be distinct, got {row.tolist()}")
        fresh = np.arange(self.n_items, self.n_items + count)
        self._live = np.append(self._live, np.ones(count, dtype=np.uint8))
        if self.positions is not None:
            self.positions.update(zip(names, fresh.tolist(), strict=True))
        if rows:
            items_of_rows = np.repeat(fresh, [len(row) for row in rows])
            self._edges.insert(np.concatenate(rows), items_of_rows, self.n_items)
        return fresh

    def retire_items(self, items: ArrayLike) -> None:
        """Remove items with their edges and evidence; their indices are never used again.

        Feedback that is still to come for them is counted in `dropped`. To retire an item twice changes
        nothing. One pass over all edges, however many items: some 3 ms at 1e6 edges.

        Parameters
        ----------
        items : (n,) int or str array

        Raises
        ------
        UnknownArm, TypeError
            No such item; nothing changed.

        Examples
        --------
        >>> from banditroute.policies.graph.cluster_graph import ClusterGraph
        >>> from banditroute.policies.graph.online_matching import OnlineMatching
        >>> policy = OnlineMatching(ClusterGraph.from_edges([0, 0], ["a", "b"]), alpha=1.0)
        >>> policy.retire_items(["a"])
        >>> policy.update("a", [0], [1.0], 0.5), policy.dropped
        (False, 1)
        """
        self._live[self._chosen(items)] = 0
        self._edges.sweep(self._live)

    def add_edges(self, clusters: ArrayLike, items: ArrayLike) -> None:
        """Connect clusters to items, without evidence.

        Costs some 10 us for each cluster touched, and O(n_edges) once in a while (50 ms at 1e6 edges), when the
        room that was left is used up.

        Parameters
        ----------
        clusters : (n,) int array
        items : (n,) int or str array

        Raises
        ------
        ValueError, TypeError, UnknownArm
            An edge that is there or given twice, a cluster or item that is unknown or retired; nothing
            changed.

        Examples
        --------
        >>> from banditroute.policies.graph.cluster_graph import ClusterGraph
        >>> from banditroute.policies.graph.online_matching import OnlineMatching
        >>> policy = OnlineMatching(ClusterGraph.from_edges([0, 1], [0, 1]), alpha=1.0)
        >>> policy.add_edges([0], [1])
        >>> policy.neighbours(0)
        array([0, 1])
        """
        c, j, places = self._pairs(clusters, items)
        retired = np.flatnonzero(self._live[j] == 0)
        if retired.size:
            raise ValueError(f"items must not be retired, got {j[retired[0]]} at index {retired[0]}")
        there = np.flatnonzero(places >= 0)
        if there.size:
            raise ValueError(f"edges must be new, got cluster {c[there[0]]}, item {j[there[0]]}")
        self._edges.insert(c, j, self.n_items)

    def remove_edges(self, clusters: ArrayLike, items: ArrayLike) -> None:
        """Remove edges with their evidence; costs the edges of the clusters touched.

        Parameters
        ----------
        clusters : (n,) int array
        items : (n,) int or str array

        Raises
        ------
        ValueError, TypeError, UnknownArm
            An edge that is not there or given twice; nothing changed.

        Examples
        --------
        >>> from banditroute.policies.graph.cluster_graph import ClusterGraph
        >>> from banditroute.policies.graph.online_matching import OnlineMatching
        >>> policy = OnlineMatching(ClusterGraph.from_edges([0, 1], [0, 1]), alpha=1.0)
        >>> policy.remove_edges([0], [0])
        >>> policy.n_edges
        1
        """
        c, j, places = self._pairs(clusters, items)
        missing = np.flatnonzero(places < 0)
        if missing.size:
            raise ValueError(f"edges must exist, got cluster {c[missing[0]]}, item {j[missing[0]]}")
        self._edges.remove(places, c, self._live)

    def discount(self, factor: float) -> None:
        """Let all evidence fade: d, b and s are multiplied by `factor` in (0, 1]; one pass over all edges.

        Examples
        --------
        >>> from banditroute.policies.graph.cluster_graph import ClusterGraph
        >>> from banditroute.policies.graph.online_matching import OnlineMatching
        >>> policy = OnlineMatching(ClusterGraph.from_edges([0], [0]), alpha=1.0)
        >>> policy.update(0, [0], [1.0], 0.5)
        True
        >>> policy.discount(0.25)
        >>> policy.scores([0], [1.0])
        ItemScores(items=array([0]), mean=array([0.5]), width=array([2.]))
        """
        self._edges.truth[:] *= check.finite("factor", factor, low=0.0, high=1.0, open_low=True)
        self._edges.derive()

    def merge(self, other: Self) -> None:
        """Add what another policy on the same graph has learned; the prior is not counted twice.

        Replicas may differ in alpha, estimator and prior: the sums do not depend on them.

        Raises
        ------
        ValueError, TypeError
            The other is not such a policy, or its items or edges differ; nothing changed.

        Examples
        --------
        >>> from banditroute.policies.graph.cluster_graph import ClusterGraph
        >>> from banditroute.policies.graph.online_matching import OnlineMatching
        >>> graph = ClusterGraph.from_edges([0], [0])
        >>> a, b = OnlineMatching(graph, alpha=1.0), OnlineMatching(graph, alpha=1.0)
        >>> a.update(0, [0], [1.0], 0.0), b.update(0, [0], [1.0], 1.0)
        (True, True)
        >>> a.merge(b)
        >>> a.scores([0], [1.0]).mean
        array([0.5])
        """
        if not isinstance(other, LiveGraph):
            raise TypeError(f"other must be a policy on a graph, got {type(other).__name__}")
        (indptr, items, _), (theirs, others, truth) = self._edges.compact(), other._edges.compact()
        same = self.positions == other.positions and np.array_equal(self._live, other._live)
        if not (same and np.array_equal(indptr, theirs) and np.array_equal(items, others)):
            mine, that = (f"{p.n_clusters} x {p.n_items} with {p.n_edges} edges" for p in (self, other))
            raise ValueError(f"other must have the same items and edges as this ({mine}), got {that}")
        self._edges.truth[self._edges.places()] += truth
        self._edges.derive()
        self.learned += other.learned
        self.dropped += other.dropped

    def copy(self) -> Self:
        """Return an independent copy, generator included."""
        return deepcopy(self)

    def to_state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Return everything needed to continue: a header for JSON and named arrays, all copies.

        Examples
        --------
        >>> from banditroute.policies.graph.cluster_graph import ClusterGraph
        >>> from banditroute.policies.graph.online_matching import OnlineMatching
        >>> policy = OnlineMatching(ClusterGraph.from_edges([0], [0]), alpha=1.0)
        >>> header, arrays = policy.to_state()
        >>> sorted(arrays)
        ['indptr', 'items', 'live', 'noise', 'truth']
        """
        header = {
            "policy": type(self).__name__,
            "n_clusters": self.n_clusters,
            "names": None if self.positions is None else dict(self.positions),
            "learned": self.learned,
            "dropped": self.dropped,
            "rng": self._rng.bit_generator.state,
            "cursor": self._cursor,
        }
        indptr, items, truth = self._edges.compact()
        arrays: dict[str, NDArray[Any]] = {"indptr": indptr, "items": items, "truth": truth}
        return header, arrays | {"live": self._live.copy(), "noise": self._edges.noise.copy()}

    def load_state(self, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Continue from `to_state` of a policy with as many clusters and the same settings.

        Raises
        ------
        ValueError, TypeError, KeyError
            The two do not fit; nothing changed.

        Examples
        --------
        >>> from banditroute.policies.graph.cluster_graph import ClusterGraph
        >>> from banditroute.policies.graph.online_matching import OnlineMatching
        >>> policy = OnlineMatching(ClusterGraph.from_edges([0, 0], [0, 1]), alpha=1.0)
        >>> other = OnlineMatching(ClusterGraph.from_edges([0], [0]), alpha=1.0)
        >>> other.load_state(*policy.to_state())
        >>> other.n_edges
        2
        """
        kind = (header["policy"], header["n_clusters"])
        if (
            kind[0] not in (type(self).__name__, "GraphDiagLinUCB") or kind[1] != self.n_clusters
        ):  # its name of old
            raise ValueError(f"state must be of {(type(self).__name__, self.n_clusters)}, got {kind}")
        names, n = header["names"], len(arrays["live"])
        live = indices("live", arrays["live"], below=2).astype(np.uint8)
        if names is not None and not all(isinstance(k, str) and v in range(n) for k, v in names.items()):
            raise ValueError(f"names must map strings to [0, {n - 1}]")
        items = indices("items", arrays["items"], below=n)
        indptr = indices("indptr", arrays["indptr"], size=self.n_clusters + 1, below=len(items) + 1)
        c = np.repeat(np.arange(self.n_clusters), np.diff(indptr))
        if indptr[0] != 0 or len(c) != len(items) or not (np.diff(c * np.int64(MOST) + items) > 0).all():
            raise ValueError("indptr and items must list ascending items of each cluster")
        if not live[items].all():
            raise ValueError("items must live to have edges")
        truth = check.matrix("truth", arrays["truth"], columns=3, rows=len(items))
        if len(truth) and truth[:, ::2].min() < 0.0:
            raise ValueError(f"truth must hold d and s of at least 0, got {truth[:, ::2].min()}")
        noise = check.vector("noise", arrays["noise"], NOISE)
        if not (noise.min() >= 0.0 and noise.max() < 1.0):
            raise ValueError(f"noise must be in [0, 1), got {noise.min()} .. {noise.max()}")
        cursor = check.integer("cursor", header["cursor"], high=NOISE - 2)
        counts = [check.integer(name, header[name]) for name in ("learned", "dropped")]
        rng = np.random.Generator(type(self._rng.bit_generator)())
        rng.bit_generator.state = header["rng"]
        self._edges = self._edges.like(indptr, items, n, truth)
        self._edges.noise[:] = noise
        self._live, self.positions = live, None if names is None else dict(names)
        self._rng, self._cursor = rng, cursor
        self.learned, self.dropped = counts

    def _chosen(self, items: ArrayLike) -> Ints:
        """Return the indices of known items."""
        given = np.asarray(items)
        if given.dtype.kind in "OUT":
            return np.array([self.index(item) for item in given.tolist()], dtype=np.int64)
        chosen = indices("items", given)
        if chosen.size and not (chosen.min() >= 0 and chosen.max() < self.n_items):
            worst = chosen.min() if chosen.min() < 0 else chosen.max()
            raise UnknownArm(f"items must be in [0, {self.n_items - 1}], got {worst}")
        return chosen

    def _pairs(self, clusters: ArrayLike, items: ArrayLike) -> tuple[Ints, Ints, Ints]:
        """Return clusters and items of distinct edges, and where the edges are, -1 for nowhere."""
        j = self._chosen(items)
        c = indices("clusters", clusters, size=len(j), below=self.n_clusters)
        keys = np.sort(c * np.int64(MOST) + j)
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if twice.size:
            cluster, item = divmod(int(keys[twice[0]]), MOST)
            raise ValueError(f"edges must be distinct, got cluster {cluster}, item {item} twice")
        return c, j, self._edges.find(c, j)
