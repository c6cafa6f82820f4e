"""What a Router counts, and its clock."""

import logging
from collections import Counter
from collections.abc import Callable
from math import inf
from typing import NoReturn

from banditroute._core.typing import Clock

__all__ = ["Books"]

BARRED = -1.0
log = logging.getLogger("banditroute.router")


class Books:
    """Counters of a Router and the clock they go by; times are those of the clock plus an offset.

    ``index`` counts decisions made here and ``others`` those of other replicas: ``index + others`` is the index of the
    next decision on the common clock. ``heard`` counts those of others that the residency controller was shown,
    ``inserted`` faults whose load was an insertion.
    ``errors`` counts exceptions of terms and listeners by what raised them.

    Parameters
    ----------
    clock : callable
        Returns seconds.

    Examples
    --------
    >>> books = Books(lambda: 5.0)
    >>> books.offset = 2.0
    >>> books.now()
    7.0
    """

    COUNTERS = (
        "index", "others", "epoch", "hits", "learned", "dropped", "forced", "foreign", "load_price", "planned",
        "masked", "clock_errors", "spend", "heard", "inserted",
    )  # fmt: skip
    __slots__ = (*COUNTERS, "barred", "clock", "closed", "due", "errors", "offset", "time")

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.offset = 0.0  # router time less clock: time stands still between save and load
        self.time = 0.0  # the last one that was a number
        self.index = self.others = self.epoch = self.hits = 0
        self.learned = self.dropped = self.forced = self.foreign = 0
        self.planned = self.masked = self.clock_errors = self.heard = self.inserted = 0
        self.load_price = self.spend = 0.0
        self.errors: Counter[str] = Counter()
        self.due: float = 0.0  # index of the decision before which upkeep is looked at; `BARRED`: see `bar`
        self.barred = self.closed = False

    def now(self) -> float:
        """Return the time; where the clock gives no number, the last one that was."""
        now = self.clock() + self.offset
        if -inf < now < inf:
            self.time = now
            return now
        self.clock_errors += 1
        return self.time

    def bar(self) -> float:
        """Bar calls of the Router from here on: a term or a listener is being called. Returns what `unbar` needs."""
        due, self.due = self.due, BARRED
        self.barred = True
        return due

    def unbar(self, due: float) -> None:
        """End `bar`; whoever moved the upkeep meanwhile is heard."""
        self.barred = self.closed
        if self.due == BARRED and not self.closed:
            self.due = due

    def close(self) -> None:
        """Bar calls for good."""
        self.closed = self.barred = True
        self.due = BARRED

    def check_open(self) -> None:
        """Refuse what would be in no journal: the router was closed."""
        if self.closed:
            self.refuse()

    def refuse(self) -> NoReturn:
        """Raise what a barred call deserves."""
        if self.closed:
            raise ValueError("router must be open, got one that was closed")
        raise RuntimeError("a term or a listener must not call the router that calls it")

    def failed(self, who: str, error: BaseException) -> None:
        """Count an exception of a term or a listener, and log it once for each who and kind."""
        kind = f"{who}: {type(error).__name__}"
        if not self.errors[kind]:
            log.error(
                "%s raised %s: %s; the request stands", who, type(error).__name__, error, exc_info=error
            )
        self.errors[kind] += 1

    def guarded(self, who: str, call: Callable[..., object], *arguments: object) -> object:
        """Call a term or a listener; an exception is counted."""
        due = self.bar()
        try:
            return call(*arguments)
        except (Exception, SystemExit) as error:  # a plug-in does not end a service
            self.failed(who, error)
            return None
        finally:
            self.unbar(due)
