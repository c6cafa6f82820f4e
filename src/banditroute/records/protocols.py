"""What the parts of a Router are to each other: protocols, so that anyone can write one of their own."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

from numpy.typing import ArrayLike

from banditroute._core.typing import Arrays, Floats, Header
from banditroute.records.decision import Decision, Feedback, Parts, Pending, Request
from banditroute.records.events import Answered, ArmChange, Deferred, Event, Marked, Note, Why

__all__ = [
    "AdapterBackend",
    "Capabilities",
    "Claims",
    "Host",
    "Listener",
    "PriceRow",
    "SharedTerm",
    "SlicedHost",
    "State",
    "StateStore",
    "StoreRow",
    "Term",
    "TermHost",
]


class PriceRow:
    """One row of the price table, owned by one term: the price of every arm, infinite where the term closes it.

    Parameters
    ----------
    values : (k,) array
        Written into by the term's `write`.
    ring : callable
        Tells that `values` are out of date: the next request has the term write them anew. From any thread.
    host : callable, optional
        Returns the `TermHost` that the term belongs to, None when that is gone (a weak reference will do).

    Examples
    --------
    >>> import numpy as np
    >>> row = PriceRow(np.zeros(2), lambda: print("stale"))
    >>> row.ring()
    stale
    """

    __slots__ = ("host", "ring", "values")

    def __init__(
        self,
        values: Floats,
        ring: Callable[[], None],
        host: Callable[[], "TermHost | None"] = lambda: None,
    ) -> None:
        self.values, self.ring, self.host = values, ring, host


class TermHost(Protocol):
    """What a term sees of the Router it belongs to, and calls without the Router's lock held."""

    def select(
        self,
        x: ArrayLike,
        *,
        eligible: Collection[str] | ArrayLike | None = None,
        prices: ArrayLike | None = None,
        protected: bool = False,
    ) -> Decision:
        """Choose the arm that serves a request."""

    def update(self, decision_id: int, reward: float, *, cost: float | None = None) -> bool:
        """Learn the reward that answers a decision, and what the call did cost."""

    def cancel(self, decision_id: int) -> bool:
        """Withdraw a decision: it teaches nothing and frees what was set aside for it."""

    def forget_arm(self, name: str) -> None:
        """Forget all that was learned of an arm."""

    def tell_term(self, name: str, details: Mapping[str, Any]) -> None:
        """Have a term `replay_mark` what it was told from outside, under the lock, and tell listeners."""

    def add_term(self, term: "Term") -> None:
        """Let a term shape the choices from now on."""


@runtime_checkable
class Term(Protocol):
    """Why an arm is dearer now, or closed, apart from its reward; driven by these calls and nothing else.

    Arms are named; where a term is used without a Router, an index will do. A term draws no random numbers and takes
    the time from the decision, so that a journal rebuilds it by calling it again. All calls come with the Router's lock
    held and do no I/O. ``name`` is its name in states, journals, explanations and logs. A ``soft`` term that would
    leave no arm is passed over for that request and counted; one that is not has the request refused. ``per_request``
    says that `prices` must be asked for each request; otherwise its row of the price table is all there is.
    """

    name: str
    soft: bool
    per_request: bool

    def bind(self, arms: tuple[str, ...], row: PriceRow) -> None:
        """Take a row of the price table for these arms: at the start, and after every change of arms."""

    def write(self) -> None:
        """Fill the row: asked once after it rang."""

    def prices(
        self, request: Request | None = None, *, weights: Mapping[str, float] | None = None
    ) -> Floats | None:
        """Return prices of this request alone, (k,), infinite where closed; None where there is nothing to say."""

    def reserve(self, arm: str, request: Request, /) -> Any:
        """See an arm chosen; what it returns (plain data) is held with the decision."""

    def settle(self, arm: str, held: Any, feedback: Feedback, /) -> None:
        """See the feedback of a decision learned; the arm may be gone by then."""

    def release(self, arm: str, held: Any, /) -> None:
        """See a decision end without an answer: expired, cancelled, rerouted, arm removed, or a fork."""

    def replay_mark(self, details: Mapping[str, Any]) -> None:
        """Take up what was told from outside: at once through `TermHost.tell_term`, or again from a journal.

        An arm that is gone by now is passed over.
        """

    def add_arm(self, name: str) -> None:
        """Follow an arm that was added; it starts with what the term assumes of an unknown one."""

    def remove_arm(self, name: str) -> None:
        """Forget an arm: a later one of that name starts from nothing."""

    def to_state(self) -> tuple[Header, Arrays]:
        """Return everything needed to continue, as plain data; what is held comes back by replay of `reserve`."""

    def load_state(self, header: Header, arrays: Arrays) -> None:
        """Continue from `to_state`; raises ``ValueError`` and changes nothing where it does not fit."""


