"""What an encoder is, as plain data: its name, and a digest of what a fitted transformer holds."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from banditroute.features.base import Features

__all__ = ["described"]

DEEPEST = 8


def described(encoder: Any) -> Any:
    """Return a description of an encoder that is equal where it is the same.

    Of a map its kind and settings; of a scikit-learn transformer its class and a digest of parameters and fitted
    attributes; of any other callable its name, for nothing else of it can be read.

    >>> described(None) is None
    True
    >>> described(len)
    'builtins.len'
    """
    if encoder is None:
        return None
    if isinstance(encoder, Features):
        return {"kind": type(encoder).__name__, "settings": encoder.settings()}
    if hasattr(encoder, "get_params"):
        digest = hashlib.sha256()
        for part in _parts(encoder, 0):
            digest.update(part)
        return f"{_name(type(encoder))} {digest.hexdigest()[:16]}"
    owner = getattr(encoder, "__self__", None)  # a method is known by the class it is of
    if owner is not None and not isinstance(owner, type) and not hasattr(owner, "__path__"):
        kind = type(owner)
        return f"{_name(kind)}.{encoder.__name__}" if kind.__name__ != "module" else _name(encoder)
    return _name(encoder if hasattr(encoder, "__qualname__") else type(encoder))


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{thing.__qualname__}"


def _parts(value: Any, depth: int) -> Iterator[bytes]:
    """Yield the bytes of a value: numbers, texts, arrays, containers, and the public attributes of transformers."""
    if depth > DEEPEST:
        return
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        yield f"{value.dtype.str}{value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield f"{key}:".encode()
            yield from _parts(value[key], depth + 1)
    elif isinstance(value, list | tuple | np.ndarray):
        yield f"[{len(value)}".encode()
        for one in value:
            yield from _parts(one, depth + 1)
    elif isinstance(value, set | frozenset):
        yield from _parts(sorted(value, key=str), depth)
    elif isinstance(value, type) or not hasattr(value, "__dict__"):
        yield f"{_name(value) if isinstance(value, type) else value!r}".encode() if _plain(value) else b"?"
    elif callable(value) and hasattr(value, "__qualname__"):
        yield _name(value).encode()
    else:
        yield _name(type(value)).encode()
        yield from _parts({k: v for k, v in vars(value).items() if not k.startswith("__")}, depth + 1)


def _plain(value: Any) -> bool:
    """Whether the text of a value says the same in every process."""
    return value is None or isinstance(value, str | bytes | int | float | bool | complex | type | np.generic)
