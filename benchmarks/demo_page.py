"""Put a finished demo into the documents: its table as a result for `report.py`, its pictures into docs/images.

Usage: ``banditroute demo --out out/demo``, then ``python benchmarks/demo_page.py``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from machine import machine

from banditroute.cli.demo import COLUMNS, residency_cells

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ("demo-regret.png", "demo-residency.png")


def page(folder: Path) -> dict:
    """The result file of a demo: settings, rows, the machine, and the table of the README."""
    demo = json.loads((folder / "demo.json").read_text(encoding="utf-8"))
    where = machine()
    note = (
        f"{demo['requests']:,} requests, {demo['arms']} adapters, {demo['capacity']} resident, {demo['seeds']} seeds, "
        f"± half a 95 % interval; measured on {where['processor']}, {where['date']}."
    )
    table = {"columns": COLUMNS, "rows": [residency_cells(row) for row in demo["rows"]], "note": note}
    return {"machine": where, **demo, "tables": {"demo": table}}


def main() -> int:
    """Write the result and copy the pictures; returns the exit code."""
    folder = ROOT / "out" / "demo"
    if not (folder / "demo.json").exists():
        print(f"no demo.json in {folder}: run `make demo` first", file=sys.stderr)
        return 1
    results, images = ROOT / "benchmarks" / "results", ROOT / "docs" / "images"
    results.mkdir(exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    (results / "demo.json").write_text(json.dumps(page(folder), indent=1) + "\n", encoding="utf-8")
    for name in PICTURES:
        shutil.copy(folder / name, images / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
