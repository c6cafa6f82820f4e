"""What a file of a journal holds: events as records, each with a checksum, in the order in which they happened.

A file of format 2 is ``magic (8) | first (u64) | follows (u64) | crc32 of these (u32) | records``. A record is
``length (u32) | crc32 (u32) | payload``; its checksum goes on from that of the record before, the first from that of
the head, so that a record can neither be left out nor come twice. Every record of a directory has a number: ``first``
is that of the first in the file, and ``follows`` the number up to which the files before it must reach for nothing to
be missing in between. Two files may both hold records, those that were written to the first but not yet synced when
the second was begun: they are the same, and are replayed once. Reading stops at the first record that does not check,
so a torn tail costs the records in it and nothing else. Events name arms. Format 1 (no numbers, arms removed by index)
is read, not written.
"""

import json
import os
import re
import struct
import zlib
from collections.abc import Iterator
from math import isfinite
from typing import IO, Any, NamedTuple

import numpy as np

from banditroute._core.typing import Floats
from banditroute.durability.journal_format_1 import RemovedAt, parsed_1
from banditroute.errors import SnapshotError
from banditroute.records import Answered, ArmChange, Decided, Deferred, Dropped, Event, Marked, Pending, Why

__all__ = ["Opening", "check_name", "events", "framed", "head", "opening", "packed", "parsed"]

MAGIC, MAGIC_1 = b"bndjrnl2", b"bndjrnl1"
HEAD = struct.Struct("<8sQQ")
CHECK = struct.Struct("<I")
HEAD_BYTES = HEAD.size + CHECK.size
FRAME = struct.Struct("<II")
NUMBERED = re.compile(r"(snapshot|journal)-(\d{12,18})")  # names of files, by generation
LARGEST = 1 << 24  # bytes of a record: longer lengths are torn or hostile
LONGEST_NAME = (1 << 16) - 1  # bytes of an arm's name

DECIDED, ANSWERED, DROPPED, OTHER, DEFERRED = 1, 2, 3, 4, 5
# kind, flags, id, at, time, propensity, bytes of name, rows of the context, bytes of extras
DECISION = struct.Struct("<BBQqddHHI")
HIT, FORCED = 1, 2
ANSWER = struct.Struct("<BBQd")  # kind, flags, id, reward
FAILED, COST, SECONDS, FOREIGN, SOURCE = 1, 2, 4, 8, 16
DROP = struct.Struct("<BBQd")  # kind, why, id, imputed reward or not a number
NUMBER = struct.Struct("<d")
WAIT = struct.Struct("<BBQHII")  # kind, flags, id, bytes of token, of answer, of decision
IMPUTED, HAS_ANSWER, HAS_DECISION = 1, 2, 4
SIZE = struct.Struct("<H")
WHY: tuple[Why, ...] = ("expired", "cancelled", "answered", "removed", "unknown")  # by number: add at the end


class Opening(NamedTuple):
    """How a file of a journal begins: format, number of its first record, what must come before, checksum of the head.

    Examples
    --------
    >>> Opening(2, 100, 100, 0).first
    100
    """

    format: int
    first: int
    follows: int
    chain: int


def check_name(name: str) -> bytes:
    r"""Return the name of an arm as a journal holds it.

    Raises
    ------
    ValueError
        It cannot be written as UTF-8 (a lone surrogate), or takes more than 65,535 bytes.

    Examples
    --------
    >>> check_name("math")
    b'math'
    >>> check_name("\ud800x")
    Traceback (most recent call last):
    ValueError: the name of an arm must be text that UTF-8 can hold, got '\ud800x'
    """
    try:
        given = name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name of an arm must be text that UTF-8 can hold, got {name[:40]!a}") from None
    if len(given) > LONGEST_NAME:
        raise ValueError(f"the name of an arm must take at most {LONGEST_NAME} bytes, got {len(given)}")
    return given


# Writing.


def head(first: int, follows: int) -> bytes:
    """Return how a file of format 2 begins.

    Examples
    --------
    >>> len(head(0, 0))
    28
    """
    given = HEAD.pack(MAGIC, first, follows)
    return given + CHECK.pack(zlib.crc32(given))


def chain(given: bytes) -> int:
    """Return the checksum from which that of the first record behind a head goes on."""
    return int(CHECK.unpack(given[HEAD.size :])[0])


