"""Off-policy evaluation: what a policy would have earned on the requests of a trace that another policy served."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Rng
from banditroute.evaluation import estimators as e
from banditroute.evaluation.overlap import Target, check_overlap, known_propensities, target_array
from banditroute.evaluation.replays import Replay, replay
from banditroute.logs import Trace

__all__ = ["ESTIMATORS", "Estimate", "Evaluation", "Replay", "compare", "evaluate", "replay"]

ESTIMATORS = ("ips", "clipped", "snips", "dm", "dr")
HEAVIEST = 1e100  # a weight; beyond, variances leave the range of a float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value per request, its standard error, and the ends of its bootstrap interval.

    Examples
    --------
    >>> Estimate(0.5, 0.1, 0.3, 0.7).value
    0.5
    """

    value: float
    std_error: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Estimates of one target by estimator name, and how far the log bears on that target.

    ``rows`` with a reward were used, ``unanswered`` were not. ``ess`` is the effective sample size
    ``(sum w)^2 / sum w^2``; ``mean_weight`` is 1 up to noise when the propensities are right; ``zero_share`` of the
    rows weigh nothing; ``clip`` is the limit of the clipped estimator and ``clipped_mass`` the share of the weight it
    cut. ``notes`` say in words what to be wary of.

    Examples
    --------
    >>> trace = Trace(names=["a", "b"], arms=[0, 1] * 50, rewards=[1.0, 0.0] * 50, propensities=[0.5] * 100)
    >>> found = evaluate(trace, "a")
    >>> found["dr"].value, found.ess
    (1.0, 50.0)
    """

    estimates: dict[str, Estimate]
    rows: int
    unanswered: int
    ess: float
    mean_weight: float
    max_weight: float
    zero_share: float
    clip: float
    clipped_mass: float
    notes: tuple[str, ...]

    def __getitem__(self, name: str) -> Estimate:
        return self.estimates[name]

    def __str__(self) -> str:
        lines = [
            f"{name:8s} {one.value:9.4f}  [{one.low:.4f}, {one.high:.4f}]"
            for name, one in self.estimates.items()
        ]
        lines.append(
            f"{self.rows} rows, effective {self.ess:.0f}; weights: mean {self.mean_weight:.3f}, "
            f"largest {self.max_weight:.1f}, zero {self.zero_share:.1%}, clipped {self.clipped_mass:.1%}"
        )
        return "\n".join([*lines, *self.notes])


def evaluate(trace: Trace, target: Target, **options: Any) -> Evaluation:
    """Estimate what a fixed rule would have earned per request.

    Parameters
    ----------
    trace : Trace
        Decisions with propensities; rows without a reward are left out and counted.
    target : str, int, array, Policy or callable
        One arm for all; probabilities (k,) or (n, k); the arm of each row, (n,) integers; a policy as it stands, which
        learns nothing here (`replay` lets it learn); or a function of the (n, d) contexts that returns such an array.
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
    draws: int = 1000,
    min_ess: float = 20.0,
    rng: Rng = 0,
) -> dict[str, Evaluation]:
    """Estimate what several fixed rules would have earned per request, on the same resamples of the rows.

    Parameters
    ----------
    trace : Trace
    targets : mapping of name to target
        As in `evaluate`.
    estimators : iterable of str
        Of "ips", "clipped", "snips", "dm" (direct method) and "dr" (doubly robust).
    clip : float, optional
        Largest weight of the clipped estimator; ``sqrt(n)`` when left out (Ionides 2008).
    ridge, folds : float, int
        As in `estimators.cross_fit`.
    confidence : float
        Coverage of the percentile intervals, in (0, 1).
    draws : int
        Bootstrap resamples.
    min_ess : float
        Smallest effective sample size that is answered, >= 0.
    rng : seed or Generator
        Of the bootstrap.

    Returns
    -------
    dict of str to Evaluation

    Raises
    ------
    ValueError
        Propensities are missing, zero or above 1; the target plays an arm that was never logged, was not eligible or
        could not have been chosen; a propensity is so small that its weight is above 1e100; or the effective sample
        size is below `min_ess`.

    Notes
    -----
    Intervals hold for rows that are independent given the logging rule. A log of a policy that was learning is not of
    that kind: its intervals are nominal, and a note says so. The interval of the direct method leaves out the bias of
    its fit. A million rows with 33 context components take about 3 s on one core.

    Examples
    --------
    >>> trace = Trace(names=["a", "b"], arms=[0, 1] * 50, rewards=[1.0, 0.0] * 50, propensities=[0.5] * 100)
    >>> {name: found["ips"].value for name, found in compare(trace, {"a": "a", "even": [0.5, 0.5]}).items()}
    {'a': 1.0, 'even': 0.5}
    """
    wanted = tuple(estimators)
    unknown = [name for name in wanted if name not in ESTIMATORS]
    if unknown or not wanted:
        raise ValueError(f"estimators must be of {ESTIMATORS}, got {wanted}")
    if not isinstance(trace, Trace):
        raise TypeError(f"trace must be a Trace (Trace.load reads a file), got {trace!r:.80}")
    if not targets:
        raise ValueError("targets must name at least one target, got none")
    level = check.finite("confidence", confidence, low=0.0, high=1.0, open_low=True)
    if level == 1.0:
        raise ValueError("confidence must be in (0, 1), got 1: resamples have no interval that is sure")
    fewest = check.finite("min_ess", min_ess, low=0.0)
    check.integer("draws", draws, low=2)
    ridge = check.finite("ridge", ridge, low=0.0, open_low=True)
    folds = check.integer("folds", folds, low=2)
    log = trace.answered()
    if len(log) < folds:
        raise ValueError(f"trace must hold at least {folds} rows with a reward, got {len(log)}")
    propensities = known_propensities(log)
    resolved = {name: target_array(log, target) for name, target in targets.items()}
    weights = {}
    for name, target in resolved.items():
        check_overlap(log, propensities, target, name)
        weights[name] = e.importance(log.arms, propensities, target)
        top = int(weights[name].argmax())
        if not weights[name][top] <= HEAVIEST:
            raise ValueError(
                f"{name}: weights must be at most {HEAVIEST:g}, got {weights[name][top]:g} at row {top}, whose "
                f"propensity is {propensities[top]:g}"
            )
        size = e.effective_size(weights[name])
        if not size >= fewest:
            raise ValueError(
                f"{name}: the effective sample size must be at least {fewest:g}, got {size:.1f} of {len(log)} rows: "
                "the log hardly ever did what the target does"
            )
    fits: list[e.Fit] = []
    if {"dm", "dr"} & set(wanted):
        fits = e.cross_fit(
            log.contexts,
            log.arms,
            log.rewards,
            list(resolved.values()),
            len(log.names),
            ridge=ridge,
            folds=folds,
        )
    limit = float(np.sqrt(len(log))) if clip is None else check.finite("clip", clip, low=0.0, open_low=True)
    tails = [(1.0 - level) / 2.0, (1.0 + level) / 2.0]
    values, sums = {}, []
    for i, (name, w) in enumerate(weights.items()):
        terms = [_term(one, log.rewards, w, limit, fits[i] if fits else None) for one in wanted]
        values[name] = [(term.value, term.std_error) for term in terms]
        sums += [e.grouped(term) for term in terms]
    drawn = e.resample(np.stack(sums, axis=1), len(log), draws, np.random.default_rng(rng))
    ends = np.quantile(drawn, tails, axis=0).T.reshape(len(weights), len(wanted), 2)
    found = {}
    for (name, w), spread in zip(weights.items(), ends.tolist(), strict=True):
        found[name] = Evaluation(
            {
                one: Estimate(value, error, value + low, value + high)
                for one, (value, error), (low, high) in zip(wanted, values[name], spread, strict=True)
            },
            rows=len(log),
            unanswered=len(trace) - len(log),
            ess=e.effective_size(w),
            mean_weight=float(w.mean()),
            max_weight=float(w.max()),
            zero_share=float(np.mean(w == 0.0)),
            clip=limit,
            clipped_mass=float(np.maximum(w - limit, 0.0).sum() / w.sum()),
            notes=_notes(trace, log, w),
        )
    return found


