"""Compare residency controllers over workloads: regret, its parts, hit rates, and where POLAR does not help.

Every controller serves the same requests with the same router (LinUCB with its defaults, unless --alpha fixes the
width), seed by seed. Finished runs are kept in --out/runs.jsonl and not repeated, so a study can be stopped and
continued. "POLAR" and "POLAR+" are reconstructed from the paper's abstract; every figure here is our own.

For example
  python benchmarks/study_polar.py
  python benchmarks/study_polar.py --families homes,abrupt --capacities 2,4,8 --seeds 20
  python benchmarks/study_polar.py --gaps
"""

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from recorded import WORKLOADS

from banditroute import (
    LFU,
    LRU,
    Controller,
    EpsilonGreedy,
    LinUCB,
    Polar,
    Polaris,
    PolarPlus,
    Problem,
    Static,
    regret,
)
from banditroute.cli.console import aligned, plus_minus, positive, steps, write_json
from banditroute.policies import LinearPolicy
from banditroute.residency import FIFO, FTPL, GDSF, SIEVE, DecayedLFU, Popularity, RandomSet, ResidentOnly
from banditroute.residency.paging import PagingModel
from banditroute.simulation import Run, best_static_set, interval, slope

__all__ = ["CONTROLLERS", "configure", "run"]

# Every contestant, made for one problem; `epoch` is that of the controllers that have one.
CONTROLLERS: dict[str, Callable[[Problem, int, int], Controller]] = {
    "oracle set": lambda p, epoch, seed: Static(_best(p), capacity=p.capacity),
    "Polaris": lambda p, epoch, seed: Polaris(p.capacity, rng=seed),
    "POLAR": lambda p, epoch, seed: Polar(p.capacity, epoch=epoch, rng=seed),
    "POLAR+": lambda p, epoch, seed: PolarPlus(p.capacity, rng=seed),
    "LRU": lambda p, epoch, seed: LRU(p.capacity),
    "FIFO": lambda p, epoch, seed: FIFO(p.capacity),
    "SIEVE": lambda p, epoch, seed: SIEVE(p.capacity),
    "LFU": lambda p, epoch, seed: LFU(p.capacity),
    "decayed LFU": lambda p, epoch, seed: DecayedLFU(p.capacity),
    "GDSF": lambda p, epoch, seed: GDSF(p.capacity, prices=p.faults),
    "FTPL": lambda p, epoch, seed: FTPL(p.capacity, rng=seed),
    "popularity": lambda p, epoch, seed: Popularity(p.capacity),
    "random set": lambda p, epoch, seed: RandomSet(p.capacity, rng=seed),
    "resident only": lambda p, epoch, seed: ResidentOnly(Polar(p.capacity, epoch=epoch, rng=seed)),
    "no cache": lambda p, epoch, seed: Static(()),
}
HINDSIGHT = ("oracle set",)
GAPS = (1.0, 0.5, 0.25, 0.12, 0.06, 0.03)
HORIZONS = (2048, 8192, 32768)
KEY = ("family", "controller", "capacity", "epoch", "alpha", "requests", "seed")


