"""Lists: several arms in one decision, a place of its own in the ledger for each, one of which is explored."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Ints
from banditroute.errors import UnknownArm, UnknownDecision
from banditroute.records import Decision, Parts, Ranking, Request
from banditroute.router.arms import Eligible, Priced
from banditroute.router.candidates import CandidatePath, Candidates
from banditroute.router.ledger import IDS, decision_key
from banditroute.router.parts import RouterParts
from banditroute.router.request_path import RequestPath

__all__ = ["ListPath", "Rewards", "cascade", "chances", "open_places", "place_id"]

Rewards = Mapping[str, float | None] | Sequence[float | None]
Law = Callable[[Floats], Floats]
MOST = 1 << 16  # places


def place_id(list_id: int, place: int) -> int:
    """Return the id of one place of a list, counted from 0: that of the list for the first, else 63 bits of a hash.

    Examples
    --------
    >>> place_id(7, 0), place_id(7, 1) == place_id(7, 1) != place_id(7, 2)
    (7, True)
    """
    if not place:
        return list_id
    text = list_id.to_bytes(8, "little") + place.to_bytes(4, "little")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def cascade(shown: Ranking | Sequence[str], clicked: str | None) -> dict[str, float | None]:
    """Return what a click teaches where people look from the top and stop at what they click: the cascade model.

    Arms above it earned 0, the one that was clicked 1, and those below were not seen: they teach nothing. Without a
    click all were seen.

    Parameters
    ----------
    shown : Ranking or sequence of str
    clicked : str, optional

    Raises
    ------
    UnknownArm
        What was clicked was not shown.

    Notes
    -----
    Source: Craswell, Zoeter, Taylor and Ramsey, "An experimental comparison of click position-bias models" (WSDM 2008);
    Kveton, Szepesvari, Wen and Ashkan, "Cascading bandits" (ICML 2015).

    Examples
    --------
    >>> cascade(["a", "b", "c"], "b")
    {'a': 0.0, 'b': 1.0, 'c': None}
    """
    arms = list(shown.arms if isinstance(shown, Ranking) else shown)
    if clicked is None:
        return dict.fromkeys(arms, 0.0)
    if clicked not in arms:
        raise UnknownArm(f"clicked must be one of {arms}, got {clicked!r}")
    at = arms.index(clicked)
    return {arm: 0.0 if i < at else 1.0 if i == at else None for i, arm in enumerate(arms)}


class Ranked(NamedTuple):
    """Positions by place, with the probability of each at its place, and of the list down to there.

    Examples
    --------
    >>> Ranked([1], [0.5], [0.5]).chosen
    [1]
    """

    chosen: list[int]
    marginal: list[float]
    prefix: list[float]


def ranked(order: Ints, laws: Sequence[Floats], explored: int, drawn: int) -> Ranked:
    """Return the list in which `drawn` stands at the place that is explored, and all others follow the order.

    Parameters
    ----------
    order : (m,) int array
        Open positions, best first.
    laws : sequence of (k,) arrays
        For each place the probabilities of the policy once the best before it are taken; every place is explored with
        the same probability.
    explored, drawn : int
        The place, and the position that the policy drew there.

    Examples
    --------
    >>> ranked(np.array([0, 1]), [np.array([0.5, 0.5]), np.array([0.0, 1.0])], explored=0, drawn=1)
    Ranked(chosen=[1, 0], marginal=[0.25, 0.25], prefix=[0.25, 0.25])
    """
    chosen = _with(order.tolist(), explored, drawn, len(laws))
    return Ranked(chosen, *chances(order, laws, chosen))


def _with(best: list[int], place: int, arm: int, count: int) -> list[int]:
    """Return the best with an arm drawn at one place."""
    return [*best[:place], arm, *(a for a in best[place:] if a != arm)][:count]


def chances(order: Ints, laws: Sequence[Floats], chosen: Sequence[int]) -> tuple[list[float], list[float]]:
    """Return the probability of each position of any list at its place, and of the list down to there.

    Parameters
    ----------
    order, laws
        As in `ranked`.
    chosen : sequence of int
        At most as many positions as there are laws.

    Examples
    --------
    >>> chances(np.array([0, 1]), [np.array([0.5, 0.5]), np.array([0.0, 1.0])], [0, 1])
    ([0.75, 0.75], [0.75, 0.75])
    """
    best, count = order.tolist(), len(laws)
    marginal, prefix = [0.0] * len(chosen), [0.0] * len(chosen)
    for j, law in enumerate(laws):
        rest = best[j:]
        for i, arm in enumerate(chosen):
            if i < j:
                share = float(best[i] == arm)
            elif i == j:
                share = float(law[arm])
            else:  # those drawn from above its place push it down by one
                at = i - j
                above = float(sum(law[a] for a in rest[:at]))
                share = (1.0 - above) * (rest[at - 1] == arm) + above * (rest[at] == arm)
            marginal[i] += share / count
            if i < j:
                prefix[i] += float(list(chosen[: i + 1]) == best[: i + 1]) / count
            elif _with(best, j, chosen[j], count)[: i + 1] == list(chosen[: i + 1]):
                prefix[i] += float(law[chosen[j]]) / count
    return marginal, prefix


def explored_place(at: int, count: int) -> int:
    """Return which place of a list the decision at this index explores: a hash of the index, uniform over places.

    No random number is drawn for it, so that a journal that is replayed leaves the generator where it was.

    Examples
    --------
    >>> sorted({explored_place(at, 3) for at in range(20)})
    [0, 1, 2]
    """
    z = (at + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    z = (z ^ z >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
    return (z ^ z >> 31) % count


class ListPath:
    """The way of a request for several arms, and of the rewards of its places.

    Parameters
    ----------
    parts, requests
        The Router's own.
    candidates : CandidatePath
        Of requests that bring their candidates.
    withdraw : callable
        Takes one place off the books.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(["a", "b", "c"], 1, rng=0))
    >>> shown = router.select([1.0], k=2)
    >>> len(shown.arms), router.update(shown.id, {shown.arms[1]: 1.0})
    (2, True)
    """

    __slots__ = ("_parts", "_requests", "_withdraw", "candidates")

    def __init__(
        self,
        parts: RouterParts,
        requests: RequestPath,
        candidates: CandidatePath,
        withdraw: Callable[[int], None],
    ) -> None:
        self._parts, self._requests, self.candidates = parts, requests, candidates
        self._withdraw = withdraw

    # Choosing.

    def select(
        self,
        x: ArrayLike,
        candidates: Candidates | None,
        k: int | Sequence[float] | None,
        eligible: Eligible | None,
        prices: Priced | None,
        protected: bool,
        weights: Mapping[str, float] | None,
        session: str | None,
        id: int | str | None,
        version: int | None,
    ) -> Decision:
        """Choose a list, or one of the candidates where `k` is None; takes the lock."""
        if k is None:
            said_ = (eligible, prices, protected, weights, session, id, version)
            return self.candidates.select(x, candidates or {}, *said_)
        parts, requests = self._parts, self._requests
        with parts.lock:
            books = parts.books
            if books.barred:
                books.refuse()
            places, seen = self._asked(k)
            if id is not None:
                first = requests.repeated(decision_key(id))
                if first is not None:
                    return first
            said = (eligible, prices, protected, weights, session)
            if candidates is None:
                requests.check(x, eligible, prices, weights, session, None, version)
                request = requests.asked(x, *said)
            else:
                request, names, z, own = self.candidates.asked(x, candidates, *said, version)
            if books.index >= books.due:
                requests.upkeep(books.index)
            if candidates is None:
                found, names, arms, rows = self._of_arms(request, places, eligible, prices)
                kept = [parts.policy.kept(request.x, arm) for arm in found.chosen]
            else:
                found, arms, rows = self._of_candidates(request, names, z, own, places)
                policy = self.candidates.policy()
                kept = [policy.kept_candidate(request.x, z[place]) for place in found.chosen]
            if seen is not None:
                kept = [row * seen[i] for i, row in enumerate(kept)]
            return self._booked(request, found, names, arms, kept, rows, id)

    def _of_arms(
        self, request: Request, places: int, eligible: Eligible | None, prices: Priced | None
    ) -> tuple[Ranked, tuple[str, ...], list[int], Parts | None]:
        parts = self._parts
        policy = parts.policy
        if not parts.table.live:
            parts.table.fold(parts.arms.muted)
        assert request.extras is not None
        _, _, protected, _, _, weights, session = request.extras
        _, effective = self._requests.priced(
            request.x, request.at, eligible, prices, protected, weights, session, None
        )
        playable = policy.playable(request.x)
        if playable is not None:
            effective = np.where(playable, effective, inf)
        rows = None
        if parts.listeners.keeps_parts:
            rows = self._requests.rows(request.x, request.at, request.extras)
        mean = policy.utilities(request.x[np.newaxis]).mean[0]

        def law(offers: Floats) -> Floats:
            allowed = np.isfinite(offers)
            return policy.propensities(request.x, prices=np.where(allowed, offers, 0.0), eligible=allowed)

        def draw(offers: Floats) -> int:
            return policy.select_priced(request.x, offers).arm

        found = _found(mean, effective, places, request.at, law, draw)
        return found, parts.arms.names, found.chosen, rows

    def _of_candidates(
        self, request: Request, names: tuple[str, ...], z: Floats, own: Floats, places: int
    ) -> tuple[Ranked, list[int], Parts | None]:
        parts, policy = self._parts, self.candidates.policy()
        positions = policy.places(names)
        shown = parts.table.of_candidates(request, positions, own, parts.arms.muted)
        rows = Parts(names, shown.rows) if parts.listeners.keeps_parts else None
        mean = policy.candidate_utilities(request.x, (names, z)).mean
        found = _found(
            mean,
            shown.total,
            places,
            request.at,
            lambda offers: policy.candidate_propensities(request.x, (names, z), offers),
            lambda offers: policy.choose_candidate(request.x, names, z, offers).arm,
        )
        return found, [int(positions[i]) for i in found.chosen], rows

    def _booked(
        self,
        request: Request,
        found: Ranked,
        names: tuple[str, ...],
        arms: Sequence[int],
        kept: Sequence[Floats],
        rows: Parts | None,
        id: int | str | None,
    ) -> Ranking:
        """Book each place as a decision of its own."""
        first = self._new_id(len(kept)) if id is None else decision_key(id)
        made = [
            self.candidates.booked(
                request._replace(at=request.at + i),
                names[place],
                arms[i],
                kept[i],
                found.marginal[i],
                rows,
                place_id(first, i),
            )
            for i, place in enumerate(found.chosen)
        ]
        ranking = Ranking(made, found.prefix)
        named = self._requests.named
        for one in made:  # places are booked under ids of their own; only that of the list may be a caller's
            named.pop(one.id, None)
        if id is not None:
            named[first] = ranking
        return ranking

    def _new_id(self, count: int) -> int:
        ledger = self._parts.ledger
        while True:
            key = ledger.new_id()
            if not any(
                place_id(key, i) in known for i in range(count) for known in (ledger.pending, ledger.closed)
            ):
                return key

    def _asked(self, k: int | Sequence[float]) -> tuple[int, Floats | None]:
        """Return how many places, and how likely each is looked at where that is what was said."""
        if isinstance(k, int | np.integer):
            return check.integer("k", k, low=1, high=MOST), None
        shares = check.non_negative("k", k, open_low=True)
        if not (shares.max() <= 1.0 and len(shares) <= MOST):
            raise ValueError(f"k must be a number of places or chances in (0, 1], got {check.shown(k)}")
        if not self._parts.policy.scales:
            raise TypeError(
                f"k must be a number of places with {type(self._parts.policy).__name__}: its rewards are not linear in "
                "what it sees"
            )
        return len(shares), shares

    # Rewards.

    def places(self, decision_id: int | str) -> list[int]:
        """Return the ids of the places of a list that are known here, in their order; the lock must be held."""
        key, ledger = decision_key(decision_id), self._parts.ledger
        found: list[int] = []
        if not 0 <= key < IDS:
            return []
        while (one := place_id(key, len(found))) in ledger.pending or one in ledger.closed:
            found.append(one)
        return found

    def update(
        self,
        learn: Callable[..., bool],
        decision_id: int | str,
        rewards: Rewards,
        **told: Any,
    ) -> bool:
        """Learn what places of a list earned, by the Router's own `update`; True where any was learned.

        What was told beside the rewards, the cost say, is of the whole list and goes with the first of them.
        """
        with self._parts.lock:
            answers = self.answers(decision_id, rewards)
        learned = False
        for key, reward in answers:
            if reward is not None:
                learned |= learn(key, reward, **told)
                told = {"source": told.get("source")}
        with self._parts.lock:
            for key, reward in answers:
                if reward is None and key in self._parts.ledger.pending:
                    self._withdraw(key)
        return learned

    def answers(self, decision_id: int | str, rewards: Rewards) -> list[tuple[int, float | None]]:
        """Return what each place that is spoken of earned, None where it teaches nothing; the lock must be held.

        Raises
        ------
        UnknownDecision, UnknownArm, ValueError, TypeError
            No such list, an arm that is not in it, a bad reward: nothing has changed.
        """
        ids, pending = self.places(decision_id), self._parts.ledger.pending
        if isinstance(rewards, Mapping):
            if not ids:
                raise UnknownDecision(
                    "decision_id must be that of a list that was made here for rewards by arm, "
                    f"got {decision_id!r}; rewards by place are taken anywhere"
                )
            by_name = {pending[one][0]: one for one in ids if one in pending}
            for arm in rewards:
                if arm not in by_name and (len(by_name) == len(ids) or not isinstance(arm, str)):
                    raise UnknownArm(f"reward must be of arms of the list, {list(by_name)}, got {arm!r}")
            given = [(by_name[arm], reward) for arm, reward in rewards.items() if arm in by_name]
        else:
            if len(ids) == 1:
                raise TypeError(
                    f"reward must be a finite number for a decision of one place, got {check.shown(rewards)}"
                )
            most = len(ids) or MOST
            if len(rewards) > most:
                raise ValueError(f"reward must hold at most {most} places, got {len(rewards)}")
            key = decision_key(decision_id)
            given = [(place_id(key, i), reward) for i, reward in enumerate(rewards)]
        found: list[tuple[int, float | None]] = []
        for one, reward in given:
            value = None if reward is None else check.finite("reward", reward)
            if value is not None:
                self._parts.policy.check_reward(value, 1.0)
            found.append((one, value))
        return found


def open_places(
    mean: Floats, offers: Floats, places: int, law: Law, at: Callable[[Floats], None] = lambda left: None
) -> tuple[Ints, list[Floats]]:
    """Return the order of the open positions, best mean less price first, and the law of each place of a list.

    Parameters
    ----------
    mean, offers : (k,) arrays
        What each is expected to earn, and its price, infinite where it is closed.
    places : int
        As many as are wanted; there are fewer where fewer are open.
    law : callable
        From prices to the probabilities of a choice among what they leave open.
    at : callable
        Is told the prices of each place.

    Examples
    --------
    >>> law = lambda offers: np.isfinite(offers) / np.isfinite(offers).sum()
    >>> order, laws = open_places(np.array([0.1, 0.9]), np.zeros(2), 2, law)
    >>> order, laws
    (array([1, 0]), [array([0.5, 0.5]), array([1., 0.])])
    """
    order = np.argsort(-(mean - offers), kind="stable")
    order = order[np.isfinite(offers[order])]
    if not len(order):
        raise ValueError("eligible must leave an arm to play, got none")
    laws, left = [], offers.copy()
    for i in range(min(places, len(order))):
        if i:
            left[order[i - 1]] = inf
        laws.append(law(left))
        at(left)
    return order, laws


def _found(
    mean: Floats, offers: Floats, places: int, at: int, law: Law, draw: Callable[[Floats], int]
) -> Ranked:
    """Return a list of at most so many places: the best by mean less price, and one place as the policy would."""
    drawn: list[
        int
    ] = []  # each place uses the random numbers of a decision, as its replay from a journal does
    order, laws = open_places(mean, offers, places, law, lambda left: drawn.append(draw(left)))
    explored = explored_place(at, len(laws))
    return ranked(order, laws, explored, drawn[explored])
