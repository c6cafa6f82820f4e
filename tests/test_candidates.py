"""Candidates with features: exact chances, statistics that do not depend on when and where feedback comes, files."""

import json
import os
import tempfile

import numpy as np
import pytest

from banditroute import FileStore, LinUCB, Recorder, Router, Static, Trace, UnknownArm, UnknownDecision
from banditroute._core.kernels import candidates as kernels
from banditroute.policies import (
    BatchedUpdates,
    HybridLinUCB,
    Restarting,
    SharedLinUCB,
    SlidingWindow,
    SquareCB,
    StalenessInflation,
)
from banditroute.policies.wrapper import Wrapper
from banditroute.terms import ArmHealth, BudgetPacer, CostModels, Queues

D, F, LONG = 3, 4, 10_000
POOL = [f"item-{i}" for i in range(30)]
ARMS = ["small", "large"]
KINDS = {
    "shared": lambda arms=(), seed=0, **o: SharedLinUCB(arms, D, features=F, rng=seed, **o),
    "shared-products": lambda arms=(), seed=0, **o: SharedLinUCB(
        arms, D, features=F, interactions=True, rng=seed, **o
    ),
    "hybrid": lambda arms=(), seed=0, **o: HybridLinUCB(arms, D, features=F, ridge=2.0, rng=seed, **o),
    "disjoint-prior": lambda arms=(), seed=0, **o: HybridLinUCB(
        arms, D, features=F, interactions=True, rng=seed, **o
    ),
}


ALL = KINDS | {
    "window": lambda arms=(), **o: SlidingWindow(KINDS["shared"](arms, **o), LONG),
    "window-hybrid": lambda arms=(), **o: SlidingWindow(KINDS["hybrid"](arms, **o), LONG),
}


def offered(rng, arms=ARMS):
    """A set of candidates that differs each time: some arms, some guests, in any order."""
    names = [*rng.choice(POOL, size=rng.integers(2, 8), replace=False).tolist(), *arms]
    names = [names[i] for i in rng.permutation(len(names))[: rng.integers(2, len(names) + 1)]]
    return tuple(names), rng.standard_normal((len(names), F))


def context(rng):
    return np.append(1.0, rng.standard_normal(D - 1))


def statistics(policy):
    """Everything that was learned, by name."""
    _, arrays = getattr(policy, "base", policy).to_state()
    return arrays


def same(one, other, tolerance=1e-9):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], rtol=tolerance, atol=tolerance, err_msg=name)


# -- the model, against regressions written out -----------------------------------------------------------------------


