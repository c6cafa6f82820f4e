"""Waiting in queues as a price, and batches that see their own queues."""

from collections.abc import Collection, Mapping
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Arrays, Floats, Header, Ints
from banditroute.policies import Policy
from banditroute.policies.base import LARGEST
from banditroute.records import Decision, Feedback, TermHost
from banditroute.terms.base import Asked, BaseTerm, kept

__all__ = ["Queues"]


class Queues(BaseTerm):
    """Predicted wait of each arm from what is in its queue, as a price.

    An arm with n requests in its queue and s seconds each answers the next after ``(n / slots + 1) * s`` seconds.

    Parameters
    ----------
    service_s : (k,) array
        Seconds one request takes on each arm, >= 0.
    per_second : float
        Price of a second, reward units.
    slots : int or (k,) array
        Requests an arm serves at a time.
    rate : float
        Share by which a reported duration moves ``service_s``, in [0, 1]; 0 keeps the given seconds.

    Notes
    -----
    In a Router a request is in the queue from its decision to its answer. An answer that tells its ``seconds`` tells
    the service time too: they are those of the requests ahead of it and its own. RouteBalance (arXiv 2606.17949;
    equation numbers not checked against the text) prices latency and load when it chooses the model, and counts its own
    assignments until the next report of the servers; so does `assign`. Here depth enters through the wait alone.

    Examples
    --------
    >>> queues = Queues([1.0, 2.0], per_second=0.1)
    >>> queues.start(0)
    >>> queues.prices()
    array([0.2, 0.2])
    """

    name = "queues"

    def __init__(
        self, service_s: ArrayLike, *, per_second: float, slots: ArrayLike = 1, rate: float = 0.05
    ) -> None:
        self.service_s = check.non_negative("service_s", service_s, limit=LARGEST).copy()
        count = len(self.service_s)
        super().__init__(count)
        self.per_second = check.finite("per_second", per_second, low=0.0, high=LARGEST)
        self.slots = check.vector("slots", np.broadcast_to(slots, (count,)), count).copy()
        if self.slots.min() < 1.0:
            raise ValueError(f"slots must be >= 1, got {slots!r}")
        self.rate = check.unit("rate", rate)
        self.depth = np.zeros(count)

    def shown(self) -> str:
        """Return what `repr` tells of the state."""
        return f"arms={len(self.depth)}, depth={self.depth.sum():g}, longest_s={self.waits_s().max():.3g}"

    def waits_s(self) -> Floats:
        """Return the predicted seconds until each arm would answer, (k,)."""
        return (self.depth / self.slots + 1.0) * self.service_s

    def prices(self, request: Asked = None, *, weights: Mapping[str, float] | None = None) -> Floats:
        """Return the price of the wait at each arm, (k,); the context is not used."""
        return np.minimum(self.per_second * self.waits_s(), LARGEST)

    def start(self, arm: int | str) -> None:
        """Count a request into the queue of an arm."""
        self.depth[self.index(arm)] += 1.0
        self.ring()

    def finish(self, arm: int | str) -> None:
        """Count a request out again."""
        at = self.position(arm)
        if at is not None:
            self.depth[at] = max(self.depth[at] - 1.0, 0.0)
            self.ring()

    def set_depth(self, arm: int | str, depth: float) -> None:
        """Take a server's word for how many requests are in the queue of an arm."""
        name = self.arms[self.index(arm)]
        self.tell({"arm": name, "depth": check.finite("depth", depth, low=0.0, high=LARGEST)})

    def set_service(self, arm: int | str, seconds: float) -> None:
        """Say how long a request takes on an arm, as for one that was added."""
        name = self.arms[self.index(arm)]
        self.tell({"arm": name, "seconds": check.finite("seconds", seconds, low=0.0, high=LARGEST)})

    def replay_mark(self, details: Mapping[str, Any]) -> None:
        """Let a depth or a service time that was told take effect."""
        at = self.position(str(details["arm"]))
        if at is None:
            return
        if "depth" in details:
            self.depth[at] = check.finite("depth", details["depth"], low=0.0, high=LARGEST)
        else:
            self.service_s[at] = check.finite("seconds", details["seconds"], low=0.0, high=LARGEST)
        self.ring()

    def reserve(self, arm: int | str, request: Asked = None, /) -> float:
        """Count a request into the queue; returns how many service times it waits, its own included."""
        at = self.index(arm)
        waits = float(self.depth[at] / self.slots[at]) + 1.0
        self.start(at)
        return waits

    def settle(self, arm: int | str, held: float | None, feedback: Feedback, /) -> None:
        """Count a request out of the queue, and learn from its seconds how long the arm takes."""
        at = self.position(arm)
        if at is None or held is None:  # it was decided before the queues were there
            return
        if feedback.seconds is not None and held:
            seconds = check.finite("seconds", feedback.seconds, low=0.0, high=LARGEST)
            self.service_s[at] += self.rate * (seconds / held - self.service_s[at])
        self.finish(at)

    def release(self, arm: int | str, held: float | None = None, /) -> None:
        """Count a request that came to nothing out of the queue."""
        self.finish(arm)

    def add_arm(self, name: str, service_s: float | None = None, *, slots: float = 1.0) -> None:
        """Follow an arm that was added; where left out its service time is the median until it has answered."""
        seconds = None if service_s is None else check.finite("service_s", service_s, low=0.0, high=LARGEST)
        places = check.finite("slots", slots, low=1.0)
        super().add_arm(name)
        self.slots[-1] = places
        if seconds is not None:
            self.service_s[-1] = seconds

    def resize(self, keep: list[int | None]) -> None:
        """Keep the queues of arms that stay; a new one is empty, has one slot and the median service time."""
        self.service_s = kept(self.service_s, keep, float(np.median(self.service_s)))
        self.slots, self.depth = kept(self.slots, keep, 1.0), kept(self.depth, keep, 0.0)

    def to_state(self) -> tuple[Header, Arrays]:
        """Return everything needed to continue; the price of a second is a setting, not state."""
        header, arrays = super().to_state()
        own = {"service_s": self.service_s, "slots": self.slots, "depth": self.depth}
        return header, arrays | {name: array.copy() for name, array in own.items()}

    def load_state(self, header: Header, arrays: Arrays) -> None:
        """Continue from `to_state`."""
        count = len(self.kept_arms(header))
        service, slots, depth = (
            check.non_negative(name, check.entry("arrays", arrays, name), count, limit=LARGEST)
            for name in ("service_s", "slots", "depth")
        )
        if slots.min() < 1.0:
            raise ValueError(f"slots must be >= 1, got {slots.min()}")
        super().load_state(header, arrays)
        self.service_s, self.slots, self.depth = service.copy(), slots.copy(), depth.copy()

    # Batches.

    @overload
    def assign(
        self,
        chooser: Policy,
        contexts: ArrayLike,
        *,
        work: ArrayLike | None = None,
        prices: ArrayLike | None = None,
        eligible: ArrayLike | None = None,
    ) -> Ints: ...

    @overload
    def assign(
        self,
        chooser: TermHost,
        contexts: ArrayLike,
        *,
        work: ArrayLike | None = None,
        prices: ArrayLike | None = None,
        eligible: Collection[str] | ArrayLike | None = None,
    ) -> list[Decision]: ...

    def assign(
        self,
        chooser: Policy | TermHost,
        contexts: ArrayLike,
        *,
        work: ArrayLike | None = None,
        prices: ArrayLike | None = None,
        eligible: Any = None,
    ) -> Ints | list[Decision]:
        """Choose arms for a batch, each choice seeing the ones before it in the queues; the queues keep them.

        Parameters
        ----------
        chooser : Policy or Router
            A Router's decisions are answered as any others. Where these queues are one of its terms, it counts them.
        contexts : (n, dim) array
        work : (n,) array, optional
            Predicted length of each request; the longest is assigned first.
        prices, eligible : (k,) arrays, optional
            As in ``select``, beside the wait.

        Returns
        -------
        (n,) int64 array, or list of Decision
            Arms, or a Router's decisions, in the order of the rows.

        Raises
        ------
        ValueError, TypeError
            Nothing is assigned; decisions that a Router had made are cancelled.
        """
        if not isinstance(chooser, Policy) and not (
            hasattr(chooser, "select") and hasattr(chooser, "cancel")
        ):
            raise TypeError(f"chooser must be a Policy or a Router, got {check.shown(chooser)}")
        policy = chooser if isinstance(chooser, Policy) else getattr(chooser, "policy", None)
        rows = check.matrix("contexts", contexts, columns=None if policy is None else policy.dim)
        if policy is not None:
            policy.check_norms(rows)
        lengths = np.zeros(len(rows)) if work is None else check.vector("work", work, len(rows))
        order = np.argsort(-lengths, kind="stable")
        if isinstance(chooser, Policy):
            return self._arms(chooser, rows, order, prices, eligible)
        known = self.arms if self.host() is chooser or policy is None else policy.arms
        return self._decisions(chooser, known, rows, order, prices, eligible)

    def _arms(
        self, policy: Policy, rows: Floats, order: Ints, prices: ArrayLike | None, eligible: Any
    ) -> Ints:
        other = np.zeros(len(self.depth)) if prices is None else np.asarray(prices, dtype=float)
        arms, before = np.empty(len(rows), dtype=np.int64), self.depth.copy()
        try:
            for i in order:
                arms[i] = policy.select(rows[i], prices=self.prices() + other, eligible=eligible).arm
                self.start(int(arms[i]))
        except (ValueError, TypeError):
            self.depth = before
            raise
        return arms

    def _decisions(
        self,
        host: TermHost,
        names: tuple[str, ...],
        rows: Floats,
        order: Ints,
        prices: ArrayLike | None,
        eligible: Any,
    ) -> list[Decision]:
        counted = self.host() is host
        if len(names) != len(self.depth):
            raise ValueError(f"the Router must have the {len(self.depth)} arms of the queues, got {names}")
        other = np.zeros(len(names)) if prices is None else np.asarray(prices, dtype=float)
        made: dict[int, Decision] = {}
        before = self.depth.copy()
        try:
            for i in order.tolist():
                total = prices if counted else self.prices() + other
                made[i] = host.select(rows[i], prices=total, eligible=eligible)
                if not counted:
                    self.start(names.index(made[i].arm))
        except (ValueError, TypeError):
            for decision in made.values():
                host.cancel(decision.id)
            if not counted:
                self.depth = before
            raise
        return [made[i] for i in range(len(rows))]
