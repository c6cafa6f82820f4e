"""Why this arm: what every arm was worth to a Router for one request, and what stood against it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite, isnan
from typing import Any, NamedTuple

import numpy as np

from banditroute._core.kernels.loop import forced_share
from banditroute._core.typing import Floats
from banditroute.errors import UnknownDecision
from banditroute.policies import Policy
from banditroute.policies.candidates import chooser
from banditroute.records import Extras, Parts, Request
from banditroute.router.feedback_path import asked
from banditroute.router.ledger import decision_key
from banditroute.router.parts import RouterParts

__all__ = ["ArmExplained", "Explanation", "Made", "explained", "explained_candidates", "stored"]

SHOWN = 12  # arms in the table of a text


class Made(NamedTuple):
    """What is stored of a decision that was made: nothing here was computed anew.

    ``prices`` are those of then by name of their term, where a recorder kept them; ``reward`` where it is known.

    Examples
    --------
    >>> Made(7, "large", 0.9, 12.0, 3).prices is None
    True
    """

    id: int
    arm: str
    propensity: float
    time: float
    at: int | None
    prices: Mapping[str, Mapping[str, float]] | None = None
    reward: float | None = None


@dataclass(frozen=True, slots=True)
class ArmExplained:
    """One arm in an explanation: ``index = mean + bonus - sum of prices``, in reward units.

    Parameters
    ----------
    arm : str
    mean, bonus : float
        What the policy expects, and what it adds for what it does not know; of a policy that samples, one standard
        deviation. Not a number for a policy that tells propensities alone.
    prices : mapping of str to float
        By name: "fault", "caller", and the name of each term; infinite where that closes the arm.
    index : float
        Minus infinity for a closed arm.
    propensity : float
        Chance of being played, forced exploration included.
    resident : bool
        True for all without residency control.
    blocked : bool
        It did not load and is not tried again yet.
    closed : tuple of str
        What forbids the arm: "mask", "quarantine", "policy" (it has no way to play it) or names of terms, with the
        reason that the term gives.

    Examples
    --------
    >>> ArmExplained("a", 0.5, 0.1, {"fault": 0.2}, 0.4, 1.0, False).closed
    ()
    """

    arm: str
    mean: float
    bonus: float
    prices: dict[str, float]
    index: float
    propensity: float
    resident: bool
    blocked: bool = False
    closed: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON holds them: None for what is infinite or not a number."""
        numbers = {n: _plain(getattr(self, n)) for n in ("mean", "bonus", "index", "propensity")}
        prices = {name: _plain(price) for name, price in self.prices.items()}
        more = {"resident": self.resident, "blocked": self.blocked, "closed": list(self.closed)}
        return {"arm": self.arm, **numbers, "prices": prices, **more}


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a Router would play what it would play for a request, or did for one that it decided.

    Parameters
    ----------
    arms : tuple of ArmExplained
        In the order of positions.
    rule : str
        How the policy goes from the index to a choice; that of one that samples is a distribution.
    passed_over : tuple of str
        Soft terms that would have left no arm: they count for nothing in this request.
    forced : float
        Probability that the residency controller takes the choice over.
    made : Made, optional
        What is stored of the decision that was asked for; everything else is as of now.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(["small", "large"], 1, rng=0))
    >>> for arm, reward in [("small", 0.4), ("large", 0.9)] * 20:
    ...     router.update(router.select([1.0], eligible={arm}).id, reward) and None
    >>> why = router.explain([1.0], prices={"large": 0.1})
    >>> why.best.arm, why.best.prices["caller"], why["small"].propensity
    ('large', 0.1, 0.0)
    >>> print(why.sentence)  # doctest: +ELLIPSIS
    large would be played with probability 1: mean 0.899 and bonus ... less 0.1 (caller 0.1) give 0.8...
    """

    arms: tuple[ArmExplained, ...]
    rule: str
    passed_over: tuple[str, ...] = ()
    forced: float = 0.0
    made: Made | None = None

    @property
    def best(self) -> ArmExplained:
        """The arm that is likeliest to be played; of several alike the one with the largest index."""
        return max(self.arms, key=_rank)

    def __getitem__(self, arm: str) -> ArmExplained:
        """Return what is said of one arm; ``KeyError`` where there is none of that name."""
        for one in self.arms:
            if one.arm == arm:
                return one
        raise KeyError(arm)

    def __repr__(self) -> str:
        """Show the likeliest arm and how many there are."""
        made = "" if self.made is None else f", decision={self.made.id}"
        best = self.best
        return (
            f"Explanation(best={best.arm!r}, propensity={best.propensity:.4g}, arms={len(self.arms)}{made})"
        )

    def __str__(self) -> str:
        """Return the sentence and a table of the arms, the likeliest first."""
        ranked = sorted(self.arms, key=_rank, reverse=True)
        names = [n for n in ranked[0].prices if any(one.prices[n] for one in self.arms)]
        head = ["arm", "mean", "bonus", *(f"-{name}" for name in names), "index", "propensity", ""]
        rows = [head, *(_row(one, names) for one in ranked[:SHOWN])]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
        lines = [
            "  ".join(cell.ljust(w) if i in (0, len(head) - 1) else cell.rjust(w) for i, (cell, w) in
                      enumerate(zip(row, widths, strict=True))).rstrip()
            for row in rows
        ]  # fmt: skip
        rest = len(ranked) - SHOWN
        return "\n".join([self.sentence, "", *lines, *([f"and {rest} more arms"] if rest > 0 else [])])

    @property
    def sentence(self) -> str:
        """What a person would say, in a few sentences."""
        return " ".join(_said(self))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON holds it; ids are text, for JSON numbers hold 53 bits in many languages."""
        made = None
        if self.made is not None:
            made = {
                **self.made._asdict(),
                "id": str(self.made.id),
                "propensity": _plain(self.made.propensity),
            }
            if self.made.prices is not None:
                made["prices"] = {
                    n: {a: _plain(p) for a, p in r.items()} for n, r in self.made.prices.items()
                }
        return {
            "sentence": self.sentence,
            "rule": self.rule,
            "passed_over": list(self.passed_over),
            "forced": self.forced,
            "arms": [one.to_dict() for one in self.arms],
            "decision": made,
        }