def _best(problem: Problem) -> tuple[int, ...]:
    return best_static_set(problem.stream, problem.capacity, problem.faults, sizes=problem.sizes)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> configure(parser)
    >>> parser.parse_args(["--seeds", "3"]).families
    ['homes', 'abrupt', 'bursts', 'cheap', 'digits']
    """

    def words(text: str) -> list[str]:
        return [word.strip() for word in text.split(",") if word.strip()]

    add = parser.add_argument
    add(
        "--families",
        type=words,
        default=["homes", "abrupt", "bursts", "cheap", "digits"],
        metavar="A,B",
        help="workloads, or 'all': " + ", ".join(WORKLOADS),
    )
    add("--controllers", type=words, default=list(CONTROLLERS), metavar="A,B", help="default: all of them")
    add("--capacities", type=words, metavar="K,K", help="slots instead of each workload's own")
    add("--epochs", type=words, default=["500"], metavar="B,B", help="epoch of POLAR (default: 500)")
    add("--alphas", type=words, default=["auto"], metavar="A,A", help="exploration width (default: auto)")
    add("--requests", type=positive, default=32_768, metavar="T", help="default: %(default)s")
    add("--seeds", type=positive, default=20, metavar="N", help="default: %(default)s")
    add("--first", type=int, default=0, metavar="S", help="first seed (default: %(default)s)")
    add("--gaps", action="store_true", help="the worst case over gap scales instead, with its random control")
    add("--out", type=Path, default=Path("out/study"), metavar="DIR", help="default: %(default)s")
    add("--json", action="store_true", help="print the tables as JSON")


def run(args: argparse.Namespace) -> int:
    """Run what is missing, print the tables, draw the pictures."""
    args.out.mkdir(parents=True, exist_ok=True)
    if args.gaps:
        table = worst_over_gaps(range(args.first, args.first + args.seeds))
        write_json(args.out / "gaps.json", table)
        print(json.dumps(table) if args.json else aligned(table["columns"], table["rows"]))
        return 0
    families = list(WORKLOADS) if args.families == ["all"] else args.families
    for name, known in ((families, WORKLOADS), (args.controllers, CONTROLLERS)):
        unknown = [word for word in name if word not in known]
        if unknown:
            raise ValueError(f"known are {', '.join(known)}; got {', '.join(unknown)}")
    wanted = [
        dict(zip(KEY, values, strict=True))
        for family in families
        for seed in range(args.first, args.first + args.seeds)
        for capacity in args.capacities or [None]
        for epoch in args.epochs
        for alpha in args.alphas
        for controller in args.controllers
        for values in [(family, controller, capacity, int(epoch), alpha, args.requests, seed)]
    ]
    rows = measured(wanted, args.out / "runs.jsonl")
    tables = {}
    settings = sorted({(r["family"], r["capacity"], r["epoch"], r["alpha"]) for r in rows}, key=str)
    for setting in settings:
        own = [r for r in rows if (r["family"], r["capacity"], r["epoch"], r["alpha"]) == setting]
        name = ", ".join(f"{k} {v}" for k, v in zip(("", "K", "epoch", "alpha"), setting, strict=True) if v)
        tables[name.strip()] = summarised(own)
    write_json(args.out / "tables.json", tables)
    _draw(rows, args.out)
    if args.json:
        print(json.dumps(tables))
    else:
        for name, table in tables.items():
            print(f"\n{name}\n" + aligned(table["columns"], table["rows"]))
        print(f"\nFigures and runs are in {args.out}.")
    return 0


def measured(wanted: Iterable[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Return one row per wanted run: from the file where it was run before, else run now and appended to it."""
    from joblib import Parallel, cpu_count, delayed
    from tqdm import tqdm

    wanted = list(wanted)
    done: dict[tuple[Any, ...], dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:  # the last line of a run that was killed
                continue
            done[tuple(row[k] for k in KEY)] = row
    missing: dict[tuple[Any, ...], list[str]] = {}
    for w in wanted:
        if (
            tuple(w[k] for k in KEY) not in done
        ):  # the controllers of one stream run together: it is drawn once
            missing.setdefault(tuple(w[k] for k in KEY if k != "controller"), []).append(w["controller"])
    jobs = min(cpu_count(), max(1, len(missing)))
    work = (delayed(one_stream)(*key, tuple(names)) for key, names in missing.items())
    with (
        path.open("a", encoding="utf-8") as file,
        tqdm(total=len(missing), desc="streams", disable=None) as bar,
    ):
        for found in Parallel(n_jobs=jobs, return_as="generator_unordered")(work) if missing else ():
            for row in found:
                file.write(json.dumps(row) + "\n")
                done[tuple(row[k] for k in KEY)] = row
            file.flush()
            bar.update()
    return [done[tuple(w[k] for k in KEY)] for w in wanted]


def one_stream(
    family: str,
    capacity: str | None,
    epoch: int,
    alpha: str,
    requests: int,
    seed: int,
    names: tuple[str, ...],
) -> list[dict[str, Any]]:
    """Run several controllers over one stream; returns a row of figures each."""
    from banditroute import simulate

    problem = WORKLOADS[family](requests, seed)
    if capacity is not None:
        problem = replace(problem, capacity=float(capacity) if "." in capacity else int(capacity))
    best = _best(problem)
    rows = []
    for name in names:
        policy: LinearPolicy = LinUCB(
            len(problem.stream.arms),
            problem.stream.dim,
            alpha="auto" if alpha == "auto" else float(alpha),
            rng=seed,
        )
        run = simulate(policy, problem, CONTROLLERS[name](problem, epoch, seed))
        parts = regret(run, problem, best)
        total = parts.total
        times = np.unique(np.geomspace(requests / 128, requests, 40).astype(int)) - 1
        curve = total[times]
        rows.append(
            {
                **dict(zip(KEY, (family, name, capacity, epoch, alpha, requests, seed), strict=True)),
                "regret": float(total[-1]),
                "route": float(parts.route[-1]),
                "residency": float(parts.residency[-1]),
                "switching": float(parts.switching[-1]),
                "slope": slope(total) if (curve > 0).all() and total[requests // 32 :].min() > 0 else None,
                "hit_rate": float(run.hits.mean()),
                "page_ins": run.page_ins,
                "loads": run.load_count,
                **waits(run, seed),
                "forced": run.forced,
                "times": (times + 1).tolist(),
                "curve": [round(float(v), 2) for v in curve],
            }
        )
    return rows


def waits(run: Run, seed: int) -> dict[str, float]:
    """Return mean, 95th and 99th percentile of the wait that faults add to a request, in milliseconds."""
    paging = PagingModel()
    medians = paging.latency_ms(int(run.arms.max()) + 1)
    noise = np.exp(paging.jitter * np.random.default_rng([seed, 1]).standard_normal(len(run)))
    added = np.where(run.hits, 0.0, medians[run.arms] * noise)
    p95, p99 = np.percentile(added, [95, 99])
    return {"mean_ms": float(added.mean()), "p95_ms": float(p95), "p99_ms": float(p99)}


def _mean(rows: Iterable[dict[str, Any]], figure: str) -> str:
    """Return the mean of a figure that rows of earlier runs may not have."""
    values = [row[figure] for row in rows if figure in row]
    return f"{np.mean(values):,.1f}" if values else ""


def summarised(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the table of one setting: a line per controller, means over seeds with 95 % intervals.

    The last column is the regret less that of the best online baseline (the one with the least mean), paired.
    """
    names = list(dict.fromkeys(r["controller"] for r in rows))
    by = {n: {r["seed"]: r for r in rows if r["controller"] == n} for n in names}
    ours = ("Polaris", "POLAR", "POLAR+", *HINDSIGHT)
    base = [n for n in names if n not in ours]
    rival = min(base, key=lambda n: np.mean([r["regret"] for r in by[n].values()])) if base else None

    def shown(values: Iterable[float], form: str = ",.0f") -> str:
        mean, low, high = interval(list(values))
        return plus_minus({"mean": mean, "low": low, "high": high if np.isfinite(high) else None}, form)

    table = []
    for n in names:
        own = by[n].values()
        paired = (
            [by[n][s]["regret"] - by[rival][s]["regret"] for s in by[n]] if rival and n != rival else None
        )
        slopes = [r["slope"] for r in own if r["slope"] is not None]
        table.append(
            [
                n,
                shown(r["regret"] for r in own),
                *(f"{np.mean([r[part] for r in own]):,.0f}" for part in ("route", "residency", "switching")),
                f"{np.mean(slopes):.2f}" if slopes else "",
                f"{np.mean([r['hit_rate'] for r in own]):.0%}",
                *(_mean(own, figure) for figure in ("loads", "mean_ms", "p95_ms", "p99_ms")),
                "" if paired is None else shown(paired),
            ]
        )
    columns = ["controller", "regret", "route", "residency", "switching", "slope", "hits", "loads"]
    columns += ["mean ms", "p95 ms", "p99 ms"]
    return {"columns": [*columns, f"less {rival}" if rival else "less baseline"], "rows": table}


def worst_over_gaps(seeds: Sequence[int]) -> dict[str, Any]:
    """Return regret in the worst case over gap scales, per horizon, and its log-log slope.

    Shrinking every gap with the horizon would give slope one half for any policy, random routing included; the
    maximum over scales at each horizon does not, and random routing shows it with slope one.
    """
    from banditroute import simulate
    from banditroute.simulation import homes

    def random_routing(problem: Problem, seed: int) -> float:
        policy = EpsilonGreedy(len(problem.stream.arms), problem.stream.dim, epsilon=1.0, rng=seed)
        run = simulate(policy, problem, Static(_best(problem), capacity=problem.capacity))
        return regret(run, problem).final

    def served(name: str) -> Callable[[Problem, int], float]:
        def final(problem: Problem, seed: int) -> float:
            policy = LinUCB(len(problem.stream.arms), problem.stream.dim, rng=seed)
            return regret(simulate(policy, problem, CONTROLLERS[name](problem, 500, seed)), problem).final

        return final

    contestants = {n: served(n) for n in ("oracle set", "Polaris", "POLAR", "POLAR+", "LRU", "random set")}
    contestants["random routing"] = random_routing
    worsts: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    with steps("gaps", len(contestants) * len(HORIZONS), "run") as step:
        for name, final in contestants.items():
            for horizon in HORIZONS:
                step(f"{name}, {horizon:,} requests")
                means = [float(np.mean([final(homes(horizon, s, scale=g), s) for s in seeds])) for g in GAPS]
                worsts[name].append((max(means), GAPS[int(np.argmax(means))]))
    rows = []
    for name, worst in worsts.items():
        tops = np.array([max(w, 1e-9) for w, _ in worst])
        exponent = np.polyfit(np.log(np.array(HORIZONS)), np.log(tops), 1)[0]
        rows.append([name, *(f"{w:,.0f} ({g:g})" for w, g in worst), f"{exponent:.2f}"])
    return {"columns": ["router", *(f"T = {t:,}" for t in HORIZONS), "slope"], "rows": rows}


def _draw(rows: list[dict[str, Any]], out: Path) -> None:
    """Draw, per family, regret over time with bands, its parts, and regret against the hit rate."""
    from banditroute.plots import COLOURS, page, regret_bands

    for family in dict.fromkeys(r["family"] for r in rows):
        own = [r for r in rows if r["family"] == family]
        names = list(dict.fromkeys(r["controller"] for r in own))
        main = [n for n in ("Polaris", "POLAR", "POLAR+", "LRU", "LFU", "oracle set") if n in names]
        with page(1, 3, path=out / f"{family}.png", width=13.0, height=4.0) as (left, middle, right):
            curves = {n: [r["curve"] for r in own if r["controller"] == n] for n in main}
            regret_bands(curves, np.array(own[0]["times"]), ax=left)
            left.set_title(f"{family}: regret over requests")
            bottom = np.zeros(len(names))
            for colour, part in zip(COLOURS, ("route", "residency", "switching"), strict=False):
                height = np.array([np.mean([r[part] for r in own if r["controller"] == n]) for n in names])
                middle.barh(names, height, left=np.where(height >= 0, bottom, 0.0), color=colour, label=part)
                bottom += np.maximum(height, 0.0)
            middle.invert_yaxis()
            middle.legend()
            middle.set_title("where it was lost")
            for n in names:
                hit = float(np.mean([r["hit_rate"] for r in own if r["controller"] == n]))
                lost = float(np.mean([r["regret"] for r in own if r["controller"] == n]))
                right.scatter([hit], [lost], color=COLOURS[0])
                right.annotate(n, (hit, lost), fontsize=7, xytext=(3, 3), textcoords="offset points")
            right.set_xlabel("hit rate")
            right.set_ylabel("regret")
            right.set_title("a higher hit rate is not a lower regret")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study from the command line; its exit code."""
    parser = argparse.ArgumentParser(
        prog="study_polar", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    configure(parser)
    return run(parser.parse_args(arguments))


if __name__ == "__main__":
    raise SystemExit(main())
