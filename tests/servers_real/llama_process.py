"""llama.cpp's server in a process of its own (``serve``), and a Router in front of it in another (``route``).

python llama_process.py serve FOLDER NAME ...          # prints its address
python llama_process.py route ADDRESS-FILE TASK.json STATE # a number of a request comes in, a line of JSON goes out
"""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np


def serve(folder, *names):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(Path(folder) / "base.gguf")
    params.n_ctx, params.n_parallel, params.warmup, params.port = 256, 1, False, 0
    params.lora_adapters = [
        xllamacpp.CommonAdapterLoraInfo(str(Path(folder) / f"{n}.gguf"), 1.0) for n in names
    ]
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()


def likelihood(backend, name, tokens):
    """Return the log-likelihood of the last token of a prompt after the others, by the adapter of that name.

    What is said is forced to be an "a": of half a character, or the end, the server would give no probabilities.
    """
    body = {"prompt": tokens[:-1], "n_predict": 1, "n_probs": 300, "temperature": 0.0, "cache_prompt": False,
            "logit_bias": [[100, 1000.0]], "lora": backend.field(name)}  # fmt: skip
    answer = backend.ask("POST", "/completion", body, within_s=30.0)
    if answer.status != 200:
        raise ConnectionError(f"{answer.status} {answer.message}")
    rows = answer.data["completion_probabilities"][0]["top_logprobs"]
    return next(row["logprob"] for row in rows if row["id"] == tokens[-1])


def route(address, task, state):
    from banditroute import LinUCB, Router, Static
    from banditroute.servers import LlamaCppAdapters

    made = json.loads(Path(task).read_text())
    names, prompts = made["names"], made["prompts"]
    backend = LlamaCppAdapters(Path(address).read_text(), names, timeout_s=30.0)
    router = Router(LinUCB(names, len(prompts), rng=0), Static(names), 0.0, backend=backend)
    report = router.recover(state)
    print(json.dumps({"learned": router.stats()["learned"], **report}), flush=True)
    for line in sys.stdin:
        group = made["groups"][int(line)]
        decision = router.select(np.eye(len(prompts))[group])
        found, calls = None, 0
        while found is None:
            calls += 1
            try:
                found = likelihood(backend, decision.arm, prompts[group])
            except (OSError, RuntimeError):  # away; started anew it has another address
                time.sleep(0.1)
                backend.url = Path(address).read_text()
        reward = 1.0 - found / made["worst"]
        router.update(decision.id, reward)
        row = {"request": int(line), "group": group, "arm": decision.arm, "reward": reward, "calls": calls,
               "learned": router.stats()["learned"]}  # fmt: skip
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    {"serve": serve, "route": route}[sys.argv[1]](*sys.argv[2:])