def framed(payload: bytes, before: int) -> tuple[bytes, int]:
    """Return what stands before a payload in a file, and its checksum, which goes on from that of the record before.

    Examples
    --------
    >>> len(framed(b"12345", 0)[0])
    8
    """
    checksum = zlib.crc32(payload, before)
    return FRAME.pack(len(payload), checksum), checksum


def packed(event: Event) -> bytes:
    """Return an event as a payload.

    Raises
    ------
    ValueError, TypeError, struct.error
        It cannot be written: a name or details that are no plain data, or more than 16 MiB.

    Examples
    --------
    >>> parsed(packed(Dropped(7, "expired")))
    Dropped(id=7, why='expired', reward=None)
    """
    if isinstance(event, Decided):
        payload = decision(event.id, event.pending, event.hit, event.forced, check_name(event.pending.arm))
    elif isinstance(event, Answered):
        payload = answer(event)
    elif isinstance(event, Dropped):
        reward = np.nan if event.reward is None else event.reward
        payload = DROP.pack(DROPPED, WHY.index(event.why), event.id, reward)
    elif isinstance(event, Deferred):
        payload = _wait(event)
    else:
        what = {"event": type(event).__name__, **event._asdict()}
        payload = bytes([OTHER]) + json.dumps(what, default=_mapping).encode()
    if len(payload) > LARGEST:
        raise ValueError(f"a record must take at most {LARGEST} bytes, got {len(payload)}")
    return payload


def _mapping(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return dict(value)


def decision(key: int, pending: Pending, hit: bool, forced: bool, name: bytes) -> bytes:
    """Return the payload of a decision; this is on the request path."""
    _, context, propensity, time, at, _, weights, session = pending
    extras = b""
    if weights is not None or session is not None:
        given = {"weights": None if weights is None else dict(weights), "session": session}
        extras = json.dumps(given, default=_mapping).encode()
    rows = 0 if context.ndim == 1 else len(context)
    return (
        DECISION.pack(DECIDED, hit | forced << 1, key, at, time, propensity, len(name), rows, len(extras))
        + name
        + extras
        + context.tobytes()
    )


def plain_answer(key: int, reward: float) -> bytes:
    """Return the payload of an answer that tells its reward alone."""
    return ANSWER.pack(ANSWERED, 0, key, reward)


def answer(event: Answered) -> bytes:
    """Return the payload of an answer."""
    flags, rest = FAILED * event.failed, b""
    for flag, number in ((COST, event.cost), (SECONDS, event.seconds)):
        if number is not None:
            flags |= flag
            rest += NUMBER.pack(number)
    if event.source is not None:
        flags |= SOURCE
        name = event.source.encode(errors="replace")[:LONGEST_NAME]
        rest += SIZE.pack(len(name)) + name
    if event.foreign is not None:
        flags |= FOREIGN
        rest += decision(event.id, event.foreign, True, False, check_name(event.foreign.arm))
    return ANSWER.pack(ANSWERED, flags, event.id, event.reward) + rest


def _wait(event: Deferred) -> bytes:
    token = event.token.encode()
    said = b"" if event.answer is None else answer(event.answer)
    made = b""
    if event.pending is not None:
        made = decision(event.id, event.pending, True, False, check_name(event.pending.arm))
    flags = IMPUTED * event.expired | HAS_ANSWER * bool(said) | HAS_DECISION * bool(made)
    return WAIT.pack(DEFERRED, flags, event.id, len(token), len(said), len(made)) + token + said + made


# Reading.


def opening(file: IO[bytes]) -> Opening | None:
    """Return how an open file begins and stand behind that; None where a crash came before that was written.

    Raises ``SnapshotError`` where the file is no journal.
    """
    given = file.read(len(MAGIC))
    if given == MAGIC_1:
        return Opening(1, -1, -1, 0)
    if given != MAGIC:
        if MAGIC.startswith(given) or not given.strip(b"\0"):  # of a file that was made but not yet written
            return None
        raise SnapshotError(f"a journal must start with {MAGIC!r}, got {given!r}")
    rest = file.read(HEAD_BYTES - len(MAGIC))
    if len(rest) < HEAD_BYTES - len(MAGIC):
        return None
    whole = given + rest
    if CHECK.unpack(whole[HEAD.size :])[0] != zlib.crc32(whole[: HEAD.size]):
        raise SnapshotError("the head of a journal must match its checksum, got another one")
    _, first, follows = HEAD.unpack(whole[: HEAD.size])
    return Opening(2, first, follows, chain(whole))


def events(file: IO[bytes], opening: Opening) -> Iterator[tuple[int, Event | RemovedAt | None]]:
    """Yield where each good record behind the head ends, and its event; None where it is none that can be read.

    Torn tails are no error, they end the iteration; ``OSError`` where the disk does not give what it holds.
    """
    end = file.tell()
    read, before = (parsed, opening.chain) if opening.format > 1 else (parsed_1, 0)
    size = os.fstat(file.fileno()).st_size
    while len(frame := file.read(FRAME.size)) == FRAME.size:
        length, checksum = FRAME.unpack(frame)
        if length > min(LARGEST, size - end):
            return
        payload = file.read(length)
        if len(payload) < length or zlib.crc32(payload, before) != checksum:
            return
        if opening.format > 1:
            before = checksum
        end += FRAME.size + length
        yield end, read(payload)


def parsed(payload: bytes) -> Event | None:
    """Return the event of a payload, or None where the bytes are none.

    Examples
    --------
    >>> event = Decided(7, Pending("math", np.ones(2), 1.0, 0.0, 3), hit=True, forced=False)
    >>> parsed(packed(event)).pending.context
    array([1., 1.])
    """
    try:
        kind = payload[0]
        if kind == DECIDED:
            return _decided(payload)
        if kind == ANSWERED:
            return _answered(payload)
        if kind == DROPPED:
            _, why, key, reward = DROP.unpack(payload)
            return Dropped(key, WHY[why], reward if isfinite(reward) else None)
        if kind == DEFERRED:
            return _deferred(payload)
        if kind == OTHER:
            return _other(json.loads(payload[1:]))
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, struct.error, RecursionError):
        pass
    return None


