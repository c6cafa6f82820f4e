"""Check a configuration file and say in a line what it makes; exit 1 with its faults.

Nothing is started: no directory, store or server is touched.

  banditroute config check router.toml
"""

import argparse
import sys
from pathlib import Path

from banditroute.config import ConfigError, summary

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("file", type=Path, help=".toml, .json, .yaml or .yml")


def run(args: argparse.Namespace) -> int:
    """Print what the file makes, or its faults, one a line.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as home:
    ...     path = Path(home) / "router.json"
    ...     _ = path.write_text('{"policy": {"kind": "LinUCB", "arms": ["a", "b"], "dim": 2}}')
    ...     run(argparse.Namespace(file=path))
    Router(LinUCB, 2 arms, dim=2)
    0
    """
    try:
        print(summary(args.file))
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
