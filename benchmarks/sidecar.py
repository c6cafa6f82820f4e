"""The sidecar under a steady load from wrk: two workers on one store, 500 decisions and 500 answers per second.

Needs wrk (Debian: ``apt-get install wrk``) and the extra ``serving``. Prints one line for each run: the empty endpoint
first, then decisions and answers, each answer on a connection that may lead to the other worker.

    python benchmarks/sidecar.py --seconds 60
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from banditroute import FileStore, LinUCB, Router

SCRIPT = Path(__file__).with_suffix(".lua")
ARMS, DIM, THREADS = ["small", "medium", "large"], 8, 20


def configuration(home: Path, store: str | None) -> Path:
    """Write a configuration whose workers recover and share decisions."""
    where = {"kind": "FileStore", "directory": str(home / "store")}
    if store is not None:
        where = {"kind": "RedisStore", "url": store}
    path = home / "config.json"
    path.write_text(
        json.dumps(
            {
                "policy": {"kind": "LinUCB", "arms": ARMS, "dim": DIM},
                "recover": {"directory": str(home / "state")},
                "store": {**where, "sync_s": 1.0, "share_decisions": True},
            }
        )
    )
    return path


@contextmanager
def served(config: Path, workers: int) -> Iterator[str]:
    """Run the service while the block lasts; yields its url."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "banditroute", "serve", str(config), "--port", str(port)]
    running = subprocess.Popen([*command, "--workers", str(workers)], stderr=sys.stderr)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                httpx.get(f"{url}/healthz", timeout=5.0)
                break
            except httpx.TransportError:
                if running.poll() is not None:
                    raise SystemExit("the service did not start") from None
                time.sleep(0.05)
        yield url
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(timeout=60)


def loaded(url: str, rate: float, seconds: int, mode: str) -> dict[str, Any]:
    """Return what wrk saw."""
    command = [
        "wrk",
        f"-t{THREADS}",
        f"-c{THREADS}",
        f"-d{seconds}s",
        "--timeout",
        "10s",
        "-s",
        str(SCRIPT),
        url,
    ]
    done = subprocess.run(
        [*command, "--", str(rate / THREADS), mode], capture_output=True, text=True, check=True
    )
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    result: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return result


def learned(home: Path, store: str | None) -> int:
    """Return how many rewards the store holds, of all workers together."""
    if store is None:
        kept: Any = FileStore(home / "store")
    else:
        from banditroute.durability.redis_store import RedisStore

        kept = RedisStore(store)
    policy = LinUCB(ARMS, DIM)
    with Router(policy) as router:
        router.join(kept, background=False)
        return int(policy.counts.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--rate", type=float, default=1000.0, help="calls per second, half decisions, half answers"
    )
    parser.add_argument("--redis", help="url of a Redis in place of a directory")
    args = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("needs wrk: apt-get install wrk")
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        with served(configuration(home, args.redis), args.workers) as url:
            warm = loaded(url, args.rate, 2, "route")
            empty = loaded(url, args.rate, min(args.seconds, 20), "empty")
            routed = loaded(url, args.rate, args.seconds, "route")
        found = learned(home, args.redis)
    load = os.getloadavg()[0]
    print(json.dumps({"empty": empty["empty"], "errors": empty["socket_errors"], "load_average": load}))
    p99 = {name: found[name]["p99_ms"] for name, found in (("select", routed), ("empty", empty))}
    print(
        f"p99 of /select {p99['select']:.2f} ms beside {p99['empty']:.2f} ms of an endpoint that does nothing"
    )
    print(json.dumps({key: value for key, value in routed.items() if key != "empty"}))
    acknowledged = (
        warm["acknowledged"] + routed["acknowledged"]
    )  # those under way at the ends of runs come on top
    print(json.dumps({"learned": found, "acknowledged": acknowledged, "lost": max(0, acknowledged - found)}))


if __name__ == "__main__":
    main()