def _decided(payload: bytes) -> Decided:
    _, flags, key, at, time, propensity, size, rows, more = DECISION.unpack_from(payload)
    place = DECISION.size + size
    arm = payload[DECISION.size : place].decode()
    extras = json.loads(payload[place : place + more]) if more else {}
    context = _context(payload[place + more :], rows)
    weights, session = extras.get("weights"), extras.get("session")
    if weights is not None:
        weights = {str(name): float(value) for name, value in weights.items()}
    if session is not None and not isinstance(session, str):
        raise ValueError("session")
    pending = Pending(arm, context, propensity, _finite(time), at, None, weights, session)
    return Decided(key, pending, bool(flags & HIT), bool(flags & FORCED))


def _context(data: bytes, rows: int) -> Floats:
    context = np.frombuffer(data, dtype="<f8").astype(np.float64)
    return context.reshape(rows, -1) if rows else context


def _finite(number: float) -> float:
    if not isfinite(number):
        raise ValueError(number)
    return number


def _answered(payload: bytes) -> Answered:
    _, flags, key, reward = ANSWER.unpack_from(payload)
    place = ANSWER.size
    numbers: list[float | None] = []
    for flag in (COST, SECONDS):
        numbers.append(_finite(NUMBER.unpack_from(payload, place)[0]) if flags & flag else None)
        place += NUMBER.size * bool(flags & flag)
    source = None
    if flags & SOURCE:
        size = SIZE.unpack_from(payload, place)[0]
        place += SIZE.size + size
        source = payload[place - size : place].decode()
    foreign = _decided(payload[place:]).pending if flags & FOREIGN else None
    cost, seconds = numbers
    return Answered(key, _finite(reward), cost, seconds, bool(flags & FAILED), foreign, source)


def _deferred(payload: bytes) -> Deferred:
    _, flags, key, *sizes = WAIT.unpack_from(payload)
    parts, place = [], WAIT.size
    for size in sizes:
        parts.append(payload[place : place + size])
        place += size
    token, said, made = parts
    answered = _answered(said) if flags & HAS_ANSWER else None
    pending = _decided(made).pending if flags & HAS_DECISION else None
    return Deferred(key, answered, pending, token.decode(), bool(flags & IMPUTED))


def _other(given: dict[str, Any]) -> Event:
    what = given.pop("event")
    if what == "Marked":
        return Marked(str(given["term"]), dict(given["details"]))
    if what != "ArmChange":
        raise ValueError(what)
    change = ArmChange(**given)
    if not all(isinstance(name, str) for name in (change.what, change.arm, *change.arms)):
        raise ValueError("names")
    return change._replace(
        arms=tuple(change.arms), size=_finite(float(change.size)), fault=_finite(float(change.fault))
    )