class Slow:
    """Ridge regression on all that was learned, solved anew; hybrid ones on one long vector of coefficients."""

    def __init__(self, kind, arms, ridge=1.0):
        self.kind, self.arms, self.rows, self.ridge = kind, list(arms), [], ridge

    def joint(self, x, z):
        return np.outer(z, x).ravel() if self.kind in ("shared-products", "disjoint-prior") else z

    def learn(self, name, x, z, reward):
        self.rows.append((name, x, self.joint(x, z), reward))

    def scores(self, x, names, matrix):
        # A guest has a part of its own, forgotten after each decision: an arm of its own for every row.
        w = len(self.joint(x, matrix[0]))
        own = self.kind in ("hybrid", "disjoint-prior")
        keys = [f"guest {i}" if n not in self.arms else n for i, (n, *_) in enumerate(self.rows)]
        owners = list(dict.fromkeys([*self.arms, *keys])) if own else []
        size = w + D * (len(owners) + 1)
        gram, moment = np.diag([1.0] * w + [self.ridge] * (size - w)), np.zeros(size)

        def vector(name, x, z):
            long = np.zeros(size)
            long[:w] = z
            if own:
                at = owners.index(name) if name in owners else len(owners)
                long[w + D * at : w + D * (at + 1)] = x
            return long

        for key, (_, x_, z_, r) in zip(keys, self.rows, strict=True):
            v = vector(key, x_, z_)
            gram += np.outer(v, v)
            moment += r * v
        cov = np.linalg.inv(gram)
        now = np.array([vector(n, x, self.joint(x, z)) for n, z in zip(names, matrix, strict=True)])
        return now @ cov @ moment, np.sqrt(np.einsum("ai,ij,aj->a", now, cov, now))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_one_long_regression(kind):
    rng = np.random.default_rng(0)
    policy = KINDS[kind](ARMS)
    slow = Slow(kind, ARMS, ridge=2.0 if kind == "hybrid" else 1.0)
    for _ in range(40):
        names, z = offered(rng)
        x, a = context(rng), int(rng.integers(len(names)))
        reward = float(rng.random())
        policy.update(names[a], policy.kept_candidate(x, z[a]), reward)
        slow.learn(names[a], x, z[a], reward)
    names, z = offered(rng)
    x = context(rng)
    mean, width = policy.candidate_scores(x, (names, z))
    wanted = slow.scores(x, names, z)
    np.testing.assert_allclose(mean, wanted[0], atol=1e-9)
    np.testing.assert_allclose(width, wanted[1], atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_candidates_score_alike_to_the_last_bit(kind):
    rng = np.random.default_rng(1)
    policy = KINDS[kind]()
    for _ in range(30):
        policy.update("one", np.concatenate([context(rng), rng.standard_normal(F)]), float(rng.random()))
    for m in (1, 2, 3, 7, 8, 9, 31, 200):
        z = np.repeat(rng.standard_normal((1, F)), m, axis=0)
        mean, width = policy.candidate_scores(context(rng), ([str(i) for i in range(m)], z))
        assert len(set(mean.tolist())) == len(set(width.tolist())) == 1


@pytest.mark.parametrize("plain", [False, True])
def test_kernels_are_what_numpy_says(plain):
    rng = np.random.default_rng(2)
    pick = (lambda k: getattr(k, "py_func", k)) if plain else (lambda k: k)
    for m in (1, 5, 8, 40):
        z, half = rng.standard_normal((m, F)), rng.standard_normal((F, F))
        beta, cov = rng.standard_normal(F), half @ half.T
        mean, width = np.empty(m), np.empty(m)
        pick(kernels.score)(z, beta, cov, mean, width, np.empty((F + 1, -(-m // 8) * 8)))
        np.testing.assert_allclose(mean, z @ beta, atol=1e-12)
        np.testing.assert_allclose(width, np.sqrt(np.einsum("ai,ij,aj->a", z, cov, z)), atol=1e-12)
        prices = rng.choice([0.0, 0.1, np.inf], size=m)
        prices[rng.integers(m)] = 0.1
        index, chance = rng.choice([0.0, 0.1, 0.2], size=m), np.empty(m)
        value = index - (prices - prices.min())
        top, open_ = value == value.max(), np.isfinite(prices)
        wanted = 0.7 * top / top.sum() + 0.3 * open_ / open_.sum()
        for u in (0.0, 0.3, 0.999999):
            arm = pick(kernels.draw)(index, prices, 0.3, u, chance)
            np.testing.assert_allclose(chance, wanted, atol=1e-12)
            assert arm == np.searchsorted(np.cumsum(wanted), u * wanted.sum(), side="right")
    assert pick(kernels.draw)(np.zeros(2), np.full(2, np.inf), 0.0, 0.5, np.empty(2)) == -1
    assert not pick(kernels.within)(np.array([[0.0, np.nan]]), 1e30)


# -- chances ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_propensities_are_frequencies(kind):
    rng = np.random.default_rng(3)
    router = Router(ALL[kind](ARMS, mix=0.3))
    policy = getattr(router.policy, "base", router.policy)
    names, z = (*ARMS, "guest", "twin"), rng.standard_normal((4, F))
    z[3] = z[2]
    x = context(rng)
    wanted = policy.candidate_propensities(x, (names, z))
    n, count = 3000, dict.fromkeys(names, 0)
    for _ in range(n):
        decision = router.select(x, candidates=(names, z))
        assert decision.propensity == pytest.approx(wanted[names.index(decision.arm)], abs=1e-12)
        count[decision.arm] += 1
    for name, p in zip(names, wanted, strict=True):  # three standard errors, seeds fixed
        assert abs(count[name] / n - p) <= 3.0 * np.sqrt(p * (1.0 - p) / n)
    assert wanted[2] == wanted[3] and wanted.sum() == pytest.approx(1.0)


def test_ips_of_recorded_candidates_is_unbiased():
    rng = np.random.default_rng(4)
    recorder = Recorder()
    router = Router(KINDS["shared"](mix=0.4), recorder=recorder)
    beta, values = np.array([0.3, -0.2, 0.1, 0.2]), []
    for _ in range(4000):
        names, z = offered(rng, arms=())
        decision = router.select(context(rng), candidates=(names, z))
        truth = 0.5 + z @ beta
        router.update(decision.id, float(truth[names.index(decision.arm)] + 0.1 * rng.standard_normal()))
        values.append(truth[np.argmin(z[:, 0])])  # another rule: the least first feature
    log, weighed = recorder.trace(), []
    for i in range(len(log)):
        names, z = log.candidates_of(i)
        wanted = names[int(np.argmin(z[:, 0]))]
        weighed.append((log.names[log.arms[i]] == wanted) / log.propensities[i] * log.rewards[i])
    off = np.array(weighed) - np.array(values)
    assert abs(off.mean()) <= 3.0 * off.std() / np.sqrt(len(off))


# -- late equals immediate ---------------------------------------------------------------------------------------------


def stream(rng, n):
    for i in range(n):
        names, z = offered(rng)
        yield i, context(rng), names, z


def reward_of(name, x, z):
    return float(np.tanh(0.3 * z.sum() + 0.2 * x[1] + 0.1 * len(name)))


def decided(router, n=700, delay=0, seed=5, prefix="r"):
    """Make decisions and answer them so many requests later; what is asked does not depend on what is answered."""
    waiting, made = [], []
    for i, x, names, z in stream(np.random.default_rng(seed), n):
        decision = router.select(x, candidates=(names, z), id=f"{prefix}{i}")
        made.append((decision.arm, x, z[names.index(decision.arm)].copy()))
        z[:] = 7.0  # the caller's arrays are the caller's
        waiting.append((decision.id, reward_of(*made[-1])))
        if len(waiting) > delay:
            router.update(*waiting.pop(0))
    return made, waiting


@pytest.mark.parametrize("kind", ALL)
def test_late_feedback_teaches_what_immediate_feedback_on_the_same_decisions_does(kind):
    router = Router(ALL[kind](ARMS, mix=0.1))
    made, waiting = decided(router, delay=500)
    for key, reward in np.random.default_rng(0).permutation(np.array(waiting, dtype=object)):
        assert router.update(key, reward)
    fresh = bare(kind)
    for name, x, z in made:
        fresh.update(name, fresh.kept_candidate(x, z), reward_of(name, x, z))
    same(statistics(router.policy), statistics(fresh))
    learner = getattr(router.policy, "base", router.policy)
    assert learner.guests + learner.counts.sum() == 700 == router.stats()["learned"]


def bare(kind):
    policy = ALL[kind](ARMS)
    return getattr(policy, "base", policy)


def killed(work):
    """Run work in a child that ends as by kill -9."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("kind", ALL)
def test_statistics_after_a_kill_are_those_of_immediate_feedback(kind, checkpoint, tmp_path):
    seen = tmp_path / "seen.json"

    def work():
        router = Router(ALL[kind](ARMS, mix=0.1), terms=[Queues([0.1, 0.2], per_second=0.1)])
        router.recover(tmp_path / "home", flush_s=0.01)
        made, waiting = decided(router, n=700, delay=500)
        if checkpoint:
            router.checkpoint()
        router.select(np.ones(D), candidates={"last": np.ones(F)})
        router.parts.listeners.all[0].flush()
        depth = router.terms[0].depth.tolist()
        state = router.policy.generator.bit_generator.state
        told = [[n, x.tolist(), z.tolist()] for n, x, z in made]
        seen.write_text(json.dumps([told, waiting, depth, state]))

    killed(work)
    made, waiting, depth, state = json.loads(seen.read_text())
    with Router(ALL[kind](ARMS, mix=0.1), terms=[Queues([0.1, 0.2], per_second=0.1)]) as router:
        report = router.recover(tmp_path / "home")
        assert report["skipped"] == 0
        assert router.stats()["pending"] == 501 and router.terms[0].depth.tolist() == depth
        assert router.policy.generator.bit_generator.state == state  # the same draws from here on
        for i in range(200, 700):
            assert router.update(f"r{i}", waiting[i - 200][1])
        fresh = bare(kind)
        for name, x, z in made:
            x, z = np.array(x), np.array(z)
            fresh.update(name, fresh.kept_candidate(x, z), reward_of(name, x, z))
        same(statistics(router.policy), statistics(fresh))


@pytest.mark.parametrize("kind", ALL)
def test_replicas_learn_what_one_router_would(kind, tmp_path):
    one, two = (Router(ALL[kind](ARMS, seed=s, mix=0.1)) for s in (0, 1))
    joined = [
        r.join(FileStore(tmp_path / "store"), background=False, share_decisions=True) for r in (one, two)
    ]
    made, waiting = decided(one, n=600, delay=500)
    mine, _ = decided(two, n=60, seed=9, prefix="s")
    for replica in joined * 2:
        replica.exchange()
    for i, (key, reward) in enumerate(waiting):  # half of them come to the other worker
        assert (one if i % 2 else two).update(key, reward)
    for replica in joined * 4:
        replica.exchange()
        replica.sync()
    fresh = bare(kind)
    for name, x, z in [*made, *mine]:
        fresh.update(name, fresh.kept_candidate(x, z), reward_of(name, x, z))
    for router in (one, two):
        same(statistics(router.policy), statistics(fresh))
        router.close()


def test_load_as_feature_is_learned_late_as_well_as_at_once():
    earned = {}
    for delay in (0, 5):
        rng, waiting, rewards = np.random.default_rng(0), [], []
        router = Router(SharedLinUCB(["near", "far"], 1, features=2, alpha=0.0, rng=0))
        for _ in range(2000):
            load = rng.random(2)
            decision = router.select([1.0], candidates={"near": [1.0, load[0]], "far": [1.0, load[1]]})
            rewards.append(1.0 - load[["near", "far"].index(decision.arm)])
            waiting.append((decision.id, rewards[-1]))
            if len(waiting) > delay:
                router.update(*waiting.pop(0))
        earned[delay] = float(np.mean(rewards[200:]))
    assert earned[0] > 0.65 and abs(earned[5] - earned[0]) < 0.005


# -- with everything else in a Router -----------------------------------------------------------------------------------


def test_candidates_that_are_arms_pay_what_arms_pay():
    health = ArmHealth()
    terms = [health, Queues([1.0, 1.0], per_second=0.2), CostModels(ARMS, D, weights={"usd": 1.0})]
    router = Router(KINDS["hybrid"](ARMS), Static(["small"]), 0.3, terms=terms)
    z = np.zeros((3, F))
    choice = (("large", "guest", "small"), z)
    why = router.explain(np.ones(D), candidates=choice, prices={"guest": 0.05})
    assert why["large"].prices["fault"] == 0.3 and why["large"].prices["queues"] == pytest.approx(0.2)
    assert why["small"].prices["fault"] == 0.0 and why["small"].resident and not why["large"].resident
    assert {n: p for n, p in why["guest"].prices.items() if p} == {"caller": 0.05}
    for one in why.arms:
        assert one.index == pytest.approx(one.mean + one.bonus - sum(one.prices.values()), abs=1e-12)
    decision = router.select(np.ones(D), candidates=choice, prices={"guest": 0.05})
    assert decision.arm == "guest" == why.best.arm and decision.propensity == why["guest"].propensity
    health.mark("small", "down")
    router.quarantine("large")
    why = router.explain(np.ones(D), candidates=choice)
    assert why["small"].closed == ("health: down",) and why["large"].closed == ("quarantine",)
    with pytest.raises(ValueError, match="leaves open"):
        router.select(np.ones(D), {"small"}, candidates=choice)
    assert router.stats()["decisions"] == 1 == router.stats()["pending"]
    assert not router.stats()["callback_errors"]
    health.mark("small", "up")
    one = router.select(np.ones(D), {"small"}, candidates=choice)
    assert router.terms[1].depth.tolist() == [1.0, 0.0] and router.stats()["arms"]["small"]["decisions"] == 1
    router.update(one.id, 0.5, cost=0.1, seconds=0.2)
    assert router.terms[1].depth.sum() == 0.0


def test_a_budget_counts_what_guests_cost_and_is_passed_over_when_it_must():
    pacer = BudgetPacer(0.1, [0.1, 5.0])
    router = Router(KINDS["shared"](ARMS), terms=[pacer])
    decision = router.select(np.ones(D), candidates={"guest": np.zeros(F)})
    router.update(decision.id, 0.5, cost=3.0)
    assert not router.stats()["callback_errors"] and pacer.spent == pytest.approx(3.0)
    only = {"large": np.zeros(F)}
    assert router.explain(np.ones(D), candidates=only).passed_over == ("budget",)
    relaxed = router.stats()["relaxed"]
    assert router.select(np.ones(D), candidates=only).arm == "large"
    assert router.stats()["relaxed"] == relaxed + 1


def test_what_a_dollar_is_worth_is_said_by_each_request_without_learning_anew():
    """Candidates that are arms pay what is expected of them at the weight of the request; guests what the caller says."""
    models = CostModels(ARMS, D, weights={"usd": 0.0, "seconds": 0.0})
    router, rng = Router(KINDS["hybrid"](ARMS, alpha=0.0), terms=[models]), np.random.default_rng(0)
    z = {"small": np.full(F, 0.1), "large": np.full(F, 0.3), "guest": np.full(F, -0.2)}
    usd, skill, x = (
        {"small": 0.01, "large": 0.2, "guest": 0.05},
        {"small": 0.5, "large": 0.8, "guest": 0.1},
        np.ones(D),
    )
    for i in range(90):
        name = list(z)[i % 3]
        one = router.select(x, {name}, candidates=z)
        router.update(one.id, skill[name] + 0.01 * rng.standard_normal(), cost=usd[name], seconds=1.0)
    learned = models.predict("usd", x)
    assert learned == pytest.approx([0.01, 0.2], rel=0.2)
    choices = {}
    for weight in (0.0, 5.0, 0.0):
        why = router.explain(
            x, candidates=z, weights={"usd": weight}, prices={"guest": weight * usd["guest"]}
        )
        for arm, price in zip(ARMS, learned, strict=True):
            assert why[arm].prices["costs"] == pytest.approx(weight * price, abs=1e-12)
        assert why["guest"].prices["costs"] == 0.0 and why["guest"].prices["caller"] == weight * usd["guest"]
        one = router.select(x, candidates=z, weights={"usd": weight})
        shown = router.select(x, candidates=z, weights={"usd": weight}, k=2)
        choices.setdefault(weight, []).append((one.arm, sorted(shown.arms[:1])))
        router.cancel(one.id), router.cancel(shown.id)
    assert choices[0.0] == [("large", ["large"])] * 2 and choices[5.0] == [("small", ["small"])]
    assert np.array_equal(models.predict("usd", x), learned) and models.weights == {
        "usd": 0.0,
        "seconds": 0.0,
    }
    with pytest.raises(ValueError, match="weights must be of usd, seconds, got 'joules'"):
        router.select(x, candidates=z, weights={"joules": 1.0})


def test_arms_come_and_go_beside_candidates():
    router = Router(KINDS["hybrid"](ARMS))
    z = {name: np.full(F, 0.1 * i) for i, name in enumerate([*ARMS, "new", "guest"])}
    waiting = [router.select(np.ones(D), {name}, candidates=z) for name in z]
    router.add_arm("new")
    router.remove_arm("large")
    learned = {d.arm: router.update(d.id, 0.5) for d in waiting}
    assert learned == {"small": True, "large": False, "new": True, "guest": True}
    assert router.policy.guests == 1 and router.policy.counts.tolist() == [1, 1]
    again = router.select(np.ones(D), {"large"}, candidates=z)  # a guest by now
    assert router.update(again.id, 0.5) and router.policy.guests == 2


def test_a_repeated_id_gets_the_first_decision_and_cancel_frees_it():
    router = Router(KINDS["shared"]())
    rng = np.random.default_rng(0)
    first = router.select(np.ones(D), candidates=offered(rng), id="one")
    assert router.select(np.ones(D), candidates=offered(rng), id="one") == first
    assert router.stats()["decisions"] == 1
    assert router.cancel("one") and not router.update("one", 0.5)
    why = router.explain(router.select(np.ones(D), candidates={"n": np.ones(F)}).id)
    assert why.made.arm == "n" and why.best.arm == "n"
    with pytest.raises(UnknownDecision):
        router.explain(first.id)


def test_a_snapshot_with_guests_pending_goes_on(tmp_path):
    router = Router(KINDS["hybrid"](ARMS, mix=0.2))
    _, waiting = decided(router, n=50, delay=20)
    router.save(tmp_path / "state")
    other = Router(KINDS["hybrid"](ARMS, mix=0.2, seed=4))
    other.load(tmp_path / "state")
    for key, reward in waiting:
        assert router.update(key, reward) and other.update(key, reward)
    same(statistics(router.policy), statistics(other.policy), tolerance=0.0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        x, given = context(rng), offered(rng)
        assert router.select(x, candidates=given)[1:3] == other.select(x, candidates=given)[1:3]


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".jsonl", ".parquet"])
def test_traces_hold_the_whole_set(suffix, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    recorder = Recorder()
    router = Router(KINDS["shared"](ARMS, mix=0.5), recorder=recorder)
    rng, sets = np.random.default_rng(6), []
    for _ in range(40):
        names, z = offered(rng)
        sets.append(dict(zip(names, z.tolist(), strict=True)))
        decision = router.select(context(rng), candidates=(names, z))
        router.update(decision.id, 0.5)
        z[:] = 9.0
    log = Trace.load(recorder.trace().save(tmp_path / f"log{suffix}"))
    for i, given in enumerate(sets):
        names, z = log.candidates_of(i)
        assert dict(zip(names, z.tolist(), strict=True)) == given
        assert log.names[log.arms[i]] in given
    both = Trace.joined([log, log[:3]])
    assert both.candidates_of(41)[1].tolist() == log.candidates_of(1)[1].tolist()


def test_very_many_names_are_recorded_by_place():
    recorder = Recorder()
    router = Router(KINDS["shared"](), recorder=recorder)
    for i in range(100):
        router.select(np.ones(D), candidates={f"{i}-{j}": np.full(F, j / 10) for j in range(3)})
    log = recorder.trace()
    assert log.names == ("0", "1", "2") and "places" in log.notes[0]
    assert log.candidates_of(7)[1][:, 0].tolist() == [0.0, 0.1, 0.2]


# -- what is refused -----------------------------------------------------------------------------------------------------


BAD = [
    ({}, ValueError),
    (5, TypeError),
    ("ab", TypeError),
    ({"a": [1.0]}, ValueError),
    ({"a": [np.nan] * F}, ValueError),
    ({"a": [np.inf] * F}, ValueError),
    ({"a": [1e200] * F}, ValueError),
    ({"": [0.0] * F}, ValueError),
    ({3: [0.0] * F}, TypeError),
    ({"\ud800": [0.0] * F}, ValueError),
    ({"x" * 70_000: [0.0] * F}, ValueError),
    ((["a", "a"], np.zeros((2, F))), ValueError),
    ((["a"], np.zeros((2, F))), ValueError),
    ((["a"], np.zeros((1, F), dtype=complex)), TypeError),
    ((["a"], [["x"] * F]), TypeError),
    (({"a": [0.0] * F, "b": [0.0]}), ValueError),
]


@pytest.mark.parametrize(("candidates", "error"), BAD, ids=lambda value: repr(value)[:40])
def test_bad_candidates_are_refused_and_change_nothing(candidates, error):
    router = Router(KINDS["hybrid"](ARMS, mix=0.5))
    decided(router, n=5)
    before, stats = json.dumps(router.policy.to_state()[0]), router.stats()
    for call in (router.select, router.explain):
        with pytest.raises(error, match="candidates"):
            call(np.ones(D), candidates=candidates)
    assert json.dumps(router.policy.to_state()[0]) == before and router.stats() == stats


def test_bad_masks_prices_and_policies_are_refused():
    router = Router(KINDS["shared"](ARMS))
    given = {"a": np.zeros(F), "small": np.zeros(F)}
    for options, error in [
        ({"eligible": {"nobody"}}, UnknownArm),
        ({"eligible": {"large"}}, ValueError),  # an arm that is no candidate here
        ({"eligible": [True]}, ValueError),
        ({"eligible": {"a": True}}, ValueError),
        ({"prices": {"nobody": 1.0}}, UnknownArm),
        ({"prices": {"a": np.nan}}, ValueError),
        ({"prices": [1.0]}, ValueError),
        ({"version": 99}, ValueError),
        ({"id": ""}, ValueError),
    ]:
        with pytest.raises(error):
            router.select(np.ones(D), candidates=given, **options)
    with pytest.raises(ValueError, match="shape"):
        router.select([1.0], candidates=given)
    with pytest.raises(ValueError, match="candidates"):
        router.select(np.ones(D))  # this policy has no function of features
    with pytest.raises(TypeError, match="LinUCB"):
        Router(LinUCB(2, D)).select(np.ones(D), candidates=given)
    with pytest.raises(TypeError, match="Restarting: it watches"):
        Router(Restarting(KINDS["shared"](ARMS))).select(np.ones(D), candidates=given)
    with pytest.raises(TypeError, match="SquareCB: its chances"):  # what is inside another wrapper too
        Router(SlidingWindow(SquareCB(KINDS["shared"](ARMS)))).select(np.ones(D), candidates=given)
    assert router.stats()["decisions"] == 0
    router.close()
    with pytest.raises(ValueError, match="closed"):
        router.select(np.ones(D), candidates=given)


WRAPPERS = {
    "BatchedUpdates": BatchedUpdates, "Restarting": Restarting, "SlidingWindow": SlidingWindow, "SquareCB": SquareCB,
    "StalenessInflation": StalenessInflation,
}  # fmt: skip


def test_all_wrappers_are_tried():
    assert {
        kind.__name__ for kind in Wrapper.__subclasses__() if kind.__module__.startswith("banditroute.")
    } == set(WRAPPERS)


REFUSING = [name for name, kind in WRAPPERS.items() if kind.refuses_candidates]


@pytest.mark.parametrize("name", REFUSING)
def test_wrappers_refuse_candidates_by_their_name_and_say_why(name):
    """Requests without candidates go to what the base knows of its arms."""

    def base(arms):
        return SharedLinUCB(arms, 1, features=(lambda arm, x: [1.0, ord(arm) / 99]) if arms else 2, rng=0)

    why = WRAPPERS[name].refuses_candidates
    with pytest.raises((TypeError, ValueError), match=f"{name} takes no candidates, {why}|widths"):
        WRAPPERS[name](base([]))
    if name == "StalenessInflation":  # a base with widths knows no features
        router = Router(WRAPPERS[name](LinUCB(["a", "b"], 1, rng=0)))
    else:
        router = Router(WRAPPERS[name](base(["a", "b"])))
    before = router.stats()
    for more in ({}, {"k": 2}):
        with pytest.raises(TypeError, match=f"candidates must be left out with {name}: {why}"):
            router.select([1.0], candidates={"a": [1.0, 0.2], "new": [1.0, 0.1]}, **more)
    with pytest.raises(TypeError, match=name):
        router.explain([1.0], candidates={"a": [1.0, 0.2]})
    assert router.stats() == before
    assert router.update(router.select([1.0]).id, 1.0)
    shown = router.select([1.0], k=2)
    assert sorted(shown.arms) == ["a", "b"] and router.update(shown.id, [1.0, 0.0])


@pytest.mark.parametrize("arms", [[], ARMS])
@pytest.mark.parametrize("kind", KINDS)
def test_a_window_that_forgets_nothing_is_the_bare_policy(kind, arms):
    bare, window = (
        Router(KINDS[kind](arms, mix=0.1)),
        Router(SlidingWindow(KINDS[kind](arms, mix=0.1), 10_000)),
    )
    rng = np.random.default_rng(0)
    for i in range(300):
        names, z = offered(rng, arms)
        x, k = context(rng), (None, 2)[i % 2]
        one, two = (router.select(x, candidates=(names, z), k=k) for router in (bare, window))
        shown = (lambda d: (d.arms, d.propensities, d.propensity)) if k else (lambda d: (d.arm, d.propensity))
        assert shown(one) == shown(two)
        given = rng.random(2).tolist() if k else float(rng.random())
        assert bare.update(one.id, given) == window.update(two.id, given)
        if i % 50 == 49:
            told = [router.explain(x, candidates=(names, z)) for router in (bare, window)]
            assert told[0].arms == told[1].arms
    same(statistics(bare.policy), statistics(window.policy.base))


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_forgets_guests_that_have_left_it(kind):
    window, fresh = SlidingWindow(KINDS[kind](ARMS), 100), KINDS[kind](ARMS)
    rng = np.random.default_rng(0)
    for i in range(400):
        name, row = (
            str(rng.choice([*ARMS, "guest", "other"])),
            np.append(context(rng), rng.standard_normal(F)),
        )
        reward = float(i < 200) + 0.1 * float(rng.random())
        window.update(name, row, reward, at=i)
        if i >= 290:  # ten whole buckets of ten, and the current one
            fresh.update(name, row, reward, at=i)
    same(statistics(window.base), statistics(fresh))
    sums = {name: window.evidence(name) for name in (*ARMS, "")}
    other = SlidingWindow(KINDS[kind](ARMS), 100)
    other.advance(399)
    for name, told in sums.items():
        other.set_evidence(name, told)
        again = other.evidence(name)
        assert again.buckets.keys() == told.buckets.keys() and len(told.buckets) > 5
    same(statistics(other), statistics(window))
    window.remove_arm("small")
    twin = SlidingWindow(KINDS[kind](ARMS[1:]), 100)
    twin.load_state(json.loads(json.dumps(window.to_state()[0])), window.to_state()[1])
    assert twin.base.guests == window.base.guests > 40
    x, (names, z) = context(rng), offered(rng)
    same(*({"bonus": p.base.candidate_scores(x, (names, z)).width} for p in (window, twin)))


def test_a_state_from_before_there_were_guests_is_taken_up():
    for kind in ("shared", "hybrid"):
        policy = KINDS[kind](ARMS)
        policy.update("small", np.ones(D + F), 0.5)
        header, arrays = policy.to_state()
        old = {name: array for name, array in arrays.items() if "guest" not in name}
        fresh = KINDS[kind](ARMS)
        fresh.load_state(header, old)
        same(statistics(fresh), statistics(policy), tolerance=0.0)


def test_a_policy_with_a_function_takes_candidates_too():
    policy = SharedLinUCB(ARMS, 1, features=lambda arm, x: [1.0, float(arm == "large")], rng=0)
    router = Router(policy)
    for i in range(40):
        arm = ARMS[i % 2]
        router.update(router.select([1.0], {arm}).id, 0.2 + 0.5 * (arm == "large"))
    assert router.select([1.0]).arm == "large"
    assert router.select([1.0], candidates={"a": [1.0, 0.0], "b": [1.0, 1.0]}).arm == "b"


def test_without_arms_the_folder_of_a_journal_is_good(tmp_path):
    with tempfile.TemporaryDirectory() as home:
        with Router(KINDS["shared"]()) as router:
            router.recover(home)
            decision = router.select(np.ones(D), candidates={"n": np.ones(F)})
        with Router(KINDS["shared"]()) as router:
            router.recover(home)
            assert router.update(decision.id, 1.0) and router.policy.guests == 1
