"""Lists: exact chances at every place, one place explored, rewards by place, and everything else a decision has."""

import copy
import json
import os
import pickle
from itertools import product

import numpy as np
import pytest

from banditroute import FileStore, LinTS, LinUCB, Recorder, Router, Static, UnknownArm, UnknownDecision
from banditroute.policies import (
    ClusterGraph,
    GraphDiagLinUCB,
    HybridLinUCB,
    LogisticUCB,
    SharedLinUCB,
    SlidingWindow,
    SquareCB,
    Uniform,
)
from banditroute.router import cascade
from banditroute.router.lists import explored_place, ranked
from banditroute.terms import ArmHealth, BudgetPacer, Queues

ARMS = ["a", "b", "c", "d", "e"]
X = np.array([1.0, 0.5])


def taught(policy, n=60, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(n):
        x = np.append(1.0, rng.standard_normal(policy.dim - 1))
        policy.update(i % len(policy.arms), x, float(rng.random() < 0.2 + 0.1 * (i % len(policy.arms))))
    return policy


# -- chances ----------------------------------------------------------------------------------------------------------


def every_list(order, laws):
    """All lists with their probabilities, by trying every place and every draw."""
    found = {}
    for j, law in enumerate(laws):
        for arm in range(len(law)):
            chosen = [*order[:j], arm, *(a for a in order[j:] if a != arm)][: len(laws)]
            found[tuple(chosen)] = found.get(tuple(chosen), 0.0) + law[arm] / len(laws) * (law[arm] > 0.0)
    return {one: p for one, p in found.items() if p > 0.0}


@pytest.mark.parametrize(("arms", "count"), [(1, 1), (3, 1), (3, 2), (3, 3), (5, 3), (5, 5)])
def test_probabilities_of_lists_are_those_of_all_that_can_happen(arms, count):
    rng = np.random.default_rng(arms * 10 + count)
    for _ in range(20):
        order, laws = rng.permutation(arms), []
        for j in range(count):
            law = rng.random(arms) * (rng.random(arms) < 0.7)
            law[order[:j]] = 0.0
            law[order[-1]] += 0.1
            laws.append(law / law.sum())
        lists = every_list(order.tolist(), laws)
        assert sum(lists.values()) == pytest.approx(1.0)
        for j, drawn in product(range(count), range(arms)):
            if not laws[j][drawn] > 0.0:
                continue
            chosen, marginal, prefix = ranked(order, laws, j, drawn)
            assert tuple(chosen) in lists and len(set(chosen)) == count
            for i in range(count):
                wanted = sum(p for one, p in lists.items() if one[i] == chosen[i])
                assert marginal[i] == pytest.approx(wanted, abs=1e-12)
                wanted = sum(p for one, p in lists.items() if list(one[: i + 1]) == chosen[: i + 1])
                assert prefix[i] == pytest.approx(wanted, abs=1e-12)


POLICIES = {
    "LinUCB": lambda: LinUCB(ARMS, 2, mix=0.3, rng=0),
    "LinTS": lambda: LinTS(ARMS, 2, rng=0),
    "SquareCB": lambda: SquareCB(LinUCB(ARMS, 2, rng=0)),
    "LogisticUCB": lambda: LogisticUCB(ARMS, 2, mix=0.3, rng=0),
    "SharedLinUCB": lambda: SharedLinUCB(
        ARMS, 2, features=lambda arm, x: [1.0, ARMS.index(arm) / 5, x[1]], mix=0.4, rng=0
    ),
    "HybridLinUCB": lambda: HybridLinUCB(
        ARMS, 2, features=lambda arm, x: [1.0, ARMS.index(arm) / 5, x[1]], mix=0.4, rng=0
    ),
}


@pytest.mark.parametrize("name", POLICIES)
def test_propensities_are_frequencies_at_every_place(name):
    router = Router(taught(POLICIES[name]()))
    prices, mask = {"e": 0.1, "a": -0.05}, {"a", "b", "d", "e"}
    n, k, told, count = 2000, 3, {}, {}
    for _ in range(n):
        shown = router.select(X, mask, prices, k=k)
        assert len(set(shown.arms)) == k and "c" not in shown.arms
        keys = [(i, arm) for i, arm in enumerate(shown.arms)] + [shown.arms]
        for key, p in zip(keys, (*shown.propensities, shown.prefixes[-1]), strict=True):
            assert told.setdefault(key, p) == pytest.approx(p, abs=1e-9)
            count[key] = count.get(key, 0) + 1
    for key, p in told.items():  # three standard errors, seeds fixed
        assert abs(count[key] / n - p) <= 3.0 * np.sqrt(p * (1.0 - p) / n) + 1e-9, key
    for i in range(k):
        assert sum(p for key, p in told.items() if key[0] == i) == pytest.approx(1.0, abs=0.02)


def test_ips_of_each_place_is_unbiased():
    rng, recorder = np.random.default_rng(1), Recorder()
    router = Router(taught(LinUCB(ARMS, 2, mix=0.5, rng=0)), recorder=recorder)
    chance = np.array([0.2, 0.4, 0.5, 0.6, 0.3])
    other = ["d", "b", "a"]  # the list whose places are judged
    n, weighed = 6000, np.zeros((6000, 3))
    for t in range(n):
        shown = router.select(np.append(1.0, rng.standard_normal()), k=3)
        for i, (arm, p) in enumerate(zip(shown.arms, shown.propensities, strict=True)):
            earned = float(rng.random() < chance[ARMS.index(arm)])
            weighed[t, i] = (arm == other[i]) / p * earned
        if t % 2:
            router.update(shown.id, {shown.arms[0]: 0.5})
    truth = chance[[ARMS.index(arm) for arm in other]]
    error = weighed.std(axis=0) / np.sqrt(n)
    assert (np.abs(weighed.mean(axis=0) - truth) <= 3.0 * error).all()
    log = recorder.trace()
    assert len(log) == 3 * n and log.propensities.min() > 0.0


def test_one_place_is_explored_and_the_others_follow_the_means():
    policy = taught(LinUCB(ARMS, 2, mix=1.0, rng=0))
    router = Router(policy)
    best = [ARMS[a] for a in np.argsort(-policy.utilities(X[np.newaxis]).mean[0], kind="stable")]
    places = []
    for at in range(300):
        shown = router.select(X, k=3).arms
        j = explored_place(3 * at, 3)
        rest = [arm for arm in best[j:] if arm != shown[j]]
        assert list(shown) == [*best[:j], shown[j], *rest][:3]
        places.append(j)
    assert set(places) == {0, 1, 2}


def test_a_list_of_one_is_what_would_be_played_and_a_short_one_is_all_there_is():
    one, other = (Router(taught(LinUCB(ARMS, 2, mix=0.3, rng=0))) for _ in range(2))
    for _ in range(50):
        shown, plain = one.select(X, k=1), other.select(X)
        assert (shown.arm, shown.propensity, shown.prefixes[0]) == (
            plain.arm, pytest.approx(plain.propensity), pytest.approx(plain.propensity),
        )  # fmt: skip
    assert set(one.select(X, {"b", "d"}, k=4).arms) == {"b", "d"}


def test_the_graph_policys_slates_come_through_the_same_door():
    graph = ClusterGraph.from_edges([0, 0, 0, 0, 1], ["jazz", "rock", "folk", "soul", "metal"])
    policy, x = GraphDiagLinUCB(graph, alpha=0.5, rng=0), np.array([1.0, 0.0])
    for i in range(40):
        policy.update(i % 4, x, 0.2 * (i % 4))
    router = Router(policy)
    slate = [policy.arms[i] for i in policy.top(x, 4, exploit=True).items]
    shown = router.select(x, k=5)  # one item has no edge
    assert sorted(shown.arms) == sorted(slate)
    for _ in range(30):
        shown = router.select(x, k=3)
        assert "metal" not in shown.arms and sum(a != b for a, b in zip(shown.arms, slate, strict=False)) <= 3
        assert router.update(shown.id, cascade(shown, shown.arms[1]))


def test_lists_of_candidates():
    rng = np.random.default_rng(3)
    router = Router(SharedLinUCB([], 1, features=3, mix=0.2, rng=0))
    for _ in range(300):
        names, z = tuple(f"n{i}" for i in rng.choice(60, size=8, replace=False)), rng.random((8, 3))
        shown = router.select([1.0], candidates=(names, z), k=4, prices={names[0]: 9.0})
        assert len(set(shown.arms)) == 4 and set(shown.arms) <= set(names)
        router.update(shown.id, {arm: float(z[names.index(arm)] @ [1.0, 0.0, -1.0]) for arm in shown.arms})
    z = np.array([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0], [0.5, 0.5, 0.5]])
    wins = [router.select([1.0], candidates=(("x", "y", "z"), z), k=2).arms[0] for _ in range(100)]
    assert wins.count("x") > 80
    assert router.policy.guests == 1200


