"""The child process of one peer: reads commands, answers figures, one JSON object a line each way.

Run from the benchmarks folder in the peer's virtual environment: ``python -m peers.worker NAME``. Commands
are methods of `Worker`; their keyword arguments are the other fields of the line. Whatever a library prints
goes to standard error, so that it cannot break the conversation.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import importlib
import json
import os
import platform
import sys
from importlib.metadata import version
from time import perf_counter_ns, process_time_ns

import numpy as np
from streams import STREAMS, isotropic

UNTIMED = 3  # calls at the start of a block, which pay for what other processes left in the caches


class Worker:
    """The state behind the commands: a stream, a policy that learned it, and a copy to time updates on."""

    def __init__(self, name: str):
        self.module = importlib.import_module(f"peers.{name}")
        policy = self.module.Peer(3, 4, 0.3, 0)  # import and compile everything before memory is measured
        stream = isotropic(3, 4, 40, 0)
        for t, x in enumerate(stream.contexts):
            arm = policy.select(x)
            policy.update(arm, x, stream.reward(t, arm))
        copy.deepcopy(policy)

    def about(self) -> dict:
        """Versions and the setting that is run."""
        versions = {"python": platform.python_version(), "numpy": np.__version__}
        package = {self.module.DISTRIBUTION: version(self.module.DISTRIBUTION)}
        return {"setting": self.module.SETTING, "versions": versions | package}

    def setup(
        self, *, arms: int, dim: int, alpha: float, stream: str, steps: int, probes: int, seed: int
    ) -> dict:
        """Make the stream of `steps` requests to learn and `probes` to time on, and an empty policy."""
        self.policy = self.twin = None
        self.steps = steps
        self.stream = STREAMS[stream](arms, dim, steps + probes, seed)
        self.probes = list(self.stream.contexts[steps:])
        self.resident = resident_bytes()
        self.policy = self.module.Peer(arms, dim, alpha, seed)
        return {}

    def play(self, *, path: str) -> dict:
        """Let the policy play its own history and write the decisions and rewards, probes included."""
        arms = np.empty(len(self.stream.contexts), dtype=np.int64)
        rewards = np.empty(len(arms))
        policy = self.policy
        for t, x in enumerate(self.stream.contexts):
            if t == self.steps:
                policy = copy.deepcopy(policy)  # what follows is written down, not learned
            arms[t] = arm = policy.select(x)
            rewards[t] = self.stream.reward(t, arm)
            policy.update(arm, x, rewards[t])
        np.savez(path, arms=arms, rewards=rewards)
        return self._learned(arms, rewards)

    def learn(self, *, path: str) -> dict:
        """Learn the history that another policy wrote."""
        with np.load(path) as history:
            arms, rewards = history["arms"], history["rewards"]
        contexts, steps = self.stream.contexts, self.steps
        if hasattr(self.policy, "learn"):
            self.policy.learn(arms[:steps], contexts[:steps], rewards[:steps])
        else:
            for arm, x, reward in zip(
                arms[:steps].tolist(), contexts[:steps], rewards[:steps].tolist(), strict=True
            ):
                self.policy.update(arm, x, reward)
        return self._learned(arms, rewards)

    def _learned(self, arms: np.ndarray, rewards: np.ndarray) -> dict:
        growth = resident_bytes() - self.resident
        steps = self.steps
        rows = zip(arms[steps:].tolist(), self.probes, rewards[steps:].tolist(), strict=True)
        self.observations = list(rows)
        self.twin = copy.deepcopy(self.policy)
        return {"memory_bytes": growth}

    def decide(self, *, n: int) -> dict:
        """Decisions of the learned state on the first `n` probes."""
        return {"arms": [int(self.policy.select(x)) for x in self.probes[:n]]}

    def best(self, *, arms: list[int]) -> dict:
        """Share of `arms`, another policy's decisions on the first probes, that are best here within 1e-9."""
        scores = [self.policy.scores(x) for x in self.probes[: len(arms)]]
        return {
            "share": float(np.mean([s[arm] >= s.max() - 1e-9 for s, arm in zip(scores, arms, strict=True)]))
        }

    def time_select(self, *, n: int, start: int) -> dict:
        """Time `n` selections from probe `start` on, call by call, and again as a plain loop in CPU time."""
        contexts = _cycle(self.probes, start, n + UNTIMED)
        call = self.policy.select
        gc.disable()
        for x in contexts[:UNTIMED]:
            call(x)
        timed, calls = contexts[UNTIMED:], [0] * n
        for i, x in enumerate(timed):
            begin = perf_counter_ns()
            call(x)
            calls[i] = perf_counter_ns() - begin
        begin = process_time_ns()
        for x in timed:
            call(x)
        cpu = process_time_ns() - begin
        gc.enable()
        return {"cpu_ns": cpu / n, "calls_ns": calls}

    def time_update(self, *, n: int, start: int) -> dict:
        """Time `n` updates of the copy, in the same way."""
        observations = _cycle(self.observations, start, n + UNTIMED)
        call = self.twin.update
        gc.disable()
        for arm, x, reward in observations[:UNTIMED]:
            call(arm, x, reward)
        timed, calls = observations[UNTIMED:], [0] * n
        for i, (arm, x, reward) in enumerate(timed):
            begin = perf_counter_ns()
            call(arm, x, reward)
            calls[i] = perf_counter_ns() - begin
        begin = process_time_ns()
        for arm, x, reward in timed:
            call(arm, x, reward)
        cpu = process_time_ns() - begin
        gc.enable()
        return {"cpu_ns": cpu / n, "calls_ns": calls}

    def regret(self, *, arms: int, dim: int, alpha: float, steps: int, seed: int) -> dict:
        """Cumulative regret of a fresh policy on the isotropic stream."""
        stream = isotropic(arms, dim, steps, seed)
        policy = self.module.Peer(arms, dim, alpha, seed)
        played = np.empty(steps, dtype=np.int64)
        for t, x in enumerate(stream.contexts):
            played[t] = arm = policy.select(x)
            policy.update(arm, x, stream.reward(t, arm))
        return {"regret": stream.regret(played)}


def _cycle(items: list, start: int, n: int) -> list:
    return [items[(start + i) % len(items)] for i in range(n)]


def resident_bytes() -> int:
    """Resident memory of this process (Linux, glibc), after freed memory was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(name: str) -> None:
    """Answer commands until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker(name)
    for line in sys.stdin:
        command = json.loads(line)
        answer = getattr(worker, command.pop("do"))(**command)
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
