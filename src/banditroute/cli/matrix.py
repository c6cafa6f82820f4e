"""Scores of all arms in a file, as every command reads them, with one set of options."""

import argparse
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from banditroute._core import validation as check
from banditroute.cli.console import column_options, positive, saved_scores
from banditroute.simulation import MatrixEnvironment

__all__ = ["environment_of_table", "matrix_options", "read_matrix"]


OPTIONS: dict[str, dict[str, Any]] = {
    "contexts": {
        "default": "contexts",
        "metavar": "KEY",
        "help": "numbers that describe a request (contexts)",
    },
    "rewards": {"default": "rewards", "metavar": "KEY", "help": "what each arm earns (rewards)"},
    "costs": {"metavar": "KEY", "help": "money per request and arm"},
    "arms": {"metavar": "KEY", "help": "names of the arms; 0, 1, 2 ... when left out"},
    "scale": {
        "type": float,
        "default": 1.0,
        "metavar": "S",
        "help": "stored number that means a reward of 1",
    },
    "components": {"type": positive, "metavar": "N", "help": "leading context columns to keep (all)"},
    "no_bias": {"action": "store_true", "help": "do not append a constant to the contexts"},
}


def matrix_options(
    parser: argparse.ArgumentParser, *, without: Sequence[str] = (), contexts: str | None = "contexts"
) -> None:
    """Add FILE and the options that say what it holds, but for those that a command has no use for.

    `contexts` is the key where none is named; None leaves it to the command, which may do without.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> matrix_options(parser)
    >>> parser.parse_args(["mine.npz", "--scale", "255"]).scale
    255.0
    """
    parser.add_argument("file", type=Path, metavar="FILE")
    group = parser.add_argument_group(
        "scores of all arms", "Arrays of an .npz file by their keys, and what becomes of them."
    )
    for name, option in OPTIONS.items():
        if name in without:
            parser.set_defaults(**{name: option.get("default", False if "action" in option else None)})
        else:
            group.add_argument("--" + name.replace("_", "-"), **option)
    if contexts is None:
        parser.set_defaults(contexts=None)
    column_options(parser)


def read_matrix(args: argparse.Namespace, *, bounded: bool = True) -> MatrixEnvironment:
    """Return the environment that the options describe; errors name the file and what is wrong with it.

    With `bounded` rewards must be in [0, 1].

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> matrix_options(parser)
    >>> read_matrix(parser.parse_args(["nowhere.npz"]))
    Traceback (most recent call last):
    FileNotFoundError: no file nowhere.npz
    """
    if not args.file.is_file():
        raise FileNotFoundError(f"no file {args.file}")
    check.finite("scale", args.scale, low=0.0, open_low=True)
    args.notes = []  # for the command to say once all else is right
    if args.file.suffix in (".csv", ".jsonl", ".parquet"):
        environment = environment_of_table(args)
    else:
        environment = _of_arrays(args)
    low, high = environment.rewards.min(), environment.rewards.max()
    if bounded and (low < 0.0 or high > 1.0):
        way = f"; --scale {high * args.scale:g} brings them there" if low >= 0.0 else ""
        raise ValueError(
            f"{args.rewards} of {args.file} must be in [0, 1] after division by --scale {args.scale:g}, "
            f"got {low:g} .. {high:g}{way}"
        )
    return environment


def environment_of_table(args: argparse.Namespace) -> MatrixEnvironment:
    """Return the environment in a CSV, JSON lines or Parquet file of the scores of all arms.

    Examples
    --------
    >>> environment_of_table(argparse.Namespace(file=Path("nowhere.csv"), no_bias=False))
    Traceback (most recent call last):
    FileNotFoundError: no file nowhere.csv
    """
    bias = not args.no_bias
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
    names = None
    with np.load(args.file, allow_pickle=False) as file:
        for key in {args.contexts, args.rewards, args.costs} & set(file.files):
            if file[key].ndim != 2:
                raise ValueError(
                    f"{key} of {args.file} must have two dimensions, got shape {file[key].shape}"
                )
        if args.contexts in file.files:
            _say_cut(args, file[args.contexts].shape[1])
        used = {args.contexts, args.rewards, args.costs}
        if args.arms is not None:
            names, width = (
                _names(args, file),
                file[args.rewards].shape[1] if args.rewards in file.files else 0,
            )
            if width and len(names) != width:
                raise ValueError(
                    f"--arms must name an array of {width} names in {args.file}, got {args.arms!r}"
                )
            used.add(args.arms)
        left = [key for key in file.files if key not in used]
    if left:
        args.notes.append(f"not used: {', '.join(f'`{key}`' for key in left)}")
    whole = MatrixEnvironment.from_npz(
        args.file,
        args.contexts,
        args.rewards,
        args.costs,
        scale=args.scale,
        components=args.components,
        bias=not args.no_bias,
        order="replace",
    )
    if names is None:
        return whole
    return MatrixEnvironment(whole.contexts, whole.rewards, costs=whole.costs, arms=names, order="replace")


def _names(args: argparse.Namespace, file: Any) -> list[str]:
    """Return the names of the arms; a key that is not there has no names."""
    return [str(name) for name in file[args.arms].ravel()] if args.arms in file.files else []


def _say_cut(args: argparse.Namespace, width: int) -> None:
    if args.components is not None and args.components < width:
        args.notes.append(f"of {width} context columns the first {args.components} are kept: --components")
