"""Late, lost, repeated and hostile feedback; and any order of calls keeps the books straight."""

import sys
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from banditroute import LRU, LinUCB, Polar, Router, UnknownArm, UnknownDecision
from banditroute.router import RewardLimits


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def made(**options):
    policy = LinUCB(["a", "b", "c"], 2, alpha=1.0, ridge=1.0, prior=None, rng=0)
    return Router(policy, clock=Clock(), **options)


ONE = np.array([1.0, 0.0])


@pytest.mark.parametrize("stated", [1e31, -1e200, np.nan])
def test_a_reward_of_expiry_that_no_policy_would_learn_is_refused_at_once(stated):
    with pytest.raises(ValueError, match="expired_reward"):
        made(expired_reward=stated)


@pytest.mark.parametrize(("stated", "learned", "moment"), [(None, 0, 0.0), (-2.0, 3, -6.0), (0.0, 3, 0.0)])
def test_expired_decisions_are_forgotten_or_count_as_stated(stated, learned, moment):
    router = made(feedback_limit_s=10.0, expired_reward=stated)
    ids = [router.select(ONE).id for _ in range(3)]
    router.parts.books.clock.now = 10.5
    stats = router.stats()
    assert (stats["expired"], stats["learned"], stats["pending"]) == (3, learned, 0)
    assert router.policy.state.moment.sum() == moment
    assert [router.update(i, 1.0) for i in ids] == [False] * 3
    assert router.stats()["late"] == 3 and router.policy.state.moment.sum() == moment


def test_expiry_needs_no_one_to_ask():
    """Requests alone keep the books short: no call of stats, no late answer."""
    router = made(feedback_limit_s=10.0)
    for i in range(2000):
        router.parts.books.clock.now = float(i)
        router.select(ONE)
    assert len(router.parts.ledger.pending) <= 10 + 64


def test_memory_is_bounded_under_a_client_that_never_answers():
    router = made(pending_limit=100, sources={"judge": RewardLimits(0.0, 1.0)})
    for i in range(5000):
        router.update(router.select(ONE).id, 0.5, source=f"made up {i}") if i % 10 == 0 else router.select(
            ONE
        )
    assert len(router.parts.ledger.pending) <= 100 and len(router.parts.ledger.closed) <= 100
    assert len(router._limits.counts) == 2 and sys.getsizeof(router.parts.ledger._ids) < 10_000
    assert router.stats()["sources"]["*"]["taken"] == 500


def test_pending_widths_spread_a_burst_and_are_rolled_back():
    def burst(router):
        return len({router.select(ONE).arm for _ in range(30)})

    herd, spread = made(feedback_limit_s=5.0), made(feedback_limit_s=5.0, spread_pending=True)
    for router in (herd, spread):
        for arm in "abc":
            router.policy.update(arm, ONE, 0.1 * (arm == "a"))
    assert burst(herd) == 1 and burst(spread) == 3
    before = [spread.policy.precision(a).tolist() for a in "abc"]
    assert before == [herd.policy.precision(a).tolist() for a in "abc"]  # the statistics know nothing of it
    spread._clock.now = 6.0
    spread.stats()
    assert np.array_equal(spread.policy.state.arm[:, 4], np.ones(3))  # expiry undid it
    decision = spread.select(ONE)
    assert spread.policy.state.arm[:, 4].min() < 1.0
    spread.update(decision.id, 1.0)
    assert np.array_equal(spread.policy.state.arm[:, 4], np.ones(3))


def test_a_spread_width_is_that_of_the_plays_as_observations():
    """Along one direction the narrowed width is exactly that of a policy which had observed the pending plays."""
    router = made(spread_pending=True)
    twin = LinUCB(["a", "b", "c"], 2, alpha=1.0, ridge=1.0, prior=None, rng=0)
    for n in range(1, 6):
        decision = router.select(ONE, eligible=np.array([True, False, False]))
        twin.update("a", ONE, 0.0)
        std = router.policy.scores(ONE).width[0] * router.policy.state.arm[0, 4]
        assert std == pytest.approx(twin.scores(ONE).width[0], rel=1e-12), n
        assert 0.0 < decision.propensity <= 1.0


def test_sources_have_ranges_clips_and_rates():
    rules = {
        "judge": RewardLimits(0.0, 1.0),
        "clicks": RewardLimits(0.0, 1.0, clip=True),
        "bot": RewardLimits(per_s=2.0),
    }
    router = made(sources=rules)
    key = router.select(ONE).id
    with pytest.raises(ValueError, match=r"reward must be in \[0, 1\], got 3"):
        router.update(key, 3.0, source="judge")
    assert router.update(key, 3.0, source="clicks") is True
    assert router.policy.state.moment.sum() == 1.0
    ids = [router.select(ONE).id for _ in range(5)]
    assert [router.update(i, 1.0, source="bot") for i in ids] == [True, True, False, False, False]
    router.parts.books.clock.now += 1.0
    assert [router.update(i, 1.0, source="bot") for i in ids[2:]] == [True, True, False]
    counts = router.stats()["sources"]
    assert (
        counts["judge"]["refused"] == 1 and counts["clicks"]["clipped"] == 1 and counts["bot"]["capped"] == 4
    )
    with pytest.raises(TypeError, match="source must be a string"):
        router.update(ids[-1], 1.0, source=3)


@pytest.mark.parametrize(
    "bad", [(2.0, 1.0, False, 1.0), (0.0, float("nan"), False, 1.0), (0.0, 1.0, False, 0.0)]
)
def test_rules_that_make_no_sense_are_refused(bad):
    with pytest.raises(ValueError):
        RewardLimits(*bad)