def explained(
    parts: RouterParts, request: Request, blocked: frozenset[str] = frozenset(), made: Made | None = None
) -> Explanation:
    """Return what every arm would be worth for a request; the lock must be held, nothing changes.

    Parameters
    ----------
    parts : RouterParts
    request : Request
        Its extras hold prices and mask by position, as `RequestPath` makes them.
    blocked : set of str
        Arms that the server does not load at the moment.
    made : Made, optional
        What is stored of the decision that the request was.

    Raises
    ------
    ValueError, TypeError
        What `Router.select` would raise for it.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> explained(Router(LinUCB(["a", "b"], 1, rng=0)).parts, Request(np.ones(1), 0))
    Explanation(best='a', propensity=0.5, arms=2)
    """
    policy, arms, extras = parts.policy, parts.arms, request.extras
    if extras is not None and extras.candidates is not None:
        return explained_candidates(parts, request, None, blocked, made)
    prices, mask, protected = None, None, False
    if extras is not None:
        prices, mask, protected = extras.prices, extras.eligible, extras.protected
    table = parts.table.shown(policy, request, prices, mask, arms.muted)
    rows = {name: row for name, row in table.rows.items() if name not in table.passed_over}
    rows["caller"] = policy.effective_prices(prices, None)
    closing = {"mask": policy.effective_prices(None, mask), "quarantine": np.where(arms.muted, inf, 0.0)}
    playable = policy.playable(request.x)
    if playable is not None:
        closing["policy"] = np.where(playable, 0.0, inf)
    mean, bonus = _believed(policy, request.x)
    chances, forced = _chances(parts, request.x, table.total, protected)
    resident = None if parts.residence is None else parts.residence.actual.mask
    reasons = {term.name: getattr(term, "reason", None) for term in parts.table.terms}
    found = []
    for a, name in enumerate(arms.names):
        own = {row: float(values[a]) for row, values in rows.items()}
        own |= {row: inf for row, values in closing.items() if values[a] == inf}
        found.append(
            ArmExplained(
                name,
                float(mean[a]),
                float(bonus[a]),
                own,
                float(mean[a]) + float(bonus[a]) - sum(own.values()),
                float(chances[a]),
                resident is None or bool(resident[a]),
                name in blocked,
                tuple(_reason(row, name, reasons.get(row)) for row, price in own.items() if price == inf),
            )
        )
    return Explanation(tuple(found), policy.rule, table.passed_over, forced, made)


