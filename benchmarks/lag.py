"""How long an event loop stands still beside a router that it serves, shape by shape, default settings.

    OPENBLAS_NUM_THREADS=1 python benchmarks/lag.py [--seconds 20] [--rate 100] [--shapes 15x32,12x768]

Requests come to an asyncio loop at random moments; a decision is made, some milliseconds later the reward is learned.
Both are called on the loop itself, or on four threads of a pool. A ticker beside them sleeps a millisecond at a time
and notes by how much it wakes too late. `Late` is by the clock. `On the loop` is the loop's own CPU time between two
wakings, which other processes of the machine do not lengthen; for a pool it tells of the loop alone. The control has
the same loop and no router.
"""

import argparse
import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from banditroute import LinUCB, Router

SHAPES = ((15, 32), (15, 128), (200, 64), (1000, 128), (12, 768), (12, 1536))
BAR = 10.0  # ms
THREADS, PERIOD_S, ANSWER_S = 4, 0.001, 0.005


class Lags(NamedTuple):
    """Requests served, milliseconds by which each tick was late, and of the loop's CPU time before it."""

    served: int
    late: np.ndarray
    busy: np.ndarray


class Service:
    """A router, what is asked of it and what it earns."""

    def __init__(self, arms: int, dim: int) -> None:
        rng = np.random.default_rng(0)
        self.router = Router(LinUCB(arms, dim, rng=0))
        contexts = rng.standard_normal((2048, dim))
        self.contexts = contexts / np.linalg.norm(contexts, axis=1, keepdims=True)
        self.theta, self.noise = 0.3 * rng.standard_normal((arms, dim)), 0.1 * rng.standard_normal(2048)

    def select(self, i: int) -> tuple[int, float]:
        """Decide request i; its id and reward."""
        x = self.contexts[i % 2048]
        decision = self.router.select(x)
        arm = self.router.policy.positions[decision.arm]
        return decision.id, float(0.5 + self.theta[arm] @ x + self.noise[i % 2048])

    def pair(self, i: int) -> None:
        """Decide and learn."""
        self.router.update(*self.select(i))


async def _ticker(late: list[float], busy: list[float]) -> None:
    while True:
        used, due = time.thread_time(), time.perf_counter() + PERIOD_S
        await asyncio.sleep(PERIOD_S)
        late.append(1e3 * (time.perf_counter() - due))
        busy.append(1e3 * (time.thread_time() - used))


async def _served(service: Service | None, where: str, requests: int, rate: float) -> Lags:
    late: list[float] = []
    busy: list[float] = []
    loop, pool, rng = asyncio.get_running_loop(), ThreadPoolExecutor(THREADS), np.random.default_rng(1)
    count = 0

    async def client(i: int, answer_s: float) -> None:
        nonlocal count
        if service is None:
            await asyncio.sleep(answer_s)
        elif where == "pool":
            asked = await loop.run_in_executor(pool, service.select, i)
            await asyncio.sleep(answer_s)
            await loop.run_in_executor(pool, service.router.update, *asked)
        else:
            asked = service.select(i)
            await asyncio.sleep(answer_s)
            service.router.update(*asked)
        count += 1

    ticker = asyncio.ensure_future(_ticker(late, busy))
    await asyncio.sleep(5 * PERIOD_S)
    late.clear()
    busy.clear()
    clients = []
    for i, wait_s in enumerate(rng.exponential(1.0 / rate, requests).tolist()):
        clients.append(asyncio.ensure_future(client(i, float(rng.exponential(ANSWER_S)))))
        await asyncio.sleep(wait_s)
    await asyncio.gather(*clients)
    await asyncio.sleep(2 * PERIOD_S)
    ticker.cancel()
    pool.shutdown()
    return Lags(count, np.array(late), np.array(busy))


def measured(service: Service | None, where: str, requests: int, rate: float) -> Lags:
    """Serve so many requests at this rate per second, from "coroutines" or from a "pool"; None for no router."""
    return asyncio.run(_served(service, where, requests, rate))


def main() -> None:
    """Print a row per shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each shape and way of serving")
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second")
    parser.add_argument("--shapes", default="", help="such as 15x32,12x768; all when left out")
    options = parser.parse_args()
    Service(2, 2).pair(0)  # compiles
    wanted = [tuple(map(int, shape.split("x"))) for shape in options.shapes.split(",") if shape] or SHAPES

    requests = int(options.rate * options.seconds)
    late_of, busy_of = "late: p50, p99.9, second worst, worst", "on the loop: p99.9, second worst"
    print(f"{requests:,} requests, {options.rate:g} a second; at most {BAR:g} ms")
    print(f"| arms x dim | served from | {late_of} | {busy_of} |")
    print("|---|---|---|---|")
    for shape in (None, *wanted):
        for where in ("coroutines",) if shape is None else ("coroutines", "pool"):
            lags = measured(None if shape is None else Service(*shape), where, requests, options.rate)
            late, busy = np.sort(lags.late), np.sort(lags.busy)
            name = "control" if shape is None else f"{shape[0]} x {shape[1]}"
            print(
                f"| {name} | {where} | {np.median(late):.2f}, {np.percentile(late, 99.9):.2f}, {late[-2]:.2f}, "
                f"{late[-1]:.2f} ms | {np.percentile(busy, 99.9):.2f}, {busy[-2]:.2f} ms |",
                flush=True,
            )


if __name__ == "__main__":
    main()
