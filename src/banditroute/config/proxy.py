"""The door as LiteLLM's proxy loads it: ``callbacks: banditroute.config.proxy.door`` in the proxy's YAML.

The environment variable ``BANDITROUTE_CONFIG`` names the configuration file of the Router, whose table ``litellm`` says
what the door needs beside it. The proxy gets ``POST /banditroute/feedback`` and ``/banditroute/cancel`` and
``GET /banditroute/metrics``, guarded by its own keys; ``BANDITROUTE_METRICS`` names a directory where several workers
put their numbers together.
"""

import asyncio
import atexit
import os
import sys
from collections.abc import Awaitable, Callable
from functools import cache, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from banditroute.config.files import ConfigError, check_config
from banditroute.config.workers import worker_router

if TYPE_CHECKING:
    from fastapi import FastAPI

    from banditroute.servers.litellm import LiteLLMDoor

__all__ = ["add_routes", "make_door"]


def __getattr__(name: str) -> "LiteLLMDoor":
    if name != "door":
        raise AttributeError(name)
    return _door()


@cache
def _door() -> "LiteLLMDoor":
    config = os.environ.get("BANDITROUTE_CONFIG")
    if not config:
        raise ConfigError("BANDITROUTE_CONFIG must name the configuration file of the Router, got nothing")
    door = make_door(config, int(os.environ.get("BANDITROUTE_WORKERS", "1")))
    atexit.register(door.router.close)
    from litellm.proxy import proxy_server

    metrics = os.environ.get("BANDITROUTE_METRICS") or None
    end = add_routes(proxy_server.app, door, proxy_server.user_api_key_auth, metrics=metrics)
    # A server that SIGTERM ended kills itself with it once more, and nothing registered at exit runs. The application
    # is running when the door is loaded, so its lifespan can be joined no more; this is what its end calls.
    proxy_server.proxy_shutdown_event = _then(proxy_server.proxy_shutdown_event, end, door.router.close)
    return door


def _then(end: Callable[..., Awaitable[None]], *calls: Callable[[], None]) -> Callable[..., Awaitable[None]]:
    """Return the end of the proxy, after which the Router writes and publishes what it holds."""

    async def ended(*given: Any, **options: Any) -> None:
        try:
            await end(*given, **options)
        finally:
            for call in calls:
                await asyncio.to_thread(call)

    return ended


def make_door(config: str | os.PathLike[str], workers: int = 1) -> "LiteLLMDoor":
    """Return the door that a configuration file describes.

    Parameters
    ----------
    config : path
    workers : int
        Processes that the proxy runs; as for `worker_router`.

    Raises
    ------
    ConfigError
        Names file, key, rule and value.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> text = '{"policy": {"kind": "LinUCB", "arms": ["a", "b"], "dim": 1}, "litellm": {"failure": -1.0}}'
    >>> with tempfile.TemporaryDirectory() as home:
    ...     file = Path(home, "config.json")
    ...     done = file.write_text(text)
    ...     make_door(file).failure
    -1.0
    """
    from banditroute.servers.litellm import LiteLLMDoor

    options = check_config(config).model_dump().get("litellm") or {}
    found = {key: _function(config, key, options.get(key)) for key in ("context", "reward")}
    router = worker_router(config, workers)
    try:
        return LiteLLMDoor(router, failure=options.get("failure"), **found)
    except (ValueError, TypeError) as error:
        router.close()
        raise ConfigError(f"{config}: litellm: {error}") from error


def _function(config: str | os.PathLike[str], key: str, name: str | None) -> Any:
    if name is None:
        return None
    module, _, function = name.partition(":")
    beside = str(Path(config).resolve().parent)  # where LiteLLM, too, looks for what its file names
    if beside not in sys.path:
        sys.path.append(beside)
    try:
        return getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{config}: litellm.{key}: must be module:function, got {name!r}: {error}"
        ) from error


def add_routes(
    app: "FastAPI", door: "LiteLLMDoor", guard: Any, *, metrics: str | None = None
) -> Callable[[], None]:
    """Give an application the calls for feedback, withdrawals and metrics; returns what ends these.

    Examples
    --------
    >>> from fastapi import FastAPI
    >>> from banditroute import LinUCB, Router
    >>> from banditroute.servers.litellm import LiteLLMDoor
    >>> app = FastAPI()
    >>> end = add_routes(app, LiteLLMDoor(Router(LinUCB(2, 1, rng=0))), lambda: None)
    >>> sorted(app.openapi()["paths"])
    ['/banditroute/cancel', '/banditroute/feedback', '/banditroute/metrics']
    >>> end()
    """
    from fastapi import APIRouter, Depends, Response

    from banditroute.router.ledger import decision_key
    from banditroute.servers.answers import in_loop, withdraw
    from banditroute.servers.calls import PlainRoute, Reward, Stands, Withdrawal, refusal, stands
    from banditroute.servers.sidecar import page

    scrape, end = page(door, directory=metrics)

    async def feedback(told: Reward) -> Stands:
        """Learn what came of a decision; the id is that of the header ``x-banditroute-decision``."""
        try:
            key = decision_key(told.id)
            return await stands(door.router, key, door.afeedback(key, told.reward, source=told.source))
        except Exception as error:
            raise refusal(error, told.id) from error

    async def cancel(gone: Withdrawal) -> Stands:
        """Withdraw a decision: it teaches nothing."""
        try:
            key = decision_key(gone.id)
            now = await in_loop(door.router, key, partial(withdraw, door.router, key))
        except Exception as error:
            raise refusal(error, gone.id) from error
        return Stands(id=str(key), standing=now)

    def numbers() -> Response:
        """Show the numbers of the door and its Router to Prometheus."""
        return Response(scrape(), media_type="text/plain; version=0.0.4; charset=utf-8")

    routes = APIRouter(
        prefix="/banditroute", route_class=PlainRoute, dependencies=[Depends(guard)], tags=["banditroute"]
    )
    routes.post("/feedback")(feedback)
    routes.post("/cancel")(cancel)
    routes.get("/metrics", response_class=Response)(numbers)
    app.include_router(routes)
    return end
