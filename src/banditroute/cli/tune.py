"""Choose settings on half of your matrix of rewards, or of your trace, and judge them on the other half.

FILE is a log with contexts and propensities: what `Trace.save` writes, or a CSV, JSON lines or Parquet file whose
columns the options name. Or it holds the scores of all arms, as `study matrix` reads them.

For example
  banditroute tune log.parquet
  banditroute tune llmrouter9.npz --contexts minilm_pca64 --rewards scores --scale 255 --storage study.journal
  banditroute tune mine.npz --capacity 3 --fault 0.05 --search alpha epoch
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from banditroute.cli.console import aligned, is_wide, positive, saved_trace, say, steps
from banditroute.cli.matrix import matrix_options, read_matrix
from banditroute.evaluation import Draws, Tuned, tune
from banditroute.logs import Trace

__all__ = ["RANGES", "configure", "run"]

RANGES: dict[str, Any] = {
    "alpha": (0.02, 2.0, "log"),
    "ridge": (0.03, 30.0, "log"),
    "discount": [1.0, 0.9999, 0.9995, 0.999, 0.998],
    "mix": (0.0, 0.1),
    "epoch": (100, 2000, "log"),
    "price_weight": (0.25, 4.0, "log"),
    "controller": ["polaris", "polar"],
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> configure(parser)
    >>> parser.parse_args(["log.npz", "--search", "alpha", "mix"]).search
    ['alpha', 'mix']
    """
    matrix_options(parser, without=("costs",))
    add = parser.add_argument
    add("--search", nargs="+", choices=list(RANGES), default=["alpha", "ridge"], help="what to tune")
    add("--capacity", type=positive, metavar="K", help="tune with K arms in fast memory, under Polaris")
    add("--fault", type=float, default=0.05, help="price of a fault and of a load (%(default)s)")
    add("--requests", type=positive, default=4000, metavar="T", help="per draw (%(default)s)")
    add("--trials", type=positive, default=40, metavar="N", help="default: %(default)s")
    add(
        "--seeds",
        type=_pairs,
        default=8,
        metavar="N",
        help="paired draws per setting, 4 or more (%(default)s)",
    )
    add("--storage", type=Path, metavar="FILE", help="journal of the study; goes on where it ended")
    add("--jobs", type=int, default=1, metavar="N", help="processes; -1 for all cores (%(default)s)")
    add("--backend", default="loky", help="of joblib: loky, ray or dask (%(default)s)")
    add("--json", action="store_true", help="print the result as JSON")


def _pairs(text: str) -> int:
    if int(text) < 4:  # half of them must tell whether a setting is hopeless
        raise argparse.ArgumentTypeError(f"must be 4 or more, got {text}")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Tune, print and return 0."""
    data = _data(args)
    residency = {"epoch", "price_weight", "controller"} & set(args.search)
    if residency and args.capacity is None:
        raise ValueError(f"--search {min(residency)} needs --capacity: without residency it changes nothing")
    with steps("tune", args.trials + 1, "trial") as step:
        found = tune(
            data,
            {name: RANGES[name] for name in args.search},
            trials=args.trials,
            seeds=args.seeds,
            storage=args.storage,
            jobs=args.jobs,
            backend=args.backend,
            progress=step,
        )
    print(json.dumps({**asdict(found), "low": found.low, "high": found.high}) if args.json else _text(found))
    return 0


def _data(args: argparse.Namespace) -> Draws | Trace:
    trace = None if is_wide(args.file, args) else saved_trace(args.file, args)
    if trace is not None:
        if args.capacity is not None:
            raise ValueError("--capacity needs the rewards of all arms: a trace holds one per request")
        return trace
    environment = read_matrix(args, bounded=False)
    if args.capacity is not None and args.capacity >= len(environment.arms):
        raise ValueError(f"--capacity must be below the number of arms, {len(environment.arms)}")
    say(args.file, args.notes)
    return Draws(environment, args.requests, args.capacity, args.fault)


def _text(found: Tuned) -> str:
    best = sorted(found.trials, key=lambda trial: -trial["reward"])[:5]
    names = [name for name in best[0] if name not in ("reward", "stopped")]
    rows = [[f"{t['reward']:.4f}", *(_value(t[name]) for name in names)] for t in best]
    chosen, tried = _shown(found.setting), _shown(found.candidate)
    verdict = f"Deploy {chosen}." if chosen else "Keep the defaults: nothing beat them beyond doubt."
    lines = [
        f"{len(found.trials)} trials, {sum(t['stopped'] for t in found.trials)} stopped early; the best:",
        "",
        aligned(["reward", *names], rows),
        "",
        verdict,
    ]
    if tried:
        lines.append(
            f"On data that did not choose it, {found.rows:,} rows, {tried} earned {found.held_out:.4f}, the defaults "
            f"{found.default_held_out:.4f}: gain {found.gain:+.4f} [{found.low:+.4f}, {found.high:+.4f}]."
        )
        if not chosen and found.gain > 0.0:
            lines.append(f"About {found.rows_to_settle:,} such rows would settle it, were the gain as found.")
    return "\n".join(lines)


def _shown(setting: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in setting.items())


def _value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)
