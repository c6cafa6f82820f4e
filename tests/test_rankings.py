"""What other lists and other choices among candidates would have earned: unbiased, and what obp computes."""

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from banditroute import LinUCB, Recorder, Router, Trace
from banditroute.evaluation import Lists, evaluate, evaluate_lists
from banditroute.policies import HybridLinUCB, SharedLinUCB

ARMS = ["a", "b", "c", "d"]
WORTH = {"a": 0.2, "b": 0.5, "c": 0.7, "d": 0.4}
FROZEN = json.loads((Path(__file__).parent / "data" / "peers-1" / "lists.json").read_text(encoding="utf-8"))


def fresh(mix):
    """Knows nothing: the best are those that come first, and every place is explored over all that are left."""
    return LinUCB(ARMS, 2, mix=mix, rng=0)


def taught(mix):
    """Believes in the same order, and has tried some arms more often than others."""
    policy = fresh(mix)
    for a, arm in enumerate(ARMS):
        for _ in range(3 + 9 * (a % 2)):
            policy.update(arm, [1.0, 0.1], 0.9 - 0.2 * a)
    return policy


def clicks(rng, arms, how):
    """Rewards of a list: of each place alone; cut after the first click; or less where one has been seen before."""
    hits = [float(rng.random() < WORTH[arm]) for arm in arms]
    if how == "places":
        return hits
    if how == "cascade":
        first = hits.index(1.0) if 1.0 in hits else len(hits)
        return [hit if i <= first else 0.0 for i, hit in enumerate(hits)]
    return [hit * (0.5 if "c" in arms[-1:] else 1.0) for hit in hits]  # what stands last counts for all


def shown_by(router, n, how, seed, k=3):
    rng, shown, rewards, contexts = np.random.default_rng(seed), [], [], []
    for _ in range(n):
        x = np.array([1.0, 0.05 * rng.standard_normal()])
        shown.append(router.select(x, k=k))
        rewards.append(clicks(rng, shown[-1].arms, how))
        contexts.append(x)
    return Lists.of(shown, rewards, contexts)


def expected(arms, how):
    """Mean total of clicks of a list, exactly."""
    w = [WORTH[arm] for arm in arms]
    if how == "places":
        return sum(w)
    if how == "cascade":
        return 1.0 - np.prod([1.0 - one for one in w])
    return sum(w) * (0.5 if arms[-1] == "c" else 1.0)


@pytest.mark.parametrize("how", ["places", "cascade", "lists"])
def test_ips_is_unbiased_where_its_click_model_holds(how):
    log = shown_by(Router(fresh(1.0)), 4000, how, seed=1)
    for target in (
        ["b", "a", "c"],
        ["a", "b", "d"],
        ["d", "a", "b"],
    ):  # one step from what the log thinks best
        found = evaluate_lists(log, target, clicks=how)
        for one in found.estimates.values():
            assert abs(one.value - expected(target, how)) <= 3.0 * one.std_error, (how, target, found)
            assert one.low < one.value < one.high
        assert not found.notes


def test_a_click_model_that_does_not_hold_is_seen_to_be_wrong():
    """The bars above can fail: what depends on the places above is not weighed by arm and place alone."""
    rng, n = np.random.default_rng(6), 10_000
    arms = rng.permuted(np.tile(np.arange(4), (n, 1)), axis=1)[:, :3]
    rewards = [clicks(rng, [ARMS[a] for a in one], "cascade") for one in arms]
    log = Lists(ARMS, arms, rewards, np.full((n, 3), 1 / 4), np.tile([1 / 4, 1 / 12, 1 / 24], (n, 1)))
    wrong, right = (evaluate_lists(log, ["a", "d", "b"], clicks=how)["ips"] for how in ("places", "cascade"))
    truth = expected(["a", "d", "b"], "cascade")
    assert (
        abs(wrong.value - truth) > 5.0 * wrong.std_error and abs(right.value - truth) <= 3.0 * right.std_error
    )


def test_a_list_that_the_log_cannot_show_is_told():
    log = shown_by(Router(fresh(1.0)), 2000, "places", seed=1)
    for fewest in (20.0, 0.0):
        with pytest.raises(ValueError, match="at place 3: the log hardly ever showed there"):
            evaluate_lists(log, ["b", "d", "a"], min_ess=fewest)  # what is best stands first or second
    half = Lists(["a", "b"], [[0, 1], [1, 0]] * 200, np.ones((400, 2)), np.full((400, 2), 0.9))
    assert "the propensities are wrong" in evaluate_lists(half, ["a", "b"]).notes[0]


