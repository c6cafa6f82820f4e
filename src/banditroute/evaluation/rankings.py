"""What other lists would have earned, from lists that were logged with the probability of each place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Ints
from banditroute.evaluation.estimators import Term, effective_size
from banditroute.evaluation.intervals import grouped, intervals
from banditroute.evaluation.question import Estimate, Evaluation
from banditroute.logs import Trace
from banditroute.policies import Policy
from banditroute.records import Ranking
from banditroute.router.lists import chances, open_places, place_id

__all__ = ["ListTarget", "Lists", "evaluate_lists"]

ListTarget = Policy | Sequence[str] | Sequence[Sequence[str]] | tuple[ArrayLike, ArrayLike]
Clicks = Literal["places", "cascade", "lists"]


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists that were shown, with what each place earned and the probabilities it was chosen with.

    Parameters
    ----------
    names : sequence of str
    arms : (n, k) int array
        Positions among the names, best place first; -1 beyond the end of a shorter list.
    rewards : (n, k) array
        Not a number where a place had no answer: it earned nothing then. Lists without any answer are left out.
    propensities : (n, k) array
        Of each arm at its place, `Ranking.propensities`.
    prefixes : (n, k) array, optional
        Of each list down to there, `Ranking.prefixes`.
    contexts : (n, d) array, optional
        For targets that read them.

    Examples
    --------
    >>> Lists(["a", "b"], [[1, 0]], [[1.0, 0.0]], [[0.5, 0.5]]).arms.shape
    (1, 2)
    """

    names: tuple[str, ...]
    arms: Ints
    rewards: Floats
    propensities: Floats
    prefixes: Floats | None = None
    contexts: Floats | None = None

    def __post_init__(self) -> None:
        """Check everything and take copies."""
        put = object.__setattr__
        put(self, "names", check.names("names", self.names))
        arms: NDArray[Any] = np.asarray(self.arms)
        if arms.ndim != 2 or arms.dtype.kind not in "iu" or not arms.size:
            raise ValueError(f"arms must be (n, k) positions, got {arms.dtype} of shape {arms.shape}")
        if arms.min() < -1 or arms.max() >= len(self.names):
            raise ValueError(f"arms must be in [-1, {len(self.names) - 1}], got {arms.min()} .. {arms.max()}")
        put(self, "arms", arms.astype(np.int64))
        shown = self.arms >= 0
        if not shown[:, 0].all() or (np.diff(shown.astype(int), axis=1) > 0).any():
            raise ValueError("arms must have -1 at the end of a list only, got it before an arm")
        rewards = np.array(self.rewards, dtype=np.float64)
        if rewards.shape != arms.shape or np.isinf(rewards).any():
            raise ValueError(
                f"rewards must be {arms.shape} numbers, NaN where there is none, got {rewards.shape}"
            )
        put(self, "rewards", rewards)
        for field in ("propensities", "prefixes"):
            given = getattr(self, field)
            if given is None and field == "prefixes":
                continue
            chance = np.array(given, dtype=np.float64)
            if chance.shape != arms.shape or not ((chance > 0.0) & (chance <= 1.0 + 1e-9))[shown].all():
                raise ValueError(f"{field} must be {arms.shape} numbers in (0, 1], got {check.shown(given)}")
            chance[~shown] = 1.0
            put(self, field, chance)
        if self.contexts is not None:
            put(self, "contexts", check.matrix("contexts", self.contexts, rows=len(arms)))

    def __len__(self) -> int:
        return len(self.arms)

    @classmethod
    def of(
        cls,
        shown: Sequence[Ranking],
        rewards: Sequence[Sequence[float | None]],
        contexts: ArrayLike | None = None,
    ) -> Self:
        """Return what a Router has shown, with a reward for each place, None where there was no answer.

        Examples
        --------
        >>> from banditroute import LinUCB, Router
        >>> router = Router(LinUCB(["a", "b", "c"], 1, mix=0.5, rng=0))
        >>> shown = [router.select([1.0], k=2) for _ in range(3)]
        >>> len(Lists.of(shown, [[1.0, 0.0]] * 3))
        3
        """
        if not shown or len(rewards) != len(shown):
            raise ValueError(f"rewards must be of each of {len(shown)} lists, got {len(rewards)}")
        if any(len(one.arms) != len(earned) for one, earned in zip(shown, rewards, strict=True)):
            raise ValueError("rewards must hold one for each place of a list, got another number")
        names = tuple(dict.fromkeys(arm for one in shown for arm in one.arms))
        place = {name: i for i, name in enumerate(names)}
        most = max(len(one.arms) for one in shown)

        def table(rows: Sequence[Sequence[Any]], blank: float) -> Floats:
            return np.array([[*row, *[blank] * (most - len(row))] for row in rows], dtype=np.float64)

        return cls(
            names,
            table([[place[arm] for arm in one.arms] for one in shown], -1.0).astype(np.int64),
            table(rewards, np.nan),
            table([one.propensities for one in shown], 1.0),
            table([one.prefixes for one in shown], 1.0),
            None if contexts is None else check.matrix("contexts", contexts),
        )

    @classmethod
    def from_trace(cls, trace: Trace) -> Self:
        """Return the lists of a trace that a `Recorder` wrote, told by their ids; single decisions are lists of one.

        A trace holds no `prefixes`.

        Examples
        --------
        >>> from banditroute import LinUCB, Recorder, Router
        >>> recorder = Recorder()
        >>> router = Router(LinUCB(["a", "b", "c"], 1, mix=0.5, rng=0), recorder=recorder)
        >>> for _ in range(4):
        ...     learned = router.update(router.select([1.0], k=3).id, [1.0, 0.0, 0.0])
        >>> Lists.from_trace(recorder.trace()).arms.shape
        (4, 3)
        """
        if trace.ids is None or trace.propensities is None:
            raise ValueError("trace must hold ids and propensities, got none")
        at = {int(key): row for row, key in enumerate(trace.ids)}
        rest = set(at)
        rows: list[list[int]] = []
        for key in at:
            if key in rest:  # places stand behind the first
                found = [key]
                while (one := place_id(key, len(found)) if key < 1 << 63 else -1) in rest:
                    found.append(one)
                rest.difference_update(found)
                rows.append([at[one] for one in found])
        most = max(map(len, rows), default=0)
        places = np.array([[*row, *[-1] * (most - len(row))] for row in rows], dtype=np.int64)
        shown = places >= 0
        return cls(
            trace.names,
            np.where(shown, trace.arms[places], -1),
            np.where(shown, trace.rewards[places], np.nan),
            np.where(shown, trace.propensities[places], 1.0),
            None,
            None if trace.contexts is None else trace.contexts[places[:, 0]],
        )


