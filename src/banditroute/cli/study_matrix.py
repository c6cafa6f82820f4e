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
from functools import partial
from pathlib import Path
from typing import Any

from banditroute.cli.console import aligned, over_seeds, plus_minus, positive, say, write_csv, write_json
from banditroute.cli.demo import NOTES, residency_report, residency_table
from banditroute.cli.matrix import matrix_options, read_matrix
from banditroute.evaluation import scale_note
from banditroute.residency.paging import PagingModel
from banditroute.simulation import MatrixEnvironment, Outcome, compare_policies, summary

__all__ = ["configure", "run"]

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
    matrix_options(parser)
    add = parser.add_argument
    add("--capacity", type=positive, metavar="K", help="compare residency too, with K arms in fast memory")
    add("--requests", type=positive, default=12_000, metavar="T", help="default: %(default)s")
    add("--seeds", type=positive, default=20, metavar="N", help="default: %(default)s")
    add("--out", type=Path, default=Path("out/study"), metavar="DIR", help="default: %(default)s")
    add("--json", action="store_true", help="print the result as JSON instead of tables")


def run(args: argparse.Namespace) -> int:
    """Run the study and return the exit code; see the module."""
    environment = read_matrix(args)
    arms = len(environment.arms)
    if args.capacity is not None and args.capacity >= arms:
        raise ValueError(f"--capacity must be below the number of arms, {arms}, got {args.capacity}")
    say(args.file, args.notes)
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
        if note := scale_note(float(environment.rewards.std()), price):
            print(note, end="\n\n")
        print(residency_table(result["residency"]), NOTES, sep="\n\n")
    print(f"\nWritten to {args.out}: {', '.join(result['files'])}.")
    return 0


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
