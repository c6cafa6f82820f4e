"""Objects as plain data: attributes to JSON and arrays, and back onto an object that already exists.

Nothing is ever made from a class name found in a file: objects are filled in place, so a file can hold data only.
Callables are left out, as a snapshot never holds callbacks.
"""

from collections import deque
from copy import copy
from typing import Any

import cachetools
import numpy as np

from banditroute._core.typing import Arrays

__all__ = ["fill", "flatten"]


def flatten(value: Any, path: str, arrays: Arrays) -> Any:
    """Return `value` as JSON-able data; arrays go to `arrays` under a name that starts with `path`.

    >>> flatten((1, {2}), "x", {})
    {'tuple': [1, {'set': [2]}]}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        arrays[path] = value.copy()
        return {"array": path}
    if isinstance(value, np.random.Generator):
        return {"generator": _listed(value.bit_generator.state)}
    if isinstance(value, cachetools.Cache):
        # Only eviction tells the order of a cache: it is emptied, as a copy, and refilled in that order.
        spent, order = copy(value), []
        while len(spent):
            order.append(spent.popitem())
        return {"cache": flatten(order, path, arrays)}
    if isinstance(value, dict):
        return {
            "dict": [[flatten(k, path, arrays), flatten(v, f"{path}.{k}", arrays)] for k, v in value.items()]
        }
    for kind in (tuple, list, set, frozenset, deque):
        if isinstance(value, kind):
            items = sorted(value) if isinstance(value, set | frozenset) else value
            return {kind.__name__: [flatten(v, f"{path}.{i}", arrays) for i, v in enumerate(items)]}
    kept = {k: v for k, v in _members(value).items() if not callable(v)}
    return {
        "object": type(value).__name__,
        "members": {k: flatten(v, f"{path}.{k}", arrays) for k, v in kept.items()},
    }


def fill(target: Any, data: Any, arrays: Arrays) -> Any:
    """Return what `flatten` described; objects are the attributes of `target`, changed in place.

    Raises ``ValueError`` when the two do not fit.
    """
    if not isinstance(data, dict):
        return data
    if "array" in data:
        return arrays[data["array"]].copy()
    if "generator" in data:
        if not isinstance(target, np.random.Generator):
            raise ValueError(f"a generator must stay one, got {type(target).__name__}")
        generator = np.random.Generator(type(target.bit_generator)())
        generator.bit_generator.state = data["generator"]
        return generator
    if "cache" in data:
        target.clear()
        for key, value in fill(None, data["cache"], arrays):
            target[key] = value
        return target
    if "dict" in data:
        old = target if isinstance(target, dict) else {}
        pairs = [(fill(None, k, arrays), v) for k, v in data["dict"]]
        return {k: fill(old.get(k), v, arrays) for k, v in pairs}
    for kind in (tuple, list, set, frozenset, deque):
        if kind.__name__ in data:
            olds = list(target) if isinstance(target, tuple | list) else []
            given = data[kind.__name__]
            olds += [None] * (len(given) - len(olds))
            items = [fill(t, v, arrays) for t, v in zip(olds, given, strict=False)]
            if isinstance(target, tuple) and hasattr(target, "_fields"):
                return type(target)(*items)
            if isinstance(target, deque):
                return deque(items, target.maxlen)
            return kind(items)
    if data["object"] != type(target).__name__:
        raise ValueError(f"a {data['object']} must stay one, got {type(target).__name__}")
    mine = _members(target)
    for name, value in data["members"].items():
        if name in mine:  # what an older version kept and this one does not need is passed over
            object.__setattr__(target, name, fill(mine[name], value, arrays))
    return target


def _members(value: Any) -> dict[str, Any]:
    if hasattr(value, "__dict__"):
        return dict(vars(value))
    if hasattr(value, "__slots__"):
        return {name: getattr(value, name) for name in value.__slots__ if hasattr(value, name)}
    raise ValueError(f"a snapshot holds plain data, got {type(value).__name__}")


def _listed(value: Any) -> Any:
    """Some generators keep an array in their state."""
    if isinstance(value, dict):
        return {k: _listed(v) for k, v in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value
