"""Print the JSON schema of configuration files, for editors and for checks elsewhere.

Example: a schema that editors complete and underline by.

  banditroute config schema > router.schema.json
"""

import argparse
import json

from banditroute.config import config_schema

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add no arguments."""


def run(args: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(config_schema(), indent=2))
    return 0
