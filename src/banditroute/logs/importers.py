"""Logs as other software writes them: Open Bandit Dataset, Vowpal Wabbit's dsjson, spend logs of LiteLLM."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from banditroute._core.typing import Floats
from banditroute.logs import cells, files, frames
from banditroute.logs.builder import Builder
from banditroute.logs.text import rows_of_json
from banditroute.logs.trace import Trace

__all__ = ["from_dsjson", "from_litellm", "from_obp"]

WIDEST = 20_000  # columns of a context


def from_obp(source: Any) -> Trace:
    """Return the trace of a log of the Open Bandit Dataset, a file or a frame.

    Contexts are, as in ``obp``, one column per value of each ``user_feature_*`` in the order of the values, without the
    first one. Rows of all positions are taken alike.

    Parameters
    ----------
    source : path or frame
        With columns ``item_id``, ``click``, ``propensity_score`` and perhaps ``timestamp`` and ``user_feature_*``.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file; a column is missing.

    Examples
    --------
    >>> table = {"item_id": [10, 2], "click": [0, 1], "propensity_score": [0.5, 0.25], "user_feature_0": ["a", "b"]}
    >>> trace = from_obp(table)
    >>> trace.names, trace.arms.tolist(), trace.propensities.tolist(), trace.contexts.tolist()
    (('2', '10'), [1, 0], [0.5, 0.25], [[0.0], [1.0]])
    """
    wanted = {
        "arm": "item_id",
        "reward": "click",
        "propensity": "propensity_score",
        "time": "timestamp",
        "feature": "user_feature_*",
    }

    def finish(builder: Builder) -> Trace:
        found = builder.gathered(("arm", "reward", "propensity"))
        columns = []
        for words in builder.parts("feature").values():
            columns += [words == value for value in sorted(set(words.tolist()))[1:]]
            _not_too_wide(len(columns))
        contexts = np.stack(columns, axis=1).astype(np.float64) if columns else None
        return Trace(**{**found.values, "contexts": contexts}, notes=found.notes)

    return _read(source, wanted, {"feature": _texts}, finish)


def from_litellm(source: Any, *, reward: str = "status", arm: str = "model") -> Trace:
    """Return the trace of spend logs of a LiteLLM proxy, a file or a frame.

    Nobody logged propensities: such a trace can be described, not evaluated off-policy, until they are estimated.

    Parameters
    ----------
    source : path or frame
        Rows of the table of spend logs: ``model``, ``spend``, ``startTime``, ``endTime``, ``request_id``, ``status``.
    reward : str
        Column of rewards; a path such as ``"metadata.score"`` looks into a column of JSON. ``"status"`` rewards calls
        that succeeded with 1, others with 0.
    arm : str
        Column of arms; ``"model_group"`` is the name that callers used.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file; a column is missing.

    Examples
    --------
    >>> log = {"request_id": ["chatcmpl-1"], "model": ["gpt-4o"], "spend": [0.002], "status": ["success"],
    ...        "startTime": ["2024-05-31T12:00:00Z"], "endTime": ["2024-05-31T12:00:01.5Z"]}
    >>> trace = from_litellm(log)
    >>> trace.names, trace.rewards, trace.costs, trace.latencies
    (('gpt-4o',), array([1.]), array([0.002]), array([1.5]))
    """
    column, _, path = reward.partition(".")
    wanted = {
        "arm": arm,
        "outcome": column,
        "cost": "spend",
        "time": "startTime",
        "end": "endTime",
        "id": "request_id",
    }

    def outcome(title: str, values: Any, first: int) -> Floats:
        if path:
            return cells.numbers(
                reward, [_inside(one, path.split(".")) for one in cells.plain(values)], first
            )
        if column == "status":
            values = [_succeeded(one) for one in cells.plain(values)]
        return cells.numbers(title, values, first)

    def finish(builder: Builder) -> Trace:
        found = builder.gathered(("arm", "outcome"))
        end, start = builder.extra("end"), found.values.get("times")
        own = {} if end is None or start is None else {"latencies": end - start}
        said = ("rewards are 1 where the call succeeded, else 0",) if column == "status" else ()
        rewards = builder.extra("outcome")
        return Trace(**{**found.values, **own, "rewards": rewards}, notes=(*said, *found.notes))

    return _read(source, wanted, {"outcome": outcome, "end": cells.times}, finish)


def _succeeded(cell: Any) -> Any:
    word = str(cell).strip().lower()
    return 1.0 if word == "success" else 0.0 if word in ("failure", "error", "failed") else cell


def _inside(cell: Any, path: list[str]) -> Any:
    """Return what lies under the keys of an object, or of its JSON; None where there is nothing."""
    for key in path:
        if isinstance(cell, str):
            try:
                cell = json.loads(cell)
            except ValueError:
                return None
        cell = cell.get(key) if isinstance(cell, dict) else None
    return cell


def _texts(title: str, values: Any, first: int) -> Any:
    return np.array([str(one) for one in cells.plain(values)], dtype=object)


def _read(
    source: Any,
    wanted: Mapping[str, str],
    also: Mapping[str, cells.Parse],
    finish: Callable[[Builder], Trace],
) -> Trace:
    if isinstance(source, str | Path):
        return files.gather(Path(source), wanted, finish=finish, also=also, strict=False)
    return finish(frames.read_frame(source, wanted, also=also, strict=False))


def _not_too_wide(width: int) -> None:
    if width > WIDEST:
        raise ValueError(f"contexts must have at most {WIDEST} columns, got {width}")


def from_dsjson(path: str | Path) -> Trace:
    """Return the trace of a file of Vowpal Wabbit's decision-service JSON.

    An arm is called by its ``_tag``, or by its only feature; where some arm has neither, arms are the positions in the
    list, from 1. Contexts are the shared features: a number is a column, a text a column per value, and what a row
    lacks is 0, as it is to ``vw``. Rewards are costs with the sign turned.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file; a line that is no decision, with its number.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.logs.exports import to_dsjson
    >>> trace = Trace(names=["a", "b"], arms=[1], rewards=[0.25], propensities=[0.5], contexts=[[0.5, 2.0]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     again = from_dsjson(to_dsjson(trace, folder + "/log.dsjson"))
    >>> again.names, again.arms, again.rewards, again.contexts
    (('a', 'b'), array([1]), array([0.25]), array([[0.5, 2. ]]))
    """
    return files.guarded(Path(path), _decisions)


def _decisions(file: IO[bytes]) -> Trace:
    lists: list[tuple[str | None, ...]] = []
    chosen: list[int] = []
    numbers: list[tuple[float, float]] = []
    moments, keys, passed = [], [], 0
    features: dict[str, int] = {}
    entries: list[tuple[int, int, float]] = []
    for number, row in enumerate(rows_of_json(file)):
        if "_label_cost" not in row:  # an observation that belongs to no decision, as loggers leave them
            passed += 1
            continue
        try:
            actions = row["c"]["_multi"]
            at = row["_labelIndex"] if "_labelIndex" in row else row["_label_Action"] - 1
            if not 0 <= at < len(actions):
                raise ValueError(f"action {at + 1} of {len(actions)}")
            numbers.append((-float(row["_label_cost"]), float(row["_label_probability"])))
            entries += [(len(lists), _place(features, name), value) for name, value in _features(row["c"])]
            lists.append(tuple(map(_name, actions)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"it must hold decisions of dsjson, got {error!r} in row {number}") from None
        chosen.append(at)
        moments.append(row.get("Timestamp"))
        keys.append(row.get("EventId"))
    if not lists:
        raise ValueError(f"it must hold decisions with _label_cost, got none in {passed} rows")
    return _of_lists(lists, chosen, np.array(numbers), moments, keys, (features, entries), passed)


def _of_lists(
    lists: list[tuple[str | None, ...]],
    chosen: list[int],
    numbers: Floats,
    moments: list[Any],
    keys: list[Any],
    context: tuple[dict[str, int], list[tuple[int, int, float]]],
    passed: int,
) -> Trace:
    named = all(None not in own and len(set(own)) == len(own) for own in set(lists))
    if not named:
        lists = [tuple(str(i + 1) for i in range(len(own))) for own in lists]
    words = [word or "" for own in dict.fromkeys(lists) for word in own]
    names = list(dict.fromkeys(words)) if named else cells.sorted_names(list(dict.fromkeys(words)))
    place = {name: i for i, name in enumerate(names)}
    eligible = np.zeros((len(lists), len(names)), dtype=np.bool_)
    for i, own in enumerate(lists):
        eligible[i, [place[word or ""] for word in own]] = True
    features, entries = context
    contexts = np.zeros((len(lists), len(features)))
    for row, column, value in entries:
        contexts[row, column] += value
    notes = [f"{passed:,} rows without a decision were passed over"] if passed else []
    notes += (
        []
        if named
        else ["arms are called by their positions: not every action has a tag or a single feature"]
    )
    return Trace(
        names=tuple(names),
        arms=np.array([place[own[at] or ""] for own, at in zip(lists, chosen, strict=True)], dtype=np.int64),
        rewards=numbers[:, 0],
        propensities=numbers[:, 1],
        contexts=contexts if features else None,
        times=None if None in moments else cells.times("Timestamp", moments),
        ids=None if None in keys else cells.ids("EventId", keys),
        eligible=None if eligible.all() else eligible,
        notes=tuple(notes),
    )


def _place(features: dict[str, int], name: str) -> int:
    _not_too_wide(len(features))
    return features.setdefault(name, len(features))


def _features(shared: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, float]]:
    """Yield the shared features by name: numbers as they are, texts as 1 under their value."""
    for key, value in shared.items():
        if key.startswith("_") and not before:
            continue
        name = f"{before}{key}"
        if isinstance(value, dict):
            yield from _features(value, f"{name}.")
        elif isinstance(value, list):
            yield from _features({str(i): one for i, one in enumerate(value)}, f"{name}.")
        elif isinstance(value, str):
            yield f"{name}={value}", 1.0
        elif value is not None:
            yield name, float(value)


def _name(action: Mapping[str, Any]) -> str | None:
    if isinstance(action.get("_tag"), str) and action["_tag"]:
        return str(action["_tag"])
    own = list(_features(action))
    return own[0][0].rpartition(".")[2].rpartition("=")[2] if len(own) == 1 else None
