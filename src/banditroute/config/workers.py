"""The Router of one of several worker processes that share a configuration file."""

import os
from pathlib import Path
from typing import IO

from banditroute._core.files import lock
from banditroute.config.files import check_config, read_config
from banditroute.config.routers import from_config
from banditroute.router import Router

__all__ = ["worker_router"]

_held: list[IO[bytes]] = []  # locks that this process holds while it lives


def worker_router(config: str | os.PathLike[str], workers: int) -> Router:
    """Return the Router of one worker: of several, each recovers from a directory of its own.

    Examples
    --------
    >>> import tempfile
    >>> text = '{"policy": {"kind": "LinUCB", "arms": ["a", "b"], "dim": 1}, "recover": {"directory": "%s"}}'
    >>> with tempfile.TemporaryDirectory() as home:
    ...     file = Path(home, "config.json")
    ...     done = file.write_text(text % Path(home, "state").as_posix())
    ...     with worker_router(file, 2):
    ...         sorted(path.name for path in Path(home, "state").iterdir())
    ['worker-0', 'worker-0.lock']
    """
    _, given = read_config(config)
    if workers > 1 and "recover" in given:
        check_config(config)
        home = Path(given["recover"]["directory"])
        given = {**given, "recover": {**given["recover"], "directory": str(_own(home, workers))}}
        return from_config(given)
    return from_config(config)


def _own(home: Path, workers: int) -> Path:
    """Return the first directory that no living worker has; one that is started again takes that of the one before."""
    home.mkdir(parents=True, exist_ok=True)
    for number in range(2 * workers):  # those that are just stopping hold theirs still
        file = open(home / f"worker-{number}.lock", "ab", buffering=0)  # noqa: SIM115 - held while the process lives
        try:
            lock(file, wait=False)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        return home / f"worker-{number}"
    raise OSError(f"{home}: every directory of {2 * workers} is in use by another process")