@runtime_checkable
class SharedTerm(Term, Protocol):
    """A `Term` that tells the other workers of a store what it saw, and believes what they tell.

    What it took in is journalled as a mark, ``{"notes": [[key, arm, value, time], ...]}``, and comes back by
    `replay_mark`. The order in which notes come, and how often, makes no difference.

    Examples
    --------
    >>> from banditroute.terms import BudgetPacer, Sessions
    >>> isinstance(Sessions(0.1), SharedTerm), isinstance(BudgetPacer(1.0, [0.5, 2.0]), SharedTerm)
    (True, False)
    """

    def notes(self, *, anew: bool = False) -> list[Note]:
        """Return what was seen here since the last call; with `anew` all that is known, and note it from here on."""

    def take(self, notes: Iterable[Note]) -> list[Note]:
        """Take in notes of other workers; returns those that were news."""

    def passed(self, seconds: float) -> None:
        """See that time stood still here for so long, from a crash to the restart: what is known is that much older."""


class Listener(Protocol):
    """Is told what happened, after it has: journal, replicas, recorder, metrics, your own.

    Every method is optional. All calls come with the Router's lock held and do no I/O. An exception is counted and
    logged once per kind; the request stands. ``keeps_parts`` True asks for the prices of each decision by name. One
    that keeps decisions may have ``recall(decision_id) -> Recalled | None``, for `Router.explain`.
    """

    keeps_parts: bool

    def decided(
        self, decision: Decision, request: Request, pending: Pending, forced: bool, parts: Parts | None
    ) -> None:
        """See a decision made."""

    def learned(self, feedback: Feedback) -> None:
        """See a reward learned."""

    def dropped(self, decision_id: int, why: Why) -> None:
        """See a decision end without one."""

    def arms_changed(self, change: ArmChange) -> None:
        """See arms come, go, or be forgotten."""

    def marked(self, mark: Marked) -> None:
        """See a term told something from outside."""

    def deferred(self, event: Deferred) -> None:
        """See an answer wait for the store; `learned` or `dropped` ends the wait."""


