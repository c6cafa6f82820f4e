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

KINDS: tuple[type[Any], ...] = (tuple, list, set, frozenset, deque)


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
    for kind in KINDS:
        if isinstance(value, kind):
            items = sorted(value) if isinstance(value, set | frozenset) else value
            return {kind.__name__: [flatten(v, f"{path}.{i}", arrays) for i, v in enumerate(items)]}
    kept = {k: v for k, v in _members(value).items() if not callable(v)}
    return {
        "object": type(value).__name__,
        "members": {k: flatten(v, f"{path}.{k}", arrays) for k, v in kept.items()},
    }


def fill(target: Any, data: Any, arrays: Arrays) -> Any:
    """Return what `flatten` described; objects are the attributes of `target`, changed in place: give a copy.

    A value keeps its kind: text stays text, a number a number, an array has as many dimensions of the same kind of
    number; None may become anything, and anything but a number None. An object that has a method ``check_state`` is
    asked whether its attributes go together. Raises ``ValueError`` when the two do not fit.

    >>> fill((0, set()), {"tuple": [1, {"set": [2]}]}, {})
    (1, {2})
    >>> fill(3, "three", {})
    Traceback (most recent call last):
    ValueError: an int must stay a number, got 'three'
    """
    try:
        return _filled(target, data, arrays)
    except (TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"a state must be what was stored, got {error!r}") from error


def _filled(target: Any, data: Any, arrays: Arrays) -> Any:
    if not isinstance(data, dict):
        return _plain(target, data)
    if "array" in data:
        array = arrays[data["array"]]
        if isinstance(target, np.ndarray) and (target.ndim, target.dtype.kind) != (
            array.ndim,
            array.dtype.kind,
        ):
            raise ValueError(
                f"an array of {target.dtype} must stay one, got {array.dtype}, {array.ndim} dimensions"
            )
        if target is not None and not isinstance(target, np.ndarray):
            raise ValueError(f"a {type(target).__name__} must stay one, got an array")
        return array.copy()
    if "generator" in data:
        if not isinstance(target, np.random.Generator):
            raise ValueError(f"a generator must stay one, got {type(target).__name__}")
        generator = np.random.Generator(type(target.bit_generator)())
        generator.bit_generator.state = data["generator"]
        return generator
    if "cache" in data:
        target.clear()
        for key, value in _filled(None, data["cache"], arrays):
            target[key] = value
        return target
    if "dict" in data:
        if target is not None and not isinstance(target, dict):
            raise ValueError(f"a {type(target).__name__} must stay one, got a dict")
        old = target or {}
        pairs = [(_filled(None, k, arrays), v) for k, v in data["dict"]]
        return {k: _filled(old.get(k), v, arrays) for k, v in pairs}
    for kind in KINDS:
        if kind.__name__ in data:
            return _sequence(target, kind, data[kind.__name__], arrays)
    return _object(target, data, arrays)


def _plain(target: Any, data: Any) -> Any:
    """Return a number, text, truth value or None, where `target` may become one."""
    if isinstance(target, np.generic):
        target = target.item()
    if target is None or (data is None and not isinstance(target, int | float)):
        return data
    if isinstance(target, int | float) and not isinstance(data, int | float):
        raise ValueError(f"an {type(target).__name__} must stay a number, got {data!r}")
    if isinstance(target, str) and not isinstance(data, str):
        raise ValueError(f"a text must stay one, got {data!r}")
    if not isinstance(target, int | float | str):
        raise ValueError(f"a {type(target).__name__} must stay one, got {data!r}")
    if isinstance(data, int) and abs(data) >= 1 << 63:
        raise ValueError(f"a number must fit into 64 bits, got one of {data.bit_length()}")
    return data


def _sequence(target: Any, kind: type[Any], given: Any, arrays: Arrays) -> Any:
    if target is not None and not isinstance(target, kind):
        raise ValueError(f"a {type(target).__name__} must stay one, got a {kind.__name__}")
    olds = list(target) if isinstance(target, tuple | list) else []
    # What belongs together has the same length in both; a longer list is of things that were not there before.
    olds += [None] * (len(given) - len(olds))
    items = [_filled(t, v, arrays) for t, v in zip(olds, given, strict=False)]
    if isinstance(target, tuple) and hasattr(target, "_fields"):
        return type(target)(*items)
    if isinstance(target, deque):
        return deque(items, target.maxlen)
    return kind(items)


def _object(target: Any, data: dict[str, Any], arrays: Arrays) -> Any:
    if data["object"] != type(target).__name__:
        raise ValueError(f"a {data['object']} must stay one, got {type(target).__name__}")
    mine = _members(target)
    for name, value in data["members"].items():
        # What an older version kept and this one does not need is passed over, and nothing takes a callable's place.
        if name in mine and not callable(mine[name]):
            object.__setattr__(target, name, _filled(mine[name], value, arrays))
    check_state = getattr(target, "check_state", None)
    if check_state is not None:
        check_state()
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
