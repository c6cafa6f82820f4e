"""SGLang as a backend, written after its source and not run against it."""

from banditroute.records import Capabilities
from banditroute.servers.displacing import DisplacingServer
from banditroute.servers.http import Answer, ServerError

__all__ = ["SGLangBackend"]


class SGLangBackend(DisplacingServer):
    """The adapters of one SGLang server; needs ``httpx``. A recipe: read from the source of 0.5.23, not run.

    Parameters
    ----------
    url : str
        Of the server, without ``/v1``; its ``--dp-size`` must be 1.
    paths : mapping of str to str
        Where the server finds the weights of each adapter.
    slots : int
        Its ``--max-loras-per-batch`` less one, for the base model counts there; with ``--lora-eviction-policy lru``.
    timeout_s, load_timeout_s : float
        Seconds that an answer, and a load, may take.
    api_key : str, optional
        Its ``--admin-api-key`` or ``--api-key``.

    Notes
    -----
    A load brings weights to host memory, the first request to the GPU; so `ensure` does both. Unloading frees, but
    waits for the requests under way and may have to be asked for again. Pins can be set only when loading, and are not.

    Examples
    --------
    >>> backend = SGLangBackend("http://127.0.0.1:30000", {"law": "/adapters/law"}, slots=7)
    >>> backend.capabilities.unload, backend.capabilities.pin
    (True, False)
    """

    capabilities = Capabilities(pin=False, displaces=True)

    def register(self, name: str) -> None:
        """Load an adapter into host memory under its name."""
        body = {"lora_name": name, "lora_path": self.paths[name], "pinned": False}
        answer = self.ask("POST", "/load_lora_adapter", body, within_s=self.load_timeout_s)
        if name not in _loaded(answer):
            raise ServerError(f"loading {name!r}: {answer.status} {_said(answer)}")

    def unregister(self, name: str) -> bool:
        """Unload an adapter; False where the server asks to try again."""
        answer = self.ask("POST", "/unload_lora_adapter", {"lora_name": name}, within_s=self.load_timeout_s)
        return name not in _loaded(answer) and (
            answer.data.get("success") is True or "incomplete" not in _said(answer)
        )

    def evict(self, name: str) -> bool:
        """Unload an adapter: here that does free its place."""
        return self.forget(name)


def _loaded(answer: Answer) -> set[str]:
    """Return the names that the server says are loaded; raises where it does not say."""
    data = answer.data
    if answer.status not in (200, 400) or not isinstance(data, dict) or "success" not in data:
        raise ServerError(f"the server answered {answer.status} {answer.message}")
    return set(data.get("loaded_adapters") or ())


def _said(answer: Answer) -> str:
    return str(answer.data.get("error_message") or answer.message)
