"""The examples run: workers share one bandit, and a SIGTERM loses nothing."""

import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest

from banditroute import FileStore, LinUCB, Router
from banditroute.durability.redis_store import RedisStore
from http_servers import FakeVLLM, serving
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
        unknown = client.post(
            "/feedback", json={"id": "1", "reward": 1.0}
        )  # waits for the store, then is counted
        assert unknown.status_code == 200
        page = client.get("/metrics").text
        assert page.count("banditroute_decisions_total{") == 2
    # The workers have ended by SIGTERM: what they learned is all in the store, each answer once.
    with Router(LinUCB(["small", "medium", "large"], 2)) as router:
        router.join(store(place), background=False)
        assert router.policy.counts.sum() == len(asked)


class Completions(BaseHTTPRequestHandler):
    """A server with vLLM's interface whose adapters say their names."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        body = json.dumps({"choices": [{"text": f"an answer of {asked['model']}"}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_the_client_of_the_sidecar_learns_which_adapter_serves_what(capsys):
    pytest.importorskip("uvicorn", reason="needs the extra serving")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "banditroute",
        "serve",
        str(EXAMPLES / "sidecar.toml"),
        "--port",
        str(port),
    ]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Completions)
    Thread(target=server.serve_forever, daemon=True).start()
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(1200):
            try:
                assert httpx.get(f"{url}/healthz").status_code == 200
                break
            except httpx.TransportError:
                time.sleep(0.05)
        client = runpy.run_path(str(EXAMPLES / "sidecar_client.py"))
        client["main"](url, f"http://127.0.0.1:{server.server_port}", 240)
        first, last = (float(word) for word in re.findall(r"\d\.\d+", capsys.readouterr().out))
        assert last > 0.9 and last > first
        arms = {arm["name"]: arm for arm in httpx.get(f"{url}/arms").json()["arms"]}
        assert sum(arm["learned"] for arm in arms.values()) == 240
    finally:
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=30) in (0, -signal.SIGTERM)
        server.shutdown()
        server.server_close()


SHORT = {  # what each shows, as a rule on what its main returns
    "dead_reckoning": lambda counting, blind: counting < 0.7 * blind,
    "screening": lambda learned, random: learned > random + 0.05,
    "reroutes": lambda served, failed: served == 1000 and 2 <= failed < 20,
    "thresholds": lambda quality, cost, dearest: quality > 0.88 and cost < 0.75 * dearest,
    "floors": lambda quality, tokens: abs(quality - 0.8) < 0.02 and tokens < 2.0,
    "experts": lambda learned, similar: learned > similar + 0.03,
    "news_list": lambda clicked, best: clicked > 0.9 * best,
    "conversations": lambda kept, blind: kept < 0.7 * blind,
    "second_opinion": lambda cascaded, alone, cost: cascaded > alone + 0.03 and cost < 4.08,
    "why": lambda before, after, off: (before, after) == ("large", "medium") and off < 1e-12,
}


@pytest.mark.parametrize("name", SHORT)
def test_short_examples_show_what_they_say(name, capsys):
    path = EXAMPLES / f"{name}.py"
    assert len([line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]) <= 30
    assert SHORT[name](*runpy.run_path(str(path))["main"]())
    assert capsys.readouterr().out


# The gateway in front of vLLM.

VLLM_PAGE = EXAMPLES.parent / "docs" / "vllm.md"


def test_the_page_on_vllm_shows_the_example_and_needs_less_than_a_hundred_lines():
    page = VLLM_PAGE.read_text(encoding="utf-8").split("Both files are in `examples`")[0]
    blocks = re.findall(r"^```(sh|toml|py)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    shown = {kind: code for kind, code in blocks if kind != "sh"}
    assert shown["toml"] == (EXAMPLES / "vllm_gateway.toml").read_text(encoding="utf-8")
    assert shown["py"] == (EXAMPLES / "vllm_gateway.py").read_text(encoding="utf-8")
    assert sum(bool(line.strip()) for _, code in blocks for line in code.splitlines()) < 100


def test_the_gateway_learns_in_front_of_vllm_through_restarts_of_both(tmp_path):
    text = (EXAMPLES / "vllm_gateway.toml").read_text(encoding="utf-8")
    arms = re.findall(r'"/adapters/(\w+)"', text)
    fake = FakeVLLM(4, [f"/adapters/{arm}" for arm in arms])
    with serving(fake) as url:
        settings = text.replace("http://127.0.0.1:8000", url)
        (tmp_path / "vllm_gateway.toml").write_text(settings, encoding="utf-8")
        prompts = {"law": "What is a tort, and who pays for it?", "code": "def f(x): return sorted(x)[::-1]"}
        right = []
        with gateway(tmp_path) as client:
            for i in range(240):
                kind = ("law", "code")[i % 2]
                if i == 120:
                    fake.restart()
                said = client.post("/complete", json={"prompt": prompts[kind]}).json()
                right.append(said["adapter"] == kind)
                answer = {"id": said["id"], "reward": float(right[-1])}
                assert client.post("/feedback", json=answer).json() == {"learned": True}
            assert sum(right[-60:]) > 50
            assert client.post("/feedback", json={"id": "1", "reward": 1.0}).status_code == 404
            fake.lies = ["500"]
            assert client.post("/complete", json={"prompt": "anything"}).status_code == 502
        with gateway(tmp_path) as client:
            stats = client.get("/stats").json()
            assert stats["learned"] == 240 and stats["pending"] == 0
            said = [
                client.post("/complete", json={"prompt": prompts["law"]}).json()["adapter"] for _ in range(10)
            ]
            assert said.count("law") > 7


@contextmanager
def gateway(folder):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "--port",
        str(port),
        "--log-level",
        "error",
        "--app-dir",
        str(EXAMPLES),
    ]
    running = subprocess.Popen([*command, "vllm_gateway:app"], cwd=folder)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0) as client:
            for _ in range(600):
                try:
                    client.get("/stats")
                    break
                except httpx.TransportError:
                    time.sleep(0.1)
            yield client
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(timeout=60)
