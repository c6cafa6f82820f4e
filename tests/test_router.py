"""The Router against a model that keeps its books in lists, and under everything that goes wrong in service."""

import threading

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from banditroute import LFU, LRU, LinUCB, PagingModel, Polar, Router, Static, UnknownArm, UnknownDecision
from banditroute.policies import HybridLinUCB
from controllers import Forcing

DIM, LIMIT_S, SIZE = 3, 10.0, 6


def bits(router):
    """Return everything a Router keeps, but its store of unused ids, in a form that compares."""
    header, arrays = router.policy.to_state()
    found = [str(header), {name: array.tobytes() for name, array in arrays.items()}]
    ledger = router.parts.ledger
    found += [list(ledger.pending.items()).__repr__(), dict(ledger.closed)]
    found += [ledger.expired, ledger.late, ledger.duplicates, router.parts.books.load_price]
    books, table, residence = router.parts.books, router.parts.table, router.parts.residence
    found += [getattr(books, name) for name in books.COUNTERS]
    found.append(list(router.parts.arms.pending))
    found += [table.fault.values.tobytes(), router.parts.arms.offered.tobytes()]
    if residence is not None:
        found += [residence.faults.tobytes(), residence.loads.tobytes()]
    if router.residency is not None:
        resident, controller = router.parts.residence.actual, router.residency
        found += [resident.mask.tobytes(), resident.used, resident.page_ins, resident.evictions]
        found += [
            controller.needs.tobytes(),
            controller.used,
            controller.next_plan,
            repr(controller._rng.bit_generator.state),
        ]
        found += [list(getattr(controller, "_order", ())), getattr(controller, "seen", None)]
    return found


def contexts(n, dim=DIM, seed=0):
    return np.random.default_rng(seed).standard_normal((n, dim))


class Books:
    """What the ledger must do, with lists: decisions in order, the oldest first."""

    def __init__(self):
        self.pending, self.closed = [], []  # [id, arm or None, context, at, time], [id, answered]
        self.expired = self.late = self.duplicates = self.learned = self.dropped = 0

    def close(self, entry, answered):
        self.pending.remove(entry)
        self.closed = [*self.closed, [entry[0], answered]][-SIZE:]
        self.expired += not answered

    def open(self, entry):
        self.pending.append(entry)
        if len(self.pending) > SIZE:
            self.close(self.pending[0], False)

    def sweep(self, now):
        while self.pending and self.pending[0][4] <= now - LIMIT_S:
            self.close(self.pending[0], False)

    def answer(self, key, now):
        """Return (answer of `update`, entry to learn)."""
        entry = next((e for e in self.pending if e[0] == key), None)
        if entry is not None and entry[4] > now - LIMIT_S:
            self.close(entry, True)
            if entry[1] is None:
                self.dropped += 1
                return False, None
            self.learned += 1
            return True, entry
        if entry is not None:
            self.close(entry, False)
        answered = next((c[1] for c in self.closed if c[0] == key), None)
        if answered is None:
            return UnknownDecision, None
        self.duplicates += answered
        self.late += not answered
        return False, None


KINDS = {
    "plain": (lambda: None, {}),
    "LRU": (lambda: LRU(2), {"paging": 0.2}),
    "LFU": (lambda: LFU(2), {"paging": 0.2}),
    "Polar": (lambda: Polar(2, epoch=5), {"paging": PagingModel()}),
    "Forcing": (lambda: Forcing(2, epoch=7, rng=0), {"paging": 0.3}),
}
POLICIES = {
    "textbook": {"alpha": 0.5, "ridge": 0.5, "prior": None},
    "default": {},
    "forgetting": {"alpha": 0.5, "ridge": 0.5, "discount": 0.9, "mix": 0.2},
}
NUMBER = st.floats(-5, 5, width=32)
CONTEXT = st.lists(NUMBER, min_size=DIM, max_size=DIM)
BAD_CONTEXTS = [
    [np.nan, 0.0, 0.0], [np.inf, 0, 0], [1e200, 0, 0], [1.0], [[1.0, 2.0, 3.0]], None, "abc", ["a", "b", "c"],
    np.array([np.nan, 0.0, 0.0]), np.array([1e200, 0.0, 0.0]), np.ones(4), np.ones((1, 3)), [1j, 0, 0],
]  # fmt: skip


