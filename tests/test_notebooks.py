"""The notebooks of the documentation run, and what their text says about the output holds.

Here their cells run in this process, warnings being errors; ``make docs`` executes them in kernels and keeps the output.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.md"))
CELL = re.compile(
    r"^```\{code-cell\} ipython3\n(?P<options>(?::[^\n]*\n)*)\n?(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE
)


def cells(path):
    """Return (options, code) of every code cell."""
    return [(m["options"], m["code"]) for m in CELL.finditer(path.read_text(encoding="utf-8"))]


def test_there_are_six():
    assert len(NOTEBOOKS) == 6


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_runs(path, capsys, tmp_path, monkeypatch):
    matplotlib = pytest.importorskip("matplotlib", reason="notebooks draw: extra demo")
    pytest.importorskip("optuna", reason="notebooks tune: extra tune")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)  # needs no file of the repository, and leaves none there
    names = {"__name__": "__main__"}
    with matplotlib.rc_context():
        for number, (_, code) in enumerate(cells(path)):
            exec(compile(code, f"{path.name}, cell {number}", "exec"), names)
        pyplot.close("all")
    assert len(capsys.readouterr().out.splitlines()) > 10
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_plain_text_that_jupyter_opens(path):
    text = path.read_text(encoding="utf-8")
    header = text.split("---\n")[1]
    assert "format_name: myst" in header
    assert "name: python3" in header
    assert text.count("{code-cell}") == len(cells(path)) >= 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_what_a_notebook_says_is_checked_where_nobody_sees_it(path):
    hidden = [code for options, code in cells(path) if "remove-cell" in options]
    assert any("assert " in code for code in hidden)
    assert all("assert " not in code for options, code in cells(path) if "remove-cell" not in options)