CANDIDATES = {
    "SharedLinUCB": lambda: SharedLinUCB(["a"], 2, features=3, mix=0.4, rng=0),
    "HybridLinUCB": lambda: HybridLinUCB(["a"], 2, features=3, interactions=True, mix=0.4, rng=0),
    "SlidingWindow": lambda: SlidingWindow(SharedLinUCB(["a"], 2, features=3, mix=0.4, rng=0), 10_000),
}


@pytest.mark.parametrize("name", CANDIDATES)
def test_propensities_of_candidates_are_frequencies_at_every_place(name):
    router, rng = Router(CANDIDATES[name]()), np.random.default_rng(5)
    for _ in range(30):
        names = tuple(rng.permutation(["a", "b", "c", "d"])[:3].tolist())
        shown = router.select(rng.random(2), candidates=(names, rng.random((3, 3))), k=2)
        router.update(shown.id, rng.random(2).tolist())
    n, names, z, told, count = 2000, ("a", "b", "c", "twin"), rng.random((4, 3)), {}, {}
    z[3] = z[2]
    for _ in range(n):
        shown = router.select([1.0, 0.5], candidates=(names, z), k=2)
        keys = [*enumerate(shown.arms), shown.arms]
        for key, p in zip(keys, (*shown.propensities, shown.prefixes[-1]), strict=True):
            assert told.setdefault(key, p) == pytest.approx(p, abs=1e-9)
            count[key] = count.get(key, 0) + 1
    for key, p in told.items():  # three standard errors, seeds fixed
        assert abs(count[key] / n - p) <= 3.0 * np.sqrt(p * (1.0 - p) / n) + 1e-9, key


