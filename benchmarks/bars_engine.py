"""The engine's bars, one line each: accuracy after a million updates, scan bandwidth, router, simulation, import.

Times are CPU time in alternated blocks, medians, on one core; speed against a numpy reference and against other
libraries is in run_peers.py.

    python benchmarks/bars_engine.py [--updates 1000000] [--out FILE]
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numba
import numpy as np
from machine import machine

from banditroute import LRU, DiagLinUCB, LinTS, LinUCB, Polar, Problem, Router, Stream, simulate, warmup
from banditroute._core.kernels import loop
from banditroute._core.kernels import rows as reading


def blocks(pairs: dict, rounds: int = 15) -> dict[str, float]:
    """Median CPU seconds of each callable, run in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in pairs}
    gc.disable()
    for _ in range(rounds):
        for name, call in pairs.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    gc.enable()
    return {name: float(np.median(values)) for name, values in seconds.items()}


def width_error(policy: LinUCB, arm: int, contexts: np.ndarray) -> float:
    """Largest relative error of the width against a fresh solve from the statistics."""
    fresh = np.sqrt(np.einsum("ni,in->n", contexts, np.linalg.solve(policy.precision(arm), contexts.T)))
    mine = np.array([policy.scores(x).width[arm] for x in contexts])
    return float(np.max(np.abs(mine - fresh) / fresh))


