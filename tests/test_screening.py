"""Screening keeps the best few; an arm that is down gets nothing, and every reroute is counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from banditroute import LinUCB, Router, UnknownArm
from banditroute.terms import ArmHealth, screen, stability

SKILL = np.array([0.9, 0.6, 0.3])


def share(router, health, rng, length, skill=SKILL):
    """Serve requests; returns how many each arm got."""
    counts = np.zeros(3, dtype=int)
    for _ in range(length):
        decision = router.select([1.0], prices=health.prices(), eligible=health.eligible())
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
    before = share(router, health, rng, 1000)
    health.mark("0", "down")
    assert share(router, health, rng, 1000)[0] == 0
    health.mark("0", "up")
    assert share(router, health, rng, 1000)[0] > 0.9 * before[0]


def test_an_arm_that_comes_back_fresh_is_relearned():
    rng, router = np.random.default_rng(0), Router(LinUCB(3, 1, rng=0))
    health = ArmHealth(router)
    share(router, health, rng, 300)
    share(
        router, health, rng, 300, skill=np.array([0.0, 0.6, 0.3])
    )  # failing, and its failures learned as rewards
    health.mark("0", "down")
    counts = router.policy.counts
    health.mark("0", "up", fresh=True)
    assert router.policy.counts.tolist() == [0, *counts[1:].tolist()]
    assert share(router, health, rng, 2000)[0] > 0.9 * 2000


def test_every_reroute_is_counted_and_avoids_what_failed():
    rng, router = np.random.default_rng(1), Router(LinUCB(3, 1, rng=0))
    health = ArmHealth(router)
    share(router, health, rng, 200)
    pending = [router.select([1.0], eligible=health.eligible()) for _ in range(20)]
    assert {d.arm for d in pending} == {"0"}
    health.mark("0", "down")
    again = [health.reroute(d, [1.0]) for d in pending]
    assert "0" not in {d.arm for d in again}
    assert health.reroutes == {"0": 20}
    third = health.reroute(again[0], [1.0], without=["0"])
    assert third.arm not in {"0", again[0].arm}
    assert health.reroutes.total() == 21
    with pytest.raises(ValueError, match="eligible"):
        health.reroute(third, [1.0], without=["0", "1", "2"])
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


def test_bad_marks_are_refused():
    health = ArmHealth(Router(LinUCB(3, 1, rng=0)))
    with pytest.raises(UnknownArm):
        health.mark("9", "down")
    with pytest.raises(ValueError, match="state"):
        health.mark("1", "asleep")
    with pytest.raises(ValueError, match="limits"):
        ArmHealth(Router(LinUCB(3, 1)), limits=(3, 2))
    assert health.state("1") == "up"
