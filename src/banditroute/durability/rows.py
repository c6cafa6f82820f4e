"""What replicas write into a store, format 2: rows, parts and decisions; everything is read with suspicion."""

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from banditroute._core import container
from banditroute._core.typing import Arrays
from banditroute.durability.stores import LARGEST, StoreRow, order
from banditroute.errors import SnapshotError
from banditroute.policies.evidence import ArmEvidence
from banditroute.records import Pending

__all__ = [
    "FORMAT",
    "NEVER",
    "About",
    "Epoch",
    "Row",
    "changes_of",
    "evidence_bytes",
    "opened",
    "packed",
    "plain_bytes",
    "read_evidence",
    "read_plain",
    "sealed",
    "unpacked",
]

FORMAT = 2
MOST_DECISIONS = 1 << 40  # of one replica: more is a fault, and would age all evidence to nothing
# Of the whole bandit: a rollback raises the number; of two at once the higher word wins.
Epoch = tuple[int, str]
NEVER: Epoch = (0, "")
Value = TypeVar("Value")


class About(NamedTuple):
    """What a row tells beside the versions of its parts; the store looks at none of it.

    ``torn`` names parts of others that could not be read, with the version wanted; ``heard`` how far the letters of
    others were read; ``folded`` stands in the row of the base: replicas that are in it, with the state they had.

    Examples
    --------
    >>> About({"dim": 2}).decisions
    0
    """

    fingerprint: Mapping[str, Any]
    epoch: Epoch = NEVER
    decisions: int = 0
    torn: Mapping[str, Mapping[str, int]] = {}
    heard: Mapping[str, int] = {}
    folded: Mapping[str, int] = {}


class Row(NamedTuple):
    """A row that was found good.

    Examples
    --------
    >>> opened(sealed(Row(1, 2.0, {"arm:a": 1}, {}, About({"dim": 2})))).parts
    {'arm:a': 1}
    """

    seq: int
    beat: float
    parts: Mapping[str, int]
    lacking: Mapping[str, int]
    about: About

    @property
    def order(self) -> tuple[int, float]:
        """What tells it from older ones."""
        return self.seq, self.beat


def _digest(seq: int, beat: float, body: str) -> str:
    return hashlib.sha256(f"{seq} {float(beat).hex()} {body}".encode()).hexdigest()[:32]


def sealed(row: Row) -> StoreRow:
    """Return a row as a store keeps it: what the store changes, and a text under a checksum."""
    body = json.dumps({"format": FORMAT, **row.about._asdict()}, separators=(",", ":"))
    return {
        "seq": row.seq,
        "beat": row.beat,
        "parts": dict(row.parts),
        "lacking": dict(row.lacking),
        "body": body,
        "check": _digest(row.seq, row.beat, body),
    }


def opened(raw: object) -> Row:
    """Return the row that `sealed` was given.

    Raises
    ------
    SnapshotError
        Of another format, altered, or not of the expected form; the message says which.

    Examples
    --------
    >>> opened({"seq": 1, "beat": 1, "parts": {}, "decisions": 0})
    Traceback (most recent call last):
    banditroute.errors.SnapshotError: row must be of format 2, got one without
    """
    if not isinstance(raw, Mapping) or order(raw) < (0, 0.0):
        raise SnapshotError(f"row must have a seq and a beat in [0, 2^53), got {_short(raw)}")
    seq, beat = order(raw)
    body = raw.get("body")
    if not isinstance(body, str):
        raise SnapshotError(f"row must be of format {FORMAT}, got one without")
    if raw.get("check") != _digest(seq, beat, body):
        raise SnapshotError("row must match its checksum, got another one")
    try:
        told = json.loads(body)
        if not isinstance(told, dict) or told.pop("format", None) != FORMAT:
            raise SnapshotError(f"row must be of format {FORMAT}, got {_short(told)}")
        if not isinstance(told["fingerprint"], dict):
            raise ValueError(f"fingerprint must be by name, got {_short(told['fingerprint'])}")
        about = About(
            told["fingerprint"],
            _epoch(told["epoch"]),
            _count(told["decisions"], MOST_DECISIONS),
            {name: _versions(torn) for name, torn in told["torn"].items()},
            _versions(told["heard"]),
            _versions(told["folded"]),
        )
        return Row(seq, beat, _versions(raw.get("parts")), _versions(raw.get("lacking", {})), about)
    except SnapshotError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise SnapshotError(f"row must have the form of format {FORMAT}, got {error!r}") from None


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def _count(value: Any, high: int = LARGEST) -> int:
    if type(value) not in (int, float) or not 0 <= value < high or int(value) != value:
        raise ValueError(f"a count must be in [0, {high}), got {_short(value)}")
    return int(value)


def _epoch(value: Any) -> Epoch:
    number, word = value
    if not isinstance(word, str):
        raise ValueError(f"an epoch must be a number and a word, got {_short(value)}")
    return _count(number), word


def _versions(given: Any) -> dict[str, int]:
    if not isinstance(given, dict):
        raise ValueError(f"versions must be by name, got {_short(given)}")
    return {name: _count(version) for name, version in given.items()}


# Parts.


