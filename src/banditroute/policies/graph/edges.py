"""Edges of a cluster-item graph with their statistics: one buffer for the kernels, with room to grow."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute._core.kernels import graph as g
from banditroute._core.typing import Floats, Ints

__all__ = ["NOISE", "Edges"]


NOISE = 1024  # random numbers drawn ahead at a time


def _buffer(clusters: int, room: int) -> Floats:
    """Return an empty buffer with its header; pages that no decision touches take no memory."""
    room += room & 1  # whole numbers of float64 for the uint32 blocks
    table = 1 << (4 * room).bit_length()
    blocks = {
        g.H_FIRST: clusters,
        g.H_SIZE: clusters,
        g.H_ITEMS: room // 2,
        g.H_VIEW: 2 * room,
        g.H_TRUTH: 3 * room,
        g.H_NOISE: NOISE,
        g.H_MARK: clusters,
        g.H_SEEN: room // 2,
        g.H_SUMS: 2 * room,
        g.H_SCORE: room,
        g.H_POOL: room,
        g.H_TABLE: max(1, table // 2),
    }
    starts, end = {}, g.HEADER
    for block, size in blocks.items():
        starts[block] = end
        end += -(-size // 8) * 8  # whole cache lines
    raw = np.zeros(end + 8)
    skip = (-raw.ctypes.data // 8) % 8
    s = raw[skip : skip + end]
    s[g.H_CLUSTERS], s[g.H_ROOM], s[g.H_TABLE_SIZE] = clusters, room, table
    for block, start in starts.items():
        s[block] = start
    return s


class Edges:
    """Edges grouped by cluster and sorted by item, with the sums (d, b, s) of each.

    A cluster that outgrows its place moves behind the others with half as much room again; when there is
    no room left, everything moves to a buffer half as large again. One insertion costs the edges of its
    cluster (some 10 us for each cluster touched), and O(E) once in a while (some 50 ms at 1e6 edges).

    Parameters
    ----------
    indptr : (C + 1,) int array
        Edges of cluster c are ``indptr[c] : indptr[c + 1]``.
    items : (E,) int array
        Item of each edge, ascending within a cluster.
    count : int
        Number of items there are, with edges or without.
    truth : (E, 3) array, optional
        Sums d, b, s of each edge; zero by default.

    Examples
    --------
    >>> edges = Edges(np.array([0, 2, 3]), np.array([4, 7, 4]), 10, squared=False, precision=0.0)
    >>> edges.insert(np.array([1, 1]), np.array([2, 9]), 10)
    >>> indptr, items, truth = edges.compact()
    >>> indptr.tolist(), items.tolist()
    ([0, 2, 5], [4, 7, 2, 4, 9])
    """

    def __init__(
        self,
        indptr: Ints,
        items: NDArray[Any],
        count: int,
        truth: Floats | None = None,
        *,
        squared: bool,
        precision: float,
    ) -> None:
        self.clusters = len(indptr) - 1
        self.buffer = _buffer(self.clusters, len(items))
        self.buffer[g.H_SQUARED], self.buffer[g.H_PRECISION] = squared, precision
        self.buffer[g.H_COUNT] = count
        self.first[:] = indptr[:-1]
        self.size[:] = np.diff(indptr)
        self.items[: len(items)] = items
        if truth is not None:
            self.truth[: len(items)] = truth
        g.derive(self.buffer)
        self._capacity = self.size.copy()
        self._end = len(items)

    def like(self, indptr: Ints, items: Ints, count: int, truth: Floats) -> "Edges":
        """Return other edges with the same settings."""
        squared, precision = self.buffer[g.H_SQUARED] != 0.0, float(self.buffer[g.H_PRECISION])
        return Edges(indptr, items, count, truth, squared=squared, precision=precision)

    # Views are made on demand: a copy of the object then never keeps views of the old buffer.

    def _block(self, block: int, size: int) -> Floats:
        start = int(self.buffer[block])
        return self.buffer[start : start + size]

    @property
    def room(self) -> int:
        """Number of edges that fit."""
        return int(self.buffer[g.H_ROOM])

    @property
    def first(self) -> Ints:
        """First edge of each cluster."""
        return self._block(g.H_FIRST, self.clusters).view(np.int64)

    @property
    def size(self) -> Ints:
        """Number of edges of each cluster."""
        return self._block(g.H_SIZE, self.clusters).view(np.int64)

    @property
    def items(self) -> NDArray[np.uint32]:
        """Item of each edge."""
        return self._block(g.H_ITEMS, self.room // 2).view(np.uint32)

    @property
    def view(self) -> Floats:
        """What decisions read: theta and spread of each edge."""
        return self._block(g.H_VIEW, 2 * self.room).reshape(-1, 2)

    @property
    def truth(self) -> Floats:
        """Sums d, b, s of each edge."""
        return self._block(g.H_TRUTH, 3 * self.room).reshape(-1, 3)

    @property
    def noise(self) -> Floats:
        """Prefetched uniform numbers."""
        return self._block(g.H_NOISE, NOISE)

    def places(self, clusters: Ints | None = None) -> Ints:
        """Return where the edges of all (or the given) clusters are, cluster by cluster."""
        first = self.first if clusters is None else self.first[clusters]
        size = self.size if clusters is None else self.size[clusters]
        before = np.cumsum(size) - size
        places: Ints = np.repeat(first - before, size) + np.arange(int(size.sum()))
        return places

    def compact(self) -> tuple[Ints, NDArray[np.uint32], Floats]:
        """Return ``indptr``, ``items`` and ``truth`` without gaps, as copies."""
        places = self.places()
        indptr = np.zeros(self.clusters + 1, dtype=np.int64)
        np.cumsum(self.size, out=indptr[1:])
        return indptr, self.items[places], self.truth[places]

    def find(self, clusters: Ints, items: Ints) -> Ints:
        """Return the place of each edge, or -1."""
        places = np.empty(len(clusters), dtype=np.int64)
        g.locate_rows(self.buffer, clusters, items, places)
        return places

    def insert(self, clusters: Ints, items: Ints, count: int) -> None:
        """Add distinct edges that are not there yet, without evidence; there are now `count` items."""
        self.buffer[g.H_COUNT] = count
        order = np.lexsort((items, clusters))
        clusters, items = clusters[order], items[order]
        touched, starts = np.unique(clusters, return_index=True)
        ends = np.append(starts[1:], len(items))
        for c, start, end in zip(touched.tolist(), starts, ends[: len(starts)], strict=True):
            self._extend(c, items[start:end])

    def _extend(self, c: int, fresh: Ints) -> None:
        n = int(self.size[c])
        wanted = n + len(fresh)
        if wanted > self._capacity[c]:
            wanted += wanted // 2 + 4
            if self._end + wanted > self.room:
                self._move(wanted)
            old, new = int(self.first[c]), self._end
            for block in (self.items, self.truth, self.view):
                block[new : new + n] = block[old : old + n]
            self.first[c], self._capacity[c] = new, wanted
            self._end += wanted
        g.widen(self.buffer, c, fresh)

    def _move(self, wanted: int) -> None:
        """Close all gaps in a new buffer with room for half as many edges again, and for `wanted` more."""
        old, places = self.buffer, self.places()
        items, truth, view, noise = self.items[places], self.truth[places], self.view[places], self.noise
        size, total = self.size, len(places)
        self.buffer = _buffer(self.clusters, total + max(total // 2, wanted))
        for setting in (g.H_SQUARED, g.H_PRECISION, g.H_COUNT):
            self.buffer[setting] = old[setting]
        self.first[:] = np.cumsum(size) - size
        self.size[:], self.noise[:] = size, noise
        self.items[:total], self.truth[:total], self.view[:total] = items, truth, view
        self._capacity = self.size.copy()
        self._end = total

    def remove(self, places: Ints, clusters: Ints, live: NDArray[np.uint8]) -> None:
        """Remove the edges at `places`, all of them in `clusters`."""
        self.items[places] = g.EMPTY
        g.sweep(self.buffer, np.unique(clusters), live)

    def sweep(self, live: NDArray[np.uint8]) -> None:
        """Remove every edge of an item that does not live; one pass over all edges."""
        g.sweep(self.buffer, np.arange(self.clusters), live)

    def derive(self) -> None:
        """Recompute what decisions read after the truth was changed as a whole."""
        g.derive(self.buffer)
