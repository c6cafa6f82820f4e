"""Measure residency controllers: workload families x controllers x seeds, with the same router and requests.

    python benchmarks/study_controllers.py run --seeds 20 --out out/controllers.jsonl    # resumable
    python benchmarks/study_controllers.py table --out out/controllers.jsonl
    python benchmarks/study_controllers.py gaps --out out/gaps.jsonl             # worst case over a grid of gap scales
    python benchmarks/study_controllers.py recovery --out out/recovery.jsonl     # hits after a shift of popularity
    python benchmarks/study_controllers.py speed --out out/speed.json            # a million requests of the study loop
    python benchmarks/study_controllers.py optimiser --out out/optimiser.json    # quality and time of the search

`--first` is the first seed. Constants were chosen on seeds below 20, so figures come from seeds 100 and above.
`study_page.py` makes tables and pictures of the files. Regret is against the best fixed set with perfect routing, loads
included; it is negative where following the traffic beats every fixed set. `BANDITROUTE_DATA` names the directory of
the recorded data; families that need them are left out without it.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from recorded import WORKLOADS

from banditroute import (
    LFU,
    LRU,
    Controller,
    LinUCB,
    Polar,
    Polaris,
    PolarPlus,
    Problem,
    Static,
    regret,
    simulate,
)
from banditroute.residency import (
    FIFO,
    FTPL,
    GDSF,
    SIEVE,
    DecayedLFU,
    Popularity,
    ResidentOnly,
    best_set,
    objective,
)
from banditroute.simulation import best_static_set, homes, interval, slope, value_with

SCALES = (1.0, 0.5, 0.25, 0.12, 0.06, 0.03)
LENGTHS = (2048, 8192, 32768)
FILES = {
    "run": Path("out/controllers.jsonl"),
    "table": Path("out/controllers.jsonl"),
    "gaps": Path("out/gaps.jsonl"),
    "recovery": Path("out/recovery.jsonl"),
    "speed": Path("out/speed.json"),
    "optimiser": Path("out/optimiser.json"),
}


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
    problem = homes(length, seed, scale=scale) if family == "gaps" else WORKLOADS[family](length, seed)
    return problem, best_static_set(problem.stream, problem.capacity, problem.faults, sizes=problem.sizes)


def fitted(total: np.ndarray) -> float | None:
    """Return the log-log slope of a curve, None where it is not positive over the range."""
    with suppress(ValueError):
        return slope(total)
    return None


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
        "loads": run.load_count,
        "forced": run.forced, "cpu_s": seconds,
        "slope": fitted(total),
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
        WORKLOADS[family](64, 0)
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


def summarised(path: Path) -> dict[str, dict[str, dict[int, dict[str, Any]]]]:
    """Return the rows of the families as family -> controller -> seed, seeds that every controller has only."""
    by: dict[str, dict[str, dict[int, dict[str, Any]]]] = {}
    for row in rows(path):
        if row["family"] != "gaps":
            by.setdefault(row["family"], {}).setdefault(row["controller"], {})[row["seed"]] = row
    for runs in by.values():
        shared = set.intersection(*(set(own) for own in runs.values()))
        for name, own in runs.items():
            runs[name] = {s: own[s] for s in sorted(shared)}
    return {family: runs for family, runs in by.items() if runs.get("oracle")}


def excess(own: np.ndarray, base: np.ndarray) -> tuple[float, float, float]:
    """Return by how much `own` exceeds 1.05 times the mean of `base`: mean and 95 % interval over paired seeds.

    Where the baseline has negative regret, because it follows the traffic and the comparator is one fixed set, 5 % is
    taken of what it gained on that set: 0.95 of the gain is asked for.
    """
    return interval(own - base - 0.05 * abs(base.mean()))


def table(path: Path) -> None:
    """Print regret per family, paired differences with the best online baseline, and the bars."""
    ratios, bad = [], []
    print(
        f"{'family':22s} seeds  oracle   Polar  Polar+ Polaris     LRU  best base         Polaris - 1.05 best [95 %]"
    )
    for family, runs in summarised(path).items():
        seeds = list(runs["oracle"])
        value = {n: np.array([r[s]["regret"] for s in seeds]) for n, r in runs.items()}
        mean = {n: float(v.mean()) for n, v in value.items()}
        base = min((n for n in BASELINES if n in mean), key=lambda n: mean[n])
        over, low, high = excess(value["Polaris"], value[base])
        ratios.append(mean["Polaris"] / mean["LRU"] if mean["LRU"] > 0 else np.nan)
        mark = "" if over <= 0 else ("  above, unsure" if low <= 0 else "  ABOVE")
        if mark:
            bad.append(family)
        shown = "".join(f"{mean[n]:8.0f}" for n in ("oracle", "Polar", "PolarPlus", "Polaris", "LRU"))
        print(
            f"{family:22s} {len(seeds):5d}{shown}{mean[base]:8.0f} {base:12s} "
            f"{over:8.1f} [{low:.1f}, {high:.1f}]{mark}"
        )
    known = [r for r in ratios if np.isfinite(r)]
    print(f"Polaris over LRU, median family (of {len(known)} where LRU has regret): {np.median(known):.2f}")
    print(f"families above 1.05 of the best online baseline: {', '.join(bad) or 'none'}")


def worst(path: Path) -> dict[str, tuple[list[float], list[float], float]]:
    """Return per router the worst mean regret over the gap scales at each length, at which scales, and its slope."""
    by: dict[tuple[str, int, float], list[float]] = {}
    for row in rows(path):
        if row["family"] == "gaps":
            by.setdefault((row["controller"], row["length"], row["scale"]), []).append(row["regret"])
    lengths = sorted({length for _, length, _ in by})
    found = {}
    for name in dict.fromkeys(n for n, _, _ in by):
        means = [{g: float(np.mean(by[name, t, g])) for g in SCALES} for t in lengths]
        where = [max(m, key=m.__getitem__) for m in means]
        tops = [m[g] for m, g in zip(means, where, strict=True)]
        found[name] = tops, where, float(np.polyfit(np.log(lengths), np.log(tops), 1)[0])
    return found


def gaps(seeds: range, jobs: int, path: Path) -> None:
    """Print, for each controller, the slope in T of the worst mean regret over the gap scales."""
    names = ("textbook", "oracle", "PolarPlus", "Polar", "Polaris", "LRU", "random")
    measure([("gaps", n, s, t, g) for s in seeds for n in names for t in LENGTHS for g in SCALES], path, jobs)
    for name, (tops, where, steep) in worst(path).items():
        print(f"{name:10s} worst {' '.join(f'{w:7.0f}' for w in tops)}  slope {steep:.2f}  at scales {where}")


def recovery(seeds: range, path: Path) -> None:
    """Write and print the share served from residents around a shift of popularity over client rates of ServeGen."""
    length = 32768
    half = length // 2
    with path.open("w") as file:
        for name, make in {**OURS, "LRU": BASELINES["LRU"]}.items():
            before, after, later = [], [], []
            for seed in seeds:
                problem = WORKLOADS["servegen"](length, seed)
                order, groups = np.random.default_rng(seed).permutation(12), problem.stream.groups.copy()
                groups[half:] = order[groups[half:]]  # the same series, carried by other centres from here on
                shifted = homes(length, seed, popularity=lambda shares, count, rng, g=groups: g)
                run = simulate(LinUCB(15, 10, rng=seed), shifted, make(shifted))
                before.append(run.hits[half - 2000 : half].mean())
                after.append([run.hits[half + a : half + a + 250].mean() for a in range(0, 1000, 250)])
                later.append(run.hits[-8000:].mean())
                row = {
                    "controller": name,
                    "seed": seed,
                    "before": before[-1],
                    "after": after[-1],
                    "later": later[-1],
                }
                file.write(json.dumps(row) + "\n")
            level, course = np.array(before), np.array(after)
            print(f"{name:10s} before {level.mean():.3f}, after, per 250 requests: "
                  f"{np.round(course.mean(axis=0) / level.mean(), 2)} of that, at the end "
                  f"{np.mean(later) / level.mean():.2f}; at 0.9 or more within 1,000: "
                  f"{(course.max(axis=1) >= 0.9 * level).mean():.0%} of seeds", flush=True)  # fmt: skip


def speed(path: Path) -> None:
    """Write and print the CPU time of a million requests of the study loop and of the optimiser alone."""
    problem = homes(1_000_000, 0, dim=32)
    found: dict[str, float] = {}
    for name, make in {
        "no controller": None,
        "Polar(4, 500, sample=512)": lambda: Polar(4, 500, sample=512),
        "Polaris(4)": lambda: Polaris(4),
    }.items():
        made = (lambda: None) if make is None else make
        simulate(LinUCB(15, 32, rng=0), homes(2000, 0, dim=32), made())
        times = []
        for _ in range(1 if name.startswith("Polaris") else 3):  # the least: a busy machine only ever adds
            cpu = time.process_time()
            simulate(LinUCB(15, 32, rng=0), problem, made())
            times.append(time.process_time() - cpu)
        found[name] = min(times)
        print(f"{name:26s} {found[name]:.2f} s CPU", flush=True)
    path.write_text(json.dumps(found) + "\n")


def optimiser(path: Path) -> None:
    """Write and print what share of the best set's value the search finds, and how long it takes on a large problem."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from naive_facility import clustered, isotropic, low_rank

    found: dict[str, float] = {}
    for family in (
        clustered,
        isotropic,
        low_rank,
    ):  # as tests/test_objective.py: 12 arms, 4 slots, 200 contexts
        rng = np.random.default_rng(7)
        shares: dict[str, list[float]] = {"greedy": [], "swap": []}
        for _ in range(1000):
            utilities, faults = family(rng)
            best = objective(utilities, faults, best_set(utilities, faults, 4, method="exact"))
            for method, own in shares.items():
                own.append(objective(utilities, faults, best_set(utilities, faults, 4, method=method)) / best)
        for method, own in shares.items():
            found |= {
                f"{family.__name__} {method} min": min(own),
                f"{family.__name__} {method} mean": np.mean(own),
            }
    rng = np.random.default_rng(0)
    utilities = rng.standard_normal((2048, 32)) @ rng.standard_normal((32, 500)) / 32
    faults, times = rng.uniform(0.15, 0.35, 500), []
    for _ in range(20):
        cpu = time.process_time()
        best_set(utilities, faults, 64, loads=np.full(500, 1e-3), method="swap")
        times.append(1e3 * (time.process_time() - cpu))
    found["ms"] = float(np.median(times[1:]))
    for name, value in found.items():
        print(f"{name:24s} {value:.4f}")
    path.write_text(json.dumps({k: float(v) for k, v in found.items()}) + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=tuple(FILES))
    parser.add_argument("--out", type=Path, help="default: as above")
    parser.add_argument("--families", nargs="*", default=list(WORKLOADS))
    parser.add_argument("--controllers", nargs="*", default=[*OURS, *BASELINES, *HINDSIGHT])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--length", type=int, default=32_768)
    parser.add_argument("--jobs", type=int, default=1)
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds)
    given.out = given.out or FILES[given.what]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    if given.what == "run":
        families = [f for f in given.families if available(f)]
        tasks = [(f, n, s, given.length, 1.0) for s in seeds for f in families for n in given.controllers]
        measure(tasks, given.out, given.jobs)
    if given.what in ("run", "table"):
        table(given.out)
    if given.what == "gaps":
        gaps(seeds, given.jobs, given.out)
    if given.what == "recovery":
        recovery(seeds, given.out)
    if given.what == "speed":
        speed(given.out)
    if given.what == "optimiser":
        optimiser(given.out)


if __name__ == "__main__":
    main()
