"""Tail of `Router.select`: residency epochs in the background against none, in the same run.

    python benchmarks/tail.py [--requests 1000000] [--epoch 20000]

Two routers serve the same contexts, each with as many requests as asked for; blocks of them alternate, so that both
meet the same machine. One plans in a background thread, the other never does. Each call is timed by
`perf_counter_ns`, with the garbage collector off. Feedback is given between the timed calls. Where other processes
share the cores their time slices are the tail; the calm blocks are then the ones to look at.

Why an epoch of 20,000 requests: the loop asks as fast as it can, tens of thousands of requests a second, so that
epoch means several plans a second, more than a server of adapters would make (an epoch of 500 at 50 requests a
second is one plan in ten seconds). A plan costs the same wherever it comes, so what counts is its share of the time.
"""

import argparse
import gc
import json
import sys
from time import perf_counter_ns

import numpy as np

from banditroute import LinUCB, Polar, Router

ARMS, DIM, SLOTS, BLOCK = 15, 32, 4, 20_000
POINTS = (50.0, 99.0, 99.9, 99.99)


def serve(router: Router, contexts: np.ndarray, rewards: np.ndarray, out: np.ndarray) -> None:
    """Time `select` of every context; learn in between."""
    select, update = router.select, router.update
    for i, x in enumerate(contexts):
        before = perf_counter_ns()
        decision = select(x)
        out[i] = perf_counter_ns() - before
        update(decision.id, rewards[i])


def main() -> int:
    """Print the percentiles of both and the ratio at p99.9."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--epoch", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    contexts = rng.standard_normal((BLOCK, DIM))
    contexts /= np.linalg.norm(contexts, axis=1, keepdims=True)
    rewards = rng.uniform(0.0, 1.0, BLOCK)
    routers = {
        name: Router(LinUCB(ARMS, DIM, rng=0), Polar(SLOTS, epoch=epoch), 0.1, maintenance="background")
        for name, epoch in (("epochs off", 10**12), ("epochs on", given.epoch))
    }
    blocks = -(-given.requests // BLOCK)
    times = {name: np.empty((blocks, BLOCK), dtype=np.int64) for name in routers}
    scratch = np.empty(BLOCK, dtype=np.int64)
    gc.disable()
    for router in routers.values():  # warm up: compiled code, first plan
        for _ in range(2):
            serve(router, contexts, rewards, scratch)
    for block in range(blocks):
        for name in sorted(routers, reverse=bool(block % 2)):
            serve(routers[name], contexts, rewards, times[name][block])
    gc.enable()
    plans = routers["epochs on"].stats()["epoch"]
    seconds = times["epochs on"].sum() / 1e9
    for router in routers.values():
        router.close()
    table = {name: np.percentile(t, POINTS) / 1e3 for name, t in times.items()}
    ratio = float(table["epochs on"][2] / table["epochs off"][2])
    # Of each block's p99.9, the lower quartile: on a shared machine the rest tells of other processes.
    calm = {name: float(np.percentile(np.percentile(t, 99.9, axis=1), 25) / 1e3) for name, t in times.items()}
    if given.json:
        figures = {n: list(v) for n, v in table.items()}
        json.dump({"us": figures, "ratio": ratio, "calm_us": calm, "plans": plans}, sys.stdout)
        return 0
    print(
        f"select, microseconds; {blocks * BLOCK} requests each, {ARMS} arms, d = {DIM}, epoch {given.epoch}"
    )
    print(f"{'':12}" + "".join(f"{f'p{p:g}':>10}" for p in POINTS))
    for name, row in table.items():
        print(f"{name:12}" + "".join(f"{v:10.1f}" for v in row))
    print(f"{plans} plans, {seconds / max(plans, 1):.2f} s of selects apart; p99.9 ratio {ratio:.2f}")
    on, off = calm["epochs on"], calm["epochs off"]
    print(f"calm blocks (lower quartile of their p99.9): off {off:.1f}, on {on:.1f}, ratio {on / off:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
