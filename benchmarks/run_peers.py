"""Compare this library with others, one request at a time: time per call, memory, regret.

Every library runs in a process and a virtual environment of its own. All learn the same history (the
yardstick's own play), then short timed blocks alternate between them (A B C A B C ...), so that drift of the
machine hits all alike; a ratio is the median over rounds of peer over ours in the same round. BLAS is held to
one thread, garbage collection is off inside blocks. The figure compared is CPU time per call of a plain loop,
which contains one Python frame of the adapter (about 0.03 us) for everybody; medians and tails are of calls
timed one by one, clock included (about 0.05 us).

Usage: ``python benchmarks/run_peers.py [--quick] [--peers a,b] [--out FILE]``.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from machine import machine
from peers import OTHERS, OURS, YARDSTICK
from peers.process import BENCHMARKS, Conversation, PeerFailed
from peers.tables import show, tables
from scipy.stats import t as student

PLAIN = (("clustered", 0.3),)
BOTH = (("clustered", 0.3), ("clustered", 1.0))
ALL = (("clustered", 0.3), ("clustered", 1.0), ("isotropic", 0.3))
SLOW = {"mabwiser": 10}  # seeds at most, of libraries that take seconds a seed
ENOUGH = 300  # calls below which a 99th percentile says nothing


@dataclass(frozen=True)
class Shape:
    """Arms and dimension, whether other libraries run there, streams and alphas of ours and the yardstick."""

    arms: int
    dim: int
    others: bool
    variants: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Plan:
    """How much is run. Times in seconds; `steps` requests are learned before anything is timed."""

    shapes: tuple[Shape, ...]
    steps: int = 10_000
    probes: int = 1_000
    rounds: int = 15
    block_s: float = 0.01
    regret_steps: int = 5_000
    regret_seeds: int = 20


FULL = Plan(
    shapes=(
        Shape(15, 32, True, ALL),
        Shape(15, 128, False, BOTH),
        Shape(15, 384, False, BOTH),
        Shape(50, 64, True, BOTH),
        Shape(200, 64, True, ALL),
        Shape(1000, 32, True, ALL),
        Shape(1000, 128, False, BOTH),
    )
)
QUICK = Plan(
    shapes=(Shape(15, 32, True, PLAIN), Shape(200, 64, False, PLAIN)),
    steps=2_000, probes=300, rounds=5, regret_steps=1_000, regret_seeds=3,
)  # fmt: skip


def say(*words: object) -> None:
    """Progress, on standard error."""
    print(f"[{time.strftime('%H:%M:%S')}]", *words, file=sys.stderr, flush=True)


def measure(plan: Plan, shape: Shape, names: list[str], failed: dict[str, str]) -> list[dict]:
    """Rows of one shape, one for each variant and peer; peers that fail are left out and put in `failed`."""
    rows = []
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        talks = {}
        for name in names:
            if name in (OURS, YARDSTICK) or (shape.others and name not in failed):
                talks[name] = stack.enter_context(Conversation(name))
        for index, (stream, alpha) in enumerate(shape.variants):
            here = {name: talk for name, talk in talks.items() if index == 0 or name in (OURS, YARDSTICK)}
            say(f"{shape.arms} x {shape.dim}, {stream}, alpha {alpha}:", ", ".join(here))
            setup = {"arms": shape.arms, "dim": shape.dim, "stream": stream, "alpha": alpha}
            rows += _variant(plan, setup, here, Path(folder) / "history.npz", failed)
    return rows


def _variant(
    plan: Plan, setup: dict, talks: dict[str, Conversation], path: Path, failed: dict[str, str]
) -> list:
    rows = {}
    for name in sorted(talks, key=YARDSTICK.__ne__):  # the yardstick first: it writes the history others read
        talk = talks[name]
        try:
            talk.ask("setup", **setup, steps=plan.steps, probes=plan.probes, seed=0)
            learned = talk.ask("play" if name == YARDSTICK else "learn", path=str(path))
            best = talks[YARDSTICK].ask("best", arms=talk.ask("decide", n=200)["arms"])
            blocks = {}
            for kind in ("select", "update"):
                pilot = talk.ask(f"time_{kind}", n=5, start=0)["calls_ns"]
                n = int(np.clip(plan.block_s * 1e9 / np.median(pilot), 5, 1_000))
                blocks[kind] = {"n": n, "cpu_ns": [], "calls_ns": []}
        except PeerFailed as error:
            _give_up(error, name, failed)
            continue
        known = {"best_share": best["share"], "memory_bytes": learned["memory_bytes"]}
        rows[name] = {"peer": name, **setup, **known, **blocks}
    for kind in ("select", "update"):
        for round_ in range(plan.rounds):
            for name, row in rows.items():
                n = row[kind]["n"]
                block = talks[name].ask(f"time_{kind}", n=n, start=round_ * n)
                row[kind]["cpu_ns"].append(block["cpu_ns"])
                row[kind]["calls_ns"] += block["calls_ns"]
        ours = rows[OURS][kind]["cpu_ns"] if OURS in rows else None
        summaries = {name: summary(row[kind], ours) for name, row in rows.items()}
        for name, row in rows.items():
            row[kind] = summaries[name]
    return list(rows.values())


def _give_up(error: PeerFailed, name: str, failed: dict[str, str]) -> None:
    if name in (OURS, YARDSTICK):
        raise error
    say("left out:", error)
    failed[name] = str(error)


def summary(block: dict, ours_cpu_ns: list[float] | None) -> dict:
    """Figures in us: CPU per call (median and quartiles over rounds), single calls; and the ratio to ours."""
    cpu, calls = np.array(block["cpu_ns"]) / 1e3, np.array(block["calls_ns"]) / 1e3
    return {
        "cpu_us": float(np.median(cpu)),
        "cpu_us_quartiles": np.quantile(cpu, [0.25, 0.75]).tolist(),
        "median_us": float(np.median(calls)),
        "p99_us": float(np.quantile(calls, 0.99)) if len(calls) >= ENOUGH else None,
        "min_us": float(calls.min()),
        "calls": len(calls),
        "ratio": float(np.median(cpu * 1e3 / np.array(ours_cpu_ns))) if ours_cpu_ns else None,
    }


def regrets(plan: Plan, names: list[str], failed: dict[str, str]) -> list[dict]:
    """Cumulative regret over common seeds, and its paired difference to ours with a 95 % t interval."""
    problem = {"arms": 15, "dim": 16, "alpha": 1.0, "steps": plan.regret_steps}
    found: dict[str, np.ndarray] = {}
    for name in names:
        if name in failed:
            continue
        seeds, begin = range(min(plan.regret_seeds, SLOW.get(name, plan.regret_seeds))), time.perf_counter()
        try:
            with Conversation(name) as talk:
                found[name] = np.array([talk.ask("regret", seed=s, **problem)["regret"] for s in seeds])
        except PeerFailed as error:
            _give_up(error, name, failed)
            continue
        say(f"regret of {name}: {found[name].mean():.1f} in {time.perf_counter() - begin:.0f} s")
    rows = []
    for name, values in found.items():
        row = problem | {"peer": name, "seeds": len(values), "mean": float(values.mean())}
        row["values"] = values.tolist()
        if OURS in found:
            difference = values - found[OURS][: len(values)]
            half = student.ppf(0.975, len(values) - 1) * difference.std(ddof=1) / np.sqrt(len(values))
            row |= {"difference": float(difference.mean()), "half_width": float(half)}
        rows.append(row)
    return rows


def main() -> None:
    """Run the plan and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two small shapes, a short history, three seeds")
    parser.add_argument(
        "--peers", default=",".join([OURS, YARDSTICK, *OTHERS]), help="comma-separated adapters"
    )
    parser.add_argument(
        "--out", type=Path, help="default: benchmarks/results/peers.json, or out/peers-quick.json"
    )
    options = parser.parse_args()
    plan = QUICK if options.quick else FULL
    out = options.out or BENCHMARKS.parent / (
        "out/peers-quick.json" if options.quick else "benchmarks/results/peers.json"
    )
    names, failed, about = options.peers.split(","), {}, {}
    if YARDSTICK not in names:
        parser.error(f"--peers must contain {YARDSTICK}: it writes the history that all learn")
    where, begin = machine(), time.perf_counter()
    for name in names:
        try:
            with Conversation(name) as talk:
                about[name] = talk.ask("about")
        except PeerFailed as error:
            _give_up(error, name, failed)
    timing = [row for shape in plan.shapes for row in measure(plan, shape, names, failed)]
    regret = regrets(plan, names, failed)
    made = tables(timing, regret, about, failed, where)
    result = {
        "machine": where,
        "seconds": round(time.perf_counter() - begin),
        "peers": about,
        "left_out": failed,
    }
    result |= {
        "protocol": " ".join(__doc__.split("\n\n")[1].split()),
        "timing": timing,
        "regret": regret,
        "tables": made,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    show(made)
    say(f"wrote {out} after {result['seconds']} s")


if __name__ == "__main__":
    main()
