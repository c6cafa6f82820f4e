"""The options of a class as a pydantic model, read off its constructor, so that no option is written down twice."""

import inspect
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, create_model

__all__ = ["Options", "options_of"]

Numbers = float | list[float] | dict[str, float]  # one for all arms, one for each, or by name
PLAIN = (bool, int, float, str)
SKIPPED = ("self", "base", "policy", "router", "of", "encoder", "parts")  # objects, which a file cannot hold


class Options(BaseModel):
    """Base of every part of a configuration: nothing unknown, nothing guessed."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=True)


def _plain(hint: Any) -> Any:
    """Return the part of a type that a file can hold, or None where that is nothing."""
    if hint in PLAIN or get_origin(hint) is Literal:
        return float | int if hint is float else hint
    if hint is type(None):
        return hint
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        arguments = tuple(one for one in arguments if get_origin(one) is not Callable)
        if "_SupportsArray" in str(arguments):  # ArrayLike, once resolved: numbers, and what stands beside it
            beside = [one for one in arguments if one is type(None) or get_origin(one) is Literal]
            return Union[(Numbers, *beside)]
        parts = [part for part in (_plain(one) for one in arguments) if part is not None]
        return Union[tuple(parts)] if parts and parts != [type(None)] else None  # noqa: UP007
    if origin in (tuple, list, set, frozenset, Sequence, Iterable):
        inner = [_plain(one) for one in arguments if one is not Ellipsis]
        if all(part is not None for part in inner) and inner:
            return list[Union[tuple(dict.fromkeys(inner))]]  # type: ignore[misc] # noqa: UP007
    if origin in (dict, Mapping):
        key, value = (_plain(one) for one in arguments)
        return None if key is not str or value is None else dict[str, value]  # type: ignore[valid-type]
    return Numbers if "NDArray" in str(hint) or "ndarray" in str(hint) else None


@cache
def options_of(kind: type, *, tagged: bool = True, without: tuple[str, ...] = ()) -> type[Options]:
    """Return the model of what a file may say of a class, besides its ``kind``, needless where there is one alone.

    What is in `without` is known from elsewhere.

    Examples
    --------
    >>> from banditroute import LRU
    >>> sorted(options_of(LRU).model_fields)
    ['capacity', 'kind', 'pinned', 'rng']
    """
    fields: dict[str, Any] = {"kind": (Literal[kind.__name__], ...)} if tagged else {}
    for owner in kind.__mro__:
        start = vars(owner).get("__init__")
        if not inspect.isfunction(start):
            continue
        hints = get_type_hints(start)
        passes_on = False
        for name, parameter in inspect.signature(start).parameters.items():
            if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                passes_on = passes_on or parameter.kind is parameter.VAR_KEYWORD
                continue
            hint = None if name in (*SKIPPED, *without) or name in fields else _plain(hints.get(name))
            if hint is not None:
                required = parameter.default is parameter.empty
                fields[name] = (hint, ...) if required else (hint, None)
        if not passes_on:
            break
    return create_model(kind.__name__, __base__=Options, **fields)
