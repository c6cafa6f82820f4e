"""The ways to put it in front of vLLM, as their page tells them: files and commands are taken from the page."""

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
from pathlib import Path

import httpx
import pytest

from banditroute.cli import main
from banditroute.config import check_config
from http_servers import FakeVLLM, serving
from litellm_program import MISSING, PROGRAM, REASON

PAGE = (Path(__file__).parents[1] / "docs" / "vllm.md").read_text()
WALKS = PAGE[PAGE.index("## With a gateway of your own") : PAGE.index("## What to know")]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", WALKS, re.DOTALL | re.MULTILINE)
FILES = {
    match[1]: text for kind, text in BLOCKS if kind != "sh" and (match := re.match(r"# (\S+\.\w+)\n", text))
}
PATHS = {name: f"/adapters/{name}" for name in ("maths", "law", "chat")}
ASKED = {"the integral of x": "maths", "is this contract valid": "law", "hello": "chat"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def written(home, name, server, change=lambda text: text):
    text = (
        FILES[name]
        .replace("http://127.0.0.1:8000", server)
        .replace('"state"', json.dumps(str(home / "state")))
    )
    assert server in text or name == "features.py"
    (home / name).write_text(change(text))
    return home / name


@contextmanager
def running(command, url, home, **environment):
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=home, stdout=log, stderr=log, env={**os.environ, **environment}
        )
        try:
            for _ in range(2400):
                try:
                    if httpx.get(url, trust_env=False).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                assert process.poll() is None, (home / "log").read_text()
                time.sleep(0.1)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=120)


def learned(serve, feedback):
    """Ask and judge; returns the share of right adapters in the last third."""
    right = []
    for i in range(150):
        prompt, best = list(ASKED.items())[i % 3]
        model, id_ = serve(prompt)
        right.append(model == best)
        feedback(id_, float(model == best))
    return sum(right[-50:]) / 50


def test_both_walks_are_less_than_100_lines():
    lines = [line for _, text in BLOCKS for line in text.splitlines() if line.strip()]
    assert 30 < len(lines) + 1 < 100  # and the line that LiteLLM's own file has more


def test_what_the_page_calls_the_file_is_a_configuration(tmp_path, capsys):
    path = written(tmp_path, "router.toml", "http://127.0.0.1:1")
    assert check_config(path).policy.dim == 3
    assert main(["config", "check", str(path)]) == 0


def test_the_walk_with_the_sidecar(tmp_path, monkeypatch):
    pytest.importorskip("uvicorn", reason="needs the extra serving")
    monkeypatch.delenv("BANDITROUTE_TOKEN", raising=False)
    port, fake = free_port(), FakeVLLM(3, PATHS.values(), static=PATHS)
    with serving(fake) as server:
        config = written(tmp_path, "router.toml", server)
        code = written(tmp_path, "gateway.py", server, lambda text: text.replace("8600", str(port)))
        command = [sys.executable, "-m", "banditroute", "serve", str(config), "--port", str(port)]
        with running(command, f"http://127.0.0.1:{port}/healthz", tmp_path):
            client = runpy.run_path(str(code))

            def serve(prompt):
                body, id_ = client["serve"](prompt)
                return body["model"], id_

            assert learned(serve, client["feedback"]) > 0.8
            page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
            assert "banditroute_desired 2.0" in page and "banditroute_actual" in page
            fake.registered.clear()  # the server restarts without its adapters, say
            with pytest.raises(httpx.HTTPStatusError):
                client["serve"]("hello")
            page = httpx.get(f"http://127.0.0.1:{port}/metrics").text
            assert "banditroute_cancelled_total 1.0" in page and "banditroute_pending 0.0" in page


@pytest.mark.skipif(MISSING, reason=REASON)
def test_the_walk_with_litellm(tmp_path):
    port, fake = free_port(), FakeVLLM(3, PATHS.values(), static=PATHS)
    line = re.search(r"`(litellm = .*?)`", WALKS)[1]
    with serving(fake) as server:
        written(
            tmp_path, "router.toml", server, lambda text: text.replace("[backend]", f"{line}\n\n[backend]")
        )
        written(tmp_path, "features.py", server)
        config = written(tmp_path, "config.yaml", server)
        command = [str(PROGRAM), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
        given = {"BANDITROUTE_CONFIG": "router.toml", "LITELLM_MASTER_KEY": "sk-1"}
        quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False"}
        url = f"http://127.0.0.1:{port}"
        with (
            running(command, f"{url}/health/liveliness", tmp_path, **given, **quiet),
            httpx.Client(base_url=url, headers={"authorization": "Bearer sk-1"}, timeout=60.0) as call,
        ):

            def serve(prompt):
                body = {"model": "chat", "messages": [{"role": "user", "content": prompt}]}
                answer = call.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200, answer.text
                text = answer.json()["choices"][0]["message"]["content"]
                return text.removeprefix("from "), answer.headers["x-banditroute-decision"]

            def feedback(id_, reward):
                told = call.post("/banditroute/feedback", json={"id": id_, "reward": reward})
                assert told.json()["standing"] == "answered", told.text

            assert learned(serve, feedback) > 0.8