def _term(name: str, rewards: Floats, weights: Floats, limit: float, fit: e.Fit | None) -> e.Term:
    if name == "ips":
        return e.ips(rewards, weights)
    if name == "clipped":
        return e.clipped(rewards, weights, limit)
    if name == "snips":
        return e.snips(rewards, weights)
    assert fit is not None
    return e.direct(fit) if name == "dm" else e.doubly_robust(rewards, weights, fit)


def _notes(trace: Trace, log: Trace, weights: Floats) -> tuple[str, ...]:
    notes = []
    off = abs(weights.mean() - 1.0) / (weights.std() / np.sqrt(len(weights)) + 1e-12)
    if off > 4.0 and abs(weights.mean() - 1.0) > 1e-9:
        notes.append(f"The mean weight is {weights.mean():.3f}, {off:.0f} standard errors from 1: "
                     "the propensities are not those of the decisions.")  # fmt: skip
    if weights.max() > 0.05 * weights.sum():
        notes.append(f"One row carries {weights.max() / weights.sum():.0%} of the weight.")
    if log.versions is not None and log.versions.min() != log.versions.max():
        notes.append(
            "The log is that of a learning policy: rows depend on each other, intervals are nominal."
        )
    if again := trace.repeated():
        notes.append(f"{again} rows have the id of an earlier one and count again: were logs merged twice?")
    if len(log) < len(trace):
        notes.append(
            f"{len(trace) - len(log)} rows without a reward were left out, as if they were missing at random."
        )
    return tuple(notes)
