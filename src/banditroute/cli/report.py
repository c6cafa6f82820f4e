"""Write one page on a trace: what is in it, what other rules would have earned, what to change next.

FILE is a log: what `Trace.save` writes (.npz, .csv, .jsonl, .parquet), a folder of a recorder, or a CSV, JSON lines or
Parquet file from elsewhere, whose columns the options name. Or it holds the scores of all arms, as `study matrix` reads
them: then a log is drawn from it by a router that learns (LinUCB with mix=0.1, and with --capacity under Polaris), and
the page gives true values beside the estimates. The page is one file that asks for nothing from anywhere.

For example
  banditroute report log.parquet --out report.html
  banditroute report calls.csv --arm model --reward score --propensity p --context "e_*"
  banditroute report scores.csv --reward "score:*" --context "e_*"
  banditroute report llmrouter9.npz --contexts minilm_pca64 --rewards scores --scale 255 --arms models
"""

import argparse
import json
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from banditroute.cli.console import aligned, is_wide, positive, saved_trace, say, steps
from banditroute.cli.matrix import matrix_options, read_matrix
from banditroute.cli.report_page import page
from banditroute.evaluation import Report, advice, report
from banditroute.logs import Trace
from banditroute.policies import LinUCB
from banditroute.residency import Polaris
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
    matrix_options(parser, without=("costs", "no_bias"))
    add = parser.add_argument
    add("--out", type=Path, default=Path("out/report.html"), metavar="PAGE", help="default: %(default)s")
    add(
        "--fault", type=float, metavar="P", help="price of a fault, reward units (that of the trace, or 0.05)"
    )
    add("--window", type=positive, default=500, metavar="B", help="requests per epoch in mind (%(default)s)")
    add("--capacity", type=positive, metavar="K", help="of a matrix: draw the log with K arms in fast memory")
    add(
        "--requests", type=positive, default=12_000, metavar="T", help="of a matrix: rows drawn (%(default)s)"
    )
    add("--json", action="store_true", help="print the numbers as JSON")
    add("--estimate-propensities", action="store_true", help="where nobody logged them; the page says so")


def run(args: argparse.Namespace) -> int:
    """Write the page, print what to change next, and return 0."""
    trace, rewards = _data(args)
    args.out.parent.mkdir(
        parents=True, exist_ok=True
    )  # before the work: a place that cannot be written shows now
    with steps("report", 6) as step:
        kind: Literal["logged", "estimated"] = "estimated" if args.estimate_propensities else "logged"
        found = report(
            trace, fault=args.fault, window=args.window, rewards=rewards, propensities=kind, progress=step
        )
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
    say(args.file, args.notes)
    policy = LinUCB(stream.arms, stream.dim, mix=MIX, rng=0)
    if args.capacity is None:
        done = simulate(policy, stream)
    else:
        faults = PagingModel().prices(count) if args.fault is None else np.full(count, args.fault)
        done = simulate(policy, Problem(stream, faults, faults, args.capacity), Polaris(args.capacity))
    return done.to_trace(), stream.means


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
    notes = [note for note in n["notes"] if note not in found.trace.notes]  # those were told when it was read
    lines += ["", *notes] if notes else []
    lines += ["", "What to change next:"]
    lines += [f"{i}. {one['change']} {one['because']}" for i, one in enumerate(advice(n), 1)] or ["Nothing."]
    return "\n".join(lines)
