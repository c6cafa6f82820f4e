"""What is wrong with a configuration, in lines: file, key, rule and value, and what a misspelt word may mean."""

from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from banditroute._core import validation as check
from banditroute.config.models import config_model

__all__ = ["faults", "nearest"]

# What pydantic says of a type, in the words of a configuration file.
WANTED = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "float_type": "a number",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "list_type": "a list",
    "model_attributes_type": "a table",
    "model_type": "a table",
    "none_required": "left out",
    "string_type": "a text",
}


def faults(name: str, given: Any, error: ValidationError) -> list[str]:
    """Return a line for each key that is wrong; alternatives that were tried for one key become one line.

    >>> from banditroute.config.models import config_model
    >>> given = {"policy": {"kind": "LinUCB", "arms": ["a"], "dim": "3"}}
    >>> try:
    ...     config_model().model_validate(given)
    ... except ValidationError as error:
    ...     faults("config", given, error)
    ["config: policy.dim: must be an integer, got '3'"]
    """
    wanted: dict[str, list[str]] = {}
    values: dict[str, Any] = {}
    lines: dict[str, str] = {}
    for one in error.errors():
        key, value = _place(given, one["loc"], one["type"])
        values[key] = value
        if one["type"] in WANTED:
            wanted.setdefault(key, []).append(WANTED[one["type"]])
        elif one["type"] == "literal_error":
            wanted.setdefault(key, []).append(one["ctx"]["expected"])
        else:
            lines.setdefault(f"{key}: {_rule(key, value, one)}", key)
    told = [f"{name}: {line}" for line in lines]
    for key, rules in wanted.items():
        # Where one alternative came further, into the table that was given, its own lines say more.
        if any(other != key and other.startswith(f"{key}.") for other in (*wanted, *lines.values())):
            continue
        rules = [rule for rule in dict.fromkeys(rules) if rule != "left out"]
        if "a number" in rules and "an integer" in rules:
            rules.remove("an integer")
        told.append(f"{name}: {key}: must be {' or '.join(rules)}, got {check.shown(values[key])}")
    return told


def nearest(given: str, known: list[str]) -> str:
    """Return ", did you mean ...?" where a known word is near, or nothing.

    >>> nearest("alfa", ["alpha", "ridge"])
    ', did you mean alpha?'
    """
    near = get_close_matches(given, known, 1) or [word for word in known if word.lower() == given.lower()]
    return f", did you mean {near[0]}?" if near else ""


def _place(given: Any, steps: tuple[Any, ...], kind: str) -> tuple[str, Any]:
    """Return the key of a fault as the file has it, and the value there."""
    path, at = [], given
    for step in steps:
        # A step that is not in the file is the name of an alternative that was tried.
        if isinstance(at, dict) and step in at:
            path.append(str(step))
            at = at[step]
        elif isinstance(at, list) and isinstance(step, int):
            path.append(str(step))
            at = at[step] if step < len(at) else None
        elif kind == "missing" and step == steps[-1]:
            path.append(str(step))
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        path.append("kind")
    return ".".join(path) or "(all)", at


def _rule(key: str, value: Any, error: Any) -> str:
    kind = error["type"]
    if kind in ("missing", "union_tag_not_found"):
        return "must be given"
    if kind == "extra_forbidden":
        hint = nearest(str(error["loc"][-1]), _known(error["loc"]))
        return f"no such setting{hint}, got {check.shown(value)}"
    if kind == "union_tag_invalid":
        known = [one.strip(" '") for one in error["ctx"]["expected_tags"].split(",")]
        given = value.get("kind") if isinstance(value, dict) else value
        hint = nearest(str(given), known) or f", one of {', '.join(known)}"
        return f"no such kind{hint}, got {check.shown(given)}"
    return f"{error['msg'][:1].lower()}{error['msg'][1:]}, got {check.shown(value)}"


def _known(place: tuple[Any, ...]) -> list[str]:
    """Return the settings that there are where one was misspelt."""
    models = [config_model()]
    for step in place[:-1]:
        tagged = [model for model in models if _tag(model) == step]
        if tagged:
            models = tagged
            continue
        inside = [model.model_fields[step].annotation for model in models if step in model.model_fields]
        models = [model for hint in inside for model in _models(hint)] or models
    return sorted({name for model in models for name in model.model_fields})


def _tag(model: Any) -> Any:
    """Return the ``kind`` that a model is chosen by; None where it has none."""
    field = model.model_fields.get("kind")
    return None if field is None else get_args(field.annotation)[0]


def _models(hint: Any) -> list[Any]:
    """Return the models within a type."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [hint]
    return [model for one in get_args(hint) for model in _models(one)]
