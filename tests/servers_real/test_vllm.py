"""The backend of vLLM against vLLM: `make servers` runs this, the server in an environment of its own."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from gateway import likelihood
from vllm_process import VLLMProcess

from banditroute.servers import ServerError, VLLMBackend
from small_llama import NAMES
from test_examples import EXAMPLES, gateway

pytestmark = pytest.mark.timeout(3000)
SLOTS, GROUPS = 4, 6
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def server(vllm_python, model_folder, tmp_path_factory):
    made = VLLMProcess(vllm_python, model_folder, tmp_path_factory.mktemp("vllm"), SLOTS, len(NAMES))
    try:
        up_s, first_s = made.start()
        print(f"\nvLLM {httpx.get(made.url + '/version').json()['version']}: up after {up_s:.0f} s, "
              f"first prompt log-likelihood {first_s:.1f} s")  # fmt: skip
        yield made
    finally:
        made.kill()


@pytest.fixture
def backend(server, model_folder):
    with VLLMBackend(
        server.url, {n: str(model_folder / n) for n in NAMES}, slots=SLOTS, timeout_s=60.0
    ) as made:
        yield made
        for name in NAMES:
            made.forget(name)


def on_gpu(backend):
    return {name for name, state in backend.observe().items() if state == "gpu"}


def settled(server, expected, within_s=5.0):
    """What the log says; it is written a little later than the answer."""
    end = time.monotonic() + within_s
    while (true := server.on_gpu()) != expected and time.monotonic() < end:
        time.sleep(0.05)
    return true


def test_its_answers_are_those_of_the_stand_in(server, backend, model_folder):
    def said(path, body):
        answer = backend.ask("POST", path, body, within_s=60.0)
        return answer.status, answer.message

    def load(name, path=None, **more):
        body = {"lora_name": name, "lora_path": path or str(model_folder / name), **more}
        return said("/v1/load_lora_adapter", body)

    assert said("/v1/completions", {"model": "a0", "prompt": "a", "max_tokens": 1}) == (
        404, "The model `a0` does not exist. Valid aliases: base.",
    )  # fmt: skip
    assert load("a0") == (200, "Success: LoRA adapter 'a0' added successfully.")
    assert load("a0")[0] == 400 and "already been loaded" in load("a0", str(model_folder / "a1"))[1]
    assert load("zz", "/nowhere") == (404, "Loading lora zz failed: No adapter found for /nowhere")
    assert load("base") == (400, "The lora adapter 'base' conflicts with a served base model.")
    assert backend.listed() == {"base": str(model_folder / "base"), "a0": str(model_folder / "a0")}
    unload = "/v1/unload_lora_adapter"
    assert said(unload, {"lora_name": "a0"})[0] == 200
    assert said(unload, {"lora_name": "a0"}) == (404, "The lora adapter 'a0' cannot be found.")
    with (
        VLLMBackend(server.url, {"zz": "/nowhere"}, slots=SLOTS, timeout_s=60.0) as other,
        pytest.raises(ServerError, match=r"404 .*No adapter found"),
    ):
        other.ensure("zz")


def test_what_is_believed_to_be_on_the_gpu_is_there_by_the_log(server, backend):
    for name in NAMES[:6]:
        backend.ensure(name)
    assert on_gpu(backend) == settled(server, {"a2", "a3", "a4", "a5"}) == {"a2", "a3", "a4", "a5"}
    backend.touch("a2")
    backend.register("a6")  # a registration alone displaces
    assert on_gpu(backend) == settled(server, {"a4", "a5", "a2", "a6"}) == {"a4", "a5", "a2", "a6"}
    backend.forget("a6")  # its weights stay, the last ones used
    backend.ensure("a7")
    true = settled(server, None, 0.5)
    assert on_gpu(backend) == {"a5", "a2", "a7"} < true  # a6 is there, and cannot be asked for
    rng = np.random.default_rng(0)
    for name in rng.choice(NAMES[:10], 60):
        backend.ensure(str(name))
    believed = on_gpu(backend)
    assert len(believed) == SLOTS and believed == settled(server, believed)


def test_a_long_request_keeps_its_adapter(server, backend):
    for name in ("a0", "a1", "a2", "a3"):
        backend.ensure(name)
    body = {"model": "a0", "prompt": "hello", "max_tokens": 200, "temperature": 0.0, "ignore_eos": True}
    backend.served("a0")
    long = threading.Thread(
        target=backend.ask, args=("POST", "/v1/completions", body), kwargs={"within_s": 120.0}
    )
    long.start()
    while 'running_lora_adapters="a0"' not in backend.ask("GET", "/metrics").text:
        time.sleep(0.02)
    for name in ("a1", "a2", "a3", "a4"):
        backend.ensure(name)
    believed = on_gpu(backend)
    assert long.is_alive(), "the request was too short to tell anything"
    assert believed == settled(server, believed) == {"a0", "a2", "a3", "a4"}
    long.join()


def test_loading_in_place_reads_the_weights_at_every_request(server, backend):
    """Why the backend does not do it; should this fail, vLLM has mended it."""

    def reads():
        time.sleep(0.3)
        return server.log.read_text(errors="replace").count("Adding lora.")

    backend.ensure("a0")
    before = reads()
    assert [backend.touch("a0") for _ in range(3)] == [True] * 3 and reads() == before
    body = {"lora_name": "a0", "lora_path": backend.paths["a0"], "load_inplace": True}
    assert backend.ask("POST", "/v1/load_lora_adapter", body).status == 200
    assert [backend.touch("a0") for _ in range(3)] == [True] * 3 and reads() == before + 4


@pytest.fixture(scope="module")
def task(server, model_folder, tmp_path_factory):
    """Prompts of six groups, each what one adapter says; and the reward of each adapter on each of them."""
    paths = {n: str(model_folder / n) for n in NAMES}
    with VLLMBackend(server.url, paths, slots=SLOTS, timeout_s=60.0) as backend:
        for name in NAMES:
            backend.ensure(name)
        prompts = []
        for k in range(GROUPS):
            body = {"model": NAMES[2 * k], "prompt": [3 + k], "max_tokens": 24, "temperature": 0.0,
                    "ignore_eos": True, "return_token_ids": True}  # fmt: skip
            choice = backend.ask("POST", "/v1/completions", body, within_s=60.0).data["choices"][0]
            prompts.append([3 + k, *choice["token_ids"]])
        table = np.array([[likelihood(backend, name, prompt) for name in NAMES] for prompt in prompts])
        for name in NAMES:
            backend.forget(name)
    path = tmp_path_factory.mktemp("task") / "task.json"
    groups = np.random.default_rng(1).choice(GROUPS, 500, p=[0.3, 0.25, 0.2, 0.15, 0.05, 0.05])
    groups[250:] = GROUPS - 1 - groups[250:]  # the rare ones become popular
    made = {"prompts": prompts, "groups": groups.tolist(), "worst": float(table.min()), "paths": paths,
            "slots": SLOTS, "logs": str(server.log_folder)}  # fmt: skip
    path.write_text(json.dumps(made))
    return path, 1.0 - table / table.min()


class Gateway:
    """The service of gateway.py in a process of its own, which tells of each request in a line."""

    def __init__(self, server, task, state):
        command = [sys.executable, HERE / "gateway.py", server.url, task, state]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self.process = subprocess.Popen(
            map(str, command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.begun = json.loads(self.process.stdout.readline())

    def serve(self, first, last):
        """Have it serve these requests; a line of it comes with each answer."""
        for number in range(first, last):
            print(number, file=self.process.stdin, flush=True)
            yield json.loads(self.process.stdout.readline())

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close(), self.process.stdout.close()


def test_500_requests_while_server_and_router_are_killed(server, task, tmp_path):
    path, table = task
    rows, state = [], tmp_path / "state"
    gateway = Gateway(server, path, state)
    try:
        rows += gateway.serve(0, 170)
        server.kill()
        killed, again = time.monotonic(), threading.Thread(target=server.start)
        again.start()
        rows += gateway.serve(170, 171)
        away_s = time.monotonic() - killed
        again.join()
        rows += gateway.serve(171, 340)
        gateway.kill()
        gateway = Gateway(server, path, state)
        rows += gateway.serve(340, 500)
    finally:
        gateway.kill()
    reward = table[[row["group"] for row in rows], [NAMES.index(row["arm"]) for row in rows]]
    fixed = table[[row["group"] for row in rows]].mean(axis=0).max()
    best = table[[row["group"] for row in rows]].max(axis=1).mean()
    false = [row["request"] for row in rows if row["hit"] and not row["there"]]
    unlisted = [row["request"] for row in rows if not row["listed"]]
    lost = rows[339]["learned"] - gateway.begun["learned"]
    print(
        f"\n{len(rows)} of 500 served with {sum(row['calls'] for row in rows)} calls; hit rate "
        f"{np.mean([row['hit'] for row in rows]):.2f} said, {np.mean([row['there'] for row in rows]):.2f} true; "
        f"false hits {false}, false registrations {unlisted}; "
        f"reward {reward.mean():.3f} (last 150 {reward[-150:].mean():.3f}), best fixed adapter {fixed:.3f}, "
        f"best for each {best:.3f}; server killed: {away_s:.0f} s without an answer; router killed: {lost} of "
        f"{rows[339]['learned']} lost; {rows[-1]['stats']}"
    )
    assert [row["request"] for row in rows] == list(range(500)) and rows[-1]["learned"] == 500 - lost
    assert np.allclose(reward, [row["reward"] for row in rows], atol=1e-3)
    # The first request to each adapter after a restart may tell that it is gone; the Router looks every ten seconds.
    assert all(171 <= number < 340 for number in false) and len(false) <= SLOTS
    assert not [number for number in unlisted if number not in false]
    assert lost <= 10 and reward.mean() > fixed


def test_the_gateway_of_the_page_serves_and_learns(server, model_folder, tmp_path):
    text = (
        (EXAMPLES / "vllm_gateway.toml")
        .read_text(encoding="utf-8")
        .replace("http://127.0.0.1:8000", server.url)
    )
    arms = re.findall(r'"/adapters/(\w+)"', text)
    for arm, name in zip(arms, NAMES, strict=False):
        text = text.replace(f"/adapters/{arm}", str(model_folder / name))
    (tmp_path / "vllm_gateway.toml").write_text(text, encoding="utf-8")
    prompts, right = (
        {"law": "What is a tort, and who pays for it?", "code": "def f(x): return sorted(x)[::-1]"},
        [],
    )
    with gateway(tmp_path) as client:
        for i in range(160):
            kind = ("law", "code")[i % 2]
            said = client.post("/complete", json={"prompt": prompts[kind], "max_tokens": 4}).json()
            right.append(said["adapter"] == kind)
            client.post("/feedback", json={"id": said["id"], "reward": float(right[-1])})
        stats = client.get("/stats").json()
    print(
        f"\nthe gateway of the page: {sum(right[-60:])} of the last 60 by the right adapter; resident {stats['resident']}"
    )
    assert stats["learned"] == 160 and stats["load_failures"] == 0 and sum(right[-60:]) > 45