class Host(Protocol):
    """What durability sees of a Router: its state in and out, events of elsewhere put into effect, and its lock.

    ``decisions`` counts those made here; ``size_limit`` and ``time_limit_s`` bound those that await feedback.
    Everything but `flush` is called with `locked` held, which is re-entrant.
    """

    @property
    def decisions(self) -> int:
        """Decisions made here."""

    @property
    def time(self) -> float:
        """The time now, in seconds of this Router."""

    @property
    def size_limit(self) -> int:
        """Decisions that may await feedback."""

    @property
    def time_limit_s(self) -> float:
        """Seconds after which a decision expires."""

    @property
    def arms(self) -> tuple[str, ...]:
        """The names of the arms now."""

    def capture(self) -> tuple[Header, Arrays]:
        """Return the whole state; the lock must be held."""

    def restore(
        self, header: Header, arrays: Arrays, *, arms: Literal["file", "code"] = "file"
    ) -> dict[str, Any]:
        """Put a captured state back, whole or not at all; says what was dropped, added and changed."""

    def restore_statistics(self, header: Header, arrays: Arrays) -> None:
        """Put back what the policy knew in a captured state, and nothing else; the lock must be held."""

    def replay(self, event: Event) -> bool:
        """Put one event into effect again; False where it does not apply (any more)."""

    def locked(self) -> AbstractContextManager[None]:
        """Hold the Router's lock, with no plan under way."""

    def flush(self) -> None:
        """Make durable what has been told so far: nothing is published that a crash could make this process forget."""

    def check(self, reward: float, pending: Pending | None) -> None:
        """Raise ``ValueError`` for a reward that the policy would refuse. None: it is not known yet of what."""

    def admit(self, answer: Answered) -> float | None:
        """Return the reward to learn by the rules of its source, whose rate is charged; None where that is used up.

        Raises ``ValueError`` outside its range.
        """

    def refund(self, source: str | None) -> None:
        """Take back what `admit` charged a source for an answer to a decision that is not known yet."""

    def absorb(self, pending: Pending, feedback: Feedback) -> bool:
        """Learn the answer to a decision that is in the ledger no more, or never was; False where its arm is gone."""

    def duplicate(self) -> None:
        """Count an answer that came after another."""

    def drop(self, decision_id: int, pending: Pending | None, why: Why) -> None:
        """End an answer that waited for the store and teaches nothing: terms release, listeners are told."""

    def answered(self, feedback: Feedback) -> bool:
        """See a decision of this Router learned by a peer; False where it awaits feedback no more.

        Its pending counts and terms settle; listeners are told `learned` with origin ``peer``, also where it is False.
        """

    def apply(self, event: ArmChange | Marked) -> bool:
        """Do as another worker did, and tell the listeners; False where there was nothing to do or it is refused."""

    def announce(self, event: Deferred) -> None:
        """Tell the listeners that an answer waits for the store."""

    def hear_of(self, others: int) -> None:
        """Set the common clock: so many decisions were made by others."""

    def notes(self, known: Collection[str]) -> dict[str, list[Note]]:
        """Return what each `SharedTerm` noted here since the last call; all that a new one knows."""

    def take(self, term: str, notes: Sequence[Note]) -> None:
        """Have a term take in what other workers noted; listeners are told of what was news."""

    def passed(self, seconds: float) -> None:
        """Have every `SharedTerm` see that time stood still here, before the next checkpoint."""


@runtime_checkable
class SlicedHost(Protocol):
    """A Host whose state can be copied slice by slice, so that no hold of the lock is long.

    Examples
    --------
    >>> import threading
    >>> class Sliced:
    ...     def capture_slices(self):
    ...         yield None
    ...         yield {"format": 2}, {}
    ...     def held(self):
    ...         return threading.Lock()
    >>> isinstance(Sliced(), SlicedHost)
    True
    """

    def capture_slices(self) -> Iterator[tuple[Header, Arrays] | None]:
        """Yield None after each slice and at last the state, as it was at the first; the lock is held for each.

        What changes in between must have been copied before it changes. Closing the iterator ends that.
        """

    def held(self) -> AbstractContextManager[Any]:
        """Hold the lock alone, for every slice but the first: none of them waits for a plan."""


class Claims(Protocol):
    """Decides which worker learns an answer, where decisions are shared."""

    def defers(self, decision_id: int, pending: Pending, answer: Feedback | None) -> bool:
        """Tell whether the answer (None: the decision expired) must wait for the store; the lock is held.

        True: it is this one's from now on, and comes back by `Host.absorb` or `Host.drop`.
        """

    def adopt(self, decision_id: int, answer: Mapping[str, Any]) -> bool:
        """Learn the answer to a decision that another worker made; asks the store, so without the lock.

        ``answer`` has the fields of `Answered` but the id: ``reward``, admitted by the rules of its source, and
        ``cost``, ``seconds``, ``failed`` and ``source`` where given. False: it was answered before.
        """


