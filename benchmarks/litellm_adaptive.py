"""LiteLLM's own adaptive router beside ours, on one stream of conversations, with a restart in the middle.

LiteLLM's adaptive router (``auto_router/adaptive_router``) sorts the last message of the user into one of seven types
by regular expressions and draws from a Beta posterior for each pair of type and model (Thompson sampling). It is told
nothing: it reads from the messages whether the user was pleased ("thanks", "that worked": once in a conversation, from
its third turn) or not (a message that shares some words with the one before counts against the model, whatever it
says). What would take the sum of a posterior above 200 is dropped. State lies in memory; its proxy writes it to
Postgres every ten seconds. Without a database, as here, a restart begins anew.

Every contestant sees the same conversations. A seed fixes the qualities, the texts, and for each turn a number in
[0, 1): an answer is good where that number is below the quality of its model, so luck is common to all. Half of the
requests are long; three of the five models answer these worse. Of each turn but the last of a conversation the next
message says whether the answer was good, in words that LiteLLM's patterns know; ours is told the same as a reward.

    pip install litellm && python benchmarks/litellm_adaptive.py [--seeds 10] [--conversations 300]
"""

import argparse
import asyncio
import importlib.metadata
import json
import os
import random
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # no question to the network
import litellm
from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER
from litellm.router_strategy.adaptive_router.bandit import apply_delta, initial_cell, pick_best
from litellm.router_strategy.adaptive_router.classifier import classify_prompt
from litellm.types.router import AdaptiveRouterPreferences, RequestType

from banditroute import LinUCB, Router
from banditroute.servers.litellm import LiteLLMDoor

RESULTS = Path(__file__).parent / "results" / "litellm.json"
ARMS = [f"model-{letter}" for letter in "abcde"]
TURNS = 4
TYPES = list(RequestType)
ASKS = {  # one for each of LiteLLM's types, found by its patterns
    RequestType.CODE_GENERATION: "write a python function about {}",
    RequestType.CODE_UNDERSTANDING: "explain this code about {}",
    RequestType.TECHNICAL_DESIGN: "design a system about {}",
    RequestType.ANALYTICAL_REASONING: "solve the equation about {}",
    RequestType.WRITING: "draft an email about {}",
    RequestType.FACTUAL_LOOKUP: "what is known about {}",
    RequestType.GENERAL: "tell me about {}",
}
PRICE = {
    "input_cost_per_token": 1e-6,
    "output_cost_per_token": 1e-6,
}  # without one LiteLLM looks for the reason
PLEASED, CROSS = "thanks, that worked. now {}", "no, once more: {}"
CALLBACKS = (
    "callbacks", "success_callback", "failure_callback", "_async_success_callback", "_async_failure_callback",
)  # fmt: skip
LOSS = 0.3  # of a model that does not cope with long requests


class Stream:
    """Conversations of one seed: what is asked, how good the answer of each model would be."""

    def __init__(self, seed: int, conversations: int) -> None:
        rng = np.random.default_rng(seed)
        short = rng.uniform(0.2, 0.9, (len(TYPES), len(ARMS)))
        copes = np.ones(len(ARMS), bool)
        copes[rng.choice(len(ARMS), 3, replace=False)] = False
        quality = np.stack([short, np.clip(short - LOSS * ~copes, 0.0, 1.0)])  # (length, type, arm)
        self.types = rng.integers(len(TYPES), size=conversations)
        self.long = rng.integers(2, size=conversations)
        self.means = quality[self.long, self.types]
        self.good = rng.random((conversations, TURNS, 1)) < self.means[:, None, :]
        self.words = rng.integers(0, 10**6, (conversations, TURNS, 30))

    def message(self, at: int, turn: int, before: bool | None) -> str:
        """Return what the user says, having been served well, badly or not at all before."""
        words = [f"w{word}" for word in self.words[at, turn][: 30 if self.long[at] else 6]]
        ask = ASKS[TYPES[self.types[at]]].format(" ".join(words))
        return ask if before is None else (PLEASED if before else CROSS).format(ask)


def one_hot(text: str) -> np.ndarray:
    """LiteLLM's own type of a message as a context."""
    x = np.zeros(len(TYPES))
    x[TYPES.index(classify_prompt(text))] = 1.0
    return x


def with_length(text: str) -> np.ndarray:
    """The type, and the type again where the message is long."""
    x = one_hot(text)
    return np.concatenate([x, x * (len(text.split()) > 20)])