def evaluate_lists(
    lists: Lists,
    target: ListTarget,
    *,
    clicks: Clicks = "places",
    confidence: float = 0.95,
    min_ess: float = 20.0,
) -> Evaluation:
    """Estimate what other lists would have earned per request, all places together.

    Parameters
    ----------
    lists : Lists
        As they were shown.
    target : sequence of str, of lists of str, Policy, or pair of (n, k) arrays
        One list for all requests, a list for each, a policy as it stands (with `contexts`; it shows lists as
        ``Router.select(x, k=)`` does), or what the target would have shown each logged arm at its place with, and each
        logged list down to there: a pair like `propensities` and `prefixes`.
    clicks : {"places", "cascade", "lists"}
        What the reward of a place depends on: arm and place alone; also what stands above it; or the whole list. The
        less is assumed, the wider the interval. The last two need `prefixes`.
    confidence, min_ess
        As in `compare`.

    Returns
    -------
    Evaluation
        Estimates ``ips`` and ``snips``, normalised place by place; weights are those of places with the least
        effective sample size.

    Raises
    ------
    ValueError, TypeError
        The lists cannot answer the question, and why.

    Notes
    -----
    Source: ``places`` is independent IPS of Li, Abbasi-Yadkori, Kveton, Muthukrishnan, Vinay and Wen, "Offline
    evaluation of ranking policies with click models" (KDD 2018, item-position model); ``cascade`` is RIPS of McInerney,
    Brost, Chandar, Mehrotra and Carterette, "Counterfactual evaluation of slate recommendations with sequential reward
    interactions" (KDD 2020); ``lists`` is plain IPS on the whole list. IPS is unbiased where its assumption holds and
    the log could have shown what the target shows: a Router explores one place of a list, so at each place what is
    within one step of its own order. A note says where the mean weight tells that it could not.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router, worth = Router(LinUCB(["a", "b", "c"], 1, mix=1.0, rng=0)), {"a": 0.2, "b": 0.5, "c": 0.9}
    >>> shown = [router.select([1.0], k=2) for _ in range(2000)]
    >>> log = Lists.of(shown, [[worth[arm] for arm in one.arms] for one in shown])
    >>> round(evaluate_lists(log, ["c", "b"])["snips"].value, 6)
    1.4
    """
    if clicks not in ("places", "cascade", "lists"):
        raise ValueError(f"clicks must be places, cascade or lists, got {check.shown(clicks)}")
    level = check.finite("confidence", confidence, low=0.0, high=1.0, open_low=True)
    if level == 1.0:
        raise ValueError("confidence must be in (0, 1), got 1: resamples have no interval that is sure")
    logged = lists.propensities if clicks == "places" else lists.prefixes
    if logged is None:
        raise ValueError(f"lists must hold prefixes where clicks={clicks!r}, got none")
    marginal, prefix = _target(lists, target)
    wanted = marginal if clicks == "places" else prefix
    shown = lists.arms >= 0
    weights = np.where(shown, wanted / logged, 0.0)
    if clicks == "lists":
        last = shown.sum(axis=1) - 1
        weights = np.where(shown, weights[np.arange(len(lists)), last][:, None], 0.0)
    answered = (~np.isnan(lists.rewards)).any(axis=1)
    weights, shown = weights[answered], shown[answered]
    if not len(weights):
        raise ValueError("lists must hold a reward, got none")
    rewards = np.nan_to_num(lists.rewards[answered])
    return _valued(
        weights, rewards, shown, int((~answered).sum()),
        level, check.finite("min_ess", min_ess, low=0.0),
    )  # fmt: skip


