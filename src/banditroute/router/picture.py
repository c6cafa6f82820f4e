"""What a server is known to hold, and who is told of changes."""

import threading
from collections.abc import Callable, Iterable

from banditroute.records import AdapterBackend
from banditroute.router.adapters import Adapters
from banditroute.router.conversation import Conversation

__all__ = ["Picture"]


class Picture:
    """Takes over what the server said, or what follows from requests where it displaces, and confirms what changed.

    Parameters
    ----------
    backend : AdapterBackend
    adapters : Adapters
        Changed under `lock`.
    confirm : callable
        ``confirm(name, resident)``; called without the lock.
    server : Conversation
        Counts.

    Examples
    --------
    >>> class Mine:
    ...     def ensure(self, name): return True
    ...     def evict(self, name): return True
    >>> picture = Picture(Mine(), Adapters(), print, Conversation(Mine(), 1.0))
    >>> picture.change("a", True), picture.change("a", True)
    a True
    (True, False)
    """

    __slots__ = ("_adapters", "_backend", "_confirm", "_server", "lock")

    def __init__(
        self,
        backend: AdapterBackend,
        adapters: Adapters,
        confirm: Callable[[str, bool], object],
        server: Conversation,
    ) -> None:
        self._backend, self._adapters, self._confirm, self._server = backend, adapters, confirm, server
        self.lock = threading.Lock()

    def change(self, name: str, resident: bool) -> bool:
        """Believe it; whether that is news."""
        return bool(self._believed(((name, resident),)))

    def _believed(self, changes: Iterable[tuple[str, bool]]) -> list[tuple[str, bool]]:
        """Believe several things, and confirm those that are news, which are returned."""
        with self.lock:
            news = [change for change in changes if self._adapters.follow(*change)]
            if news:
                self._server.counts["changes"] += len(news)
        for name, resident in news:
            self.tell(name, resident)
        return news

    def tell(self, name: str, resident: bool) -> None:
        """Confirm it; whatever that raises is counted."""
        try:
            self._confirm(name, resident)
        except (Exception, SystemExit) as error:
            self._server.note("confirm", error)

    def served(self, name: str) -> None:
        """See a request sent to an adapter at a server that displaces."""
        follow = getattr(self._backend, "served", None)
        if follow is None:
            return
        try:
            changes = follow(name)
            if changes:  # on the path of every request: most change nothing
                self._server.counts["loads"] += sum(resident for _, resident in self._believed(changes))
        except (Exception, SystemExit) as error:
            self._server.note("served", error)

    def followed(self, names: Iterable[str]) -> None:
        """See requests that others sent, in this order: what is left of it in the end is confirmed."""
        follow = getattr(self._backend, "served", None)
        if follow is None:
            return
        net: dict[str, bool] = {}
        try:
            for name in names:
                net.update(follow(name))
        except (Exception, SystemExit) as error:
            self._server.note("served", error)
        self._believed(net.items())
