"""Fifteen adapters, room for four: compare ways to keep the right ones resident.

Trains fifteen classifiers of handwritten digits, streams images of shifting popularity through one LinUCB router per
contestant, and prints regret, accuracy, hit rate, loads, waits and time per decision.

For example
  banditroute demo --out out/demo --seeds 20
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from banditroute.cli.console import aligned, over_seeds, plus_minus, positive, waiting, write_csv, write_json
from banditroute.residency.paging import PagingModel
from banditroute.simulation import (
    MatrixEnvironment,
    Outcome,
    Problem,
    compare_residency,
    digits_adapters,
    microseconds,
    summary,
)

__all__ = ["configure", "residency_report", "run"]

ADAPTERS, CAPACITY = 15, 4
SECONDS = 6e-5  # that a request takes under all seven, on one core
COLUMNS = [
    "residency", "reward", "mean wait ms", "p95", "p99", "loads", "hit rate", "regret", "less Polaris'",
    "us / decision",
]  # fmt: skip
NOTES = """\
Means over seeds, ± half a 95 % interval; "less Polaris'" is paired by seed. Reward is the mean before fault prices,
waits are what faults add to a request, loads those at plans, on insertion, and of every fault that passes through.
Regret counts reward and waits against the best fixed set with a router that knows every outcome in advance, so it grows
steadily for everyone; the differences tell them apart. Oracle is the fixed set, known in hindsight, best for linear
routing. us / decision is the CPU time of a select and an update on a live Router, re-planning included."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> configure(parser)
    >>> parser.parse_args(["--requests", "500"]).requests
    500
    """
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--seeds", type=positive, default=20, metavar="N", help="default: %(default)s")
    parser.add_argument("--requests", type=positive, default=20_000, metavar="T", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Run the demo and return the exit code; see the module."""
    args.out.mkdir(parents=True, exist_ok=True)  # before the work: a place that cannot be written shows now
    if not args.json:
        print(
            f"Training {ADAPTERS} classifiers of digits, then {args.seeds} seeds of {args.requests:,} requests under 7 "
            f"ways of residency: about {_minutes(args)}, and half a minute of compilation the first time.",
            flush=True,
        )
    environment, paging = digits_adapters(ADAPTERS), PagingModel()
    with waiting("compiling kernels, kept for the next time"):
        compare_residency(_problem(environment, paging, CAPACITY, 100, 0), paging, 0)
    wait, price = paging.latency_ms(1)[0], paging.prices(1)[0]
    result = residency_report(environment, paging, CAPACITY, args, "demo")
    if args.json:
        print(json.dumps(result))
        return 0
    print(
        f"{ADAPTERS} digit classifiers as adapters, {CAPACITY} resident; {args.requests:,} requests, popularity shifts "
        f"half-way; {args.seeds} seeds.\nA fault waits {wait:.0f} ms (median) and costs {price:.3f} of a correct "
        "answer.\n"
    )
    print(residency_table(result), NOTES, f"Written to {args.out}: {', '.join(result['files'])}.", sep="\n\n")
    return 0


def _minutes(args: argparse.Namespace) -> str:
    seconds = 15.0 + args.seeds * args.requests * SECONDS
    return f"{seconds:.0f} seconds" if seconds < 90.0 else f"{seconds / 60.0:.0f} minutes"


