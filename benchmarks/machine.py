"""What the figures of a run depend on: processor, caches, versions, date, and how busy the machine was."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path


def machine() -> dict:
    """Processor, usable cores, caches as the system reports them, system, date (UTC) and load average.

    Examples
    --------
    >>> sorted(machine())
    ['caches', 'cores', 'date', 'load_average', 'processor', 'system']
    """
    models = [
        line.split(":")[1].strip() for line in _lines(Path("/proc/cpuinfo")) if line.startswith("model name")
    ]
    caches = []
    for entry in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ("".join(_lines(entry / part)) for part in ("level", "type", "size"))
        caches.append(f"L{level} {kind.lower()} {size}")
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "caches": caches,
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
