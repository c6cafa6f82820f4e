"""Tell from recorded rewards whether keeping adapters resident would help, and how many slots it takes.

FILE is a trace (.npz, .csv, .jsonl or .parquet, as `Trace.save` writes them): with contexts, the rewards of all arms
are what a linear router expects of them; without, each request is taken to need the arm that served it. Or FILE is an
.npz file as `study matrix` reads it: a (requests, arms) array of rewards, in the order of the requests, and contexts,
with which the rewards are replaced by what a linear router could expect of them; without (also --contexts ''), an
oracle router is meant. An array of the arms that served (--trace) will do too.

For each number of slots the table says
  coverage    share of what keeping all arms resident earns that the best set of so many earns
  gap         by how much, per request, that set beats the next best
  fixed       hit rate of the most used set, chosen once
  per window  hit rate of the most used set, chosen anew for each --window requests: re-planning by epochs hits no more
  sees ahead  hit rate of a cache that knows the next --window requests (SCH). Unlike a set it must take in every arm
              asked for, and it starts empty: with few slots it may hit less than a fixed set
and below it SRP, from 0 to 1: how well "used throughout the window or not at all" describes the arms (1: each window
has arms of its own), and how many arms are in use per window then.

For example
  banditroute diagnose log.parquet --fault 0.1 --window 1000
  banditroute diagnose llmrouter9.npz --rewards scores --scale 255 --contexts minilm_pca64
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from banditroute.cli.console import is_wide, positive, saved_scores, saved_trace, steps
from banditroute.cli.matrix import matrix_options
from banditroute.evaluation import Diagnosis, cross_fitted, diagnose, expected_rewards
from banditroute.logs import Trace
from banditroute.residency.paging import PROFILES, PagingModel

__all__ = ["configure", "run"]

NOTES = """\
Hits: of the best set, chosen once (fixed) or anew for each window, and of a cache that sees one window ahead; that one
must take in every arm asked for, so with few slots it may hit less than a fixed set. SRP: how well "used throughout the
window or not at all" describes the arms, 1 perfectly. Coverage and gap: see --help."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> configure(parser)
    >>> parser.parse_args(["log.npz", "--fault", "0.1"]).fault
    0.1
    """
    matrix_options(parser, without=("costs", "arms", "no_bias"), contexts=None)
    parser.add_argument("--trace", metavar="KEY", help="array of the arms that served, indices or names")
    price = parser.add_mutually_exclusive_group()
    price.add_argument("--fault", type=float, default=0.05, help="price of a fault, reward units (0.05)")
    price.add_argument("--profile", choices=sorted(PROFILES), help="or from these measured loads")
    parser.add_argument("--window", type=positive, default=500, help="requests per epoch in mind (500)")
    parser.add_argument(
        "--slots", type=positive, nargs="+", metavar="K", help="numbers of slots (all up to 16)"
    )
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis; 0."""
    with steps("diagnose", 2) as step:
        step("expected rewards")
        wide = is_wide(args.file, args)
        log = None if wide else saved_trace(args.file, args)
        utilities, trace = _of_table(args) if wide else _of_arrays(args) if log is None else _of_trace(log)
        step("slots and windows")
        count = utilities.shape[1] if utilities.ndim == 2 else 1
        faults = args.fault if args.profile is None else PagingModel.profile(args.profile).prices(count)
        found = diagnose(utilities, faults, slots=args.slots, window=args.window, trace=trace)
    print(_json(found) if args.json else _table(found, np.broadcast_to(faults, count)))
    return 0


def _of_trace(log: Trace) -> tuple[Any, Any]:
    if log.contexts is None:
        return np.eye(len(log.names))[log.arms], log.arms
    return expected_rewards(log), None  # the arms that served followed what was resident


def _of_table(args: argparse.Namespace) -> tuple[Any, Any]:
    table = saved_scores(args.file, args)
    utilities = table.rewards / args.scale
    if table.contexts is not None:
        columns = table.contexts[:, : args.components]
        utilities = cross_fitted(columns, utilities)
    return utilities, None


def _of_arrays(args: argparse.Namespace) -> tuple[Any, Any]:
    with np.load(args.file, allow_pickle=False) as file:
        trace = None if args.trace is None else _indices(_array(file, args.trace, args.file))
        if trace is not None and args.rewards not in file.files:
            utilities = np.eye(int(trace.max()) + 1)[trace]
        else:
            utilities = np.asarray(_array(file, args.rewards, args.file), dtype=np.float64) / args.scale
        if key := _contexts(args, file.files):
            columns = np.asarray(_array(file, key, args.file), np.float64)
            if columns.ndim != 2 or len(columns) != len(utilities):
                raise ValueError(
                    f"{args.file}: array {key!r} must be of shape ({len(utilities)}, d), one row per request, got "
                    f"{columns.shape}"
                )
            columns = columns[:, : args.components]
            utilities = cross_fitted(columns, utilities)
    return utilities, trace


def _contexts(args: argparse.Namespace, held: list[str]) -> str | None:
    """Return the key of the contexts: the one named, or the usual one where the file has it beside rewards."""
    if args.contexts is not None:
        return str(args.contexts)
    return "contexts" if {"contexts", args.rewards} <= set(held) else None


def _array(file: Any, key: str, path: Path) -> Any:
    if key not in file.files:
        raise ValueError(f"{path} has no array {key!r}; it holds {', '.join(file.files)}")
    return file[key]


def _indices(trace: Any) -> Any:
    return np.unique(trace, return_inverse=True)[1] if trace.dtype.kind in "US" else trace


def _table(found: Diagnosis, faults: Any) -> str:
    low, high = float(np.min(faults)), float(np.max(faults))
    price = f"{low:.4g}" if low == high else f"{low:.4g} .. {high:.4g}"
    lines = [
        f"{found.arms} arms, fault price {price}, windows of {found.window} requests",
        "",
        "slots  coverage      gap  hits: fixed  per window  sees ahead",  # --help explains them
    ]
    for i, slots in enumerate(found.slots):
        gap = "-" if np.isnan(found.gap[i]) else f"{found.gap[i]:.4f}"
        lines.append(
            f"{slots:5d}  {found.coverage[i]:8.1%}  {gap:>7}  {found.fixed[i]:11.1%}  {found.hits[i]:10.1%}"
            f"  {found.sch[i]:10.1%}"
        )
    lines += [
        "",
        f"SRP {found.srp:.3f} with {found.group:.1f} arms active per window",
        "",
        NOTES,
        "",
        found.summary(),
    ]
    return "\n".join(lines)


def _json(found: Diagnosis) -> str:
    values = {name: getattr(found, name) for name in found.__slots__}
    plain = {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in values.items()}
    plain["gap"] = [None if np.isnan(g) else g for g in plain["gap"]]
    return json.dumps({**plain, "enough": found.enough, "summary": found.summary()})
