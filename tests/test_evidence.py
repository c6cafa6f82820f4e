"""Evidence of policies: taken out, added up in one order, put back; forgotten; and what a policy maximises."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from banditroute import DiagLinUCB, EpsilonGreedy, FileStore, LinTS, LinUCB, Router
from banditroute.errors import UnknownArm
from banditroute.policies import (
    EMA,
    UCB1,
    BatchedUpdates,
    BetaThompson,
    ClusterGraph,
    EvidencePolicy,
    Fixed,
    GaussianThompson,
    GraphDiagLinUCB,
    HybridLinUCB,
    LogisticUCB,
    Restarting,
    RoundRobin,
    SharedLinUCB,
    SlidingWindow,
    SquareCB,
    StalenessInflation,
    Uniform,
    summed,
)

TASTE = {"1": [0.0, 1.0], "2": [1.0, 0.0]}


def features(name, x):
    return np.outer([1.0, *TASTE.get(name, [0.0, 0.0])], x).ravel()


def graph():
    edges = [(c, i) for c in range(3) for i in range(4) if (c + i) % 3]
    return ClusterGraph.from_edges(*np.transpose(edges))


SHARING = {
    "LinUCB": lambda rng: LinUCB(4, 3, rng=rng),
    "LinUCB-textbook": lambda rng: LinUCB(4, 3, alpha=1.0, ridge=2.0, prior=None, rng=rng),
    "LinUCB-forgetting": lambda rng: LinUCB(4, 3, discount=0.999, rng=rng),
    "LinTS": lambda rng: LinTS(4, 3, propensities=False, rng=rng),
    "DiagLinUCB": lambda rng: DiagLinUCB(4, 3, rng=rng),
    "DiagLinUCB-forgetting": lambda rng: DiagLinUCB(4, 3, discount=0.999, rng=rng),
    "EpsilonGreedy": lambda rng: EpsilonGreedy(4, 3, epsilon=0.0, rng=rng),
    "UCB1": lambda rng: UCB1(4, 3, rng=rng),
    "BetaThompson": lambda rng: BetaThompson(4, 3, rng=rng),
    "GaussianThompson": lambda rng: GaussianThompson(4, 3, rng=rng),
    "RoundRobin": lambda rng: RoundRobin(4, 3, rng=rng),
    "SharedLinUCB": lambda rng: SharedLinUCB(4, 3, features=features, rng=rng),
    "HybridLinUCB": lambda rng: HybridLinUCB(4, 3, features=features, rng=rng),
    "GraphDiagLinUCB": lambda rng: GraphDiagLinUCB(graph(), alpha=0.3, init_precision=0.5, rng=rng),
    "SquareCB": lambda rng: SquareCB(LinUCB(4, 3, rng=rng)),
    "Restarting": lambda rng: Restarting(LinUCB(4, 3, discount=0.999, rng=rng)),
    "Stale": lambda rng: StalenessInflation(LinUCB(4, 3, rng=rng)),
    "SlidingWindow": lambda rng: SlidingWindow(LinUCB(4, 3, rng=rng), window=150),
    "SlidingWindow-Hybrid": lambda rng: SlidingWindow(HybridLinUCB(4, 3, features=features, rng=rng), 150),
    "RarelySwitching": lambda rng: BatchedUpdates(LinUCB(4, 3, discount=0.999, rng=rng)),
    "Restarting-Stale": lambda rng: Restarting(StalenessInflation(LinUCB(4, 3, rng=rng))),
}
ALONE = {
    "LogisticUCB": lambda rng: LogisticUCB(4, 3, rng=rng),
    "EMA": lambda rng: EMA(4, 3, mix=0.0, rng=rng),
    "SlidingWindow-LogisticUCB": lambda rng: SlidingWindow(LogisticUCB(4, 3, rng=rng)),
    "SlidingWindow-forgetting": lambda rng: SlidingWindow(LinUCB(4, 3, discount=0.9, rng=rng)),
}
FIXED = {
    "LinUCB-textbook",
    "UCB1",
    "BetaThompson",
    "GaussianThompson",
    "SharedLinUCB",
    "HybridLinUCB",
    "GraphDiagLinUCB",
}
DETERMINISTIC = sorted(
    {*SHARING, "EMA", "LogisticUCB"}
    - {"LinTS", "BetaThompson", "GaussianThompson", "SquareCB", "RoundRobin"}
)  # fmt: skip


def course(n, seed, arms=4):
    rng = np.random.default_rng(seed)
    x = np.abs(rng.standard_normal((n, 3)))
    return list(zip(rng.integers(arms, size=n).tolist(), x, rng.random(n), range(n), strict=True))


def teach(policy, lessons):
    for arm, x, reward, at in lessons:
        policy.update(arm, x, reward, at=at)
    return policy


def close(policy, other, tolerance):
    for arm in policy.arms:
        mine, theirs = policy.evidence(arm), other.evidence(arm)
        assert mine.buckets.keys() == theirs.buckets.keys() and mine.latest == theirs.latest
        for bucket, sums in mine.buckets.items():
            for name, array in sums.items():
                scale = max(1.0, np.abs(array).max(initial=0.0))
                np.testing.assert_allclose(
                    array, theirs.buckets[bucket][name], atol=tolerance * scale, rtol=0
                )


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize("seed", range(3))
def test_merged_evidence_of_any_split_is_that_of_one_policy(name, seed):
    # Three workers learn what falls to them, each from its own decisions; a fourth only keeps the books.
    make, lessons, rng = SHARING[name], course(420, seed), np.random.default_rng(seed)
    one = teach(make(0), lessons)
    if name.startswith("Restarting"):
        assert not one.restarts.any()  # a restart depends on the order of feedback
    workers = [make(i) for i in range(3)]
    assert all(isinstance(w, EvidencePolicy) and w.fingerprint() == one.fingerprint() for w in workers)
    books = {arm: workers[0].empty_evidence() for arm in one.arms}
    for arm, x, reward, at in lessons:
        which = int(rng.integers(4))
        if which < 3:
            workers[which].update(arm, x, reward, at=at)
        else:
            row = one.check_kept(x, arm)
            books[one.arms[arm]] = one.credit(books[one.arms[arm]], row, reward, 1.0, at)
    merged = [make(7), make(8)]
    for arm in one.arms:
        total = summed(one, [*(w.evidence(arm) for w in workers), books[arm]])
        for policy in merged:
            policy.set_evidence(arm, total)
    for policy in merged:
        policy.advance(419)
    one.advance(419)
    close(one, merged[0], 1e-12)
    close(merged[0], merged[1], 0.0)
    if name in FIXED:  # fitted scales depend on when they were fitted
        np.testing.assert_allclose(merged[0].scores(np.ones(3)), one.scores(np.ones(3)), rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(merged[0].counts, one.counts)


@pytest.mark.parametrize("name", SHARING)
def test_evidence_is_a_copy_and_setting_it_changes_nothing(name):
    policy = teach(SHARING[name](0), course(100, 5))
    before, x = policy.evidence("1"), np.ones(3)
    taken = policy.evidence("1")
    for sums in taken.buckets.values():
        for array in sums.values():
            array[...] = 7.0
    twin = policy.copy()
    policy.set_evidence("1", before)
    close(policy, twin, 1e-12)
    if hasattr(policy, "flush"):
        return  # what waited was learned
    np.testing.assert_allclose(policy.scores(x), twin.scores(x), rtol=1e-9)


@pytest.mark.parametrize("name", SHARING)
def test_evidence_of_other_shapes_is_refused(name):
    policy = teach(SHARING[name](0), course(60, 6))
    good = policy.evidence("1")
    bucket, sums = next(iter(good.buckets.items()))
    first = next(iter(sums))
    header, arrays = policy.copy().to_state()
    for wrong in ({}, {**sums, first: np.zeros((9, 9))}, {**sums, first: np.full(sums[first].shape, np.nan)}):
        with pytest.raises(ValueError, match="evidence"):
            policy.set_evidence("1", good._replace(buckets={bucket: wrong}))
    with pytest.raises(UnknownArm):
        policy.set_evidence("none", good)
    after, given = policy.to_state()
    assert repr(after) == repr(header)
    assert all(np.array_equal(given[n], arrays[n], equal_nan=True) for n in arrays)


@pytest.mark.parametrize("name", ALONE)
def test_what_cannot_share_says_why(name):
    with pytest.raises(TypeError, match="cannot share"):
        ALONE[name](0).fingerprint()


def test_rewards_that_are_no_successes_are_no_evidence_for_a_beta(tmp_path):
    other, one, two = (Router(kind(["a", "b"], 1, rng=0)) for kind in (UCB1, BetaThompson, BetaThompson))
    links = [router.join(FileStore(tmp_path), background=False) for router in (other, one, two)]
    for router, reward in ((other, -5.0), (two, 1.0)):
        router.update(router.select([1.0]).id, reward)
    for link in links * 2:
        link.sync()
    assert one.policy.counts.sum() == two.policy.counts.sum() == 1
    assert one.stats()["parts_refused"] > 0
    assert 0.0 < one.select([1.0]).propensity < 1.0


@pytest.mark.parametrize("name", [*SHARING, *ALONE])
@pytest.mark.parametrize("again", [False, True])
def test_a_forgotten_arm_is_as_if_it_had_never_been_tried(name, again):
    policy, never = (make(0) for make in [{**SHARING, **ALONE}[name]] * 2)
    lessons = course(300, 8)
    teach(policy, lessons)
    teach(never, [lesson for lesson in lessons if lesson[0] != 0])
    for p in (policy, never):
        p.advance(300)
        if hasattr(p, "flush"):
            p.flush()
    old = policy.generation("0")
    if again:
        policy.remove_arm("0")
        policy.add_arm("0")
        never.remove_arm("0")
        never.add_arm("0")
    else:
        policy.forget("0")
    assert policy.generation("0") == old + 1
    a = policy.index("0")
    x = np.ones(3)
    mean = policy.scores(x).mean[a]
    if name == "SharedLinUCB" and again:
        return  # what it taught was of features
    if "Hybrid" in name and again:
        return
    for p in (policy, never):
        inner = p
        while hasattr(inner, "base"):
            inner = inner.base
        if hasattr(inner, "refresh") and not again:
            inner.refresh()
    # A fitted ridge may be another one: it followed the arm for a while.
    tolerance = 0.05 if hasattr(policy, "prior") else 1e-9
    np.testing.assert_allclose(mean, never.scores(x).mean[a], atol=tolerance)
    if getattr(policy, "counts", None) is not None:
        assert policy.counts[a] == 0


@pytest.mark.parametrize("name", SHARING)
def test_old_evidence_of_a_forgotten_arm_no_longer_counts(name):
    policy, other = teach(SHARING[name](0), course(120, 9)), teach(SHARING[name](1), course(120, 10))
    old = other.evidence("2")
    policy.forget("2")
    policy.update("2", np.ones(3), 0.25, at=119)
    total = summed(policy, [old, policy.evidence("2"), old])
    assert total.generation == policy.generation("2") == old.generation + 1
    policy.set_evidence("2", total)
    if policy.counts is not None and not hasattr(policy, "flush"):
        assert policy.counts[2] == 1
    fresh = SHARING[name](2)
    fresh.set_evidence("2", total)
    assert fresh.generation("2") == total.generation
    header, arrays = fresh.to_state()
    again = SHARING[name](3)
    again.load_state(header, arrays)
    assert again.generation("2") == total.generation


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_choices_are_the_largest_utility_less_price(name):
    policy = {**SHARING, **ALONE}[name](0)
    rng = np.random.default_rng(3)
    for t, (_, x, reward, _) in enumerate(course(250, 11)):
        prices = rng.choice([0.0, 0.1, 0.3], 4)
        if isinstance(policy, GraphDiagLinUCB):
            x = x * (rng.random(3) < 0.7) + 1e-3
        mean, bonus = policy.utilities(x[None])
        *steps, frozen = policy.freeze()
        assert steps == [None] * len(steps)
        np.testing.assert_array_equal(frozen(x[None]), (mean, bonus))
        given = policy.propensities(x, prices=prices)
        candidate = np.ones(4, bool)
        if isinstance(policy, GraphDiagLinUCB):
            candidate = policy.propensities(x, eligible=np.ones(4, bool)) >= 0.0
        value = np.where(candidate, mean[0] + bonus[0] - prices, -np.inf)
        assert value[given > 0.0].max() >= value.max() - 1e-12
        choice = policy.select(x, prices=prices)
        assert given[choice.arm] == pytest.approx(choice.propensity)
        policy.update(choice.arm, x, float(reward), at=t)


def test_a_frozen_policy_learns_nothing_more():
    for name, make in {**SHARING, **ALONE}.items():
        if name == "RoundRobin":
            continue
        policy = teach(make(0), course(80, 1))
        *_, frozen = policy.freeze()
        before = policy.utilities(np.ones((2, 3)))
        teach(policy, course(60, 2))
        np.testing.assert_array_equal(frozen(np.ones((2, 3))), before)


def test_what_does_not_say_what_it_maximises_is_named():
    from banditroute import Policy

    class Mine(Policy):
        def propensities(self, x, *, prices=None, eligible=None):
            return np.full(len(self.arms), 1.0 / len(self.arms))

        def update(self, arm, x, reward, *, weight=1.0, at=None):
            pass

    with pytest.raises(TypeError, match="Mine"):
        Mine(2, 1).utilities([[1.0]])
    for call in (lambda p: p.widen(0, "x", 2.0), lambda p: p.scores([1.0]), lambda p: p.add_arm("new")):
        with pytest.raises(TypeError, match="Mine"):
            call(Mine(2, 1))
    assert not Mine(2, 1).can_widen and Mine(2, 1).compiled() is None

    class Neither(Policy):
        def update(self, arm, x, reward, *, weight=1.0, at=None):
            pass

    with pytest.raises(TypeError, match="Neither must write scores or propensities"):
        Neither(2, 1)


def test_factors_of_different_sources_multiply():
    for policy in (
        LinUCB(2, 1, alpha=1.0, ridge=1.0, rng=0),
        Restarting(LinUCB(2, 1, alpha=1.0, ridge=1.0, rng=0)),
    ):
        assert policy.can_widen and policy.mass(0) == 1.0
        policy.widen(0, "pending", 0.5)
        policy.widen(0, "stale", 3.0)
        np.testing.assert_array_equal(policy.utilities([[1.0]]).bonus, [[1.5, 1.0]])
        policy.widen(0, "pending", 1.0)
        np.testing.assert_array_equal(policy.copy().utilities([[1.0]]).bonus, [[3.0, 1.0]])
        policy.remove_arm("1")
        policy.add_arm("new")
        policy.widen(0, "stale", 2.0)
        np.testing.assert_array_equal(policy.utilities([[1.0]]).bonus, [[2.0, 1.0]])
    with pytest.raises(TypeError, match="UCB1"):
        UCB1(2, 1).widen(0, "pending", 0.5)


@pytest.mark.parametrize("make", [*SHARING.values(), *ALONE.values()], ids=[*SHARING, *ALONE])
def test_reseeded_policies_draw_apart(make):
    policies = [make(0) for _ in range(3)]
    for policy in policies[1:]:
        policy.reseed()
    drawn = [p.generator.random() for p in policies]
    assert len(set(drawn)) == 3
    policies[1].select(np.ones(3))


def test_sampling_after_a_reseed_is_another_sequence():
    twins = [LinTS(5, 2, rng=0, propensities=False) for _ in range(3)]
    for policy in twins[1:]:
        policy.reseed()
    arms = [tuple(p.select([1.0, 0.0]).arm for _ in range(60)) for p in twins]
    assert len(set(arms)) == 3  # alike by chance: 5^-60


@pytest.mark.parametrize("kind", [SharedLinUCB, HybridLinUCB])
@pytest.mark.parametrize("wrap", [lambda p: p, partial(SlidingWindow, window=10**6), Restarting, SquareCB])
def test_late_rewards_meet_the_features_of_the_decision(kind, wrap):
    load, rng = {"near": 0.9, "far": 0.1}, np.random.default_rng(0)

    def known(arm, x):
        return [1.0, load[arm]]

    late, now = (wrap(kind(["near", "far"], 1, features=known, alpha=0.0, rng=0)) for _ in range(2))
    waiting = []
    for _ in range(200):
        load["near"], load["far"] = rng.random(2)
        x, arm = np.ones(1), late.select([1.0]).arm
        waiting.append((arm, late.kept(x, arm), 1.0 - load[late.arms[arm]]))
        now.update(arm, x, waiting[-1][2])
    for arm, row, reward in waiting:
        late.update(arm, row, reward)
    x = np.ones(1)
    np.testing.assert_allclose(late.scores(x), now.scores(x), rtol=1e-9, atol=1e-9)
    inner = late
    while hasattr(inner, "base"):
        inner = inner.base
    if kind is SharedLinUCB:
        np.testing.assert_allclose(inner.beta, [1.0, -1.0], atol=0.1)
    for wrong in (np.ones(2), np.ones(4), np.array([1.0, np.nan, 0.0]), np.array([1e200, 0.0, 0.0])):
        with pytest.raises(ValueError):
            late.update(0, wrong, 0.5)


def test_settings_of_this_object_stay_when_asked():
    saved = teach(
        LinUCB(["a", "b", "c", "d"], 3, alpha=0.3, ridge=2.0, mix=0.1, discount=0.99, rng=0), course(200, 3)
    )
    header, arrays = saved.to_state()
    for options in (
        {"alpha": 0.7, "ridge": 0.5, "prior": None},
        {"discount": 0.999, "max_norm": 50.0},
        {"prior": np.ones((2, 3)), "mix": 0.5},
    ):
        mine = LinUCB(["a", "new"], 3, rng=5, **options)
        with pytest.raises(ValueError, match="must be"):
            mine.load_state(header, arrays)
        assert mine.arms == ("a", "new")
        alpha, ridge = mine.alpha, mine.ridge
        mine.load_state(header, arrays, settings="own")
        assert mine.arms == saved.arms
        np.testing.assert_array_equal(mine.counts, saved.counts)
        np.testing.assert_allclose(mine.moment, saved.moment, rtol=1e-12)
        for arm in mine.arms:
            sums = saved.precision(arm) - saved.ridge * np.eye(3)
            np.testing.assert_allclose(mine.precision(arm) - mine.ridge * np.eye(3), sums, atol=1e-9)
            np.testing.assert_allclose(mine.cov(arm) @ mine.precision(arm), np.eye(3), atol=1e-9)
        if "alpha" in options:
            assert (mine.alpha, mine.ridge) == (alpha, ridge) and not mine.prior.any()
        if options.get("mix"):
            np.testing.assert_array_equal(mine.prior, [[1.0] * 3] + [[0.0] * 3] * 3)
        for t in range(200, 240):
            mine.update(mine.select(np.ones(3)).arm, np.ones(3), 0.5, at=t)
    for other in (LinUCB(4, 5, rng=0), LinTS(4, 3, rng=0), UCB1(4, 3)):
        with pytest.raises(ValueError):
            other.load_state(header, arrays, settings="own")
    with pytest.raises(ValueError, match="settings"):
        LinUCB(4, 3).load_state(header, arrays, settings="any")


def test_a_window_of_another_size_keeps_what_it_may():
    saved = teach(SlidingWindow(LinUCB(4, 3, rng=0, alpha=0.5, ridge=1.0, prior=None), 200), course(180, 4))
    header, arrays = saved.to_state()
    short = SlidingWindow(LinUCB(4, 3, rng=0, alpha=0.9, ridge=1.0, prior=None), 50)
    with pytest.raises(ValueError, match="window"):
        short.load_state(header, arrays)
    short.load_state(header, arrays, settings="own")
    assert short.lessons[:, 3].min() >= 120 and short.alpha == 0.9
    wanted = teach(SlidingWindow(LinUCB(4, 3, rng=0, alpha=0.9, ridge=1.0, prior=None), 50), course(180, 4))
    np.testing.assert_allclose(short.scores(np.ones(3)), wanted.scores(np.ones(3)), rtol=1e-9)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Restarting(LinUCB(3, 2, rng=0)),
        lambda: SlidingWindow(UCB1(3, 2, rng=0), 40),
        lambda: BatchedUpdates(LinUCB(3, 2, rng=0), 1e9),
        lambda: StalenessInflation(LinUCB(3, 2, rng=0)),
        lambda: SquareCB(LinUCB(3, 2, rng=0)),
    ],
)
def test_states_of_wrappers_are_taken_whole_or_not_at_all(make):
    policy, other = make(), make()
    for t in range(40):
        other.update(t % 3, [1.0, 0.5], 0.25 * (t % 4), at=t)
    header, arrays = other.to_state()

    def state():
        told, given = policy.to_state()
        return repr(told), {n: np.asarray(a).tobytes() for n, a in given.items()}

    before = state()
    for name in arrays:
        spoiled = np.array(arrays[name], dtype=float)
        if spoiled.size:
            spoiled.flat[-1] = np.nan
            with pytest.raises(ValueError):
                policy.load_state(header, {**arrays, name: spoiled})
        with pytest.raises(ValueError):
            policy.load_state(header, {n: a for n, a in arrays.items() if n != name})
        with pytest.raises(ValueError):
            policy.load_state(header, {**arrays, name: np.zeros((7, 7, 7))})
        assert state() == before
    for changed in ({"clock": -1}, {"arms": ["x"]}, {"base": {}}, {"policy": "other"}):
        with pytest.raises(ValueError):
            policy.load_state({**header, **changed}, arrays)
        assert state() == before
    policy.load_state(header, arrays)
    assert state() != before


def test_a_router_routes_on_a_graph():
    policy = GraphDiagLinUCB(
        ClusterGraph.from_edges([0, 0, 0, 1, 1, 2], ["a", "b", "c", "b", "c", "c"]), alpha=0.3, rng=0
    )
    router, rng = Router(policy), np.random.default_rng(0)
    worth = {"a": 0.9, "b": 0.5, "c": 0.2}
    waiting = []
    for _ in range(400):
        x = np.eye(3)[rng.integers(3)]
        decision = router.select(x)
        assert decision.arm in [("a", "b", "c"), ("b", "c"), ("c",)][int(x.argmax())]
        waiting.append(decision)
        if len(waiting) > 20:
            done = waiting.pop(0)
            router.update(done.id, worth[done.arm])
    assert [router.select(x).arm for x in np.eye(3)] == ["a", "b", "c"]
    router.add_arm("d")
    assert {router.select(x).arm for x in np.eye(3)} == {"d"}
    router.remove_arm("b")
    assert policy.arms == ("a", "c", "d") and policy.item("d") == 3
    np.testing.assert_array_equal(
        policy.propensities([0.0, 1.0, 0.0], eligible=[True, True, False]), [0.0, 1.0, 0.0]
    )
    with pytest.raises(ValueError, match="candidate"):
        policy.propensities([0.0, 1.0, 0.0], eligible=[True, False, False])
    for wrong in ([-1.0, 0.0, 0.0], [np.nan, 0.0, 0.0], [1.0, 1.0], [1e9, 0.0, 0.0]):
        with pytest.raises(ValueError):
            policy.select(wrong)
    with pytest.raises(ValueError):
        policy.select([0.0, 0.0, 0.0])


def test_a_graph_policy_keeps_active_clusters_only():
    clusters = 40
    policy = GraphDiagLinUCB(
        ClusterGraph.from_edges(np.arange(clusters), np.arange(clusters) % 4), alpha=0.3, rng=0
    )
    x = policy.context([3, 7], [0.25, 0.5])
    row = policy.kept(x, 3)
    assert row.tolist() == [-1.0, 3.0, 7.0, 0.25, 0.5]
    np.testing.assert_array_equal(policy.check_kept(row, 3), x)
    twin = policy.copy()
    policy.update(3, row, 0.5)
    twin.update(3, x, 0.5)
    close(policy, twin, 0.0)
    for wrong in ([-1.0, 3.5, 1.0], [-1.0, 99.0, 1.0], [-1.0, 3.0, 3.0, 1.0, 1.0], [-1.0, 3.0, np.nan]):
        with pytest.raises(ValueError):
            policy.update(3, np.array(wrong), 0.5)
    assert policy.counts.sum() == 1


def test_propensities_on_a_graph_are_frequencies():
    # 20,000 draws: standard error below 0.0036; the bound of five errs below 1e-6 per arm.
    policy = teach(GraphDiagLinUCB(graph(), alpha=0.0, mix=0.3, rng=0), course(60, 3))
    x = np.array([0.2, 0.0, 0.8])
    counts = np.bincount([policy.select(x).arm for _ in range(20_000)], minlength=4)
    np.testing.assert_allclose(counts / 20_000, policy.propensities(x), atol=0.018)


def test_yardsticks_say_what_they_play():
    np.testing.assert_array_equal(Fixed(3, 1, arm=1).utilities([[1.0]]).mean, [[0.0, 1.0, 0.0]])
    for make in (Uniform, RoundRobin):
        with pytest.raises(TypeError, match=make.__name__):
            make(3, 1).utilities([[1.0]])


def test_generations_rise_with_every_loss():
    policy = LinUCB(["a", "b"], 1, rng=0)
    seen = [policy.generation("b")]
    for change in (policy.forget, policy.remove_arm):
        change("b")
        seen.append(policy.generation("b"))
    policy.add_arm("b")
    assert policy.generation("b") == seen[-1]
    assert all(b > a for a, b in pairwise(seen)) and policy.generation("a") == 0
