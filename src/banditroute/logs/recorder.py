"""Recorder: a listener that writes a Router's decisions and rewards down as a trace, in memory or in files."""

import os
import threading
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from banditroute._core import validation as check
from banditroute._core.background import Background
from banditroute._core.typing import Floats
from banditroute.logs.rotation import Rotation, Segment
from banditroute.logs.trace import Trace
from banditroute.records import Decision, Feedback, Parts, Pending, Recalled, Request, Why

__all__ = ["Recorder"]

_alive: "weakref.WeakSet[Recorder]" = weakref.WeakSet()


class _Row:
    """One decision, and what came back for it."""

    __slots__ = (
        "candidates",
        "context",
        "cost",
        "decision",
        "parts",
        "reward",
        "seconds",
        "segment",
        "settled",
        "version",
    )

    def __init__(
        self, decision: Decision, context: Floats | None, parts: Parts, version: int, segment: Segment["_Row"]
    ) -> None:
        self.decision, self.context, self.parts, self.version = decision, context, parts, version
        self.segment = segment
        self.candidates: Floats | None = None  # features of each, in the order of the names of `parts`
        self.reward = self.cost = self.seconds = np.nan
        self.settled = False  # nothing more will come

    def settle(self) -> None:
        """See the last of this row."""
        self.segment.settled += not self.settled
        self.segment.changed = self.settled = True


