"""The state of a Router as plain data, and back: what of it is saved, and how it is put back whole or not at all."""

from collections.abc import Callable, Generator
from copy import deepcopy
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from banditroute._core.attributes import fill, flatten
from banditroute._core.typing import Arrays, Header
from banditroute.errors import SnapshotError
from banditroute.policies import Policy
from banditroute.residency import Controller, ResidentSet
from banditroute.router import feature_maps, kept_rows
from banditroute.router.books import Books
from banditroute.router.ledger import Entry
from banditroute.router.ledger_state import ledger_slices
from banditroute.router.parts import RouterParts
from banditroute.router.residence import Residence

__all__ = ["capture", "restore", "slices"]

FORMAT = 2
PER_ARM = ("pending", "plays", "answers", "reward_sums")
OPTIONAL = ("foreign", "clock_errors", "spend", "heard", "inserted")  # counters that older files do not have


class Owner(Protocol):
    """Whoever has the parts of a Router: the Router."""

    @property
    def parts(self) -> RouterParts:
        """The parts."""


def capture(owner: Owner) -> tuple[Header, Arrays]:
    """Return the whole state of a Router as a header and copies of arrays; the caller holds the lock.

    Statistics, generators, pending decisions, answered ids, terms, residency, counters and the clock. Never callbacks.

    Parameters
    ----------
    owner : Router

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> header, arrays = capture(Router(LinUCB(["a", "b"], 2, rng=0)))
    >>> header["policy"]["arms"], arrays["router.plays"]
    (['a', 'b'], array([0., 0.]))
    """
    found = None
    for found in slices(owner):  # noqa: B007 - the last one is the state
        pass
    assert found is not None
    return found


def slices(owner: Owner) -> Generator[tuple[Header, Arrays] | None, None, None]:
    """Copy the state as it is at the first ``next()``, bit by bit: None, and at last what `capture` returned then.

    The caller holds the lock for each ``next()`` and for ``close()``. What is small is copied at once. The policy
    copies arms before they change, and the ledger puts aside what leaves it.
    """
    parts = owner.parts
    policy, ledger = parts.policy.capture_slices(), ledger_slices(parts)
    try:
        learned, pending = next(policy), next(ledger)
        header, arrays = _small(parts)
        while learned is None:
            yield None
            learned = next(policy)
        while pending is None:
            yield None
            pending = next(ledger)
        taken: Arrays = {f"policy.{name}": array for name, array in learned[1].items()}
        yield {"format": FORMAT, "policy": learned[0], **pending[0], **header}, taken | pending[1] | arrays
    finally:
        policy.close()
        ledger.close()


def _small(parts: RouterParts) -> tuple[Header, Arrays]:
    """Return all but the policy and the ledger."""
    books, arms = parts.books, parts.arms
    arrays: Arrays = {"router.muted": arms.muted.copy(), "router.offered": arms.offered.copy()}
    header: Header = {
        "router": {name: getattr(books, name) for name in Books.COUNTERS},
        "time": books.now(),
        "terms": {},
    }
    for name in PER_ARM:
        arrays[f"router.{name}"] = np.array(getattr(arms, name), dtype=np.float64)
    for term in parts.table.terms:
        own, own_arrays = term.to_state()
        header["terms"][term.name] = own
        arrays |= {f"term.{term.name}.{name}": array for name, array in own_arrays.items()}
    if parts.features is not None:
        header["features"], own_arrays = parts.features.to_state()
        arrays |= {f"features.{name}": array for name, array in own_arrays.items()}
    if parts.residence is not None:
        _residence_state(parts.residence, header, arrays)
    for listener in parts.listeners.all:  # a replica keeps who it is
        keep = getattr(listener, "capture", None)
        if keep is not None:
            own, own_arrays = keep()
            header["replica"] = own
            arrays |= {f"replica.{name}": array for name, array in own_arrays.items()}
    return header, arrays


def _residence_state(residence: Residence, header: Header, arrays: Arrays) -> None:
    desired = residence.desired
    arrays["resident.mask"], arrays["resident.sizes"] = desired.mask.copy(), desired.sizes.copy()
    arrays["router.faults"], arrays["router.loads"] = residence.faults.copy(), residence.loads.copy()
    header["resident"] = [residence.actual.page_ins, residence.actual.evictions, desired.capacity]
    header["controller"] = flatten(residence.controller, "controller", arrays)


