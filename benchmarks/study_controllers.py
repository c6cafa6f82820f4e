"""Measure residency controllers: workload families x controllers x seeds, with the same router and requests.

    python benchmarks/study_controllers.py run --seeds 20 --out controllers.jsonl     # resumable
    python benchmarks/study_controllers.py table controllers.jsonl
    python benchmarks/study_controllers.py gaps        # worst case over a grid of gap scales
    python benchmarks/study_controllers.py recovery    # share served from residents after a shift of popularity
    python benchmarks/study_controllers.py speed       # one million requests of the study loop

Regret is against the best fixed set with perfect routing, loads included. `BANDITROUTE_DATA` names the directory of
the recorded data; families that need them are left out without it.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from banditroute import (
    FIFO,
    FTPL,
    GDSF,
    LFU,
    LRU,
    SIEVE,
    DecayedLFU,
    LinUCB,
    Polar,
    Popularity,
    ResidentOnly,
    Static,
)
from banditroute.regret import interval, regret, slope
from banditroute.residency import Controller
from banditroute.residency.polar_plus import PolarPlus
from banditroute.residency.polaris import Polaris
from banditroute.simulate import simulate
from banditroute.stream import Problem, best_static_set, value_with
from banditroute.workloads import FAMILIES, homes

SCALES = (1.0, 0.5, 0.25, 0.12, 0.06, 0.03)


def oracle(problem: Problem, best: tuple[int, ...]) -> Controller:
    """Keep the set that is best in hindsight."""
    controller = Static(best)
    controller.capacity = float(problem.capacity)
    return controller


def popular(problem: Problem) -> Controller:
    """Keep the arms that would be used most by a router that knew every mean, were everything resident."""
    uses = np.bincount(problem.stream.means.argmax(axis=1), minlength=len(problem.stream.arms))
    return Popularity(problem.capacity, uses.astype(np.float64))


BASELINES: dict[str, Callable[[Problem], Controller]] = {
    "LRU": lambda p: LRU(p.capacity),
    "FIFO": lambda p: FIFO(p.capacity),
    "SIEVE": lambda p: SIEVE(p.capacity),
    "LFU": lambda p: LFU(p.capacity),
    "DecayedLFU": lambda p: DecayedLFU(p.capacity),
    "GDSF": lambda p: GDSF(p.capacity, p.faults),
    "FTPL": lambda p: FTPL(p.capacity, rng=1),
    "ResidentOnly": lambda p: ResidentOnly(Polar(p.capacity, 200)),
}
OURS: dict[str, Callable[[Problem], Controller]] = {
    "Polar": lambda p: Polar(p.capacity),
    "PolarPlus": lambda p: PolarPlus(p.capacity, rng=1),
    "Polaris": lambda p: Polaris(p.capacity),
}
HINDSIGHT = {"popularity": popular, "oracle": None}


@lru_cache(maxsize=1)  # the controllers of a family and seed are run one after the other
def posed(family: str, seed: int, length: int, scale: float) -> tuple[Problem, tuple[int, ...]]:
    """Return the problem and its best fixed set."""
    problem = homes(length, seed, scale=scale) if family == "gaps" else FAMILIES[family](length, seed)
    return problem, best_static_set(problem.stream, problem.capacity, problem.faults, sizes=problem.sizes)


def cell(family: str, name: str, seed: int, length: int, scale: float = 1.0) -> dict[str, Any]:
    """Run one controller on one family and seed."""
    problem, best = posed(family, seed, length, scale)
    stream = problem.stream
    policy = LinUCB(stream.arms, stream.dim, rng=seed)
    start = time.process_time()
    if name == "random":
        policy = LinUCB(stream.arms, stream.dim, mix=1.0, rng=seed)
    if (
        name == "textbook"
    ):  # the oracle's set with the router of the theory: no pooled prior, nothing estimated
        policy = LinUCB(stream.arms, stream.dim, alpha=0.3, ridge=1.0, prior=None, rng=seed)
    if name in ("oracle", "random", "textbook"):
        controller = oracle(problem, best)
    else:
        controller = {**BASELINES, **OURS, "popularity": popular}[name](problem)
    run = simulate(policy, problem, controller)
    seconds = time.process_time() - start
    parts = regret(run, problem, best)
    total = parts.total
    times = np.unique(np.geomspace(len(stream) / 128, len(stream), 33).astype(int))
    return {
        "family": family, "controller": name, "seed": seed, "length": length, "scale": scale,
        "regret": parts.final, "route": parts.route[-1], "residency": parts.residency[-1],
        "switching": parts.switching[-1], "hits": float(run.hits.mean()), "page_ins": run.page_ins,
        "forced": run.forced, "cpu_s": seconds,
        "slope": slope(total) if (total[len(stream) // 32 :] > 0).all() else None,
        "value": float(value_with(stream, list(best), problem.faults).sum()),
        "curve": np.round(total[times - 1], 1).tolist(),
    }  # fmt: skip


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """Identify a cell."""
    return row["family"], row["controller"], row["seed"], row["length"], row["scale"]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Read what has been measured."""
    if path.exists():
        for line in path.read_text().splitlines():
            yield json.loads(line)


