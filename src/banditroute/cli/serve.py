"""Serve a configuration file as a service that routes for gateways in other languages.

It answers POST /select, /feedback and /cancel, GET /arms, /healthz, /metrics and /openapi.json, and forwards nothing.
The environment variable BANDITROUTE_TOKEN, where set, is the bearer token that every call but /healthz must carry.
Several workers need a store in the file, with share_decisions = true; a directory to recover from then holds one for
each worker. SIGTERM ends it in order: no new calls, those under way are answered, all that was learned is written.

For example
  banditroute serve config.toml
  BANDITROUTE_TOKEN=secret banditroute serve config.toml --host 0.0.0.0 --port 8080 --workers 4
"""

import argparse
import os
import socket
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from banditroute.cli.console import positive
from banditroute.config import ConfigError, check_config, from_config, read_config, worker_router

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["application", "configure", "run"]

CONFIG, WORKERS, METRICS, TOKEN = (
    f"BANDITROUTE_{name}" for name in ("CONFIG", "WORKERS", "METRICS", "TOKEN")
)
STOP_S = 10  # for calls under way when it is told to stop
BACKLOG = 2048  # connections that wait to be accepted
HEALTH_S = 60  # a worker that compiles or is starved of CPU is not dead


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> configure(parser)
    >>> parser.parse_args(["config.toml", "--workers", "2"]).workers
    2
    """
    add = parser.add_argument
    add("config", type=Path, metavar="FILE", help="configuration of the Router: .toml, .json or .yaml")
    add("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    add("--port", type=int, default=8600, help="port to listen on (%(default)s)")
    add("--workers", type=positive, default=1, metavar="N", help="processes on one store (%(default)s)")


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop; returns 0."""
    import uvicorn

    _check(args.config, args.workers)
    with tempfile.TemporaryDirectory(prefix="banditroute-metrics-") as metrics:
        os.environ.update({CONFIG: str(args.config), WORKERS: str(args.workers), METRICS: metrics})
        print(
            f"banditroute: {args.workers} worker{'s' * (args.workers > 1)} on http://{args.host}:{args.port}",
            file=sys.stderr,
            flush=True,
        )
        with socket.create_server(
            (args.host, args.port), family=_family(args.host), backlog=BACKLOG
        ) as listening:
            # What it accepts inherits this; asyncio sets it on sockets of its own making only, and without it an
            # answer in two pieces waits 40 ms for the acknowledgement of the first.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            uvicorn.run(
                "banditroute.cli.serve:application",
                factory=True,
                fd=listening.fileno(),
                workers=args.workers,
                log_level="warning",
                access_log=False,
                lifespan="on",
                timeout_graceful_shutdown=STOP_S,
                timeout_worker_healthcheck=HEALTH_S,
            )
    return 0


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _check(config: Path, workers: int) -> None:
    """Refuse what cannot work, before any process starts."""
    token = os.environ.get(TOKEN, "none")
    if not token or any(not "!" <= letter <= "~" for letter in token):  # an empty one would let everybody in
        raise ConfigError(
            f"{TOKEN} must be of visible ASCII characters where it is set, got others or nothing"
        )
    store = check_config(config).model_dump().get("store")
    if workers > 1 and not (store and store["share_decisions"]):
        raise ConfigError(
            f"{config}: store.share_decisions: must be true with {workers} workers, for any of them may get the "
            f"answer, got {'no store' if not store else 'false'}"
        )
    name, given = read_config(config)
    lasting = ("recover", "store", "backend")
    try:
        from_config({key: value for key, value in given.items() if key not in lasting}).close()
    except ConfigError as error:
        raise ConfigError(str(error).replace("config: ", f"{name}: ", 1)) from None


def application() -> "FastAPI":
    """Return the service of one worker; what it serves is in the environment."""
    from banditroute.servers.sidecar import page, sidecar

    config, workers = os.environ[CONFIG], int(os.environ.get(WORKERS, "1"))
    shared = os.environ.get(METRICS) if workers > 1 else None
    return sidecar(
        partial(worker_router, config, workers),
        token=os.environ.get(TOKEN),
        metrics=partial(page, directory=shared),
    )
