"""Estimators against the definitions in plain loops, against the truth, and what they must refuse."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from banditroute import EpsilonGreedy, LinUCB, Router, Trace
from banditroute.evaluation import (
    ESTIMATORS,
    compare,
    cross_fit,
    evaluate,
    replay,
)
from banditroute.evaluation import estimators as e
from banditroute.evaluation.intervals import grouped, intervals
from banditroute.evaluation.reward_model import RewardSums

NAMES = ("a", "b", "c")

# Value of playing the best arm, from two million contexts: its own error is a tenth of what the tests can see.
TRUTH = float((0.5 + np.random.default_rng(5).standard_normal((2_000_000, 4))
               @ (np.random.default_rng(99).standard_normal((3, 4)) / 2).T).max(axis=1).mean())  # fmt: skip


def softmax(scores):
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def logged(seed, rows=2000, logging="uniform", noise=0.3):
    """A linear world with its log; returns the trace and the mean reward of every arm on every row."""
    rng = np.random.default_rng(seed)
    contexts = rng.standard_normal((rows, 4))
    theta = np.random.default_rng(99).standard_normal((3, 4)) / 2
    means = 0.5 + contexts @ theta.T
    shares = {
        "uniform": np.full((rows, 3), 1 / 3),
        "soft": 0.2 / 3 + 0.8 * softmax(means),
        "skewed": np.broadcast_to([0.8, 0.15, 0.05], (rows, 3)),
    }[logging]
    arms = (rng.random((rows, 1)) > shares.cumsum(axis=1)[:, :2]).sum(axis=1)
    each = np.arange(rows)
    rewards = means[each, arms] + noise * rng.standard_normal(rows)
    trace = Trace(names=NAMES, arms=arms, rewards=rewards, propensities=shares[each, arms], contexts=contexts)
    return trace, means


def slow(trace, target, limit):
    """Values by their definitions, row by row."""
    weights = [target[i][a] / p for i, (a, p) in enumerate(zip(trace.arms, trace.propensities, strict=True))]
    n = len(weights)
    rewards = trace.rewards
    model = np.zeros((n, len(trace.names)))
    scaled = (trace.contexts - trace.contexts.mean(axis=0)) / trace.contexts.std(axis=0)
    x = np.column_stack([scaled, np.ones(n)])
    for fold in range(5):
        train = np.array([i % 5 != fold for i in range(n)])
        penalty = np.eye(x.shape[1])
        penalty[-1, -1] = 1e-9
        shared = np.linalg.inv(x[train].T @ x[train] + penalty) @ x[train].T @ rewards[train]
        for a in range(len(trace.names)):
            own = train & (trace.arms == a)
            precision = x[own].T @ x[own] + np.eye(x.shape[1])
            theta = shared + np.linalg.inv(precision) @ x[own].T @ (rewards[own] - x[own] @ shared)
            model[~train, a] = x[~train] @ theta
    expected = [sum(target[i][a] * model[i, a] for a in range(len(trace.names))) for i in range(n)]
    rest = [weights[i] * (rewards[i] - model[i, trace.arms[i]]) for i in range(n)]
    switched = [r if w <= limit else 0.0 for r, w in zip(rest, weights, strict=True)]
    shrunk = [r * limit**2 / (w**2 + limit**2) for r, w in zip(rest, weights, strict=True)]
    return {
        "switch": (sum(expected) + sum(switched)) / n,
        "shrunk": (sum(expected) + sum(shrunk)) / n,
        "ips": sum(w * r for w, r in zip(weights, rewards, strict=True)) / n,
        "clipped": sum(min(w, limit) * r for w, r in zip(weights, rewards, strict=True)) / n,
        "snips": sum(w * r for w, r in zip(weights, rewards, strict=True)) / sum(weights),
        "dm": sum(expected) / n,
        "dr": (sum(expected) + sum(rest)) / n,
        "ess": sum(weights) ** 2 / sum(w * w for w in weights),
        "clipped_mass": sum(max(w - limit, 0.0) for w in weights) / sum(weights),
    }


@pytest.mark.parametrize("logging", ["uniform", "soft", "skewed"])
def test_estimates_are_their_definitions(logging):
    trace, means = logged(1, 300, logging)
    target = 0.1 / 3 + 0.9 * np.eye(3)[means.argmax(axis=1)]
    found, wanted = evaluate(trace, target, clip=2.5), slow(trace, target, 2.5)
    for name in ESTIMATORS:
        assert found[name].value == pytest.approx(wanted[name], rel=1e-9)
    assert found.ess == pytest.approx(wanted["ess"])
    assert found.clipped_mass == pytest.approx(wanted["clipped_mass"])


def test_arm_of_each_row_is_a_one_hot_matrix():
    trace, means = logged(2)
    best = means.argmax(axis=1)
    one, two = compare(trace, {"arms": best, "shares": np.eye(3)[best]}).values()
    for name in ESTIMATORS:
        assert one[name].value == pytest.approx(two[name].value, rel=1e-12)
        assert one[name].low == pytest.approx(two[name].low, rel=1e-9)
    assert evaluate(trace, "b")["ips"] == evaluate(trace, 1)["ips"]
    by_function = evaluate(trace, lambda x: np.full(len(x), 2))
    assert by_function["dr"] == evaluate(trace, "c")["dr"]


def test_folds_never_see_the_row_they_score():
    trace, _ = logged(3, 200)
    one = cross_fit(trace.contexts, trace.arms, trace.rewards, 3).expected(trace.contexts)
    changed = trace.rewards.copy()
    changed[7::5] += 100.0  # all of fold 2
    two = cross_fit(trace.contexts, trace.arms, changed, 3).expected(trace.contexts)
    inside = np.arange(200) % 5 == 2
    assert (one[inside] == two[inside]).all()
    assert not np.isclose(one[~inside], two[~inside]).any()


def test_sums_formed_in_parts_are_those_of_the_whole():
    trace, _ = logged(3, 203)
    whole = RewardSums.of(trace.contexts, trace.arms, trace.rewards, 3)
    parts = [RewardSums(whole.columns, 3) for _ in range(3)]
    for part, (start, stop) in zip(parts, [(0, 50), (50, 121), (121, 203)], strict=True):
        own = slice(start, stop)
        part.add(trace.contexts[own], trace.arms[own], trace.rewards[own], start)
    parts[0] += parts[1]
    parts[0] += parts[2]
    np.testing.assert_allclose(parts[0].gram, whole.gram, rtol=1e-12, atol=1e-9)
    model = whole.solved(1.0)
    np.testing.assert_allclose(parts[0].solved(1.0).theta, model.theta, rtol=1e-9, atol=1e-12)
    again = np.concatenate([model.expected(trace.contexts[:50]), model.expected(trace.contexts[50:], 50)])
    np.testing.assert_allclose(again, model.expected(trace.contexts), rtol=1e-12)


@pytest.mark.parametrize("logging", ["uniform", "soft", "skewed"])
def test_unbiased_and_covering(logging):
    """200 draws of 1000 rows, seeds 0-199: |mean error| < 4 s.e. (false alarm 6e-5 each), coverage >= 89 % (1e-4)."""
    errors, inside, widths = [], [], []
    for seed in range(200):
        trace, means = logged(seed, 1000, logging)
        target = means.argmax(axis=1)
        found = evaluate(trace, target)
        errors.append([found[n].value - TRUTH for n in ("ips", "snips", "dr")])
        inside.append([found[n].low <= TRUTH <= found[n].high for n in ("ips", "snips", "dr")])
        widths.append([found[n].high - found[n].low for n in ("ips", "snips", "dr")])
    errors = np.array(errors)
    score = errors.mean(axis=0) / (errors.std(axis=0, ddof=1) / np.sqrt(len(errors)))
    assert np.abs(score).max() < 4.0
    assert np.mean(inside, axis=0).min() >= 0.89
    assert np.mean(widths, axis=0)[2] <= np.mean(widths, axis=0)[0]


def test_standard_error_is_that_of_the_influence_and_intervals_follow():
    trace, means = logged(4, 3000, "soft")
    found = evaluate(trace, means.argmax(axis=1))
    for name in ESTIMATORS:
        half = (found[name].high - found[name].low) / 2
        assert half == pytest.approx(1.96 * found[name].std_error, rel=0.03)  # t for z
    weights = e.importance(trace.arms, trace.propensities, means.argmax(axis=1))
    term = e.ips(trace.rewards, weights)
    assert term.std_error == pytest.approx((weights * trace.rewards).std(ddof=1) / np.sqrt(3000))
    assert found["ips"].std_error == pytest.approx(term.std_error)


def test_interval_is_its_definition():
    """Against loops: Student's with the freedom that the heaviest row leaves, moved by the skewness."""
    rng = np.random.default_rng(1)
    top, bottom = rng.standard_normal(60) ** 2, rng.random(60)
    ends = intervals(grouped([e.Term(top, bottom)]), 0.9)
    value = sum(top) / sum(bottom)
    pull = [t - value * b for t, b in zip(top, bottom, strict=True)]
    square = sum(one**2 for one in pull)
    error = (square * 60 / 59) ** 0.5 / sum(bottom)
    quantile = stats.t.ppf(0.95, 2.0 * square / max(one**2 for one in pull))
    skewness = sum(one**3 for one in pull) / square**1.5
    shift = skewness * (1.0 / 6.0 + stats.norm.ppf(0.95) ** 2 / 3.0)
    assert ends.value[0] == pytest.approx(value)
    assert ends.std_error[0] == pytest.approx(error)
    assert ends.low[0] == pytest.approx(value + (shift - quantile) * error)
    assert ends.high[0] == pytest.approx(value + (shift + quantile) * error)