class Recorder:
    """Keeps a sample of decisions, and the rewards that answer them, until they are fetched as a `Trace`.

    Parameters
    ----------
    sample_rate : float
        Share of the decisions recorded, in [0, 1]. Which ones is read off their random ids: it depends on nothing
        else, and what is sampled stays an unbiased log.
    contexts : bool
        Record contexts; without them a trace is small, and the direct method and replay are not to be had.
    max_rows : int
        Rows kept in memory; decisions that find no room are counted in ``skipped`` until `clear`.
    policy : str
        Name of the policy, for the trace; may be set anew when the policy changes.
    directory : path, optional
        Rows are written there too, by a thread, in files of `rows_per_file` rows that `Trace.load` takes one by one or
        as a folder. A file is written anew while answers to its rows come in, and left alone when all have come or
        memory is needed. Of all such files in the folder, those of other workers included, the newest `max_files` stay.
    rows_per_file, max_files : int
        Bounds of the files: at most their product of rows, 0.4 kB and a context each, lies in the folder.
    flush_s : float
        Seconds between writes.
    suffix : str
        Format of the files, as in `Trace.save`.

    Notes
    -----
    Give it to one Router as ``recorder=``, or to anything that calls a `records.Listener`. A decision costs a few
    microseconds more, a row the context, the prices and 0.4 kB. A reward is recorded when it was learned, also where
    another worker learned it: what the Router drops stays unanswered here. Nothing is raised into a request: what goes
    wrong is counted in ``errors``, by kind. With ``mix=0`` and no forcing the propensities of most policies are 1, and
    such a log cannot be evaluated off-policy: record with ``mix > 0``.

    A forked child starts empty, for what was recorded before is its parent's: the traces of workers have no row twice.

    Examples
    --------
    >>> recorder = Recorder(policy="LinUCB")
    >>> decision = Decision(id=7, arm="large", propensity=0.9, hit=True, epoch=0, time=0.0)
    >>> request = Request(np.array([1.0, 0.5]), 0)
    >>> pending = Pending("large", request.x, 0.9, 0.0, 0)
    >>> parts = Parts(("small", "large"), {"fault": np.array([0.1, 0.0])})
    >>> recorder.decided(decision, request, pending, forced=False, parts=parts)
    >>> recorder.learned(Feedback(7, "large", request, 0.8, cost=0.002))
    >>> trace = recorder.trace()
    >>> trace.rewards, trace.contexts, trace.fault_prices, trace.policies
    (array([0.8]), array([[1. , 0.5]]), array([[0.1, 0. ]]), ('LinUCB',))
    """

    keeps_parts = True

    def __init__(
        self,
        *,
        sample_rate: float = 1.0,
        contexts: bool = True,
        max_rows: int = 1_000_000,
        policy: str = "",
        directory: str | Path | None = None,
        rows_per_file: int = 10_000,
        max_files: int = 100,
        flush_s: float = 10.0,
        suffix: str = ".npz",
    ) -> None:
        self.sample_rate = check.unit("sample_rate", sample_rate)
        self.contexts = bool(contexts)
        self.max_rows = check.integer("max_rows", max_rows, low=1)
        self.policy = str(policy)
        self.rows_per_file = min(check.integer("rows_per_file", rows_per_file, low=1), max(max_rows // 2, 1))
        self.flush_s = check.finite("flush_s", flush_s, low=0.0, open_low=True)
        self.files = None if directory is None else Rotation(Path(directory), max_files, suffix)
        self.skipped = 0
        self.errors: Counter[str] = Counter()
        self._below = round(self.sample_rate * 2.0**63)  # ids are 63 bits
        self._rows: dict[int, _Row] = {}
        self._segments: list[Segment[_Row]] = []
        self._version = 0
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._writer: Background | None = None
        self._start()
        _alive.add(self)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        where = "" if self.files is None else f", directory={str(self.files.directory)!r}"
        return (
            f"Recorder({len(self):,} rows{where}, sample_rate={self.sample_rate:g}, skipped={self.skipped:,})"
        )

    def decided(
        self, decision: Decision, request: Request, pending: Pending, forced: bool, parts: Parts | None
    ) -> None:
        """Record a decision. Arrays are kept, not copied: they must not change any more."""
        if decision.id >= self._below:
            return
        try:
            self._record(decision, request, parts)
        except Exception as error:  # a log is not worth a request
            self.errors[type(error).__name__] += 1

    def _record(self, decision: Decision, request: Request, parts: Parts | None) -> None:
        if parts is None:
            raise ValueError("parts must be given to a listener that keeps them, got None")
        with self._lock:
            if len(self._rows) >= self.max_rows and not self._released():
                self.skipped += 1
                return
            if not self._segments or len(self._segments[-1].rows) >= self.rows_per_file:
                self._segments.append(Segment())
            segment = self._segments[-1]
            row = _Row(decision, request.x if self.contexts else None, parts, self._version, segment)
            if request.extras is not None and request.extras.candidates is not None:
                row.candidates = request.extras.candidates[1]
            self._rows[decision.id] = row
            segment.rows.append(row)
            segment.changed = True
            if self._writer is not None and len(segment.rows) == self.rows_per_file:
                self._writer.wake()

    def learned(self, feedback: Feedback) -> None:
        """Record what came back, wherever it was learned. Ids that are not in the sample are passed over."""
        self._version += 1
        try:
            with self._lock:
                row = self._rows.get(feedback.id)
                if row is not None:
                    row.reward = float(feedback.reward)
                    row.cost = np.nan if feedback.cost is None else float(feedback.cost)
                    row.seconds = np.nan if feedback.seconds is None else float(feedback.seconds)
                    row.settle()
        except Exception as error:
            self.errors[type(error).__name__] += 1

    def dropped(self, decision_id: int, why: Why) -> None:
        """See a decision end without a reward; one that was answered elsewhere may still have it."""
        with self._lock:
            row = self._rows.get(decision_id)
            if row is not None and why != "answered":
                row.settle()

    def prices(self, decision_id: int) -> Parts | None:
        """Return the prices of a decision by name of their term, None where it is not in memory."""
        row = self._rows.get(decision_id)
        return None if row is None else row.parts

    def recall(self, decision_id: int) -> Recalled | None:
        """Return what is in memory of a decision, None where it is not."""
        row = self._rows.get(decision_id)
        if row is None:
            return None
        reward = None if np.isnan(row.reward) else row.reward
        given = None if row.candidates is None else (row.parts.arms, row.candidates)
        return Recalled(row.decision, row.context, row.parts, reward, given)

    def clear(self) -> None:
        """Forget what is in memory; rewards still due for it will be passed over. Files stay."""
        with self._lock:
            self._rows, self._segments = {}, []
            self.skipped = 0

    def trace(self) -> Trace:
        """Return what is in memory, in the order of the decisions.

        An arm that came or went meanwhile has a column throughout, and is not eligible where it did not exist.
        Candidates have their features in `Trace.candidates`. Where they have very many names (above 64 and four times
        the largest set), arms are places among the candidates of a row, "0", "1" and so on, and a note says so.

        Raises
        ------
        ValueError
            Nothing was recorded.
        """
        with self._lock:
            rows = list(self._rows.values())
            answers = _answers(rows)
        if not rows:
            raise ValueError("the recorder must hold a decision to make a trace, got none")
        return _trace(rows, answers, self.policy)

    # Files.

    def flush(self) -> None:
        """Write what has changed to the folder; nothing where there is none. Raises ``OSError`` where it cannot."""
        if self.files is None:
            return
        failed = None
        with self._writing:
            with self._lock:
                due = [(s, list(s.rows), _answers(s.rows)) for s in self._segments if s.changed]
                for segment, _, _ in due:
                    segment.changed = False
            for segment, rows, answers in due:
                try:
                    self.files.write(segment, _trace(rows, answers, self.policy))
                except Exception as error:  # the next may be well
                    failed = error
                    segment.changed = True
            with self._lock:
                self._release([s for s in self._segments if s.done(self.rows_per_file)])
        if failed is not None:
            raise failed

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write the rest and end the thread; False when that takes longer."""
        if self._writer is None:
            return True
        ended = self._writer.close(timeout_s)
        return self._flushed() and ended

    def _released(self) -> bool:
        """Give the memory of the oldest rows that are on disk; False where there are none. Holds the lock."""
        written = next((s for s in self._segments[:-1] if s.name and not s.changed), None)
        if written is None:
            return False
        self._release([written])
        return True

    def _release(self, segments: Sequence[Segment[_Row]]) -> None:
        for segment in segments:
            for row in segment.rows:
                self._rows.pop(row.decision.id, None)
            self._segments.remove(segment)

    def _flushed(self) -> bool:
        """Flush; False when it failed, which is counted."""
        try:
            self.flush()
        except Exception as error:
            self.errors[type(error).__name__] += 1
            return False
        return True

    def _start(self) -> None:
        if self.files is not None:
            self._writer = Background("recorder", self._flushed, period_s=self.flush_s)
            self._writer.start()

    def start_empty(self) -> None:
        """Start anew in a forked child, where no other thread runs."""
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self.clear()
        self._start()


def _answers(rows: Sequence[_Row]) -> NDArray[np.float64]:
    return np.array([(row.reward, row.cost, row.seconds) for row in rows]).reshape(len(rows), 3)


def _trace(rows: Sequence[_Row], answers: NDArray[np.float64], policy: str) -> Trace:
    known = dict.fromkeys(row.parts.arms for row in rows)
    names = tuple(dict.fromkeys(name for arms in known for name in arms))
    most = max(map(len, known))
    if len(names) > max(64, 4 * most) and all(row.candidates is not None for row in rows):
        return _trace_by_place(rows, answers, policy, most)
    place = {name: i for i, name in enumerate(names)}
    eligible = np.zeros((len(rows), len(names)), dtype=np.bool_)
    prices, faults = np.zeros(eligible.shape), np.zeros(eligible.shape)
    for arms in known:
        at = [i for i, row in enumerate(rows) if row.parts.arms == arms]
        own = np.ix_(at, [place[name] for name in arms])
        total = np.array([_total(rows[i].parts) for i in at])
        eligible[own] = np.isfinite(total)
        prices[own] = np.where(np.isfinite(total), total, 0.0)
        fault = np.array([rows[i].parts.rows.get("fault", np.zeros(len(arms))) for i in at])
        faults[own] = np.where(np.isfinite(total) & np.isfinite(fault), fault, 0.0)
    decisions = [row.decision for row in rows]
    rewards, costs, seconds = np.ascontiguousarray(answers.T)
    return Trace(
        names=names,
        arms=np.array([place[d.arm] for d in decisions], dtype=np.int64),
        rewards=rewards,
        propensities=np.array([d.propensity for d in decisions]),
        contexts=None if rows[0].context is None else np.array([row.context for row in rows]),
        times=np.array([d.time for d in decisions]),
        ids=np.array([d.id for d in decisions], dtype=np.uint64),
        eligible=None if eligible.all() else eligible,
        prices=prices if prices.any() else None,
        fault_prices=faults if prices.any() else None,
        costs=None if np.isnan(costs).all() else costs,
        hits=np.array([d.hit for d in decisions], dtype=np.bool_),
        latencies=None if np.isnan(seconds).all() else seconds,
        policies=(policy,),
        policy=np.zeros(len(rows), dtype=np.int64),
        versions=np.array([row.version for row in rows], dtype=np.int64),
        candidates=_features(rows, place),
    )


def _features(rows: Sequence[_Row], place: Mapping[str, int]) -> Floats | None:
    """Return the features of the candidates of each row, (n, k f), None where there are none."""
    size = next((row.candidates.shape[1] for row in rows if row.candidates is not None), None)
    if size is None:
        return None
    table = np.zeros((len(rows), len(place), size))
    for i, row in enumerate(rows):
        if row.candidates is not None:
            table[i, [place[name] for name in row.parts.arms]] = row.candidates
    return table.reshape(len(rows), len(place) * size)


def _trace_by_place(rows: Sequence[_Row], answers: NDArray[np.float64], policy: str, most: int) -> Trace:
    """Return a trace whose arms are places among the candidates of a row: there are too many names for columns."""
    places, moved = tuple(str(i) for i in range(most)), []
    for row in rows:
        parts = Parts(places[: len(row.parts.arms)], row.parts.rows)
        arm = places[row.parts.arms.index(row.decision.arm)]
        one = _Row(row.decision._replace(arm=arm), row.context, parts, row.version, row.segment)
        one.candidates = row.candidates
        moved.append(one)
    note = "arms are places among the candidates of a row: there were too many names for a column each"
    return replace(_trace(moved, answers, policy), notes=(note,))


def _total(parts: Parts) -> Floats:
    """Return the prices the policy saw: what would have closed every arm was passed over."""
    total: Floats = np.zeros(len(parts.arms))
    for name in ("fault", "caller", *(n for n in parts.rows if n not in ("fault", "caller"))):
        if name in parts.rows:
            both = total + parts.rows[name]
            total = both if np.isfinite(both).any() else total
    return total


def _start_children() -> None:
    for recorder in list(_alive):
        recorder.start_empty()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_children)
