"""Configuration files read and checked: every error names file, key, rule and value."""

import json
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from banditroute._core import validation as check
from banditroute.config.faults import faults
from banditroute.config.models import config_model
from banditroute.config.options import Options
from banditroute.errors import BanditRouteError

__all__ = ["ConfigError", "check_config", "checked", "config_schema", "read_config"]

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
    ending = path.suffix.lower()
    if ending not in READERS:
        raise ConfigError(f"{path}: must end in .toml, .json, .yaml or .yml, got {path.suffix!r}")
    try:
        given: Any = READERS[ending](path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"{path}: must be well-formed {ending[1:].upper()} in UTF-8, got: {reason}"
        ) from None
    if not isinstance(given, dict):
        raise ConfigError(f"{path}: must be a table of settings, got {check.shown(given)}")
    return str(path), given


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return pairs as a table; of two values under one key the reader cannot know which was meant."""
    table = dict(pairs)
    if len(table) < len(pairs):
        seen = [key for key, _ in pairs]
        twice = next(key for key in seen if seen.count(key) > 1)
        raise ValueError(f"key {twice!r} twice")
    return table


def _yaml(text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        """The safe loader, which would keep the last of two values under one key."""

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            if isinstance(node, yaml.MappingNode):
                keys = [self.construct_object(key, deep=True) for key, _ in node.value]
                _once([(key if isinstance(key, str) else repr(key), None) for key in keys])
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


READERS: dict[str, Callable[[str], Any]] = {
    ".toml": tomllib.loads,
    ".json": _json,
    ".yaml": _yaml,
    ".yml": _yaml,
}


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
    return checked(*read_config(source))


def checked(name: str, given: dict[str, Any]) -> Options:
    """Return what was read as checked settings.

    >>> checked("router.toml", {"policy": {}})
    Traceback (most recent call last):
    banditroute.config.files.ConfigError: router.toml: policy.kind: must be given
    """
    try:
        return config_model().model_validate(given)
    except ValidationError as error:
        raise ConfigError("\n".join(faults(name, given, error))) from None


def config_schema() -> dict[str, Any]:
    """Return the JSON schema of configuration files, for editors.

    Examples
    --------
    >>> config_schema()["title"]
    'Config'
    """
    return config_model().model_json_schema()
