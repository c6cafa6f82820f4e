"""When every adapter was used last, here and by other workers: the order that a displacing server goes by."""

from collections.abc import Callable, Mapping
from math import inf

__all__ = ["Uses"]

LATELY_S = 60.0  # uses that are told: older ones are known by now


class Uses:
    """The last use of each adapter by each worker, on this worker's clock; safe where the GIL makes single steps so.

    A use of another worker is dated by its age when it was told and the moment when that was read: too young by the
    time that it was on its way, whatever the clocks of the machines say.

    Parameters
    ----------
    clock : callable
        Seconds, never backwards.

    Examples
    --------
    >>> now = [1.0]
    >>> uses = Uses(lambda: now[0])
    >>> uses.mark("a")
    >>> now[0] = 3.0
    >>> uses.take_in("other", {"b": (5, 1.0)})  # used a second ago, at 2
    True
    >>> uses.mark("c")
    >>> uses.since_news()
    ['b', 'c']
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.on = False  # whether anybody needs them
        self._clock = clock
        self._number = 0
        self._own: dict[str, tuple[int, float]] = {}  # number and time of the last use
        self._theirs: dict[str, dict[str, tuple[int, float]]] = {}
        self._news = inf  # the oldest use told since `since_news`

    def begin(self, number: int) -> None:
        """Number uses from here on: others know those of an earlier life."""
        self._number = max(self._number, number)

    def mark(self, name: str) -> None:
        """See an adapter used here."""
        self._number += 1
        self._own[name] = (self._number, self._clock())

    def told(self) -> dict[str, tuple[int, float]]:
        """Return number and age of the last use of each adapter here, of those that were used lately."""
        now = self._clock()
        return {n: (number, now - at) for n, (number, at) in self._own.copy().items() if now - at < LATELY_S}

    def take_in(self, worker: str, uses: Mapping[str, tuple[int, float]], count: bool = True) -> bool:
        """Take in what another worker told; whether there was news in it. Without `count` it is no news."""
        known = self._theirs.setdefault(worker, {})
        now, news = self._clock(), False
        for name, (number, age) in uses.items():
            if number > known.get(name, (0, 0.0))[0]:
                at = now - age
                known[name] = (number, at)
                if count:
                    self._news, news = min(self._news, at), True
        return news

    def since_news(self) -> list[str]:
        """Return the adapters used since the oldest news, in the order of their last uses."""
        last: dict[str, float] = {}
        for uses in (self._own.copy(), *self._theirs.values()):
            for name, (_, at) in uses.items():
                if at >= self._news:
                    last[name] = max(at, last.get(name, -inf))
        self._news = inf
        return sorted(last, key=lambda name: last[name])

    def ages(self) -> dict[str, float]:
        """Return the seconds since the last use of each adapter, by whomever."""
        now = self._clock()
        last: dict[str, float] = {}
        for uses in (self._own.copy(), *self._theirs.values()):
            for name, (_, at) in uses.items():
                last[name] = max(at, last.get(name, -inf))
        return {name: max(0.0, now - at) for name, at in last.items() if now - at < LATELY_S}
