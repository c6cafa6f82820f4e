"""The code in the documents runs, and what they link to is there."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


def code(path):
    """All Python blocks of a document as one program: a block may continue the one before."""
    return "\n".join(BLOCK.findall(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if code(p)], ids=lambda p: p.name)
def test_the_code_of_a_document_runs(path, capsys):
    names = {"__name__": path.stem}
    exec(compile(code(path), str(path), "exec"), names)
    assert names["router"].stats()["learned"] > 0
    assert capsys.readouterr().out


def test_the_example_of_the_readme_is_short_and_learns(capsys):
    text = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))[0]
    assert len([line for line in text.splitlines() if line.strip()]) <= 15
    names = {}
    exec(text, names)
    router, skill, rng = names["router"], names["skill"], names["rng"]
    assert len(router.resident) == 2
    # A fault costs 0.086, so the arm chosen may be that much below the best, and a little more for what 3,000 noiseless
    # requests leave uncertain; the spread between arms is about 1. The seed is fixed.
    for x in rng.normal(size=(200, 8)) / 8**0.5:
        values = skill @ x
        assert values.max() - values[names["adapters"].index(router.select(x).arm)] < 0.2


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(path):
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    missing = [t for t in targets if not (path.parent / t).exists()]
    assert not missing


def test_the_glossary_explains_each_word_once():
    words = re.findall(
        r"^\| \*\*(.+?)\*\*", (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    single = [w for entry in words for w in entry.split(", ")]
    assert len(single) > 30
    assert len(set(single)) == len(single)


def test_the_quickstart_runs(capsys):
    runpy.run_path(str(ROOT / "examples" / "quickstart.py"), run_name="__main__")
    assert "5000 rewards learned, 0 pending" in capsys.readouterr().out