def restore(
    owner: Owner, header: Header, arrays: Arrays, *, arms: Literal["file", "code"] = "file"
) -> dict[str, Any]:
    """Put a captured state into a Router; the caller holds the lock.

    Parameters
    ----------
    owner : Router
    header, arrays
        As `capture` returned them, or read from a file of format 1.
    arms : "file" or "code"
        Whether the arms are those of the file, or those that the Router has now: then arms that the file does not
        know start cold, and what it knows of others is dropped.

    Returns
    -------
    dict
        ``arms_added`` and ``arms_dropped``, names; ``reset``, what of the file could not be carried over, in words.

    Raises
    ------
    SnapshotError
        The state does not fit this Router; nothing changed.
    """
    try:
        take_up, report = _prepared(owner.parts, header, arrays, arms)
    except SnapshotError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise SnapshotError(f"the snapshot must fit this router: {error}") from error
    for step in take_up:
        step()
    return report


def _prepared(
    parts: RouterParts, header: Header, arrays: Arrays, arms: Literal["file", "code"]
) -> tuple[list[Callable[[], object]], dict[str, Any]]:
    """Check everything and return the steps that put it into effect, none of which can fail."""
    report: dict[str, Any] = {"arms_added": [], "arms_dropped": [], "reset": []}
    filed = tuple(header["policy"]["arms"])
    names = parts.arms.names if arms == "code" else filed
    keep: list[int | None] = [filed.index(name) if name in filed else None for name in names]
    report["arms_added"] = [name for name in names if name not in filed]
    report["arms_dropped"] = [name for name in filed if name not in names]
    policy = _policy(parts.policy, header, arrays, names, keep)
    counters = _counters(header)
    time = _finite("time", header["time"])
    per_arm = {name: _per_arm(arrays, name, len(filed), keep) for name in PER_ARM}
    muted = _mask(arrays, "muted", "quarantined", len(filed), keep)
    offered = _mask(arrays, "offered", "offered", len(filed), keep)
    pending, closed = _pending(parts, header, arrays, set(names)), _closed(arrays)
    stats = {k: int(header["ledger"].get(k, 0)) for k in ("expired", "duplicates", "late", "cancelled")}
    steps: list[Callable[[], object]] = []
    terms = [(term, _term_state(header, arrays, term.name)) for term in parts.table.terms]
    features = feature_maps.agreed(parts.features, header, arrays)
    residence = _residence(parts, header, arrays, names, keep, report)
    state = policy.to_state()
    old_terms = [(term, term.to_state()) for term, _ in terms]

    def take_policy() -> None:
        parts.policy.load_state(*state)

    def take_books() -> None:
        books = parts.books
        for name, value in counters.items():
            setattr(books, name, value)
        books.offset, books.time = time - books.clock(), time
        parts.ledger.replace(pending, closed)
        for name, value in stats.items():
            setattr(parts.ledger, name, value)
        parts.arms.change(names, [None] * len(names))
        for name, values in per_arm.items():
            setattr(parts.arms, name, values if name == "reward_sums" else [int(v) for v in values])
        parts.arms.muted, parts.arms.offered = muted, offered
        parts.table.bind(parts.table.terms, names)
        parts.boundary = books.due = 0.0

    try:
        for term, own in terms:
            if own is not None:
                term.load_state(*own)
    except BaseException:
        for term, kept in old_terms:
            term.load_state(*kept)
        raise
    steps += [take_policy, take_books, features]
    if residence is not None:
        steps.append(residence)
    return steps, report


def _policy(
    policy: Policy, header: Header, arrays: Arrays, names: tuple[str, ...], keep: list[int | None]
) -> Policy:
    spare = policy.copy()
    own = {k.removeprefix("policy."): v for k, v in arrays.items() if k.startswith("policy.")}
    try:  # of the same settings: what follows goes on to the last bit, as if nothing had been stored
        spare.load_state(header["policy"], own)
    except ValueError as other:
        try:
            spare.load_state(header["policy"], own, settings="own")
        except ValueError as error:  # maybe because it does not tell settings from statistics
            raise other from error
    if keep != list(range(len(spare.arms))):
        spare.resize(keep)
        spare.rename(names)
    return spare


