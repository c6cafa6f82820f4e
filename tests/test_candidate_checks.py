"""Policies that take candidates pass their contract, and every check fails one that breaks its rule."""

import numpy as np
import pytest

from banditroute.policies import Choice, HybridLinUCB, SharedLinUCB, SlidingWindow
from banditroute.testing import CANDIDATE_CHECKS, check_candidates

POLICIES = {
    "shared": lambda rng: SharedLinUCB([], 2, features=3, mix=0.2, rng=rng),
    "shared-arms": lambda rng: SharedLinUCB(["a", "b"], 2, features=3, rng=rng),
    "products": lambda rng: SharedLinUCB([], 2, features=3, interactions=True, mix=0.2, rng=rng),
    "window": lambda rng: SlidingWindow(SharedLinUCB(["a", "b"], 2, features=3, mix=0.2, rng=rng), 5000),
    "hybrid": lambda rng: HybridLinUCB(["a", "b"], 2, features=3, mix=0.2, rng=rng),
    "disjoint-prior": lambda rng: HybridLinUCB(
        ["a", "b"], 2, features=3, interactions=True, mix=0.2, rng=rng
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_policy_passes(name):
    assert check_candidates(POLICIES[name]) == [check.__name__ for check in CANDIDATE_CHECKS]


class ForgetsItsMixture(SharedLinUCB):
    def choose_candidate(self, x, names, features, prices):
        return Choice(super().choose_candidate(x, names, features, prices).arm, 1.0)


class PrefersTheFirst(SharedLinUCB):
    def _scored(self, x, z, places):
        mean, width = super()._scored(x, z, places)
        return mean - 0.1 * np.arange(len(mean)), width


class LearnsTheLastCandidate(SharedLinUCB):
    last = None

    def choose_candidate(self, x, names, features, prices):
        choice = super().choose_candidate(x, names, features, prices)
        type(self).last = features[choice.arm].copy()
        return choice

    def update(self, arm, x, reward, *, weight=1.0, at=None):
        row = x if self.last is None else np.concatenate([x[: self.dim], self.last])
        super().update(arm, row, reward, weight=weight, at=at)


class KeepsTheArray(SharedLinUCB):
    def choose_candidate(self, x, names, features, prices):
        self.matrix = features
        return super().choose_candidate(x, names, features, prices)

    def kept_candidate(self, x, features):
        return np.concatenate([x, features + (self.matrix[0] if hasattr(self, "matrix") else 0.0)])


class DrawsBeforeItChecks(SharedLinUCB):
    def select_candidate(self, x, candidates, prices=None):
        self._rng.random()
        return super().select_candidate(x, candidates, prices)


class KeepsGuestsToItself(SharedLinUCB):
    def evidence(self, arm):
        found = super().evidence(arm)
        return found._replace(buckets={0: {n: a / 2.0 for n, a in found.buckets[0].items()}})


BROKEN = [
    ("candidate_propensities_are_frequencies", ForgetsItsMixture),
    ("candidate_order_does_not_matter", PrefersTheFirst),
    ("candidates_are_learned_as_they_were", LearnsTheLastCandidate),
    ("candidates_are_learned_as_they_were", KeepsTheArray),
    ("candidate_errors_change_nothing", DrawsBeforeItChecks),
    ("evidence_of_guests_adds_up", KeepsGuestsToItself),
]


@pytest.mark.parametrize(("name", "broken"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_broken_policy_fails(name, broken):
    check = next(check for check in CANDIDATE_CHECKS if check.__name__ == name)
    with pytest.raises(AssertionError):
        check(lambda rng: broken([], 2, features=3, mix=0.3, rng=rng))


def test_every_check_has_a_broken_policy():
    assert {name for name, _ in BROKEN} == {check.__name__ for check in CANDIDATE_CHECKS}