def available(family: str) -> bool:
    """Tell whether the data of a family are there."""
    try:
        FAMILIES[family](64, 0)
    except FileNotFoundError:
        return False
    return True


def measure(tasks: list[tuple[Any, ...]], path: Path, jobs: int) -> None:
    """Run the cells that `path` does not hold yet, and append them as they are done."""
    known = {key(row) for row in rows(path)}
    todo = [t for t in tasks if t not in known]
    print(f"{len(tasks) - len(todo)} cells known, {len(todo)} to run", flush=True)
    calls = (partial(cell, f, n, s, t, g) for f, n, s, t, g in todo)
    if jobs == 1:
        results: Iterator[dict[str, Any]] = (call() for call in calls)
    else:
        from joblib import Parallel, delayed

        results = Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(call)() for call in calls)
    start = time.time()
    with path.open("a") as file:
        for done, row in enumerate(results, 1):
            file.write(json.dumps(row) + "\n")
            file.flush()
            if done % 100 == 0:
                print(f"{done} of {len(todo)} cells, {time.time() - start:.0f} s", flush=True)


def table(path: Path) -> None:
    """Print regret per family, paired differences with the best online baseline, and the bars."""
    by: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
    for row in rows(path):
        if row["family"] != "gaps":
            by.setdefault(row["family"], {}).setdefault(row["controller"], {})[row["seed"]] = row
    ratios, bad = [], []
    print(
        f"{'family':22s} seeds  oracle   Polar  Polar+ Polaris     LRU  best base         Polaris - 1.05 best [95 %]"
    )
    for family, runs in by.items():
        seeds = sorted(set.intersection(*(set(r) for r in runs.values())))
        if not seeds or not {*BASELINES, *OURS, "oracle"} <= set(runs):
            continue
        value = {n: np.array([r[s]["regret"] for s in seeds]) for n, r in runs.items()}
        mean = {n: float(v.mean()) for n, v in value.items()}
        base = min(BASELINES, key=lambda n: mean[n])
        excess, low, high = interval(value["Polaris"] - value[base] - 0.05 * abs(mean[base]))
        ratios.append(mean["Polaris"] / mean["LRU"] if mean["LRU"] > 0 else np.nan)
        mark = "" if excess <= 0 else ("  above, unsure" if low <= 0 else "  ABOVE")
        if mark:
            bad.append(family)
        shown = "".join(f"{mean[n]:8.0f}" for n in ("oracle", "Polar", "PolarPlus", "Polaris", "LRU"))
        print(
            f"{family:22s} {len(seeds):5d}{shown}{mean[base]:8.0f} {base:12s} "
            f"{excess:8.1f} "
            f"[{low:.1f}, {high:.1f}]{mark}"
        )
    known = [r for r in ratios if np.isfinite(r)]
    print(f"Polaris over LRU, median family (of {len(known)} where LRU has regret): {np.median(known):.2f}")
    print(f"families above 1.05 of the best online baseline: {', '.join(bad) or 'none'}")
    if "homes" in by and {*OURS, "LRU", "oracle"} <= set(by["homes"]):
        share(by["homes"])