def _counters(header: Header) -> dict[str, Any]:
    given = header["router"]
    found = {}
    for name in Books.COUNTERS:
        if name not in given:
            if name in OPTIONAL:
                continue
            raise ValueError(f"router must have {name!r}, got {sorted(given)}")
        value = _finite(name, given[name])
        if value < 0.0:
            raise ValueError(f"{name} must be >= 0, got {value:g}")
        found[name] = value if name in ("load_price", "spend") else int(value)
    return found


def _finite(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not np.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)


def _row(arrays: Arrays, name: str, count: int) -> NDArray[Any] | None:
    row = arrays.get(f"router.{name}")
    if row is None:
        return None
    if row.shape != (count,):
        raise ValueError(f"{name} must have shape ({count},), got {row.shape}")
    return row


def _per_arm(arrays: Arrays, name: str, count: int, keep: list[int | None]) -> list[float]:
    row = _row(arrays, name, count)
    if row is None:
        return [0.0] * len(keep)
    if not np.isfinite(row).all() or (name != "reward_sums" and (row < 0).any()):
        raise ValueError(f"{name} must hold finite counts >= 0, got {row}")
    return [0.0 if a is None else float(row[a]) for a in keep]


def _mask(arrays: Arrays, name: str, old: str, count: int, keep: list[int | None]) -> NDArray[np.bool_]:
    row = _row(arrays, name, count)
    row = _row(arrays, old, count) if row is None else row
    if row is None:
        return np.zeros(len(keep), dtype=np.bool_)
    if row.dtype != np.bool_:
        raise ValueError(f"{name} must be a mask, got dtype {row.dtype}")
    return np.array([a is not None and bool(row[a]) for a in keep], dtype=np.bool_)


def _pending(parts: RouterParts, header: Header, arrays: Arrays, known: set[str]) -> list[tuple[int, Entry]]:
    named = [str(name) for name in header["pending_arms"]]
    contexts = kept_rows.unpacked(arrays, len(arrays["pending.id"]))
    filed = set(header["policy"]["arms"])
    for row in {row.size: row for row in contexts}.values():
        if not parts.policy.keeps(row):
            raise ValueError(f"pending contexts must be what the policy keeps, got {row.size} numbers")
    if not np.isfinite(arrays["pending.time"]).all():
        raise ValueError("pending time must be finite")
    if np.isinf(arrays["pending.propensity"]).any():  # not a number where the policy tells none
        raise ValueError("pending propensity must be finite or not a number")
    if (arrays["pending.at"] < 0).any():
        raise ValueError("pending at must be >= 0")
    extra = header.get("pending_extra", {"terms": [], "rows": {}})
    order = [extra["terms"].index(t.name) if t.name in extra["terms"] else None for t in parts.table.terms]
    columns = (arrays[f"pending.{n}"].tolist() for n in ("id", "arm", "propensity", "time", "at"))
    found: list[tuple[int, Entry]] = []
    for i, (key, arm, propensity, time, at) in enumerate(zip(*columns, strict=True)):
        held, weights, session = extra["rows"].get(str(i), (None, None, None))
        mine = None if held is None else tuple(None if at_ is None else held[at_] for at_ in order)
        if not 0 <= arm < len(named):
            raise ValueError(f"pending arm must be in [0, {len(named) - 1}], got {arm}")
        name = named[arm]
        if name not in known and (name in filed or not parts.policy.learns_of(name)):
            name = ""
        found.append((int(key), (name, contexts[i], propensity, time, at, mine, weights, session)))
    return found


def _closed(arrays: Arrays) -> list[tuple[int, int]]:
    status = arrays.get("closed.status")
    status = arrays["closed.answered"] if status is None else status
    if (np.asarray(status) > 2).any():
        raise ValueError("closed must hold 0, 1 or 2")
    return list(zip(arrays["closed.id"].tolist(), (int(s) for s in status), strict=True))


