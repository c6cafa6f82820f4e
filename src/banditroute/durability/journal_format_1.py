"""Records of journals of format 1, which are read and no longer written: no numbers, arms removed by index."""

import json
import struct
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from banditroute.records import Answered, ArmChange, Decided, Dropped, Event, Pending

__all__ = ["RemovedAt", "parsed_1"]

DECISION = struct.Struct("<BQqdd?H")
FEEDBACK = struct.Struct("<BQd")
EXPIRY = struct.Struct("<BQ")
FOREIGN = struct.Struct("<Bd")
CHANGES = {"quarantine": "muted", "release": "unmuted"}


@dataclass(frozen=True, slots=True)
class RemovedAt:
    """An arm was removed, by its index.

    Examples
    --------
    >>> RemovedAt(2).index
    2
    """

    index: int


def parsed_1(payload: bytes) -> Event | RemovedAt | None:
    """Return the event of a payload, or None where the bytes are none.

    Examples
    --------
    >>> parsed_1(FEEDBACK.pack(2, 7, 0.5))
    Answered(id=7, reward=0.5, cost=None, seconds=None, failed=False, foreign=None, source=None)
    """
    try:
        kind = payload[0]
        if kind == 1:
            _, key, at, time, propensity, hit, size = DECISION.unpack_from(payload)
            place = DECISION.size + size
            arm = payload[DECISION.size : place].decode()
            context = np.frombuffer(payload[place:], dtype="<f8").astype(np.float64)
            return Decided(key, Pending(arm, context, propensity, _finite(time), at), hit, False)
        if kind == 2:
            _, key, reward = FEEDBACK.unpack(payload)
            return Answered(key, _finite(reward))
        if kind == 3:
            return Dropped(EXPIRY.unpack(payload)[1], "expired")
        if kind == 4:
            return _changed(json.loads(payload[1:]))
        if kind == 5:
            made = parsed_1(payload[FOREIGN.size :])
            if isinstance(made, Decided):
                return Answered(made.id, _finite(FOREIGN.unpack_from(payload)[1]), foreign=made.pending)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, struct.error, RecursionError):
        pass
    return None


def _changed(given: dict[str, Any]) -> Event | RemovedAt:
    what, value = given["what"], given["value"]
    if what == "answered":
        return Dropped(int(value), "answered")
    if what == "add":
        name, size, fault = value
        return ArmChange("added", str(name), (), float(size), float(fault))
    if what == "remove":
        return RemovedAt(int(value))
    return ArmChange(CHANGES[what], str(value), ())  # type: ignore[arg-type]


def _finite(number: float) -> float:
    if not isfinite(number):
        raise ValueError(number)
    return number
