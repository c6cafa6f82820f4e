"""What one replica has learned itself: its share of the statistics, arm by arm."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from banditroute._core import container
from banditroute._core.kernels import layout, prepare
from banditroute._core.kernels.tally import credit
from banditroute._core.typing import Floats
from banditroute.errors import SnapshotError
from banditroute.policies import LinearPolicy

__all__ = ["Part", "Tally", "total"]


class Part(NamedTuple):
    """Evidence on one arm: packed gram, moment, (count, weight, square), and the bucket these are aged to.

    Examples
    --------
    >>> Part(np.zeros(64), np.zeros(8), np.zeros(3), 0).bucket
    0
    """

    gram: Floats
    moment: Floats
    sums: Floats
    bucket: int

    def encode(self, arm: str, seq: int) -> bytes:
        """Return the part as checked bytes."""
        arrays = {"gram": self.gram, "moment": self.moment, "sums": self.sums}
        return container.encode({"arm": arm, "seq": seq, "bucket": self.bucket}, arrays)

    @classmethod
    def decode(cls, data: bytes, like: "Part") -> tuple[str, int, "Part"]:
        """Return arm, sequence number and part; raises ``SnapshotError`` where the shapes are not those of `like`."""
        header, arrays = container.decode(data)
        try:
            part = cls(arrays["gram"], arrays["moment"], arrays["sums"], int(header["bucket"]))
            for name in ("gram", "moment", "sums"):
                given, wanted = getattr(part, name), getattr(like, name)
                if given.shape != wanted.shape or given.dtype != wanted.dtype or not np.isfinite(given).all():
                    raise ValueError(f"{name} must be finite, of shape {wanted.shape}, got {given.shape}")
            return str(header["arm"]), int(header["seq"]), part
        except (ValueError, TypeError, LookupError) as error:
            raise SnapshotError(f"part must fit: {error}") from error

    def aged(self, bucket: int, policy: LinearPolicy) -> "Part":
        """Return the part as it counts in a later bucket."""
        if bucket <= self.bucket or not policy.span:
            return self
        factor = float(policy.buffer[layout.H_DISCOUNT]) ** (policy.span * (bucket - self.bucket))
        scale = np.array([1.0, factor, factor])  # counts do not age
        return Part(self.gram * factor, self.moment * factor, self.sums * scale, bucket)

    def less(self, other: "Part") -> "Part":
        """Return what this part holds beyond `other`, both of one bucket."""
        return Part(self.gram - other.gram, self.moment - other.moment, self.sums - other.sums, self.bucket)


def total(parts: list[Part], bucket: int, policy: LinearPolicy) -> Part:
    """Return the sum of parts in the given order, aged to one bucket: the same bits on every replica.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> one = Part(np.ones(64), np.ones(8), np.ones(3), 0)
    >>> total([one, one], 0, LinUCB(2, 3)).sums
    array([2., 2., 2.])
    """
    first = parts[0].aged(bucket, policy)
    gram, moment, sums = first.gram.copy(), first.moment.copy(), first.sums.copy()
    for part in parts[1:]:
        own = part.aged(bucket, policy)
        gram += own.gram
        moment += own.moment
        sums += own.sums
    return Part(gram, moment, sums, bucket)


class Tally:
    """A replica's own cumulative evidence, kept beside the statistics of its policy.

    Parameters
    ----------
    policy : LinearPolicy
        Gives shapes and discount.

    Notes
    -----
    Adding costs O(dim^2), about what the gram costs in an update. Not locked: the Router's lock covers it.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> tally = Tally(LinUCB(["a", "b"], 2))
    >>> tally.add("a", np.array([1.0, 2.0]), 0.5, at=0)
    >>> tally.parts["a"].moment[:2], tally.versions["a"]
    (array([0.5, 1. ]), 1)
    """

    def __init__(self, policy: LinearPolicy) -> None:
        self.policy = policy
        state = policy.state
        self.empty = Part(np.zeros(state.pack), np.zeros(state.pad), np.zeros(3), 0)
        self._scratch = np.zeros(state.pad)
        self.parts: dict[str, Part] = {}
        self.versions: dict[str, int] = {}  # how often each part changed
        prepare(credit, *self.empty[:3], np.zeros(1), self._scratch, 0.0, 1.0)

    def add(self, arm: str, x: Floats, reward: float, *, at: int) -> None:
        """Count one reward of a decision made at clock index `at`."""
        span = self.policy.span
        bucket = at // span if span else 0
        part = self.parts.get(arm)
        if part is None:
            part = self.copied(arm)._replace(bucket=bucket)
        part = part.aged(bucket, self.policy)
        weight = 1.0
        if bucket < part.bucket:
            weight = float(self.policy.buffer[layout.H_DISCOUNT]) ** (span * (part.bucket - bucket))
        if weight > 0.0:
            credit(part.gram, part.moment, part.sums, x, self._scratch, float(reward), weight)
        self.parts[arm] = part
        self.versions[arm] = self.versions.get(arm, 0) + 1

    def copied(self, arm: str) -> Part:
        """Return a copy of the evidence on an arm."""
        part = self.parts.get(arm, self.empty)
        return Part(part.gram.copy(), part.moment.copy(), part.sums.copy(), part.bucket)

    def to_state(self) -> tuple[dict[str, Any], dict[str, Floats]]:
        """Return a JSON-able header and arrays."""
        arms = sorted(self.parts)
        header = {"arms": arms, "buckets": [self.parts[a].bucket for a in arms], "versions": self.versions}
        arrays = {
            name: np.array([getattr(self.parts[a], name) for a in arms]).reshape(
                len(arms), getattr(self.empty, name).size
            )
            for name in ("gram", "moment", "sums")
        }
        return header, arrays

    def load_state(self, header: Mapping[str, Any], arrays: Mapping[str, Floats]) -> None:
        """Continue from `to_state`."""
        rows = zip(
            header["arms"], arrays["gram"], arrays["moment"], arrays["sums"], header["buckets"], strict=True
        )
        parts = {str(a): Part(g.copy(), m.copy(), s.copy(), int(b)) for a, g, m, s, b in rows}
        for part in parts.values():
            if any(mine.shape != other.shape for mine, other in zip(part[:3], self.empty[:3], strict=True)):
                raise ValueError(f"parts must have shape {self.empty.gram.shape}, got {part.gram.shape}")
        self.parts, self.versions = parts, {a: int(v) for a, v in header["versions"].items()}
