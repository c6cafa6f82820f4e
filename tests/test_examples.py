"""The examples run: workers share one bandit, and a SIGTERM loses nothing."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from banditroute import FileStore, LinUCB, Router
from banditroute.durability.redis_store import RedisStore
from servers import redis_server

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_thread_pool_survives_sigterm(tmp_path):
    command = [sys.executable, str(EXAMPLES / "thread_pool.py"), str(tmp_path)]
    learned = 0
    for _ in range(2):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout.readline().endswith(f": {learned} learned\n")
            time.sleep(0.3)
            running.send_signal(signal.SIGTERM)
            served, total = (int(line.split()[-1]) for line in running.stdout.read().splitlines())
            assert running.wait() == 0
        assert total == learned + served > learned
        learned = total


@contextmanager
def service(place, metrics):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--workers", "2", "--port", str(port), "--log-level", "error"]
    environment = {**os.environ, "BANDITROUTE_STORE": str(place), "BANDITROUTE_METRICS": str(metrics)}
    running = subprocess.Popen([*command, "fastapi_app:app"], cwd=EXAMPLES, env=environment)
    try:
        # One connection per request: they spread over the workers.
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Connection": "close"}, timeout=30.0
        ) as client:
            for _ in range(600):
                try:
                    client.get("/counts")
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield client
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(timeout=30)


@pytest.mark.parametrize("kind", ["files", "redis"])
def test_workers_share_one_bandit(tmp_path, kind):
    if kind == "files":
        shared(tmp_path / "store", tmp_path / "metrics", lambda place: FileStore(place))
    else:
        with redis_server() as url:
            shared(url, tmp_path / "metrics", RedisStore)


def shared(place, metrics, store):
    with service(place, metrics) as client:
        asked = []
        for i in range(120):
            asked.append(client.post("/select", json={"context": [1.0, i / 120]}).json())
            if len({a["worker"] for a in asked}) == 2 and i >= 40:
                break
        makers = {a["worker"] for a in asked}
        time.sleep(0.3)  # handed to the store
        answers = [client.post("/feedback", json={"id": a["id"], "reward": 0.5}).json() for a in asked]
        assert all(a["learned"] for a in answers)
        if len(makers) == 2:
            crossed = [a["worker"] != b["worker"] for a, b in zip(asked, answers, strict=True)]
            assert any(crossed), "no decision was answered by the other worker"
        assert client.post("/select", json={"context": [1.0]}).status_code == 422
        assert client.post("/feedback", json={"id": "1", "reward": 1.0}).status_code == 404
        page = client.get("/metrics").text
        assert page.count("banditroute_decisions_total{") == 2
    # The workers have ended by SIGTERM: what they learned is all in the store, each answer once.
    with Router(LinUCB(["small", "medium", "large"], 2)) as router:
        router.join(store(place), background=False)
        assert router.policy.counts.sum() == len(asked)