@pytest.mark.parametrize("how", ["places", "cascade"])
def test_a_policy_is_worth_what_it_earns_when_it_shows_its_own_lists(how):
    log = shown_by(Router(fresh(1.0)), 4000, how, seed=2)
    other = taught(0.2)
    found = evaluate_lists(log, other, clicks=how)
    own = shown_by(Router(other), 4000, how, seed=4).rewards.sum(axis=1)
    gap = own.std() / np.sqrt(len(own))
    for one in found.estimates.values():
        assert abs(one.value - own.mean()) <= 3.0 * np.hypot(one.std_error, gap), (found, own.mean())


def test_the_chances_of_a_policy_are_those_of_its_router():
    policy = taught(0.4)
    log = shown_by(Router(policy), 300, "places", seed=5)
    same = evaluate_lists(log, policy, clicks="cascade", min_ess=0.0)
    assert same.mean_weight == pytest.approx(1.0, abs=1e-12) == same.max_weight
    every = list(permutations(range(4), 3))
    all_ = Lists(ARMS, every, np.zeros((24, 3)), np.ones((24, 3)), None, np.tile([1.0, 0.3], (24, 1)))
    from banditroute.evaluation.rankings import _of_policy

    marginal, prefix = _of_policy(all_, policy)
    assert prefix[:, -1].sum() == pytest.approx(1.0, abs=1e-12)
    for place in range(3):
        for arm in range(4):
            rows = [i for i, one in enumerate(every) if one[place] == arm]
            assert np.ptp(marginal[rows, place]) < 1e-12
            assert prefix[rows, -1].sum() == pytest.approx(marginal[rows[0], place], abs=1e-12)


def test_lists_of_a_recorder_are_told_by_their_ids():
    recorder, rng = Recorder(), np.random.default_rng(0)
    router = Router(taught(0.6), recorder=recorder)
    shown, rewards = [], []
    for i in range(40):
        shown.append(router.select([1.0, 0.5], k=3 if i % 3 else 2))
        rewards.append([float(r) for r in rng.random(len(shown[-1].arms))])
        router.update(shown[-1].id, rewards[-1])
        router.update(router.select([1.0, 0.5]).id, 0.5)  # decisions of one arm stand between
    log = Lists.from_trace(recorder.trace())
    lists = [i for i, one in enumerate(log.arms) if (one >= 0).sum() > 1]
    assert len(log) == 80 and len(lists) == 40
    for i, one, earned in zip(lists, shown, rewards, strict=True):
        many = len(one.arms)
        assert (
            tuple(log.names[a] for a in log.arms[i, :many]) == one.arms and (log.arms[i, many:] == -1).all()
        )
        assert log.rewards[i, :many].tolist() == pytest.approx(earned)
        assert log.propensities[i, :many].tolist() == pytest.approx(list(one.propensities))


def frozen():
    given = FROZEN["log"]
    return Lists(
        [str(a) for a in range(given["arms_of"])], np.array(given["arms"]), np.array(given["rewards"]),
        np.array(given["marginal"]), np.array(given["prefix"]),
    )  # fmt: skip


@pytest.mark.parametrize("clicks", ["places", "cascade", "lists"])
def test_obp_computes_the_same(clicks):
    """Values of its slate estimators, IIPS, RIPS and SIPS, as `benchmarks/agreement.py --freeze` wrote them."""
    target = (np.array(FROZEN["target"]["marginal"]), np.array(FROZEN["target"]["prefix"]))
    found = evaluate_lists(frozen(), target, clicks=clicks, min_ess=0.0)
    assert found["ips"].value == pytest.approx(FROZEN["obp"][clicks], rel=0.0, abs=1e-9)


def test_unanswered_lists_are_left_out_and_a_place_without_an_answer_earned_nothing():
    log = Lists(
        ["a", "b"], [[0, 1], [1, 0], [0, -1]] * 20, [[1.0, np.nan], [np.nan, np.nan], [1.0, np.nan]] * 20,
        np.full((60, 2), 0.5),
    )  # fmt: skip
    found = evaluate_lists(log, ["a", "b"], min_ess=1.0)
    assert (found.rows, found.unanswered) == (40, 20) and found["ips"].value == pytest.approx(2.0)
    assert "left out" in found.notes[-1]


