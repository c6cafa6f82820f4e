"""Compile everything before the first request, and say how long it took.

For the build of a container image, or before a server forks: what is compiled is kept on the disk, beside the package
or in the user's cache directory (NUMBA_CACHE_DIR), and every later process loads it in well under a second.

  banditroute warmup && uvicorn --workers 4 service:app
"""

import argparse
import os
import time
from pathlib import Path

import banditroute._core.kernels as kernels

__all__ = ["configure", "run"]


def configure(parser: argparse.ArgumentParser) -> None:
    """Add no arguments."""


def run(args: argparse.Namespace) -> int:
    """Compile, print where to and how long it took."""
    from banditroute.simulation import warmup

    start = time.perf_counter()
    warmup()
    place = os.environ.get("NUMBA_CACHE_DIR") or Path(kernels.__file__).parent
    print(f"compiled, or loaded from the cache, in {time.perf_counter() - start:.1f} s; kernels: {place}")
    return 0
