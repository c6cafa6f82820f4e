"""Confidence sequences: intervals for a log that still runs, which hold at every look at once."""

from typing import NamedTuple

import numpy as np

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.evaluation import estimators as e
from banditroute.evaluation.overlap import Target, check_overlap, known_propensities, target_array
from banditroute.logs import Trace

__all__ = ["ConfidenceSequence", "Running", "running"]

_LARGEST_BET = 0.5  # in (0, 1): how much a single row may count


class ConfidenceSequence:
    """Lower bound for the mean of values that are >= 0, fed in the order of time, that holds at all times at once.

    Parameters
    ----------
    error : float
        Probability, in (0, 1), with which the bound may ever be wrong.

    Notes
    -----
    Values need no upper bound, as weighted rewards have none that is of use; their mean must be at most 1. For
    ``x >= 0``, a forecast ``m`` of it in [0, 1] and a bet ``b`` in [0, 1), both made before ``x`` is seen,
    ``exp(b (x - mean) - (x - m)^2 (-log(1 - b) - b))`` has expectation at most 1 whatever went before (Fan, Grama and
    Liu 2015), so its running product stays below ``1 / error`` with probability ``1 - error`` (Ville). This is the
    predictable empirical-Bernstein sequence of Waudby-Smith and Ramdas (JRSS B 2024), used for contextual bandits by
    Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro (2022). Rows may depend on each other in any way, as those of
    a learning policy do, as long as propensities are right; where the mean moves, it is the mean over the rows so far,
    weighted by the bets. O(1) a value.

    Examples
    --------
    >>> bound = ConfidenceSequence(0.05)
    >>> lows = bound.add(np.random.default_rng(0).random(5000))
    >>> bool(0.4 < bound.low < 0.5), len(lows)
    (True, 5000)
    """

    def __init__(self, error: float) -> None:
        self._evidence = -np.log(check.finite("error", error, low=0.0, high=0.5, open_low=True))
        self._count, self._total, self._spread = 0, 0.5, 0.25  # one value of 1/2 imagined before the first
        self._bets = self._gained = self._paid = 0.0
        self.low = 0.0

    def add(self, values: Floats) -> Floats:
        """Take values, (n,), and return the bound after each of them, (n,): the largest so far."""
        given = np.asarray(values, dtype=np.float64)
        if given.ndim != 1 or not (given.min(initial=0.0) >= 0.0 and np.isfinite(given).all()):
            raise ValueError(f"values must be finite and >= 0, got {check.shown(given)}")
        if not len(given):
            return np.zeros(0)
        count = self._count + np.arange(len(given))  # values before each
        before = self._total + np.append(0.0, np.cumsum(given)[:-1])
        forecast = np.minimum(before / (count + 1.0), 1.0)
        off = (given - forecast) ** 2
        spread = (self._spread + np.append(0.0, np.cumsum(off)[:-1])) / (count + 1.0)
        bet = np.sqrt(
            2.0 * self._evidence / (np.maximum(spread, 1e-12) * (count + 1.0) * np.log(count + 2.0))
        )
        bet = np.minimum(bet, _LARGEST_BET)
        bets = self._bets + np.cumsum(bet)
        gained = self._gained + np.cumsum(bet * given)
        paid = self._paid + np.cumsum(off * (-np.log1p(-bet) - bet))
        lows = np.maximum.accumulate(np.maximum((gained - paid - self._evidence) / bets, self.low))
        self._count += len(given)
        self._total, self._spread = before[-1] + given[-1], self._spread + float(off.sum())
        self._bets, self._gained, self._paid = float(bets[-1]), float(gained[-1]), float(paid[-1])
        self.low = float(lows[-1])
        return lows


class Running(NamedTuple):
    """A value over the rows of a log, (n,) each: the estimate so far and an interval that holds at every row at once.

    Examples
    --------
    >>> Running(np.zeros(2), np.zeros(2), np.ones(2)).high[-1]
    np.float64(1.0)
    """

    value: Floats
    low: Floats
    high: Floats


def running(
    trace: Trace,
    target: Target,
    against: Target | None = None,
    *,
    reward_range: tuple[float, float] = (0.0, 1.0),
    confidence: float = 0.95,
) -> Running:
    """Estimate what a rule would have earned, row by row, with intervals that may be looked at as often as one likes.

    Parameters
    ----------
    trace : Trace
        With propensities, in the order of time; rows without a reward are left out.
    target : as in `evaluate`
        Fixed beforehand: a rule that was chosen by these rows is judged too well.
    against : as in `evaluate`, optional
        Then the value is the difference to what this rule would have earned.
    reward_range : (float, float)
        Bounds that no reward leaves, known beforehand.
    confidence : float
        Probability, in (0, 1), that the interval holds at all rows at once.

    Returns
    -------
    Running
        The value is IPS. Widths fall like ``sqrt(log n / n)``: wider than `evaluate`'s, which hold at one look that was
        settled beforehand. The log may be that of a learning policy, and may be stopped when one has seen enough.

    Raises
    ------
    ValueError, TypeError
        A reward outside of the range, no propensities, or a target that the log cannot answer.

    Notes
    -----
    With rewards scaled to [0, 1] the lower bound is a `ConfidenceSequence` of ``w r``, and the upper one that of
    ``w (1 - r)``, whose mean is 1 less the value. The difference to another rule with weights v has
    ``w r + v (1 - r)``, whose mean is 1 more than it.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> arms = rng.integers(2, size=4000)
    >>> trace = Trace(names=["a", "b"], arms=arms, rewards=0.2 + 0.6 * arms, propensities=np.full(4000, 0.5))
    >>> found = running(trace, "b", "a")
    >>> bool(0.3 < found.low[-1] < 0.6 < found.high[-1])
    True
    """
    low, high = (check.finite("reward_range", one) for one in reward_range)
    if not low < high:
        raise ValueError(f"reward_range must be (low, high) with low < high, got {reward_range}")
    level = check.finite("confidence", confidence, low=0.5, high=1.0)
    log = trace.answered()
    propensities = known_propensities(log)
    if not len(log) or log.rewards.min() < low or log.rewards.max() > high:
        seen = "no row" if not len(log) else f"{log.rewards.min():g} .. {log.rewards.max():g}"
        raise ValueError(f"rewards must be in reward_range [{low:g}, {high:g}], got {seen}")
    r, half = (log.rewards - low) / (high - low), (1.0 - level) / 2.0
    w = _weights(log, propensities, target, "target")
    if against is None:
        up, down, middle, scale = w * r, w * (1.0 - r), 0.0, 1.0
        value = w * log.rewards
    else:
        v = _weights(log, propensities, against, "against")
        up, down, middle, scale = (w * r + v * (1.0 - r)) / 2.0, (w * (1.0 - r) + v * r) / 2.0, -1.0, 2.0
        value = (w - v) * log.rewards
    lows = scale * ConfidenceSequence(half).add(up) + middle
    highs = scale * (1.0 - ConfidenceSequence(half).add(down)) + middle
    shift = low if against is None else 0.0
    each = np.cumsum(value) / np.arange(1, len(log) + 1)
    return Running(each, shift + (high - low) * lows, shift + (high - low) * highs)


def _weights(log: Trace, propensities: Floats, target: Target, name: str) -> Floats:
    array = target_array(log, target)
    check_overlap(log, propensities, array, name)
    return e.importance(log.arms, propensities, array)