def test_intervals_follow_unit_and_sign():
    rng = np.random.default_rng(2)
    top = rng.standard_normal(80) ** 2
    one, same, mirrored, huge = (
        intervals(grouped([e.Term(sign * top, np.ones(80))]), 0.95) for sign in (1.0, 1.0, -1.0, 1e200)
    )
    assert (one.low, one.high) == (same.low, same.high)
    assert mirrored.low[0] == pytest.approx(-one.high[0]) and mirrored.high[0] == pytest.approx(-one.low[0])
    assert huge.high[0] == pytest.approx(1e200 * one.high[0])


def test_one_heavy_row_makes_a_wide_interval_and_equal_rows_none():
    heavy = intervals(grouped([e.Term(np.r_[np.zeros(99), 100.0], np.ones(100))]), 0.95)
    assert heavy.low[0] < 0.0 and heavy.high[0] > 1.0 + 4.0 * heavy.std_error[0]
    equal = intervals(grouped([e.Term(np.full(50, 0.5), np.ones(50))]), 0.95)
    assert equal.low[0] == equal.high[0] == 0.5


def test_groups_of_long_traces_have_the_spread_of_the_rows():
    rng = np.random.default_rng(0)
    term = e.ips(rng.standard_normal(50_001), np.ones(50_001))
    sums = grouped([term, term])
    assert sums.shape == (4096, 2, 3) and sums[:, 0, 2].sum() == 50_001
    ends = intervals(sums, 0.95)
    assert ends.std_error[0] == pytest.approx(term.std_error, rel=0.06)
    assert (ends.high[0] - ends.low[0]) / 2 == pytest.approx(1.96 * term.std_error, rel=0.07)


