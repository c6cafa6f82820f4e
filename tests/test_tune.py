"""Tuning: paired tables that do not depend on what computes them, held-out data, resuming, early stops, the command."""

import json
from functools import partial

import numpy as np
import pytest

from banditroute import LinUCB, Polar, Trace, regret, simulate
from banditroute.cli import main
from banditroute.evaluation import Draws, score, sweep, tune
from banditroute.evaluation.draws import Part, Scored, between, paired_gain
from banditroute.evaluation.tuning import confirm
from banditroute.simulation import MatrixEnvironment, Stream, homes


def matrix(rows=300, noise=0.3):
    rng = np.random.default_rng(0)
    contexts = rng.standard_normal((rows, 4))
    theta = rng.standard_normal((4, 4)) / 4
    rewards = 0.5 + contexts @ theta.T + noise * rng.standard_normal((rows, 4))
    return MatrixEnvironment(contexts, rewards, arms=["a", "b", "c", "d"], order="replace")


def logged(rows=600):
    stream = matrix(noise=0.1).stream(rows, 0)
    arms = np.random.default_rng(1).integers(4, size=rows)
    return Trace(
        names=stream.arms,
        arms=arms,
        rewards=stream.rewards[np.arange(rows), arms],
        propensities=np.full(rows, 0.25),
        contexts=stream.contexts,
    )


def test_score_is_the_reward_net_of_prices():
    problem = homes(800, 3)
    run = simulate(LinUCB(15, 10, alpha=0.4, rng=5), problem, Polar(4, epoch=200))
    earned = [problem.stream.rewards[t, a] - (0.0 if h else problem.faults[a])
              for t, (a, h) in enumerate(zip(run.arms, run.hits, strict=True))]  # fmt: skip
    net = (sum(earned) - sum(price for _, price in run.loads)) / 800
    assert score(
        {"alpha": 0.4, "epoch": 200, "capacity": 4, "controller": "polar"}, problem, 5
    ) == pytest.approx(net, rel=1e-12)
    assert regret(run, problem).switching[-1] > 0  # loads were paid for
    stream = problem.stream
    alone = simulate(LinUCB(15, 10, rng=5), stream).arms
    assert score({}, stream, 5) == pytest.approx(stream.rewards[np.arange(800), alone].mean(), rel=1e-12)


def test_price_weight_changes_decisions_not_charges():
    problem = homes(800, 3)
    assert score({"price_weight": 1.0}, problem, 0) == score({}, problem, 0)
    polar = {"controller": "polar"}
    assert score({**polar, "price_weight": 1e-6}, problem, 0) < score(
        polar, problem, 0
    )  # as if faults were free
    with pytest.raises(ValueError, match="controller must be one of"):
        score({"controller": "lru"}, problem, 0)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_sweep_is_the_same_table_whatever_computes_it(backend):
    settings = [{"alpha": 0.1}, {"alpha": 1.0, "ridge": 3.0}, {"discount": 0.99}]
    draws = Draws(matrix(), 200)
    table = sweep(settings, draws, range(4), jobs=2, backend=backend)
    one = sweep(settings, draws, range(4))
    assert (table == one).all()
    dealt = draws.dealt(range(4))
    assert one[1, 2] == score(settings[1], dealt(2), 2)
    together = sweep(settings, draws, range(4), independent=False)
    assert together[1, 2] == score(settings[1], draws(2), 2)
    assert len(np.unique(one)) > 8  # settings and seeds do differ


def test_seeds_are_dealt_rows_of_their_own():
    draws = Draws(matrix(), 200)
    dealt = draws.dealt(range(4))
    rows = [{tuple(row) for row in dealt.parts[s].environment.contexts} for s in range(4)]
    assert sum(len(own) for own in rows) == len(set().union(*rows)) == 300
    assert len(dealt(0)) == 75  # no more requests than rows
    with pytest.raises(ValueError, match="two rows for each of the 200 seeds, got 300"):
        draws.dealt(range(200))


def test_rows_of_a_draw_are_those_of_its_stream():
    draws = Draws(matrix(), 200)
    assert (draws.environment.contexts[draws.rows(7)] == draws(7).contexts).all()


def test_error_of_a_gain_counts_rows_once_and_seeds_too():
    """Against the definition in loops."""
    rng = np.random.default_rng(0)
    rows = [rng.integers(5, size=6) for _ in range(3)]
    one, two = ([Scored(float(e.mean()), e, np.arange(6)) for e in rng.random((3, 6))] for _ in range(2))
    gain, error = paired_gain(one, two, rows)
    gains = [a.value - b.value for a, b in zip(one, two, strict=True)]
    middle = [np.mean([s.value for s in side]) for side in (one, two)]
    pulls = dict.fromkeys(range(5), 0.0)
    for s in range(3):
        for i in range(6):
            pulls[int(rows[s][i])] += (one[s].earned[i] - middle[0] - two[s].earned[i] + middle[1]) / 18
    known = len(set(np.concatenate(rows).tolist()))
    variance = np.var(gains, ddof=1) / 3 + sum(p**2 for p in pulls.values()) * known / (known - 1)
    assert (gain, error) == (pytest.approx(np.mean(gains)), pytest.approx(np.sqrt(variance)))
    assert paired_gain(one, two, None)[1] == pytest.approx(np.std(gains, ddof=1) / np.sqrt(3))