class Machine(RuleBasedStateMachine):
    """Random service: the Router, a model of its books, and a bare policy that learns what the model says."""

    @initialize(kind=st.sampled_from(sorted(KINDS)), policy=st.sampled_from(sorted(POLICIES)))
    def start(self, kind, policy):
        make, options = KINDS[kind]
        self.now, self.serial = 100.0, 3
        self.router = Router(
            LinUCB(["a0", "a1", "a2"], DIM, rng=0, **POLICIES[policy]),
            make(),
            **options,
            feedback_limit_s=LIMIT_S,
            pending_limit=SIZE,
            clock=lambda: self.now,
        )
        self.kind, self.books, self.made = kind, Books(), 0
        self.twin = LinUCB(["a0", "a1", "a2"], DIM, rng=1, **POLICIES[policy])
        self.ids = []

    @rule(x=CONTEXT, data=st.data())
    def select(self, x, data):
        arms = self.router.policy.arms
        mask = data.draw(
            st.none() | st.lists(st.booleans(), min_size=len(arms), max_size=len(arms)).filter(any)
        )
        prices = data.draw(st.none() | st.lists(NUMBER, min_size=len(arms), max_size=len(arms)))
        form = data.draw(st.sampled_from([list, np.array, lambda v: np.array(v, dtype=np.float32)]))
        before, due = (
            set(self.router.resident),
            self.made >= getattr(self.router.residency, "next_plan", np.inf),
        )
        if due:  # a plan sees what is pending, so it clears the books first
            self.books.sweep(self.now)
        if self.twin.span and self.made % self.twin.span == 0:
            self.twin.advance(self.made)
        given = form(x)
        decision = self.router.select(given, prices=prices, eligible=None if mask is None else np.array(mask))
        if isinstance(given, np.ndarray):
            given[:] = 7.0  # the ledger must have its own copy
        assert decision.arm in arms
        assert mask is None or mask[arms.index(decision.arm)]
        assert 0.0 < decision.propensity <= 1.0 + 1e-12
        assert decision.time == self.now
        serving = before if self.kind in ("LRU", "LFU") else set(self.router.resident)
        assert decision.hit == (decision.arm in serving)
        assert decision.id not in self.ids
        self.books.open([decision.id, decision.arm, np.array(x), self.made, self.now])
        self.ids.append(decision.id)
        self.made += 1
        if self.made % 64 == 0:
            self.books.sweep(self.now)

    def answer(self, key, reward):
        expected, entry = self.books.answer(key, self.now)
        if expected is UnknownDecision:
            before = bits(self.router)
            with pytest.raises(
                UnknownDecision, match="decision_id must be one that awaits or had its feedback"
            ):
                self.router.update(key, reward)
            assert bits(self.router) == before
            return
        assert self.router.update(key, reward) is expected
        if entry is not None:
            self.twin.update(entry[1], entry[2], reward, at=entry[3])

    @rule(data=st.data(), reward=st.floats(-3, 3))
    def update(self, data, reward):
        if self.books.pending:
            self.answer(data.draw(st.sampled_from([e[0] for e in self.books.pending])), reward)

    @rule(data=st.data(), reward=st.floats(-3, 3))
    def update_any(self, data, reward):  # answered, expired, forgotten
        if self.ids:
            self.answer(data.draw(st.sampled_from(self.ids)), reward)

    @rule(key=st.integers(-5, 2**64 - 1))
    def update_unknown(self, key):
        if key not in self.ids:
            self.answer(key, 1.0)

    @rule(seconds=st.sampled_from([0.0, 0.1, 3.0, 9.9, 11.0, 1e6]))
    def wait(self, seconds):
        self.now += seconds

    @rule()
    def add_arm(self):
        name = f"a{self.serial}"
        self.serial += 1
        if len(self.router.policy.arms) < 6:
            self.router.add_arm(name)
            self.twin.add_arm(name)

    @rule(data=st.data(), again=st.booleans())
    def remove_arm(self, data, again):
        arms = self.router.policy.arms
        if len(arms) == 1:
            return
        name = data.draw(st.sampled_from(arms))
        for router in (self.router, self.twin):
            router.remove_arm(name)
        for entry in self.books.pending:
            if entry[1] == name:
                entry[1] = None
        if again:  # back at once: the old decisions still belong to nobody
            for router in (self.router, self.twin):
                router.add_arm(name)

    @rule(x=st.sampled_from(range(len(BAD_CONTEXTS))), known=st.booleans())
    def bad_context(self, x, known):
        options = {"eligible": np.ones(len(self.router.policy.arms), bool)} if known else {}
        self.refused(lambda: self.router.select(BAD_CONTEXTS[x], **options), (ValueError, TypeError))

    @rule(
        option=st.sampled_from(
            [
                {"prices": [1.0] * 9},
                {"prices": [np.nan] * 3},
                {"prices": 1.0},
                {"prices": "abc"},
                {"eligible": np.ones(9, bool)},
                {"eligible": [0, 1, 1]},
                {"eligible": np.zeros(3, bool)},
            ]
        )
    )
    def bad_option(self, option):
        if len(self.router.policy.arms) == 3:
            self.refused(lambda: self.router.select(np.ones(DIM), **option), (ValueError, TypeError))

    @rule(
        data=st.data(),
        reward=st.sampled_from([np.nan, np.inf, -np.inf, 1e200, 10**400, None, "1", 1j, [1.0]]),
    )
    def bad_reward(self, data, reward):
        waiting = [e[0] for e in self.books.pending if e[1] is not None and e[4] > self.now - LIMIT_S]
        if waiting:
            key = data.draw(st.sampled_from(waiting))
            self.refused(lambda: self.router.update(key, reward), (ValueError, TypeError))

    @rule(key=st.sampled_from([1.5, 7.0, None, True, (1,)]))
    def bad_id(self, key):
        self.refused(lambda: self.router.update(key, 1.0), TypeError)

    @rule(name=st.sampled_from(["nobody", "", 99, None]))
    def bad_arm(self, name):
        self.refused(lambda: self.router.remove_arm(name), (UnknownArm, TypeError))
        taken = self.router.policy.arms[0]
        self.refused(lambda: self.router.add_arm(taken), ValueError)
        self.refused(lambda: self.router.add_arm("new", size=-1.0), ValueError)
        self.refused(lambda: self.router.add_arm("new", fault=np.nan), ValueError)

    def refused(self, call, error):
        before = bits(self.router)
        with pytest.raises(error):
            call()
        assert bits(self.router) == before

    @rule()
    def stats(self):
        self.books.sweep(self.now)
        found = self.router.stats()
        wanted = {
            "decisions": self.made,
            "learned": self.books.learned,
            "dropped": self.books.dropped,
            "pending": len(self.books.pending),
            "expired": self.books.expired,
            "late": self.books.late,
            "duplicates": self.books.duplicates,
        }
        assert {name: found[name] for name in wanted} == wanted

    @invariant()
    def learned_exactly_what_the_books_say(self):
        if not hasattr(self, "router"):
            return
        policy = self.router.policy
        assert policy.arms == self.twin.arms
        assert np.array_equal(policy.counts, self.twin.counts)
        assert np.array_equal(policy.theta, self.twin.theta)
        pending = [sum(e[1] == arm for e in self.books.pending) for arm in policy.arms]
        assert self.router.parts.arms.pending == pending
        if self.router.residency is not None:
            resident = self.router.parts.residence.actual
            assert len(resident) == len(self.router.resident) <= 2
            assert resident.used == resident.sizes[resident.mask].sum() <= resident.capacity


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=40, stateful_step_count=40)


