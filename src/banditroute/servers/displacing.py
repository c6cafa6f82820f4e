"""A server that loads adapters on demand and displaces the least recently used: what it holds, as far as is known."""

import threading
from collections import OrderedDict
from collections.abc import Collection, Mapping
from itertools import count

from banditroute._core import validation as check
from banditroute.records import Capabilities, State
from banditroute.servers.http import HttpServer, ServerError

__all__ = ["DisplacingServer"]

Changes = tuple[tuple[str, bool], ...]


class DisplacingServer(HttpServer):
    """Base of the backends of vLLM and SGLang: adapters are registered by name, and loaded by their first request.

    Which of them are on the GPU such a server does not tell; it follows from the order of requests, which is kept here:
    of those that the Router sends (`served`) and of the one-token requests by which adapters are loaded and kept. A
    subclass says how its server registers, lists and drops adapters. Where unloading frees no place
    (``capabilities.unload``), what was unloaded keeps its place in that order until others displace it.

    Parameters
    ----------
    url : str
        Of the server.
    paths : mapping of str to str
        Where the server finds the weights of each adapter.
    slots : int
        Adapters that the server keeps on the GPU.
    timeout_s, load_timeout_s : float
        Seconds that an answer, and a load, may take.
    api_key : str, optional
        Sent as a bearer token.

    Notes
    -----
    Requests that reach the server from elsewhere, or in another order, make the picture wrong until those adapters are
    asked for again. Where adapters are stated to be resident, they were at the last request that is known.
    """

    capabilities = Capabilities(unload=False, pin=False, displaces=True)

    def __init__(
        self,
        url: str,
        paths: Mapping[str, str],
        *,
        slots: int,
        timeout_s: float = 5.0,
        load_timeout_s: float = 60.0,
        api_key: str | None = None,
    ) -> None:
        super().__init__(url, timeout_s=timeout_s, api_key=api_key)
        if not isinstance(paths, Mapping) or not all(isinstance(path, str) for path in paths.values()):
            raise TypeError(f"paths must map names to paths, got {check.shown(paths)}")
        self.paths = dict(zip(check.names("paths", tuple(paths)), paths.values(), strict=True))
        self.slots = check.integer("slots", slots, low=1)
        self.load_timeout_s = check.finite("load_timeout_s", load_timeout_s, low=0.0, open_low=True)
        # On the GPU, the least recently used first; weights whose name was unloaded are a number.
        self._order: OrderedDict[str | int, None] = OrderedDict()
        self._registered: set[str] = set()
        self._numbers = count()
        self._own = threading.Lock()  # of these; never held during a call

    # What a subclass writes.

    def register(self, name: str) -> None:
        """Have the server know an adapter by its name; raises where that cannot be."""
        raise NotImplementedError

    def unregister(self, name: str) -> bool:
        """Have the server forget a name; False where it will not now."""
        raise NotImplementedError

    # What a backend is.

    def ensure(self, name: str) -> bool:
        """Register an adapter where that is needed, and load it by a request for one token."""
        self._known(name)
        with self._own:
            registered = name in self._registered
        if not registered:
            self.register(name)
        if not self.request(name):  # the server has lost it: it was restarted
            self.lost()
            self.register(name)
            if not self.request(name):
                raise ServerError(f"{name!r} is registered and not found")
        with self._own:
            self._registered.add(name)
        self.served(name)
        return True

    def evict(self, name: str) -> bool:
        """Nothing: such a server frees a place only for another adapter."""
        return False

    def touch(self, name: str) -> bool:
        """Make an adapter the last one used; False when it is not on the GPU, as far as is known."""
        self._known(name)
        with self._own:
            there = name in self._order
        if not there:
            return False
        if not self.request(name):
            self.lost()
            return False
        self.served(name)
        return True

    def observe(self) -> dict[str, State]:
        """Return where every adapter is: registered by the server's own word, on the GPU by the order of requests."""
        listed = self.listed()
        on_gpu = self.residency()
        with self._own:
            self._registered = {name for name in self.paths if name in listed}
            for name in self.paths.keys() - self._registered:
                self._unnamed(name)
            if on_gpu is not None:
                for old in [*self._order]:
                    if not isinstance(old, str) or old not in on_gpu:
                        del self._order[old]
                for name in on_gpu:
                    if name in self.paths:
                        self._order.setdefault(name)
            now = set(self._order)
        return {n: "gpu" if n in now else "host" if n in self._registered else "disk" for n in self.paths}

    def forget(self, name: str) -> bool:
        """Have the server drop an adapter, so that it reads the weights anew should the name come back."""
        self._known(name)
        dropped = self.unregister(name)
        if dropped:
            with self._own:
                self._registered.discard(name)
                self._unnamed(name)
        return dropped

    def served(self, name: str) -> Changes:
        """See a request sent to an adapter; returns what that changed on the GPU. No call is made."""
        if name not in self.paths:  # the base model, which takes no place
            return ()
        with self._own:
            if name in self._order:
                self._order.move_to_end(name)
                return ()
            gone = [self._order.popitem(last=False)[0] for _ in range(len(self._order) + 1 - self.slots)]
            self._order[name] = None
        return (*((other, False) for other in gone if isinstance(other, str)), (name, True))

    # What they share.

    def listed(self) -> dict[str, str | None]:
        """Return the names that the server lists as models, with the path of each where it tells."""
        answer = self.ask("GET", "/v1/models")
        rows = answer.data.get("data") if isinstance(answer.data, dict) else None
        if answer.status != 200 or not isinstance(rows, list):
            raise ServerError(f"GET /v1/models: {answer.status} {answer.message}")
        return {str(row["id"]): row.get("root") for row in rows if isinstance(row, dict) and "id" in row}

    def residency(self) -> Collection[str] | None:
        """Return the adapters on the GPU by the server's own word; None where it has none.

        A server that tells that it was restarted has the order cleared here.
        """
        return None

    def request(self, name: str) -> bool:
        """Ask an adapter for one token; False when the server does not know it."""
        body = {"model": name, "prompt": "a", "max_tokens": 1, "temperature": 0.0}
        answer = self.ask("POST", "/v1/completions", body, within_s=self.load_timeout_s)
        if answer.status == 404:
            return False
        if answer.status != 200 or not isinstance(answer.data, dict) or not answer.data.get("choices"):
            raise ServerError(f"a token of {name!r}: {answer.status} {answer.message}")
        if answer.data.get("model", name) != name:
            raise ServerError(f"a token of {name!r} came from {answer.data['model']!r}")
        return True

    def lost(self) -> None:
        """See that the server was restarted: nothing of it is as it was."""
        with self._own:
            self._order.clear()
            self._registered.clear()

    def _unnamed(self, name: str) -> None:
        """See a name that the server has forgotten; where that frees no place the weights keep theirs, nameless."""
        if self.capabilities.unload:
            self._order.pop(name, None)
        elif name in self._order:
            number = next(self._numbers)
            self._order = OrderedDict.fromkeys(number if n == name else n for n in self._order)

    def _known(self, name: str) -> None:
        if name not in self.paths:
            raise ValueError(f"name must be one of {sorted(self.paths)}, got {name!r}")