# -- rewards ------------------------------------------------------------------------------------------------------------


def test_rewards_by_arm_by_place_and_alone():
    router = Router(LinUCB(ARMS, 2, rng=0))
    shown = router.select(X, k=3)
    assert shown.id == shown.ids[0] and shown.arm == shown.arms[0] and router.stats()["pending"] == 3
    assert router.update(shown.id, {shown.arms[1]: 1.0})
    assert router.stats()["learned"] == 1 and router.stats()["pending"] == 2
    assert router.update(shown.id, [0.5])  # the first place
    assert router.update(shown.ids[2], 0.25)
    assert not router.update(shown.id, {})
    assert router.policy.counts.sum() == 3 and router.stats()["pending"] == 0
    means = {arm: router.stats()["arms"][arm]["mean_reward"] for arm in shown.arms}
    assert list(means.values()) == [0.5, 1.0, 0.25]
    shown = router.select(X, k=3, id="mine")
    assert router.select(X, k=3, id="mine").places == shown.places and router.select(X, id="mine") == shown
    assert router.update("mine", [None, 1.0, None])
    assert router.stats()["cancelled"] == 2 and router.stats()["pending"] == 0
    shown = router.select(X, k=3)
    assert router.cancel(shown.id) and not router.cancel(shown.id) and router.stats()["pending"] == 0


def test_the_cascade_model():
    assert cascade(["a", "b", "c"], None) == {"a": 0.0, "b": 0.0, "c": 0.0}
    assert cascade(["a", "b", "c"], "a") == {"a": 1.0, "b": None, "c": None}
    with pytest.raises(UnknownArm):
        cascade(["a"], "b")
    # Whoever looks from the top and stops at the first that pleases teaches the chances of every item.
    chance = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    router, rng = Router(LinUCB(ARMS, 1, mix=1.0, prior=None, ridge=1.0, rng=0)), np.random.default_rng(3)
    for _ in range(4000):
        shown = router.select([1.0], k=3)
        clicked = next((arm for arm in shown.arms if rng.random() < chance[ARMS.index(arm)]), None)
        router.update(shown.id, cascade(shown, clicked))
    error = np.sqrt(chance * (1.0 - chance) / router.policy.counts)
    assert (np.abs(router.policy.theta[:, 0] - chance) <= 3.0 * error + 0.005).all()


