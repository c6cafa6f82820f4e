"""What is made of rewards from each source: range, clipping, rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

__all__ = ["Limits", "RewardLimits"]


@dataclass(frozen=True, slots=True)
class RewardLimits:
    """Rule for the rewards of one source.

    Parameters
    ----------
    low, high : float
        Range of its rewards.
    clip : bool
        Move a reward outside the range to its end, and count it; otherwise it is refused with ``ValueError``.
    per_s : float
        Rewards taken per second, with a burst of one second's worth; what exceeds it is counted and dropped, and its
        decision still awaits feedback.

    Raises
    ------
    ValueError, TypeError
        Not a range, or a rate that is not positive.

    Examples
    --------
    >>> RewardLimits(0.0, 1.0, clip=True).admit(3.0)
    1.0
    >>> RewardLimits(0.0, 1.0).admit(3.0)
    Traceback (most recent call last):
    ValueError: reward must be in [0, 1], got 3
    """

    low: float = -inf
    high: float = inf
    clip: bool = False
    per_s: float = inf

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise ValueError(f"low must be <= high, got {self.low!r} and {self.high!r}")
        if not self.per_s > 0.0:
            raise ValueError(f"per_s must be > 0, got {self.per_s!r}")

    def admit(self, reward: float) -> float:
        """Return the reward to learn; raises ``ValueError`` where it is outside the range and not clipped."""
        if self.low <= reward <= self.high:
            return reward
        if not self.clip:
            raise ValueError(f"reward must be in [{self.low:g}, {self.high:g}], got {reward:g}")
        return min(max(reward, self.low), self.high)


class Limits:
    """Rules by source, with counters and rates; not locked, the Router's lock covers it.

    Parameters
    ----------
    rules : mapping of str to RewardLimits
        "*" is for every source that is not named, and for feedback without a source. Without "*" those are free.

    Notes
    -----
    Memory is one row per rule: a client that makes up names fills nothing.

    Examples
    --------
    >>> limits = Limits({"judge": RewardLimits(0.0, 1.0), "*": RewardLimits(per_s=1.0)})
    >>> limits.admit("judge", 0.5, now=0.0), limits.admit("thumbs", 1.0, now=0.0)
    (0.5, 1.0)
    >>> limits.admit("thumbs", 1.0, now=0.1) is None
    True
    >>> limits.counts["*"]
    {'taken': 1, 'clipped': 0, 'refused': 0, 'capped': 1}
    """

    def __init__(self, rules: Mapping[str, RewardLimits]) -> None:
        for name, rule in rules.items():
            if not isinstance(name, str) or not isinstance(rule, RewardLimits):
                raise TypeError(f"limits must map names to RewardLimits, got {name!r}: {rule!r}")
        self.rules = {"*": RewardLimits(), **rules}
        self.counts = {name: {"taken": 0, "clipped": 0, "refused": 0, "capped": 0} for name in self.rules}
        # Tokens of each rate and when they were counted last.
        self._tokens = {name: [max(1.0, rule.per_s), -inf] for name, rule in self.rules.items()}

    def admit(self, source: str | None, reward: float, now: float) -> float | None:
        """Return the reward to learn, or None when the source is above its rate.

        Parameters
        ----------
        source : str or None
        reward : float
            Finite.
        now : float
            Clock, seconds.

        Raises
        ------
        ValueError
            Outside the range, with ``clip=False``; counted.
        """
        if source is not None:
            _name(source)
        name = source if source is not None and source in self.rules else "*"
        rule, counts = self.rules[name], self.counts[name]
        try:
            admitted = rule.admit(reward)
        except ValueError:
            counts["refused"] += 1
            raise
        if rule.per_s < inf:
            bucket = self._tokens[name]
            full = max(1.0, rule.per_s)
            tokens = min(full, bucket[0] + max(0.0, now - bucket[1]) * rule.per_s)
            if tokens < 1.0:
                self._tokens[name] = [tokens, now]
                counts["capped"] += 1
                return None
            self._tokens[name] = [tokens - 1.0, now]
        counts["taken"] += 1
        counts["clipped"] += admitted != reward
        return admitted

    def refund(self, source: str | None) -> None:
        """Give back what `admit` counted for a reward that turned out to answer nothing."""
        name = source if source is not None and source in self.rules else "*"
        self.counts[name]["taken"] -= 1
        if self.rules[name].per_s < inf:
            self._tokens[name][0] += 1.0

    def stats(self) -> dict[str, dict[str, int]]:
        """Return copies of the counters, by source."""
        return {name: dict(counts) for name, counts in self.counts.items()}


def _name(source: object) -> None:
    if not isinstance(source, str):
        raise TypeError(f"source must be a string, got {source!r}")