def share(runs: dict[str, dict[int, dict[str, Any]]]) -> None:
    """Print the bars of the basic family."""
    seeds = sorted(set.intersection(*(set(r) for r in runs.values())))
    value = {n: np.array([runs[n][s]["regret"] for s in seeds]) for n in runs}
    for name in OURS:
        part = (value[name] - value["oracle"]) / (value["LRU"] - value["oracle"])
        slopes = [runs[name][s]["slope"] for s in seeds if runs[name][s]["slope"] is not None]
        loads = max(runs[name][s]["page_ins"] for s in seeds)
        print(f"homes {name:10s} (R - oracle) / (LRU - oracle) median {np.median(part):.3f}, slope mean "
              f"{np.mean(slopes):.2f} max {np.max(slopes):.2f}, page-ins at most {loads}")  # fmt: skip


def gaps(seeds: int, jobs: int, path: Path) -> None:
    """Print, for each controller, the slope in T of the worst mean regret over the gap scales."""
    lengths = (2048, 8192, 32768)
    names = ("textbook", "oracle", "PolarPlus", "Polar", "Polaris", "LRU", "random")
    measure(
        [("gaps", n, s, t, g) for n in names for t in lengths for g in SCALES for s in range(seeds)],
        path,
        jobs,
    )
    for name in names:
        worst, where = [], []
        for length in lengths:
            found = {}
            for g in SCALES:
                own = [
                    r["regret"]
                    for r in rows(path)
                    if key(r)[:2] == ("gaps", name) and key(r)[3:] == (length, g)
                ]
                found[g] = float(np.mean(own))
            where.append(max(found, key=found.__getitem__))
            worst.append(found[where[-1]])
        steep = np.polyfit(np.log(lengths), np.log(worst), 1)[0]
        print(
            f"{name:10s} worst {' '.join(f'{w:7.0f}' for w in worst)}  slope {steep:.2f}  at scales {where}"
        )


def recovery(seeds: int) -> None:
    """Print the share served from residents around shifts of popularity: abrupt ones, client rates of ServeGen."""
    for name, make in OURS.items():
        before, after = [], []
        for seed in range(seeds):
            length = 32768
            problem = FAMILIES["servegen"](length, seed)
            half, order = length // 2, np.random.default_rng(seed).permutation(12)
            groups = problem.stream.groups.copy()
            groups[half:] = order[
                groups[half:]
            ]  # the same client series, carried by other centres from here on
            shifted = homes(length, seed, popularity=lambda shares, count, rng, g=groups: g)
            run = simulate(LinUCB(15, 10, rng=seed), shifted, make(shifted))
            before.append(run.hits[half - 2000 : half].mean())
            after.append([run.hits[half + a : half + a + 250].mean() for a in range(0, 2000, 250)])
        level, course = float(np.mean(before)), np.mean(after, axis=0)
        own = np.array(after)[:, 3] >= 0.9 * np.array(before)
        print(f"{name:10s} before {level:.3f}, after, per 250 requests: {np.round(course / level, 2)} of that; "
              f"at 750 .. 1000: {own.mean():.0%} of seeds at 0.9 or more")  # fmt: skip


def speed() -> None:
    """Print the time of a million requests with POLAR-style epochs."""
    problem = homes(1_000_000, 0, dim=32)
    for name, make in {
        "Polar(4, 500, sample=512)": lambda: Polar(4, 500, sample=512),
        "Polaris(4)": lambda: Polaris(4),
    }.items():
        simulate(LinUCB(15, 32, rng=0), homes(2000, 0, dim=32), make())
        start, cpu = time.perf_counter(), time.process_time()
        simulate(LinUCB(15, 32, rng=0), problem, make())
        print(f"{name:26s} {time.process_time() - cpu:.2f} s CPU, {time.perf_counter() - start:.2f} s")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table", "gaps", "recovery", "speed"))
    parser.add_argument("--out", type=Path, default=Path("controllers.jsonl"))
    parser.add_argument("--families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--controllers", nargs="*", default=[*OURS, *BASELINES, *HINDSIGHT])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--length", type=int, default=32_768)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    if given.what == "run":
        families = [f for f in given.families if available(f)]
        seeds = range(given.first, given.first + given.seeds)
        tasks = [(f, n, s, given.length, 1.0) for s in seeds for f in families for n in given.controllers]
        measure(tasks, given.out, given.jobs)
    if given.what in ("run", "table"):
        table(given.out)
    if given.what == "gaps":
        gaps(given.seeds, given.jobs, given.out)
    if given.what == "recovery":
        recovery(given.seeds)
    if given.what == "speed":
        speed()


if __name__ == "__main__":
    main()
