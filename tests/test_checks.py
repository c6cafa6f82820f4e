"""Every policy passes every check that applies to it, and every check fails a policy that breaks its rule."""

import numpy as np
import pytest

from banditroute import DiagLinUCB, EpsilonGreedy, LinTS, LinUCB, Policy
from banditroute._core.kernels import layout
from banditroute.policies import Choice, Scores, Utilities
from banditroute.testing import CHECKS, check_policy

MEANS = np.random.default_rng(0).standard_normal((4, 3))


class Frequencies(Policy):
    """Counts successes and knows nothing of contexts: a policy that shares no code with the linear ones."""

    def __init__(self, arms, dim, rng=None):
        super().__init__(arms, dim, rng=rng)
        self._sums = np.zeros((2, len(self.arms)))

    def scores(self, x):
        self.check_context(x)
        won, tried = self._sums
        return Scores((1.0 + won) / (2.0 + tried), 1.0 / np.sqrt(2.0 + tried))

    def propensities(self, x, *, prices=None, eligible=None):
        mean, std = self.scores(x)
        offers = self.effective_prices(prices, eligible)
        index = mean + std - (offers - offers.min())
        best = (index == index.max()) / np.sum(index == index.max())
        allowed = np.isfinite(offers)
        return 0.75 * best + 0.25 * allowed / allowed.sum()

    def update(self, arm, x, reward, *, weight=1.0, at=None):
        a, (value, mass) = self.index(arm), self.check_reward(reward, weight)
        self.check_context(x)
        if at is not None and not (type(at) is int and 0 <= at < 2**52):
            raise ValueError(f"at must be a clock index, got {at}")
        self._sums[:, a] += mass * value, mass

    def to_state(self):
        return {"arms": list(self.arms), "rng": self._rng.bit_generator.state}, {"sums": self._sums.copy()}

    def load_state(self, header, arrays):
        self.rename(tuple(header["arms"]))
        self._sums, self._rng.bit_generator.state = arrays["sums"], header["rng"]

    def resize(self, keep):
        self._sums = np.array([np.zeros(2) if a is None else self._sums[:, a] for a in keep]).T


