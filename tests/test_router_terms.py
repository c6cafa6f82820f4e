"""Terms in a Router: saved, restored, replayed; arms come and go with all of them on."""

import json
import os

import numpy as np
import pytest

from banditroute import LinUCB, Router, UnknownArm
from banditroute.policies import HybridLinUCB, SharedLinUCB
from banditroute.terms import ArmHealth, BudgetPacer, CostModels, QualityFloor, Queues, Sessions

ARMS = ("a", "b", "c")


def terms():
    return [
        ArmHealth(limits=(1, 2), cooldown_s=20.0),
        BudgetPacer(1.0, [0.5, 1.0, 4.0]),
        QualityFloor(0.6, [1.0, 2.0, 5.0]),
        Queues([1.0, 2.0, 3.0], per_second=0.01),
        CostModels(ARMS, 2, weights={"usd": 0.1, "seconds": 0.01}),
        Sessions([0.1, 0.2, 0.3]),
    ]


def made(clock):
    return Router(LinUCB(ARMS, 2, rng=0), terms=terms(), clock=clock)


def serve(router, now, n, seed):
    """Serve with late answers, failures and cancellations; returns the arms."""
    rng, waiting, arms = np.random.default_rng(seed), [], []
    for _ in range(n):
        now[0] += float(rng.exponential(3.0))
        waiting.append(router.select(rng.standard_normal(2), session=f"s{rng.integers(4)}"))
        arms.append(waiting[-1].arm)
        if len(waiting) > 5:
            decision = waiting.pop(int(rng.integers(len(waiting))))
            if rng.random() < 0.1:
                router.cancel(decision.id)
            else:
                cost, seconds = rng.exponential(1.0, 2)
                router.update(
                    decision.id, float(rng.random()), cost=cost, seconds=seconds, failed=rng.random() < 0.1
                )
    return arms


def states(router):
    return [
        (json.dumps(header, sort_keys=True), {name: array.tobytes() for name, array in arrays.items()})
        for header, arrays in (term.to_state() for term in router.terms)
    ]


def test_a_saved_router_goes_on_with_all_its_terms(tmp_path):
    now = [0.0]
    router = made(lambda: now[0])
    serve(router, now, 200, 0)
    router.save(tmp_path / "state")
    later = list(now)
    other = made(lambda: later[0])
    other.load(tmp_path / "state")
    assert states(other) == states(router)
    assert serve(router, now, 100, 1) == serve(other, later, 100, 1)
    assert states(other) == states(router)


KINDS = {
    "arms": lambda: LinUCB(ARMS, 2, mix=0.1, rng=0),
    "candidates": lambda: HybridLinUCB(ARMS, 2, features=2, mix=0.1, rng=0),
}


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_after_a_kill_all_terms_are_what_they_were(kind, checkpoint, tmp_path):
    """Spent, set aside, dual price, depths, health and sessions, to the last bit; and they go on alike."""
    home, seen = tmp_path / "home", tmp_path / "seen.json"

    def serve(router, now, n, seed):
        rng, waiting, arms = np.random.default_rng(seed), [], []
        for i in range(n):
            now[0] += float(rng.exponential(3.0))
            brought = {name: rng.random(2) for name in (*ARMS, "guest")} if kind == "candidates" else None
            k = 2 if i % 5 == 0 else None
            shown = router.select(
                rng.standard_normal(2), session=f"s{i % 7}", candidates=brought, k=k, id=f"{seed}-{i}"
            )
            arms.append(shown.arms if k else (shown.arm,))
            waiting.append((shown, k))
            if len(waiting) > 6:
                shown, k = waiting.pop(int(rng.integers(len(waiting))))
                reward, (cost, seconds) = float(rng.random()), rng.exponential(1.0, 2)
                told = {"cost": cost, "seconds": seconds, "failed": bool(rng.random() < 0.1)}
                if rng.random() < 0.1:
                    router.cancel(shown.id)
                else:
                    router.update(shown.id, [reward] * len(shown.arms) if k else reward, **told)
        return arms

    def of(router):
        left = [(term.name, term.left, term.price, term.spent, term.reserved) for term in router.terms[1:2]]
        return [
            *(
                (json.loads(header), {n: a.hex() for n, a in arrays.items()})
                for header, arrays in states(router)
            ),
            left,
        ]

    child = os.fork()
    if child == 0:
        try:
            now = [0.0]
            router = Router(KINDS[kind](), terms=terms(), clock=lambda: now[0])
            router.recover(home, flush_s=0.01)
            serve(router, now, 150, 0)
            if checkpoint:
                router.checkpoint()
                serve(router, now, 60, 1)
            router.parts.listeners.all[0].flush()
            seen.write_text(json.dumps([now[0], of(router), router.stats()["callback_errors"]]))
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    at, wanted, errors = json.loads(seen.read_text())
    assert not errors
    with Router(KINDS[kind](), terms=terms(), clock=lambda: at) as router:
        assert router.recover(home)["skipped"] == 0
        assert json.loads(json.dumps(of(router))) == wanted
        assert len(serve(router, [at], 50, 3)) == 50 and not router.stats()["callback_errors"]