# -- residency ------------------------------------------------------------------------------------------------------


def trace(router, n=400, dim=DIM):
    made = []
    for t, x in enumerate(contexts(n, dim)):
        decision = router.select(x)
        made.append((decision.arm, decision.propensity))
        router.update(decision.id, float(np.sin(t)))
    return made


@pytest.mark.parametrize(
    "options", [{}, {"mix": 0.3}, {"discount": 0.97, "prior": None, "alpha": 0.4, "ridge": 1.0}]
)
def test_free_residency_is_no_residency(options):
    def policy():
        return LinUCB(5, DIM, rng=3, **options)

    plain = trace(Router(policy()))
    bare, made = policy(), []
    for t, x in enumerate(contexts(400)):
        bare.advance(t)
        choice = bare.select(x)
        made.append((bare.arms[choice.arm], choice.propensity))
        bare.update(choice.arm, x, float(np.sin(t)), at=t)
    assert plain == made
    full = [LRU(5), LFU(5), Polar(5, epoch=20), Polar(7), Static(range(5))]
    for controller in full:
        assert trace(Router(policy(), controller, 0.4)) == plain
    for controller in (LRU(2), LFU(2), Polar(2, epoch=20), Static(()), Static([1])):
        assert trace(Router(policy(), controller, 0.0)) == plain


