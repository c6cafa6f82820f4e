"""What happened in a run."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute._core.typing import Floats, Ints
from banditroute.logs import Trace
from banditroute.simulation.stream import Problem, Stream

__all__ = ["Run", "feedback_order"]


@dataclass(slots=True, eq=False)
class Run:
    """What happened: one row per request of the stream, and the residency between.

    Parameters
    ----------
    length : int
        Number of requests T.
    arms : (T,) int64
        Arm that served each request.
    propensities : (T,) float64
        Probability with which it was chosen.
    hits : (T,) bool
        Whether it was resident.
    epochs : list of (int, frozenset)
        Index of the first request served with each resident set, and the set.
    loads : list of (int, float)
        Index and price of each change of the set that cost something.
    page_ins : int
        Arms made resident: at plans, and on faults by controllers that insert.
    inserted : int
        Faults after which the arm stayed; all others passed through.
    forced : int
        Decisions forced by the controller.
    problem : Problem or Stream, optional
        What it ran on.
    policy : str
        Name of the policy that ran.
    surcharge : float
        What the controller added to the price of routing to an arm that was not resident.

    Examples
    --------
    >>> Run(3).arms
    array([0, 0, 0])
    """

    length: int
    arms: Ints = field(init=False)
    propensities: Floats = field(init=False)
    hits: NDArray[np.bool_] = field(init=False)
    epochs: list[tuple[int, frozenset[int]]] = field(default_factory=list)
    loads: list[tuple[int, float]] = field(default_factory=list)
    page_ins: int = 0
    inserted: int = 0
    forced: int = 0
    problem: Problem | Stream | None = None
    policy: str = ""
    surcharge: float = 0.0

    def __post_init__(self) -> None:
        self.arms = np.zeros(self.length, dtype=np.int64)
        self.propensities = np.ones(self.length)
        self.hits = np.ones(self.length, dtype=np.bool_)

    def __len__(self) -> int:
        return self.length

    @property
    def load_count(self) -> int:
        """Loads of adapters in all: a fault that passes through is one, like an arm that becomes resident."""
        return self.page_ins + int((~self.hits).sum()) - self.inserted

    def residents(self) -> Iterator[tuple[int, int, frozenset[int]]]:
        """Yield (first, last + 1, set) of each stretch of requests with one resident set."""
        for (start, chosen), (stop, _) in zip(
            self.epochs, [*self.epochs[1:], (self.length, frozenset())], strict=True
        ):
            if stop > start:
                yield start, stop, chosen

    def to_trace(self) -> Trace:
        """Return the run as a recorder would have written it down: the reward of the arm that served, no other.

        Raises
        ------
        ValueError
            The run was not made by `simulate`.

        Examples
        --------
        >>> from banditroute import LinUCB, simulate
        >>> stream = Stream(np.eye(2), np.eye(2), np.eye(2), ("a", "b"))
        >>> trace = simulate(LinUCB(("a", "b"), 2, mix=0.2, rng=0), stream).to_trace()
        >>> trace.names, trace.contexts.tolist(), trace.versions
        (('a', 'b'), [[1.0, 0.0], [0.0, 1.0]], array([0, 1]))
        """
        if self.problem is None:
            raise ValueError("a run must know its problem to make a trace; simulate gives it one")
        stream = self.problem if isinstance(self.problem, Stream) else self.problem.stream
        rows = np.arange(len(self))
        _, due = feedback_order(stream)
        columns: dict[str, Any] = {}
        if not isinstance(self.problem, Stream) and not self.hits.all():
            columns["fault_prices"] = np.tile(self.problem.faults, (len(self), 1))
            columns["prices"] = columns["fault_prices"] + self.surcharge
            for start, stop, resident in self.residents():
                for name in columns:
                    columns[name][start:stop, sorted(resident)] = 0.0
        return Trace(
            names=stream.arms,
            arms=self.arms,
            rewards=stream.rewards[rows, self.arms],
            propensities=self.propensities,
            contexts=stream.contexts,
            times=stream.arrivals,
            eligible=stream.available,
            costs=None if stream.costs is None else stream.costs[rows, self.arms],
            hits=None if isinstance(self.problem, Stream) else self.hits,
            policies=(self.policy,),
            versions=np.searchsorted(due, rows, side="right"),
            **columns,
        )

    def save(self, path: str | Path) -> Path:
        """Write the run as a trace, as `Trace.save` does.

        Examples
        --------
        >>> Run(1).save("run.npz")
        Traceback (most recent call last):
        ValueError: a run must know its problem to make a trace; simulate gives it one
        """
        return self.to_trace().save(path)


def feedback_order(stream: Stream) -> tuple[Ints, Ints]:
    """Return requests in the order in which their feedback arrives, and the request before which it does."""
    due = np.arange(len(stream)) + 1 + stream.delays
    order = np.argsort(due, kind="stable")
    return order.astype(np.int64), due[order].astype(np.int64)
