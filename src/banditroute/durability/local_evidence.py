"""What one replica has learned itself: its share of the statistics, arm by arm."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from banditroute._core import container
from banditroute._core.typing import Floats
from banditroute.errors import SnapshotError
from banditroute.policies import ArmEvidence, EvidencePolicy, summed

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

    def evidence(self) -> ArmEvidence:
        """Return the part as the policies know it."""
        return ArmEvidence(
            0, -1, {self.bucket: {"gram": self.gram, "moment": self.moment, "sums": self.sums}}
        )

    @classmethod
    def of(cls, evidence: ArmEvidence) -> "Part":
        """Return evidence of one bucket as a part."""
        ((bucket, sums),) = evidence.buckets.items()
        return cls(sums["gram"], sums["moment"], sums["sums"], bucket)

    def aged(self, bucket: int, policy: EvidencePolicy) -> "Part":
        """Return the part as it counts in a later bucket."""
        return Part.of(policy.aged(self.evidence(), bucket))

    def less(self, other: "Part") -> "Part":
        """Return what this part holds beyond `other`, both of one bucket."""
        return Part(self.gram - other.gram, self.moment - other.moment, self.sums - other.sums, self.bucket)


def total(parts: list[Part], bucket: int, policy: EvidencePolicy) -> Part:
    """Return the sum of parts in the given order, aged to one bucket: the same bits on every replica.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> one = Part(np.ones(64), np.ones(8), np.ones(3), 0)
    >>> total([one, one], 0, LinUCB(2, 3)).sums
    array([2., 2., 2.])
    """
    added = Part.of(summed(policy, [part.aged(bucket, policy).evidence() for part in parts]))
    return added._replace(bucket=bucket)


class Tally:
    """A replica's own cumulative evidence, kept beside the statistics of its policy.

    Parameters
    ----------
    policy : EvidencePolicy
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

    def __init__(self, policy: EvidencePolicy) -> None:
        self.policy = policy
        policy.fingerprint()  # says why, where it cannot share
        self.empty = Part.of(policy.empty_evidence())
        self.parts: dict[str, Part] = {}
        self.versions: dict[str, int] = {}  # how often each part changed

    def add(self, arm: str, x: Floats, reward: float, *, at: int) -> None:
        """Count one reward of a decision made at clock index `at`."""
        part = self.parts[arm] if arm in self.parts else self.copied(arm)
        self.parts[arm] = Part.of(self.policy.credit(part.evidence(), x, reward, 1.0, at))
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
