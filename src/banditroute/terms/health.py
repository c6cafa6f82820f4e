"""The health of arms: what fails is taken out at once, tried again after a while, and its requests rerouted."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from math import inf
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Arrays, Floats, Header, Mask
from banditroute.policies.base import LARGEST
from banditroute.records import Decision, Feedback, Request, TermHost
from banditroute.terms.base import Asked, BaseTerm

__all__ = ["ArmHealth"]

State = Literal["up", "degraded", "down"]
STATES = ("up", "degraded", "down")
LONGEST = 16.0  # a cool-down grows to so many times the first


class _Arm:
    """What is known of one arm: its state, failures in a row, and when it may be tried again."""

    __slots__ = ("cooldown_s", "failures", "probes", "since", "state")

    def __init__(
        self,
        state: str = "up",
        failures: int = 0,
        since: float = 0.0,
        cooldown_s: float = inf,
        probes: int = 0,
    ) -> None:
        self.state, self.failures = state, failures
        self.since, self.cooldown_s = since, cooldown_s  # down since; infinite where marked down from outside
        self.probes = probes  # requests on trial

    def plain(self) -> list[Any]:
        return [
            self.state,
            self.failures,
            self.since,
            None if self.cooldown_s == inf else self.cooldown_s,
            self.probes,
        ]


class ArmHealth(BaseTerm):
    """Which arms are up, degraded or down; takes them out of the choice at once and counts every reroute.

    A degraded arm costs `penalty`, an arm that is down is closed. Mark arms from outside (`mark`), or let outcomes of
    calls decide (`report`, or ``failed`` of a Router's `update`): after `limits` failures in a row an arm is degraded,
    then down. An arm that failures took down is tried again after `cooldown_s`: one request at a time may go there,
    an answer brings it up, a failure doubles the wait. What `mark` took down stays down until it is marked again.

    Parameters
    ----------
    arms : int, sequence of str or Router, optional
        Arms, where the term is used by hand; a Router takes the term up. ``Router(policy, terms=[ArmHealth()])`` is the
        same in one go.
    penalty : float
        Price of a degraded arm, reward units.
    limits : (int, int)
        Failures in a row for degraded and for down.
    cooldown_s : float
        Seconds, on the clock of the decisions, until an arm that failures took down is tried again; ``inf`` for never.
        Doubles with each trial that fails, up to 16 times as long.

    Notes
    -----
    A failed call is not a low reward: tell it with ``update(id, reward, failed=True)`` or `report`, not both, and
    `reroute` or cancel the decision. An arm that comes back with other qualities is relearned with ``fresh=True``.
    The trial is the half-open state of a circuit breaker (Nygard, *Release It!*, 2007). When failures have taken down
    every arm all of them are open again, as in Envoy's panic mode: refusing everything would be no better. O(1) a
    request while all are up, O(k) otherwise.

    Examples
    --------
    >>> health = ArmHealth(["a", "b"], limits=(1, 2))
    >>> health.report("b", served=False), health.report("b", served=False)
    ('degraded', 'down')
    >>> health.eligible()
    array([ True, False])
    >>> health
    ArmHealth(arms=2, degraded=[], down=['b'], reroutes=0)
    """

    name = "health"

    def __init__(
        self,
        arms: int | Iterable[str] | TermHost | None = None,
        *,
        penalty: float = 0.1,
        limits: tuple[int, int] = (2, 5),
        cooldown_s: float = 30.0,
    ) -> None:
        host: Any = arms if hasattr(arms, "add_term") else None
        super().__init__(arms if host is None else None)  # type: ignore[arg-type]
        self.penalty = check.finite("penalty", penalty, low=0.0, high=LARGEST)
        first = check.integer("limits", limits[0], low=1)
        self.limits = (first, check.integer("limits", limits[1], low=first))
        self.cooldown_s = (
            inf if cooldown_s == inf else check.finite("cooldown_s", cooldown_s, low=0.0, open_low=True)
        )
        self._known: dict[str, _Arm] = {}  # those of which there is something to know
        self._time = 0.0  # of the last decision seen
        self._next = inf  # when an arm may be tried again
        self.reroutes: Counter[str] = Counter()  # requests taken away from each arm
        self._owner: TermHost | None = host  # kept alive by whoever made the term for it
        if host is not None:
            host.add_term(self)

    def shown(self) -> str:
        """Return what `repr` tells of the state."""
        degraded, down = ([a for a in self.arms if self.state(a) == state] for state in STATES[1:])
        return f"arms={len(self.arms)}, {degraded=}, {down=}, reroutes={self.reroutes.total()}"

    # What is known.

    def state(self, arm: str) -> State:
        """Return the state of an arm."""
        known = self._known.get(self.arms[self.index(arm)])
        return "up" if known is None else known.state  # type: ignore[return-value]

    def reason(self, arm: str) -> str:
        """Return the state of an arm."""
        return self.state(arm)

    def eligible(self, request: Asked = None) -> Mask:
        """Return the arms that may serve, (k,): those that are not down, and those that are due for a trial."""
        mask = np.array([self._open(self._known.get(arm)) for arm in self.arms], dtype=np.bool_)
        if not mask.any() and self.arms:
            failing = [arm in self._known and self._known[arm].cooldown_s < inf for arm in self.arms]
            mask = np.array(failing, dtype=np.bool_)
        return mask

    def _open(self, known: _Arm | None) -> bool:
        if known is None or known.state != "down":
            return True
        return known.probes == 0 and self._time >= known.since + known.cooldown_s

    def prices(self, request: Asked = None, *, weights: Mapping[str, float] | None = None) -> Floats:
        """Return `penalty` for degraded arms and 0 for others, (k,)."""
        degraded = [arm in self._known and self._known[arm].state == "degraded" for arm in self.arms]
        return self.penalty * np.array(degraded, dtype=np.float64)

    # What is told.

    def mark(self, arm: str, state: State, *, fresh: bool = False) -> None:
        """Set the state of an arm, from any thread; with `fresh` what was learned about it is forgotten.

        Raises
        ------
        UnknownArm, ValueError
            Nothing changed.
        """
        name = self.arms[self.index(arm)]
        if state not in STATES:
            raise ValueError(f"state must be 'up', 'degraded' or 'down', got {state!r}")
        host = self._host("fresh=True") if fresh else None
        self.tell({"arm": name, "state": state})
        if host is not None:
            host.forget_arm(name)

    def report(self, arm: str, served: bool) -> State:
        """Count the outcome of a call (not its quality), from any thread; returns the state that follows from it."""
        name = self.arms[self.index(arm)]
        self.tell({"arm": name, "served": bool(served)})
        return self.state(name)

    def replay_mark(self, details: Mapping[str, Any]) -> None:
        """Let a mark or an outcome that was told take effect."""
        arm = str(details["arm"])
        if arm not in self.arms:
            return
        if "rerouted" in details:
            self.reroutes[arm] += 1
        elif "served" in details:
            self._outcome(arm, bool(details["served"]))
        else:
            state = details["state"]
            if state not in STATES:
                raise ValueError(f"state must be 'up', 'degraded' or 'down', got {state!r}")
            known = self._known.setdefault(arm, _Arm())
            known.state, known.since, known.cooldown_s, known.probes = state, self._time, inf, 0
            if state == "up":
                del self._known[arm]
            self._changed()

    def _outcome(self, arm: str, served: bool) -> None:
        known = self._known.get(arm)
        if served:
            if known is not None and known.state == "down":
                known.failures = 0  # a straggler: only a trial or a mark brings it back
            elif known is not None:
                del self._known[arm]
                self._changed()
            return
        known = self._known.setdefault(arm, _Arm())
        known.failures += 1
        if known.failures >= self.limits[1] and known.state != "down":
            known.state, known.since, known.cooldown_s = "down", self._time, self.cooldown_s
        elif known.failures >= self.limits[0] and known.state == "up":
            known.state = "degraded"
        self._changed()

    def _changed(self) -> None:
        waiting = [a.since + a.cooldown_s for a in self._known.values() if a.state == "down" and not a.probes]
        self._next = min((due for due in waiting if due > self._time), default=inf)
        self.ring()

    # What happens.

    def reserve(self, arm: int | str, request: Asked = None, /) -> bool | None:
        """See the time of a decision; returns True where the request is the trial of an arm that is down."""
        if not self._known:
            if isinstance(request, Request):
                self._time = request.time
            return None
        self._seen(request)
        known = self._known.get(self.arms[self.index(arm)])
        if known is None or known.state != "down" or known.cooldown_s == inf:
            return None
        known.probes += 1
        self._changed()
        return True

    def _seen(self, request: Asked) -> None:
        if not isinstance(request, Request):
            return
        if request.time < self._time:  # the clock was put back: nobody has been down since the future
            for known in self._known.values():
                known.since = min(known.since, request.time)
            self._next = request.time
        self._time = request.time
        if self._time >= self._next:
            self._changed()

    def settle(self, arm: int | str, held: bool | None, feedback: Feedback, /) -> None:
        """Learn whether the call was served."""
        at = self.position(arm)
        if at is None:
            return
        name = self.arms[at]
        known = self._known.get(name)
        if held and known is not None and known.state == "down" and known.cooldown_s < inf:
            if feedback.failed:
                known.probes = max(0, known.probes - 1)
                known.since, known.failures = self._time, known.failures + 1
                known.cooldown_s = min(2.0 * known.cooldown_s, LONGEST * self.cooldown_s)
            else:
                del self._known[name]
            self._changed()
        elif feedback.failed or known is not None:
            self._outcome(name, not feedback.failed)

    def release(self, arm: int | str, held: bool | None = None, /) -> None:
        """See a trial that nobody answered: the arm waits as long as before."""
        at = self.position(arm)
        known = None if at is None or not held else self._known.get(self.arms[at])
        if known is not None and known.state == "down":
            known.probes = max(0, known.probes - 1)
            known.since = self._time
            self._changed()

    def reroute(
        self,
        decision: Decision,
        x: ArrayLike,
        *,
        without: Iterable[str] = (),
        eligible: Collection[str] | Mapping[str, bool] | ArrayLike | None = None,
        **options: Any,
    ) -> Decision:
        """Choose anew for a request whose arm failed, at once; the failed decision is cancelled, and counted.

        Parameters
        ----------
        decision : Decision
            The one that failed. It teaches nothing and gives up its budget and its place in the queue.
        x : (dim,) array
            Its context.
        without : sequence of str
            Further arms that failed on this request.
        eligible : set of str, mapping of str to bool or (k,) bool array, optional
            Arms allowed for this request, if not all.
        **options
            As in ``router.select``.

        Raises
        ------
        ValueError
            No other arm is left; nothing changed.
        """
        host = self._host("reroute")
        failed = {decision.arm, *without}
        if eligible is None:
            allowed: Iterable[str] = self.arms
        elif isinstance(eligible, Mapping):
            allowed = [arm for arm, may in eligible.items() if may]
        elif isinstance(eligible, np.ndarray):
            mask = eligible.astype(np.bool_).tolist()
            allowed = [arm for arm, may in zip(self.arms, mask, strict=True) if may]
        else:
            allowed = list(eligible)  # type: ignore[arg-type]
            if not all(isinstance(arm, str) for arm in allowed):  # a mask as a list
                allowed = [arm for arm, may in zip(self.arms, allowed, strict=True) if may]
        left = frozenset(arm for arm in allowed if arm not in failed)
        if not left:
            raise ValueError(
                f"eligible must leave an arm that has not failed, got none beside {sorted(failed)}"
            )
        again = host.select(x, eligible=left, **options)
        host.cancel(decision.id)
        if decision.arm in self.arms:
            self.tell({"arm": decision.arm, "rerouted": True})
        return again

    def host(self) -> TermHost | None:
        """Return the Router that this term belongs to, None by hand."""
        bound = super().host()
        return self._owner if bound is None else bound

    def _host(self, what: str) -> TermHost:
        host = self.host()
        if host is None:
            raise ValueError(f"{what} must have a Router that this term belongs to, got none")
        return host

    def forget(self, name: str) -> None:
        """Forget an arm: a later one of that name starts up and without failures."""
        self._known.pop(name, None)
        self.reroutes.pop(name, None)
        self._changed()

    # State.

    def to_state(self) -> tuple[Header, Arrays]:
        """Return everything needed to continue; penalty, limits and cool-down are settings, not state."""
        header, arrays = super().to_state()
        known = {arm: known.plain() for arm, known in self._known.items()}
        return header | {"known": known, "time": self._time, "reroutes": dict(self.reroutes)}, arrays

    def load_state(self, header: Header, arrays: Arrays) -> None:
        """Continue from `to_state`."""
        arms = self.kept_arms(header)
        known = {}
        for arm, (state, failures, since, cooldown_s, probes) in check.entry(
            "header", header, "known"
        ).items():
            if state not in STATES or arm not in arms:
                raise ValueError(f"known must be states of arms, got {check.shown((arm, state))}")
            known[arm] = _Arm(
                state,
                check.integer("failures", failures),
                check.finite("since", since),
                inf if cooldown_s is None else check.finite("cooldown_s", cooldown_s, low=0.0),
                check.integer("probes", probes),
            )
        time = check.finite("time", check.entry("header", header, "time"))
        reroutes = check.entry("header", header, "reroutes")
        counts = Counter({str(arm): check.integer("reroutes", n) for arm, n in reroutes.items()})
        super().load_state(header, arrays)
        self._known, self._time, self.reroutes = known, time, counts
        self._changed()