def _valued(
    weights: Floats,
    rewards: Floats,
    shown: NDArray[np.bool_],
    unanswered: int,
    level: float,
    fewest: float,
) -> Evaluation:
    """Return both estimates of weighted rewards, (n, k)."""
    rows = len(weights)
    sizes = [effective_size(column) if column.any() else 0.0 for column in weights.T]
    at = int(np.argmin(sizes))
    if not sizes[at] >= fewest or sizes[at] == 0.0:
        raise ValueError(
            f"target: the effective sample size must be at least {fewest:g} at every place, got {sizes[at]:.1f} of "
            f"{rows} lists at place {at + 1}: the log hardly ever showed there what the target shows"
        )
    plain = (weights * rewards).sum(axis=1)
    one_each = [Term(w * r, w) for w, r in zip(weights.T, rewards.T, strict=True)]
    normal = sum(term.value * share for term, share in zip(one_each, shown.mean(axis=0), strict=True))
    pull = sum(
        term.influence * share for term, share in zip(one_each, shown.mean(axis=0), strict=True)
    )  # to first order
    terms = [Term(plain, np.ones(rows)), Term(normal + pull, np.ones(rows))]
    ends = intervals(grouped(terms), level)
    found = {
        name: Estimate(*(float(end[i]) for end in (ends.value, ends.std_error, ends.low, ends.high)))
        for i, name in enumerate(("ips", "snips"))
    }
    w = weights[:, at]
    off = abs(w.mean() - shown[:, at].mean()) / (w.std() / np.sqrt(rows) + 1e-12)
    notes = []
    if off > 4.0:
        notes.append(
            f"The mean weight at place {at + 1} is {w.mean():.3f}, {min(off, 999):.0f} standard errors from "
            f"{shown[:, at].mean():.3f}: the target shows what the log cannot, or the propensities are wrong."
        )
    if unanswered:
        notes.append(f"{unanswered} lists without a reward were left out, as if they were missing at random.")
    return Evaluation(
        found, rows, unanswered, float(sizes[at]), float(w.mean()), float(w.max()), float((w == 0.0).mean()),
        float("inf"), 0.0, tuple(notes),
    )  # fmt: skip