def turning(seed, rows=900):
    """Return a stream whose better arm changes every 300 requests."""
    rng = np.random.default_rng(seed)
    first = np.arange(rows) // 300 % 2 == 0
    means = np.where(first[:, None], [0.8, 0.2], [0.2, 0.8])
    return Stream(np.ones((rows, 1)), means, means + 0.2 * rng.standard_normal((rows, 2)), ("a", "b"))


def test_deploys_a_gain_that_is_there():
    found = tune(turning, {"discount": [0.97]}, trials=1, seeds=4)
    assert found.setting == {"discount": 0.97}
    assert found.low > 0.05
    stream = turning(0, 2400)
    arms = np.random.default_rng(1).integers(2, size=2400)
    log = Trace(
        names=stream.arms,
        arms=arms,
        rewards=stream.rewards[np.arange(2400), arms],
        propensities=np.full(2400, 0.5),
        contexts=stream.contexts,
    )
    found = tune(log, {"discount": [0.97]}, trials=1, seeds=4)
    assert found.setting == {"discount": 0.97}
    assert found.low > 0.05


def test_luck_seen_elsewhere_counts_where_it_is_larger():
    """The seeds' part of the error in loops, with a variance from other seeds."""
    rng = np.random.default_rng(1)
    one, two = ([Scored(v, np.full(4, v), np.arange(4)) for v in rng.random(5)] for _ in range(2))
    gains = [a.value - b.value for a, b in zip(one, two, strict=True)]
    own = sum((g - np.mean(gains)) ** 2 for g in gains) / 4
    assert between(one, two) == pytest.approx(own)
    assert paired_gain(one, two, None, luck=own / 2)[1] == pytest.approx(np.sqrt(own / 5))
    assert paired_gain(one, two, None, luck=own * 4)[1] == pytest.approx(np.sqrt(own * 4 / 5))
    assert paired_gain(one, two, None, luck=own * 4)[0] == pytest.approx(np.mean(gains))


def test_two_errors_hold_under_lopsided_luck():
    """One run in forty loses a tenth, as where a policy settles on a poor arm: 60 seeds alone miss it too often."""
    rng, truth, alone, confirmed = np.random.default_rng(0), 0.1 / 40, 0, 0
    nothing = [Scored(0.0, np.zeros(1), np.arange(1))] * 60
    for _ in range(1000):
        luck = 0.1 * (rng.random((2, 60)) < 1 / 40) + 0.003 * rng.standard_normal((2, 60))
        train, held = ([Scored(float(v), np.array([v]), np.arange(1)) for v in half] for half in luck)
        gain, error = paired_gain(held, nothing, None)
        alone += abs(gain - truth) <= 2 * error
        gain, error = paired_gain(held, nothing, None, luck=between(train, nothing))
        confirmed += abs(gain - truth) <= 2 * error
    assert alone < 900
    assert confirmed >= 930


def test_confirm_compares_on_both_sides():
    """Against score on every seed."""
    train, held = Draws(matrix(), 60).halves()
    setting = {"alpha": 0.3}
    found = confirm(setting, train, held, seeds=5)
    one, two, three, four = (
        [score(s, half(i), i) for i in range(first, first + 5)]
        for half, first in ((train, 500_000), (held, 1_000_000))
        for s in (setting, {})
    )
    assert found[:4] == pytest.approx([np.mean(own) for own in (one, two, three, four)])
    assert found.gain == pytest.approx(np.mean(np.subtract(three, four)))
    luck = max(np.var(np.subtract(a, b), ddof=1) for a, b in ((one, two), (three, four)))
    assert found.gain_error >= np.sqrt(luck / 5)
    assert found.rows <= 150
    same = confirm({}, train, held, seeds=5)
    assert (same.train, same.held_out) == (same.default_train, same.default_held_out)
    assert (same.gain, same.default_held_out) == (0.0, found.default_held_out)


def test_seeds_of_a_trace_begin_apart_and_keep_the_order():
    part = Part(logged(600))
    rows = [part.rows(seed) for seed in range(30)]
    for own in rows:
        assert (np.diff(own) > 0).all()
        assert own[-1] < 600
        assert 360 <= len(own) <= 540
    starts = [own[0] for own in rows]
    assert len(set(starts)) > 20
    assert max(starts) < 220
    assert (part(3).rewards == part.trace.rewards[rows[3]]).all()
    assert Part(logged(2)).rows(0).tolist() in ([0], [1])