def test_arms_come_and_go_with_all_terms_on():
    now = [0.0]
    router = made(lambda: now[0])
    serve(router, now, 50, 0)
    router.add_arm("d")
    assert len(serve(router, now, 50, 1)) == 50
    router.remove_arm("a")
    assert set(serve(router, now, 100, 2)) <= {"b", "c", "d"}
    router.add_arm("a")
    assert len(serve(router, now, 50, 3)) == 50
    assert all(term.arms == router.policy.arms for term in router.terms)
    assert not {name: n for name, n in router.stats().items() if name == "errors" and n}


def test_a_term_belongs_to_one_router_and_to_its_arms():
    pacer = BudgetPacer(1.0, [0.5, 1.0])
    router = Router(LinUCB(2, 1, rng=0), terms=[pacer])
    with pytest.raises(ValueError, match="one Router"):
        Router(LinUCB(2, 1, rng=0), terms=[pacer])
    with pytest.raises(ValueError, match="arms"):
        router.add_term(Queues([1.0, 1.0, 1.0], per_second=0.1))
    assert router.terms == (pacer,)
    assert router.update(router.select([1.0]).id, 0.5)


def test_decisions_that_expire_free_what_they_held():
    now = [0.0]
    pacer, queues = BudgetPacer(1.0, [2.0, 2.0]), Queues([1.0, 1.0], per_second=0.01)
    router = Router(LinUCB(2, 1, rng=0), terms=[pacer, queues], feedback_limit_s=10.0, clock=lambda: now[0])
    full = pacer.left
    for _ in range(5):
        router.select([1.0])
    assert queues.depth.sum() == 5.0
    now[0] = 100.0
    router.stats()
    assert (queues.depth.sum(), pacer.reserved, pacer.left) == (0.0, 0.0, pytest.approx(full))


def test_what_is_said_of_a_request_is_checked_at_every_door():
    plain = Router(LinUCB(["a", "b"], 1, rng=0))
    shared = Router(SharedLinUCB([], 1, features=1, rng=0))
    for said in ({"weights": 5}, {"weights": "usd"}, {"session": 5}):
        (word,) = said
        for call in (
            lambda said=said: plain.select([1.0], **said),
            lambda said=said: plain.explain([1.0], **said),
            lambda said=said: plain.select([1.0], k=2, **said),
            lambda said=said: shared.select([1.0], candidates={"n": [1.0]}, **said),
        ):
            with pytest.raises(TypeError, match=word):
                call()
    assert plain.stats()["decisions"] == shared.stats()["decisions"] == 0


def test_a_batch_is_priced_by_names_too():
    rows = np.random.default_rng(0).normal(size=(6, 2))
    for named, placed in ((Router(LinUCB(["a", "b"], 2, rng=0)), Router(LinUCB(["a", "b"], 2, rng=0))),):
        one = Queues([0.2, 0.2], per_second=0.01).assign(named, rows, prices={"a": 5.0})
        two = Queues([0.2, 0.2], per_second=0.01).assign(placed, rows, prices=[5.0, 0.0])
        assert [d.arm for d in one] == [d.arm for d in two] == ["b"] * 6
    with pytest.raises(UnknownArm, match="prices"):
        Queues([0.2, 0.2], per_second=0.01).assign(named, rows, prices={"c": 1.0})


def test_terms_that_come_later_settle_nothing_that_they_did_not_hold():
    router = Router(LinUCB(["a", "b"], 1, rng=0))
    before = router.select([1.0])
    queues, pacer = Queues([0.1, 0.1], per_second=0.1), BudgetPacer(1.0, [0.1, 0.2])
    router.add_term(queues)
    router.add_term(pacer)
    router.select([1.0], {before.arm})
    assert router.update(before.id, 0.5, cost=0.3, seconds=0.1)
    assert queues.depth.sum() == 1.0 and pacer.spent == 0.3 and not router.stats()["callback_errors"]