def _term_state(header: Header, arrays: Arrays, name: str) -> tuple[Header, Arrays] | None:
    own = header.get("terms", {}).get(name)
    prefix = f"term.{name}."
    if own is None:
        return None
    return dict(own), {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _residence(
    parts: RouterParts,
    header: Header,
    arrays: Arrays,
    names: tuple[str, ...],
    keep: list[int | None],
    report: dict[str, Any],
) -> Callable[[], None] | None:
    """Return the step that takes up the resident set and, where it fits, the controller; None without residency."""
    residence = parts.residence
    if residence is None:
        if "controller" in header:
            report["reset"].append("residency: this router has none")
        return None
    if "controller" not in header:
        report["reset"].append("residency: the file has none")
        return residence.reprice if list(names) == list(parts.arms.names) else _refuse_residence(names)
    page_ins, evictions, capacity = (_finite("resident", v) for v in header["resident"])
    filed = len(header["policy"]["arms"])
    mask, sizes = arrays["resident.mask"], np.asarray(arrays["resident.sizes"], dtype=np.float64)
    if mask.shape != (filed,) or mask.dtype != np.bool_ or sizes.shape != (filed,):
        raise ValueError(f"resident must have shape ({filed},), got {mask.shape} of {mask.dtype}")
    faults, loads = (np.asarray(arrays[f"router.{n}"], dtype=np.float64) for n in ("faults", "loads"))
    if not (
        np.isfinite(faults).all() and np.isfinite(loads).all() and faults.shape == loads.shape == (filed,)
    ):
        raise ValueError(f"faults and loads must be ({filed},) finite prices")
    code = {name: i for i, name in enumerate(parts.arms.names)}
    own_sizes, own_faults, own_loads = residence.desired.sizes, residence.faults, residence.loads
    place = [code.get(name) for name in names]
    new_sizes = [sizes[a] if a is not None else own_sizes[c] for a, c in zip(keep, place, strict=True)]
    new_faults = np.array(
        [faults[a] if a is not None else own_faults[c] for a, c in zip(keep, place, strict=True)]
    )
    new_loads = np.array(
        [loads[a] if a is not None else own_loads[c] for a, c in zip(keep, place, strict=True)]
    )
    controller = _controller(residence, header, arrays, capacity, keep, report)
    pins = [names.index(a) if isinstance(a, str) else int(a) for a in controller.pinned]
    desired = ResidentSet(len(names), controller.capacity, sizes=new_sizes, pinned=pins)
    wanted = [i for i, a in enumerate(keep) if a is not None and mask[a]]
    if all(a is not None for a in keep) and capacity == controller.capacity:
        desired.replace(wanted)
    else:
        for a in wanted:
            desired.load(a)
    actual = desired.bare() if residence.served else desired
    actual.page_ins, actual.evictions = int(page_ins), int(evictions)

    def take_residence() -> None:
        vars(residence.controller).update(vars(controller))
        residence.faults, residence.loads = new_faults, new_loads
        residence.desired, residence.actual = desired, actual
        residence.reprice()

    return take_residence


def _refuse_residence(names: tuple[str, ...]) -> Callable[[], None]:
    raise ValueError(f"residency must be there in both where arms differ, got {list(names)}")


def _controller(
    residence: Residence,
    header: Header,
    arrays: Arrays,
    capacity: float,
    keep: list[int | None],
    report: dict[str, Any],
) -> Controller:
    """Return a copy of the controller with the state of the file, or as it is where it is of other settings."""
    spare = deepcopy(residence.controller)
    if header["controller"].get("object") != type(spare).__name__ or capacity != spare.capacity:
        report["reset"].append(
            f"controller: {header['controller'].get('object')} of capacity {capacity:g} in the file, "
            f"{type(spare).__name__} of capacity {spare.capacity:g} here"
        )
        if keep != list(range(len(keep))) or len(keep) != len(residence.faults):
            spare.resize([None] * len(keep))
        return spare
    fill(spare, header["controller"], arrays)  # in place
    wrong = _at_a_request(spare, header)
    if (
        wrong is not None and _at_a_request(residence.controller, header) is None
    ):  # it is not the controller itself
        raise wrong
    if keep != list(range(len(header["policy"]["arms"]))):
        spare.resize(keep)
    return spare


def _at_a_request(controller: Controller, header: Header) -> BaseException | None:
    """Return what a controller raises when it sees a request, as the next one will; nothing changes."""
    try:
        deepcopy(controller).observe(0, np.zeros(int(header["policy"]["dim"])), True)
    except (Exception, SystemExit) as error:
        return error
    return None
