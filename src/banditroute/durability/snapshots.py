"""Snapshots: the whole state of a Router in one file, `container` being the form of the file."""

import os
from collections.abc import Callable
from copy import deepcopy
from typing import Any, Literal

import numpy as np

from banditroute._core import container
from banditroute._core.attributes import fill, flatten
from banditroute._core.files import write
from banditroute._core.typing import Arrays, Header
from banditroute.durability.local_evidence import Tally
from banditroute.errors import SnapshotError
from banditroute.records import Host, Pending, SlicedHost
from banditroute.residency import ResidentSet

__all__ = ["capture", "captured", "load", "restore", "save"]


def captured(host: Host, cut: Callable[[], object] | None = None) -> tuple[Header, Arrays]:
    """Return the state of a host, copied slice by slice where it can be; the lock is held for one slice at a time.

    `cut` is called with the lock held at the moment whose state it is.
    """
    if not isinstance(host, SlicedHost):
        with host.locked():
            state = host.capture()
            if cut is not None:
                cut()
        return state
    with host.locked():
        slices = host.capture_slices()
        given = next(slices)
        if cut is not None:
            cut()
    try:
        while given is None:
            with host.locked():
                given = next(slices)
    finally:
        close = getattr(slices, "close", None)
        if close is not None:
            with host.locked():
                close()
    return given


def save(host: Host, path: str | os.PathLike[str]) -> None:
    """Write the state of a host to a file; the file it replaces is kept beside it as ``<path>.previous``.

    Through a link the file that it leads to is written. The new file has the mode of the one it replaces, or is its
    owner's alone, for contexts are users' data.

    Raises
    ------
    OSError
        Disk full, read-only and so on; the old file is untouched.
    SnapshotError
        The state is larger than `load` would take; the old file is untouched.
    TypeError, ValueError
        The state is no plain data; the old file is untouched.
    """
    write(path, container.pieces(*captured(host)), previous=True)


def load(
    host: Host,
    path: str | os.PathLike[str],
    *,
    limit_bytes: int = container.LIMIT_BYTES,
    arms: Literal["file", "code"] = "file",
) -> dict[str, Any]:
    """Put back what `save` wrote; returns what `Host.restore` says.

    Raises
    ------
    SnapshotError
        Torn, altered, foreign, too large or not fitting; nothing changed.
    OSError
        The file cannot be read; nothing changed.
    """
    header, arrays = container.read(path, limit_bytes=limit_bytes)
    header.pop("journal", None)
    with host.locked():
        return host.restore(header, arrays, arms=arms)


def capture(router: Any) -> tuple[Header, Arrays]:
    """Return the whole state of a Router as a header and copies of arrays; the caller holds the lock.

    Statistics, generators, pending decisions, answered ids, residency, counters and the clock. Never callbacks.
    """
    policy_header, policy_arrays = router.policy.to_state()
    arrays: Arrays = {f"policy.{name}": array for name, array in policy_arrays.items()}
    arrays |= _ledger_arrays(router._ledger)
    names = sorted({p.arm for p in router._ledger.pending.values()})
    place = {name: i for i, name in enumerate(names)}
    arrays["pending.arm"] = np.array([place[p.arm] for p in router._ledger.pending.values()], dtype=np.int64)
    header: Header = {
        "policy": policy_header,
        "pending_arms": names,
        "ledger": {k: getattr(router._ledger, k) for k in ("expired", "duplicates", "late")},
        "router": {k: getattr(router, f"_{k}") for k in router._COUNTERS},
        "time": router._now(),
    }
    for name in router._PER_ARM:
        arrays[f"router.{name}"] = getattr(router, f"_{name}").copy()
    for name in router._PER_ARM_LISTS:
        arrays[f"router.{name}"] = np.array(getattr(router, f"_{name}"), dtype=np.float64)
    if router._replica is not None:
        identity, own = router._replica.capture()
        tally, sums = router._tally.to_state()
        header["replica"] = {**identity, "tally": tally}
        arrays |= {f"initial.{n}": a for n, a in own.items()} | {f"tally.{n}": a for n, a in sums.items()}
    resident, controller = router._resident, router.residency
    if resident is not None and controller is not None:
        arrays["resident.mask"], arrays["resident.sizes"] = resident.mask.copy(), resident.sizes.copy()
        header["resident"] = [resident.page_ins, resident.evictions, resident.capacity]
        header["controller"] = flatten(controller, "controller", arrays)
    return header, arrays


def restore(router: Any, header: Header, arrays: Arrays) -> None:
    """Put a captured state into a Router of the same settings; the caller holds the lock.

    Raises
    ------
    SnapshotError
        The state does not fit this Router; nothing changed.
    """
    try:
        _restore(router, header, arrays)
    except SnapshotError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise SnapshotError(f"the snapshot must fit this router: {error}") from error


