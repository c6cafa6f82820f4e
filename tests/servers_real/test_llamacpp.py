"""500 requests through llama.cpp's server: 12 adapters, likelihood as reward, server and router killed in between."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from llama_process import likelihood

from banditroute.servers import LlamaCppAdapters
from test_llamacpp_server import write_adapter, write_base  # skips where xllamacpp is not installed

HERE = Path(__file__).parent

NAMES, GROUPS = [f"a{k}" for k in range(12)], 6


def started(*arguments):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    return subprocess.Popen(
        [sys.executable, str(HERE / "llama_process.py"), *map(str, arguments)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
    )  # fmt: skip


def killed(process):
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close(), process.stdout.close()


def asked(process, first, last):
    for number in range(first, last):
        print(number, file=process.stdin, flush=True)
        yield json.loads(process.stdout.readline())


@pytest.mark.timeout(900)
def test_500_requests_while_server_and_router_are_killed(tmp_path):
    rng = np.random.default_rng(0)
    write_base(str(tmp_path / "base.gguf"), rng)
    for name in NAMES:
        write_adapter(str(tmp_path / f"{name}.gguf"), rng)
    address, task, state = tmp_path / "address", tmp_path / "task.json", tmp_path / "state"

    def up(names):
        process = started("serve", tmp_path, *names)
        address.write_text(process.stdout.readline().strip())
        return process

    server, router = up(NAMES), None
    try:
        with LlamaCppAdapters(address.read_text(), NAMES, timeout_s=30.0) as backend:
            assert backend.observe() == dict.fromkeys(NAMES, "gpu")
            prompts = [[1, *rng.integers(3, 259, 6).tolist()] for _ in range(GROUPS)]
            table = np.array([[likelihood(backend, n, p) for n in NAMES] for p in prompts])
        groups = rng.choice(GROUPS, 500, p=[0.3, 0.25, 0.2, 0.15, 0.05, 0.05]).tolist()
        task.write_text(
            json.dumps({"names": NAMES, "prompts": prompts, "groups": groups, "worst": table.min()})
        )
        router = started("route", address, task, state)
        router.stdout.readline()
        rows = [*asked(router, 0, 170)]
        killed(server)
        begun, server = time.monotonic(), up(NAMES[::-1])  # its ids are others now
        rows += asked(router, 170, 171)
        away_s = time.monotonic() - begun
        rows += asked(router, 171, 340)
        killed(router)
        router = started("route", address, task, state)
        begun_at = json.loads(router.stdout.readline())["learned"]
        rows += asked(router, 340, 500)
    finally:
        killed(server)
        if router is not None:
            killed(router)
    table = 1.0 - table / table.min()
    reward = table[groups, [NAMES.index(row["arm"]) for row in rows]]
    fixed, best = table[groups].mean(axis=0).max(), table[groups].max(axis=1).mean()
    print(
        f"\n{len(rows)} of 500 served with {sum(row['calls'] for row in rows)} calls; reward {reward.mean():.3f} "
        f"(last 150 {reward[-150:].mean():.3f}), best fixed adapter {fixed:.3f}, best for each {best:.3f}; server "
        f"killed: {away_s:.1f} s without an answer; router killed: {rows[339]['learned'] - begun_at} of 340 lost"
    )
    # Each answer came from the adapter that was asked for, after the restart with other ids too.
    assert np.allclose(reward, [row["reward"] for row in rows], atol=1e-3)
    assert len(rows) == 500 and rows[339]["learned"] - begun_at <= 10 and reward[-150:].mean() > fixed
