"""Screening keeps the best few; an arm that is down gets nothing, and every reroute is counted."""

import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banditroute import LinUCB, Router, UnknownArm
from banditroute.terms import ArmHealth, BudgetPacer, Queues, screen, stability
from banditroute.testing import TermDriver

SKILL = np.array([0.9, 0.6, 0.3])


def share(router, rng, length, skill=SKILL):
    """Serve requests; returns how many each arm got."""
    counts = np.zeros(3, dtype=int)
    for _ in range(length):
        decision = router.select([1.0])
        arm = int(decision.arm)
        counts[arm] += 1
        router.update(decision.id, skill[arm] + 0.1 * rng.normal())
    return counts


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3, st.booleans()), min_size=1, max_size=8), st.integers(1, 9))
def test_screening_keeps_the_highest_points_among_the_eligible(arms, top):
    near, good, calm, allowed = (np.array(column) for column in zip(*arms, strict=True))
    kept = screen(near, good, calm, top, eligible=allowed)
    assert kept.sum() == min(top, allowed.sum())
    assert not (kept & ~allowed).any()
    points = 0.5 * near + 0.35 * good + 0.15 * calm
    if kept.any() and (allowed & ~kept).any():
        assert points[kept].min() >= points[allowed & ~kept].max()


def test_the_two_stages_choose_within_the_screened():
    policy = LinUCB(4, 1, prior=[[0.9], [0.8], [0.7], [0.6]], alpha=0.0, rng=0)
    mask = screen([0.0, 0.9, 0.9, 0.9], [0.5] * 4, stability([0.0] * 4, [0.1] * 4), top=2)
    assert mask.tolist() == [False, True, True, False]
    assert policy.select([1.0], eligible=mask).arm == 1


def test_stability_is_the_formula():
    assert stability([0.5], [1.0], [False]) == pytest.approx([0.4])


def test_no_request_goes_to_an_arm_that_is_down_and_its_share_comes_back():
    rng, router = np.random.default_rng(0), Router(LinUCB(3, 1, rng=0))
    health = ArmHealth(router)
    before = share(router, rng, 1000)
    health.mark("0", "down")
    assert share(router, rng, 1000)[0] == 0
    health.mark("0", "up")
    assert share(router, rng, 1000)[0] > 0.9 * before[0]


def test_an_arm_that_comes_back_fresh_is_relearned():
    rng, router = np.random.default_rng(0), Router(LinUCB(3, 1, rng=0))
    health = ArmHealth(router)
    share(router, rng, 300)
    share(router, rng, 300, skill=np.array([0.0, 0.6, 0.3]))  # failing, and its failures learned as rewards
    health.mark("0", "down")
    counts = router.policy.counts
    health.mark("0", "up", fresh=True)
    assert router.policy.counts.tolist() == [0, *counts[1:].tolist()]
    assert share(router, rng, 2000)[0] > 0.9 * 2000


def test_every_reroute_is_counted_and_avoids_what_failed():
    rng, router = np.random.default_rng(1), Router(LinUCB(3, 1, rng=0))
    health = ArmHealth(router)
    share(router, rng, 200)
    pending = [router.select([1.0]) for _ in range(20)]
    assert {d.arm for d in pending} == {"0"}
    health.mark("0", "down")
    again = [health.reroute(d, [1.0]) for d in pending]
    assert "0" not in {d.arm for d in again}
    assert health.reroutes == {"0": 20}
    third = health.reroute(again[0], [1.0], without=["0"])
    assert third.arm not in {"0", again[0].arm}
    assert health.reroutes.total() == 21
    pending = router.stats()["pending"]
    with pytest.raises(ValueError, match="eligible"):
        health.reroute(third, [1.0], without=["0", "1", "2"])
    assert router.stats()["pending"] == pending
    assert health.reroutes.total() == 21
    assert router.update(again[5].id, 0.5)


def test_failures_in_a_row_degrade_and_then_take_down():
    router = Router(LinUCB(3, 1, rng=0))
    health = ArmHealth(router, penalty=0.2, limits=(2, 4))
    states = [health.report("1", served=False) for _ in range(4)]
    assert states == ["up", "degraded", "degraded", "down"]
    assert health.report("1", served=True) == "down"  # a straggler does not bring it back; `mark` does
    health.mark("1", "up")
    assert [health.report("1", served=False) for _ in range(2)] == ["up", "degraded"]
    assert health.prices().tolist() == [0.0, 0.2, 0.0]
    assert health.eligible().all()
    assert health.report("1", served=True) == "up"


