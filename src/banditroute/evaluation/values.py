"""Off-policy evaluation: what a policy would have earned on the requests of a trace that another policy served."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from banditroute._core.typing import Floats
from banditroute.evaluation import estimators as e
from banditroute.evaluation.estimators import ESTIMATORS
from banditroute.evaluation.intervals import grouped, intervals, rows_needed
from banditroute.evaluation.learned import cross_fitted_policy, same_rewards, warning
from banditroute.evaluation.overlap import Target, known_propensities, target_array
from banditroute.evaluation.propensities import estimated_propensities
from banditroute.evaluation.question import LEARNING, UNANSWERED, Evaluation, Question
from banditroute.evaluation.reward_model import RewardModel, RewardSums
from banditroute.evaluation.sums import value_sums
from banditroute.logs import Trace
from banditroute.policies import Policy

__all__ = ["ESTIMATED", "Difference", "compare", "difference", "evaluate"]


@dataclass(frozen=True, slots=True)
class Difference:
    """What one rule would have earned more than another per request, paired row by row.

    ``value`` with its standard error and the ends of its interval, over so many ``rows``; ``notes`` say what to be wary
    of.

    Examples
    --------
    >>> Difference(0.1, 0.1, -0.1, 0.3, 1000, ()).rows_to_settle
    3842
    """

    value: float
    std_error: float
    low: float
    high: float
    rows: int
    notes: tuple[str, ...]

    @property
    def settled(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0.0 or self.high < 0.0

    @property
    def rows_to_settle(self) -> int | None:
        """Rows of a log like this one after which a 95 % interval would leave out 0, were the value as found.

        None where nothing was found to tell apart.
        """
        return rows_needed(self.rows, self.value, 1.96 * self.std_error)

    def __str__(self) -> str:
        rows = self.rows_to_settle
        more = "" if self.settled or rows is None else f"; about {rows:,} rows would settle it"
        return "\n".join([f"{self.value:+.4f}  [{self.low:+.4f}, {self.high:+.4f}]{more}", *self.notes])


def evaluate(trace: Trace, target: Target, **options: Any) -> Evaluation:
    """Estimate what a fixed rule would have earned per request.

    Parameters
    ----------
    trace : Trace
        Decisions with propensities; rows without a reward are left out and counted.
    target : str, int, array, mapping, frame, Policy or callable
        One arm for all, by name (or position); a mapping from names to probabilities; probabilities (k,) or (n, k), a
        frame of them with the names of arms as columns; the arm of each row, (n,) names or positions; a policy as it
        stands, which learns nothing here (`replay` lets it learn); or a function of the (n, d) contexts that returns
        any of these.
    **options
        As in `compare`.

    Returns
    -------
    Evaluation

    Raises
    ------
    ValueError, TypeError
        The log cannot answer the question, and why: see `compare`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> arms = rng.integers(2, size=1000)
    >>> trace = Trace(names=["a", "b"], arms=arms, rewards=0.2 + 0.6 * arms, propensities=np.full(1000, 0.5))
    >>> round(evaluate(trace, "b")["snips"].value, 6)
    0.8
    """
    return compare(trace, {"target": target}, **options)["target"]


def compare(
    trace: Trace,
    targets: Mapping[str, Target],
    *,
    estimators: Iterable[str] = ESTIMATORS,
    clip: float | None = None,
    ridge: float = 1.0,
    folds: int = 5,
    confidence: float = 0.95,
    min_ess: float = 20.0,
    cross_fit: bool | None = None,
    propensities: Literal["logged", "estimated"] = "logged",
    model: RewardModel | None = None,
) -> dict[str, Evaluation]:
    """Estimate what several fixed rules would have earned per request.

    Parameters
    ----------
    trace : Trace
    targets : mapping of name to target
        As in `evaluate`.
    estimators : iterable of str
        Of "ips", "clipped", "snips", "dm" (direct method), "dr" (doubly robust), "switch" (doubly robust up to the
        weight `clip`, the direct method beyond) and "shrunk" (doubly robust with weights shrunk towards `clip`).
    clip : float, optional
        Largest weight of the clipped estimator, and the limit of "switch" and "shrunk"; ``sqrt(n)`` when left out
        (Ionides 2008).
    ridge, folds : float, int
        As in `reward_model.cross_fit`.
    confidence : float
        Coverage of the intervals, in (0, 1).
    min_ess : float
        Smallest effective sample size that is answered, >= 0; a target that agrees with no row never is.
    cross_fit : bool, optional
        Whether a policy among the targets learned from this very log. Then each row is judged by a policy of the same
        settings that learned from the other folds. When left out it is done for policies that have learned exactly as
        many rewards of every arm as the log holds; a policy that has learned others gets a note. False takes
        policies as they stand.
    propensities : "logged" or "estimated"
        Estimated ones come from the log itself, see `estimated_propensities`; a note says so.
    model : RewardModel, optional
        Of the rows with a reward, where it was fitted before.

    Returns
    -------
    dict of str to Evaluation

    Raises
    ------
    ValueError
        Propensities are missing, zero or above 1; the target plays an arm that was never logged, was not eligible or
        could not have been chosen; a propensity is so small that its weight is above 1e100; the effective sample size
        is below `min_ess`, or 0; a policy that was to be cross-fitted cannot be started afresh.

    Notes
    -----
    Intervals are Student's, corrected for skewness (`intervals.intervals`), and hold for rows that are independent
    given the logging rule. The log of a policy that was learning is not of that kind: its intervals are nominal, and a
    note says so. The direct method is a model's guess: the spread of its predictions leaves out its bias. A million
    rows with 33 context components take about 3 s on one core.

    Examples
    --------
    >>> trace = Trace(names=["a", "b"], arms=[0, 1] * 50, rewards=[1.0, 0.0] * 50, propensities=[0.5] * 100)
    >>> {name: found["ips"].value for name, found in compare(trace, {"a": "a", "even": [0.5, 0.5]}).items()}
    {'a': 1.0, 'even': 0.5}
    """
    ask = Question.of(estimators, clip=clip, ridge=ridge, folds=folds, confidence=confidence, min_ess=min_ess)
    log, notes = _answerable(trace, targets, ask, propensities)
    arrays, said = _arrays(log, targets, ask.folds, cross_fit)
    expected, about_columns = _expected(log, ask, model)
    limit = ask.limit(len(log))
    sums = value_sums(log, known_propensities(log), arrays, ask.estimators, limit, expected=expected)
    around = [*about_columns, *_about_rows(trace, log), *notes]
    return ask.answers(sums, len(trace) - len(log), around, said)


def difference(
    trace: Trace,
    target: Target,
    baseline: Target | None = None,
    *,
    estimator: str = "dr",
    model: RewardModel | None = None,
    **options: Any,
) -> Difference:
    """Estimate what one rule would have earned more than another, or than the log did, paired row by row.

    Parameters
    ----------
    trace : Trace
    target, baseline : as in `evaluate`
        Without a baseline the log itself: what was decided and earned.
    estimator : str
        As in `compare`.
    model : RewardModel, optional
        As in `compare`.
    **options
        As in `compare`.

    Returns
    -------
    Difference
        Its interval is narrower than those of the two values, for both rest on the same rows.

    Raises
    ------
    ValueError, TypeError
        As `compare`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> arms = rng.integers(2, size=1000)
    >>> trace = Trace(names=["a", "b"], arms=arms, rewards=0.2 + 0.6 * arms, propensities=np.full(1000, 0.5))
    >>> gap = difference(trace, "b", "a")
    >>> round(gap.value, 3), gap.settled
    (0.6, True)
    """
    cross_fit, kind = options.pop("cross_fit", None), options.pop("propensities", "logged")
    ask = Question.of([estimator], **options)
    targets: dict[str, Target] = {"target": target} | ({} if baseline is None else {"baseline": baseline})
    log, notes = _answerable(trace, targets, ask, kind)
    arrays, said = _arrays(log, targets, ask.folds, cross_fit)
    expected, about_columns = _expected(log, ask, model)
    own, limit = known_propensities(log), ask.limit(len(log))
    sums = value_sums(log, own, arrays, ask.estimators, limit, expected=expected)
    ask.check_weights(sums)
    terms = []
    for array in arrays.values():
        fit = None if expected is None else e.fit_of(expected, log.arms, array)
        terms.append(e.term(estimator, log.rewards, e.importance(log.arms, own, array), limit, fit))
    other = terms[1] if len(terms) == 2 else e.Term(log.rewards, np.ones(len(log)))
    ends = intervals(grouped([terms[0].less(other)]), ask.level)
    told = [
        *about_columns,
        *_about_rows(trace, log),
        *notes,
        *(n for own_notes in said.values() for n in own_notes),
    ]
    value, error, low, high = (float(one[0]) for one in ends)
    return Difference(value, error, low, high, len(log), tuple(dict.fromkeys(told)))


def _answerable(
    trace: Trace, targets: Mapping[str, Target], ask: Question, propensities: str
) -> tuple[Trace, tuple[str, ...]]:
    """Return the rows with a reward, with the propensities that were asked for, and what is to be said of these."""
    if not isinstance(trace, Trace):
        way = "Trace.from_frame reads a frame" if hasattr(trace, "columns") else "Trace.load reads a file"
        got = type(trace).__name__ if hasattr(trace, "columns") else f"{trace!r:.80}"
        raise TypeError(f"trace must be a Trace ({way}), got {got}")
    if not targets:
        raise ValueError("targets must name at least one target, got none")
    if propensities not in ("logged", "estimated"):
        raise ValueError(f"propensities must be 'logged' or 'estimated', got {propensities!r}")
    log = trace.answered()
    if len(log) < ask.folds:
        raise ValueError(f"trace must hold at least {ask.folds} rows with a reward, got {len(log)}")
    if propensities == "logged":
        known_propensities(log)
        return log, ()
    return estimated_propensities(log, folds=ask.folds), (ESTIMATED,)


ESTIMATED = (
    "The propensities are estimated from the log, nobody recorded them: what the logging rule looked at beside the "
    "contexts biases every value here, and intervals leave that out."
)


def _arrays(
    log: Trace, targets: Mapping[str, Target], folds: int, cross_fit: bool | None
) -> tuple[dict[str, NDArray[Any]], dict[str, tuple[str, ...]]]:
    """Return targets as arrays, policies that learned from this log cross-fitted, and what is to be said of them."""
    arrays: dict[str, NDArray[Any]] = {}
    said: dict[str, tuple[str, ...]] = {}
    for name, target in targets.items():
        if not isinstance(target, Policy) or cross_fit is False:
            arrays[name] = target_array(log, target)
            continue
        refit = None
        if cross_fit or same_rewards(target, log):
            refit = cross_fitted_policy(target, log, folds)
            if refit is None and cross_fit:
                raise ValueError(
                    f"{name}: cross_fit needs a policy that can be started afresh, got {type(target).__name__}"
                )
        if refit is not None:
            said[name] = (
                f"The policy learned from this log: each row was judged by one of its settings that learned from the "
                f"other {folds - 1} of {folds} folds (cross_fit=False takes it as it stands, which is optimistic).",
            )
        elif told := warning(target, log):
            said[name] = (told,)
        arrays[name] = target_array(log, target) if refit is None else refit
    return arrays, said


def _expected(log: Trace, ask: Question, model: RewardModel | None) -> tuple[Floats | None, tuple[str, ...]]:
    """Return expected rewards of every arm on every row where an estimator needs them, and what to say of columns."""
    if not ask.modelled:
        return None, ()
    table = np.zeros((len(log), 0)) if log.contexts is None else log.contexts
    if model is not None:
        return model.expected(table), model.columns.words()
    sums = RewardSums.of(table, log.arms, log.rewards, len(log.names), ask.folds)
    return sums.solved(ask.ridge).expected(table), sums.words()


def _about_rows(trace: Trace, log: Trace) -> list[str]:
    notes = []
    if log.versions is not None and log.versions.min() != log.versions.max():
        notes.append(LEARNING)
    if again := trace.repeated():
        notes.append(f"{again} rows have the id of an earlier one and count again: were logs merged twice?")
    if len(log) < len(trace):
        notes.append(f"{len(trace) - len(log)} rows {UNANSWERED}")
    return notes