def test_snips_ignores_a_constant_and_clipping_lowers():
    trace, means = logged(5, logging="skewed")
    shifted = Trace(names=NAMES, arms=trace.arms, rewards=trace.rewards + 5, propensities=trace.propensities)
    target = means.argmax(axis=1)
    plain = Trace(names=NAMES, arms=trace.arms, rewards=trace.rewards, propensities=trace.propensities)
    assert evaluate(shifted, target)["snips"].value == pytest.approx(
        evaluate(plain, target)["snips"].value + 5
    )
    found = evaluate(shifted, target, clip=3.0)
    assert found["clipped"].value < found["ips"].value
    assert found.clipped_mass > 0.1
    assert evaluate(plain, target)["dr"].value > 0  # without contexts the fit is the arm means


def test_refuses_what_the_log_cannot_answer():
    trace, _ = logged(6, 300)
    columns = {"names": NAMES, "arms": trace.arms, "rewards": trace.rewards, "contexts": trace.contexts}
    with pytest.raises(ValueError, match="propensities must be in the trace"):
        evaluate(Trace(**columns), "a")
    for bad in (0.0, np.nan, 1.5, -0.1):
        given = trace.propensities.copy()
        given[3] = bad
        with pytest.raises(ValueError, match=r"propensities must be in \(0, 1\].*row 3"):
            evaluate(Trace(**columns, propensities=given), "a")
    two = trace[trace.arms != 2]
    with pytest.raises(ValueError, match="no row of 'c'"):
        evaluate(two, "c")
    with pytest.raises(ValueError, match="no row of 'c'"):
        replay(two, LinUCB(NAMES, 4))
    assert evaluate(two, "a").rows == len(two)
    greedy = Trace(**columns, propensities=np.ones(300))
    with pytest.raises(ValueError, match="propensity 1 for another arm"):
        evaluate(greedy, "a")
    with pytest.raises(ValueError, match="propensity 1 on 300 rows"):
        replay(greedy, LinUCB(NAMES, 4))
    assert evaluate(greedy, trace.arms)["ips"].value == pytest.approx(trace.rewards.mean())  # the log itself
    allowed = np.ones((300, 3), dtype=bool)
    allowed[np.flatnonzero(trace.arms != 1)[0], 1] = False
    with pytest.raises(ValueError, match="must play eligible arms"):
        evaluate(Trace(**columns, propensities=trace.propensities, eligible=allowed), "b")
    with pytest.raises(ValueError, match="effective sample size"):
        evaluate(trace[:30], "a")
    with pytest.raises(ValueError, match="sum to 1"):
        evaluate(trace, [0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="estimators must be"):
        evaluate(trace, "a", estimators=["dream"])
    with pytest.raises(ValueError, match="one of"):
        evaluate(trace, "z")


@pytest.mark.parametrize("propensity", [5e-324, 1e-300, 1e-160])
@pytest.mark.parametrize("min_ess", [0.0, 20.0])
def test_a_weight_beyond_the_range_of_variances_is_refused(propensity, min_ess):
    trace, _ = logged(6, 300)
    row = int(np.flatnonzero(trace.arms == 0)[0])
    tiny = trace.propensities.copy()
    tiny[row] = propensity
    odd = replace(trace, propensities=tiny)
    with pytest.raises(
        ValueError, match=f"weights must be at most 1e\\+100, got .* at row {row}, whose propensity"
    ):
        evaluate(odd, "a", min_ess=min_ess)
    tiny[row] = 1e-12  # finite, and still one row outweighs all others
    with pytest.raises(ValueError, match=r"effective sample size must be at least 20, got 1\.0 of 300"):
        evaluate(odd, "a")
    assert all(np.isfinite(one.std_error) for one in evaluate(odd, "a", min_ess=0.5).estimates.values())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"min_ess": np.nan}, "min_ess must be a finite number, got nan"),
        ({"min_ess": -1.0}, "min_ess must be in"),
        ({"confidence": 1.0}, r"confidence must be in \(0, 1\), got 1"),
        ({"confidence": 0.0}, "confidence must be in"),
    ],
)
def test_options_without_a_meaning_are_refused(option, message):
    trace, _ = logged(6, 300)
    with pytest.raises(ValueError, match=message):
        evaluate(trace, "a", **option)