def explained_candidates(
    parts: RouterParts,
    request: Request,
    own: Floats | None = None,
    blocked: frozenset[str] = frozenset(),
    made: Made | None = None,
) -> Explanation:
    """Return what every candidate of a request would be worth, in their order; as `explained`.

    ``own`` (m,) is what the caller charges each, infinite where it is masked.
    """
    policy = chooser(parts.policy)
    assert request.extras is not None
    assert request.extras.candidates is not None
    names, z = request.extras.candidates
    own = np.zeros(len(names)) if own is None else own
    places = policy.places(names)
    table = parts.table.of_candidates(request, places, own, parts.arms.muted, count=False)
    mean, bonus = policy.candidate_utilities(request.x, (names, z))
    chances = policy.candidate_propensities(request.x, (names, z), table.total)
    resident = None if parts.residence is None else parts.residence.actual.mask
    reasons = {term.name: getattr(term, "reason", None) for term in parts.table.terms}
    found = []
    for i, name in enumerate(names):
        charged = {row: float(values[i]) for row, values in table.rows.items()}
        if charged["quarantine"] == 0.0:
            del charged["quarantine"]
        if charged["caller"] == inf:
            charged["caller"], charged["mask"] = 0.0, inf
        arm = int(places[i])
        found.append(
            ArmExplained(
                name,
                float(mean[i]),
                float(bonus[i]),
                charged,
                float(mean[i]) + float(bonus[i]) - sum(charged.values()),
                float(chances[i]),
                resident is None or arm < 0 or bool(resident[arm]),
                name in blocked,
                tuple(_reason(row, name, reasons.get(row)) for row, price in charged.items() if price == inf),
            )
        )
    return Explanation(tuple(found), parts.policy.rule, table.passed_over, 0.0, made)


def stored(parts: RouterParts, decision_id: int | str) -> tuple[Request, Made]:
    """Return the request of a decision as far as it was kept, and what is stored of it; the lock must be held.

    Raises
    ------
    UnknownDecision
        It awaits no feedback here, and no listener has kept it with its context.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(["a", "b"], 1, rng=0))
    >>> decision = router.select([1.0])
    >>> stored(router.parts, decision.id)[1].arm == decision.arm
    True
    """
    key = decision_key(decision_id)
    kept = None
    for listener in parts.listeners.all:
        recall = getattr(listener, "recall", None)
        kept = kept or (None if recall is None else recall(key))
    prices = None if kept is None or kept.parts is None else recorded(kept.parts)
    reward = None if kept is None else kept.reward
    entry = parts.ledger.pending.get(key)
    given = None if kept is None else kept.candidates
    if entry is not None:
        request, policy = asked(entry, parts.policy), parts.policy
        if given is None and policy.candidate_size and not chooser(policy).knows(entry[0]):
            given = (entry[0],), entry[1][np.newaxis, policy.dim :]
        if given is not None:
            request = request._replace(extras=(request.extras or Extras())._replace(candidates=given))
        return request, Made(key, entry[0], entry[2], entry[3], entry[4], prices, reward)
    if kept is None or kept.context is None:
        raise UnknownDecision(
            "decision must await its feedback, or be kept with its context by a recorder, to be explained, "
            f"got {decision_id!r}"
        )
    was = kept.decision
    books = parts.books
    extras = None if given is None else Extras(candidates=given)
    request = Request(kept.context, books.index + books.others, extras, was.time)
    return request, Made(key, was.arm, was.propensity, was.time, None, prices, reward)


def recorded(parts: Parts) -> dict[str, dict[str, float]]:
    """Return the prices of a decision as a recorder kept them, by name of the term and of the arm.

    >>> recorded(Parts(("a", "b"), {"fault": np.array([0.0, 0.1])}))
    {'fault': {'a': 0.0, 'b': 0.1}}
    """
    return {name: dict(zip(parts.arms, row.tolist(), strict=True)) for name, row in parts.rows.items()}