POLICIES = {
    "LinUCB": lambda rng: LinUCB(4, 3, rng=rng),
    "LinUCB-textbook": lambda rng: LinUCB(9, 5, alpha=1.0, ridge=10.0, prior=None, rng=rng),
    "LinUCB-means": lambda rng: LinUCB(4, 3, alpha=0.3, ridge=0.1, prior=MEANS, mix=0.2, rng=rng),
    "LinUCB-forgetting": lambda rng: LinUCB(5, 11, discount=0.95, mix=0.1, rng=rng),
    "LinUCB-forgetting-fast": lambda rng: LinUCB(
        3, 2, alpha=0.2, ridge=1.0, discount=0.5, prior=None, rng=rng
    ),
    "LinUCB-intercept": lambda rng: LinUCB(4, 3, intercept=True, rng=rng),
    "LinTS": lambda rng: LinTS(4, 3, rng=rng),
    "DiagLinUCB": lambda rng: DiagLinUCB(4, 3, mix=0.1, rng=rng),
    "EpsilonGreedy": lambda rng: EpsilonGreedy(4, 3, epsilon=0.2, rng=rng),
    "Frequencies": lambda rng: Frequencies(4, 3, rng=rng),
}
# What does not apply: no matrices, forgetting (tests of its own in test_linear), arms that do not start alike.
LEFT_OUT = {
    "LinUCB-means": {"arm_order_does_not_matter"},
    "LinUCB-forgetting": {"online_equals_batch"},
    "LinUCB-forgetting-fast": {"online_equals_batch"},
    "LinTS": {"utilities_decide"},  # it samples
    "Frequencies": {
        "cold_start_is_exact",
        "online_equals_batch",
        "utilities_decide",
        "evidence_adds_up",
        "lists_explore_one_place",
    },
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", POLICIES)
def test_policy_passes(name, check):
    assert check(POLICIES[name]) is (check.__name__ not in LEFT_OUT.get(name, set()))


def test_check_policy_names_what_it_ran():
    names = [check.__name__ for check in CHECKS]
    assert check_policy(POLICIES["LinUCB"]) == names
    assert check_policy(POLICIES["Frequencies"]) == [n for n in names if n not in LEFT_OUT["Frequencies"]]


# -- broken on purpose: each class breaks the rule it is listed under -----------------------------------------------


class OffersTheIneligible(LinUCB):
    def propensities(self, x, *, prices=None, eligible=None):
        return 0.9 * super().propensities(x, prices=prices, eligible=eligible) + 0.1 / len(self.arms)


class FavoursTheFirstOfEquals(LinUCB):
    def propensities(self, x, *, prices=None, eligible=None):
        given = super().propensities(x, prices=prices, eligible=eligible)
        return np.eye(len(given))[given.argmax()]


class ForgetsItsMixture(LinUCB):  # reports 1 although a fifth of its choices are uniform
    def select(self, x, *, prices=None, eligible=None):
        return Choice(super().select(x, prices=prices, eligible=eligible).arm, 1.0)

    def propensities(self, x, *, prices=None, eligible=None):
        given = super().propensities(x, prices=prices, eligible=eligible)
        return np.asarray(given == given.max(), dtype=float)


class LogsAnotherPropensity(LinUCB):
    def select(self, x, *, prices=None, eligible=None):
        return Choice(super().select(x, prices=prices, eligible=eligible).arm, 0.5)


class LearnsFromScoring(LinUCB):
    def scores(self, x):
        self.state.arm[:, layout.A_COUNT] += 1.0
        return super().scores(x)


class LearnsFromChoosing(LinUCB):  # counts a choice as if its reward were the mean
    def select(self, x, *, prices=None, eligible=None):
        choice = super().select(x, prices=prices, eligible=eligible)
        self.update(choice.arm, x, float(self.scores(x).mean[choice.arm]))
        return choice


class StartsFromTheRidge(LinUCB):  # the classic slip: A^-1 starts at ridge I instead of I / ridge
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.state.cov *= self.ridge**2
        self.state.arm[:, layout.A_RADIUS] *= self.ridge


class RegressesOnRewardLessPrice(LinUCB):
    def update(self, arm, x, reward, *, weight=1.0, at=None):
        super().update(arm, x, reward - 0.01, weight=weight, at=at)


class IgnoresWeights(LinUCB):
    def update(self, arm, x, reward, *, weight=1.0, at=None):
        super().update(arm, x, reward, at=at)


class ForgetsByArrival(LinUCB):  # discounts by the order of arrival, not by the clock of the decision
    def update(self, arm, x, reward, *, weight=1.0, at=None):
        super().update(arm, x, reward, weight=weight)


class LearnsTheLastContext(LinUCB):
    def select(self, x, *, prices=None, eligible=None):
        self._last = np.array(x, dtype=float)
        return super().select(x, prices=prices, eligible=eligible)

    def update(self, arm, x, reward, *, weight=1.0, at=None):
        super().update(arm, getattr(self, "_last", x), reward, weight=weight, at=at)


class CountsBeforeItChecks(LinUCB):
    def update(self, arm, x, reward, *, weight=1.0, at=None):
        self.state.arm[0, layout.A_COUNT] += 1.0
        super().update(arm, x, reward, weight=weight, at=at)


class AcceptsNaN(LinUCB):
    def update(self, arm, x, reward, *, weight=1.0, at=None):
        if reward == reward:
            super().update(arm, x, reward, weight=weight, at=at)


class DrawsBeforeItChecks(LinUCB):
    def select(self, x, *, prices=None, eligible=None):
        self._rng.random()
        return super().select(x, prices=prices, eligible=eligible)


class RemovesTheWrongArm(LinUCB):
    def resize(self, keep):
        super().resize([a if a is None else i for i, a in enumerate(keep)])


class RemembersWhoLeft(LinUCB):
    def remove_arm(self, name):
        a = self.index(name)
        self._left = name, self.state.theta[a].copy()
        super().remove_arm(name)

    def add_arm(self, name):
        a = super().add_arm(name)
        if getattr(self, "_left", (None,))[0] == name:
            self.state.theta[a] = self._left[1]
        return a


class PrefersTheLast(LinUCB):
    def update(self, arm, x, reward, *, weight=1.0, at=None):
        super().update(arm, x, reward + 0.01 * self.index(arm), weight=weight, at=at)


class ForgetsItsGenerator(LinUCB):
    def load_state(self, header, arrays):
        super().load_state({**header, "rng": self._rng.bit_generator.state}, arrays)
        self.state.buffer[layout.H_CURSOR] = self.state.buffer[layout.H_ROWS]


class SharesItsCopies(LinUCB):
    def copy(self):
        return self


class DrawsFromElsewhere(LinUCB):
    def __init__(self, *args, rng=None, **options):
        super().__init__(*args, rng=np.random.default_rng(), **options)


class DrawsOnlyWhenItMatters(LinUCB):  # saves a random number where one arm is eligible
    def select(self, x, *, prices=None, eligible=None):
        if eligible is not None and np.sum(eligible) == 1:
            return Choice(int(np.argmax(eligible)), 1.0)
        return super().select(x, prices=prices, eligible=eligible)


class KeepsTheArray(LinUCB):  # learns one update late, from an array that is not its own
    def update(self, arm, x, reward, *, weight=1.0, at=None):
        if hasattr(self, "_late"):
            super().update(*self._late)
        self._late = arm, x, reward


class CentresInPlace(LinUCB):
    def update(self, arm, x, reward, *, weight=1.0, at=None):
        x -= np.mean(x)
        super().update(arm, x, reward, weight=weight, at=at)


class RoundsToTheDtype(LinUCB):  # normalises in the dtype it is given
    def update(self, arm, x, reward, *, weight=1.0, at=None):
        x = np.asarray(x)
        super().update(arm, x / np.sqrt(x @ x), reward, weight=weight, at=at)


class ScalesPrices(LinUCB):  # prices multiply instead of being subtracted
    def effective_prices(self, prices, eligible):
        offers = super().effective_prices(prices, eligible)
        return offers * np.arange(1.0, len(self.arms) + 1.0)


class DrawsForResidency(LinUCB):
    def utilities(self, contexts):
        self.select(contexts[0])
        return super().utilities(contexts)


class PrunesTooMuch(LinUCB):
    def update(self, arm, x, reward, *, weight=1.0, at=None):
        super().update(arm, x, reward, weight=weight, at=at)
        self.state.arm[:, layout.A_RADIUS] *= 0.7


class MaximisesSomethingElse(LinUCB):
    def utilities(self, contexts):
        mean, bonus = super().utilities(contexts)
        return Utilities(mean, 3.0 * bonus)


class FreezesTheMeansOnly(LinUCB):
    def freeze(self):
        *_, found = super().freeze()
        yield lambda contexts: Utilities(found(contexts).mean, 0.0 * found(contexts).bonus)


class GivesTooMuchAway(LinUCB):  # counts the prior with every part
    def evidence(self, arm):
        given = super().evidence(arm)
        for sums in given.buckets.values():
            sums["gram"] += 0.1
        return given


class CreditsWithoutTheWeight(LinUCB):
    def credit(self, evidence, x, reward, weight=1.0, at=0):
        return super().credit(evidence, x, 0.5, weight, at)


class RemembersTheForgotten(LinUCB):
    def forget(self, arm):
        self.set_generation("0", self.generation("0") + 1)


class ForgetsInSilence(LinUCB):  # old evidence from elsewhere will come back
    def forget(self, arm):
        before = dict(self.generations)
        super().forget(arm)
        self.generations = before


class ReseedsHalf(LinUCB):  # in a way that all processes share
    def reseed(self):
        self._rng = np.random.default_rng(0)
        self.draw_noise()


class ReseedsAndForgets(LinUCB):
    def reseed(self):
        super().reseed()
        self.forget(0)


class MaximisesAnotherBonus(LinUCB):
    def utilities(self, contexts):
        mean, bonus = super().utilities(contexts)
        return Utilities(mean - bonus, bonus[:, ::-1])


class DrawsToExplain(LinUCB):
    def utilities(self, contexts):
        self._rng.random()
        return super().utilities(contexts)


class PlaysTheClosed(LinUCB):
    def select_priced(self, x, offers):
        return super().select_priced(x, np.zeros(len(offers)))


class PlaysAnotherRule(LinUCB):
    def propensities(self, x, *, prices=None, eligible=None):
        offers = self.effective_prices(prices, eligible)
        return np.isfinite(offers) / np.isfinite(offers).sum()


def made(broken, **options):
    return lambda rng: broken(4, 3, rng=rng, **options)


BROKEN = [
    ("propensities_are_a_distribution", made(OffersTheIneligible)),
    ("propensities_are_a_distribution", made(FavoursTheFirstOfEquals)),
    ("propensity_is_the_frequency", made(ForgetsItsMixture, mix=0.2)),
    ("propensity_is_the_frequency", made(LogsAnotherPropensity)),
    ("reading_changes_nothing", made(LearnsFromScoring)),
    ("reading_changes_nothing", made(LearnsFromChoosing)),
    ("cold_start_is_exact", made(StartsFromTheRidge, ridge=0.1)),
    ("online_equals_batch", made(RegressesOnRewardLessPrice)),
    ("online_equals_batch", made(IgnoresWeights)),
    ("feedback_order_does_not_matter", made(ForgetsByArrival, discount=0.9)),
    ("feedback_is_learned_once_with_its_own_context", made(LearnsTheLastContext)),
    ("errors_change_nothing", made(CountsBeforeItChecks)),
    ("errors_change_nothing", made(AcceptsNaN)),
    ("errors_change_nothing", made(DrawsBeforeItChecks)),
    ("arms_come_and_go", made(RemovesTheWrongArm)),
    ("arms_come_and_go", made(RemembersWhoLeft)),
    ("arm_order_does_not_matter", made(PrefersTheLast)),
    ("saved_state_continues", made(ForgetsItsGenerator, mix=0.5)),
    ("saved_state_continues", made(SharesItsCopies, mix=0.5)),
    ("same_seed_same_trace", made(DrawsFromElsewhere, mix=0.5)),
    ("draws_do_not_depend_on_the_outcome", made(DrawsOnlyWhenItMatters, mix=0.5)),
    ("arrays_of_the_caller_are_left_alone", made(KeepsTheArray)),
    ("arrays_of_the_caller_are_left_alone", made(CentresInPlace)),
    ("equal_contexts_count_alike", made(RoundsToTheDtype)),
    ("equal_prices_change_nothing", made(ScalesPrices)),
    ("free_residency_changes_nothing", made(DrawsForResidency, mix=0.5)),
    ("choice_agrees_with_a_full_scan", made(PrunesTooMuch, alpha=1.0, prior=None, ridge=1.0)),
    ("utilities_decide", made(MaximisesSomethingElse)),
    ("utilities_decide", made(FreezesTheMeansOnly)),
    ("evidence_adds_up", made(GivesTooMuchAway)),
    ("evidence_adds_up", made(CreditsWithoutTheWeight)),
    ("forgotten_arms_start_cold", made(RemembersTheForgotten)),
    ("forgotten_arms_start_cold", made(ForgetsInSilence)),
    ("reseeded_policies_draw_apart", made(ReseedsHalf)),
    ("reseeded_policies_draw_apart", made(ReseedsAndForgets)),
    ("explanations_add_up", made(MaximisesAnotherBonus, alpha=1.0)),
    ("explanations_add_up", made(DrawsToExplain)),
    ("lists_explore_one_place", made(PlaysTheClosed)),
    ("lists_explore_one_place", made(PlaysAnotherRule)),
]


@pytest.mark.parametrize(("name", "factory"), BROKEN, ids=lambda value: getattr(value, "__name__", value))
def test_broken_policy_fails(name, factory):
    check = next(check for check in CHECKS if check.__name__ == name)
    with pytest.raises(AssertionError):
        check(factory)


def test_every_check_has_a_broken_policy():
    assert {name for name, _ in BROKEN} == {check.__name__ for check in CHECKS}