def test_a_path_is_no_trace():
    with pytest.raises(TypeError, match=r"trace must be a Trace \(Trace.load reads a file\), got 'log.csv'"):
        evaluate("log.csv", "a")


def test_rows_with_the_id_of_another_are_noted():
    trace, _ = logged(7)
    ids = np.arange(len(trace))
    assert evaluate(replace(trace, ids=ids), "a").notes == ()
    ids[:30] = ids[30:60]
    assert "30 rows have the id of an earlier one" in evaluate(replace(trace, ids=ids), "a").notes[0]


def test_notes_tell_wrong_propensities_learning_logs_and_missing_rewards():
    trace, _ = logged(7)
    assert evaluate(trace, "a").notes == ()
    rewards = trace.rewards.copy()
    rewards[:50] = np.nan
    odd = Trace(
        names=NAMES, arms=trace.arms, rewards=rewards, propensities=np.full(len(trace), 0.5),
        versions=np.arange(len(trace)),
    )  # fmt: skip
    found = evaluate(odd, "a")
    assert (found.rows, found.unanswered) == (1950, 50)
    assert [note.split()[1] for note in found.notes] == ["mean", "log", "rows"]
    assert "effective" in str(found)


def test_replay_on_a_uniform_log_is_the_live_run():
    """What is accepted is exactly what a Router would have been served and learned."""
    trace, _ = logged(8, 600)
    policy, live = (EpsilonGreedy(NAMES, 4, rng=3) for _ in range(2))
    found = replay(trace, policy)
    assert len(found.rows) == pytest.approx(200, abs=50)  # a third: 4 s.e. is 46
    for i in range(600):
        choice = live.select(trace.contexts[i])
        agrees = choice.arm == trace.arms[i]
        assert agrees == (i in found.rows)
        if agrees:
            live.update(choice.arm, trace.contexts[i], trace.rewards[i])
    assert found.value == pytest.approx(trace.rewards[found.rows].mean())
    x = trace.contexts[0]
    assert (live.scores(x).mean == policy.scores(x).mean).all()