def _believed(policy: Policy, x: Floats) -> tuple[Floats, Floats]:
    """Return mean and bonus of every arm: what the policy maximises, or else what it expects."""
    try:
        mean, bonus = policy.utilities(x[np.newaxis])
        return mean[0], bonus[0]
    except TypeError:  # it maximises nothing that it could tell
        pass
    try:
        mean = policy.scores(x).mean
    except TypeError:
        mean = np.full(len(policy.arms), np.nan)
    return mean, np.zeros(len(mean))


def _chances(parts: RouterParts, x: Floats, total: Floats, protected: bool) -> tuple[Floats, float]:
    """Return the probability of each arm, and the share of choices that the controller takes over."""
    open_ = np.isfinite(total)
    given = parts.policy.propensities(x, prices=np.where(open_, total, 0.0), eligible=open_)
    residence = parts.residence
    if residence is None or protected or parts.planning():
        return given, 0.0
    rate, needs = residence.controller.rate, residence.controller.needs
    if not rate > 0.0 or not needs[open_].sum() > 0.0:
        return given, 0.0
    shares = np.array([forced_share(needs, total, rate, a) for a in range(len(given))])
    return shares + (1.0 - rate) * given, float(rate)


# Words.


def _plain(number: float) -> float | None:
    return float(number) if isfinite(number) else None


def _rank(one: ArmExplained) -> tuple[float, float]:
    return one.propensity, -inf if isnan(one.index) else one.index


def _reason(row: str, arm: str, reason: Any) -> str:
    said = "" if reason is None else reason(arm)
    return f"{row}: {said}" if said else row


def _number(value: float) -> str:
    return f"{value + 0.0:.3g}"


def _row(one: ArmExplained, names: list[str]) -> list[str]:
    if one.closed:
        note = f"closed by {', '.join(one.closed)}"
    else:
        note = "" if one.resident else "not resident"
    if one.blocked:
        note = f"{note}, does not load" if note else "does not load"
    cells = [one.mean, one.bonus, *(one.prices[name] for name in names), one.index, one.propensity]
    return [one.arm, *("-" if isnan(v) else f"{v + 0.0:.4g}" for v in cells), note]


def _sum(one: ArmExplained) -> str:
    charged = {name: price for name, price in one.prices.items() if price}
    if isnan(one.mean):
        text = "the policy tells no mean"
    else:
        text = f"mean {_number(one.mean)} and bonus {_number(one.bonus)}"
    if charged:
        parts = ", ".join(f"{name} {_number(price)}" for name, price in charged.items())
        text += f" less {_number(sum(charged.values()))} ({parts})"
    return text if isnan(one.index) else f"{text} give {_number(one.index)}"


def _said(why: Explanation) -> list[str]:
    lines, made = [], why.made
    ranked = sorted(why.arms, key=_rank, reverse=True)
    if made is not None:
        answer = "" if made.reward is None else f" and earned {_number(made.reward)}"
        kept = (
            "its prices of then were kept" if made.prices is not None else "its prices of then were not kept"
        )
        chance = (
            "unknown probability" if isnan(made.propensity) else f"probability {_number(made.propensity)}"
        )
        lines.append(f"Decision {made.id} played {made.arm} with {chance}{answer}; {kept}.")
        lines.append("What follows is computed anew, as of now.")
    best = ranked[0]
    line = f"{best.arm} would be played with probability {_number(best.propensity)}: {_sum(best)}"
    others = [one for one in ranked[1:] if not one.closed]
    if others and not isnan(best.index):
        nearest = max(others, key=lambda one: one.index)
        gap = best.index - nearest.index
        where = "below" if gap > 0.0 else "above"
        line += (
            f"; {nearest.arm} is next, {_number(abs(gap))} {where}"
            if gap
            else f"; {nearest.arm} is worth as much"
        )
    lines.append(line + ("" if best.resident else "; it is not resident") + ".")
    closed = [one for one in why.arms if one.closed]
    if closed:
        named = ", ".join(f"{one.arm} ({', '.join(one.closed)})" for one in closed[:SHOWN])
        lines.append(f"Closed: {named}{', ...' if len(closed) > SHOWN else ''}.")
    if why.passed_over:
        lines.append(f"Passed over, for no arm would be left: {', '.join(why.passed_over)}.")
    if why.forced:
        lines.append(
            f"The controller takes over {100 * why.forced:.3g} % of the choices to learn about arms."
        )
    lines.append(f"The policy {why.rule}.")
    return lines