def test_health_follows_names_when_arms_change():
    router = Router(LinUCB(["a", "b", "c"], 1, rng=0))
    health = ArmHealth(router)
    health.mark("b", "down")
    router.remove_arm("a")
    assert health.eligible().tolist() == [False, True]
    router.add_arm("d")
    assert health.eligible().tolist() == [False, True, True]


@pytest.mark.parametrize("form", [set, list, dict, np.array, "mask as a list"])
def test_a_reroute_narrows_what_the_caller_allows(form):
    router = Router(LinUCB(["a", "b", "c"], 1, rng=0))
    health = ArmHealth(router)
    names = {"a", "c"}
    given = {
        set: names, list: sorted(names), dict: {"a": True, "b": False, "c": True},
        np.array: np.array([True, False, True]), "mask as a list": [True, False, True],
    }[form]  # fmt: skip
    decision = router.select([1.0], eligible={"a"})
    assert health.reroute(decision, [1.0], eligible=given).arm == "c"


def test_a_rerouted_call_teaches_nothing_and_frees_its_budget_and_place():
    pacer, queues, health = BudgetPacer(1.0, [0.5, 0.5]), Queues([1.0, 1.0], per_second=0.0), ArmHealth()
    policy = LinUCB(["flaky", "steady"], 1, rng=0)
    now = [0.0]
    router = Router(
        policy, terms=[health, pacer, queues], expired_reward=0.0, feedback_limit_s=10.0, clock=lambda: now[0]
    )
    decision = router.select([1.0], eligible={"flaky"})
    assert (pacer.requests, queues.depth.tolist()) == (1, [1.0, 0.0])
    again = health.reroute(decision, [1.0])
    assert (pacer.requests, pacer.reserved, queues.depth.tolist()) == (1, 0.5, [0.0, 1.0])
    assert not router.update(decision.id, 1.0)
    router.update(again.id, 0.9, cost=0.4)
    now[0] = 100.0
    router.stats()
    assert policy.counts.tolist() == [0, 1]
    assert (pacer.spent, pacer.reserved, queues.depth.sum()) == (0.4, 0.0, 0.0)


def drive(limits=(1, 2), cooldown_s=30.0):
    health = ArmHealth(["a", "b"], limits=limits, cooldown_s=cooldown_s)
    policy = LinUCB(["a", "b"], 2, prior=[[1.0, 0.0], [0.0, 0.0]], alpha=0.0, rng=0)  # a is much better
    return health, TermDriver([health], ["a", "b"], policy)


def fail(driver, health, arm="a"):
    """Let calls fail until an arm is down."""
    while health.state(arm) != "down":
        driver.update(driver.select([1.0, 0.0], eligible={arm}).id, 0.0, failed=True)


def arms(driver, n, step_s):
    seen = []
    for _ in range(n):
        driver.time += step_s
        seen.append(driver.select([1.0, 0.0]))
    return [d.arm for d in seen], seen


def test_an_arm_that_failures_took_down_is_tried_by_one_request_after_a_while():
    health, driver = drive()
    fail(driver, health)
    assert arms(driver, 29, 1.0)[0] == ["b"] * 29
    names, decisions = arms(driver, 20, 1.0)
    assert names.count("a") == 1, "one at a time until it has answered"
    trial = next(d for d in decisions if d.arm == "a")
    assert health.state("a") == "down"
    driver.update(trial.id, 1.0)
    assert health.state("a") == "up"
    assert arms(driver, 5, 1.0)[0] == ["a"] * 5


def test_a_trial_that_fails_doubles_the_wait_up_to_a_limit():
    health, driver = drive()
    fail(driver, health)
    waits, since = [], driver.time
    for _ in range(5000):
        driver.time += 1.0
        decision = driver.select([1.0, 0.0])
        if decision.arm == "a":
            waits.append(driver.time - since)
            since = driver.time
            driver.update(decision.id, 0.0, failed=True)
    assert waits[:5] == pytest.approx([30.0, 60.0, 120.0, 240.0, 480.0], abs=2.0)
    assert max(waits) <= 16 * 30.0 + 2.0


