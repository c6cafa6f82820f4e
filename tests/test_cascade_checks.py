"""A cascade passes its contract, and every check fails one that breaks its rule."""

import pytest

from banditroute.terms import Cascade
from banditroute.testing import CASCADE_CHECKS, check_cascade

COSTS = [0.01, 0.1]


def test_the_cascade_passes():
    assert check_cascade(lambda router: Cascade(router, COSTS)) == [
        check.__name__ for check in CASCADE_CHECKS
    ]


class BelievesEveryConfidence(Cascade):
    def look(self, decision, confidence, *, cost=None, **told):
        second = (
            self.router.select([1.0], eligible={"large"})
            if decision.arm == "small" and confidence < 0.0
            else None
        )
        if second is not None:
            self.router.update(decision.id, 0.5, cost=cost)
        return second


class AsksAnyone(Cascade):
    def look(self, decision, confidence, *, cost=None, **told):
        second = self.router.select([1.0]) if confidence < 0.0 else None
        if second is not None:
            self.router.update(decision.id, 0.5, cost=cost)
        return second


class NeverAsks(Cascade):
    def look(self, decision, confidence, *, cost=None, **told):
        return None


class LeavesTheFirstOpen(Cascade):
    def look(self, decision, confidence, *, cost=None, **told):
        return (
            self.router.select([1.0], eligible={"large"})
            if decision.arm == "small" and confidence < 0.0
            else None
        )


class ForgetsWhatItLearned(Cascade):
    def load_state(self, header, arrays):
        pass


BROKEN = [
    ("cascade_ignores_a_useless_confidence", BelievesEveryConfidence),
    ("cascade_keeps_to_masks_and_asks_once", AsksAnyone),
    ("cascade_keeps_to_masks_and_asks_once", BelievesEveryConfidence),
    ("cascade_keeps_to_masks_and_asks_once", NeverAsks),
    ("cascade_books_every_call", LeavesTheFirstOpen),
    ("cascade_state_continues", ForgetsWhatItLearned),
]


@pytest.mark.parametrize(("name", "kind"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_a_broken_cascade_fails(name, kind):
    check = next(check for check in CASCADE_CHECKS if check.__name__ == name)
    with pytest.raises(AssertionError):
        check(lambda router: kind(router, COSTS))


def test_every_check_has_a_broken_cascade():
    assert {name for name, _ in BROKEN} == {check.__name__ for check in CASCADE_CHECKS}