def test_the_position_model():
    chance, seen = np.array([0.2, 0.4, 0.5, 0.7, 0.3]), (1.0, 0.5, 0.2)
    for k, right in [(seen, True), (3, False)]:
        router, rng = (
            Router(LinUCB(ARMS, 1, mix=0.9, prior=None, ridge=1.0, rng=0)),
            np.random.default_rng(77),
        )
        for _ in range(4000):
            shown = router.select([1.0], k=k)
            clicks = [
                float(rng.random() < seen[i] * chance[ARMS.index(arm)]) for i, arm in enumerate(shown.arms)
            ]
            router.update(shown.id, clicks)
        assert np.allclose(router.policy.theta[:, 0], chance, atol=0.07) is right
    hybrid = Router(HybridLinUCB([], 2, features=3, rng=0))
    assert len(hybrid.select(X, candidates={"a": np.ones(3), "b": np.ones(3)}, k=(1.0, 0.5)).arms) == 2
    with pytest.raises(TypeError, match="linear"):
        Router(LogisticUCB(ARMS, 2, rng=0)).select(X, k=(1.0, 0.5))


def test_places_expire_each_with_the_reward_that_is_stated():
    now = [0.0]
    router = Router(LinUCB(ARMS, 2, rng=0), feedback_limit_s=10.0, expired_reward=0.0, clock=lambda: now[0])
    shown = router.select(X, k=3)
    router.update(shown.id, {shown.arms[2]: 1.0})
    now[0] = 11.0
    assert router.stats()["expired"] == 2 and router.policy.counts.sum() == 3
    assert not router.update(shown.id, {shown.arms[0]: 1.0})


# -- with everything else -------------------------------------------------------------------------------------------------


def test_terms_and_residency_see_every_place():
    health, queues = ArmHealth(), Queues([0.1] * 5, per_second=0.1)
    terms = [health, queues, BudgetPacer(10.0, [0.1] * 5)]
    router = Router(LinUCB(ARMS, 2, rng=0), Static(["a", "b"]), 0.2, terms=terms)
    health.mark("c", "down")
    shown = router.select(X, k=3)
    assert "c" not in shown.arms and queues.depth.sum() == 3.0 and router.stats()["decisions"] == 3
    assert [place.hit for place in shown.places] == [arm in ("a", "b") for arm in shown.arms]
    router.update(shown.id, {shown.arms[0]: 1.0}, cost=0.5, seconds=0.1)
    assert queues.depth.sum() == 2.0 and router.stats()["spend"] == 0.5
    router.cancel(shown.id)
    assert queues.depth.sum() == 0.0 and not router.stats()["callback_errors"]


@pytest.mark.parametrize("kind", ["LinUCB", "shared"])
def test_lists_survive_a_kill(kind, tmp_path):
    def make():
        policy = LinUCB(ARMS, 2, mix=0.3, rng=0)
        if kind == "shared":
            policy = SharedLinUCB([], 2, features=2, mix=0.3, rng=0)
        return Router(policy, terms=[] if kind == "shared" else [Queues([0.1] * 5, per_second=0.1)])

    def asked(router, i):
        given = {"candidates": {f"n{i}-{j}": [1.0, j / 4] for j in range(4)}} if kind == "shared" else {}
        return router.select(np.array([1.0, i / 50]), k=3, id=f"r{i}", **given)

    seen = tmp_path / "seen.json"
    child = os.fork()
    if child == 0:
        router = make()
        router.recover(tmp_path / "home", flush_s=0.01)
        shown = [asked(router, i).arms for i in range(50)]
        for i in range(0, 50, 2):
            router.update(f"r{i}", cascade(shown[i], shown[i][1]))
        router.parts.listeners.all[0].flush()
        state = router.policy.generator.bit_generator.state
        seen.write_text(json.dumps([shown, router.stats()["pending"], router.stats()["learned"], state]))
        os._exit(9)
    os.waitpid(child, 0)
    shown, pending, learned, state = json.loads(seen.read_text())
    with make() as router:
        assert router.recover(tmp_path / "home")["skipped"] == 0
        stats = router.stats()
        assert (stats["pending"], stats["learned"]) == (pending, learned) == (75, 50)
        assert router.policy.generator.bit_generator.state == state
        for i in range(1, 50, 2):
            assert router.update(f"r{i}", {shown[i][2]: 1.0, shown[i][0]: 0.0})
        assert router.stats()["learned"] == 100