# Adapters on servers.

State = Literal["gpu", "host", "disk", "unknown"]


class Capabilities(NamedTuple):
    """What a server can be asked to do, and what it does by itself.

    ``unload`` False: it frees no place when asked. ``blocking``: a load stalls the requests it is serving.
    ``displaces``: a request to an adapter that is not resident loads it in the place of another one.

    Examples
    --------
    >>> Capabilities(unload=False).blocking
    True
    """

    load: bool = True
    unload: bool = True
    pin: bool = True
    touch: bool = True
    observe: bool = True
    blocking: bool = True
    displaces: bool = False


@runtime_checkable
class AdapterBackend(Protocol):
    """Handle of one replica's adapter memory: `ensure` and `evict`; everything else is optional.

    Calls come one at a time and may take long; one that takes longer than the Router waits goes on beside later ones,
    so they must be safe under threads. They must not call the Router. Optional are the property ``capabilities``
    (`Capabilities`); ``pin(name, pinned=True) -> bool``; ``touch(name) -> bool``, mark as just used; ``observe() ->
    dict`` of name to `State`, the server's own word of where every adapter is ("gpu" is resident, a name that is
    missing is nowhere, "unknown" leaves the belief as it was); ``forget(name) -> bool``, drop its weights altogether,
    for a name that may come back with others (`evict` without it); and, where ``displaces``, ``served(name)``: a
    request was sent there, answered from a model without I/O by the changes of what is resident, (name, resident) each.

    Examples
    --------
    >>> class Mine:
    ...     def ensure(self, name): return True
    ...     def evict(self, name): return True
    >>> isinstance(Mine(), AdapterBackend)
    True
    """

    def ensure(self, name: str) -> bool:
        """Make an adapter resident and wait for it; True when it is. Asking again is harmless."""

    def evict(self, name: str) -> bool:
        """Try to free an adapter's place; False when it could not be done."""


# Where replicas meet.

StoreRow = dict[str, Any]


@runtime_checkable
class StateStore(Protocol):
    """What replicas need of a store; every call may raise ``OSError`` when it is down, and is then tried again.

    A row is a small JSON object with at least ``seq`` (integer) and ``beat``, both in [0, 2^53), ``parts`` and
    ``lacking``; parts are bytes by name. Rows and parts of one replica change together. Ids are 63-bit integers. Names
    are strings of any length. What is there but is no row counts as older than any, and is told as ``{}``.
    """

    def index(self) -> dict[str, StoreRow]:
        """Return the row of every replica, the base included."""

    def put(self, replica: str, row: StoreRow, parts: Mapping[str, bytes]) -> list[str]:
        """Replace the row and these parts, unless the row there is as new: retries and stragglers do no harm.

        ``row["parts"]`` tells the version of every part. The row that is stored tells what the store really has: the
        given parts, and the others as before; ``lacking`` names the rest with the version wanted. Returns their
        names: the store has been flushed.
        """

    def fetch(self, replica: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return those of the named parts that exist."""

    def compact(
        self,
        expected: StoreRow | None,
        row: StoreRow,
        parts: Mapping[str, bytes],
        gone: Mapping[str, StoreRow],
    ) -> bool:
        """Replace the base and delete the replicas in `gone`, at once, if all are still as given; else False."""

    def keep(self, decisions: Mapping[int, bytes], ttl_s: float) -> None:
        """Keep pending decisions for any replica to answer; those that were kept or taken before are left alone."""

    def look(self, keys: Sequence[int]) -> list[bytes | None]:
        """Return each decision without taking it: its bytes, b"" where it was taken, None where it is unknown."""

    def take(self, keys: Sequence[int], token: str) -> list[bytes | None]:
        """Take decisions, each of them for one token: its bytes, b"" where another token has it, None where unknown.

        A call with the same token gets the same answer again, so a reply that was lost is asked for once more.
        """
