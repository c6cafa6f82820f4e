"""Several traces, such as those of workers, as one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute.logs.cells import sorted_names
from banditroute.logs.fields import Columns

__all__ = ["joined"]


def joined(
    traces: Sequence[Columns], columns: Sequence[str], declared: Sequence[bool] | None = None
) -> dict[str, Any]:
    """Return the arguments of a trace of the rows of several.

    Where `declared` is false, a trace names the arms that were chosen, and others were there as well.
    """
    told = declared or [True] * len(traces)
    arms = tuple(dict.fromkeys(name for trace in traces for name in trace.names))
    if not any(told):
        arms = tuple(sorted_names(arms))
    policies = tuple(dict.fromkeys(name for trace in traces for name in trace.policies))
    built: dict[str, Any] = {
        "names": arms,
        "policies": policies,
        "notes": tuple(dict.fromkeys(note for trace in traces for note in trace.notes)),
    }
    for name in columns:
        own = [getattr(trace, name) for trace in traces]
        if all(column is None for column in own):
            continue
        if name in ("propensities", "times", "latencies", "costs"):
            own = [np.full(len(t.arms), np.nan) if c is None else c for t, c in zip(traces, own, strict=True)]
        elif name in ("arms", "policy"):
            table = arms if name == "arms" else policies
            own = [_moved(trace, name, column, table) for trace, column in zip(traces, own, strict=True)]
        elif name in ("prices", "fault_prices", "eligible"):
            own = [
                _spread(trace, name, column, said, arms)
                for trace, column, said in zip(traces, own, told, strict=True)
            ]
        elif name == "candidates":
            own = _featured(traces, own, arms)
        elif any(column is None for column in own):
            continue
        if name == "contexts" and len({column.shape[1] for column in own}) > 1:
            raise ValueError(f"traces must have contexts of one length, got {[c.shape[1] for c in own]}")
        built[name] = np.concatenate(own)
    if "eligible" not in built and any(
        said and set(trace.names) != set(arms) for trace, said in zip(traces, told, strict=True)
    ):
        masks = [
            _spread(trace, "eligible", None, said, arms) for trace, said in zip(traces, told, strict=True)
        ]
        built["eligible"] = np.concatenate(masks)
    return built


def _moved(trace: Columns, name: str, column: Any, table: tuple[str, ...]) -> NDArray[np.int64]:
    """Return indices into the names of all traces."""
    own = trace.names if name == "arms" else trace.policies
    lookup = np.array([table.index(one) for one in own], dtype=np.int64)
    moved: NDArray[np.int64] = lookup[np.zeros(len(trace.arms), dtype=np.int64) if column is None else column]
    return moved


def _featured(traces: Sequence[Columns], own: Sequence[Any], arms: tuple[str, ...]) -> list[NDArray[Any]]:
    """Return features with a place for the arms of all traces; where there are none they are 0."""
    sizes = {c.shape[1] // len(t.names) for t, c in zip(traces, own, strict=True) if c is not None}
    if len(sizes) > 1:
        raise ValueError(f"traces must have candidates of as many features, got {sorted(sizes)}")
    (size,) = sizes
    found = []
    for trace, column in zip(traces, own, strict=True):
        table = np.zeros((len(trace.arms), len(arms), size))
        if column is not None:
            places = [arms.index(one) for one in trace.names]
            table[:, places] = column.reshape(len(column), len(places), size)
        found.append(table.reshape(len(table), len(arms) * size))
    return found


def _spread(trace: Columns, name: str, column: Any, declared: bool, arms: tuple[str, ...]) -> NDArray[Any]:
    """Return values per arm with a place for the arms of all traces; what is missing is 0, of eligible True."""
    found: NDArray[Any] = np.zeros(
        (len(trace.arms), len(arms)), dtype=np.bool_ if name == "eligible" else np.float64
    )
    if name == "eligible" and column is None and not declared:
        found[:] = True
    found[:, [arms.index(one) for one in trace.names]] = name == "eligible" if column is None else column
    return found