def _target(lists: Lists, target: ListTarget) -> tuple[Floats, Floats]:
    """Return the probability that the target shows each logged arm at its place, and each list down to there."""
    shape = lists.arms.shape
    if isinstance(target, Policy):
        return _of_policy(lists, target)
    if isinstance(target, tuple) and len(target) == 2 and not isinstance(target[0], str):
        found = []
        for name, given in zip(("marginal", "prefix"), target, strict=True):
            array = np.asarray(given, dtype=np.float64)
            if array.shape != shape or not ((array >= 0.0) & (array <= 1.0 + 1e-9)).all():
                raise ValueError(f"target must hold {shape} probabilities, got {name} of shape {array.shape}")
            found.append(array)
        return found[0], found[1]
    rows: list[Any] = list(target)
    if not rows:
        raise ValueError("target must show an arm, got none")
    if all(isinstance(one, str) for one in rows):
        rows = [rows]
    if len(rows) not in (1, len(lists)):
        raise ValueError(f"target must be one list or {len(lists)} lists, got {len(rows)}")
    place = {name: i for i, name in enumerate(lists.names)}
    table = np.full((len(rows), shape[1]), -1, dtype=np.int64)
    for i, row in enumerate(rows):
        if isinstance(row, str) or len(set(row)) != len(row) or len(row) < shape[1]:
            raise ValueError(
                f"target must be lists of at least {shape[1]} arms, each once, got {check.shown(row)}"
            )
        for j, arm in enumerate(row[: shape[1]]):
            if arm not in place:
                raise ValueError(f"target must be of arms that were shown, got {check.shown(arm)}")
            table[i, j] = place[arm]
    same = table == lists.arms
    return same.astype(float), np.logical_and.accumulate(same, axis=1).astype(float)


def _of_policy(lists: Lists, policy: Policy) -> tuple[Floats, Floats]:
    """Return what a policy would have shown each list with, one place explored."""
    if lists.contexts is None:
        raise ValueError("lists must hold contexts to evaluate a policy, got none")
    if not set(lists.names) <= set(policy.arms):
        raise ValueError(f"policy must have the arms of the lists, {lists.names}, got {policy.arms}")
    own = np.array([policy.positions[name] for name in lists.names])
    marginal, prefix = np.zeros(lists.arms.shape), np.zeros(lists.arms.shape)
    for row, (x, arms) in enumerate(zip(lists.contexts, lists.arms, strict=True)):
        playable = policy.playable(x)
        offers = np.zeros(len(policy.arms)) if playable is None else np.where(playable, 0.0, np.inf)

        def law(left: Floats, x: Floats = x) -> Floats:
            allowed = np.isfinite(left)
            return policy.propensities(x, prices=np.where(allowed, left, 0.0), eligible=allowed)

        chosen = own[arms[arms >= 0]].tolist()
        order, laws = open_places(policy.utilities(x[np.newaxis]).mean[0], offers, len(chosen), law)
        marginal[row, : len(chosen)], prefix[row, : len(chosen)] = chances(order, laws, chosen)
    return marginal, prefix
