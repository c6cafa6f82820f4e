"""Imports point downwards only: the architecture, parsed from the source."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import banditroute

ROOT = Path(banditroute.__file__).parent

# Layer of each module, or of everything below it. A module may import its own layer and the ones below; what is not
# listed is an edge, which nothing but edges may import. `stream` sits above residency since the best set in hindsight
# is found by the optimiser that the controllers use; the parts of a Router share its layer.
LAYERS = {
    "errors": 0,
    "_kernels": 0,
    "_attributes": 0,
    "_validate": 1,
    "state": 1,
    "container": 1,
    "locks": 1,
    "feedback": 1,
    "popularity": 1,
    "cluster_graph": 1,
    "_edges": 1,
    "policy": 2,
    "policies": 2,
    "budget": 2,
    "floor": 2,
    "heads": 2,
    "prices": 2,
    "paging": 2,
    "paging_measured": 2,
    "paging_profiles": 2,
    "decision": 3,
    "residency": 3,
    "tally": 4,
    "snapshot": 4,
    "journal": 4,
    "stores": 4,
    "replicas": 4,
    "durable": 4,
    "maintenance": 4,
    "router": 4,
    "screening": 4,
    "config": 4,
    "stream": 4,
    "environments": 5,
    "synthetic": 5,
    "digits": 5,
    "recorded": 5,
    "workloads": 5,
    "simulate": 5,
    "regret": 5,
    "hindsight": 5,
    "warm": 5,
    "diagnose": 5,
    "recorder": 5,
    "trace": 5,
    "_trace_columns": 5,
    "_trace_parquet": 5,
    "trace_files": 5,
    "trace_exports": 5,
    "support": 5,
    "estimators": 5,
    "replay": 5,
    "evaluate": 5,
    "forecast": 5,
    "tune": 5,
}
EDGE = 6
CORE = {"numpy", "scipy", "numba", "pydantic", "cachetools"}
# Who may import a package that is not for everyone.
HOMES = {
    "numba": ("_kernels",),
    "pydantic": ("config",),
    "cachetools": ("residency", "_attributes"),
    "matplotlib": ("plots",),
    "pickle": (),
}


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
        if for_types_only(node) or (not lazy and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
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


def layer(module):
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in LAYERS:
            return LAYERS[".".join(parts[:length])]
    return EDGE


@pytest.mark.parametrize("module", [name for name in MODULES if name])
def test_imports_point_downwards(module):
    inside, _ = imported(module)
    assert "" not in inside, f"{module} imports from the package itself, which is the top"
    above = {name: layer(name) for name in inside if layer(name) > layer(module)}
    assert not above, f"{module} (layer {layer(module)}) imports {above}"


def test_the_table_names_modules_that_exist():
    future = {"config", "tune"}
    assert set(LAYERS) - set(MODULES) <= future


def test_no_cycles():
    graph = {name: imported(name, lazy=False)[0] - {name} for name in MODULES if name}
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
    edges = {name for name in reached if name and layer(name) == EDGE}
    assert not edges, f"the package reaches edges: {edges}"


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
