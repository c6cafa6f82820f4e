"""Online Matching as a policy that a Router takes: items are arms, a context is a weight for each cluster."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.kernels import graph as g
from banditroute._core.typing import Arrays, Floats, Ints, Rng
from banditroute.policies.base import (
    Choice,
    Policy,
    Scores,
    Settings,
    Utilities,
    check_generations,
    check_settings,
    mixed,
)
from banditroute.policies.evidence import ArmEvidence, Sums, copied, flat
from banditroute.policies.graph.cluster_graph import ClusterGraph
from banditroute.policies.graph.online_matching import OnlineMatching, Slate

__all__ = ["GraphDiagLinUCB"]

UNTRIED = 1e6  # index of an arm with an edge that has no evidence: it must be tried first
SPARSE = -1.0  # begins a row that holds clusters and weights instead of a weight for each cluster


class GraphDiagLinUCB(Policy):
    """Diag-LinUCB of Online Matching on a graph of user clusters and items: `OnlineMatching` for a Router.

    A context is a vector of weights, one for each cluster of the graph: 0 for clusters that are not active
    (`context` makes one). Candidates are the arms with an edge to an active cluster. Plays the candidate with the
    largest score less price; ties, as those of new arms, are split evenly.

    Parameters
    ----------
    graph : ClusterGraph
        Its items are the arms, under their names, or "0", "1", ... where they have none.
    alpha, estimator, init_precision
        As in `OnlineMatching`.
    mix : float
        Share of decisions drawn uniformly over the eligible candidates, in [0, 1].
    max_norm, rng
        As in `LinUCB`.

    Attributes
    ----------
    matching : OnlineMatching
        The sparse policy inside, with slates, merging, fading and edges to edit: it numbers items for good, `item`
        tells which one an arm is. Add and remove items here, by `add_arm` and `remove_arm`.

    Notes
    -----
    Source: see `OnlineMatching`. A decision keeps its active clusters and their weights, 2 K + 1 numbers. `select`
    without prices and mask costs O(n_clusters) plus that of the sparse policy, everything else O(k) more. Evidence of
    an arm is three numbers for each cluster.

    Examples
    --------
    >>> graph = ClusterGraph.from_edges([0, 0, 1], ["jazz", "rock", "rock"])
    >>> policy = GraphDiagLinUCB(graph, alpha=0.5, rng=0)
    >>> for item, reward in [("jazz", 0.2), ("rock", 0.9), ("rock", 0.7)]:
    ...     policy.update(item, [0.7, 0.3], reward)
    >>> policy.select([0.7, 0.3])
    Choice(arm=1, propensity=1.0)
    >>> policy.scores([0.7, 0.3]).mean.round(3)
    array([0.14, 0.8 ])
    """

    def __init__(
        self,
        graph: ClusterGraph,
        *,
        alpha: float,
        estimator: Literal["mean", "raw"] = "mean",
        init_precision: float = 0.0,
        mix: float = 0.0,
        max_norm: float = 1e6,
        rng: Rng = None,
    ) -> None:
        generator = np.random.default_rng(rng)
        self.matching = OnlineMatching(
            graph, alpha=alpha, estimator=estimator, init_precision=init_precision, rng=generator
        )
        self.matching.positions = None  # arms have the names
        self._items: Ints = np.arange(graph.n_items)
        names = graph.n_items if graph.names is None else graph.names
        super().__init__(names, graph.n_clusters, max_norm=max_norm, rng=generator)
        self.mix = check.unit("mix", mix)
        self.count = np.zeros(len(self.arms))

    def __deepcopy__(self, memo: dict[int, Any]) -> "GraphDiagLinUCB":
        """Copy everything; the sparse policy draws from the same generator."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new.matching = self.matching.copy()
        new.generations, new.count, new._items = dict(self.generations), self.count.copy(), self._items.copy()
        new._rng = new.matching.generator
        return new

    @property
    def alpha(self) -> float:
        """Exploration width."""
        return self.matching.alpha

    @property
    def counts(self) -> NDArray[np.int64]:
        """Rewards learned per arm, shape (k,)."""
        return self.count.astype(np.int64)

    def item(self, arm: int | str) -> int:
        """Return the number of an arm in `matching`."""
        return int(self._items[self.index(arm)])

    def context(self, clusters: ArrayLike, weights: ArrayLike) -> Floats:
        """Return the context in which these clusters are active, (dim,), as `ClusterGraph.context` finds them.

        Examples
        --------
        >>> GraphDiagLinUCB(ClusterGraph.from_edges([0, 2], [0, 1]), alpha=1.0).context([2], [0.5])
        array([0. , 0. , 0.5])
        """
        c, w = self.matching.admitted(clusters, weights)
        x = np.zeros(self.dim)
        x[c] = w
        return x

    def top(self, x: ArrayLike, k: int, *, exploit: bool = False) -> Slate:
        """Return the k best arms, best first, as `OnlineMatching.top`; their indices are those of arms."""
        slate = self.matching.top(*self._active(self.check_context(x)), k, exploit=exploit)
        return Slate(np.searchsorted(self._items, slate.items), slate.scores)

    # The border.

    def check_context(self, x: ArrayLike) -> Floats:
        """Return a context as a vector of weights >= 0, at least one of them above 0."""
        row = super().check_context(x)
        if not (row.min() >= 0.0 and row.max() <= g.LARGEST):
            raise ValueError(
                f"x must hold weights of clusters in [0, {g.LARGEST:g}], got {row.min():g} .. {row.max():g}"
            )
        return row

    def kept(self, x: Floats, arm: int) -> Floats:
        """Return the active clusters and their weights, after a mark, where that is shorter than the context."""
        c, w = self._active(x)
        return x if 2 * len(c) + 1 >= self.dim else np.concatenate([[SPARSE], c, w])

    def keeps(self, row: Floats) -> bool:
        """Whether this is a context, or marked clusters and weights."""
        return row.size == self.dim or (row.size % 2 == 1 and bool(row[0] == SPARSE))

    def context_of(self, kept: Floats) -> Floats:
        """Return the context of what `kept` returned for it."""
        return self.check_kept(kept, 0)

    def check_kept(self, x: ArrayLike, arm: int) -> Floats:
        """Return the context of what `update` was given."""
        given = np.asarray(x)
        if given.ndim == 1 and len(given) % 2 == 1 and given.dtype.kind == "f" and given[0] == SPARSE:
            half = len(given) // 2
            clusters = given[1 : half + 1]
            if not np.array_equal(clusters, np.floor(clusters)):
                raise ValueError(f"x must hold whole numbers of clusters, got {clusters}")
            return self.context(clusters.astype(np.int64), given[half + 1 :])
        return self.check_context(x)

    @staticmethod
    def _active(x: Floats) -> tuple[Ints, Floats]:
        """Return the active clusters of a context and their weights."""
        clusters = np.flatnonzero(x > g.TINY)
        return clusters, x[clusters]

    # Choosing.

    def _believed(self, x: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Return mean and width of every arm, and whether it is a candidate; others have mean and width 0."""
        clusters, weights = self._active(x)
        mean, width = np.zeros(len(self.arms)), np.zeros(len(self.arms))
        candidate = np.zeros(len(self.arms), dtype=np.bool_)
        if len(clusters):
            found = self.matching.scores(clusters, weights)
            at = self._places(found.items)
            mean[at], width[at], candidate[at] = found.mean, found.width, True
        return mean, width, candidate

    def _places(self, items: Ints) -> Ints:
        """Return the arm of each item; arms are in ascending order of their items unless some were forgotten."""
        order = np.argsort(self._items, kind="stable")
        places: Ints = order[np.searchsorted(self._items, items, sorter=order)]
        return places

    def scores(self, x: ArrayLike) -> Scores:
        """Return mean and width of every arm, both (k,): infinite where an edge has no evidence, 0 where none is."""
        mean, width, _ = self._believed(self.check_context(x))
        return Scores(mean, width)

    def _utility(self, x: Floats) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        mean, width, candidate = self._believed(x)
        untried = np.isinf(width) & (self.alpha > 0.0)
        bonus = np.where(untried, UNTRIED, self.alpha * np.where(np.isinf(width), 0.0, width))
        return np.where(untried, 0.0, mean), bonus, candidate

    def utilities(self, contexts: ArrayLike) -> Utilities:
        """Return mean and bonus of every arm for each row: two (n, k) arrays, 0 where an arm is no candidate."""
        rows = check.matrix("contexts", contexts, columns=self.dim)
        each = [self._utility(self.check_context(x)) for x in rows]
        mean, bonus = (np.array([u[i] for u in each]).reshape(len(rows), len(self.arms)) for i in range(2))
        return Utilities(mean, bonus)

    @property
    def rule(self) -> str:
        """How a choice follows from the index; arms without an edge to an active cluster are no candidates."""
        return mixed("plays the candidate with the largest index, ties split evenly", self.mix)

    def playable(self, x: ArrayLike) -> NDArray[np.bool_]:
        """Return which arms have an edge to an active cluster, (k,)."""
        return self._believed(self.check_context(x))[2]

    def propensities(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Floats:
        """Return the probability of every arm, shape (k,).

        Raises
        ------
        ValueError, TypeError
            Wrong input, or no eligible candidate; nothing changed.
        """
        row, offers = self.check_context(x), self.effective_prices(prices, eligible)
        mean, bonus, candidate = self._utility(row)
        allowed = candidate & np.isfinite(offers)
        if not allowed.any():
            raise ValueError(
                f"x must have an eligible candidate, got none for clusters {self._active(row)[0]}"
            )
        value = np.where(allowed, mean + bonus - (offers - offers.min()), -np.inf)
        best = value == value.max()
        return np.asarray((1.0 - self.mix) * best / best.sum() + self.mix * allowed / allowed.sum())

    def select(
        self, x: ArrayLike, *, prices: ArrayLike | None = None, eligible: ArrayLike | None = None
    ) -> Choice:
        """Choose an arm; without prices, mask and uniform share by the kernels of the sparse policy."""
        if prices is not None or eligible is not None or self.mix > 0.0:
            return super().select(x, prices=prices, eligible=eligible)
        pick = self.matching.select(*self._active(self.check_context(x)))
        return Choice(int(self._places(np.array([pick.item]))[0]), pick.propensity)

    # Learning.

    def update(
        self, arm: int | str, x: ArrayLike, reward: float, *, weight: float = 1.0, at: int | None = None
    ) -> None:
        """Learn one reward on the edges between the arm and the active clusters; the order does not matter."""
        a = self.index(arm)
        row = self.check_kept(x, a)
        value, mass = self.check_reward(reward, weight)
        if at is not None:
            check.integer("at", at, high=1 << 52)
        clusters, weights = self._active(row)
        if len(clusters):
            self.matching.update(int(self._items[a]), clusters, weights, value, weight=mass)
        self.count[a] += 1.0

    def reseed(self) -> None:
        """Take new random numbers from the system, those drawn ahead included."""
        super().reseed()
        self.matching.take(self._rng)

    # Evidence: see `EvidencePolicy`.

    def fingerprint(self) -> dict[str, Any]:
        """Return what must agree before evidence may be joined: the number of clusters."""
        return {"kind": "graph", "dim": self.dim}

    @property
    def shared_names(self) -> tuple[str, ...]:
        """Nothing: every edge is of one arm."""
        return ()

    @property
    def bucket(self) -> int:
        """Zero: nothing is forgotten by the clock."""
        return 0

    def empty_evidence(self) -> ArmEvidence:
        """Return evidence of nothing: ``truth`` (dim, 3), the sums of w^2, w reward and w of each cluster."""
        return ArmEvidence(0, -1, {0: {"truth": np.zeros((self.dim, 3)), "count": np.zeros(())}})

    def evidence(self, arm: str) -> ArmEvidence:
        """Return a copy of the sums of one arm; clusters without an edge to it have none."""
        a = self.index(arm)
        sums: Sums = {"truth": self.matching.sums(int(self._items[a])), "count": np.array(self.count[a])}
        return ArmEvidence(self.generation(arm), -1, {0: sums})

    def set_evidence(self, arm: str, total: ArmEvidence) -> None:
        """Put sums in the place of those on the edges of one arm; rows of other clusters are left out."""
        a = self.index(arm)
        sums = flat(total, self.empty_evidence(), 0)
        self.matching.set_sums(int(self._items[a]), sums["truth"])
        self.count[a] = sums["count"]
        self.set_generation(arm, total.generation)

    def credit(
        self, evidence: ArmEvidence, x: Floats, reward: float, weight: float = 1.0, at: int = 0
    ) -> ArmEvidence:
        """Return evidence with one more reward in it; works in place."""
        if not evidence.buckets:
            evidence = evidence._replace(buckets=self.empty_evidence().buckets)
        clusters, w = self._active(self.check_kept(x, 0))
        evidence.buckets[0]["truth"][clusters] += weight * np.stack([w * w, w * reward, w], axis=1)
        evidence.buckets[0]["count"] += 1.0
        return evidence

    def aged(self, evidence: ArmEvidence, bucket: int) -> ArmEvidence:
        """Return a copy: these sums do not age."""
        return copied(evidence)

    # Arms and states.

    def add_arm(self, name: str, clusters: ArrayLike | None = None) -> int:
        """Add an arm that starts cold, with edges to these clusters (all when left out); returns its index."""
        check.names("name", [name])
        if name in self.positions:
            raise ValueError(f"name must be new, got {name!r}")
        given = np.arange(self.dim) if clusters is None else clusters
        self._items = np.append(self._items, self.matching.add_items(1, [given]))
        self.count = np.append(self.count, 0.0)
        self.rename((*self.arms, name))
        return len(self.arms) - 1

    def resize(self, keep: list[int | None]) -> None:
        """Make arm i continue ``keep[i]``; an arm that starts cold in its place keeps its edges, a new one gets all."""
        self.raise_generations(keep)
        stay, items = {a for a in keep if a is not None}, []
        for i, a in enumerate(keep):
            if a is not None:
                items.append(int(self._items[a]))
            elif i < len(self._items) and i not in stay:
                stay.add(i)
                item = int(self._items[i])
                self.matching.set_sums(item, np.zeros((self.dim, 3)))
                items.append(item)
            else:
                items.append(int(self.matching.add_items(1, [np.arange(self.dim)])[0]))
        gone = [int(item) for i, item in enumerate(self._items) if i not in stay]
        if gone:
            self.matching.retire_items(gone)
        self.count = np.array([0.0 if a is None else self.count[a] for a in keep])
        self._items = np.array(items, dtype=np.int64)

    def to_state(self) -> tuple[dict[str, Any], Arrays]:
        """Return a JSON-able header and copies of all arrays, those of the sparse policy as they are."""
        header, arrays = self.matching.to_state()
        mine = {
            "policy": type(self).__name__,
            "arms": list(self.arms),
            "dim": self.dim,
            "generations": dict(self.generations),
            "matching": header,
        }
        return mine, {**arrays, "arm_items": self._items.copy(), "arm_count": self.count.copy()}

    def load_state(
        self, header: Mapping[str, Any], arrays: Mapping[str, Any], *, settings: Settings = "strict"
    ) -> None:
        """Continue from `to_state`; raises ``ValueError`` and changes nothing where the two do not fit.

        The state holds statistics, graph and generator; settings stay those of this policy in either case. A state of
        an `OnlineMatching` is taken up too, its living items become the arms.
        """
        check_settings(settings)
        kind, generations = check.entry("header", header, "policy"), check_generations(header)
        if kind not in (type(self).__name__, OnlineMatching.__name__):
            raise ValueError(f"state must be of {type(self).__name__}, got {kind}")
        inner = header.get("matching", header)
        spare = self.matching.copy()
        try:
            spare.load_state({**inner, "policy": OnlineMatching.__name__}, arrays)
        except (LookupError, TypeError) as error:
            raise ValueError(f"state must be that of a graph policy: {error}") from error
        if "matching" in header:
            names = check.names("arms", check.entry("header", header, "arms"))
            items = check.vector("arm_items", check.entry("arrays", arrays, "arm_items"), len(names))
            count = check.vector("arm_count", check.entry("arrays", arrays, "arm_count"), len(names))
        else:
            items = np.flatnonzero(arrays["live"]).astype(np.float64)
            given = inner["names"]
            by_item = {} if given is None else {item: name for name, item in given.items()}
            names = tuple(by_item.get(int(i), str(int(i))) for i in items)
            count = np.zeros(len(names))
        if sorted(items.tolist()) != spare.living().tolist() or not names:
            raise ValueError(f"arm_items must be the items that live, got {check.shown(items.tolist())}")
        spare.positions = None
        self.matching, self._rng = spare, spare.generator
        self._items, self.count, self.generations = items.astype(np.int64), count.copy(), generations
        self.rename(names)