def test_forced_decisions_have_their_propensity():
    # n = 20,000 decisions of one context with the needs held fixed, seed 1; five standard deviations for each of five
    # arms: a right implementation fails with probability below 1e-5.
    n = 20_000
    policy = LinUCB(5, 2, alpha=0.3, ridge=1.0, prior=None, mix=0.2, rng=1)
    for arm in range(5):
        policy.update(arm, [1.0, 0.0], 0.1 * arm)
    controller = Forcing(3, epoch=10**9, rate=0.25, rng=2)
    router = Router(policy, controller, [0.1, 0.2, 0.3, 0.4, 0.5], pending_limit=10)
    needs = np.array([3.0, 0.0, 1.0, 0.0, 6.0])
    mask = np.array([True, True, True, True, False])
    pure = policy.propensities([1.0, 0.0], prices=router.parts.table.fault.values, eligible=mask)
    wanted = 0.25 * needs * mask / (needs * mask).sum() + 0.75 * pure
    count, told = np.zeros(5), np.zeros(5)
    for _ in range(n):
        controller.needs = needs.copy()
        decision = router.select([1.0, 0.0], eligible=mask)
        arm = policy.index(decision.arm)
        count[arm] += 1
        assert decision.propensity == pytest.approx(wanted[arm], rel=1e-12)
        told[arm] = decision.propensity
    assert (np.abs(count - n * wanted) <= 5.0 * np.sqrt(n * wanted * (1.0 - wanted))).all()
    assert router.stats()["forced"] == pytest.approx(0.25 * n, abs=5 * np.sqrt(n * 0.25 * 0.75))
    controller.needs = needs.copy()
    guarded = [router.select([1.0, 0.0], eligible=mask, protected=True) for _ in range(500)]
    assert controller.needs.tolist() == needs.tolist()
    for decision in guarded:
        assert decision.propensity == pytest.approx(pure[policy.index(decision.arm)], rel=1e-12)


def test_nothing_is_forced_on_arms_that_are_not_eligible():
    controller = Forcing(1, epoch=10**9, rate=1.0, rng=2)
    router = Router(LinUCB(3, 2, rng=1), controller, 0.1)
    controller.needs = np.array([0.0, 0.0, 5.0])
    mask = np.array([True, True, False])
    used = controller.used
    for _ in range(20):
        assert router.select([1.0, 0.0], eligible=mask).arm != "2"
    assert controller.needs[2] == 5.0
    assert controller.used in (
        used,
        0,
    )  # nobody to force: no number is used, though a block may have been drawn
    assert [router.select([1.0, 0.0]).arm for _ in range(5)] == ["2"] * 5
    assert controller.needs[2] == 0.0


def test_policy_that_refuses_a_reward_leaves_the_decision_open():
    class Bernoulli(LinUCB):
        def update(self, arm, x, reward, *, weight=1.0, at=None):
            if not 0.0 <= reward <= 1.0:
                raise ValueError(f"reward must be in [0, 1], got {reward}")
            super().update(arm, x, reward, weight=weight, at=at)

    router = Router(Bernoulli(3, DIM, rng=0))
    decision = router.select(np.ones(DIM))
    before = bits(router)
    with pytest.raises(ValueError, match="reward must be in"):
        router.update(decision.id, 2.0)
    assert bits(router) == before
    assert router.update(decision.id, 1.0)


def test_warm_policy_that_forgets_learns_at_full_weight():
    # A policy trained on a log has a clock of its own; under a router decisions count from zero again.
    policy = LinUCB(2, DIM, alpha=0.1, ridge=1.0, prior=None, discount=0.9, rng=0)
    for at in range(3000):
        policy.update(at % 2, np.ones(DIM), 0.0, at=at)
    router = Router(policy)
    for _ in range(60):
        router.update(router.select(np.ones(DIM)).id, 1.0)
    assert policy.scores(np.ones(DIM)).mean.max() > 0.9


