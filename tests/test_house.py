"""The structure that is promised: parts that keep to themselves, files and functions that fit a screen or two."""

import ast
import re
from pathlib import Path

import pytest

import banditroute

ROOT = Path(banditroute.__file__).parent
REPO = Path(__file__).resolve().parents[1]
FILES = sorted(ROOT.rglob("*.py"))
OUTSIDE_KERNELS = [path for path in FILES if "kernels" not in path.parts]
NAMED_TUPLES = {"_replace", "_asdict", "_fields", "_make"}
# Our own objects: an annotation `Any` for one of them would blind the type checker.
OWN = {
    "router", "host", "policy", "controller", "residency", "ledger", "parts", "planner", "reconciler", "journal",
    "replica", "recorder", "term", "listener", "claims",
}  # fmt: skip


def label(path):
    return path.relative_to(ROOT).as_posix()


def parsed(path):
    text = path.read_text(encoding="utf-8")
    return text, ast.parse(text)


def docstring_lines(tree):
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, kinds) and ast.get_docstring(node) is not None:
            found.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    return found


def code_lines(text, tree):
    silent = docstring_lines(tree)
    return [
        i
        for i, line in enumerate(text.splitlines(), 1)
        if i not in silent and line.strip() and line.strip()[0] != "#"
    ]


@pytest.mark.parametrize("path", OUTSIDE_KERNELS, ids=label)
def test_nobody_reaches_into_another_object(path):
    """Underscored names are read off self, cls, super() and a new object of the own class only."""
    _, tree = parsed(path)
    own = {"self", "cls", "new", "other"}  # `other`: of the own class, by the convention of this project
    reached = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.endswith("__")
        and node.attr not in NAMED_TUPLES
        and not (isinstance(node.value, ast.Name) and node.value.id in own)
        and not (isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") in ("super", "type"))
    ]
    assert not reached


@pytest.mark.parametrize("path", FILES, ids=label)
def test_files_stay_below_400_lines_without_their_docstrings(path):
    text, tree = parsed(path)
    assert len(text.splitlines()) - len(docstring_lines(tree)) <= 400


@pytest.mark.parametrize("path", OUTSIDE_KERNELS, ids=label)
def test_functions_stay_below_60_lines_of_code(path):
    text, tree = parsed(path)
    code = code_lines(text, tree)
    long = {
        node.name: size
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := sum(node.body[0].lineno <= i <= node.end_lineno for i in code)) > 60
    }
    assert not long


@pytest.mark.parametrize("path", FILES, ids=label)
def test_our_own_objects_have_their_types(path):
    _, tree = parsed(path)
    vague = [
        argument.arg
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for argument in (*node.args.args, *node.args.kwonlyargs)
        if argument.arg in OWN
        and argument.annotation is not None
        and ast.unparse(argument.annotation) == "Any"
    ]
    assert not vague


def test_contributing_lists_the_rooms_in_their_order():
    import test_layers

    text = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text[text.index("## Rooms") : text.index("## A walk")]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == test_layers.ROOMS


def test_the_walk_has_fifteen_steps_and_each_names_one_file_that_exists():
    text = (REPO / "CONTRIBUTING.md").read_text(encoding="utf-8")
    walk = text[text.index("## A walk") : text.index("## Conventions")]
    steps = re.findall(r"^\d+\. .*$", walk, re.MULTILINE)
    assert len(steps) == 15
    named = re.findall(r"\]\((src/[^)]+)\)", walk)
    assert len(named) >= 13
    assert all((REPO / name).is_file() for name in named)


def test_every_public_class_shows_its_state_in_a_line():
    from importlib import import_module

    silent = []
    for room in ("policies", "residency", "terms", "logs", "durability", "router"):
        face = import_module(f"banditroute.{room}")
        for name in face.__all__:
            value = getattr(face, name)
            if (
                isinstance(value, type)
                and value.__repr__ is object.__repr__
                and not getattr(value, "_is_protocol", False)
            ):
                silent.append(f"{room}.{name}")
    assert not silent