def test_halves_share_no_row():
    environment = matrix()
    first, second = Draws(environment, 50).halves()
    rows = [{tuple(row) for row in half.environment.contexts} for half in (first, second)]
    assert not rows[0] & rows[1]
    assert len(rows[0] | rows[1]) == 300
    assert first.environment.order == "replace"


def test_finds_the_setting_that_matters_and_judges_it_held_out():
    space = {"mix": [0.0, 0.9], "alpha": [0.1, 0.3]}
    draws = Draws(matrix(), 600)
    found = tune(draws, space, trials=8, seeds=6)
    assert all(trial["stopped"] for trial in found.trials if trial["mix"] == 0.9)
    table = sweep([found.candidate, {}], draws.halves()[1], range(10**6, 10**6 + 60), independent=False)
    assert (found.held_out, found.default_held_out) == tuple(table.mean(axis=1))
    assert found.gain == pytest.approx(found.held_out - found.default_held_out, abs=1e-12)
    assert found.setting.get("mix", 0.0) == 0.0


def test_keeps_the_defaults_when_nothing_beats_them():
    found = tune(Draws(matrix(), 300), {"mix": [0.8, 0.9]}, trials=3, seeds=4, patience=2)
    assert found.setting == {} == found.candidate
    assert found.gain == 0.0
    assert found.gain_error == pytest.approx(0.0, abs=1e-12)
    assert found.rows_to_settle is None
    assert len(found.trials) == 2  # patience ran out


def test_deploys_only_what_the_other_half_confirms():
    found = tune(Draws(matrix(noise=1.0), 200), {"alpha": [0.01, 0.02, 2.0, 3.0]}, trials=4, seeds=4)
    assert (found.setting != {}) == (found.gain > 2.5 * found.gain_error) and found.rows <= 150
    assert found.low == pytest.approx(found.gain - 2 * found.gain_error)


def test_resumes_where_it_ended(tmp_path):
    journal, draws = tmp_path / "study.journal", Draws(matrix(), 100)
    options = {"seeds": 4, "storage": journal}
    first = tune(draws, trials=3, **options)
    second = tune(draws, trials=5, **options)
    assert second.trials[:3] == first.trials
    assert len(second.trials) == 5
    assert len({trial["alpha"] for trial in second.trials}) == 5
    assert tune(draws, trials=5, **options) == second


def test_same_seed_same_result():
    draws = Draws(matrix(), 100)
    assert tune(draws, trials=3, seeds=4, seed=1) == tune(draws, trials=3, seeds=4, seed=1)


def test_tunes_on_a_trace_and_on_a_function_of_the_seed():
    found = tune(logged(), {"mix": [0.0, 0.9]}, trials=3, seeds=4)
    assert 0.3 < found.held_out < 1.2
    assert found.setting.get("mix", 0.0) == 0.0
    found = tune(partial(homes, 300), {"epoch": (50, 200)}, trials=2, seeds=4)
    assert {type(trial["epoch"]) for trial in found.trials} == {int}


@pytest.mark.parametrize(
    "space",
    [{"beta": (0, 1)}, {"alpha": (1.0, 0.5)}, {"alpha": (0.0, 1.0, "log")}, {"alpha": []}, {"alpha": 1}],
)
def test_bad_spaces_are_refused(space):
    with pytest.raises(ValueError, match=r"space must name|must be \(low, high\)"):
        tune(Draws(matrix(), 50), space, trials=1)


def test_bad_settings_and_data_are_refused():
    with pytest.raises(ValueError, match="settings must be"):
        score({"gamma": 1.0}, homes(50, 0), 0)
    with pytest.raises(TypeError, match="data must be"):
        tune(3, trials=1)


def test_command(tmp_path, capsys):
    environment = matrix()
    np.savez(tmp_path / "m.npz", contexts=environment.contexts, rewards=environment.rewards)
    options = ["--trials", "2", "--seeds", "4", "--requests", "100"]
    assert main(["tune", str(tmp_path / "m.npz"), *options]) == 0
    said = capsys.readouterr().out
    assert "On data that did not choose it" in said or "Keep the defaults" in said
    assert (
        main(["tune", str(tmp_path / "m.npz"), *options, "--capacity", "2", "--search", "epoch", "--json"])
        == 0
    )
    assert len(json.loads(capsys.readouterr().out)["trials"]) == 2
    with pytest.raises(SystemExit) as leaving:  # at once, not after the data were read
        main(["tune", "nowhere.npz", "--seeds", "3"])
    assert leaving.value.code == 2
    assert "argument --seeds: must be 4 or more, got 3" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    assert "4 or more" in " ".join(capsys.readouterr().out.split())
    logged().save(tmp_path / "log.csv")
    assert main(["tune", str(tmp_path / "log.csv"), *options]) == 0
    capsys.readouterr()
    assert main(["tune", str(tmp_path / "m.npz"), "--search", "epoch"]) == 1
    assert "needs --capacity" in capsys.readouterr().err
    assert main(["tune", str(tmp_path / "none.npz")]) == 1
