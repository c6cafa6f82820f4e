"""Rooms import only rooms above them: the architecture, parsed from the source, lazy and typing imports included."""

import ast
import importlib
import importlib.metadata
import pkgutil
import re
import subprocess
import sys
import types
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import banditroute

ROOT = Path(banditroute.__file__).parent

# Bottom up: a room may import those that stand before it.
ROOMS = [
    "errors", "_core", "records", "policies", "features", "residency", "terms", "logs", "durability", "router",
    "servers", "config", "simulation", "evaluation", "plots", "cli", "testing",
]  # fmt: skip
CORE = {"numpy", "scipy", "numba", "pydantic", "cachetools"}
# Who may import a package that is not for everyone.
HOMES = {
    "numba": ("_core.kernels",),
    "pydantic": ("config", "servers.calls", "servers.sidecar"),
    "cachetools": ("residency", "_core.attributes"),
    "matplotlib": ("plots",),
    "pickle": ("_core.kernels",),  # of numba; read only where the bytes have the hash that was written
}
# Rooms that `import banditroute` may not load: they are for simulation, evaluation, commands and other software.
EDGES = {"features", "servers", "config", "simulation", "evaluation", "plots", "cli", "testing"}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def for_types_only(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(tree, *, lazy=True):
    """Yield (module inside the package or None, package outside or None) for each import statement."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if not lazy and (for_types_only(node) or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.Import):
            for name in node.names:
                head, _, rest = name.name.partition(".")
                yield (rest, None) if head == "banditroute" else (None, head)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            head, _, rest = node.module.partition(".")
            if head != "banditroute":
                yield None, head
                continue
            for name in node.names:
                full = f"{rest}.{name.name}".strip(".")
                yield (full if full in MODULES else rest), None
        waiting.extend(ast.iter_child_nodes(node))


@cache
def imported(module, lazy=True):
    found = list(imports(ast.parse(MODULES[module].read_text(encoding="utf-8")), lazy=lazy))
    return {m for m, _ in found if m is not None}, {p for _, p in found if p is not None}


def room(module):
    return module.split(".")[0]


def test_nothing_else_stands_at_the_root():
    files = {path.name for path in ROOT.iterdir() if path.name != "__pycache__"}
    assert files <= {"__init__.py", "__main__.py", "errors.py", "py.typed", *ROOMS}


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ("", "__main__")])
def test_rooms_import_only_rooms_above_them(module):
    inside, _ = imported(module)
    assert "" not in inside, f"{module} imports from the package itself, which is the top"
    below = {name for name in inside if ROOMS.index(room(name)) > ROOMS.index(room(module))}
    assert not below, f"{module} imports {below}"


def test_no_cycles():
    """Between files, lazy and typing imports included; a face imports its files, which never import their face."""
    graph = {name: imported(name)[0] - {name} for name in MODULES if name not in ("", "__main__")}
    own_face = {name: {i for i in inside if room(name) == i} for name, inside in graph.items()}
    assert not {name: faces for name, faces in own_face.items() if faces and "." in name}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other: {error.args[1]}")


@pytest.mark.parametrize("package", HOMES)
def test_packages_stay_at_home(package):
    homes = HOMES[package]
    guests = [
        name
        for name in MODULES
        if package in imported(name)[1]
        and not any(name == home or name.startswith(home + ".") for home in homes)
    ]
    assert not guests


@pytest.mark.parametrize("package", [name for name, path in MODULES.items() if path.name == "__init__.py"])
def test_no_public_name_hides_a_module(package):
    """``import banditroute.room.part as m`` binds a module, whatever the room's face exports."""
    face = importlib.import_module(f"banditroute.{package}".rstrip("."))
    hidden = []
    for found in pkgutil.iter_modules(face.__path__):
        if found.name == "__main__":
            continue
        try:
            importlib.import_module(f"{face.__name__}.{found.name}")
        except ImportError:  # an extra that is not installed
            continue
        if not isinstance(getattr(face, found.name), types.ModuleType):
            hidden.append(found.name)
    assert not hidden


def test_what_the_package_requires_is_imported():
    used = {package for module in MODULES for package in imported(module)[1]}
    required = {
        requirement.partition(";")[0].strip()
        for requirement in importlib.metadata.requires("banditroute")
        if "extra ==" not in requirement
    }
    assert {re.split(r"[<>=!~\[ ]", one)[0] for one in required} == CORE
    assert used >= CORE


def test_importing_the_package_needs_the_core_only():
    reached, waiting = set(), [""]
    while waiting:
        module = waiting.pop()
        if module in reached:
            continue
        reached.add(module)
        inside, outside = imported(module, lazy=False)
        stray = outside - CORE - set(sys.stdlib_module_names)
        assert not stray, f"{module or 'banditroute'} imports {stray}, reached from the package"
        for name in inside:
            parts = name.split(".")
            waiting.extend(".".join(parts[:n]) for n in range(1, len(parts) + 1))
    assert not {name for name in reached if name and room(name) in EDGES}


def test_importing_the_package_loads_no_extra():
    extras = [
        "matplotlib",
        "sklearn",
        "joblib",
        "tqdm",
        "pandas",
        "pyarrow",
        "redis",
        "prometheus_client",
        "pytest",
    ]
    code = f"import sys, banditroute; print([m for m in {extras} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_root_names_the_words_of_the_quickstart_only():
    assert len(banditroute.__all__) <= 30
    assert all(hasattr(banditroute, name) for name in banditroute.__all__)
