"""Traces for other libraries: Open Bandit Pipeline and Vowpal Wabbit."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import numpy as np

from banditroute.logs.files import check_propensities, write
from banditroute.logs.trace import Trace

__all__ = ["to_dsjson", "to_obp"]


def to_obp(trace: Trace) -> dict[str, Any]:
    """Return the rows with a reward as the feedback dictionary of Open Bandit Pipeline (``obp``).

    Raises
    ------
    ValueError
        Propensities or contexts are missing: obp needs both; a propensity is not in (0, 1].

    Examples
    --------
    >>> trace = Trace(names=["a", "b"], arms=[0, 1], rewards=[1.0, 0.0], propensities=[0.5, 0.5], contexts=np.eye(2))
    >>> feedback = to_obp(trace)
    >>> feedback["n_rounds"], feedback["n_actions"], feedback["pscore"]
    (2, 2, array([0.5, 0.5]))
    """
    log = trace.answered()
    if log.propensities is None or log.contexts is None:
        raise ValueError("trace must hold propensities and contexts for obp, got a trace without")
    check_propensities(log.propensities, known=True)
    return {
        "n_rounds": len(log),
        "n_actions": len(log.names),
        "context": log.contexts,
        "action_context": np.eye(len(log.names)),
        "action": log.arms,
        "position": None,
        "reward": log.rewards,
        "expected_reward": None,
        "pscore": log.propensities,
    }


def to_dsjson(trace: Trace, path: str | Path) -> Path:
    """Write the rows with a reward as Vowpal Wabbit's decision-service JSON, one line each.

    Costs are rewards with the sign turned. Only eligible arms are listed, the chosen one first. A trace knows the
    probability of the chosen arm alone; the rest is spread evenly over the others, which ``vw`` does not learn from.

    Raises
    ------
    ValueError
        Propensities are missing, or one is not in (0, 1]. No file is changed then.

    Examples
    --------
    >>> import tempfile
    >>> trace = Trace(names=["a", "b"], arms=[1], rewards=[0.25], propensities=[0.5])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     line = json.loads(to_dsjson(trace, folder + "/log.dsjson").read_text())
    >>> line["_label_cost"], line["_label_Action"], line["a"], line["p"]
    (-0.25, 2, [2, 1], [0.5, 0.5])
    """
    log = trace.answered()
    if log.propensities is None:
        raise ValueError("trace must hold propensities for dsjson, got none")
    check_propensities(log.propensities, known=True)
    path = Path(path)

    def lines(file: IO[bytes]) -> None:
        for i in range(len(log)):
            file.write(json.dumps(_event(log, i), separators=(",", ":"), allow_nan=False).encode() + b"\n")

    write(path, lines, private=log.contexts is not None)
    return path


def _event(log: Trace, row: int) -> dict[str, Any]:
    assert log.propensities is not None
    allowed = range(len(log.names)) if log.eligible is None else np.flatnonzero(log.eligible[row]).tolist()
    place = list(allowed).index(int(log.arms[row]))
    others = [j for j in range(len(allowed)) if j != place]
    chosen = float(log.propensities[row])
    rest = (1.0 - chosen) / len(others) if others else 0.0
    shared = {} if log.contexts is None else {str(j): v for j, v in enumerate(log.contexts[row].tolist())}
    cost = -float(log.rewards[row])
    key = str(row if log.ids is None else int(log.ids[row]))
    moment = 0.0 if log.times is None or np.isnan(log.times[row]) else float(log.times[row])
    return {
        "_label_cost": cost,
        "_label_probability": chosen,
        "_label_Action": place + 1,
        "_labelIndex": place,
        "o": [{"v": cost, "EventId": key}],
        "Timestamp": datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z"),
        "Version": "1",
        "EventId": key,
        "a": [place + 1, *(j + 1 for j in others)],
        "c": {"request": shared, "_multi": [{"arm": {log.names[a]: 1}} for a in allowed]},
        "p": [chosen, *([rest] * len(others))],
        "VWState": {"m": "" if log.policy is None else log.policies[log.policy[row]]},
    }
