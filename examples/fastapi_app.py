"""An HTTP service whose workers share one bandit: ``uvicorn --workers 4 fastapi_app:app`` (in this directory).

The Router is that of ``fastapi_router.toml``, with the store that the environment names.
``BANDITROUTE_STORE`` is a directory or a ``redis://`` or ``unix://`` url; any worker may answer any decision.
``BANDITROUTE_METRICS`` is a directory for the numbers of all workers, shown at ``/metrics``.
"""

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import BaseModel

from banditroute import UnknownDecision, from_config
from banditroute.config import read_config
from banditroute.servers.prometheus import export

FILE = Path(__file__).with_name("fastapi_router.toml")


class Ask(BaseModel):
    """A request to route."""

    context: list[float]


class Answer(BaseModel):
    """The reward of a decision; ids are strings because JSON numbers have 53 bits."""

    id: str
    reward: float


def configuration() -> dict[str, Any]:
    """Return what the file says, with the store that the environment names."""
    _, given = read_config(FILE)
    place = os.environ.get("BANDITROUTE_STORE") or tempfile.mkdtemp()
    if "://" in place:
        store = {"kind": "RedisStore", "url": place}
    else:
        store = {"kind": "FileStore", "directory": place}
    return given | {"store": given["store"] | store}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Each worker has its own Router; threads and sockets are made here, after the fork."""
    with from_config(configuration()) as router:
        app.state.router, app.state.registry = router, CollectorRegistry()
        metrics = os.environ.get("BANDITROUTE_METRICS") or tempfile.mkdtemp()
        collector = export(router, app.state.registry, directory=metrics)
        yield
        collector.close()
    # Leaving the block handed over what was pending and published: a SIGTERM loses nothing.


app = FastAPI(lifespan=lifespan)


@app.post("/select")
async def select(ask: Ask, request: Request) -> dict[str, Any]:
    """Route; microseconds, so it runs in the event loop."""
    try:
        decision = request.app.state.router.select(ask.context)
    except (ValueError, TypeError) as error:
        raise HTTPException(422, str(error)) from error
    return {"id": str(decision.id), "arm": decision.arm, "worker": os.getpid()}


@app.post("/feedback")
def feedback(answer: Answer, request: Request) -> dict[str, Any]:
    """Learn; in the thread pool, because a decision of another worker is fetched from the store."""
    try:
        learned = request.app.state.router.update(int(answer.id), answer.reward)
    except UnknownDecision as error:
        raise HTTPException(404, str(error)) from error
    except (ValueError, TypeError) as error:
        raise HTTPException(422, str(error)) from error
    return {"learned": learned, "worker": os.getpid()}


@app.get("/counts")
def counts(request: Request) -> dict[str, int]:
    """Rewards learned per arm, by all workers together, as of the last round with the store."""
    router = request.app.state.router
    return dict(zip(router.policy.arms, router.policy.counts.tolist(), strict=True))


@app.get("/metrics")
def metrics(request: Request) -> Response:
    """Numbers of all workers."""
    return Response(generate_latest(request.app.state.registry), media_type="text/plain")
