"""What is wanted of a server, what it confirmed, and what to do next: plain state, no call and no lock."""

from collections.abc import Iterable, Mapping
from math import inf
from typing import Literal, NamedTuple

from banditroute.records import Capabilities

__all__ = ["Action", "Adapters", "Pause", "Progress", "What"]

What = Literal["forget", "evict", "ensure", "pin", "unpin"]
MOST_S = 300.0  # between two tries at what fails again and again

TRIES = 5  # at an eviction that is refused by a server that cannot tell what it holds: it may not be there


class Action(NamedTuple):
    """One thing to ask of the server.

    Examples
    --------
    >>> Action("ensure", "a").name
    'a'
    """

    what: What
    name: str


class Pause:
    """When something that failed is tried again: after twice as long each time.

    Examples
    --------
    >>> pause = Pause()
    >>> for now in (0.0, 1.0):
    ...     pause.failed(now, first_s=1.0, most_s=60.0)
    >>> pause.failures, pause.until
    (2, 3.0)
    """

    __slots__ = ("failures", "until")

    def __init__(self) -> None:
        self.failures, self.until = 0, -inf

    def failed(self, now: float, first_s: float, most_s: float = MOST_S) -> None:
        """Count a failure and wait."""
        self.until = now + min(first_s * 2.0 ** min(self.failures, 30), most_s)
        self.failures += 1


class Progress:
    """What one step has done so far.

    ``tried`` are actions that are over for this step, ``crowded`` adapters that may only lack room, ``evicted`` and
    ``loaded`` names in order, ``before`` the wanted ones that were there; ``stop`` ends the step.

    Examples
    --------
    >>> Progress(["a"]).before
    frozenset({'a'})
    """

    __slots__ = ("before", "crowded", "evicted", "loaded", "stop", "stubborn", "touched", "tried")

    def __init__(self, before: Iterable[str] = ()) -> None:
        self.before = frozenset(before)
        self.tried: set[Action] = set()
        self.crowded: set[str] = set()
        self.evicted: list[str] = []
        self.loaded: list[str] = []
        self.touched = self.stop = False
        self.stubborn = False  # an eviction failed: a load that lacked room is not to blame