def residency_report(
    environment: MatrixEnvironment, paging: PagingModel, capacity: int, args: argparse.Namespace, name: str
) -> dict[str, Any]:
    """Compare ways of residency over seeds, write CSV, JSON and pictures to ``args.out``, return the result.

    `args` holds requests, seeds and out; `name` begins the names of the files. The result is plain data: settings,
    one row per contestant as in `comparison.summary`, and the names of the files.
    """
    times = microseconds(_problem(environment, paging, capacity, args.requests, 0), paging)
    work = partial(_one_seed, environment, paging, capacity, args.requests)
    seeds = over_seeds(work, args.seeds, requests=args.requests, label=name)
    rows = summary(seeds, against="Polaris")
    for row in rows:
        row["us_per_decision"] = times[row["name"]]
    args.out.mkdir(parents=True, exist_ok=True)
    written = [
        write_csv(args.out / f"{name}.csv", seeds),
        *_pictures(seeds, environment, args.out, name),
    ]
    result: dict[str, Any] = {
        "command": name,
        "arms": len(environment.arms),
        "capacity": capacity,
        "requests": args.requests,
        "seeds": args.seeds,
        "rows": rows,
        "files": [path.name for path in written],
    }
    write_json(args.out / f"{name}.json", result)
    result["files"].append(f"{name}.json")
    return result


def residency_table(result: dict[str, Any]) -> str:
    """Return the rows of `residency_report` as an aligned table."""
    return aligned(COLUMNS, [residency_cells(row) for row in result["rows"]])


def residency_cells(row: dict[str, Any]) -> list[str]:
    """Return one row of the table as text, in the order of `COLUMNS`."""
    return [
        row["name"],
        f"{row['reward']['mean']:.3f}",
        f"{row['mean_ms']['mean']:.1f}",
        f"{row['p95_ms']['mean']:.0f}",
        f"{row['p99_ms']['mean']:.0f}",
        f"{row['loads']['mean']:,.0f}",
        f"{row['hit_rate']['mean']:.1%}",
        plus_minus(row["regret"]),
        "" if row["name"] == "Polaris" else plus_minus(row["regret_less"], "+,.0f").replace("± +", "± "),
        f"{row['us_per_decision']:.1f}",
    ]


def _problem(
    environment: MatrixEnvironment, paging: PagingModel, capacity: int, requests: int, seed: int
) -> Problem:
    stream = environment.stream(requests, seed)
    prices = paging.prices(len(stream.arms))
    return Problem(stream, prices, prices, capacity)


def _one_seed(
    environment: MatrixEnvironment, paging: PagingModel, capacity: int, requests: int, seed: int
) -> list[Outcome]:
    return compare_residency(_problem(environment, paging, capacity, requests, seed), paging, seed)


def _pictures(seeds: list[list[Outcome]], environment: MatrixEnvironment, out: Path, name: str) -> list[Path]:
    from banditroute import plots

    arms = environment.arms
    first = {o.name: o.run for o in seeds[0]}
    polaris, lru = first["Polaris"], first["LRU"]
    assert polaris is not None and lru is not None
    curves = {o.name: [own[i].curve for own in seeds] for i, o in enumerate(seeds[0])}
    with plots.page(1, 2, path=out / f"{name}-regret.png") as (left, right):
        plots.regret_bands(curves, seeds[0][0].times, ax=left)
        curves.pop("uncached")  # far above the others: without it they can be told apart
        plots.regret_bands(curves, seeds[0][0].times, against="Polaris", ax=right)
    with plots.page(1, 2, path=out / f"{name}-residency.png") as (left, right):
        plots.residency_timeline(polaris, arms, ax=left).set_title("Resident under Polaris", pad=12)
        plots.residency_timeline(lru, arms, ax=right).set_title("Resident under LRU", pad=12)
        right.tick_params(labelleft=False)
        for shift in environment.shifts if environment.order == "drift" else ():
            for ax in (left, right):
                ax.axvline(shift * len(polaris), color=plots.COLOURS[1], lw=1.2, ls="--")
                ax.text(
                    shift * len(polaris),
                    -0.8,
                    "popularity shifts",
                    color=plots.COLOURS[1],
                    ha="center",
                    fontsize=8,
                )
    with plots.page(1, 1, width=7.2, height=3.6, path=out / f"{name}-arms.png") as (only,):
        plots.arm_shares(polaris.arms, arms, ax=only).set_title("Who serves the requests, under Polaris")
    return [out / f"{name}-{what}.png" for what in ("regret", "residency", "arms")]
