"""Sessions: what it costs to leave an arm that still has the beginning of a conversation in its cache."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Arrays, Floats, Header
from banditroute.policies.base import LARGEST
from banditroute.records import Note, Request
from banditroute.terms.base import Asked, BaseTerm, kept

__all__ = ["Sessions"]

LATER_S = 1e-3  # after a turn comes the word that it came to nothing
LONGEST = 128  # characters of a name that is remembered as it is; of a longer one its hash is


class Sessions(BaseTerm):
    """Price the tokens that an arm would have to read again because its cache does not hold them.

    Each arm that served a session has its prompt so far in a prefix or prompt cache, until it has been idle for too
    long. Of the next prompt, which begins with the last, that many tokens are cheaper there. The warmest arm is free;
    another costs what is saved by staying. A session that is new, and a request without one, is not priced at all.

    Parameters
    ----------
    saved : float or (k,) array
        Reward units that one cached token saves on each arm, >= 0: the price of an input token less that of a cached
        one, times the worth of a dollar.
    tokens : callable, optional
        Gets the context and returns the length of the prompt, conversation included. Left out, each turn adds one
        token: `saved` is then what a cached turn saves.
    idle_s : float
        Seconds after which a provider drops a cache that nobody used.
    limit : int
        Sessions remembered; the one that was quiet for longest is forgotten first.

    Notes
    -----
    The request names its session: ``router.select(x, session="u17")``. What is priced is the next turn alone, which
    is the right price for an arm that is better for one turn; where it is better for all the turns to come, the price
    is paid once. Providers keep caches for five minutes or more; servers of one's own until memory runs out. O(k) a
    request with a session, and nothing without.

    Workers that join a store tell each other of their turns at every round: of two turns of a session at an arm the
    later one counts. Times are compared by the clocks of the machines, which must agree to within a few seconds.

    Examples
    --------
    >>> from banditroute.records import Extras
    >>> term = Sessions([0.001, 0.002], tokens=lambda x: x[0])
    >>> turn = Request(np.array([100.0]), 0, Extras(session="u17"), 0.0)
    >>> term.prices(turn) is None  # new
    True
    >>> held = term.reserve(1, turn)
    >>> term.prices(turn._replace(x=np.array([150.0]), time=10.0))
    array([0.2, 0. ])
    >>> term.prices(turn._replace(time=1000.0)) is None  # the cache has gone cold
    True
    """

    name = "sessions"
    per_request = True

    def __init__(
        self,
        saved: ArrayLike,
        *,
        tokens: Callable[[Floats], float] | None = None,
        idle_s: float = 300.0,
        limit: int = 10_000,
    ) -> None:
        self._common = np.ndim(saved) == 0
        self.saved = check.non_negative("saved", np.atleast_1d(saved), limit=LARGEST).copy()
        super().__init__(None if self._common else len(self.saved))
        if tokens is not None and not callable(tokens):
            raise TypeError(f"tokens must be a callable, got {check.shown(tokens)}")
        self._tokens = tokens
        self.idle_s = check.finite("idle_s", idle_s, low=0.0, open_low=True)
        self.limit = check.integer("limit", limit, low=1)
        # session -> arm -> (tokens in its cache, time of the last use), the session used last at the end
        self._warm: OrderedDict[str, dict[str, tuple[float, float]]] = OrderedDict()
        # what other workers were not told yet, (tokens, time) by session and arm; None: there are none to tell
        self._untold: OrderedDict[tuple[str, str], tuple[float, float]] | None = None

    def __len__(self) -> int:
        """Return how many sessions are remembered."""
        return len(self._warm)

    def shown(self) -> str:
        """Return what `repr` tells of the state."""
        return f"sessions={len(self)}, idle_s={self.idle_s:g}, limit={self.limit}"

    def cached(self, session: str, time: float) -> dict[str, float]:
        """Return how many tokens of a session each arm has in its cache at a time."""
        warm = self._warm.get(_short(session), {})
        return {arm: tokens for arm, (tokens, last) in warm.items() if time - last < self.idle_s}

    def _length(self, request: Request, session: str) -> float:
        if self._tokens is not None:
            return check.finite("tokens", self._tokens(request.x), low=0.0, high=LARGEST)
        return 1.0 + max((tokens for tokens, _ in self._warm.get(session, {}).values()), default=0.0)

    def prices(self, request: Asked = None, *, weights: Mapping[str, float] | None = None) -> Floats | None:
        """Return what is saved at the warmest arm and not here, (k,), reward units; None where no cache is warm."""
        session = _session(request)
        if session is None or session not in self._warm:
            return None
        assert isinstance(request, Request)
        warm = self.cached(session, request.time)
        if not warm:
            return None
        length, saving = self._length(request, session), np.zeros(len(self.arms) or len(self.saved))
        for arm, tokens in warm.items():
            at = self._at(arm)
            if at is not None:
                saving[at] = self.saved[0 if self._common else at] * min(tokens, length)
        top = float(saving.max())
        return None if top == 0.0 else np.minimum(top - saving, LARGEST)

    def _at(self, arm: str) -> int | None:
        return self.position(arm) if self.arms else int(arm)

    def reserve(self, arm: int | str, request: Asked = None, /) -> list[Any] | None:
        """See which arm reads the prompt; returns what its cache held before."""
        session = _session(request)
        if session is None:
            return None
        assert isinstance(request, Request)
        at = self.index(arm)
        name = self.arms[at] if self.arms else str(at)
        length = self._length(request, session)
        warm = self._warm.setdefault(session, {})
        before = warm.get(name)
        warm[name] = (length, request.time)
        self._used(session)
        self._tell(session, name, length, request.time)
        return [session, None if before is None else list(before), length, request.time]

    def _used(self, session: str) -> None:
        self._warm.move_to_end(session)
        if len(self._warm) > self.limit:
            self._warm.popitem(last=False)

    def release(self, arm: int | str, held: list[Any] | None = None, /) -> None:
        """Take back what a call that came to nothing would have left in the cache."""
        if held is None or held[0] not in self._warm:
            return
        session, before, length, time = held
        warm, name = self._warm[session], arm if isinstance(arm, str) else str(arm)
        if warm.get(name) != (length, time):
            return  # a later turn was there
        if before is None:
            del warm[name]
        else:
            warm[name] = (float(before[0]), float(before[1]))
        if not warm:
            del self._warm[session]
        # Others may have heard of the turn: a later word takes its place.
        left = 0.0 if before is None or time - before[1] >= self.idle_s else float(before[0])
        self._tell(session, name, left, time + LATER_S)

    # What workers of one store tell each other.

    def _tell(self, session: str, arm: str, tokens: float, time: float) -> None:
        if self._untold is not None:
            self._untold[session, arm] = (tokens, time)
            if len(self._untold) > self.limit:
                self._untold.popitem(last=False)

    def notes(self, *, anew: bool = False) -> list[Note]:
        """Return the turns served here since the last call; with `anew` all that is known, and note from here on."""
        told: Iterable[tuple[tuple[str, str], tuple[float, float]]] = (self._untold or {}).items()
        if anew:
            told = [((s, arm), held) for s, warm in self._warm.items() for arm, held in warm.items()]
        if anew or self._untold:
            self._untold = OrderedDict()
        return [Note(*key, *held) for key, held in told]

    def take(self, notes: Iterable[Note]) -> list[Note]:
        """Take in turns that other workers served: the later one counts. Returns those that were news."""
        new = []
        for note in notes:
            session, arm, tokens, time = note
            known = self._warm.get(session, {}).get(arm)
            if arm in self.arms and (known is None or (time, tokens) > known[::-1]):
                self._warm.setdefault(session, {})[arm] = (tokens, time)
                self._used(session)
                new.append(note)
        return new

    def passed(self, seconds: float) -> None:
        """See that time stood still here while so many seconds passed elsewhere: caches are that much older."""
        for warm in self._warm.values():
            for arm, (tokens, last) in warm.items():
                warm[arm] = (tokens, last - seconds)

    def replay_mark(self, details: Mapping[str, Any]) -> None:
        """Let turns of other workers take effect, from a journal."""
        self.take(Note(*row) for row in details.get("notes", ()))

    def forget(self, name: str) -> None:
        """Forget what the cache of an arm held."""
        for warm in self._warm.values():
            warm.pop(name, None)
        for key in [key for key in self._untold or () if key[1] == name]:
            del self._untold[key]  # type: ignore[union-attr]
        for session in [s for s, warm in self._warm.items() if not warm]:
            del self._warm[session]

    def add_arm(self, name: str, saved: float | None = None) -> None:
        """Follow an arm that was added; where left out, a token saves as much as the median."""
        value = None if saved is None else check.finite("saved", saved, low=0.0, high=LARGEST)
        if value is not None and self._common:
            raise ValueError(f"saved must be left out where all arms have one, got {value:g}")
        super().add_arm(name)
        if value is not None:
            self.saved[-1] = value

    def resize(self, keep: list[int | None]) -> None:
        """Keep the savings of arms that stay; a new one has the median."""
        if not self._common:
            self.saved = kept(self.saved, keep, float(np.median(self.saved)))

    def to_state(self) -> tuple[Header, Arrays]:
        """Return everything needed to continue; savings of arms included, limits are settings."""
        header, arrays = super().to_state()
        rows = [(s, a, t, last) for s, warm in self._warm.items() for a, (t, last) in warm.items()]
        header |= {"sessions": [row[0] for row in rows], "served_by": [row[1] for row in rows]}
        arrays |= {"tokens": np.array([row[2] for row in rows], dtype=np.float64)}
        arrays |= {"time": np.array([row[3] for row in rows], dtype=np.float64), "saved": self.saved.copy()}
        return header, arrays

    def load_state(self, header: Header, arrays: Arrays) -> None:
        """Continue from `to_state`."""
        arms = self.kept_arms(header)
        sessions, served_by = (
            list(check.entry("header", header, name)) for name in ("sessions", "served_by")
        )
        tokens = check.non_negative(
            "tokens", check.entry("arrays", arrays, "tokens"), len(sessions), limit=LARGEST
        )
        times = check.vector("time", check.entry("arrays", arrays, "time"), len(sessions))
        saved = check.entry("arrays", arrays, "saved")
        saved = check.non_negative("saved", saved, 1 if self._common else len(arms), limit=LARGEST)
        if len(served_by) != len(sessions) or not all(isinstance(s, str) for s in (*sessions, *served_by)):
            raise ValueError(
                f"sessions must be {len(sessions)} names with their arms, got {len(served_by)} arms"
            )
        warm: OrderedDict[str, dict[str, tuple[float, float]]] = OrderedDict()
        for session, arm, length, time in zip(
            sessions, served_by, tokens.tolist(), times.tolist(), strict=True
        ):
            warm.setdefault(session, {})[arm] = (length, time)
        while len(warm) > self.limit:
            warm.popitem(last=False)
        super().load_state(header, arrays)
        self.saved, self._warm = saved.copy(), warm


def _session(request: Asked) -> str | None:
    if not isinstance(request, Request) or request.extras is None or request.extras.session is None:
        return None
    return _short(request.extras.session)


def _short(session: str) -> str:
    """Return the name under which a session is remembered: clients choose names of any length."""
    if len(session) <= LONGEST:
        return session
    return hashlib.sha256(session.encode(errors="surrogatepass")).hexdigest()
