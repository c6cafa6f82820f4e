"""The numbers of a report on a trace: what is in it, what it can answer, and what other rules would have earned."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.evaluation import estimators as e
from banditroute.evaluation.diagnosis import diagnose
from banditroute.evaluation.faults import fault_price, scale_note
from banditroute.evaluation.forecasting import Forecasts, forecasts
from banditroute.evaluation.overlap import as_target, check_overlap, known_propensities
from banditroute.evaluation.propensities import estimated_propensities
from banditroute.evaluation.reward_model import RewardModel, RewardSums
from banditroute.evaluation.sums import HEAVIEST
from banditroute.evaluation.values import ESTIMATED, compare, difference
from banditroute.logs import Trace
from banditroute.policies import LinUCB

__all__ = ["Report", "report"]

FEWEST = 50  # rows with a reward: below, no number of a report means anything
FIXED = 12  # arms that are valued as rules of their own, the busiest
RECENT = 50_000  # rows, the last ones, for what is computed request by request
MIN_ESS = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """What `report` found: ``numbers``, plain data ready for JSON, and the columns that its pictures need.

    Examples
    --------
    >>> Report({"log": {"rows": 3}}, Trace(names=["a"], arms=[0], rewards=[1.0]), {}, None).numbers["log"]["rows"]
    3
    """

    numbers: dict[str, Any]
    trace: Trace
    weights: dict[str, Floats]
    forecasts: Forecasts | None


def report(
    trace: Trace,
    *,
    fault: float | None = None,
    window: int = 500,
    rewards: ArrayLike | None = None,
    propensities: Literal["logged", "estimated"] = "logged",
    progress: Callable[[str], object] = str,
) -> Report:
    """Look at a trace from all sides.

    Parameters
    ----------
    trace : Trace
        At least 50 rows with a reward. What it lacks (propensities, contexts, hits, latencies) the report does without
        and says so.
    fault : float, optional
        Price of a fault, reward units, >= 0; the mean price of the faults in the trace, or else 0.05, when left out.
    window : int
        Requests per epoch in mind, for the diagnosis of residency.
    rewards : (n, k) array, optional
        Rewards of all arms where they are known, as for a log drawn from a matrix: true values are then given too.
    propensities : "logged" or "estimated"
        As in `compare`; a note says so.
    progress : callable
        Is told the name of each step before it is taken.

    Returns
    -------
    Report

    Raises
    ------
    ValueError
        Too few rows.

    Notes
    -----
    Candidates are each of the 12 busiest arms alone, uniform choice, and the greedy rule of `expected_rewards`, which
    learned from the other four fifths of the rows. Their gains over the log are doubly robust and paired by row; the
    intervals are widened (Bonferroni) so that all hold at once with 95 %.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> arms = rng.integers(2, size=400)
    >>> trace = Trace(names=["a", "b"], arms=arms, rewards=0.2 + 0.6 * arms, propensities=np.full(400, 0.5))
    >>> found = report(trace).numbers
    >>> found["candidates"][0]["name"], round(found["candidates"][0]["dr"]["value"], 3)
    ('always b', 0.8)
    """
    known = ~np.isnan(trace.rewards)
    log = trace.answered()
    if len(log) < FEWEST:
        raise ValueError(f"trace must hold at least {FEWEST} rows with a reward for a report, got {len(log)}")
    price = None if fault is None else check.finite("fault", fault, low=0.0)
    truth = None if rewards is None else check.matrix("rewards", rewards, len(trace.names), len(trace))[known]
    if propensities not in ("logged", "estimated"):
        raise ValueError(f"propensities must be 'logged' or 'estimated', got {propensities!r}")
    said = [*getattr(trace, "notes", ())]
    if propensities == "estimated":
        log = estimated_propensities(log)
        said.append(ESTIMATED)
    progress("the log")
    numbers: dict[str, Any] = {"log": _log(trace, log), "arms": _arms(trace), "support": _support(log)}
    progress("expected rewards")
    table = np.zeros((len(log), 0)) if log.contexts is None else log.contexts
    sums = RewardSums.of(table, log.arms, log.rewards, len(log.names))
    model = sums.solved(1.0)  # the one fit of all that follows
    expected = None if log.contexts is None else model.expected(table)
    numbers["notes"] = [*said, *sums.words()]
    progress("other rules")
    numbers["candidates"], numbers["refused"], weights = _candidates(log, expected, model, truth)
    progress("forecasts")
    ahead = None
    if expected is not None:
        ahead = _ahead(log, model)
        if ahead is not None:
            numbers["forecasts"] = _forecasts(ahead, expected[np.arange(len(log)), log.arms][-RECENT:])
    progress("residency")
    if len(log.names) > 1:
        numbers["residency"] = _residency(trace, log, expected, price, window)
        if note := scale_note(float(log.rewards.std()), numbers["residency"]["diagnosis"]["fault"]):
            numbers["notes"].append(note)
    if trace.latencies is not None and np.isfinite(trace.latencies).any():
        numbers["latency"] = _latency(trace.latencies, trace.hits)
    plain: dict[str, Any] = _plain(numbers)
    return Report(plain, trace, weights, ahead)


def _mean(values: Floats) -> dict[str, Any]:
    """Return mean and 95 % interval of independent values."""
    half = 1.96 * float(values.std(ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else float("nan")
    mean = float(values.mean()) if len(values) else float("nan")
    return {"value": mean, "low": mean - half, "high": mean + half}


def _log(trace: Trace, log: Trace) -> dict[str, Any]:
    quarter = len(log) // 4
    first, last = log.rewards[:quarter], log.rewards[-quarter:]
    error = np.sqrt((first.var(ddof=1) + last.var(ddof=1)) / quarter)
    times = trace.times
    named = [n for n in Trace.columns() if getattr(trace, n) is not None]
    return {
        "rows": len(trace),
        "answered": len(log),
        "repeated": trace.repeated(),
        "arms": len(trace.names),
        "dim": None if trace.contexts is None else trace.contexts.shape[1],
        "columns": named,
        "seconds": None if times is None or np.isnan(times).all() else float(np.nanmax(times) - np.nanmin(times)),
        "policies": [p for i, p in enumerate(trace.policies) if trace.policy is None or (trace.policy == i).any()],
        "learning": trace.versions is not None and bool(trace.versions.min() != trace.versions.max()),
        "reward": _mean(log.rewards),
        "smallest": float(log.rewards.min()),
        "largest": float(log.rewards.max()),
        "first_quarter": float(first.mean()),
        "last_quarter": float(last.mean()),
        "change_in_errors": float((last.mean() - first.mean()) / error) if error > 0.0 else 0.0,
    }  # fmt: skip


def _arms(trace: Trace) -> list[dict[str, Any]]:
    """Return one row per arm, the busiest first."""
    counts = np.bincount(trace.arms, minlength=len(trace.names))
    rows = []
    for a in np.argsort(-counts, kind="stable"):
        own = trace.arms == a
        rewards = trace.rewards[own]
        row = {"name": trace.names[a], "chosen": int(counts[a]), "share": float(counts[a] / len(trace)),
               "reward": _mean(rewards[~np.isnan(rewards)])}  # fmt: skip
        if trace.propensities is not None:
            row["propensity"] = float(np.median(trace.propensities[own])) if counts[a] else None
        if trace.hits is not None:
            row["hit_rate"] = float(trace.hits[own].mean()) if counts[a] else None
        rows.append(row)
    return rows


def _support(log: Trace) -> dict[str, Any]:
    counts = np.bincount(log.arms, minlength=len(log.names))
    found: dict[str, Any] = {"never_logged": [n for n, c in zip(log.names, counts, strict=True) if not c]}
    try:
        propensities = known_propensities(log)
    except ValueError as error:
        return {**found, "usable": False, "reason": str(error)}
    options = np.full(len(log), len(log.names)) if log.eligible is None else log.eligible.sum(axis=1)
    sure = (propensities > 1.0 - 1e-12) & (options > 1)
    return {
        **found,
        "usable": True,
        "reason": "",
        "smallest": float(propensities.min()),
        "median": float(np.median(propensities)),
        "sure_share": float(sure.mean()),
    }


def _targets(log: Trace, expected: Floats | None) -> dict[str, NDArray[Any]]:
    count, width = len(log), len(log.names)
    counts = np.bincount(log.arms, minlength=width)
    busiest = np.argsort(-counts, kind="stable")[:FIXED]
    targets: dict[str, NDArray[Any]] = {f"always {log.names[a]}": np.full(count, a) for a in busiest}
    eligible = np.ones((count, width), dtype=np.bool_) if log.eligible is None else log.eligible
    targets["uniform"] = eligible / eligible.sum(axis=1, keepdims=True)
    if expected is not None:
        # What was never logged cannot be valued: the learned rule does without it.
        allowed = eligible & (counts > 0)
        best = np.where(allowed, expected, -np.inf).argmax(axis=1)
        targets["learned"] = best
        targets["learned, 5 % uniform"] = 0.95 * np.eye(width)[best] + 0.05 * targets["uniform"]
    return targets


def _candidates(
    log: Trace, expected: Floats | None, model: RewardModel, truth: Floats | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Floats]]:
    """Return estimates, the best first, candidates the log says nothing of and why, and weights."""
    try:
        propensities = known_propensities(log)
    except ValueError as error:
        return [], [{"name": "every other rule", "reason": str(error)}], {}
    targets, refused, weights = _targets(log, expected), [], {}
    for name, target in targets.items():
        try:
            check_overlap(log, propensities, target, name)
        except ValueError as error:
            refused.append({"name": name, "reason": str(error).removeprefix(f"{name}: ")})
            continue
        own = e.importance(log.arms, propensities, target)
        size = e.effective_size(own)
        if not size >= MIN_ESS or own.max() > HEAVIEST:
            reason = f"the log hardly ever did what it does: {len(log):,} rows count as {size:.1f}"
            refused.append({"name": name, "reason": reason})
            continue
        weights[name] = own
    if not weights:
        return [], refused, {}
    usable = {name: targets[name] for name in weights}
    asked = {name: as_target(log.names, one) if one.ndim == 1 else one for name, one in usable.items()}
    estimates = compare(log, asked, estimators=("dr", "snips", "ips", "dm"), min_ess=MIN_ESS, model=model)
    from scipy import stats

    # As many standard errors as make all intervals hold at once.
    level = 1.0 - 0.05 / len(usable)
    wider = float(stats.norm.ppf((1.0 + level) / 2.0) / stats.norm.ppf(0.975))
    rows = []
    for name, own in weights.items():
        one = estimates[name]
        gap = difference(log, asked[name], model=model, confidence=level, min_ess=MIN_ESS)
        row: dict[str, Any] = {"name": name}
        for kind in ("dr", "snips", "ips", "dm"):
            row[kind] = {"value": one[kind].value, "low": one[kind].low, "high": one[kind].high}
        gain, low, high = gap.value, gap.low, gap.high
        rows_to_settle = None if gap.rows_to_settle is None else int(wider**2 * gap.rows_to_settle)
        row |= {"gain": {"value": gain, "low": low, "high": high}, "rows_to_settle": rows_to_settle, "ess": one.ess,
                "max_weight": one.max_weight, "mean_weight": one.mean_weight,
                "mean_weight_error": float(own.std() / np.sqrt(len(own)))}  # fmt: skip
        if truth is not None:
            target = usable[name]
            each = truth[np.arange(len(log)), target] if target.ndim == 1 else (truth * target).sum(axis=1)
            row["truth"] = float(each.mean())
        rows.append(row)
    return sorted(rows, key=lambda row: -row["dr"]["value"]), refused, weights


def _ahead(log: Trace, model: RewardModel) -> Forecasts | None:
    """Return what a fresh LinUCB expected of the last rows; None where rewards never differ, which is no test."""
    recent = log[-RECENT:]
    assert recent.contexts is not None
    # On one scale and with a constant, as the expected rewards have it: rewards need not be 0 where the context is.
    recent = replace(recent, contexts=model.columns(recent.contexts))
    ahead = forecasts(recent, LinUCB(log.names, model.columns.dim, rng=0))
    return ahead if (ahead.errors > 0.0).any() else None


def _forecasts(ahead: Forecasts, fitted: Floats) -> dict[str, Any]:
    """Return how good forecasts were; `fitted` is what a fit to the other rows of the log says of the same ones."""
    known = np.isfinite(ahead.errors)
    off = (ahead.rewards - ahead.means)[known]
    spread = float(ahead.rewards[known].var())
    return {
        "rows": int(known.sum()),
        "bias": _mean(-off),
        "coverage_95": float((np.abs(off) <= 1.96 * ahead.errors[known]).mean()) if known.any() else None,
        "explained": float(1.0 - np.mean(off**2) / spread) if spread > 0.0 else None,
        "fitted": float(1.0 - np.mean((ahead.rewards - fitted)[known] ** 2) / spread)
        if spread > 0.0
        else None,
    }


def _residency(
    trace: Trace, log: Trace, expected: Floats | None, fault: float | None, window: int
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if trace.hits is not None:
        found["hit_rate"] = _mean(trace.hits.astype(np.float64))
        found["faults"] = int((~trace.hits).sum())
        for name, rows in (("reward_of_hits", trace.hits), ("reward_of_faults", ~trace.hits)):
            own = trace.rewards[rows]
            found[name] = _mean(own[~np.isnan(own)])
    source = "given"
    if fault is None:
        fault, source = fault_price(trace)
    if expected is None:
        utilities, basis = (
            np.eye(len(log.names))[log.arms[-RECENT:]],
            "each request needs the arm that served it",
        )
    else:
        utilities, basis = expected[-RECENT:], "expected rewards of every arm"
        if log.eligible is not None:
            utilities = np.where(log.eligible[-RECENT:], utilities, utilities.min())
    # The arms that served follow what was resident; what requests need is the arm they expect most of.
    served = log.arms[-RECENT:] if expected is None else None
    one = diagnose(utilities, fault, window=window, trace=served)
    found["diagnosis"] = {
        "fault": fault, "fault_source": source, "basis": basis, "rows": len(utilities), "worth": one.worth,
        "enough": one.enough, "window": one.window, "summary": one.summary(),
        "slots": one.slots.tolist(), "coverage": one.coverage.tolist(), "fixed": one.fixed.tolist(),
        "per_window": one.hits.tolist(), "sees_ahead": one.sch.tolist(),
    }  # fmt: skip
    return found


def _latency(latencies: Floats, hits: NDArray[np.bool_] | None) -> dict[str, Any]:
    known = np.isfinite(latencies)
    groups = {"all": known}
    if hits is not None:
        groups |= {"hits": known & hits, "faults": known & ~hits}
    found: dict[str, Any] = {}
    for name, rows in groups.items():
        own = latencies[rows] * 1000.0
        if len(own):
            p50, p90, p99 = np.quantile(own, [0.5, 0.9, 0.99])
            found[name] = {
                "rows": len(own),
                "mean_ms": own.mean(),
                "p50_ms": p50,
                "p90_ms": p90,
                "p99_ms": p99,
            }
    return found


def _plain(value: Any) -> Any:
    """Return the same as plain Python values, NaN as None: JSON has none."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
