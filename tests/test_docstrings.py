"""Every public callable says what it does and shows it; pytest runs what is shown (--doctest-modules)."""

import importlib
import inspect

import pytest

import banditroute

ROOMS = [
    "records", "policies", "policies.graph", "features", "config", "residency", "residency.paging", "terms", "logs", "durability", "router",
    "servers", "simulation", "evaluation", "plots", "testing",
]  # fmt: skip
# Made by a Router, never by a user: they say what they do and need not show it.
PARTS = {"Claims", "Host", "Listener", "Replica", "StateStore", "Term", "TermHost"}


def public_modules():
    """Return the root and the faces of the rooms; the files behind them are private."""
    return ["banditroute", *(f"banditroute.{room}" for room in ROOMS)]


def exported():
    """Return name -> object of every class and function that a public module lists in __all__."""
    found = {}
    for name in public_modules():
        try:
            module = importlib.import_module(name)
        except ImportError:  # an optional extra is not installed
            continue
        for item in getattr(module, "__all__", ()):
            value = getattr(module, item)
            if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith(
                "banditroute"
            ):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return found


EXPORTED = exported()


def test_there_is_something_to_test():
    assert len(EXPORTED) > 60
    assert all(hasattr(importlib.import_module("banditroute"), name) for name in banditroute.__all__)


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_public_callable_is_documented(name):
    value = EXPORTED[name]
    text = inspect.getdoc(value) if value.__doc__ else ""
    assert text, "no docstring"
    if value.__name__ not in PARTS:
        assert "Examples\n--------" in text, "no section of examples"
        assert ">>>" in text, "no example"
    assert len(text.splitlines()[0]) <= 120


@pytest.mark.parametrize("name", banditroute.__all__)
def test_parameters_of_what_the_package_exports_are_explained(name):
    value = getattr(banditroute, name)
    texts = [inspect.getdoc(base) or "" for base in getattr(value, "__mro__", [value])]
    missing = [p for p in parameters(value) if not any(p in text for text in texts)]
    assert not missing


def parameters(value):
    if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
        return []
    given = inspect.signature(value).parameters.values()
    return [
        p.name
        for p in given
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and not p.name.startswith("_")
    ]


@pytest.mark.parametrize("name", sorted(n for n, value in EXPORTED.items() if inspect.isclass(value)))
def test_public_methods_are_documented(name):
    silent = []
    for key, value in vars(EXPORTED[name]).items():
        plain = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if (
            not key.startswith("_")
            and inspect.isfunction(plain)
            and not inspect.getdoc(getattr(EXPORTED[name], key))
        ):
            silent.append(key)
    assert not silent