class Contestant:
    """Serves the turns of a stream; `restarted` stands for another process."""

    def restarted(self) -> None:
        raise NotImplementedError

    async def turn(self, session: str, messages: list[dict[str, str]], answer: str) -> str:
        """Return the model that serves."""
        raise NotImplementedError

    def told(self, good: bool) -> None:
        """Hear of the answer to the turn before, once the user has spoken again."""

    def known(self) -> int:
        """Return how many observations are held."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave."""


class Gateway(Contestant):
    """A LiteLLM Router with one deployment for each model."""

    def __init__(self) -> None:
        self.serving: Any = None
        self.restarted()

    def deployments(self) -> list[dict[str, Any]]:
        return [self.deployment("chat", arm) for arm in ARMS]

    @staticmethod
    def deployment(group: str, arm: str) -> dict[str, Any]:
        params = {"model": f"openai/{arm}", "api_key": "none", "mock_response": "unused", **PRICE}
        return {"model_name": group, "litellm_params": params, "model_info": {"id": arm, "arm": arm}}

    def restarted(self) -> None:
        for name in CALLBACKS:  # those of a Router outlive it
            getattr(litellm, name).clear()
        self.serving = litellm.Router(model_list=self.deployments())

    async def turn(self, session: str, messages: list[dict[str, str]], answer: str) -> str:
        given = await self.serving.acompletion(
            model="chat", messages=messages, mock_response=answer, metadata={"session_id": session}
        )
        await GLOBAL_LOGGING_WORKER.flush()  # what reads the messages has run
        return str(given._hidden_params["model_id"])

    def known(self) -> int:
        return 0


class Adaptive(Gateway):
    """LiteLLM's adaptive router as it is: quality alone counts, no model is declared better than another."""

    def deployments(self) -> list[dict[str, Any]]:
        config = {"available_models": ARMS, "weights": {"quality": 1.0, "cost": 0.0}}
        params = {"model": "auto_router/adaptive_router", "adaptive_router_config": config}
        return [self.deployment(arm, arm) for arm in ARMS] + [
            {"model_name": "chat", "litellm_params": params}
        ]

    def known(self) -> int:
        strategy = self.serving.adaptive_routers["chat"][0].strategy
        return sum(strategy.cell(kind, arm).total_samples for kind in TYPES for arm in ARMS)


class Told(Contestant):
    """The bandit of LiteLLM's adaptive router alone, told the rewards instead of reading them out of messages."""

    def __init__(self) -> None:
        self.restarted()

    def restarted(self) -> None:
        middle = AdaptiveRouterPreferences(quality_tier=2)
        self.cells = {(kind, arm): initial_cell(middle, kind) for kind in TYPES for arm in ARMS}
        self.last: Any = None

    async def turn(self, session: str, messages: list[dict[str, str]], answer: str) -> str:
        kind = classify_prompt(messages[-1]["content"])
        arm = str(pick_best({arm: self.cells[kind, arm] for arm in ARMS}, dict.fromkeys(ARMS, 0.0), 1.0, 0.0))
        self.last = kind, arm
        return arm

    def told(self, good: bool) -> None:
        self.cells[self.last] = apply_delta(self.cells[self.last], float(good), float(not good))

    def known(self) -> int:
        return sum(cell.total_samples for cell in self.cells.values())


class Ours(Gateway):
    """A `LiteLLMDoor`, whose Router recovers its folder."""

    def __init__(self, context: Callable[[str], np.ndarray], seed: int) -> None:
        self.context, self.seed, self.home = context, seed, tempfile.TemporaryDirectory()
        self.door: LiteLLMDoor | None = None
        super().__init__()

    def restarted(self) -> None:
        if self.door is not None:
            self.door.router.close()
        router = Router(LinUCB(ARMS, len(self.context("")), rng=self.seed))
        router.recover(self.home.name)
        self.door = LiteLLMDoor(router, context=lambda messages, _: self.context(messages[-1]["content"]))
        super().restarted()
        litellm.callbacks.append(self.door)

    async def turn(self, session: str, messages: list[dict[str, str]], answer: str) -> str:
        assert self.door is not None
        given = await self.serving.acompletion(model="chat", messages=messages, mock_response=answer)
        await GLOBAL_LOGGING_WORKER.flush()
        self.last = self.door.decision_id(given)
        return str(given._hidden_params["model_id"])

    def told(self, good: bool) -> None:
        assert self.door is not None and self.last is not None
        assert self.door.feedback(self.last, float(good))

    def known(self) -> int:
        assert self.door is not None
        return int(self.door.router.stats()["learned"])

    def close(self) -> None:
        assert self.door is not None
        self.door.router.close()
        self.home.cleanup()


