"""In front of vLLM, or any server with its interface: the sidecar names the adapter, the answer is judged, it learns.

Run ``banditroute serve sidecar.toml`` and a server whose adapters have the names of the arms, then
``python sidecar_client.py http://127.0.0.1:8600 http://127.0.0.1:8000 [REQUESTS]``. Nothing but the standard library.
"""

import json
import sys
import time
import urllib.request
import uuid
from typing import Any


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    """Send JSON, return JSON."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def context(prompt: str) -> list[float]:
    """Say what is known of a request before it is answered."""
    return [1.0, float("integral" in prompt), float("contract" in prompt)]


def judge(prompt: str, text: str) -> float:
    """Return how good an answer is; yours is a user, a test or another model."""
    wanted = "maths" if "integral" in prompt else "law" if "contract" in prompt else "base"
    return float(wanted in text)


def ask(sidecar: str, server: str, prompt: str) -> float:
    """Route, call and report one request."""
    own = f"request-{uuid.uuid4()}"  # a repeated call gets the same decision
    chosen = post(f"{sidecar}/select", {"context": context(prompt), "id": own})
    began = time.monotonic()
    try:
        body = {"model": chosen["arm"], "prompt": prompt, "max_tokens": 16}
        text = post(f"{server}/v1/completions", body)["choices"][0]["text"]
    except OSError:
        post(f"{sidecar}/cancel", {"id": own})  # the server failed, which says nothing about the adapter
        raise
    reward = judge(prompt, text)
    post(f"{sidecar}/feedback", {"id": own, "reward": reward, "seconds": time.monotonic() - began})
    return reward


def main(sidecar: str, server: str, requests: int = 300) -> None:
    """Send requests of three kinds and print what was earned."""
    prompts = ["the integral of x", "is this contract valid", "hello"]
    rewards = [ask(sidecar, server, prompts[i % 3]) for i in range(requests)]
    third = requests // 3
    print(
        f"mean reward {sum(rewards[:third]) / third:.2f} at first, {sum(rewards[-third:]) / third:.2f} at last"
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:4]))
