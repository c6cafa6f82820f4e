"""Write measured tables into the documents, or check that they are the ones in there.

Every ``benchmarks/results/*.json`` may hold ``"tables": {NAME: {"columns": [...], "rows": [[...]], "note":
"..."}}``. A document asks for one with the lines ``<!-- bench:NAME -->`` and ``<!-- /bench:NAME -->``; what
stands between them is replaced. Usage: ``python benchmarks/report.py [--check]``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    "README.md",
    "docs/first-steps.md",
    "docs/performance.md",
    "docs/choosing-a-policy.md",
    "docs/studies/polar.md",
    "docs/gateways.md",
    "docs/studies/real-lora.md",
    "docs/changing-world.md",
    "docs/terms.md",
)
DOCUMENTS = tuple(ROOT / page for page in PAGES)
MARKED = re.compile(r"(<!-- bench:(?P<name>[\w-]+) -->\n)(?P<body>.*?)(<!-- /bench:(?P=name) -->)", re.DOTALL)
MARKER = re.compile(r"<!-- /?bench:[\w-]+ -->")


def load_tables(folder: Path) -> dict[str, dict]:
    """All tables of the result files in `folder`; `ValueError` when two files hold one of the same name."""
    tables: dict[str, dict] = {}
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8")).get("tables", {})
        if twice := tables.keys() & found.keys():
            raise ValueError(f"{path.name}: tables named like those of another file: {sorted(twice)}")
        tables |= found
    return tables


def markdown(table: Mapping) -> str:
    """A table as markdown: first column left, the others right, three significant digits, the note below.

    Examples
    --------
    >>> print(markdown({"columns": ["arms", "us"], "rows": [["15", 0.2749], ["1000", None]], "note": "CPU."}))
    | arms | us |
    | :-- | --: |
    | 15 | 0.275 |
    | 1000 |  |
    <BLANKLINE>
    CPU.
    """
    columns = list(table["columns"])
    for row in table["rows"]:
        if len(row) != len(columns):
            raise ValueError(f"a row must have {len(columns)} cells as the columns do, got {row!r}")
    lines = [columns, [":--", *["--:"] * (len(columns) - 1)], *table["rows"]]
    text = "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)
    return text + (f"\n\n{table['note']}" if table.get("note") else "")


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def filled(document: str, tables: Mapping[str, Mapping]) -> str:
    r"""The document with every marked place filled; `ValueError` for an unknown name or half a marker.

    Examples
    --------
    >>> filled("<!-- bench:a -->\nold\n<!-- /bench:a -->", {"a": {"columns": ["x"], "rows": [[1]]}})
    '<!-- bench:a -->\n| x |\n| :-- |\n| 1 |\n<!-- /bench:a -->'
    """

    def replace(match: re.Match[str]) -> str:
        if match["name"] not in tables:
            raise ValueError(f"no result holds the table {match['name']!r}; there are {sorted(tables)}")
        return f"{match[1]}{markdown(tables[match['name']])}\n{match[4]}"

    if left := MARKER.findall(MARKED.sub("", document)):
        raise ValueError(f"markers without their other half: {left}")
    return MARKED.sub(replace, document)


def main(arguments: list[str] | None = None) -> int:
    """Fill the documents, or with ``--check`` say which differ; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail when a document differs")
    check = parser.parse_args(arguments).check
    tables = load_tables(RESULTS)
    stale = []
    for path in DOCUMENTS:
        if not path.exists():
            continue
        before = path.read_text(encoding="utf-8")
        after = filled(before, tables)
        if after != before:
            stale.append(path.name)
            if not check:
                path.write_text(after, encoding="utf-8")
    if stale:
        print("differ from benchmarks/results:" if check else "written:", *stale, file=sys.stderr)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
