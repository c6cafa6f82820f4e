"""Every term passes every check, and every check fails a term that breaks its rule."""

import itertools

import numpy as np
import pytest

from banditroute.terms import ArmHealth, BaseTerm, BudgetPacer, CostModels, QualityFloor, Queues, Sessions
from banditroute.testing import TERM_CHECKS, TermDriver, check_term

TERMS = {
    "BudgetPacer": lambda arms: BudgetPacer(1.0, [0.5, 1.0, 4.0], burst=5.0),
    "BudgetPacer-none": lambda arms: BudgetPacer(np.inf, [0.5, 1.0, 4.0]),
    "QualityFloor": lambda arms: QualityFloor(0.6, [1.0, 2.0, 5.0]),
    "Queues": lambda arms: Queues([1.0, 2.0, 3.0], per_second=0.1, slots=[1, 2, 1]),
    "ArmHealth": lambda arms: ArmHealth(arms, limits=(1, 2), cooldown_s=20.0),
    "ArmHealth-bound-later": lambda arms: ArmHealth(),
    "CostModels": lambda arms: CostModels(arms, 2, weights={"usd": 0.1, "seconds": 0.1}),
    "Sessions": lambda arms: Sessions([0.1, 0.2, 0.3], idle_s=60.0, limit=4),
    "Sessions-alike": lambda arms: Sessions(0.1),
    "BaseTerm": lambda arms: BaseTerm(),
}


@pytest.mark.parametrize("check", TERM_CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", TERMS)
def test_term_passes(name, check):
    assert check(TERMS[name]) is True


def test_check_term_names_what_it_ran():
    assert check_term(TERMS["Queues"]) == [check.__name__ for check in TERM_CHECKS]


@pytest.mark.parametrize("name", TERMS)
def test_a_term_shows_its_state_in_a_line(name):
    term = TERMS[name](("a", "b", "c"))
    text = repr(term)
    assert text.startswith(type(term).__name__ + "(") and "\n" not in text and len(text) < 160


@pytest.mark.parametrize("name", [name for name in TERMS if "health" not in name.lower()])
def test_a_term_for_other_arms_is_refused_and_stays_as_it_was(name):
    term = TERMS[name](("a", "b", "c"))
    if term.named or not term.arms:
        return  # it follows any names
    before = term.to_state()
    with pytest.raises(ValueError, match="arms"):
        TermDriver([term], ["a", "b"])
    assert repr(term.to_state()) == repr(before)


# -- broken on purpose: each class breaks the rule it is listed under -----------------------------------------------


class PricesWithNaN(Queues):
    def prices(self, request=None, *, weights=None):
        return np.full(len(self.arms), np.nan)


class PricesTooFew(Sessions):
    def prices(self, request=None, *, weights=None):
        return np.zeros(1)


class CountsWhoAsks(Queues):
    def prices(self, request=None, *, weights=None):
        self.depth = self.depth + 0.001
        return super().prices(request)


class ForgetsToRing(Queues):
    def ring(self):
        pass


class KeepsThePlace(Queues):  # a place in the queue that is never given back
    def release(self, arm, held=None, /):
        pass


class AccruesForNothing(BudgetPacer):  # a request that came to nothing still brought its budget
    def release(self, arm, held=0.0, /):
        self.reserved -= held
        self._money += held
        self.price *= 1.0001


class SavesHalf(Queues):
    def load_state(self, header, arrays):
        super().load_state(header, arrays | {"depth": np.zeros(len(header["arms"]))})


class KeepsTheArrays(Queues):
    def load_state(self, header, arrays):
        super().load_state(header, arrays)
        self.depth = arrays["depth"]


class StoresObjects(Queues):
    def to_state(self):
        header, arrays = super().to_state()
        return header | {"self": self}, arrays


RNG = itertools.count()


class DrawsNumbers(Queues):
    def reserve(self, arm, request=None, /):
        self.service_s = self.service_s + next(RNG) * 1e-9
        return super().reserve(arm, request)


class RemembersWhoLeft(Sessions):
    def forget(self, name):
        pass


class LosesItsShape(Queues):
    def resize(self, keep):
        pass


class ChokesOnTheGone(Queues):
    def position(self, arm):
        return self.index(arm)


class ChangesBeforeItChecks(Queues):
    def add_arm(self, name, service_s=None, *, slots=1.0):
        self.depth = self.depth + 1.0
        super().add_arm(name, service_s, slots=slots)


class TakesAnything(Queues):
    def load_state(self, header, arrays):
        self.depth = np.nan_to_num(np.resize(arrays.get("depth", 0.0), len(self.arms)))


class BelievesWhoSpeaksLast(Sessions):
    def take(self, notes):
        for note in notes:
            self._warm.setdefault(note.key, {})[note.arm] = (note.value, note.time)
        return []


QUEUES = {"service_s": [1.0, 2.0, 3.0], "per_second": 0.1}
BROKEN = [
    ("term_prices_are_prices", lambda arms: PricesWithNaN(**QUEUES)),
    ("term_prices_are_prices", lambda arms: PricesTooFew(0.1)),
    ("term_reading_changes_nothing", lambda arms: CountsWhoAsks(**QUEUES)),
    ("term_rings_when_its_row_changed", lambda arms: ForgetsToRing(**QUEUES)),
    ("term_release_leaves_nothing", lambda arms: KeepsThePlace(**QUEUES)),
    ("term_release_leaves_nothing", lambda arms: AccruesForNothing(1.0, [0.5, 1.0, 4.0])),
    ("term_state_continues", lambda arms: SavesHalf(**QUEUES)),
    ("term_state_continues", lambda arms: KeepsTheArrays(**QUEUES)),
    ("term_state_continues", lambda arms: StoresObjects(**QUEUES)),
    ("term_replay_rebuilds_it", lambda arms: DrawsNumbers(**QUEUES)),
    ("term_arms_come_and_go", lambda arms: RemembersWhoLeft(0.1)),
    ("term_arms_come_and_go", lambda arms: LosesItsShape(**QUEUES)),
    ("term_survives_arms_that_are_gone", lambda arms: ChokesOnTheGone(**QUEUES)),
    ("term_errors_change_nothing", lambda arms: ChangesBeforeItChecks(**QUEUES)),
    ("term_errors_change_nothing", lambda arms: TakesAnything(**QUEUES)),
    ("term_notes_agree", lambda arms: BelievesWhoSpeaksLast(0.1)),
]


@pytest.mark.parametrize(
    ("name", "factory"), BROKEN, ids=lambda value: value if isinstance(value, str) else ""
)
def test_broken_term_fails(name, factory):
    check = next(check for check in TERM_CHECKS if check.__name__ == name)
    with pytest.raises(Exception) as caught:
        check(factory)
    assert isinstance(caught.value, AssertionError | ValueError | LookupError | TypeError)


def test_every_check_has_a_broken_term():
    assert {name for name, _ in BROKEN} == {check.__name__ for check in TERM_CHECKS}
