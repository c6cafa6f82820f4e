"""vLLM as a backend: adapters are registered at run time and loaded by requests."""

import re
from collections.abc import Collection
from contextlib import suppress
from operator import itemgetter

from banditroute.servers.displacing import DisplacingServer
from banditroute.servers.http import ServerError

__all__ = ["VLLMBackend"]

LOADED = re.compile(r"^vllm:lora_adapter_loaded\{(?P<labels>.*)\}\s+(?P<value>\S+)", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ACTIVITY = re.compile(r"^vllm:lora_requests_info\{(?P<labels>.*)\}\s+(?P<value>\S+)", re.MULTILINE)
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
    * Registering an adapter loads it at once, in the place of another one.
    * A request uses its adapter until its last token, so a long one keeps it on the GPU while shorter, later ones are
      displaced. The metric ``vllm:lora_requests_info`` names the adapters of running requests; each `observe` takes
      them as the last ones used.
    * Unloading is not eviction: the name goes, the weights keep their place until they are displaced. So `evict` does
      nothing, and `forget` unloads.
    * Nothing is loaded "in place": once asked to, the server reads the weights from disk at every later request.
    * A restart is noticed by names that are gone and by ``process_start_time_seconds``.
    * "Has already been loaded" is checked: the server must list the name, with the same path.

    Contract of vLLM 0.32, which ran behind it on the CPU.

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
            self.served(name)  # on the GPU now, whether a request follows or not
            return
        if answer.status != 400 or "already been loaded" not in answer.message:
            raise ServerError(f"loading {name!r}: {answer.status} {answer.message}")
        listed = self.listed()
        if name not in listed:
            raise ServerError(f"loading {name!r}: said to be loaded already, and is not listed")
        if listed[name] not in (None, self.paths[name]):  # somebody else's weights
            self.forget(name)
            answer = self.ask("POST", "/v1/load_lora_adapter", body, within_s=self.load_timeout_s)
            if answer.status != 200:
                raise ServerError(f"loading {name!r} anew: {answer.status} {answer.message}")
            self.served(name)

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

    def residency(self) -> Collection[str] | None:
        """Return the adapters on the GPU, where the metrics tell; notice a restart, and what runs now."""
        answer = self.ask("GET", "/metrics")
        if answer.status != 200:
            return None
        started = STARTED.search(answer.text)
        if started is not None:
            if self._started not in (None, started[1]):
                self.lost()
            self._started = started[1]
        loaded = _rows(LOADED, answer.text)
        if loaded:
            on_gpu = [labels for labels, value in loaded if labels.get("level") == "gpu" and value != 0.0]
            return {labels["adapter_name"] for labels in on_gpu if "adapter_name" in labels}
        activity = _rows(ACTIVITY, answer.text)  # a row for every combination there was; its value is when
        if activity:
            labels, _ = max(activity, key=itemgetter(1))
            for name in labels.get("running_lora_adapters", "").split(","):
                self.served(name)
        return None


def _rows(pattern: re.Pattern[str], text: str) -> list[tuple[dict[str, str], float]]:
    """Return labels and value of each row of a metric; a value that is no number is passed over."""
    rows = []
    for row in pattern.finditer(text):
        with suppress(ValueError):
            rows.append((dict(LABEL.findall(row["labels"])), float(row["value"])))
    return rows
