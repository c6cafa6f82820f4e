"""What a worker tells the others of its requests: the row of its own in the store."""

from collections import deque
from collections.abc import Callable
from math import inf

import numpy as np

from banditroute._core.typing import Floats
from banditroute.durability.demand import REQUESTS, Requests, Word, packed_requests, read_word, word_row
from banditroute.durability.stores import order
from banditroute.records import StateStore
from banditroute.router.parts import RouterParts
from banditroute.router.uses import Uses

__all__ = ["Outbox"]

SAMPLE, SAMPLE_BYTES = 256, 1 << 18  # of requests told in a round: at most so many, of so many bytes together
NEWS = 64  # things told from outside that are kept to be told on
LEAP = 1 << 20  # beyond the numbers of the uses that an earlier life may have told last


class Outbox:
    """The last requests, news and uses of this worker, until they are told.

    Parameters
    ----------
    parts : RouterParts
    uses : Uses
    sync_s : float
        Seconds between tellings of requests.
    clock : callable
        Seconds, never backwards.
    """

    def __init__(self, parts: RouterParts, uses: Uses, sync_s: float, clock: Callable[[], float]) -> None:
        self._parts, self._uses, self._sync_s, self._clock = parts, uses, sync_s, clock
        size = max(1, min(SAMPLE, SAMPLE_BYTES // (8 * max(1, parts.policy.dim))))
        self.requests: deque[tuple[str, Floats, bool]] = deque(maxlen=size)  # arm, context, hit
        self.news: deque[tuple[int, str, bool]] = deque(maxlen=NEWS)  # number, arm, whether it is resident
        self._told = self._seq = self._version = 0  # numbers of the last news, row and requests
        self._next = -inf  # when requests are told again
        self._last: Word | None = None
        self._row = ""

    def begin(self, row: str, raw: object) -> None:
        """Go on with the numbers of an earlier life under this name, of which this is the row."""
        self._row, self._seq = row, max(self._seq, order(raw)[0])
        before = read_word(raw)
        if before is not None:
            self._version = max(self._version, before.requests)
            self._told = max(self._told, max((number for number, _, _ in before.news), default=0))
            self._uses.begin(max((number for number, _ in before.uses.values()), default=0) + LEAP)

    def tell_on(self, name: str, resident: bool) -> None:
        """Keep what this worker was told from outside; the lock is held."""
        self._told += 1
        self.news.append((self._told, name, resident))

    def publish(self, store: StateStore, row: str, *, listened: bool, now: bool) -> None:
        """Put what is new into the store; requests where anybody listens, and at once or every `sync_s`.

        Raises
        ------
        OSError
            The store is down; the requests that were to be told are not told again.
        """
        if row != self._row:  # this worker goes by another name
            self._row, self._last = row, None
        word, requests = self._word(listened, now)
        if self._last is not None and _alike(word, self._last):
            return
        self._seq += 1
        given = {} if requests is None else {REQUESTS: packed_requests(word.requests, requests)}
        lacking = store.put(row, word_row(self._seq, word), given)
        self._version, self._last = word.requests, word
        if lacking:  # the store was flushed: those requests are gone
            self._version, self._last = self._version + 1, None

    def _word(self, listened: bool, now: bool) -> tuple[Word, Requests | None]:
        parts, requests = self._parts, None
        with parts.lock:
            books, arms, time = parts.books, parts.arms, self._clock()
            if self.requests and listened and (now or time >= self._next):
                requests = _requests(list(self.requests))
                self._next = time + self._sync_s
            if requests is not None or not listened:
                self.requests.clear()
            eligible = None
            if books.masked and books.masked == books.index - books.planned:
                eligible = [n for n, allowed in zip(arms.names, arms.offered, strict=True) if allowed]
            uses = self._uses.told() if self._uses.on else {}
            version = self._version + (requests is not None)
            return Word(uses, tuple(self.news), eligible, version), requests


def _requests(taken: list[tuple[str, Floats, bool]]) -> Requests:
    names = tuple(dict.fromkeys(name for name, _, _ in taken))
    place = {name: i for i, name in enumerate(names)}
    arms = np.array([place[name] for name, _, _ in taken], dtype=np.int64)
    contexts = np.array([x for _, x, _ in taken], dtype=np.float64)
    return Requests(names, arms, contexts, np.array([hit for _, _, hit in taken], dtype=np.bool_))


def _alike(word: Word, last: Word) -> bool:
    """Whether nothing is new: ages go on by themselves."""
    numbers = [{name: number for name, (number, _) in one.uses.items()} for one in (word, last)]
    return numbers[0] == numbers[1] and word._replace(uses={}) == last._replace(uses={})
