"""Calls of a model server over HTTP, each within a time limit."""

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from banditroute._core import validation as check

if TYPE_CHECKING:
    import httpx

__all__ = ["Answer", "HttpServer", "ServerError"]


class ServerError(RuntimeError):
    """A model server refused a call, or answered what its contract does not know.

    Examples
    --------
    >>> issubclass(ServerError, RuntimeError)
    True
    """


class Answer(NamedTuple):
    """An answer: the status, the text, and the text as JSON, None where it is none.

    Examples
    --------
    >>> Answer(404, '{"error": {"message": "no such model"}}', {"error": {"message": "no such model"}}).message
    'no such model'
    """

    status: int
    text: str
    data: Any = None

    @property
    def message(self) -> str:
        """What the server said, for people."""
        error = self.data.get("error", self.data) if isinstance(self.data, dict) else None
        said = error.get("message") if isinstance(error, dict) else error
        return str(said) if said else self.text[:200]


class HttpServer:
    """One model server, asked over HTTP; needs ``httpx``.

    Safe under threads, and after a fork. Connections are kept until `close`, or the end of a ``with``.

    Parameters
    ----------
    url : str
        Where it is, such as ``http://127.0.0.1:8000``.
    timeout_s : float
        Seconds that it may take to answer.
    api_key : str, optional
        Sent as a bearer token.

    Examples
    --------
    >>> HttpServer("127.0.0.1:8000")
    Traceback (most recent call last):
    ValueError: url must start with http:// or https://, got '127.0.0.1:8000'
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, api_key: str | None = None) -> None:
        if not isinstance(url, str) or not url.startswith(("http://", "https://")):
            raise ValueError(f"url must start with http:// or https://, got {url!r}")
        self.url = url.rstrip("/")
        self.timeout_s = check.finite("timeout_s", timeout_s, low=0.0, open_low=True)
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._clients: dict[int, httpx.Client] = {}  # by process: connections cannot be shared with a child
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Show where it is."""
        return f"{type(self).__name__}({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | list[Any] | None = None,
        *,
        within_s: float | None = None,
    ) -> Answer:
        """Make one call.

        Raises
        ------
        OSError
            The server was not reached, broke off, or took too long (``TimeoutError``).
        """
        import httpx

        try:
            answer = self._client().request(
                method, self.url + path, json=body, timeout=self.timeout_s if within_s is None else within_s
            )
        except httpx.TimeoutException as error:
            raise TimeoutError(f"{method} {path}: no answer in time") from error
        except httpx.HTTPError as error:
            raise ConnectionError(f"{method} {path}: {error}") from error
        try:
            data = answer.json()
        except ValueError:  # text, or cut off
            data = None
        return Answer(answer.status_code, answer.text, data)

    def close(self) -> None:
        """Close the connections of this process."""
        with self._lock:
            client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    def _client(self) -> "httpx.Client":
        client = self._clients.get(os.getpid())
        if client is None:
            import httpx

            with self._lock:
                client = self._clients.setdefault(
                    os.getpid(), httpx.Client(headers=self._headers, trust_env=False)
                )
        return client
