"""Reward against cost on your own table of scores: what money buys at each price of it, and the area under that.

FILE holds contexts, the rewards of all arms and what each charges, as `study matrix` reads them; --costs names the
array of an .npz file, --cost the columns of a table. LinUCB routes at several prices of money (rewards that a unit of
it is worth) and learns meanwhile what each arm charges. AIQ is the area under the best mixes of two prices over the
range of costs, the measure of RouterBench. Requests are rows drawn with replacement.

For example
  banditroute study frontier scores.csv --reward "score:*" --cost "usd:*" --context "e_*"
  banditroute study frontier mine.npz --costs costs --prices 0 10 100 1000
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from banditroute.cli.console import aligned, positive, say, steps, write_json
from banditroute.cli.matrix import matrix_options, read_matrix
from banditroute.policies import LinUCB, Policy
from banditroute.simulation import Frontier, MatrixEnvironment, Stream, frontier

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command.

    Examples
    --------
    >>> parser = argparse.ArgumentParser()
    >>> configure(parser)
    >>> parser.parse_args(["mine.npz", "--costs", "usd", "--prices", "0", "10"]).prices
    [0.0, 10.0]
    """
    matrix_options(parser)
    add = parser.add_argument
    add(
        "--prices",
        type=float,
        nargs="+",
        metavar="P",
        help="rewards that a unit of money is worth (seven that fit)",
    )
    add("--known-costs", action="store_true", help="price what an arm charges on this very request")
    add("--requests", type=positive, default=4000, metavar="T", help="default: %(default)s")
    add("--seeds", type=positive, default=3, metavar="N", help="default: %(default)s")
    add("--out", type=Path, default=Path("out/frontier"), metavar="DIR", help="default: %(default)s")
    add("--json", action="store_true", help="print the result as JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Run the sweep, draw it, and return 0."""
    environment = read_matrix(args, bounded=False)
    if environment.costs is None:
        raise ValueError(
            f"{args.file} must have costs: --costs KEY of an .npz file, --cost COLUMN ... of a table"
        )
    say(args.file, args.notes)
    prices = fitting(environment) if args.prices is None else args.prices
    args.out.mkdir(parents=True, exist_ok=True)
    with steps("frontier", len(prices) * args.seeds, "run") as step:
        found = frontier(
            {"LinUCB": _linucb},
            partial(environment.stream, args.requests),
            prices,
            range(args.seeds),
            known_costs=args.known_costs,
            progress=step,
        )
    arms = {
        name: (float(cost), float(reward))
        for name, cost, reward in zip(
            environment.arms, environment.costs.mean(axis=0), environment.rewards.mean(axis=0), strict=True
        )
    }
    result: dict[str, Any] = {
        "command": "study frontier",
        "file": str(args.file),
        "points": [point._asdict() for point in found.points("LinUCB")],
        "aiq": found.aiq("LinUCB") if found.span()[0] < found.span()[1] else None,
        "arms": {name: {"cost": cost, "reward": reward} for name, (cost, reward) in arms.items()},
        "files": ["frontier.png", "frontier.json"],
    }
    _picture(found, arms, args.out / "frontier.png")
    write_json(args.out / "frontier.json", result)
    print(json.dumps(result) if args.json else _text(result, args.out))
    return 0


def fitting(environment: MatrixEnvironment) -> list[float]:
    """Return prices of money, 0 first, over which what is dear becomes what is not worth it.

    Examples
    --------
    >>> fitting(MatrixEnvironment(np.eye(2), np.eye(2), costs=np.full((2, 2), 0.5)))[:2]
    [0.0, 0.02]
    """
    assert environment.costs is not None
    dearest = float(environment.costs.mean(axis=0).max())
    if dearest <= 0.0:
        raise ValueError("costs must not all be 0: no price of money changes anything")
    return [0.0, *(round(float(p), 12) for p in np.geomspace(0.01, 3.0, 6) / dearest)]


def _linucb(stream: Stream, seed: int) -> Policy:
    return LinUCB(stream.arms, stream.dim, rng=seed)


def _picture(found: Frontier, arms: dict[str, tuple[float, float]], path: Path) -> None:
    from banditroute import plots

    with plots.page(1, 1, width=7.2, height=4.2, path=path) as (only,):
        plots.cost_frontier(found, arms=arms, ax=only)


def _text(result: dict[str, Any], out: Path) -> str:
    points = [
        [f"LinUCB, price {p['price']:.4g}", f"{p['reward']:.4f}", f"{p['cost']:.4g}"]
        for p in result["points"]
    ]
    arms = [
        [f"always {name}", f"{a['reward']:.4f}", f"{a['cost']:.4g}"] for name, a in result["arms"].items()
    ]
    area = "" if result["aiq"] is None else f"AIQ of LinUCB over its range of costs: {result['aiq']:.4f}.\n\n"
    table = aligned(["rule", "reward", "cost / request"], [*points, *arms])
    return f"{table}\n\n{area}Written to {out}: {', '.join(result['files'])}."
