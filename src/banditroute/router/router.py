"""The Router: policy, residency, terms, ledger, listeners, clock and lock, and the only place where they meet."""

import os
import time
import weakref
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.container import LIMIT_BYTES
from banditroute._core.typing import Clock
from banditroute.durability.replicas import Replica
from banditroute.errors import UnknownDecision
from banditroute.policies import Policy
from banditroute.policies.base import LARGEST
from banditroute.records import Decision, Listener, StateStore, Term
from banditroute.residency import Controller
from banditroute.router import feature_maps
from banditroute.router.arms import Eligible, Priced
from banditroute.router.assembly import Backend, PriceOfFault, assembled, check_terms
from banditroute.router.candidates import CandidatePath, Candidates
from banditroute.router.changing import Changing
from banditroute.router.explain import Explanation, explained, stored
from banditroute.router.feature_maps import FeatureMap
from banditroute.router.feedback_path import FeedbackPath
from banditroute.router.forks import follow_forks
from banditroute.router.host import RouterHost
from banditroute.router.lasting import Lasting
from banditroute.router.ledger import decision_key
from banditroute.router.limits import RewardLimits
from banditroute.router.lists import ListPath, Rewards
from banditroute.router.ownership import give_back, take_over
from banditroute.router.planner import Planner, Where
from banditroute.router.request_path import RequestPath
from banditroute.router.statistics import router_stats

__all__ = ["Router"]

FLOAT = np.dtype(np.float64)
_new = tuple.__new__  # makes a named tuple in half the time of its own constructor