def test_a_trial_that_nobody_answered_is_made_again():
    health, driver = drive()
    fail(driver, health)
    driver.time += 31.0
    driver.select([1.0, 0.0])  # notes the time
    trial = driver.select([1.0, 0.0])
    assert trial.arm == "a"
    driver.cancel(trial.id)
    assert arms(driver, 28, 1.0)[0] == ["b"] * 28
    assert "a" in arms(driver, 4, 1.0)[0]


def test_what_was_marked_down_stays_down_and_nothing_is_tried_with_an_infinite_cooldown():
    health, driver = drive()
    health.mark("a", "down")
    assert arms(driver, 100, 60.0)[0] == ["b"] * 100
    health, driver = drive(cooldown_s=np.inf)
    fail(driver, health)
    assert arms(driver, 100, 60.0)[0] == ["b"] * 100


def test_when_failures_took_every_arm_down_all_serve():
    health, driver = drive()
    fail(driver, health, "b")
    fail(driver, health, "a")
    assert {health.state("a"), health.state("b")} == {"down"}
    decision = driver.select([1.0, 0.0])
    driver.update(decision.id, 1.0)
    assert health.state(decision.arm) == "up"
    health.mark("a", "down")
    health.mark("b", "down")
    with pytest.raises(ValueError, match="eligible"):  # this is a decision of somebody, not an outage
        driver.select([1.0, 0.0])


def test_a_clock_that_jumped_a_year_and_back_delays_no_trial():
    health, driver = drive()
    driver.time = 3.2e7
    fail(driver, health)
    driver.time = 10.0
    assert "a" not in arms(driver, 25, 1.0)[0]
    assert "a" in arms(driver, 15, 1.0)[0]


def test_marks_from_other_threads_are_seen_by_the_next_request():
    router = Router(LinUCB(3, 1, rng=0), terms=[health := ArmHealth()])
    stop = threading.Event()

    def serve():
        while not stop.is_set():
            router.update(router.select([1.0]).id, 0.5)

    threads = [threading.Thread(target=serve) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(200):
        arm = str(i % 3)
        health.mark(arm, "down")
        assert router.select([1.0]).arm != arm
        health.mark(arm, "up")
    stop.set()
    for thread in threads:
        thread.join()


def test_marks_and_reports_are_events_that_a_journal_can_replay():
    class Journal:
        def __init__(self):
            self.marks = []

        def marked(self, mark):
            self.marks.append(mark)

    journal, health = Journal(), ArmHealth(limits=(1, 2))
    router = Router(LinUCB(["a", "b", "c"], 1, rng=0), terms=[health], listeners=[journal])
    health.mark("a", "down")
    health.report("b", served=False)
    health.reroute(router.select([1.0], eligible={"c"}), [1.0])
    assert [mark.term for mark in journal.marks] == ["health"] * 3
    again = ArmHealth(["a", "b", "c"], limits=(1, 2))
    for mark in journal.marks:
        again.replay_mark(json.loads(json.dumps(mark.details)))
    assert again.to_state()[0]["known"] == health.to_state()[0]["known"]
    assert again.reroutes == health.reroutes == {"c": 1}


def test_an_arm_that_returns_under_an_old_name_is_up():
    router = Router(LinUCB(["a", "b", "c"], 1, rng=0))
    health = ArmHealth(router)
    for _ in range(5):
        health.report("c", False)
    assert health.state("c") == "down"
    router.remove_arm("c")
    router.add_arm("c")
    assert health.state("c") == "up"
    assert health.eligible().tolist() == [True] * 3
    assert "known={}" in repr(health.to_state()) or health.to_state()[0]["known"] == {}


def test_bad_marks_are_refused():
    health = ArmHealth(Router(LinUCB(3, 1, rng=0)))
    with pytest.raises(UnknownArm):
        health.mark("9", "down")
    with pytest.raises(ValueError, match="state"):
        health.mark("1", "asleep")
    with pytest.raises(ValueError, match="limits"):
        ArmHealth(Router(LinUCB(3, 1)), limits=(3, 2))
    with pytest.raises(ValueError, match="Router"):
        ArmHealth(["a", "b"]).mark("a", "up", fresh=True)
    assert health.state("1") == "up"
