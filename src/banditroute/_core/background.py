"""The one runner of background threads: whatever a round raises is counted and logged, and the thread lives on."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

__all__ = ["Background"]

LONGEST_S = 30.0  # between rounds that fail, however often


class Background:
    """A thread that calls `work` every `period_s`, or when woken, until it is closed.

    Any exception, ``SystemExit`` included, is counted by kind, logged once per kind, and followed by a pause that
    doubles while rounds fail. The thread is a daemon: it keeps no process alive.

    Parameters
    ----------
    name : str
        Of the thread and in the log.
    work : callable
        One round; called from the thread only.
    period_s : float, optional
        Seconds between rounds; None runs only when woken.
    log : logging.Logger
        Where errors go.

    Examples
    --------
    >>> done = threading.Event()
    >>> runner = Background("example", done.set)
    >>> runner.start()
    >>> runner.wake()
    >>> done.wait(5.0), runner.close(timeout_s=5.0)
    (True, True)
    """

    __slots__ = (
        "_closing",
        "_event",
        "_failed",
        "_log",
        "_period_s",
        "_thread",
        "_work",
        "errors",
        "name",
    )

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        *,
        period_s: float | None = None,
        log: logging.Logger | None = None,
    ) -> None:
        self.name = name
        self.errors: Counter[str] = Counter()  # by kind of exception
        self._work, self._period_s = work, period_s
        self._log = logging.getLogger("banditroute") if log is None else log
        self._event = threading.Event()
        self._closing = False
        self._failed = 0  # rounds in a row
        self._thread: threading.Thread | None = None

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread, once; after a fork, in the child, it can be started anew."""
        if not self.alive and not self._closing:
            self._thread = threading.Thread(target=self._run, name=f"banditroute-{self.name}", daemon=True)
            self._thread.start()

    def wake(self) -> None:
        """Have a round made now, or as soon as the one under way is over; from any thread."""
        self._event.set()

    def close(self, timeout_s: float = 5.0) -> bool:
        """End the thread after the round it is at; False when that takes longer than `timeout_s`."""
        self._closing = True
        self._event.set()
        thread = self._thread
        if thread is None or thread is threading.current_thread() or not thread.is_alive():
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def guard(self, work: Callable[[], object]) -> bool:
        """Call `work` as a round of the thread would be called; False when it raised, which was counted."""
        try:
            work()
        except BaseException as error:  # SystemExit too: a thread that ends in silence serves nobody
            kind = type(error).__name__
            if not self.errors[kind]:
                self._log.error("%s: %s: %s", self.name, kind, error, exc_info=error)
            self.errors[kind] += 1
            return False
        return True

    def _run(self) -> None:
        while True:
            woken = self._event.wait(self._pause_s())
            self._event.clear()
            if self._closing:
                return
            if woken and self._failed and self._period_s is None:
                time.sleep(
                    min(0.01 * 2.0 ** min(self._failed, 10), 1.0)
                )  # woken again and again by what fails
            self._failed = 0 if self.guard(self._work) else self._failed + 1

    def _pause_s(self) -> float | None:
        if self._period_s is None:
            return None
        return min(self._period_s * 2.0 ** min(self._failed, 10), max(LONGEST_S, self._period_s))