class Router(Changing):
    """Routes requests to arms, learns from late rewards and keeps the right arms resident.

    Parameters
    ----------
    policy : Policy
        Chooses the arm. It belongs to the Router from here on, and to no second one: do not call its writers beside
        it. Its readers may see an update half done when other threads use the Router.
    residency : Controller, optional
        Decides which arms stay in fast memory. Without it every request is a hit.
    paging : Paging, float or (k,) array, optional
        Model of the wait of a fault, or its price in reward units. Needed with `residency`.
    features : Features, optional
        Makes the context of a request: then `select` takes requests as they are, texts or tables.
    terms : sequence of Term
        What shapes a choice beside its reward: budgets, floors, queues, health, cost models, sessions, your own.
    sizes : mapping or (k,) array, optional
        Size of each arm in the unit of the controller's capacity; one slot each when left out. Paging models that
        know sizes price them.
    switching : float
        Loading an arm between epochs costs this share of its fault price; in [0, 1].
    loads : (k,) array, optional
        Price of loading each arm between epochs, reward units, in place of ``switching`` times its fault price.
    maintenance : "inline", "background" or "manual"
        Where re-planning runs: inside `select` at its boundaries (deterministic: simulation, notebooks), in a thread,
        or when the caller calls `maintain`. Outside "inline" no request waits for a plan: the old set serves on.
    backend : AdapterBackend or callable, optional
        The server that holds the adapters. The Router brings it to the planned set step by step; ``hit``, `resident`
        and prices speak of what it confirmed. A callable gets an exchange with ``load`` and ``evict``, names, and
        returns the names that did load, or None for all. It is called first by `select`, `maintain` or `recover`.
    feedback_limit_s : float
        Seconds after which a decision without feedback expires.
    pending_limit : int
        Decisions that may await feedback; the oldest expires when one more comes.
    expired_reward : float, optional
        Learn this reward for a decision that expires; without it such a decision is forgotten.
    spread_pending : bool
        Narrow the bonus of an arm by its decisions on play, as if each were one more observation, so that a burst
        without feedback does not herd onto one arm. The statistics do not know of it.
    sources : mapping of str to RewardLimits, optional
        Range, clipping and rate of the rewards from each source; "*" is for all that are not named.
    listeners : sequence of Listener
        Are told what happened, after it has.
    recorder : Recorder, optional
        One more listener: writes decisions and learned rewards down as a trace.
    clock : callable
        Returns seconds; injected for tests and simulation.

    Notes
    -----
    One lock covers every call: many threads may share a Router. A decision and its feedback cost what the policy's own
    `select` and `update` cost, and some two microseconds more. The prices of all terms and the fault price of an arm
    that is not resident are added to the caller's; rewards are learned as they come, never less a price.

    A signal handler should not raise inside a call. Should it do so all the same, no lock stays taken and no reward is
    learned twice; the one that was being learned may be lost.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(arms=["small", "large"], dim=2, rng=0))
    >>> decision = router.select([1.0, 0.5])
    >>> router.update(decision.id, reward=0.8)
    True
    >>> router.update(decision.id, reward=0.8)  # a repeated answer is counted and dropped
    False
    >>> router.stats()["duplicates"]
    1
    >>> router
    Router(LinUCB, arms=['small', 'large'], dim=2, decisions=1, hit_rate=1.00)
    """

    __slots__ = (
        "__weakref__", "_arms", "_books", "_clock", "_features", "_kept", "_lasting", "_ledger",
        "_limits", "_listeners", "_planner", "_residence", "_select", "_select_priced", "_table", "_wide", "backend",
        "maintenance", "paging", "policy", "recorder", "residency", "switching",
    )  # fmt: skip

    def __init__(
        self,
        policy: Policy,
        residency: Controller | None = None,
        paging: PriceOfFault | None = None,
        *,
        features: FeatureMap | None = None,
        terms: Sequence[Term] = (),
        sizes: Mapping[str, float] | ArrayLike | None = None,
        switching: float = 1.0,
        loads: ArrayLike | None = None,
        maintenance: Where = "inline",
        backend: Backend | None = None,
        feedback_limit_s: float = 3600.0,
        pending_limit: int = 100_000,
        expired_reward: float | None = None,
        spread_pending: bool = False,
        sources: Mapping[str, RewardLimits] | None = None,
        listeners: Sequence[Listener] = (),
        recorder: Listener | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.parts = parts = assembled(
            policy, residency, paging,
            sizes=sizes, switching=switching, loads=loads, maintenance=maintenance, backend=backend,
            feedback_limit_s=feedback_limit_s, pending_limit=pending_limit, expired_reward=expired_reward,
            spread_pending=spread_pending, sources=sources, clock=clock,
        )  # fmt: skip
        check_terms(terms)
        self._features = parts.features = feature_maps.checked(features, policy)
        self.policy, self.residency, self.maintenance = policy, residency, maintenance
        self.backend, self.recorder, self.switching = backend, recorder, float(switching)
        self._clock, self._lock, self._books, self._arms = clock, parts.lock, parts.books, parts.arms
        self._table, self._listeners, self._ledger = parts.table, parts.listeners, parts.ledger
        self._limits, self._residence = parts.limits, parts.residence
        self.paging = None if parts.residence is None else parts.residence.paging
        # Bound methods of the policy are collected once: the request path looks up nothing.
        self._select, self._select_priced = policy.select, policy.select_priced
        self._kept = None if type(policy).kept is Policy.kept else policy.kept
        self._table.host = weakref.ref(self)
        self._table.bind(terms, self._arms.names)
        for listener in (*listeners, *(() if recorder is None else (recorder,))):
            self._listeners.add(listener)
        self._feedback = FeedbackPath(parts)
        self._ledger.on_expire = self._feedback.expired
        self._planner = self._planned()
        self._requests = RequestPath(parts, self._feedback, self._planner)
        wide = CandidatePath(parts, self._requests, self._planner)
        self._wide = ListPath(parts, self._requests, wide, self._feedback.cancel)
        parts.rearm = self._requests.collect
        host = RouterHost(parts, self._feedback, self._requests.named, parts.limits)
        self._lasting = Lasting(host, self._planner)
        policy.rewind()  # decisions count from 0 here; evidence from before must not seem to lie in the future
        take_over(self, policy, *terms)
        follow_forks(self)

    def _planned(self) -> Planner | None:
        """Return what plans and, with a server, brings it to the plan."""
        if self._residence is None:
            return None
        self._residence.reprice()
        planner = Planner(self.parts, self._residence, self.maintenance, self.backend)
        self.parts.settle, self.parts.planning = planner.settle, planner.is_busy
        self.parts.unload = planner.unload
        return planner

    def __repr__(self) -> str:
        """Show policy, arms, traffic and what is resident."""
        arms = list(self._arms.names) if len(self._arms) <= 6 else f"{len(self._arms)} arms"
        books = self._books
        rate = books.hits / books.index if books.index else 1.0
        text = f"Router({type(self.policy).__name__}, arms={arms}, dim={self.policy.dim}, decisions={books.index}"
        text += f", hit_rate={rate:.2f}"
        return text + (")" if self._residence is None else f", resident={list(self._residence.names())})")

    def __reduce__(self) -> NoReturn:
        """Refuse: a copy would believe in decisions, files and servers that are the original's."""
        raise TypeError("a Router cannot be copied or pickled: `save` and `load` carry its state over")

    # The request path.

    def select(
        self,
        x: ArrayLike,
        eligible: Eligible | None = None,
        prices: Priced | None = None,
        protected: bool = False,
        weights: Mapping[str, float] | None = None,
        session: str | None = None,
        id: int | str | None = None,
        version: int | None = None,
        candidates: Candidates | None = None,
        k: int | Sequence[float] | None = None,
    ) -> Decision:
        """Choose the arm that serves a request.

        Parameters
        ----------
        x : (dim,) array, or a request where there are `features`
            Context of the request; copied.
        eligible : set of str, mapping or (k,) bool array, optional
            Arms allowed for this request: names, every name with a truth value, or a mask by position.
        prices : mapping or (k,) array, optional
            Known extra cost of arms for this request, reward units, by name (0 for those left out) or by position.
        protected : bool
            Never force exploration on this request.
        weights : mapping of str to float, optional
            Prices of the measures of cost models for this request alone.
        session : str, optional
            Conversation that the request belongs to.
        id : int or str, optional
            The caller's own id, a string of at most 128 bytes or a positive 63-bit integer; a repeated one gives the
            first decision again.
        version : int, optional
            `arms_version` to which positions refer; refused when the arms have changed since.
        candidates : mapping of str to (f,) array, or (names, (m, f) array), optional
            What may serve this request, with its features now; another set each time, and names that are no arms. Needs
            a `CandidatePolicy`. Names that are arms pay what the arms pay and have their own statistics; masks and
            prices by position then mean places among the candidates. Nothing is forced.
        k : int or sequence of float, optional
            A list of so many arms, best first, as one `Ranking`; fewer where fewer are open. One place, each with the
            same probability, is chosen as one arm would be, all others by mean less price. Numbers in (0, 1] say how
            likely each place is looked at: the position model of clicks. Each place counts as a decision.

        Returns
        -------
        Decision
            Keep its ``id``: `update` answers it. With `k` it is a `Ranking`.

        Raises
        ------
        ValueError, TypeError
            Bad context, mask or prices, or no arm left; nothing changed. Closed, or called by a term or a listener.
        UnknownArm
            A name that was never an arm.

        Notes
        -----
        Waits for the lock only, and with ``maintenance="inline"`` for plans and the server.
        """
        if self._features is not None:
            x = self._features(x)
        if candidates is not k:  # one test for both: on the plain path they are None
            said = (eligible, prices, protected, weights, session, id, version)
            return self._wide.select(x, candidates, k, *said)
        with self._lock:
            books = self._books
            index = books.index
            if index >= books.due and not self._requests.idle(index):
                self._requests.check(x, eligible, prices, weights, session, id, version)
                self._requests.upkeep(index)
            table, extras, key = self._table, None, None
            if type(x) is np.ndarray and x.dtype is FLOAT:
                context = x.copy()
            else:
                context = np.array(self.policy.check_context(x))
            if not table.live:
                table.fold(self._arms.muted)
            at = index + books.others
            effective = table.effective
            if (
                prices is None and eligible is None and weights is None and session is None and id is None
                and not table.moving
            ):  # fmt: skip
                choice = (
                    self._select(context) if effective is None else self._select_priced(context, effective)
                )
            else:
                if id is not None and (first := self._requests.repeated(key := decision_key(id))) is not None:
                    return first
                extras, effective = self._requests.priced(
                    context, at, eligible, prices, protected, weights, session, version
                )
                choice = self._select_priced(context, effective)
                if eligible is not None:  # not before the choice: it may refuse the context
                    books.masked += 1
                    self._arms.offered |= effective < inf
            now = self._clock() + books.offset
            if not -inf < now < inf:
                now = books.now()
            arm, propensity = choice
            told, rows, hit, forced = self._requests.watched or key is not None, None, True, False
            if told and self._listeners.keeps_parts:  # prices it was chosen by: serving may change them
                rows = self._requests.rows(context, at, extras)
            if self._planner is not None:
                arm, propensity, hit, forced = self._planner.served(context, effective, choice, protected)
            kept = context if self._kept is None else self._kept(context, arm)
            arms = self._arms
            name = arms.names[arm]
            books.index = index + 1
            books.hits += hit
            arms.pending[arm] += 1
            arms.plays[arm] += 1
            if told:
                entry = (name, kept, propensity, now, at, None, weights, session)
                return self._requests.told(entry, context, extras, rows, arm, hit, forced, key)
            key = self._ledger.open((name, kept, propensity, now, at, None, weights, session))
            return _new(Decision, (key, name, propensity, hit, books.epoch, now))

    def explain(
        self,
        x: ArrayLike | int | Decision | None = None,
        eligible: Eligible | None = None,
        prices: Priced | None = None,
        protected: bool = False,
        weights: Mapping[str, float] | None = None,
        session: str | None = None,
        *,
        id: int | str | None = None,
        candidates: Candidates | None = None,
    ) -> Explanation:
        """Say what every arm would be worth for a request, and what stands against it; nothing changes.

        Parameters
        ----------
        x : (dim,) array, or a request where there are `features`; int or Decision
            What `select` would be given; or the id of a decision, or the decision itself, that awaits its feedback or
            that a `Recorder` still has with its context.
        eligible, prices, protected, weights, session : optional
            As in `select`; for a decision weights and session are those that were stored with it.
        id : int or str, optional
            The decision, in the place of x; a caller's own id where it is a string.
        candidates : optional
            As in `select`: the explanation is of these.

        Returns
        -------
        Explanation
            Its text is a sentence and a table. Of a decision it tells what was stored, its arm, propensity and time
            (and its prices where a recorder has them), and computes everything else as of now.

        Raises
        ------
        UnknownDecision
            It is neither pending nor recorded with its context.
        ValueError, TypeError
            What `select` would raise for the request.

        Notes
        -----
        It is as of now: a plan, a bucket or an expiry that is due comes with the next `select`, not here. No random
        number is drawn. Holds the lock while it computes means, bonuses and propensities of all k arms: what
        `scores_batch` and `propensities` of the policy cost, and O(k) for each term.

        Examples
        --------
        >>> from banditroute import LinUCB, Router
        >>> why = Router(LinUCB(["small", "large"], 1, rng=0)).explain([1.0], eligible={"small"})
        >>> why["large"].closed, why["small"].propensity
        (('mask',), 1.0)
        """
        if id is None and isinstance(x, Decision):
            id = x.id
        elif id is None and isinstance(x, int | np.integer) and not isinstance(x, bool):
            id = int(x)
        if self._features is not None and id is None:
            x = self._features(x)
        with self._lock:
            made, blocked = None, frozenset() if self._planner is None else self._planner.blocked()
            if candidates is not None:
                return self._wide.candidates.explain(
                    [] if x is None else x, candidates, eligible, prices, weights, session, blocked
                )
            if id is None:
                request = self._requests.asked(
                    [] if x is None else x, eligible, prices, protected, weights, session
                )
            else:
                request, made = stored(self.parts, id)
            return explained(self.parts, request, blocked, made)

    def update(
        self,
        decision_id: int | str,
        reward: float | Rewards,
        cost: float | None = None,
        seconds: float | None = None,
        failed: bool = False,
        source: str | None = None,
    ) -> bool:
        """Learn the reward that answers a decision; late, out of order and from any thread.

        Parameters
        ----------
        decision_id : int or str
            ``Decision.id``, its decimal digits, or the caller's own id.
        reward : float, or for a list a mapping of str to float or a sequence
            Finite; the higher the better. Of a list: by arm, or one for each place; None withdraws a place, and one
            that is left out still awaits its reward. A list of one place takes a number, or a mapping.
        cost, seconds : float, optional
            What the call did cost and how long it took, >= 0, for the terms that ask.
        failed : bool
            The call itself failed, for the terms that ask. Where there is nothing to learn, `cancel`.
        source : str, optional
            Who reports it; `sources` say what is made of it.

        Returns
        -------
        bool
            True when it was learned; False when it was counted and dropped: a duplicate, an expired or cancelled
            decision, an arm that has been removed or is in quarantine, a source above its rate.

        Raises
        ------
        UnknownDecision
            The id was never issued or is older than the bounded memory.
        ValueError, TypeError
            Bad reward, or one outside the limits of its source; nothing changed, the decision still awaits its
            feedback. Closed, or called by a term or a listener.

        Notes
        -----
        Waits for the lock; with shared decisions, for the store where another worker made the decision.
        """
        if type(reward) is not float and isinstance(reward, Mapping | list | tuple):
            told = {"cost": cost, "seconds": seconds, "failed": failed, "source": source}
            return self._wide.update(self.update, decision_id, reward, **told)
        with self._lock:
            books, ledger = self._books, self._ledger
            if books.barred:
                books.refuse()
            if ledger.learning >= 0:
                ledger.settle_interrupted()
            # The usual types are told apart first: the full checks cost as much as learning does.
            value = (
                reward if type(reward) is float and -inf < reward < inf else check.finite("reward", reward)
            )
            key = decision_id if type(decision_id) is int else decision_key(decision_id)
            if cost is not None or seconds is not None:
                cost = None if cost is None else check.finite("cost", cost, low=0.0, high=LARGEST)
                seconds = None if seconds is None else check.finite("seconds", seconds, low=0.0, high=LARGEST)
            now = self._clock() + books.offset
            if not -inf < now < inf:
                now = books.now()
            entry = (waiting := ledger.pending).recent.get(key) or waiting.older.get(key)
            foreign = False
            if entry is None or not entry[3] > now - ledger.time_limit:
                foreign = entry is None and self.parts.claims is not None and key not in ledger.closed
                if not foreign:
                    if entry is not None:
                        ledger.expire(key)
                    ledger.refuse(key)
                    return False
            if self._limits is not None:  # not before: a source does not pay for ids that nobody awaits
                admitted = self._limits.admit(source, value, now)
                if admitted is None:
                    return False
                value = admitted
            if entry is not None:
                return self._feedback.answer(key, entry, value, cost, seconds, failed)
        answer = {"reward": value, "cost": cost, "seconds": seconds, "failed": failed, "source": source}
        return self._feedback.adopt(key, answer)

    def cancel(self, decision_id: int | str) -> bool:
        """Withdraw a decision that was never served, failed, or was rerouted: it teaches nothing.

        It is no longer pending, does not expire into a reward, and what terms set aside for it is freed. A late answer
        is counted and dropped.

        Parameters
        ----------
        decision_id : int or str
            As in `update`.

        Returns
        -------
        bool
            False where it was answered, expired or cancelled before.

        Raises
        ------
        UnknownDecision
            The id was never issued or is older than the bounded memory.

        Examples
        --------
        >>> from banditroute import LinUCB
        >>> router = Router(LinUCB(2, 1, rng=0))
        >>> decision = router.select([1.0])
        >>> router.cancel(decision.id), router.cancel(decision.id), router.stats()["pending"]
        (True, False, 0)
        """
        with self._lock:
            if self._books.barred:
                self._books.refuse()
            key = decision_key(decision_id)
            waiting = [one for one in self._wide.places(key) if one in self._ledger.pending]
            if not waiting:
                if key not in self._ledger.closed:
                    raise UnknownDecision(
                        f"decision_id must be one that awaits or had its feedback, got {decision_id!r}"
                    )
                return False
            for one in waiting:  # of a list all places
                self._feedback.cancel(one)
            return True

    def after_fork(self) -> None:
        """Go on in a forked child: statistics stay, what belongs to the parent is dropped; nobody else calls it."""
        self._requests.after_fork()
        self._lasting.after_fork()
        if self._planner is not None:
            self._planner.after_fork()
        self._requests.collect()

    # Residency.

    @property
    def resident(self) -> tuple[str, ...]:
        """Names of the arms that are resident; all of them without residency control."""
        with self._lock:
            return self._arms.names if self._residence is None else self._residence.names()

    @property
    def features(self) -> FeatureMap | None:
        """What makes the context of a request; None where `select` takes contexts."""
        return self._features

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, in the order of positions."""
        return self._arms.names

    @property
    def arms_version(self) -> int:
        """Number that changes with the arms, for masks and prices by position."""
        return self._arms.version

    def maintain(self) -> bool:
        """Re-plan residency now if a plan is due; returns whether one was made. For maintenance="manual".

        The plan is computed without the lock, so `select` goes on in other threads meanwhile; it waits for the server.
        """
        return self._planner is not None and self._planner.run()

    def wake(self) -> None:
        """Have the thread of ``maintenance="background"`` make the plan that is due, before a request does so."""
        if self._planner is not None:
            self._planner.wake()

    def confirm(self, name: str, resident: bool) -> bool:
        """Learn from outside that an arm has become resident, or has left; from any thread.

        Parameters
        ----------
        name : str
        resident : bool

        Returns
        -------
        bool
            Whether the set changed: False for an arm that is unknown, pinned, in that state already, or does not fit.
        """
        return self._planner is not None and self._planner.heard(name, resident)

    # What lasts.

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the whole state to a file; the file it replaces is kept beside it as ``<path>.previous``.

        Parameters
        ----------
        path : path
            Written atomically: after a crash there is the old file or the new one.

        Raises
        ------
        OSError
            Disk full, read-only and so on; the old file is untouched, serving goes on.

        Notes
        -----
        The lock is held while arrays are copied, not while they are written.

        Examples
        --------
        >>> import tempfile
        >>> from banditroute import LinUCB, Router
        >>> router, again = Router(LinUCB(2, 3, rng=0)), Router(LinUCB(2, 3, rng=1))
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     router.save(directory + "/state")
        ...     report = again.load(directory + "/state")
        >>> again.select([1.0, 0.0, 0.0]).arm == router.select([1.0, 0.0, 0.0]).arm
        True
        """
        self._lasting.save(path)

    def load(
        self,
        path: str | os.PathLike[str],
        *,
        limit_bytes: int = LIMIT_BYTES,
        arms: Literal["file", "code"] = "file",
    ) -> dict[str, Any]:
        """Continue from a file that `save` wrote.

        Parameters
        ----------
        path : path
        limit_bytes : int
            Larger files are refused.
        arms : "file" or "code"
            Whose arms to serve: those of the file, or those of this Router, new ones cold and others dropped.

        Returns
        -------
        dict
            ``arms_added``, ``arms_dropped`` and ``reset``: what of the file could not be carried over.

        Raises
        ------
        SnapshotError
            Torn, altered, foreign, too large, or of another kind of policy; nothing changed.
        ValueError
            A replica by now, or with a journal: a crash would bring the old state back.
        OSError
            The file cannot be opened.

        Notes
        -----
        Statistics do not depend on settings: those of this Router (alpha, ridge, mix, prior, controller, capacity) stay
        as they are. Callbacks and the clock itself are not saved; the time of the Router goes on where it stopped.
        """
        return self._lasting.load(path, limit_bytes=limit_bytes, arms=arms)

    def recover(
        self,
        directory: str | os.PathLike[str],
        *,
        checkpoint_s: float = 30.0,
        flush_s: float = 0.05,
        keep: int = 3,
        arms: Literal["code", "file"] = "code",
    ) -> dict[str, Any]:
        """Continue from a directory, empty the first time, and keep a journal and checkpoints there from now on.

        Takes the newest good snapshot and replays the journal behind it. A process that is killed loses at most what
        it decided and learned in its last `flush_s`; nothing is learned twice.

        Parameters
        ----------
        directory : path
            Of this process alone: it is locked.
        checkpoint_s : float
            Seconds between snapshots, made in a thread.
        flush_s : float
            Seconds between writes of the journal, in the same thread.
        keep : int
            Snapshots kept, newest first.
        arms : "code" or "file"
            Whose arms to serve, as in `load`.

        Returns
        -------
        dict
            ``generation`` taken (0: none), records ``replayed`` and ``skipped``, ``torn_bytes`` at the ends of
            journals, snapshots ``refused``, and what `load` returns.

        Raises
        ------
        SnapshotError
            There are snapshots and none is good, or they are of another kind of policy.
        ValueError
            Decisions were made already, or the Router has joined a store.
        DirectoryInUse
            Another process uses the directory.
        OSError
            The directory cannot be written.

        Notes
        -----
        Statistics, pending decisions and answered ids come back exactly, whatever the settings of this Router.
        Residency comes back as of the snapshot, has seen the replayed requests, and is asserted at the server.

        Examples
        --------
        >>> import tempfile
        >>> from banditroute import LinUCB, Router
        >>> with tempfile.TemporaryDirectory() as home:
        ...     with Router(LinUCB(2, 2, rng=0)) as router:
        ...         started = router.recover(home)["generation"]
        ...         decision = router.select([1.0, 0.0])
        ...     with Router(LinUCB(2, 2, rng=0)) as router:
        ...         generation = router.recover(home)["generation"]
        ...         learned = router.update(decision.id, 1.0)
        >>> started, generation, learned
        (0, 2, True)
        """
        return self._lasting.recover(
            directory, checkpoint_s=checkpoint_s, flush_s=flush_s, keep=keep, arms=arms
        )

    def checkpoint(self) -> None:
        """Write a snapshot into the directory of `recover` now.

        Raises
        ------
        ValueError
            There is no such directory, or the router was closed.
        OSError
            The disk refuses; the journal goes on.
        """
        self._lasting.checkpoint()

    def join(
        self,
        store: StateStore,
        *,
        sync_s: float = 1.0,
        share_decisions: bool = False,
        share_residency: bool | str = True,
        background: bool = True,
    ) -> Replica:
        """Share this bandit with every other Router that joins the same store.

        Parameters
        ----------
        store : StateStore
            `FileStore`, ``RedisStore`` or your own.
        sync_s : float
            Seconds between rounds: how stale the others' evidence is at most.
        share_decisions : bool
            Let any replica answer a decision; the first answer wins. Answers to decisions that the store holds are
            learned a moment later, in the thread, once it has said that no other replica was first: `update` returns
            True when it has taken them.
        share_residency : bool or str
            With residency, whose adapters this worker uses: True, those of one server for all that join; a name, those
            of a server of that name; False, those of a server of its own. Of the workers of one server one plans, and
            all believe the same of it.
        background : bool
            Run threads; otherwise call ``sync()`` and ``exchange()`` of the answer.

        Returns
        -------
        Replica
            For its `sync`, `peers` and `compact`.

        Raises
        ------
        TypeError
            The policy cannot share its evidence, and says why; or not a store.
        ValueError
            Joined already, closed, or `share_residency` is an empty name.

        Notes
        -----
        All replicas need the same dimension, features and discount; what disagrees is refused and counted. Call
        `recover` before `join`. What a replica that dies had not published is lost. While the store is down serving
        goes on and ``store_errors`` counts.

        Examples
        --------
        >>> import tempfile
        >>> from banditroute import FileStore, LinUCB, Router
        >>> with tempfile.TemporaryDirectory() as home:
        ...     one, two = Router(LinUCB(2, 2, rng=0)), Router(LinUCB(2, 2, rng=1))
        ...     first = one.join(FileStore(home), background=False)
        ...     second = two.join(FileStore(home), background=False)
        ...     learned = one.update(one.select([1.0, 0.0]).id, 1.0)
        ...     synced = first.sync(), second.sync()
        >>> int(two.policy.counts.sum())
        1
        """
        share = share_decisions, share_residency
        return self._lasting.join(store, *share, sync_s=sync_s, background=background)

    def rollback(self, path: str | os.PathLike[str]) -> None:
        """Put back the statistics of an earlier snapshot; pending decisions, ids, residency and counters stay.

        For a policy that learned from feedback it should not have seen. Arms must be the same as now.

        Raises
        ------
        SnapshotError
            As for `load`; nothing changed.
        ValueError
            Closed.
        """
        self._lasting.rollback(path)

    def close(self, timeout_s: float = 10.0) -> None:
        """Refuse calls from here on, publish, checkpoint and stop the threads; safe to call twice.

        Parameters
        ----------
        timeout_s : float
            Seconds for each of these; a server or a store that hangs keeps nothing from being closed.
        """
        self._lasting.close(timeout_s)
        give_back(self.policy, *self._table.terms)

    def __enter__(self) -> "Router":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stats(self) -> dict[str, Any]:
        """Return counters as plain numbers: decisions, hits, learned, pending, expired, duplicates and so on.

        The lock is held for a millisecond or two at most: where very many decisions have expired, the rest of them is
        counted by later calls.
        """
        with self._lock:
            counts = router_stats(self.parts)
            if self._planner is not None:
                counts |= self._planner.stats()
            return counts | self._lasting.stats()