def stability(updates: int) -> dict[str, float]:
    """Width errors after many updates, and the windup of directions that nothing excites."""
    rng = np.random.default_rng(0)
    out = {}
    for discount in (1.0, 0.999):
        policy = LinUCB(2, 32, alpha=0.3, ridge=1.0, prior=None, discount=discount, rng=0)
        for _ in range(updates // 10_000):
            x = rng.normal(size=(10_000, 32)) / np.sqrt(32)
            loop.learn_rows(policy.buffer, np.zeros(10_000, np.int64), x, rng.normal(size=10_000))
        out[f"width error, discount {discount:g}"] = width_error(policy, 0, rng.normal(size=(200, 32)))
    policy = LinUCB(1, 32, alpha=0.3, ridge=1.0, prior=None, rng=0)
    line = rng.normal(size=32)
    line /= np.linalg.norm(line)
    for _ in range(updates // 10_000):
        x = 1e3 * (line + 1e-3 * rng.normal(size=(10_000, 32)))
        loop.learn_rows(policy.buffer, np.zeros(10_000, np.int64), x, rng.normal(size=10_000))
    probes = np.vstack([rng.normal(size=(200, 32)), 1e3 * (line + 1e-3 * rng.normal(size=(200, 32)))])
    out["width error, near-collinear, norm 1e3"] = width_error(policy, 0, probes)
    policy = LinUCB(1, 8, alpha=0.3, ridge=1.0, prior=None, discount=0.99, rng=0)
    x = np.zeros((10_000, 8))
    x[:, 0] = 1.0
    for _ in range(updates // 10_000):
        loop.learn_rows(policy.buffer, np.zeros(10_000, np.int64), x, np.ones(10_000))
    eye = np.eye(8)
    widths = np.array([policy.scores(e).width[0] for e in eye])
    out["windup: largest width off the excited axis less 1 / sqrt(ridge)"] = float(
        np.max(np.abs(widths[1:] - 1.0))
    )
    return out


@numba.njit(fastmath=True)
def total(numbers: np.ndarray) -> float:
    """numbers: (n,) -> their sum, in whatever order is fastest."""
    found = 0.0
    for i in range(numbers.size):
        found += numbers[i]
    return found


def bandwidth() -> dict[str, float]:
    """Full scan of all widths against a compiled, vectorised sum of the same bytes: the fastest one core can read."""
    out = {}
    for arms, dim in ((15, 384), (200, 64), (1000, 32), (1000, 128)):
        policy = LinUCB(arms, dim, alpha=0.3, ridge=1.0, prior=None, rng=0)
        x = np.random.default_rng(0).normal(size=dim)
        given = (policy.buffer, x, np.empty(arms), np.empty(arms))
        flat = policy.state.cov.ravel()
        total(flat)
        times = blocks({"scan": partial(reading.predict, *given), "read": partial(total, flat)}, 41)
        out[f"scan at ({arms}, {dim}): share of the read limit"] = times["read"] / times["scan"]
        out[f"scan at ({arms}, {dim}), GB/s"] = flat.nbytes / times["scan"] / 1e9
    return out


def clustered(arms: int, dim: int, length: int, seed: int = 0) -> Stream:
    """Unit contexts around twelve centres, each arm best near one of them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(12, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    x = centres[rng.integers(12, size=length)] + 0.15 * rng.normal(size=(length, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    theta = 0.55 * centres[rng.integers(12, size=arms)] + 0.1 * rng.normal(size=(arms, dim)) / np.sqrt(dim)
    means = x @ theta.T
    return Stream(x, means, means + 0.1 * rng.normal(size=(length, 1)), tuple(str(i) for i in range(arms)))


def router() -> dict[str, float]:
    """One decision and its feedback through a Router with residency, prices, ledger and lock at (15, 32)."""
    stream = clustered(15, 32, 20_000)
    prices = np.full(15, 0.01)
    out = {}
    for name, residency in (("Polar", Polar(4, epoch=10**9)), ("LRU", LRU(4))):
        routing = Router(LinUCB(15, 32, alpha=0.3, ridge=0.1, rng=0), residency, 0.2)
        bare = Router(LinUCB(15, 32, alpha=0.3, ridge=0.1, rng=0))
        rows = [np.ascontiguousarray(x) for x in stream.contexts]

        def pairs(target: Router, rows: list = rows, **given: object) -> None:
            for x in rows[:2000]:
                target.update(target.select(x, **given).id, 0.5)

        pairs(routing)
        times = blocks(
            {
                "residency": lambda r=routing: pairs(r),
                "residency and prices": lambda r=routing: pairs(r, prices=prices),
                "plain": lambda r=bare: pairs(r),
            }
        )
        out.update({f"Router select + update, {name}, {k}, us": v / 2000 * 1e6 for k, v in times.items()})
    return out


def simulation() -> dict[str, float]:
    """Steps per second of the compiled loop at (15, 32), one core."""
    stream = clustered(15, 32, 200_000)
    problem = Problem(stream, np.full(15, 0.2), np.full(15, 0.2), 4)
    times = blocks(
        {
            "no residency": lambda: simulate(LinUCB(15, 32, alpha=0.3, ridge=0.1, prior=None, rng=0), stream),
            "Polar, epoch 500": lambda: simulate(
                LinUCB(15, 32, alpha=0.3, ridge=0.1, prior=None, rng=0),
                problem,
                Polar(4, epoch=500, sample=512),
            ),
        },
        5,
    )
    return {f"simulated steps per second, {k}": len(stream) / v for k, v in times.items()}


def starting() -> dict[str, float]:
    """Import against its parts, and warmup with an empty and with a full disk cache, in fresh processes."""
    bytecode = ""

    def process(code: str, **env: str) -> float:
        # With bytecode kept, as an installed package has it.
        given = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": bytecode, **env}
        done = subprocess.run(
            [sys.executable, "-c", code], env=given, capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    parts = (
        "import time; t = time.process_time(); import numpy, numba, pydantic; print(time.process_time() - t)"
    )
    ours = "import time; t = time.process_time(); import banditroute; print(time.process_time() - t)"
    warm = "import time, banditroute; t = time.{}(); banditroute.warmup(); print(time.{}() - t)"
    with tempfile.TemporaryDirectory() as folder:
        bytecode = folder
        process(ours)
        ratios = [process(ours) / process(parts) for _ in range(9)]
        cold = process(warm.format("process_time", "process_time"), NUMBA_CACHE_DIR=folder)
        again = [
            process(warm.format("process_time", "process_time"), NUMBA_CACHE_DIR=folder) for _ in range(5)
        ]
    return {
        "import over numpy + numba + pydantic": float(np.median(ratios)),
        "warmup, cold cache, CPU s": cold,
        "warmup, warm cache, CPU s": float(np.median(again)),
    }


def first_call() -> dict[str, float]:
    """First select and update after `warmup` against the median of the next thousand."""
    warmup()
    policy = LinUCB(15, 32, alpha=0.3, ridge=1.0, rng=0)
    x = np.random.default_rng(0).normal(size=32)
    spans = []
    for _ in range(1001):
        start = time.perf_counter_ns()
        policy.select(x)
        policy.update(0, x, 0.5)
        spans.append(time.perf_counter_ns() - start)
    return {
        "first select + update, us": spans[0] / 1e3,
        "the next thousand, median us": float(np.median(spans[1:])) / 1e3,
    }


def relatives() -> dict[str, float]:
    """LinTS, Diag-LinUCB and batches beside LinUCB, microseconds of CPU per decision at t = 10,000."""
    out = {}
    for arms, dim in ((15, 32), (1000, 32)):
        stream = clustered(arms, dim, 12_000)
        rows = [np.ascontiguousarray(x) for x in stream.contexts[10_000:]]
        calls = {}
        for name, policy in (
            ("LinUCB", LinUCB(arms, dim, alpha=0.3, ridge=1.0, prior=None, rng=0)),
            ("LinUCB, alpha 1", LinUCB(arms, dim, alpha=1.0, ridge=1.0, prior=None, rng=0)),
            ("LinTS", LinTS(arms, dim, alpha=0.3, ridge=1.0, prior=None, propensities=False, rng=0)),
            ("Diag-LinUCB", DiagLinUCB(arms, dim, alpha=0.3, ridge=1.0, prior=None, rng=0)),
        ):
            for x, rewards in zip(stream.contexts[:10_000], stream.rewards, strict=False):
                arm = policy.select(x).arm
                policy.update(arm, x, float(rewards[arm]))
            calls[f"{name} select"] = partial(_each, policy.select, rows)
            calls[f"{name} select_batch"] = partial(policy.select_batch, np.array(rows))
            other = policy.copy()
            calls[f"{name} update"] = partial(_each, partial(_update, other), rows)
        times = blocks(calls, 9)
        out.update({f"{name} at ({arms}, {dim}), us": v / len(rows) * 1e6 for name, v in times.items()})
    return out


def _each(call: Callable, rows: list) -> None:
    for x in rows:
        call(x)


def _update(policy: LinUCB, x: np.ndarray) -> None:
    policy.update(3, x, 0.5)


def memory() -> dict[str, float]:
    """Derived state per arm over 1.2 (d^2 / 2 + 8 d) numbers: at most one is the bar."""
    out = {}
    for dim in (32, 64, 128, 384):
        state = LinUCB(2, dim).state
        derived = state.pack + 2 * state.pad + 4  # cov, theta, prior, radius, spread, error, tighten
        out[f"derived numbers per arm at dim {dim}, over the bar"] = derived / (
            1.2 * (dim * dim / 2 + 8 * dim)
        )
    return out


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--updates", type=int, default=1_000_000)
    results = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=results / "engine.json")
    given = parser.parse_args()
    figures: dict[str, float] = {}
    parts = (
        partial(stability, given.updates),
        first_call,
        memory,
        bandwidth,
        relatives,
        router,
        simulation,
        starting,
    )
    for part in parts:
        found = part()
        for name, value in found.items():
            print(f"{name:75s} {value:.4g}", flush=True)
        figures.update(found)
    place = machine()
    note = f"{place['processor']}, {place['cores']} cores, load {place['load_average']} at the end; {place['date']}."
    rows = [[name, value if isinstance(value, str) else float(value)] for name, value in figures.items()]
    table = {
        "columns": ["what", "measured"],
        "rows": rows,
        "note": "CPU time, medians of alternated blocks. " + note,
    }
    result = {"machine": place, "figures": figures, "tables": {"engine": table}}
    given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
