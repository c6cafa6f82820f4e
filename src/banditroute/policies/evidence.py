"""What a policy has learned of an arm as sums that can be taken out, added up elsewhere and put back."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from banditroute._core.typing import Floats

__all__ = [
    "ArmEvidence",
    "Draft",
    "DraftingPolicy",
    "EvidencePolicy",
    "Sums",
    "check_sums",
    "copied",
    "flat",
    "summed",
]

Sums = dict[str, NDArray[Any]]  # named additive statistics


class ArmEvidence(NamedTuple):
    """Everything learned of one arm, as sums over its feedback.

    ``generation`` counts how often the arm was forgotten or removed: evidence of a lower one counts no more.
    ``latest`` is the clock index of its newest decision with feedback, -1 where that is not kept. ``buckets`` maps a
    bucket of the clock to named sums, aged to that bucket; there is bucket 0 alone where nothing is forgotten by the
    clock.

    Examples
    --------
    >>> ArmEvidence(0, -1, {0: {"total": np.array(2.0)}}).generation
    0
    """

    generation: int
    latest: int
    buckets: dict[int, Sums]


@runtime_checkable
class EvidencePolicy(Protocol):
    """A policy whose statistics are sums, so that replicas can share them.

    Sums are formed in one order and then set, so that all replicas come to the same bits whatever was repeated,
    reordered or lost on the way. Of a policy that has these methods and cannot share after all, `fingerprint` says why.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy, other = LinUCB(2, 1, rng=0), LinUCB(2, 1, rng=1)
    >>> isinstance(policy, EvidencePolicy) and policy.fingerprint() == other.fingerprint()
    True
    >>> policy.update("0", [1.0], 0.5)
    >>> other.set_evidence("0", summed(other, [policy.evidence("0"), policy.evidence("0")]))
    >>> other.counts
    array([2, 0])
    """

    def fingerprint(self) -> dict[str, Any]:
        """Return, as JSON, what must agree before evidence may be joined; ``TypeError`` says why there is none."""

    @property
    def shared_names(self) -> tuple[str, ...]:
        """``("",)`` where what is learned of names that are no arms is summed under the empty name, else ``()``."""

    @property
    def bucket(self) -> int:
        """The current bucket of the clock, 0 where nothing is forgotten by it."""

    def empty_evidence(self) -> ArmEvidence:
        """Return evidence of nothing: it tells names and shapes."""

    def evidence(self, arm: str) -> ArmEvidence:
        """Return a copy of what was learned of an arm (of all where it is one of `shared_names`)."""

    def set_evidence(self, arm: str, total: ArmEvidence) -> None:
        """Put evidence in the place of what was learned of an arm; what follows from it is derived anew.

        Raises ``UnknownArm``, or ``ValueError`` where names or shapes are not those of `empty_evidence`; nothing
        changed.
        """

    def credit(
        self, evidence: ArmEvidence, x: Floats, reward: float, weight: float = 1.0, at: int = 0
    ) -> ArmEvidence:
        """Return evidence with one more reward in it, as `update` would add; may work in place.

        ``x`` is what `Policy.kept` returned, and has passed the checks of `update`, as the reward has.
        """

    def aged(self, evidence: ArmEvidence, bucket: int) -> ArmEvidence:
        """Return evidence as it counts in a later bucket; it is itself left alone."""

    def generation(self, arm: str) -> int:
        """Return how often an arm of this name was forgotten or removed, here or on a replica."""

    def set_generation(self, arm: str, generation: int) -> None:
        """Take up the generation that others have seen."""

    def forget(self, arm: int | str) -> None:
        """Make an arm start cold and raise its generation."""


class Draft(Protocol):
    """Evidence on its way into a policy."""

    def derive(self) -> None:
        """Derive what follows from it; takes long, and needs no lock."""

    def apply(self) -> bool:
        """Put it in place, with the lock held; False, and nothing changed, where what it was derived from did."""


@runtime_checkable
class DraftingPolicy(EvidencePolicy, Protocol):
    """An `EvidencePolicy` that derives what follows from evidence without the lock.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = LinUCB(2, 1, rng=0)
    >>> draft = policy.draft_evidence("0", policy.empty_evidence())
    >>> draft.derive()
    >>> isinstance(policy, DraftingPolicy), draft.apply()
    (True, True)
    """

    def draft_evidence(self, arm: str, total: ArmEvidence) -> Draft | None:
        """Begin what `set_evidence` does in one go; None where it must be done so. The lock is held.

        The result is that of `set_evidence`, to the last bit, and raises as it does.
        """


def copied(evidence: ArmEvidence) -> ArmEvidence:
    """Return evidence that shares no array with the given one.

    >>> copied(ArmEvidence(1, 5, {0: {"total": np.array(2.0)}}))
    ArmEvidence(generation=1, latest=5, buckets={0: {'total': array(2.)}})
    """
    buckets = {b: {n: np.array(a) for n, a in sums.items()} for b, sums in evidence.buckets.items()}
    return evidence._replace(buckets=buckets)


def summed(policy: EvidencePolicy, parts: Sequence[ArmEvidence]) -> ArmEvidence:
    """Return the sum of evidence on one arm, added in the given order: the same bits wherever it is formed.

    Only parts of the highest generation among them count; ``latest`` is their maximum. All are aged to their newest
    bucket first.

    Parameters
    ----------
    policy : EvidencePolicy
        Tells how evidence ages, and what there is where `parts` is empty.
    parts : sequence of ArmEvidence

    Examples
    --------
    >>> from banditroute.policies import UCB1
    >>> policy = UCB1(2, 1)
    >>> old = policy.credit(policy.empty_evidence(), np.ones(1), 1.0)
    >>> new = policy.credit(policy.empty_evidence(), np.ones(1), 0.5)._replace(generation=1)
    >>> summed(policy, [old, new, new]).buckets[0]["total"]
    array(1.)
    """
    if not parts:
        return policy.empty_evidence()
    highest = max(part.generation for part in parts)
    parts = [part for part in parts if part.generation == highest]
    newest = max((bucket for part in parts for bucket in part.buckets), default=0)
    buckets: dict[int, Sums] = {}
    for part in parts:
        for bucket, sums in policy.aged(part, newest).buckets.items():
            mine = buckets.setdefault(bucket, {})
            for name, array in sums.items():
                mine[name] = np.array(mine[name] + array if name in mine else array)
    return ArmEvidence(highest, max(part.latest for part in parts), dict(sorted(buckets.items())))


def flat(evidence: ArmEvidence, like: ArmEvidence, bucket: int) -> Sums:
    """Return the sums of evidence of one bucket (or none); names and shapes must be those of `like`."""
    wanted = next(iter(like.buckets.values()))
    if not set(evidence.buckets) <= {bucket}:
        raise ValueError(f"evidence must be of bucket {bucket}, got {sorted(evidence.buckets)}")
    given = evidence.buckets.get(bucket, wanted)
    check_sums(given, wanted)
    return given


def check_sums(given: Sums, wanted: Sums) -> None:
    """Refuse sums whose names or shapes are not the wanted ones, or that are not finite."""
    if set(given) != set(wanted):
        raise ValueError(f"evidence must hold {sorted(wanted)}, got {sorted(given)}")
    for name, array in given.items():
        if np.shape(array) != wanted[name].shape or not np.isfinite(array).all():
            shape = wanted[name].shape
            raise ValueError(
                f"evidence {name!r} must be finite, of shape {shape}, got shape {np.shape(array)}"
            )