def test_replay_of_a_skewed_log_earns_what_the_policy_earns_live():
    """40 logs of 3000 rows, seeds 0-39, 150 accepted rows each: within 4 s.e. of the difference (false alarm 6e-5)."""
    offline, online = [], []
    for seed in range(40):
        trace, _ = logged(seed, 3000, "skewed")
        found = replay(trace, EpsilonGreedy(NAMES, 4, rng=seed), rng=seed)
        assert found.scale == 0.05
        first = found.rewards[:100]
        offline.append(first.mean())
        live, means = logged(1000 + seed, 100)
        router = Router(EpsilonGreedy(NAMES, 4, rng=seed))
        noise = np.random.default_rng(seed).standard_normal(100)
        earned = []
        for i in range(100):
            decision = router.select(live.contexts[i])
            earned.append(means[i, NAMES.index(decision.arm)] + 0.3 * noise[i])
            router.update(decision.id, earned[-1])
        online.append(np.mean(earned))
    gap = np.mean(offline) - np.mean(online)
    assert abs(gap) < 4 * np.sqrt((np.var(offline) + np.var(online)) / 40)


def test_frozen_policy_is_evaluated_with_prices_and_mask():
    trace, _ = logged(9, 400)
    policy = LinUCB(NAMES, 4, alpha=0.0, rng=0)
    policy.update_batch(trace.contexts, trace.arms, trace.rewards)
    prices = np.tile([0.0, 10.0, 0.0], (400, 1))
    priced = Trace(
        names=NAMES, arms=trace.arms, rewards=trace.rewards, propensities=trace.propensities,
        contexts=trace.contexts, prices=prices,
    )  # fmt: skip
    before = policy.copy()
    shares = np.array([policy.propensities(x, prices=prices[0]) for x in trace.contexts])
    assert shares[:, 1].max() == 0.0
    assert evaluate(priced, policy, cross_fit=False)["dr"] == evaluate(priced, shares)["dr"]
    assert (policy.theta == before.theta).all()
    with pytest.raises(ValueError, match="arms of the trace"):
        evaluate(trace, LinUCB(("x", "y", "z"), 4))
