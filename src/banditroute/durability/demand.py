"""What the workers of one server tell each other of their requests, for the one that plans and for all pictures."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from banditroute._core import container
from banditroute._core.typing import Floats, Ints, Mask
from banditroute.durability.shared_residency import read, written
from banditroute.errors import SnapshotError
from banditroute.records import StoreRow

__all__ = ["REQUESTS", "Requests", "Word", "packed_requests", "read_requests", "read_word", "word_row"]

REQUESTS = "requests"  # name of the part
FORMAT = 1


class Word(NamedTuple):
    """What a worker tells of itself: a row of its own.

    ``uses`` holds for each adapter used lately the number and the age in seconds of its last use; ages are of the
    moment of writing, so no clock is compared with another machine's. ``news`` are (number, name, resident) that it
    was told from outside. ``eligible`` names the arms that were allowed lately, None where all were. ``requests`` is
    the version of its `packed_requests`.

    Examples
    --------
    >>> Word({"a": (7, 0.5)}).news
    ()
    """

    uses: Mapping[str, tuple[int, float]] = {}
    news: Sequence[tuple[int, str, bool]] = ()
    eligible: Sequence[str] | None = None
    requests: int = 0


class Requests(NamedTuple):
    """The last requests of a worker, oldest first: arms by position in ``names``, contexts (n, dim), hits.

    Examples
    --------
    >>> Requests(("a",), np.array([0]), np.ones((1, 2)), np.array([True])).contexts.shape
    (1, 2)
    """

    names: tuple[str, ...]
    arms: Ints
    contexts: Floats
    hits: Mask


def word_row(seq: int, word: Word) -> StoreRow:
    """Return the row of a worker.

    Examples
    --------
    >>> read_word(word_row(3, Word({"a": (7, 0.5)}))).uses
    {'a': (7, 0.5)}
    """
    parts = {REQUESTS: word.requests} if word.requests else {}
    return written(seq, word._asdict(), parts)


def read_word(raw: object) -> Word | None:
    """Return what `word_row` was given; None for what is no such row."""
    told = read(raw)
    try:
        eligible = told["eligible"]
        return Word(
            {str(name): (int(number), max(0.0, float(age))) for name, (number, age) in told["uses"].items()},
            tuple((int(number), str(name), resident is True) for number, name, resident in told["news"]),
            None if eligible is None else tuple(map(str, eligible)),
            int(told["requests"]),
        )
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError):
        return None


def packed_requests(version: int, requests: Requests) -> bytes:
    """Return requests as checked bytes."""
    header = {"format": FORMAT, "kind": REQUESTS, "version": version, "names": list(requests.names)}
    return container.encode(
        header,
        {
            "arms": requests.arms.astype(np.int32),
            "contexts": requests.contexts,
            "hits": requests.hits.astype(np.bool_),
        },
    )


def read_requests(data: bytes, version: int, dim: int) -> tuple[int, Requests]:
    """Return what `packed_requests` was given, of this version or of one that was written meanwhile.

    Raises
    ------
    SnapshotError
        Torn, foreign, of an older version or another dimension, or not finite.

    Examples
    --------
    >>> sent = Requests(("a",), np.array([0]), np.ones((1, 2)), np.array([True]))
    >>> read_requests(packed_requests(4, sent), 4, dim=2)[1].hits
    array([ True])
    """
    header, arrays = container.decode(data)
    try:
        found = int(header["version"])
        if (header["format"], header["kind"]) != (FORMAT, REQUESTS) or found < version:
            raise ValueError(f"requests must be of version {version}, got {found}")
        names = tuple(map(str, header["names"]))
        arms, contexts, hits = arrays["arms"], arrays["contexts"], arrays["hits"]
        count = len(arms)
        if contexts.shape != (count, dim) or hits.shape != (count,) or arms.ndim != 1:
            raise ValueError(f"contexts must have shape {(count, dim)}, got {contexts.shape}")
        if not np.isfinite(contexts).all() or (count and not 0 <= arms.min() <= arms.max() < len(names)):
            raise ValueError("contexts must be finite and arms have names")
        return found, Requests(
            names, arms.astype(np.int64), contexts.astype(np.float64), hits.astype(np.bool_)
        )
    except (TypeError, ValueError, LookupError) as error:
        raise SnapshotError(f"requests must fit: {error}") from None