GOOD = {"names": ["a", "b"], "arms": [[0, 1]], "rewards": [[1.0, 0.0]], "propensities": [[0.5, 0.5]]}
BAD = [
    ({"arms": [[0, 2]]}, "arms must be in"), ({"arms": [0, 1]}, "arms must be"), ({"arms": [[-1, 0]]}, "arms must have"),
    ({"arms": [[0.5, 1.0]]}, "arms must be"), ({"rewards": [[1.0]]}, "rewards must"),
    ({"rewards": [[np.inf, 0.0]]}, "rewards must"), ({"propensities": [[0.0, 0.5]]}, "propensities must"),
    ({"propensities": [[0.5]]}, "propensities must"), ({"prefixes": [[0.5, 1.5]]}, "prefixes must"),
    ({"contexts": [[1.0], [2.0]]}, "contexts"), ({"names": ["a", "a"]}, "names must"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "word"), BAD)
def test_bad_lists_are_refused(given, word):
    with pytest.raises(ValueError, match=word):
        Lists(**{**GOOD, **given})


ASKED = [
    ((["a"],), {}, "at least 2 arms"), ((["a", "a"],), {}, "each once"), ((["a", "z"],), {}, "'z'"),
    (([],), {}, "target must"), (([["a", "b"]] * 3,), {}, "target must be one list or 1"),
    (((np.ones((1, 2)), np.full((1, 2), 1.5)),), {}, "prefix"), ((["a", "b"],), {"clicks": "cascade"}, "prefixes"),
    ((["a", "b"],), {"clicks": "dbn"}, "clicks must"), ((["a", "b"],), {}, "effective sample size"),
    ((["a", "b"],), {"confidence": 1.0}, "confidence"), ((LinUCB(2, 1),), {}, "contexts"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "options", "word"), ASKED)
def test_bad_questions_are_refused(given, options, word):
    with pytest.raises(ValueError, match=word):
        evaluate_lists(Lists(**GOOD), *given, **options)


# -- choices among candidates ------------------------------------------------------------------------------------------

BETA = np.array([0.3, -0.4, 0.2])


def choices(policy, n, seed, recorder=None, pool=12):
    """Let a policy serve requests that each bring some of a pool of names; returns the mean of the true rewards."""
    rng, router, total = np.random.default_rng(seed), Router(policy, recorder=recorder), 0.0
    for _ in range(n):
        names = tuple(f"n{i}" for i in rng.choice(pool, size=4, replace=False))
        x, z = np.append(1.0, rng.standard_normal()), rng.standard_normal((4, 3))
        decision = router.select(x, candidates=(names, z))
        truth = 0.5 + z[names.index(decision.arm)] @ BETA
        total += truth
        if recorder is not None:
            router.update(decision.id, float(truth + 0.1 * rng.standard_normal()))
    return total / n


@pytest.mark.parametrize("pool", [12, 400])
def test_a_policy_is_evaluated_on_recorded_candidates(pool):
    recorder = Recorder()
    choices(SharedLinUCB([], 2, features=3, mix=1.0, rng=0), 3000, 1, recorder, pool)
    log = recorder.trace()
    for other in (
        SharedLinUCB([], 2, features=3, mix=0.1, rng=1),
        HybridLinUCB([], 2, features=3, mix=0.1, rng=1),
    ):
        for z in np.random.default_rng(2).standard_normal((200, 3)):
            other.update("guest", np.append([1.0, 0.0], z), float(z @ BETA))
        truth = choices(other.copy(), 3000, 3, pool=pool)
        found = evaluate(log, other, estimators=("ips", "snips", "dr"))
        for one in found.estimates.values():
            assert abs(one.value - truth) <= 3.0 * one.std_error + 0.03, (found, truth)
        assert (
            found["ips"].value
            > evaluate(log, SharedLinUCB([], 2, features=3, mix=1.0), estimators=["ips"])["ips"].value
        )


def test_policies_that_do_not_fit_recorded_candidates_are_refused():
    recorder = Recorder()
    choices(SharedLinUCB([], 2, features=3, mix=1.0, rng=0), 50, 1, recorder, 400)
    log = recorder.trace()
    for policy, error, word in [
        (LinUCB(list(log.names), 2), TypeError, "policy must take candidates"),
        (SharedLinUCB([], 2, features=2), ValueError, "3 features"),
        (SharedLinUCB(["n1"], 2, features=3), ValueError, "no arms"),
    ]:
        with pytest.raises(error, match=word):
            evaluate(log, policy)
    assert isinstance(log, Trace)
