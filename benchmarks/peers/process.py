"""Virtual environments of the peers, and conversations with their worker processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1]
ENVIRONMENTS = BENCHMARKS.parent / ".venv-peers"
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
REMOVED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE", "NUMBA_DISABLE_JIT", "PYTHONPATH", "PYTHONHOME")


class PeerFailed(RuntimeError):
    """A peer could not be installed, or its worker stopped; the reason is the message."""


def interpreter(name: str) -> str:
    """Python of the peer's environment, built on first use and again when its pinned list changed.

    A peer without a list runs in the environment of the driver: that is this library.
    """
    listed = BENCHMARKS / "peers" / f"{name}.txt"
    if not listed.exists():
        return sys.executable
    home = ENVIRONMENTS / name
    python, stamp = home / "bin" / "python", home / ".installed"
    if not stamp.exists() or stamp.read_text() != listed.read_text():
        pip = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
            str(listed),
        ]
        for command in ([sys.executable, "-m", "venv", str(home)], pip):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise PeerFailed(
                    f"{name}: {' '.join(command)} failed: {done.stderr.strip().splitlines()[-1:]}"
                )
        stamp.write_text(listed.read_text())
    return str(python)


class Conversation:
    """A running worker; ``ask`` sends one command and waits for its answer. A context manager.

    Parameters
    ----------
    name
        Adapter module in this package.
    """

    def __init__(self, name: str):
        self.name = name
        environment = {key: value for key, value in os.environ.items() if key not in REMOVED}
        environment |= dict.fromkeys(THREADS, "1")
        self.process = subprocess.Popen(
            [interpreter(name), "-m", "peers.worker", name],
            cwd=BENCHMARKS, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def ask(self, do: str, **fields: object) -> dict:
        """Answer of the worker to the command `do`; `PeerFailed` when it stopped (stderr says why)."""
        try:
            print(json.dumps({"do": do, **fields}), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise PeerFailed(f"{self.name}: its worker stopped at {do!r} (exit {self.process.wait()})")
        return json.loads(line)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()  # closes the pipes and waits