def test_quarantine_stops_choice_and_learning_until_release():
    router = Router(LinUCB(["a", "b"], 2, mix=0.5, rng=0), LRU(1), 0.1)
    waiting = [router.select(ONE) for _ in range(40)]
    router.quarantine("b")
    before = router.policy.state.gram.copy()
    results = [router.update(d.id, 1.0) for d in waiting if d.arm == "b"]
    assert results and not any(results)
    assert np.array_equal(before, router.policy.state.gram)
    for _ in range(50):
        decision = router.select(ONE)
        assert (decision.arm, decision.propensity) == ("a", 1.0)
    with pytest.raises(ValueError, match="not quarantined"):
        router.select(ONE, eligible=np.array([False, True]))
    with pytest.raises(ValueError, match="last one"):
        router.quarantine("a")
    with pytest.raises(UnknownArm):
        router.quarantine("z")
    router.release("b")
    assert {router.select(ONE).arm for _ in range(50)} == {"a", "b"}


def test_canary_counters_tell_arms_apart():
    router = Router(LinUCB(["old", "canary"], 2, mix=1.0, rng=0))
    for _ in range(200):
        decision = router.select(ONE)
        router.update(decision.id, 0.9 if decision.arm == "old" else 0.1)
    arms = router.stats()["arms"]
    assert arms["old"]["mean_reward"] == pytest.approx(0.9) and arms["canary"][
        "mean_reward"
    ] == pytest.approx(0.1)
    assert arms["old"]["decisions"] + arms["canary"]["decisions"] == 200


def test_ids_cannot_be_guessed_from_others():
    router = made()
    ids = [router.select(ONE).id for _ in range(2000)]
    assert len(set(ids)) == 2000
    bits = np.unpackbits(
        np.array(ids, dtype=np.uint64).view(np.uint8)
    ).sum()  # 63 of each: the sign is not drawn
    assert abs(bits / (63 * 2000) - 0.5) < 6 * 0.5 / np.sqrt(63 * 2000)  # false alarm 2e-9
    for step in np.diff(np.array(ids, dtype=object))[:50]:
        with pytest.raises(UnknownDecision):
            router.update((ids[-1] + int(step)) % 2**63, 1.0)


class Books(RuleBasedStateMachine):
    """Any order of calls: what is counted adds up, and a call that raises changes nothing."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.router = Router(
            LinUCB(["a", "b", "c"], 2, mix=0.3, rng=0),
            Polar(1, epoch=7),
            0.1,
            feedback_limit_s=20.0,
            pending_limit=8,
            sources={"low": RewardLimits(-1.0, 1.0), "cap": RewardLimits(per_s=0.5)},
            spread_pending=True,
            clock=self.clock,
        )
        self.ids, self.learned, self.selected = [], 0, 0

    @rule(x=st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=3), mask=st.integers(0, 15))
    def select(self, x, mask):
        eligible = (
            None if mask > 7 else np.array([bool(mask & 1 << i) for i in range(len(self.router.policy.arms))])
        )
        before = self.router.parts.books.index, list(self.router.parts.ledger.pending.items())
        try:
            decision = self.router.select(x, eligible=eligible)
        except (ValueError, TypeError):
            waiting = list(self.router.parts.ledger.pending.items())
            assert (self.router.parts.books.index, waiting) == before
            return
        self.selected += 1
        self.ids.append(decision.id)
        assert 0.0 < decision.propensity <= 1.0
        arm = self.router.policy.index(decision.arm)
        assert eligible is None or eligible[arm]
        assert not self.router.parts.arms.muted[arm]

    @rule(
        pick=st.integers(0, 40),
        reward=st.floats(allow_nan=True),
        source=st.sampled_from([None, "low", "cap", "x"]),
    )
    def update(self, pick, reward, source):
        key = self.ids[-1 - pick % len(self.ids)] if self.ids and pick < 35 else pick
        before = self.router.parts.books.learned, self.router.policy.state.gram.copy()
        try:
            learned = self.router.update(key, reward, source=source)
        except (ValueError, TypeError, UnknownDecision):
            learned = False
        self.learned += learned
        if not learned:
            assert self.router.parts.books.learned == before[0]
            assert np.array_equal(self.router.policy.state.gram, before[1])

    @rule(seconds=st.floats(0.0, 15.0))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule(arm=st.sampled_from("abcd"), what=st.sampled_from(["quarantine", "release"]))
    def isolate(self, arm, what):
        with suppress(UnknownArm, ValueError):
            getattr(self.router, what)(arm)

    @rule(arm=st.sampled_from("abcd"), add=st.booleans())
    def edit(self, arm, add):
        with suppress(UnknownArm, ValueError):
            (self.router.add_arm if add else self.router.remove_arm)(arm)

    @invariant()
    def books_are_straight(self):
        router, ledger = self.router, self.router.parts.ledger
        stats = router.stats()
        assert stats["decisions"] == self.selected and stats["learned"] == self.learned
        assert len(ledger.pending) <= 8 and len(ledger.closed) <= 8
        pending = [sum(entry[0] == a for entry in ledger.pending.values()) for a in router.policy.arms]
        assert router.parts.arms.pending == pending
        assert not router.parts.arms.muted.all()
        state = router.policy.state
        assert (
            np.isfinite(state.gram).all() and np.isfinite(state.cov).all() and np.isfinite(state.theta).all()
        )
        assert ((state.arm[:, 4] > 0.0) & (state.arm[:, 4] <= 1.0)).all()
        assert len(router.resident) <= 1


TestBooks = Books.TestCase
TestBooks.settings = settings(max_examples=25, stateful_step_count=30, deadline=None, derandomize=True)
