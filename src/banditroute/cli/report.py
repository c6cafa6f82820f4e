"""Write one page on a trace: what is in it, what other rules would have earned, what to change next.

FILE is a log: what `Trace.save` writes (.npz, .csv, .jsonl, .parquet), a folder of a recorder, or a CSV, JSON lines or
Parquet file from elsewhere, whose columns the options name. Or it holds the scores of all arms, as `study matrix` reads
them: then a log is drawn from it by a router that learns (LinUCB with mix=0.1, and with --capacity under Polar), and
the page gives true values beside the estimates. The page is one file that asks for nothing from anywhere.

For example
  banditroute report log.parquet --out report.html
  banditroute report calls.csv --arm model --reward score --propensity p --context "e_*"
  banditroute report scores.csv --reward "score:*" --context "e_*"
  banditroute report llmrouter9.npz --contexts minilm_pca64 --rewards scores --scale 255 --arms models
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from banditroute.cli.console import aligned, column_options, is_wide, positive, saved_trace, steps
from banditroute.cli.report_page import page
from banditroute.cli.study_matrix import read_matrix
from banditroute.evaluation import Report, advice, report
from banditroute.logs import Trace
from banditroute.policies import LinUCB
from banditroute.residency import Polar
from banditroute.residency.paging import PagingModel
from banditroute.simulation import MatrixEnvironment, Problem, simulate

__all__ = ["configure", "run"]

MIX = 0.1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> configure(parser)
    >>> str(parser.parse_args(["log.npz", "--out", "page.html"]).out)
    'page.html'
    """
    add = parser.add_argument
    add("file", type=Path, metavar="FILE")
    add("--out", type=Path, default=Path("out/report.html"), metavar="PAGE", help="default: %(default)s")
    add(
        "--fault", type=float, metavar="P", help="price of a fault, reward units (that of the trace, or 0.05)"
    )
    add("--window", type=positive, default=500, metavar="B", help="requests per epoch in mind (%(default)s)")
    add("--contexts", default="contexts", metavar="KEY", help="of a matrix: default %(default)s")
    add("--rewards", default="rewards", metavar="KEY", help="of a matrix: default %(default)s")
    add(
        "--scale",
        type=float,
        default=1.0,
        metavar="S",
        help="of a matrix: stored number that means a reward of 1",
    )
    add(
        "--components",
        type=positive,
        metavar="N",
        help="of a matrix: leading context columns to keep (all)",
    )
    add("--arms", metavar="KEY", help="of a matrix: array of the names of the arms")
    parser.set_defaults(costs=None, no_bias=False)
    add("--capacity", type=positive, metavar="K", help="of a matrix: draw the log with K arms in fast memory")
    add(
        "--requests", type=positive, default=12_000, metavar="T", help="of a matrix: rows drawn (%(default)s)"
    )
    add("--json", action="store_true", help="print the numbers as JSON")
    column_options(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page, print what to change next, and return 0."""
    trace, rewards = _data(args)
    args.out.parent.mkdir(
        parents=True, exist_ok=True
    )  # before the work: a place that cannot be written shows now
    with steps("report", 6) as step:
        found = report(trace, fault=args.fault, window=args.window, rewards=rewards, progress=step)
        step("the page")
        text = page(found, args.file.name)
    args.out.write_text(text, encoding="utf-8")
    if args.json:
        result = {"command": "report", "file": str(args.file), **found.numbers, "next": advice(found.numbers)}
        print(json.dumps({**result, "out": str(args.out)}))
    else:
        print(_text(found), f"Written to {args.out}.", sep="\n\n")
    return 0


def _data(args: argparse.Namespace) -> tuple[Trace, NDArray[np.float64] | None]:
    trace = None if is_wide(args.file, args) else saved_trace(args.file, args)
    if trace is None:
        return _drawn(read_matrix(args), args)
    if args.capacity is not None:
        raise ValueError("--capacity is for a matrix of rewards: a trace says what was resident")
    return trace, None


def _drawn(environment: MatrixEnvironment, args: argparse.Namespace) -> tuple[Trace, NDArray[np.float64]]:
    """Return a log of a learning router on rows of the matrix, and the rewards of all arms on them."""
    stream = environment.stream(args.requests, 0)
    count = len(stream.arms)
    if args.capacity is not None and args.capacity >= count:
        raise ValueError(f"--capacity must be below the number of arms, {count}, got {args.capacity}")
    policy = LinUCB(stream.arms, stream.dim, mix=MIX, rng=0)
    if args.capacity is None:
        done = simulate(policy, stream)
    else:
        faults = PagingModel().prices(count) if args.fault is None else np.full(count, args.fault)
        done = simulate(policy, Problem(stream, faults, faults, args.capacity), Polar(args.capacity))
    return replace(done.to_trace(), names=_names(args, stream.arms)), stream.means


def _names(args: argparse.Namespace, arms: tuple[str, ...]) -> tuple[str, ...]:
    if args.arms is None:
        return arms
    with np.load(args.file, allow_pickle=False) as file:
        names = tuple(str(name) for name in file[args.arms]) if args.arms in file.files else ()
    if len(names) != len(arms):
        raise ValueError(f"--arms must name an array of {len(arms)} names in {args.file}, got {args.arms!r}")
    return names


def _text(found: Report) -> str:
    n = found.numbers
    lines = [
        f"{n['log']['rows']:,} rows, {n['log']['arms']} arms, mean reward {n['log']['reward']['value']:.4f}."
    ]
    if n["candidates"]:
        rows = [
            [
                one["name"],
                f"{one['dr']['value']:.4f}",
                f"[{one['dr']['low']:.4f}, {one['dr']['high']:.4f}]",
                f"{one['gain']['value']:+.4f}",
                f"{one['ess']:,.0f}",
            ]
            for one in n["candidates"]
        ]
        lines += ["", aligned(["rule", "would earn", "95 % interval", "gain", "rows count as"], rows)]
    lines += ["", "What to change next:"]
    lines += [f"{i}. {one['change']} {one['because']}" for i, one in enumerate(advice(n), 1)] or ["Nothing."]
    return "\n".join(lines)
