"""Compare policies, and with --capacity ways of residency, on your own matrix of rewards.

FILE.npz holds, for n requests and N arms:
  contexts  (n, d)  numbers that describe a request
  rewards   (n, N)  what each arm earns on it, in [0, 1] after division by --scale
  costs     (n, N)  money each arm charges on it; only read when --costs names it
Other keys are named by options. A CSV, JSON lines or Parquet file will do as well: --reward names the columns of scores
(and the arms), --context those of contexts, --cost those of costs. Requests are rows drawn with replacement.

For example
  banditroute study matrix mine.npz
  banditroute study matrix scores.csv --reward "score:*" --cost "usd:*" --context "e_*"
  banditroute study matrix llmrouter9.npz --contexts minilm_pca64 --rewards scores --scale 255 --capacity 3
"""

import argparse
import json
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from banditroute.cli.console import (
    aligned,
    column_options,
    over_seeds,
    plus_minus,
    positive,
    saved_scores,
    say,
    write_csv,
    write_json,
)
from banditroute.cli.demo import NOTES, residency_report, residency_table
from banditroute.residency.paging import PagingModel
from banditroute.simulation import MatrixEnvironment, Outcome, compare_policies, summary

__all__ = ["configure", "environment_of_table", "read_matrix", "run"]

POLICY_NOTES = """\
Means over seeds, ± half a 95 % interval. LinUCB has the library's defaults (pooled prior, alpha and ridge from the
data); the textbook has no prior and ridge 1. Best single arm and oracle know the rewards in advance; regret is
against the oracle, which knows every outcome, so it grows steadily for everyone."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> configure(parser)
    >>> parser.parse_args(["mine.npz", "--capacity", "3"]).capacity
    3
    """
    add = parser.add_argument
    add("file", type=Path, metavar="FILE")
    add("--contexts", default="contexts", metavar="KEY", help="default: %(default)s")
    add("--rewards", default="rewards", metavar="KEY", help="default: %(default)s")
    add("--costs", metavar="KEY", help="money per request and arm; reported, not optimised")
    add("--scale", type=float, default=1.0, metavar="S", help="stored number that means a reward of 1")
    add(
        "--components",
        type=positive,
        metavar="N",
        help="leading context columns to keep (all)",
    )
    add("--no-bias", action="store_true", help="do not append a constant to the contexts")
    add("--capacity", type=positive, metavar="K", help="compare residency too, with K arms in fast memory")
    add("--requests", type=positive, default=12_000, metavar="T", help="default: %(default)s")
    add("--seeds", type=positive, default=20, metavar="N", help="default: %(default)s")
    add("--out", type=Path, default=Path("out/study"), metavar="DIR", help="default: %(default)s")
    add("--json", action="store_true", help="print the result as JSON instead of tables")
    column_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run the study and return the exit code; see the module."""
    environment = read_matrix(args)
    arms = len(environment.arms)
    if args.capacity is not None and args.capacity >= arms:
        raise ValueError(f"--capacity must be below the number of arms, {arms}, got {args.capacity}")
    work = partial(_one_seed, environment, args.requests)
    seeds = over_seeds(work, args.seeds, requests=args.requests, label="policies")
    rows = summary(seeds)
    args.out.mkdir(parents=True, exist_ok=True)
    files = [write_csv(args.out / "policies.csv", seeds), *_pictures(seeds, environment.arms, args.out)]
    result: dict[str, Any] = {
        "command": "study matrix",
        "file": str(args.file),
        "arms": list(environment.arms),
        "dim": environment.dim,
        "requests": args.requests,
        "seeds": args.seeds,
        "policies": rows,
        "files": [path.name for path in files],
    }
    if args.capacity is not None:
        result["residency"] = residency_report(environment, PagingModel(), args.capacity, args, "residency")
        result["files"] += result["residency"]["files"]
    write_json(args.out / "study.json", result)
    result["files"].append("study.json")
    if args.json:
        print(json.dumps(result))
        return 0
    print(
        f"{args.file}: {len(environment.contexts):,} rows, {arms} arms, contexts of length {environment.dim}; "
        f"{args.requests:,} requests, {args.seeds} seeds.\n"
    )
    print(_table(rows), POLICY_NOTES, sep="\n\n")
    if args.capacity is not None:
        price = PagingModel().prices(1)[0]
        print(f"\n{args.capacity} of {arms} arms resident, LinUCB routes, a fault costs {price:.3f}.\n")
        print(residency_table(result["residency"]), NOTES, sep="\n\n")
    print(f"\nWritten to {args.out}: {', '.join(result['files'])}.")
    return 0


def read_matrix(args: argparse.Namespace) -> MatrixEnvironment:
    """Return the environment that the options describe; errors name the file and what is wrong with it.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> configure(parser)
    >>> read_matrix(parser.parse_args(["nowhere.npz"]))
    Traceback (most recent call last):
    FileNotFoundError: no file nowhere.npz
    """
    if not args.file.is_file():
        raise FileNotFoundError(f"no file {args.file}")
    if args.file.suffix in (".csv", ".jsonl", ".parquet"):
        environment = environment_of_table(args)
    else:
        environment = _of_arrays(args)
    low, high = environment.rewards.min(), environment.rewards.max()
    if low < 0.0 or high > 1.0:
        raise ValueError(
            f"{args.rewards} of {args.file} must be in [0, 1] after division by --scale {args.scale:g}, "
            f"got {low:g} .. {high:g}"
        )
    return environment


def environment_of_table(args: argparse.Namespace) -> MatrixEnvironment:
    """Return the environment in a CSV, JSON lines or Parquet file of the scores of all arms.

    Examples
    --------
    >>> environment_of_table(argparse.Namespace(file=Path("nowhere.csv")))
    Traceback (most recent call last):
    FileNotFoundError: no file nowhere.csv
    """
    bias = not getattr(args, "no_bias", False)
    table = saved_scores(args.file, args)
    contexts = np.zeros((len(table.rewards), 0)) if table.contexts is None else table.contexts
    if not bias and not contexts.shape[1]:
        raise ValueError(f"{args.file} must have contexts with --no-bias: --context names their columns")
    _say_cut(args, contexts.shape[1])
    contexts = contexts[:, : args.components]
    ones = np.ones((len(contexts), int(bias)))
    return MatrixEnvironment(
        np.column_stack([contexts, ones]),
        table.rewards / args.scale,
        costs=table.costs,
        arms=table.arms,
        order="replace",
    )


def _of_arrays(args: argparse.Namespace) -> MatrixEnvironment:
    if not zipfile.is_zipfile(args.file):
        raise ValueError(f"{args.file} is not an .npz file; numpy.savez writes one")
    with np.load(args.file, allow_pickle=False) as file:
        for key in {args.contexts, args.rewards, args.costs} & set(file.files):
            if file[key].ndim != 2:
                raise ValueError(
                    f"{key} of {args.file} must have two dimensions, got shape {file[key].shape}"
                )
        if args.contexts in file.files:
            _say_cut(args, file[args.contexts].shape[1])
    return MatrixEnvironment.from_npz(
        args.file,
        args.contexts,
        args.rewards,
        args.costs,
        scale=args.scale,
        components=args.components,
        bias=not args.no_bias,
        order="replace",
    )


def _say_cut(args: argparse.Namespace, width: int) -> None:
    if args.components is not None and args.components < width:
        say(args.file, [f"of {width} context columns the first {args.components} are kept: --components"])


def _one_seed(environment: MatrixEnvironment, requests: int, seed: int) -> list[Outcome]:
    return compare_policies(environment.stream(requests, seed), seed)


def _table(rows: list[dict[str, Any]]) -> str:
    costs = "cost" in rows[0]
    columns = ["policy", "reward, 2nd half", "reward, all", "regret", *(["cost / request"] if costs else [])]
    cells = [
        [
            row["name"],
            plus_minus(row["late_reward"], ".4f"),
            plus_minus(row["reward"], ".4f"),
            plus_minus(row["regret"]),
            *([f"{row['cost']['mean']:.2g}"] if costs else []),
        ]
        for row in rows
    ]
    return aligned(columns, cells)


def _pictures(seeds: list[list[Outcome]], arms: tuple[str, ...], out: Path) -> list[Path]:
    from banditroute import plots

    curves = {o.name: [own[i].curve for own in seeds] for i, o in enumerate(seeds[0])}
    del curves["oracle"]  # zero throughout
    with plots.page(1, 2, path=out / "policies-regret.png") as (left, right):
        plots.regret_bands(curves, seeds[0][0].times, ax=left)
        del curves["random"]  # far above the others
        plots.regret_bands(curves, seeds[0][0].times, against="LinUCB", ax=right)
    chosen = seeds[0][0].run
    assert chosen is not None
    with plots.page(1, 1, width=7.2, path=out / "policies-arms.png") as (only,):
        plots.arm_shares(chosen.arms, arms, ax=only).set_title("Who serves the requests, under LinUCB")
    return [out / "policies-regret.png", out / "policies-arms.png"]