def evidence_bytes(
    name: str, seq: int, evidence: ArmEvidence, epoch: Epoch = NEVER, changes: int = 0
) -> bytes:
    """Return the evidence on one arm, that changed so often, as checked bytes."""
    buckets = sorted(evidence.buckets)
    header = {
        "format": FORMAT,
        "name": name,
        "seq": seq,
        "epoch": epoch,
        "changes": changes,
        "generation": evidence.generation,
        "latest": evidence.latest,
        "buckets": buckets,
    }
    arrays = {f"{i}.{n}": a for i, b in enumerate(buckets) for n, a in evidence.buckets[b].items()}
    return container.encode(header, arrays)


def read_evidence(
    name: str, data: bytes, like: Mapping[str, np.ndarray[Any, Any]]
) -> tuple[int, Epoch, ArmEvidence]:
    """Return sequence number, epoch and evidence of one arm, whose arrays have names, shapes and types of `like`.

    Raises
    ------
    SnapshotError
        Torn, altered, of another arm or format, of other shapes, or not finite.
    """
    header, arrays = _opened(name, data)
    try:
        buckets: dict[int, Arrays] = {}
        for i, bucket in enumerate(header["buckets"]):
            sums = {n: arrays.pop(f"{i}.{n}") for n in like}
            for n, wanted in like.items():
                if sums[n].shape != wanted.shape or sums[n].dtype != wanted.dtype:
                    raise ValueError(f"{n} must have shape {wanted.shape}, got {sums[n].shape}")
                if not np.isfinite(sums[n]).all():
                    raise ValueError(f"{n} must be finite")
            buckets[_count(bucket)] = sums
        if arrays or len(buckets) != len(header["buckets"]):
            raise ValueError(f"buckets must be {sorted(buckets)} and nothing else")
        evidence = ArmEvidence(_count(header["generation"]), _latest(header["latest"]), buckets)
        return _count(header["seq"]), _epoch(header["epoch"]), evidence
    except (ValueError, TypeError, LookupError) as error:
        raise SnapshotError(f"part must fit: {error}") from None


def changes_of(data: bytes) -> int:
    """Return how often evidence had changed when it was published.

    Examples
    --------
    >>> changes_of(evidence_bytes("a", 1, ArmEvidence(0, -1, {}), changes=3))
    3
    """
    return _count(container.decode(data)[0].get("changes", 0))


def _latest(value: Any) -> int:
    return -1 if value == -1 else _count(value)


def _opened(name: str, data: bytes) -> tuple[dict[str, Any], Arrays]:
    if not isinstance(data, bytes):
        raise SnapshotError(f"part must be bytes, got {type(data).__name__}")
    header, arrays = container.decode(data)
    if header.get("format") != FORMAT or header.get("name") != name:
        raise SnapshotError(
            f"part must be {name!r} of format {FORMAT}, got {header.get('name')!r} of {header.get('format')!r}"
        )
    return header, arrays


def plain_bytes(name: str, seq: int, value: Any) -> bytes:
    """Return plain data as a checked part."""
    return container.encode({"format": FORMAT, "name": name, "seq": seq, "value": value}, {})


def read_plain(name: str, data: bytes, parse: Callable[[Any], Value]) -> tuple[int, Value]:
    """Return sequence number and content of a part of plain data, as `parse` makes it.

    Raises
    ------
    SnapshotError
        Torn, altered, of another name or format, or refused by `parse`.
    """
    header, _ = _opened(name, data)
    try:
        return _count(header["seq"]), parse(header["value"])
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise SnapshotError(f"part {name!r} must fit: {error!r}") from None


# Decisions on their way to whoever answers them.

CHECK = struct.Struct("<I")


def packed(pending: Pending, owner: str, generation: int) -> bytes:
    """Return a decision as checked bytes, with the replica that made it and the generation of its arm.

    Examples
    --------
    >>> unpacked(packed(Pending("math", np.ones(2), 1.0, 0.0, 3), "me", 0))[1:]
    ('me', 0)
    """
    head = [
        FORMAT,
        owner,
        pending.arm,
        generation,
        pending.propensity,
        pending.time,
        pending.at,
        pending.weights,
        pending.session,
    ]
    data = json.dumps(head).encode() + b"\n" + pending.context.astype("<f8").tobytes()
    return CHECK.pack(zlib.crc32(data)) + data


def unpacked(data: bytes) -> tuple[Pending, str, int]:
    """Return the decision that `packed` was given, its owner and the generation of its arm.

    Raises
    ------
    SnapshotError
        The bytes are none.
    """
    try:
        if CHECK.pack(zlib.crc32(data[CHECK.size :])) != data[: CHECK.size]:
            raise ValueError("it does not match its checksum")
        text, _, raw = data[CHECK.size :].partition(b"\n")
        number, owner, arm, generation, propensity, time, at, weights, session = json.loads(text)
        if number != FORMAT or not isinstance(owner, str) or not isinstance(arm, str):
            raise ValueError(f"format must be {FORMAT}, got {_short(number)}")
        context = np.frombuffer(raw, dtype="<f8").astype(np.float64)
        pending = Pending(arm, context, float(propensity), float(time), _count(at), None, weights, session)
        return pending, owner, _count(generation)
    except (ValueError, TypeError, RecursionError) as error:
        raise SnapshotError(f"decision must be one that was kept here, got {error}") from None
