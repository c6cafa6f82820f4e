"""What one replica has learned itself: its share of the statistics, arm by arm."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from banditroute._core.typing import Arrays, Floats, Header
from banditroute.policies.evidence import ArmEvidence, EvidencePolicy, Sums, check_sums, copied, summed

__all__ = ["LocalEvidence", "Shareable", "holds", "less", "like"]


@runtime_checkable
class Shareable(EvidencePolicy, Protocol):
    """What replicas need of a policy: its evidence, its arms, and random numbers of its own."""

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms."""

    def learns_of(self, name: str) -> bool:
        """Whether rewards of a name that is no arm are learned."""

    def reseed(self) -> None:
        """Draw from here on what no copy draws."""


def holds(evidence: ArmEvidence) -> bool:
    """Tell whether anything was learned.

    Examples
    --------
    >>> holds(ArmEvidence(0, -1, {0: {"total": np.zeros(2)}}))
    False
    """
    return any(array.any() for sums in evidence.buckets.values() for array in sums.values())


def less(policy: EvidencePolicy, evidence: ArmEvidence, other: ArmEvidence) -> ArmEvidence:
    """Return what evidence holds beyond `other`; all of it where `other` was forgotten meanwhile."""
    if other.generation < evidence.generation:
        return evidence
    minus = {b: {n: -a for n, a in sums.items()} for b, sums in other.buckets.items()}
    return summed(policy, [evidence, other._replace(buckets=minus)])._replace(latest=evidence.latest)


def like(policy: EvidencePolicy, arm: str) -> Sums:
    """Return arrays that have the names, shapes and types of the evidence on an arm."""
    evidence = policy.evidence(arm) if arm in policy.shared_names else policy.empty_evidence()
    return next(iter(evidence.buckets.values()), next(iter(policy.empty_evidence().buckets.values())))


class LocalEvidence:
    """A replica's own cumulative evidence, kept beside the statistics of its policy.

    ``initial`` is what the policy had learned before: it counts once, and is never published. ``own`` is what was
    learned since, and ``versions`` how often that changed, both by arm; an arm may be one that only others have.

    Parameters
    ----------
    policy : EvidencePolicy
        Says what one more reward adds.
    arms : tuple of str
        Those whose evidence so far is initial.

    Notes
    -----
    A reward costs what its sums cost in an update. Not locked: the Router's lock covers it.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> local = LocalEvidence(LinUCB(["a", "b"], 2), ("a", "b"))
    >>> local.learn("a", np.array([1.0, 2.0]), 0.5, at=0)
    >>> local.initial, local.versions
    ({}, {'a': 1})
    """

    def __init__(self, policy: EvidencePolicy, arms: tuple[str, ...] = ()) -> None:
        self.policy = policy
        self.own: dict[str, ArmEvidence] = {}
        self.versions: dict[str, int] = {}
        self._shown: set[str] = set()  # arms whose arrays others hold: the next reward copies them first
        told = {arm: policy.evidence(arm) for arm in (*arms, *(policy.shared_names if arms else ()))}
        self.initial = {arm: evidence for arm, evidence in told.items() if holds(evidence)}

    def learn(self, arm: str, x: Floats, reward: float, *, at: int, generation: int | None = None) -> None:
        """Count one reward of a decision made at index `at` of the common clock, of an arm of this generation."""
        if generation is None:
            generation = self.policy.generation(arm)
        own = self.own.get(arm)
        if own is None or own.generation < generation:  # the arm was forgotten: it starts anew
            shared = arm in self.policy.shared_names
            own = self._nothing(arm) if shared else self.policy.empty_evidence()
            own = own._replace(generation=generation)
        elif arm in self._shown:
            own = copied(own)
        self._shown.discard(arm)
        self.own[arm] = self.policy.credit(own, x, reward, at=at)
        self._changed(arm)

    def _nothing(self, name: str) -> ArmEvidence:
        evidence = self.policy.evidence(name)
        zeros = {b: {n: np.zeros_like(a) for n, a in sums.items()} for b, sums in evidence.buckets.items()}
        return evidence._replace(latest=-1, buckets=zeros)

    def _changed(self, name: str) -> None:
        self.versions[name] = self.versions.get(name, 0) + 1

    def show(self, arm: str) -> ArmEvidence:
        """Return the own evidence on an arm as it is now: nobody writes into it any more. It costs nothing here."""
        self._shown.add(arm)
        return self.own[arm]

    def put(self, arm: str, evidence: ArmEvidence) -> None:
        """Put evidence in the place of the own evidence on an arm."""
        self.own[arm] = evidence
        self._changed(arm)

    def forget(self, arm: str) -> None:
        """Drop the own evidence on an arm."""
        self.own.pop(arm, None)
        self.versions.pop(arm, None)

    def restart(self, evidence: Mapping[str, ArmEvidence]) -> None:
        """Start anew with evidence that counts in the place of everything before."""
        self.initial, self.versions = {}, {}
        self.own = {arm: own for arm, own in evidence.items() if holds(own)}
        for arm in self.own:
            self._changed(arm)

    def to_state(self) -> tuple[Header, Arrays]:
        """Return a JSON-able header and arrays, which stay as they are now; nothing is copied."""
        arrays: Arrays = {}
        header: Header = {"versions": dict(self.versions)}
        for which, parts in (("own", self.own), ("initial", self.initial)):
            rows = header[which] = []
            for i, (arm, evidence) in enumerate(sorted(parts.items())):
                rows.append([arm, evidence.generation, evidence.latest, sorted(evidence.buckets)])
                for bucket, sums in evidence.buckets.items():
                    arrays |= {f"{which}.{i}.{bucket}.{name}": array for name, array in sums.items()}
        self._shown.update(self.own)
        return header, arrays

    def load_state(self, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
        """Continue from `to_state`; raises ``ValueError`` where it does not fit, and changes nothing."""
        found: dict[str, dict[str, ArmEvidence]] = {"own": {}, "initial": {}}
        try:
            for which, parts in found.items():
                for i, (arm, generation, latest, filed) in enumerate(header[which]):
                    wanted, buckets = like(self.policy, str(arm)), {}
                    for bucket in map(int, filed):
                        sums = {name: np.array(arrays[f"{which}.{i}.{bucket}.{name}"]) for name in wanted}
                        check_sums(sums, wanted)
                        buckets[bucket] = sums
                    parts[str(arm)] = ArmEvidence(int(generation), int(latest), buckets)
            versions = {str(arm): int(v) for arm, v in header["versions"].items()}
        except (TypeError, LookupError, AttributeError) as error:
            raise ValueError(f"local evidence must be as it was stored, got {error!r}") from error
        self.own, self.initial = found["own"], found["initial"]
        self.versions = {arm: versions.get(arm, 1) for arm in self.own}
        self._shown = set()