def test_arms_under_prices_by_arm():
    router = Router(LinUCB(["a", "b", "c"], DIM, rng=0), LRU(1), [0.1, 0.2, 0.3])
    before = bits(router)
    with pytest.raises(
        ValueError, match="fault must be given where paging prices the arms one by one, got None"
    ):
        router.add_arm("d")
    assert bits(router) == before
    assert router.policy.arms == ("a", "b", "c")
    router.add_arm("d", fault=0.4)
    router.remove_arm("a")
    assert router.parts.residence.faults.tolist() == [0.2, 0.3, 0.4]
    assert router.resident == ()
    router.select(np.ones(DIM))
    assert len(router.resident) == 1


def test_pinned_and_last_arms_stay():
    router = Router(LinUCB(["a", "b"], DIM, rng=0), LRU(1, pinned=["b"]), 0.1)
    before = bits(router)
    with pytest.raises(ValueError, match="name must not be pinned, got 'b'"):
        router.remove_arm("b")
    assert bits(router) == before
    router.remove_arm("a")
    with pytest.raises(ValueError, match=r"must not be pinned|last arm"):
        router.remove_arm("b")
    with pytest.raises(ValueError, match="the last arm must stay, got 'x'"):
        Router(LinUCB(["x"], DIM)).remove_arm("x")


def test_plan_comes_with_the_decision_it_is_for_and_only_then():
    router = Router(LinUCB(4, DIM, rng=0), Polar(2, epoch=10, index="optimistic"), 0.1)
    epochs = [router.select(x).epoch for x in contexts(35)]
    assert epochs == [0] * 10 + [1] * 10 + [2] * 10 + [3] * 5
    for bad in (
        np.array([np.nan, 0.0, 0.0]),
        np.ones(2),
        [np.inf, 0, 0],
    ):  # decision 35 is not due; 40 would be
        with pytest.raises(ValueError, match="x must"):
            router.select(bad)
    for x in contexts(5):
        router.select(x)
    before = bits(router)
    with pytest.raises(ValueError, match="x must"):
        router.select(np.array([np.nan, 0.0, 0.0]))
    assert bits(router) == before  # the plan is not made for a refused request
    assert router.select(np.ones(DIM)).epoch == 4


def test_manual_maintenance_plans_when_told():
    router = Router(LinUCB(4, DIM, rng=0), Polar(2, epoch=10), 0.1, maintenance="manual")
    assert not router.maintain()
    assert {router.select(x).epoch for x in contexts(30)} == {0}
    assert router.maintain()
    assert not router.maintain()
    assert router.select(np.ones(DIM)).epoch == 1


# -- threads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("maintenance", ["inline", "background"])
def test_threads_lose_and_repeat_nothing(maintenance):
    each, workers = 2000, 8
    policy = LinUCB(6, DIM, mix=0.1, rng=0)
    errors = []
    with Router(policy, Polar(3, epoch=500), 0.1, maintenance=maintenance) as router:

        def serve(seed):
            try:
                rng, waiting = np.random.default_rng(seed), []
                for x in contexts(each, seed=seed):
                    waiting.append(router.select(x).id)
                    while waiting and rng.random() < 0.6:
                        key = waiting.pop(int(rng.integers(len(waiting))))
                        assert router.update(key, float(rng.random())) is True
                        assert router.update(key, 0.0) is False
                for key in waiting:
                    assert router.update(key, 1.0) is True
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=serve, args=(seed,)) for seed in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        stats = router.stats()
    total = each * workers
    assert (stats["decisions"], stats["learned"], stats["pending"]) == (total, total, 0)
    assert stats["expired"] == stats["late"] == stats["dropped"] == 0
    assert 0 < stats["duplicates"] <= total
    assert policy.counts.sum() == total
    assert not any(router.parts.arms.pending)
    theta = policy.theta  # no half-written matrix: the statistics give the same again
    policy.rebuild()
    np.testing.assert_allclose(policy.theta, theta, rtol=0, atol=1e-9)


