"""Lines of code in src, by room, of this checkout and of another commit: python benchmarks/code_lines.py [BASE]

A line counts that is neither blank, nor a comment, nor part of a docstring. Modules that lay flat at the root of the
package are counted under "(flat)".
"""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KINDS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def counted(text: str) -> int:
    """Return the lines of code of one file."""
    silent: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, KINDS) and ast.get_docstring(node) is not None:
            silent.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(
        i not in silent and line.strip() != "" and not line.lstrip().startswith("#") for i, line in lines
    )


def git(*words: str) -> str:
    """Return what git says."""
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def rooms(commit: str | None) -> Counter[str]:
    """Return lines by room, of a commit or of the files as they are."""
    folder = "src/banditroute"
    found: Counter[str] = Counter()
    names = git("ls-tree", "-r", "--name-only", commit, folder) if commit else git("ls-files", folder)
    for name in names.splitlines():
        if name.endswith(".py"):
            parts = Path(name).relative_to(folder).parts
            room = parts[0] if len(parts) > 1 else "(flat)"
            text = git("show", f"{commit}:{name}") if commit else (ROOT / name).read_text(encoding="utf-8")
            found[room] += counted(text)
    return found


def main() -> None:
    """Print a table."""
    now = rooms(None)
    before = rooms(sys.argv[1]) if len(sys.argv) > 1 else Counter()
    print(f"{'room':14s} {'before':>8s} {'now':>8s}")
    for room in sorted({*now, *before}):
        print(f"{room:14s} {before[room]:8,d} {now[room]:8,d}")
    print(f"{'in all':14s} {before.total():8,d} {now.total():8,d}")


if __name__ == "__main__":
    main()
