"""llama.cpp's server as a backend: all adapters are resident, a field of each request chooses."""

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from banditroute._core import validation as check
from banditroute.records import Capabilities, State
from banditroute.servers.http import Answer, HttpServer, ServerError

__all__ = ["LlamaCppAdapters"]


class LlamaCppAdapters(HttpServer):
    """The adapters of one llama.cpp server, which are all loaded when it starts (``--lora``); needs ``httpx``.

    Parameters
    ----------
    url : str
        Of the server.
    files : mapping of str to str, or iterable of str
        The file of each adapter as the server was given it, or the part of its path that is its own; names alone mean
        ``NAME.gguf``.
    timeout_s : float
        Seconds that an answer may take.
    api_key : str, optional
        Its ``--api-key``.

    Notes
    -----
    Nothing can be loaded or unloaded at run time: this is for routing, with `Static` over all arms or without a
    controller. The server says "success" whatever id it is given, so names are looked up in what it lists: at first,
    after a call that failed, and whenever it is asked what it holds. Ids are places in the list of ``--lora``: keep its
    order when you start the server again, or a restart that no call noticed has another adapter answer until then.

    Contract of the server in xllamacpp, tried.

    Examples
    --------
    >>> backend = LlamaCppAdapters("http://127.0.0.1:8080", ["law", "code"])
    >>> backend.capabilities.load, backend.capabilities.observe
    (False, True)
    """

    capabilities = Capabilities(load=False, unload=False, pin=False, touch=False)

    def __init__(
        self,
        url: str,
        files: Mapping[str, str] | Iterable[str],
        *,
        timeout_s: float = 5.0,
        api_key: str | None = None,
    ) -> None:
        super().__init__(url, timeout_s=timeout_s, api_key=api_key)
        given = dict(files) if isinstance(files, Mapping) else {name: f"{name}.gguf" for name in files}
        self.files = dict(zip(check.names("files", tuple(given)), given.values(), strict=True))
        self._ids: dict[str, int] = {}
        self._every: list[int] = []

    def field(self, name: str | None) -> list[dict[str, float]]:
        """Return the field ``lora`` of a request that one adapter shall serve, or the base model for None.

        It names every adapter: for an empty list the server takes the scales that it has by default. Raises
        ``ServerError`` where the server has no such adapter; asks it the first time only.
        """
        if not self._every or (name is not None and name not in self._ids):
            self._look()
        if name is not None and name not in self._ids:
            raise ServerError(f"the server lists no adapter {self._file(name)!r}")
        own = None if name is None else self._ids[name]
        return [{"id": every, "scale": 1.0 if every == own else 0.0} for every in self._every]

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | list[Any] | None = None,
        *,
        within_s: float | None = None,
    ) -> Answer:
        """Make one call, as `HttpServer.ask` does; where it fails, ids are looked up anew before the next."""
        try:
            return super().ask(method, path, body, within_s=within_s)
        except OSError:
            self._ids, self._every = {}, []  # started anew, the server may have its adapters in another order
            raise

    def ensure(self, name: str) -> bool:
        """Whether the server has the adapter, by its own list."""
        self._file(name)
        self._look()
        return name in self._ids

    def evict(self, name: str) -> bool:
        """Nothing: what is loaded stays."""
        return False

    def observe(self) -> dict[str, State]:
        """Return where every adapter is: on the GPU where it is listed."""
        self._look()
        return {name: "gpu" if name in self._ids else "disk" for name in self.files}

    def choose(self, name: str | None) -> None:
        """Make one adapter serve all requests without a field of their own, or none for None; read back afterwards.

        Raises ``ServerError`` where it does not come about.
        """
        wanted = self.field(name)
        self.ask("POST", "/lora-adapters", wanted)
        rows = self._rows()
        scales = {row["id"]: float(str(row["scale"])) for row in rows}
        if scales != {row["id"]: row["scale"] for row in wanted}:
            raise ServerError(f"choosing {name!r}: the server has scales {scales}")

    def _file(self, name: str) -> str:
        if name not in self.files:
            raise ValueError(f"name must be one of {sorted(self.files)}, got {name!r}")
        return self.files[name]

    def _rows(self) -> list[dict[str, object]]:
        answer = self.ask("GET", "/lora-adapters")
        rows = answer.data
        if answer.status != 200 or not isinstance(rows, list):
            raise ServerError(f"GET /lora-adapters: {answer.status} {answer.message}")
        if not all(isinstance(row, dict) and {"id", "path", "scale"} <= row.keys() for row in rows):
            raise ServerError(f"GET /lora-adapters: rows without id, path and scale, {check.shown(rows)}")
        return rows

    def _look(self) -> None:
        """Take the ids from the server's list: a path that ends in the parts of an adapter's file is that adapter."""
        ids: dict[str, int] = {}
        every = []
        for row in self._rows():
            every.append(int(str(row["id"])))
            parts = PurePath(str(row["path"])).parts
            for name, file in self.files.items():
                own = PurePath(file).parts
                if parts[len(parts) - len(own) :] == own:
                    ids[name] = every[-1]
        self._ids, self._every = ids, every
