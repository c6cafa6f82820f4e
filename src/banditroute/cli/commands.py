"""The command line: ``banditroute COMMAND``.

Exit codes: 0 done, 1 failed with one line on stderr, 2 misused, 130 interrupted.
"""

import argparse
import contextlib
import os
import sys
import zipfile
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from banditroute.errors import BanditRouteError

__all__ = ["main"]

# Words of the command, and the module with its `configure(parser)` and `run(args) -> int`.
COMMANDS = {
    "demo": "banditroute.cli.demo",
    "study matrix": "banditroute.cli.study_matrix",
    "study frontier": "banditroute.cli.frontier",
    "diagnose": "banditroute.cli.diagnose",
    "tune": "banditroute.cli.tune",
    "report": "banditroute.cli.report",
    "config check": "banditroute.cli.config_check",
    "config schema": "banditroute.cli.config_schema",
    "warmup": "banditroute.cli.warm_up",
    "serve": "banditroute.cli.serve",
}
GROUPS = {"study": "Compare on data", "config": "Configuration files"}
# What the data or the machine can cause; TypeError is how the library refuses arrays of the wrong kind.
FAILURES = (
    BanditRouteError,
    EOFError,
    ImportError,
    KeyError,
    OSError,
    TypeError,
    ValueError,
    zipfile.BadZipFile,
)


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; a module's docstring is its help.

    Examples
    --------
    >>> parser().parse_args(["demo", "--seeds", "3"]).seeds
    3
    """
    top = argparse.ArgumentParser(
        prog="banditroute",
        description="Route requests to arms and keep the right adapters resident.",
        epilog="banditroute COMMAND --help explains a command and shows examples.",
    )
    top.add_argument("--version", action="version", version=f"banditroute {version('banditroute')}")
    groups = {"": top.add_subparsers(metavar="COMMAND", required=True)}
    for words, module in COMMANDS.items():
        *parents, name = words.split()
        group = "".join(parents)
        if group not in groups:
            parent = groups[""].add_parser(group, help=f"{GROUPS[group]}: {_members(group)}")
            groups[group] = parent.add_subparsers(metavar="WHAT", required=True)
        command = import_module(module)
        text = (command.__doc__ or "").strip()
        own = groups[group].add_parser(
            name,
            help=text.splitlines()[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.configure(own)
        own.set_defaults(run=command.run)
    return top


def _members(group: str) -> str:
    return ", ".join(words.split()[1] for words in COMMANDS if words.split()[0] == group)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; wrong usage leaves with code 2 from argparse.

    Examples
    --------
    >>> main(["study", "matrix", "nowhere.npz"])
    1
    """
    options = parser().parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()
        return code
    except (
        BrokenPipeError
    ):  # whoever read the output has seen enough; nothing may be flushed to them at the end
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except FAILURES as error:
        print(f"banditroute: {_reason(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("banditroute: interrupted", file=sys.stderr)
        return 130


def _reason(error: BaseException) -> str:
    """Return the message on one line; a package that is missing is named with the extra that brings it."""
    if isinstance(error, ModuleNotFoundError) and error.name in ("joblib", "matplotlib", "sklearn", "tqdm"):
        return f"needs {error.name}: pip install 'banditroute[demo]'"
    if isinstance(error, ModuleNotFoundError) and error.name in ("fastapi", "prometheus_client", "uvicorn"):
        return f"needs {error.name}: pip install 'banditroute[serving]'"
    reason = (
        error.args[0] if isinstance(error, KeyError) and error.args else error
    )  # KeyError quotes its message
    return " ".join(str(reason).split()) or type(error).__name__