# -- construction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((object(),), {}, TypeError, "policy must be a Policy"),
        ((LRU(1),), {}, ValueError, "paging must be given with residency"),
        ((None, 0.1), {}, ValueError, "residency must be given with paging"),
        ((LRU(1), -0.1), {}, ValueError, "paging must be in"),
        ((LRU(1), [0.1, 0.2]), {}, ValueError, "paging must have shape"),
        ((LRU(1), 0.1), {"switching": 1.5}, ValueError, r"switching must be in \[0, 1\], got 1.5"),
        (
            (LRU(1), 0.1),
            {"maintenance": "later"},
            ValueError,
            "maintenance must be 'inline', 'background' or 'manual'",
        ),
        ((LRU(1), 0.1), {"sizes": {"0": 1.0}}, ValueError, "sizes must name every arm"),
        ((LRU(1), 0.1), {"sizes": [1.0, -1.0, 1.0]}, ValueError, "sizes must be > 0, got -1"),
        ((LRU(1, pinned=["x"]), 0.1), {}, UnknownArm, "arm must be one of"),
        ((LRU(1, pinned=[0, 1]), 0.1), {}, ValueError, "pinned must fit capacity 1"),
        ((None,), {"feedback_limit_s": 0.0}, ValueError, "feedback_limit_s must be in"),
        ((None,), {"pending_limit": 0}, ValueError, "pending_limit must be >= 1, got 0"),
    ],
)
def test_bad_construction_leaves_the_policy_alone(arguments, options, error, message):
    policy = LinUCB(3, DIM, discount=0.9, rng=0)
    for at in range(100):
        policy.update(0, np.ones(DIM), 1.0, at=at)
    before = policy.to_state()[1]["header"].tobytes()
    given = (arguments[0] if isinstance(arguments[0], object) and type(arguments[0]) is object else policy,)
    rest = () if given[0] is not policy else arguments
    with pytest.raises(error, match=message):
        Router(*given, *rest, **options)
    assert policy.to_state()[1]["header"].tobytes() == before


@pytest.mark.parametrize(
    "said",
    [
        {"eligible": {"nobody"}}, {"eligible": [0, 1, 1]}, {"eligible": np.zeros(3, bool)}, {"prices": [1.0] * 9},
        {"prices": {"a": np.nan}}, {"version": 7}, {"id": ""}, {"id": -3},
    ],
)  # fmt: skip
@pytest.mark.parametrize("due", [0, 64])
def test_what_is_refused_does_not_bring_the_next_plan_or_bucket(said, due):
    router = Router(
        LinUCB(["a", "b", "c"], DIM, rng=0, discount=0.9), Polar(2, epoch=64), 0.1, clock=lambda: 1.0
    )
    for _ in range(due):
        router.update(router.select(np.ones(DIM)).id, 0.5)
    before = bits(router)
    with pytest.raises((ValueError, TypeError, UnknownArm)):
        router.select(np.ones(DIM), **said)
    assert bits(router) == before


def test_a_listener_that_comes_later_is_told_after_the_others_from_then_on():
    told = []

    class Watch:
        keeps_parts = False

        def __init__(self, name):
            self.name = name

        def decided(self, decision, request, pending, forced, parts):
            told.append((self.name, decision.id))

        def learned(self, feedback):
            told.append((self.name, feedback.reward))

    router = Router(LinUCB(["a", "b"], 1, rng=0), listeners=[Watch("first")])
    before = router.select([1.0])
    router.add_listener(Watch("late"))
    router.update(before.id, 0.5)
    after = router.select([1.0])
    assert told == [
        ("first", before.id), ("first", 0.5), ("late", 0.5), ("first", after.id), ("late", after.id),
    ]  # fmt: skip


def test_positions_of_arms_that_changed_meanwhile_are_refused():
    router = Router(LinUCB(["a", "b", "c"], 1, rng=0))
    seen = router.arms_version
    assert router.select([1.0], eligible=[False, False, True], version=seen).arm == "c"
    router.remove_arm("a")
    router.add_arm("d")
    kept = bits(router)
    with pytest.raises(
        ValueError, match=f"version must be that of the arms, {router.arms_version}, got {seen}"
    ):
        router.select([1.0], prices=[0.0, 5.0, 5.0], version=seen)
    assert bits(router) == kept
    assert router.select([1.0], eligible=[False, False, True], version=router.arms_version).arm == "d"


def test_stats_stay_short_where_what_expires_takes_long_to_learn():
    """A reward for a hybrid policy takes a twentieth of a millisecond of processor time and more."""
    now = [0.0]
    router = Router(
        HybridLinUCB(["a", "b"], 8, rng=0), feedback_limit_s=1.0, expired_reward=0.0, clock=lambda: now[0]
    )
    for _ in range(2000):
        router.select(np.ones(8))
    expired = router.stats()["expired"]
    now[0] = 10.0
    seen = [router.stats()["expired"] for _ in range(200)]
    steps = np.diff([expired, *seen])
    assert 0 < steps.max() < 300 and seen[-1] == 2000
