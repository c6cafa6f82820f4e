"""vLLM as a backend: adapters are registered at run time and loaded by requests."""

import re
from collections.abc import Iterable

from banditroute.servers.displacing import DisplacingServer
from banditroute.servers.http import ServerError

__all__ = ["VLLMBackend"]

LOADED = re.compile(r"^vllm:lora_adapter_loaded\{(?P<labels>.*)\}\s+(?P<value>\S+)", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
STARTED = re.compile(r"^process_start_time_seconds\s+(\S+)", re.MULTILINE)


class VLLMBackend(DisplacingServer):
    """The adapters of one vLLM server; needs ``httpx``.

    Start it with ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=1``, ``--enable-lora``, ``--max-loras`` at the slots given here and
    ``--max-cpu-loras`` at the number of adapters or more: otherwise what is displaced from the GPU is read from disk
    again.

    Parameters
    ----------
    url : str
        Of the server, without ``/v1``.
    paths : mapping of str to str
        Where the server finds the weights of each adapter: a folder on its disk, or what else it takes.
    slots : int
        Its ``--max-loras``. Give the controller one slot less where requests to adapters that are not resident go
        through: each of them takes one.
    timeout_s, load_timeout_s : float
        Seconds that an answer, and a load, may take.
    api_key : str, optional
        Its ``--api-key``.

    Notes
    -----
    * ``/v1/models`` lists what is registered, not what is on the GPU. That is kept as the order of requests (see
      `DisplacingServer`), and taken from the metric ``vllm:lora_adapter_loaded`` where the server has it.
    * Unloading is not eviction: the name goes, the weights stay until they are displaced. So `evict` does nothing, and
      `forget` unloads.
    * A restart is noticed by names that are gone and by ``process_start_time_seconds``.
    * "Has already been loaded" is checked: the server must list the name, with the same path.

    Contract of vLLM 0.32, tried on its CPU build.

    Examples
    --------
    >>> backend = VLLMBackend("http://127.0.0.1:8000", {"law": "/adapters/law", "code": "/adapters/code"}, slots=1)
    >>> backend.served("law"), backend.served("code")
    ((('law', True),), (('law', False), ('code', True)))
    """

    _started: str | None = None

    def register(self, name: str) -> None:
        """Load an adapter under its name, or see that it is loaded from the right place."""
        body = {"lora_name": name, "lora_path": self.paths[name], "load_inplace": False}
        answer = self.ask("POST", "/v1/load_lora_adapter", body, within_s=self.load_timeout_s)
        if answer.status == 200:
            return
        if answer.status != 400 or "already been loaded" not in answer.message:
            raise ServerError(f"loading {name!r}: {answer.status} {answer.message}")
        listed = self.listed()
        if name not in listed:
            raise ServerError(f"loading {name!r}: said to be loaded already, and is not listed")
        if listed[name] not in (None, self.paths[name]):  # somebody else's weights
            self.unregister(name)
            answer = self.ask("POST", "/v1/load_lora_adapter", body, within_s=self.load_timeout_s)
            if answer.status != 200:
                raise ServerError(f"loading {name!r} anew: {answer.status} {answer.message}")

    def unregister(self, name: str) -> bool:
        """Unload an adapter; also where it was not loaded."""
        answer = self.ask(
            "POST", "/v1/unload_lora_adapter", {"lora_name": name}, within_s=self.load_timeout_s
        )
        if answer.status not in (200, 404):
            raise ServerError(f"unloading {name!r}: {answer.status} {answer.message}")
        return True

    def lost(self) -> None:
        """See that the server was restarted; its new start is no news then."""
        super().lost()
        self._started = None

    def residency(self) -> Iterable[str] | None:
        """Return the adapters on the GPU, where the metrics tell; notice a restart."""
        answer = self.ask("GET", "/metrics")
        if answer.status != 200:
            return None
        started = STARTED.search(answer.text)
        if started is not None:
            if self._started not in (None, started[1]):
                self.lost()
            self._started = started[1]
        rows = [(dict(LABEL.findall(row["labels"])), row["value"]) for row in LOADED.finditer(answer.text)]
        if not rows:
            return None
        return {
            labels["adapter_name"]
            for labels, value in rows
            if labels.get("level") == "gpu" and "adapter_name" in labels and value not in ("0", "0.0")
        }