def _restore(router: Any, header: Header, arrays: Arrays) -> None:
    count = len(header["policy"]["arms"])
    counters = {k: header["router"][k] for k in router._COUNTERS if k in header["router"]}
    for key, value in counters.items():
        if type(value) not in (int, float):
            raise ValueError(f"{key} must be a number, got {value!r}")
    per_arm = {k: arrays[f"router.{k}"] for k in router._PER_ARM if f"router.{k}" in arrays}
    for key, values in per_arm.items():
        if values.shape != (count,) or values.dtype != getattr(router, f"_{key}").dtype:
            raise ValueError(f"{key} must have shape ({count},), got {values.shape} of {values.dtype}")
    lists = {k: arrays.get(f"router.{k}", np.zeros(count)).tolist() for k in router._PER_ARM_LISTS}
    if any(len(values) != count for values in lists.values()):
        raise ValueError(f"counters of arms must have shape ({count},)")
    ledger = _ledger(router, header, arrays)
    time = float(header["time"])
    resident, controller = router._resident, router.residency
    if (controller is None) != ("controller" not in header):
        raise ValueError("residency must be there in both or in neither")
    if controller is not None and resident is not None:
        page_ins, evictions, capacity = header["resident"]
        if capacity != resident.capacity:
            raise ValueError(f"capacity must be {resident.capacity:g}, got {capacity:g}")
        controller = fill(deepcopy(controller), header["controller"], arrays)
        pinned = [header["policy"]["arms"].index(a) if isinstance(a, str) else a for a in controller.pinned]
        mask, sizes = arrays["resident.mask"], arrays["resident.sizes"]
        if mask.shape != (count,) or mask.dtype != np.bool_:
            raise ValueError(f"resident must have shape ({count},), got {mask.shape} of {mask.dtype}")
        resident = ResidentSet(count, capacity, sizes=sizes, pinned=pinned)
        resident.replace(np.flatnonzero(mask).tolist())
        resident.page_ins, resident.evictions = int(page_ins), int(evictions)
    tally = None
    if "replica" in header:
        tally = Tally(router.policy)
        tally.load_state(header["replica"]["tally"], _named(arrays, "tally."))
        spare = Tally(router.policy)
        spare.load_state(header["replica"]["initial"], _named(arrays, "initial."))
    policy_arrays = _named(arrays, "policy.")
    router.policy.load_state(header["policy"], policy_arrays)  # the last step that can fail
    router._ledger = ledger
    for key, value in counters.items():
        setattr(router, f"_{key}", value)
    for key in router._PER_ARM:
        setattr(router, f"_{key}", per_arm.get(key, np.zeros(count, getattr(router, f"_{key}").dtype)))
    for key, values in lists.items():
        setattr(router, f"_{key}", values if key == "reward_sums" else [int(v) for v in values])
    router._offset = time - router._clock()
    router._boundary = 0
    if tally is not None:
        router._tally, router._identity = tally, (header["replica"], _named(arrays, "initial."))
    if controller is not None and router.residency is not None:
        vars(router.residency).update(vars(controller))
        router._resident = resident
    router._reprice()


def _named(arrays: Arrays, prefix: str) -> Arrays:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _ledger_arrays(ledger: Any) -> Arrays:
    waiting = ledger.pending.values()
    dim = next(iter(waiting)).context.size if ledger.pending else 0
    return {
        "pending.id": np.fromiter(ledger.pending, dtype=np.uint64, count=len(ledger.pending)),
        "pending.context": np.array([p.context for p in waiting]).reshape(len(ledger.pending), dim),
        "pending.propensity": np.array([p.propensity for p in waiting], dtype=np.float64),
        "pending.time": np.array([p.time for p in waiting], dtype=np.float64),
        "pending.at": np.array([p.at for p in waiting], dtype=np.int64),
        "closed.id": np.fromiter(ledger.closed, dtype=np.uint64, count=len(ledger.closed)),
        "closed.answered": np.fromiter(ledger.closed.values(), dtype=np.bool_, count=len(ledger.closed)),
    }


def _ledger(router: Any, header: Header, arrays: Arrays) -> Any:
    old = router._ledger
    new = type(old)(time_limit=old.time_limit, size_limit=old.size_limit, on_expire=old._on_expire)
    new.expired, new.duplicates, new.late = (
        int(header["ledger"][k]) for k in ("expired", "duplicates", "late")
    )
    names = [str(name) for name in header["pending_arms"]]
    contexts = np.ascontiguousarray(arrays["pending.context"], dtype=np.float64)
    if len(contexts) and contexts.shape[1] != router.policy.dim:
        raise ValueError(f"pending contexts must have {router.policy.dim} columns, got {contexts.shape[1]}")
    rows = zip(
        arrays["pending.id"].tolist(),
        arrays["pending.arm"].tolist(),
        contexts,
        arrays["pending.propensity"].tolist(),
        arrays["pending.time"].tolist(),
        arrays["pending.at"].tolist(),
        strict=True,
    )
    for key, arm, context, propensity, time, at in rows:
        new.pending[key] = Pending(names[arm], context.copy(), propensity, time, at)
    ids, answered = arrays["closed.id"].tolist(), arrays["closed.answered"].tolist()
    new.closed.update(zip(ids, answered, strict=True))
    return new