def test_another_worker_takes_rewards_by_place(tmp_path):
    one, two = (Router(LinUCB(ARMS, 2, mix=0.3, rng=s)) for s in (0, 1))
    joined = [r.join(FileStore(tmp_path), background=False, share_decisions=True) for r in (one, two)]
    shown = one.select(X, k=3)
    for replica in joined:
        replica.exchange()
    with pytest.raises(UnknownDecision, match="by place"):
        two.update(shown.id, {shown.arms[0]: 1.0})
    assert two.update(shown.id, [1.0, 0.0])
    assert one.update(shown.id, {shown.arms[2]: 0.5})
    for replica in joined * 3:
        replica.exchange()
        replica.sync()
    assert one.policy.counts.sum() == two.policy.counts.sum() == 3
    one.close()
    two.close()


def test_a_ranking_is_copied_and_pickled_as_it_is():
    shown = Router(LinUCB(ARMS, 2, rng=0)).select(X, k=2)
    for again in (copy.deepcopy(shown), pickle.loads(pickle.dumps(shown))):
        assert again == shown and again.places == shown.places and again.prefixes == shown.prefixes


BAD = [
    ({"k": 0}, ValueError), ({"k": -1}, ValueError), ({"k": 2.5}, (ValueError, TypeError)), ({"k": "3"}, TypeError),
    ({"k": []}, ValueError), ({"k": (1.0, 0.0)}, ValueError), ({"k": (1.0, 2.0)}, ValueError),
    ({"k": (np.nan,)}, ValueError), ({"k": True}, TypeError), ({"k": 3, "eligible": {"nobody"}}, UnknownArm),
    ({"k": 3, "prices": {"a": np.nan}}, ValueError), ({"k": 3, "eligible": np.zeros(5, dtype=bool)}, ValueError),
]  # fmt: skip


@pytest.mark.parametrize(("options", "error"), BAD, ids=repr)
def test_bad_lists_are_refused_and_change_nothing(options, error):
    router, twin = (Router(LinUCB(ARMS, 2, mix=0.5, rng=0)) for _ in range(2))
    with pytest.raises(error):
        router.select(X, **options)
    with pytest.raises(ValueError, match="shape"):
        router.select([1.0], k=3)
    assert router.stats()["decisions"] == 0 == router.stats()["pending"]
    assert router.select(X, k=3).arms == twin.select(X, k=3).arms


def test_bad_rewards_of_a_list_are_refused_and_change_nothing():
    router = Router(LinUCB(ARMS, 2, rng=0))
    shown = router.select(X, k=3)
    gone = next(arm for arm in ARMS if arm not in shown.arms)
    for rewards, error in [
        ({shown.arms[0]: 1.0, gone: 0.0}, UnknownArm),
        ({shown.arms[0]: 1.0, shown.arms[1]: np.nan}, ValueError),
        ([1.0, "x"], TypeError),
        ([1.0, 1e300], ValueError),
        ([1.0] * 4, ValueError),
    ]:
        with pytest.raises(error):
            router.update(shown.id, rewards)
    for rewards in ({"a": 1.0}, [1.0]):
        with pytest.raises(UnknownDecision):
            router.update(17, rewards)
    assert router.stats()["learned"] == 0 and router.stats()["pending"] == 3
    with pytest.raises(TypeError, match="Uniform"):
        Router(Uniform(ARMS, 2, rng=0)).select(X, k=2)