class Adapters:
    """The adapters of one server: wanted, confirmed, to be dropped, and in a pause after failures.

    Examples
    --------
    >>> adapters = Adapters()
    >>> adapters.want(["b"], pinned=["a"])
    True
    >>> adapters.next(0.0, Progress(), Capabilities())
    Action(what='ensure', name='a')
    """

    __slots__ = (
        "actual", "asked", "desired", "doubtful", "forgotten", "known", "loading", "pauses", "perhaps_pinned",
        "pinned", "pins",
    )  # fmt: skip

    def __init__(self) -> None:
        # Dictionaries where the order in which names came matters.
        self.desired: dict[str, None] = {}
        self.pins: frozenset[str] = frozenset()
        self.actual: dict[str, None] = {}
        self.pinned: set[str] = set()  # at the server
        self.perhaps_pinned: set[str] = set()  # there: the answer is missing
        self.known: set[str] = set()  # ours: what else a server holds is left alone
        self.asked: set[str] = set()  # ever asked for: the server may have it, whatever it answered
        self.doubtful: set[str] = set()  # the answer to a load or an eviction is missing and nobody can tell
        self.forgotten: set[str] = set()  # to be dropped before a load under the same name
        self.loading: set[str] = set()  # by calls that were left behind
        self.pauses: dict[Action, Pause] = {}

    def want(self, names: Iterable[str], pinned: Iterable[str] = ()) -> bool:
        """Want these, the pinned ones first; whether that is news."""
        pins = frozenset(pinned)
        wanted = dict.fromkeys([*sorted(pins), *sorted(set(names) - pins)])
        news = wanted.keys() != self.desired.keys() or pins != self.pins
        self.desired, self.pins = wanted, pins
        self.known.update(wanted)
        return news

    def forget(self, name: str) -> None:
        """Want an adapter no more and have it dropped; its failures are forgiven."""
        self.desired.pop(name, None)
        self.pins -= {name}
        if name in self.asked or name in self.actual:
            self.forgotten.add(name)
        else:
            self.known.discard(name)
        for action in [action for action in self.pauses if action.name == name]:
            del self.pauses[action]

    def unpinned(self, name: str) -> None:
        """See that the server holds no pin of an adapter; what the pin stood in the way of is tried at once."""
        self.pinned.discard(name)
        self.perhaps_pinned.discard(name)
        for what in ("evict", "forget"):
            self.pauses.pop(Action(what, name), None)

    def dropped(self, name: str) -> None:
        """See that nothing of a forgotten adapter is left."""
        self.forgotten.discard(name)
        self.doubtful.discard(name)
        self.asked.discard(name)
        if name not in self.desired:
            self.known.discard(name)

    def follow(self, name: str, resident: bool) -> bool:
        """Take over what the server says; whether that is news."""
        if resident == (name in self.actual):
            return False
        if resident:
            self.actual[name] = None
        else:
            del self.actual[name]
            if name in self.pinned:  # the pin may be gone too, or wait by name for the adapter to come back
                self.pinned.discard(name)
                self.perhaps_pinned.add(name)
        return True

    def differences(self, states: Mapping[str, str]) -> list[tuple[str, bool]]:
        """Return what the server's own word changes, (name, resident) each."""
        gone = [name for name in self.actual if states.get(name, "disk") not in ("gpu", "unknown")]
        new = [
            n for n, state in states.items() if state == "gpu" and n in self.known and n not in self.actual
        ]
        return [*((name, False) for name in gone), *((name, True) for name in new)]

    def blocked(self, now: float) -> frozenset[str]:
        """Return what will not load now."""
        paused = (a.name for a, pause in self.pauses.items() if a.what == "ensure" and pause.until > now)
        return frozenset(name for name in (*paused, *self.loading) if name not in self.actual)

    def take_over(self, blocked: Mapping[str, tuple[int, float]], now: float) -> None:
        """Know of the failures that another worker had: how many, and seconds until the next try."""
        for name, (failures, wait_s) in blocked.items():
            pause = self.pauses.setdefault(Action("ensure", name), Pause())
            pause.failures, pause.until = max(pause.failures, failures), now + min(wait_s, MOST_S)

    def left(self, now: float) -> dict[str, tuple[int, float]]:
        """Return the failures of each adapter that will not load now, and the seconds until it is tried again."""
        found = {name: self.pauses.get(Action("ensure", name)) for name in self.blocked(now)}
        return {
            name: (0, 0.0) if pause is None else (pause.failures, max(0.0, pause.until - now))
            for name, pause in found.items()
        }

    def verify(self, did: Progress, now: float, retry_s: float) -> int:
        """Blame the loads of a step of which nothing is there, and what they displaced; returns how many."""
        lost = [n for n in {*did.loaded, *did.before} if n in self.desired and n not in self.actual]
        for name in lost:
            self.failed(Action("ensure", name), now, retry_s)
        if not lost:  # otherwise adapters that displace each other would each time seem to load well
            for name in did.loaded:
                self.pauses.pop(Action("ensure", name), None)
        return len(lost)

    def forgive(self) -> None:
        """Try again what did not load: the server is another one now."""
        for action in [action for action in self.pauses if action.what == "ensure"]:
            del self.pauses[action]

    def blame(
        self,
        action: Action,
        refused: bool,
        value: object,
        now: float,
        retry_s: float,
        observed: bool,
        did: Progress,
    ) -> bool:
        """Book a failure; False where the server holds what was wanted all the same: only the answer got lost.

        `refused`: the server answered, with `value`; otherwise it raised. `observed`: it has told since what is true.
        """
        what, name = action
        there = name in self.actual
        if what == "ensure" and there:
            did.loaded.append(name)
            return False
        gone = (what == "evict" and not there) or (what == "forget" and name not in self.forgotten)
        if gone and observed:
            return False
        if what == "ensure" and did.stubborn and refused:
            self.pauses.setdefault(action, Pause()).until = now + retry_s  # nobody made room for it
        else:
            pause = self.failed(action, now, retry_s)
            if not observed and pause.failures >= TRIES and value is False:
                self.doubtful.discard(name)
                if what == "forget":
                    self.dropped(name)
            elif not observed and (what == "evict" or (what == "ensure" and not refused)):
                self.doubtful.add(name)
        did.stubborn |= what == "evict"
        if what == "unpin" and value is False:
            self.unpinned(name)
        return True

    def failed(self, action: Action, now: float, first_s: float) -> Pause:
        """Pause an action."""
        pause = self.pauses.setdefault(action, Pause())
        pause.failed(now, first_s)
        return pause

    def retry_at(self) -> float:
        """Return when the first pause ends that something waits for; infinite where nothing does."""
        return min((p.until for action, p in self.pauses.items() if self._awaited(action)), default=inf)

    def _awaited(self, action: Action) -> bool:
        name = action.name
        if action.what == "ensure":
            return name in self.desired and name not in self.actual and name not in self.loading
        if action.what == "evict":
            return (name in self.actual or name in self.doubtful) and name not in self.desired
        if action.what == "unpin":
            return name not in self.pins and (name in self.pinned or name in self.perhaps_pinned)
        return name in (self.forgotten if action.what == "forget" else self.pins)

    def _ready(self, action: Action, now: float, did: Progress) -> bool:
        pause = self.pauses.get(action)
        return action not in did.tried and (pause is None or pause.until <= now)

    def next(self, now: float, did: Progress, able: Capabilities) -> Action | None:
        """Return what to do next; None where nothing is left that could be done now.

        Forgotten adapters go first and pins are put right. Then one adapter leaves for each that comes, and none for
        one that will not load: as many of those that are not wanted stay as wanted ones are stuck. An adapter that
        failed before is tried before anything leaves for it. What left for an adapter that then did not load is
        brought back.
        """
        for action in self._first():
            if self._ready(action, now, did) and (able.pin or action.what == "forget"):
                return action
        missing = [n for n in self.desired if n not in self.actual]
        loads = [Action("ensure", n) for n in missing if n not in self.forgotten and n not in self.loading]
        loads = [action for action in loads if self._ready(action, now, did)]
        leaving = self.evictable(now, did, able, stuck=len(missing) - len(loads))
        if not loads:
            return leaving[0] if leaving else self._brought_back(now, did)
        load = loads[0]
        full = len(self.actual) >= len(self.desired)
        if leaving and (load.name in did.crowded or (full and load not in self.pauses)):
            did.crowded.discard(load.name)
            return leaving[0]
        return load

    def _first(self) -> Iterable[Action]:
        yield from (Action("forget", name) for name in sorted(self.forgotten))
        yield from (Action("unpin", name) for name in sorted((self.pinned | self.perhaps_pinned) - self.pins))
        yield from (Action("pin", name) for name in sorted(self.pins - self.pinned) if name in self.actual)

    def evictable(
        self, now: float, did: Progress, able: Capabilities, stuck: int | None = None
    ) -> list[Action]:
        """Return the evictions that can be asked for, all but as many as there are `stuck` adapters."""
        if not able.unload:
            return []
        if stuck is None:
            stuck = len(self.blocked(now) & self.desired.keys() - self.actual.keys())
        surplus = [n for n in self.actual if n not in self.desired and n not in self.forgotten]
        unseen = sorted(self.doubtful - self.desired.keys() - self.forgotten)
        leaving = [Action("evict", n) for n in (*surplus[: max(0, len(surplus) - stuck)], *unseen)]
        return [action for action in leaving if self._ready(action, now, did)]

    def _brought_back(self, now: float, did: Progress) -> Action | None:
        if len(self.actual) >= len(self.desired):
            return None
        for name in reversed(did.evicted):
            action = Action("ensure", name)
            if name not in self.actual and name in self.known and self._ready(action, now, did):
                return action
        return None
