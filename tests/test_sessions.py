"""Leaving a warm cache has its price; who has no session, or a new one, is served as if the term were not there."""

import numpy as np
import pytest

from banditroute import LinUCB, Router
from banditroute.records import Extras, Request
from banditroute.terms import Sessions


def asked(session, length=1.0, time=0.0):
    return Request(np.array([length]), 0, None if session is None else Extras(session=session), time)


def by_length(saved, **options):
    return Sessions(saved, tokens=lambda x: x[0], **options)


def test_the_price_is_what_the_warmest_arm_saves_and_this_one_does_not():
    term = by_length([0.001, 0.002, 0.002])
    term.reserve(0, asked("s", 100.0, 0.0))
    term.reserve(1, asked("s", 150.0, 1.0))
    prices = term.prices(asked("s", 200.0, 2.0))
    saving = np.array([0.001 * 100.0, 0.002 * 150.0, 0.0])  # by hand
    assert prices == pytest.approx(saving.max() - saving)
    shorter = term.prices(asked("s", 50.0, 2.0))  # no more than the prompt can come from the cache
    assert shorter == pytest.approx([0.1 - 0.05, 0.0, 0.1])


def test_without_tokens_each_turn_counts_one():
    term = Sessions([0.1, 0.1])
    for turn in range(3):
        term.reserve(0, asked("s", time=float(turn)))
    assert term.prices(asked("s", time=3.0)) == pytest.approx([0.0, 0.3])


def test_a_cache_goes_cold_and_a_clock_that_jumped_back_keeps_it_warm():
    term = by_length([0.1, 0.1], idle_s=300.0)
    term.reserve(0, asked("s", 10.0, 1000.0))
    assert term.prices(asked("s", 10.0, 1299.0)) is not None
    assert term.prices(asked("s", 10.0, 1300.0)) is None
    assert term.prices(asked("s", 10.0, 5.0)) is not None


def test_a_new_session_is_served_to_the_last_bit_as_without_the_term():
    rng = np.random.default_rng(0)
    plain = Router(LinUCB(3, 2, rng=0))
    with_term = Router(LinUCB(3, 2, rng=0), terms=[Sessions(0.5)])
    for t in range(300):
        x, session = rng.standard_normal(2), (None, f"s{t}")[t % 2]
        one, two = plain.select(x), with_term.select(x, session=session)
        assert (one.arm, one.propensity) == (two.arm, two.propensity)
        reward = float(rng.random())
        plain.update(one.id, reward)
        with_term.update(two.id, reward)
    assert np.array_equal(plain.policy.theta, with_term.policy.theta)


def test_memory_is_bounded_and_the_quietest_goes_first():
    term = Sessions(0.1, limit=3)
    for i, session in enumerate(["a", "b", "c", "a", "d"]):
        term.reserve(0, asked(session, time=float(i)))
    assert len(term) == 3
    assert term.cached("b", 5.0) == {}
    assert term.cached("a", 5.0) == {"0": 2.0}


def test_a_call_that_came_to_nothing_warms_nothing():
    term = by_length([0.1, 0.1])
    term.release(0, term.reserve(0, asked("s", 10.0)))
    assert len(term) == 0
    term.reserve(0, asked("s", 10.0, 0.0))
    held = term.reserve(0, asked("s", 20.0, 1.0))
    later = term.reserve(0, asked("s", 30.0, 2.0))
    term.release(0, held)  # too late: a later turn was there
    assert term.cached("s", 3.0) == {"0": 30.0}
    term.release(0, later)
    assert term.cached("s", 3.0) == {"0": 20.0}


def test_bad_settings_are_refused():
    for call in (
        lambda: Sessions(-1.0),
        lambda: Sessions([0.1, np.nan]),
        lambda: Sessions(0.1, idle_s=0.0),
        lambda: Sessions(0.1, limit=0),
        lambda: Sessions(0.1).add_arm("a", saved=0.2),
    ):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(TypeError, match="tokens"):
        Sessions(0.1, tokens=3)
    with pytest.raises(ValueError, match="tokens"):
        Sessions(0.1, tokens=lambda x: -1.0).reserve(0, asked("s"))


# -- four models that are nearly as good, each a little better at one kind of turn; a long prompt that grows ----------

TURNS, MODELS, FIRST, MORE = 6, 4, 5000.0, 100.0
PER_TOKEN = np.array([1.0, 1.02, 1.04, 1.06]) * 1e-5  # reward units; a cached token costs a tenth
SKILL = np.where(np.eye(MODELS) > 0, 0.9, 0.895)  # by kind of turn and model


def turn_cost(model, length, cached):
    return PER_TOKEN[model] * (length - 0.9 * min(cached, length))


def best_by_dynamic_programming(kinds):
    """Least cost plus quality lost of one conversation, all turns known; the state is the length in each cache."""
    states = {(0.0,) * MODELS: 0.0}
    for turn, kind in enumerate(kinds):
        length, after = FIRST + MORE * turn, {}
        for cached, value in states.items():
            for model in range(MODELS):
                total = value + turn_cost(model, length, cached[model]) + 1.0 - SKILL[kind, model]
                key = tuple(length if m == model else c for m, c in enumerate(cached))
                after[key] = min(after.get(key, np.inf), total)
        states = after
    return min(states.values())


def converse(terms, conversations=120, seed=0):
    """Serve conversations; returns quality, money and the optimum of their sum, per turn of the second half."""
    rng, now = np.random.default_rng(seed), [0.0]
    router = Router(LinUCB(MODELS, MODELS + 1, rng=0), terms=terms, clock=lambda: now[0])
    sums, half = np.zeros(3), conversations // 2
    for c in range(conversations):
        kinds, cached = rng.integers(MODELS, size=TURNS), np.zeros(MODELS)
        for turn, kind in enumerate(kinds):
            length = FIRST + MORE * turn
            x = np.append(np.eye(MODELS)[kind], length / 10_000.0)
            now[0] += 1.0
            decision = router.select(x, session=f"c{c}")
            model = int(decision.arm)
            cost = turn_cost(model, length, cached[model])
            cached[model] = length
            router.update(decision.id, SKILL[kind, model] + 0.002 * rng.standard_normal())
            sums[:2] += np.array([SKILL[kind, model], cost]) * (c >= half)
        if c >= half:
            sums[2] += best_by_dynamic_programming(kinds)
    return sums / (TURNS * (conversations - half))


def test_conversations_cost_little_more_than_the_optimum_and_far_less_than_without_sessions():
    blind = converse([])
    kept = converse([Sessions(0.9 * PER_TOKEN, tokens=lambda x: 10_000.0 * x[-1])])
    assert kept[1] < 0.6 * blind[1], "money"
    assert kept[0] > blind[0] - 0.005, "quality"
    assert kept[1] + 1.0 - kept[0] < 1.05 * kept[2], "money and quality lost, against dynamic programming"
