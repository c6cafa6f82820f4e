"""The code in the documents runs, links and anchors lead somewhere, and nothing public is left out of the reference."""

import importlib
import re
import runpy
from pathlib import Path
from types import FunctionType

import pytest

import banditroute

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
PLAIN = [path for path in DOCUMENTS if path.parent.name != "notebooks"]  # notebooks: see test_notebooks.py
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)

# Modules that a user of the package imports from, beside the package itself; the rest is behind them.
MODULES = [
    "policies", "policies.graph", "features", "config", "residency", "residency.paging", "terms", "logs", "durability", "router", "simulation",
    "evaluation",
]  # fmt: skip


def text(path):
    return path.read_text(encoding="utf-8")


def label(path):
    return path.relative_to(ROOT).as_posix()


def code(path):
    """All Python blocks of a document as one program: a block may continue the one before."""
    return "\n".join(BLOCK.findall(text(path)))


def anchors(path):
    """Return the names of the headings as code forges and the site make them; a repeated one is numbered."""
    seen, found = {}, set()
    for heading in HEADING.findall(FENCED.sub("", text(path))):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*$]", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        found.add(slug if slug not in seen else f"{slug}-{seen[slug]}")
        seen[slug] = seen.get(slug, 0) + 1
    return found


@pytest.mark.parametrize("path", [p for p in PLAIN if code(p)], ids=label)
def test_the_code_of_a_document_runs(path, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code(path), str(path), "exec"), {"__name__": path.stem})
    assert capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_no_document_reaches_through_a_router_to_its_policy(path):
    """The Router owns its policy: nobody else calls its writers, and pages read from a policy of their own."""
    assert not re.findall(r"router\.policy\.(?!arms\b)\w+", code(path))


def test_the_example_of_the_readme_is_short_and_learns(capsys):
    example = BLOCK.findall(text(ROOT / "README.md"))[0]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    names = {}
    exec(example, names)
    router, asked = names["router"], names["asked"]
    assert router.stats()["learned"] == 2000
    assert len(router.resident) == 2
    # Who answers a text well earns 1, others 0, and a fault costs 0.086: every text goes to its own arm.
    for topic, texts in asked.items():
        assert {router.select(one).arm for one in texts} == {topic}
    assert "sql ('sql', 'law')" in capsys.readouterr().out  # a new text, and who is asked most stays loaded


def test_the_quickstart_runs(capsys):
    runpy.run_path(str(ROOT / "examples" / "quickstart.py"), run_name="__main__")
    assert "5000 rewards learned, 0 pending" in capsys.readouterr().out


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_links_and_anchors_lead_somewhere(path):
    broken = []
    for link in LINK.findall(FENCED.sub("", text(path))):
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


def test_headings_become_anchors():
    assert "what-delay-costs" in anchors(DOCS / "notebooks" / "regret.md")
    assert {"algorithms-and-their-derivations", "the-pooled-prior"} <= anchors(DOCS / "algorithms.md")


def test_every_page_is_in_the_menu():
    menu = "\n".join(
        block
        for page in (DOCS / "index.md", DOCS / "api.md")
        for block in re.findall(r"^```\{toctree\}\n(.*?)^```$", text(page), re.DOTALL | re.MULTILINE)
    ).splitlines()
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")} - {"index"}
    assert "studies**" in menu
    missing = {page for page in pages if page not in menu and not page.startswith("studies")}
    assert not missing


def test_the_reference_holds_what_users_import():
    directives = re.findall(
        r"^\.\. auto(\w+):: (\S+)$", "\n".join(map(text, DOCS.glob("api/*.md"))), re.MULTILINE
    )
    whole = {path for kind, path in directives if kind == "module"}
    single = {id(found(path)) for kind, path in directives if kind != "module"}
    wanted = [banditroute, *(importlib.import_module(f"banditroute.{name}") for name in MODULES)]
    missing = [
        f"{module.__name__}.{name}"
        for module in wanted
        if module.__name__ not in whole
        for name in module.__all__
        if isinstance(getattr(module, name), type | FunctionType)
        and id(getattr(module, name)) not in single
        and getattr(getattr(module, name), "__module__", "") not in whole
    ]
    assert not missing, "add these to a page in docs/api"


def found(path):
    """Return the object that a dotted path names."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_the_glossary_explains_each_word_once():
    words = re.findall(r"^\| \*\*(.+?)\*\*", text(DOCS / "glossary.md"), re.MULTILINE)
    single = [w for entry in words for w in entry.split(", ")]
    assert len(single) > 30
    assert len(set(single)) == len(single)
