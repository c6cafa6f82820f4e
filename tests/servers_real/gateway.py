"""A Router in front of vLLM in a process of its own: a number of a request comes in, a line of JSON goes out.

python gateway.py URL TASK.json STATE_FOLDER
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from vllm_process import Slots

from banditroute import LinUCB, PagingModel, Polaris, Router
from banditroute.servers import VLLMBackend


def likelihood(backend, name, tokens):
    """Return the mean log-likelihood of a prompt, nats per token; None where the server does not know the adapter."""
    body = {"model": name, "prompt": tokens, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}
    answer = backend.ask("POST", "/v1/completions", body, within_s=120.0)
    if answer.status == 404:
        return None
    if answer.status != 200:
        raise ConnectionError(f"{answer.status} {answer.message}")
    rows = answer.data["choices"][0]["prompt_logprobs"][1:]
    return float(np.mean([row[str(t)]["logprob"] for row, t in zip(rows, tokens[1:], strict=True)]))


def served(backend, name, tokens):
    """Serve a request for as long as it takes; returns its likelihood and the calls that were made."""
    for calls in range(1, 1000):
        try:
            found = likelihood(backend, name, tokens)
            if found is not None:
                return found, calls
            backend.ensure(name)  # not registered yet, or no more
        except OSError:
            time.sleep(0.5)
    raise TimeoutError("the server did not come back")


def registered(backend, name):
    """Whether the server lists an adapter; also where it does not answer."""
    try:
        return name in backend.listed()
    except OSError:
        return True


def main(url, task, state):
    made = json.loads(Path(task).read_text())
    on_gpu, prompts = Slots(Path(made["logs"])), made["prompts"]
    backend = VLLMBackend(url, made["paths"], slots=made["slots"], timeout_s=60.0)
    router = Router(
        LinUCB(list(made["paths"]), len(prompts), rng=0), Polaris(made["slots"] - 1),
        PagingModel.profile("qwen2.5-7b/memory"), backend=backend,
    )  # fmt: skip
    report = router.recover(state)
    print(json.dumps({"learned": router.stats()["learned"], **report}), flush=True)
    for line in sys.stdin:
        number = int(line)
        group = made["groups"][number]
        decision = router.select(np.eye(len(prompts))[group])
        there, listed = decision.arm in on_gpu(), not decision.hit or registered(backend, decision.arm)
        found, calls = served(backend, decision.arm, prompts[group])
        reward = 1.0 - found / made["worst"]
        router.update(decision.id, reward)
        stats = router.stats()
        row = {"request": number, "group": group, "arm": decision.arm, "hit": bool(decision.hit), "there": there,
               "listed": listed, "calls": calls, "reward": reward,
               "learned": stats["learned"], "stats": {k: v for k, v in stats.items() if "fail" in k or k in
               ("loads", "timeouts", "blocked", "hit_rate")}}  # fmt: skip
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
