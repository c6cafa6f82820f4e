"""The command line: ``banditroute COMMAND``."""

from banditroute.cli.commands import main

__all__ = ["main"]
