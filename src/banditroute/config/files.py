"""Configuration files read and checked: every error names file, key, rule and value."""

import json
import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from banditroute._core import validation as check
from banditroute.config.models import config_model
from banditroute.config.options import Options
from banditroute.errors import BanditRouteError

__all__ = ["ConfigError", "check_config", "config_schema", "read_config"]

Source = str | os.PathLike[str] | Mapping[str, Any]


class ConfigError(BanditRouteError, ValueError):
    """A configuration does not say what a Router needs.

    Examples
    --------
    >>> issubclass(ConfigError, ValueError)
    True
    """


def read_config(source: Source) -> tuple[str, dict[str, Any]]:
    """Return the name of a configuration, for messages, and what it says, unchecked.

    Parameters
    ----------
    source : path or mapping
        A file that ends in .toml, .json, .yaml or .yml, or what such a file would hold.

    Raises
    ------
    ConfigError
        Not of a known format, or not well formed.
    OSError
        The file cannot be read.
    ModuleNotFoundError
        YAML without PyYAML.

    Examples
    --------
    >>> read_config({"policy": {}})
    ('config', {'policy': {}})
    """
    if isinstance(source, Mapping):
        return "config", dict(source)
    path = Path(source)
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".toml":
            given: Any = tomllib.loads(text)
        elif path.suffix == ".json":
            given = json.loads(text)
        elif path.suffix in (".yaml", ".yml"):
            import yaml

            given = yaml.safe_load(text)
        else:
            raise ConfigError(f"{path}: must end in .toml, .json, .yaml or .yml, got {path.suffix!r}")
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: must be well-formed {path.suffix[1:].upper()}, got: {error}") from None
    except Exception as error:
        if type(error).__module__.startswith("yaml"):
            raise ConfigError(f"{path}: must be well-formed YAML, got: {error}") from None
        raise
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: must be a table of settings, got {type(given).__name__}")
    return str(path), given


def check_config(source: Source) -> Options:
    """Return a configuration as checked settings, without making anything of it.

    Parameters
    ----------
    source : path or mapping
        As in `read_config`.

    Raises
    ------
    ConfigError
        Each line names the file, the key, the rule and the value; a misspelt key is told with its nearest meaning.

    Examples
    --------
    >>> check_config({"policy": {"kind": "LinUCB", "arms": ["a", "b"], "dim": 2}}).policy.kind
    'LinUCB'
    >>> check_config({"policy": {"kind": "LinUCB", "arms": ["a", "b"], "dim": 2, "alfa": 1.0}})
    Traceback (most recent call last):
    banditroute.config.files.ConfigError: config: policy.alfa: no such setting, did you mean alpha?, got 1.0
    """
    name, given = read_config(source)
    try:
        return config_model().model_validate(given)
    except ValidationError as error:
        lines = dict.fromkeys(_line(name, given, one) for one in error.errors())
        raise ConfigError("\n".join(lines)) from None


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of configuration files, for editors.

    Examples
    --------
    >>> config_schema()["title"]
    'Config'
    """
    return config_model().model_json_schema()


def _line(name: str, given: Any, error: Any) -> str:
    """Return one fault of a configuration as a line."""
    path, at = [], given
    for step in error["loc"]:
        # A step that is not in the file is the name of an alternative that was tried.
        if isinstance(at, dict) and step in at:
            path.append(str(step))
            at = at[step]
        elif isinstance(at, list) and isinstance(step, int):
            path.append(str(step))
            at = at[step] if step < len(at) else None
        elif error["type"] == "missing" and step == error["loc"][-1]:
            path.append(str(step))
    key = ".".join(path) or "(all)"
    if error["type"] == "missing":
        return f"{name}: {key}: must be given"
    if error["type"] == "extra_forbidden":
        near = get_close_matches(path[-1], _known(error["loc"]), 1)
        hint = f", did you mean {near[0]}?" if near else ""
        return f"{name}: {key}: no such setting{hint}, got {check.shown(at)}"
    if error["type"] == "union_tag_invalid":
        given, known = (
            str(error["ctx"]["tag"]),
            [one.strip(" '") for one in error["ctx"]["expected_tags"].split(",")],
        )
        near = get_close_matches(given, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
        return f"{name}: {key}.kind: no such kind, {hint}, got {given!r}"
    rule = error["msg"][:1].lower() + error["msg"][1:]
    return f"{name}: {key}: {rule}, got {check.shown(at)}"


def _known(place: tuple[Any, ...]) -> list[str]:
    """Return the settings there are where one was misspelt."""
    model: Any = config_model()
    for step in place[:-1]:
        if isinstance(model, type) and issubclass(model, BaseModel) and step in model.model_fields:
            model = model.model_fields[step].annotation
        found = _named(model, step)
        model = found or model
    if isinstance(model, type) and issubclass(model, BaseModel):
        return list(model.model_fields)
    return []


def _named(hint: Any, name: Any) -> Any:
    """Return the model of this name within a type, or None."""
    from typing import get_args

    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return hint if hint.__name__ == name else None
    return next((found for one in get_args(hint) if (found := _named(one, name)) is not None), None)
