"""The first steps of a new user, timed: a fresh environment, then the results of docs/first-steps.md as they stand.

Usage: ``python benchmarks/first_steps.py``, then ``python benchmarks/report.py``. Everything is installed into a
temporary environment; compiled code goes to a temporary folder, so compilation is included. Bars: at most 10 lines and
5 minutes for each result.
"""

import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import machine

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "first-steps.md"
BLOCK = re.compile(r"^```(python|text)?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOTEBOOK = """
import json, sys, nbformat
from nbclient import NotebookClient
book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(open(sys.argv[1]).read())])
NotebookClient(book, timeout=600).execute()
assert any("image/png" in out.get("data", {}) for cell in book.cells for out in cell.outputs), "no picture"
"""


def blocks():
    """Return the code of the page: a request, a line of the shell, a picture."""
    found = [code for _, code in BLOCK.findall(PAGE.read_text(encoding="utf-8"))]
    request = next(code for code in found if "router.select" in code)
    shell = next(code for code in found if code.startswith("banditroute report"))
    picture = next(code for code in found if "plots." in code)
    return request, shell, picture


def calls(path, rows=500):
    """Write a CSV of one's own."""
    rng = np.random.default_rng(0)
    words, large = rng.integers(5, 400, rows), rng.random(rows) < 0.5
    good = rng.random(rows) < np.where(large, 0.8, 0.95 - words / 800)
    lines = [
        f"{'large' if a else 'small'},{int(g)},0.5,{w}" for a, g, w in zip(large, good, words, strict=True)
    ]
    path.write_text("\n".join(["model,score,p,words", *lines]) + "\n", encoding="utf-8")


def timed(command, folder, home):
    """Return the seconds that a command takes, by the clock and of processors; it must succeed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    start, before = time.perf_counter(), busy()
    subprocess.run(
        command, cwd=folder, check=True, stdout=subprocess.DEVNULL,
        env={**environment, "NUMBA_CACHE_DIR": str(home / "compiled"), "XDG_CACHE_HOME": str(home / "cache")},
    )  # fmt: skip
    return np.array([time.perf_counter() - start, busy() - before])


def busy():
    """Return the processor seconds of all that was run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def walk(home):
    """Take the steps in a fresh environment under `home`, and write down after each what it took."""
    request, shell, picture = blocks()
    folder, python = home / "work", home / "env" / "bin" / "python"
    folder.mkdir()
    (folder / "request.py").write_text(request, encoding="utf-8")
    (folder / "picture.py").write_text(picture, encoding="utf-8")
    (folder / "book.py").write_text(NOTEBOOK, encoding="utf-8")
    calls(folder / "calls.csv")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    rows = []

    def step(name, lines, *commands):
        wall, cpu = sum(timed(command, folder, home) for command in commands)
        rows.append([name, lines, f"{wall:.0f}", f"{cpu:.0f}"])
        print(*rows[-1], sep="  ", flush=True)
        save(rows)

    new = [sys.executable, "-m", "venv", str(home / "env")]
    step("an environment and `pip install .`", 2, new, [*pip, str(ROOT)])
    step("a routed request, compilation included", count(request), [str(python), "request.py"])
    step("`pip install '.[demo]'` and a notebook", 1, [*pip, f"{ROOT}[demo]", "ipykernel", "nbclient"])
    report = [str(python.parent / "banditroute"), *shell.split()[1:]]
    step("a report on a CSV of one's own", count(shell), report)
    assert (folder / "report.html").exists()
    step("a picture in a notebook", count(picture), [str(python), "book.py", "picture.py"])
    step("the same request once more", count(request), [str(python), "request.py"])


def count(code):
    return len([line for line in code.splitlines() if line.strip()])


def save(rows):
    """Write the result, for `report.py`."""
    where = machine()
    load = f"load average {where['load_average']} at the end"
    note = f"{where['processor']}, {where['cores']} cores, {where['date']}, {load}."
    table = {"columns": ["step", "lines", "seconds", "CPU seconds"], "rows": rows, "note": note}
    result = json.dumps({"machine": where, "tables": {"first-steps": table}}, indent=1)
    (ROOT / "benchmarks" / "results" / "first-steps.json").write_text(result + "\n", encoding="utf-8")


def main():
    with tempfile.TemporaryDirectory() as home:
        walk(Path(home))
    return 0


if __name__ == "__main__":
    sys.exit(main())