async def served(stream: Stream, contestant: Contestant, seed: int) -> dict[str, Any]:
    """Return the mean quality of what was served in each quarter, and what was known around the restart."""
    rng = np.random.default_rng([seed, 1])
    half, earned, known = len(stream.types) // 2, [], []
    for at in range(len(stream.types)):
        if at == half:
            known.append(contestant.known())
            contestant.restarted()
            known.append(contestant.known())
        messages: list[dict[str, str]] = []
        before: bool | None = None
        for turn in range(TURNS):
            if before is not None:
                contestant.told(before)
            messages.append({"role": "user", "content": stream.message(at, turn, before)})
            answer = " ".join(f"a{word}" for word in rng.integers(0, 10**6, 12))
            arm = ARMS.index(await contestant.turn(f"{seed}-{at}", messages, answer))
            messages.append({"role": "assistant", "content": answer})
            earned.append(stream.means[at, arm])
            before = bool(stream.good[at, turn, arm])
    quarters = np.array_split(np.array(earned), 4)
    return {"quarters": [float(q.mean()) for q in quarters], "mean": float(np.mean(earned)), "known": known}


def contestants(seed: int) -> Iterator[tuple[str, Callable[[], Contestant]]]:
    yield "at random (LiteLLM's default)", Gateway
    yield "LiteLLM's adaptive router", Adaptive
    yield "its bandit alone, told the rewards", Told
    yield "banditroute, types", lambda: Ours(one_hot, seed)
    yield "banditroute, types and length", lambda: Ours(with_length, seed)


def interval(values: np.ndarray) -> str:
    """Return a mean with half the width of its 95 % interval, over seeds."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.3f} ± {half:.3f}"


def table(runs: dict[str, list[dict[str, Any]]], best: float, turns: int, version: str) -> dict[str, Any]:
    """Return the table for the documents."""
    ours = np.array([run["mean"] for run in runs["banditroute, types and length"]])
    rows = []
    for name, found in runs.items():
        means = np.array([run["mean"] for run in found])
        third, second = (np.array([run["quarters"][i] for run in found]) for i in (2, 1))
        known = np.mean([run["known"] for run in found], axis=0)
        behind = "" if name == "banditroute, types and length" else interval(ours - means)
        rows.append(
            [name, interval(means), behind, f"{second.mean():.3f}, {third.mean():.3f}"]
            + [f"{known[0]:,.0f}, {known[1]:,.0f}"]
        )
    note = (
        f"LiteLLM {version}, answers made up, {len(ours)} seeds, {turns:,} requests each, the same for all. Quality "
        "of the model that served, mean with 95 % interval over seeds; the best model for each request has "
        f"{best:.3f}. "
        "`benchmarks/litellm_adaptive.py` says what is asked and who is told what."
    )
    columns = [
        "router", "quality", "last row ahead by", "quarter before, after a restart", "observations before, after it",
    ]  # fmt: skip
    return {"columns": columns, "rows": rows, "note": note}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--conversations", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds must be at least 2, for intervals, got {args.seeds}")
    runs: dict[str, list[dict[str, Any]]] = {}
    bests = []

    async def all_of_them() -> None:
        for seed in range(args.seeds):
            stream = Stream(seed, args.conversations)
            bests.append(stream.means.max(axis=1).mean())
            for name, make in contestants(seed):
                random.seed(seed)  # LiteLLM draws from it
                contestant = make()
                found = await served(stream, contestant, seed)
                contestant.close()
                runs.setdefault(name, []).append(found)
                print(json.dumps({"seed": seed, "router": name, **found}), flush=True)

    asyncio.run(all_of_them())
    version = importlib.metadata.version("litellm")
    made = table(runs, float(np.mean(bests)), args.conversations * TURNS, version)
    args.out.write_text(
        json.dumps({"litellm": version, "runs": runs, "tables": {"litellm-adaptive": made}}, indent=1)
    )
    for row in made["rows"]:
        print(*row, sep=" | ")


if __name__ == "__main__":
    main()
