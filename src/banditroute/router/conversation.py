"""Talking to a backend: every call in its own guard and time limit, every failure counted and logged once per kind."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, get_args

from banditroute._core import validation as check
from banditroute._core.calls import LimitedCalls, Outcome
from banditroute.records import AdapterBackend, Capabilities, State

__all__ = ["Conversation"]

STATES = frozenset(get_args(State))
COUNTS = (
    "loads", "load_failures", "evictions", "eviction_failures", "pin_failures", "touch_failures", "observations",
    "observation_failures", "timeouts",
)  # fmt: skip


class Conversation:
    """Calls of one backend.

    Parameters
    ----------
    backend : AdapterBackend
    timeout_s : float
        Real seconds after which a call is left behind.
    log : logging.Logger, optional

    Examples
    --------
    >>> class Mine:
    ...     def ensure(self, name): return True
    ...     def evict(self, name): return True
    >>> server = Conversation(Mine(), 5.0)
    >>> server.run(lambda: 3).value, server.capabilities().observe
    (3, False)
    """

    def __init__(self, backend: AdapterBackend, timeout_s: float, log: logging.Logger | None = None) -> None:
        self.backend, self.timeout_s = backend, timeout_s
        self.log = logging.getLogger("banditroute") if log is None else log
        self.counts: Counter[str] = Counter()
        self.able: Capabilities | None = None  # not known before it was asked
        self.begin()

    def begin(self) -> None:
        """Start with threads of its own, as in the child of a fork."""
        self._calls = LimitedCalls("backend", log=self.log)

    def run(self, work: Callable[[], object], late: Callable[[Outcome], None] | None = None) -> Outcome:
        """Make a call within the time limit; `late` gets the answer of one that was left behind."""
        return self._calls.run(work, self.timeout_s, late)

    def capabilities(self) -> Capabilities:
        """Return what the backend says that it can, as far as it has the methods for it."""
        if self.able is None:
            outcome = self.run(lambda: getattr(self.backend, "capabilities", None))
            if outcome.error is not None:
                self.note("capabilities", outcome.error)
            said = outcome.value if isinstance(outcome.value, Capabilities) else Capabilities()
            has = {
                name: getattr(said, name) and callable(getattr(self.backend, name, None))
                for name in ("pin", "touch", "observe")
            }
            self.able = said._replace(**has)
        return self.able

    def observe(self) -> dict[str, str] | None:
        """Return where the backend says that every adapter is; None, and counted, where it does not say."""
        backend: Any = self.backend
        outcome = self.run(lambda: backend.observe())
        error, states = outcome.error, outcome.value
        if (
            error is None
            and isinstance(states, Mapping)
            and all(state in STATES for state in states.values())
        ):
            return dict(states)
        if error is None:
            error = TypeError(
                f"observe must return names and one of {sorted(STATES)}, got {check.shown(states)}"
            )
        self.counts["observation_failures"] += 1
        self.note("observe", error)
        return None

    def note(self, what: str, error: BaseException) -> None:
        """Count a failure, and log the first of its kind."""
        kind = f"{what}: {type(error).__name__}"
        if isinstance(error, TimeoutError):
            self.counts["timeouts"] += 1
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            self.log.warning("backend, %s: %s (further ones are counted)", kind, error, exc_info=error)

    def counted(self) -> dict[str, int]:
        """Return what was done and what failed."""
        return {name: self.counts[name] for name in COUNTS}

    @property
    def hanging(self) -> int:
        """Calls that were left behind and have not returned."""
        return self._calls.hanging

    def rest(self) -> None:
        """Keep no thread without need."""
        self._calls.rest()

    def close(self) -> None:
        """Make no calls any more; one that hangs is left behind."""
        self._calls.close()
