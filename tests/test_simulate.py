"""The compiled loop against the Router, request by request, and runs against their definition."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from banditroute import LFU, LRU, DiagLinUCB, LinTS, LinUCB, Polar, Problem, Static, Stream, simulate
from banditroute._core.kernels import layout
from banditroute.residency import FIFO, FTPL, GDSF, SIEVE, DecayedLFU
from banditroute.simulation.comparison import controllers as contestants
from controllers import Forcing

N, DIM = 7, 5


def problem(length, seed, *, delays=0, available=False, sizes=False):
    rng = np.random.default_rng(seed)
    contexts = rng.standard_normal((length, DIM)) / np.sqrt(DIM)
    means = contexts @ rng.standard_normal((DIM, N)) * 0.5
    mask = None
    if available:
        mask = rng.random((length, N)) < 0.6
        mask[np.arange(length), rng.integers(N, size=length)] = True
    return Problem(
        Stream(
            contexts,
            means,
            means + 0.1 * rng.standard_normal((length, N)),
            tuple("abcdefg"),
            delays=rng.integers(0, delays + 1, size=length),
            available=mask,
        ),
        faults=rng.uniform(0.05, 0.3, N),
        loads=rng.uniform(0.05, 0.3, N),
        capacity=6.0 if sizes else 3,
        sizes=rng.uniform(0.5, 3.0, N) if sizes else None,
    )


def same_run(one, two):
    assert np.array_equal(one.arms, two.arms)
    np.testing.assert_allclose(one.propensities, two.propensities, rtol=1e-13)
    assert np.array_equal(one.hits, two.hits)
    assert one.epochs == two.epochs
    assert [at for at, _ in one.loads] == [at for at, _ in two.loads]
    np.testing.assert_allclose([p for _, p in one.loads], [p for _, p in two.loads], rtol=0, atol=1e-9)
    assert (one.page_ins, one.forced) == (two.page_ins, two.forced)
    assert one.load_count == two.load_count >= one.page_ins


def same_policy(one, two):
    a, b = one.to_state(), two.to_state()
    assert a[0] == b[0]
    # Inlined in the loop, a kernel may be vectorised otherwise than on its own, in a way that depends on what was
    # compiled and what came from the cache: sums may differ in their last bit, counts and randomness may not.
    for name in ("theta", "cov", "gram", "moment", "prior", "arm"):
        np.testing.assert_allclose(a[1][name], b[1][name], rtol=1e-9, atol=1e-12, err_msg=name)
    assert np.array_equal(a[1]["noise"], b[1]["noise"])
    assert np.array_equal(one.counts, two.counts)
    for slot in (layout.H_CURSOR, layout.H_CLOCK, layout.H_BUCKET, layout.H_LEARNED):
        assert a[1]["header"][slot] == b[1]["header"][slot]
    np.testing.assert_allclose([one.alpha, one.ridge], [two.alpha, two.ridge], rtol=1e-9)


CONTROLLERS = {
    "none": lambda p: None,
    "LRU": lambda p: LRU(p.capacity),
    "LFU": lambda p: LFU(p.capacity, pinned=[1]),
    "FIFO": lambda p: FIFO(p.capacity),
    "SIEVE": lambda p: SIEVE(p.capacity),
    "GDSF": lambda p: GDSF(p.capacity, p.faults),
    "DecayedLFU": lambda p: DecayedLFU(p.capacity),
    "FTPL": lambda p: FTPL(p.capacity, rng=3),
    "Polar": lambda p: Polar(p.capacity, epoch=83, pinned=["c"]),
    "Static": lambda p: Static([1, 2], p.capacity),
    "Forcing": lambda p: Forcing(p.capacity, epoch=90, quota=9.0, rate=0.2, rng=5, pinned=[2]),
    "Forcing always": lambda p: Forcing(p.capacity, epoch=37, quota=100.0, rate=1.0, rng=6),
}
STREAMS = {
    "plain": {},
    "late": {"delays": 60},
    "available": {"available": True, "delays": 10},
    "sized": {"sizes": True, "delays": 3},
}
POLICIES = {
    "default": {},
    "mix": {"mix": 0.2},
    "forgetting": {"discount": 0.97, "mix": 0.1},
    "textbook": {"alpha": 0.5, "ridge": 0.5, "prior": None},
}


@pytest.mark.parametrize("controller", CONTROLLERS)
@pytest.mark.parametrize("stream", STREAMS)
def test_engines_agree_decision_for_decision(controller, stream):
    for seed, options in enumerate(POLICIES.values()):
        case = problem(700, seed + 10 * len(stream), **STREAMS[stream])
        protected = np.random.default_rng(seed).random(700) < 0.3 if seed % 2 else None
        policies = [LinUCB(case.stream.arms, DIM, rng=seed, **options) for _ in range(2)]
        controllers = [CONTROLLERS[controller](case) for _ in range(2)]
        runs = [
            simulate(policy, case if own else case.stream, own, engine=engine, protected=protected)
            for policy, own, engine in zip(policies, controllers, ("compiled", "router"), strict=True)
        ]
        same_run(*runs)
        same_policy(*policies)
        if controllers[0] is not None:
            assert np.array_equal(controllers[0].needs, controllers[1].needs)
            assert controllers[0].next_plan == controllers[1].next_plan
            if controller in ("FTPL", "Forcing", "Forcing always"):
                states = [own._rng.bit_generator.state for own in controllers]
                assert states[0] == states[1]
            assert getattr(controllers[0], "seen", None) == getattr(controllers[1], "seen", None)


def test_forcing_is_seen_in_the_comparison():
    # The runs compared above must contain what they are to compare.
    case = problem(700, 0)
    run = simulate(LinUCB(N, DIM, mix=0.2, rng=0), case, CONTROLLERS["Forcing"](case))
    assert 30 < run.forced < 300
    assert len(run.epochs) > 5
    assert len(set(np.round(run.propensities, 6))) > 5
    assert 0.1 < run.hits.mean() < 1.0


@pytest.mark.parametrize("cls", [LinTS, DiagLinUCB])
def test_engines_agree_for_the_other_linear_policies(cls):
    options = {"propensities": False} if cls is LinTS else {}
    case = problem(600, 4, delays=20)
    one, two = cls(N, DIM, rng=0, **options), cls(N, DIM, rng=0, **options)
    a = simulate(one, case, Polar(3, epoch=50), engine="compiled")
    b = simulate(two, case, Polar(3, epoch=50), engine="router")
    assert np.array_equal(a.arms, b.arms)
    same_policy(one, two)


def test_noise_of_a_long_run_is_that_of_the_router():
    # Longer than the blocks of numbers drawn ahead (4,096 for decisions, 1,024 for forcing).
    case = problem(9000, 5)
    own = [Forcing(3, epoch=500, quota=300.0, rate=0.5, rng=1) for _ in range(2)]
    runs = [
        simulate(LinUCB(N, DIM, mix=0.3, rng=2), case, controller, engine=engine)
        for controller, engine in zip(own, ("compiled", "router"), strict=True)
    ]
    same_run(*runs)
    assert runs[0].forced > 2000


def test_wholly_protected_epochs_draw_no_forcing_noise():
    case = problem(600, 6)
    protected = np.zeros(600, dtype=bool)
    protected[:250] = protected[300:400] = True
    own = [Forcing(3, epoch=50, quota=20.0, rate=0.5, rng=1) for _ in range(2)]
    same_run(
        *(
            simulate(LinUCB(N, DIM, rng=2), case, controller, engine=engine, protected=protected)
            for controller, engine in zip(own, ("compiled", "router"), strict=True)
        )
    )
    run = simulate(
        LinUCB(N, DIM, rng=2), case, Forcing(3, epoch=50, quota=20.0, rate=1.0, rng=1), protected=protected
    )
    plain = simulate(LinUCB(N, DIM, rng=2), case, Forcing(3, epoch=50, quota=0.0, rate=1.0, rng=1))
    assert np.array_equal(run.arms[:50], plain.arms[:50])  # not forced although wanted


def test_run_equals_a_loop_written_out():
    case = problem(300, 7, delays=15, available=True)
    stream = case.stream
    run = simulate(LinUCB(N, DIM, rng=9, mix=0.2), stream)
    policy = LinUCB(N, DIM, rng=9, mix=0.2)
    for t in range(300):
        for i in range(t):
            if i + 1 + stream.delays[i] == t:
                policy.update(
                    int(run.arms[i]), stream.contexts[i], float(stream.rewards[i, run.arms[i]]), at=i
                )
        arm, propensity = policy.select(stream.contexts[t], prices=np.zeros(N), eligible=stream.available[t])
        assert (arm, propensity) == (run.arms[t], run.propensities[t])
    assert run.hits.all()


def test_everything_is_learned_in_the_end():
    case = problem(200, 8, delays=500)
    policy = LinUCB(N, DIM, rng=0)
    run = simulate(policy, case.stream)
    assert np.array_equal(policy.counts, np.bincount(run.arms, minlength=N))


def test_second_run_of_a_policy_that_forgets_counts_from_now():
    case = problem(2000, 9)
    policy = LinUCB(N, DIM, discount=0.9, alpha=0.3, ridge=1.0, prior=None, rng=0)
    simulate(policy, case.stream)
    simulate(policy, case.stream)
    weight = policy.state.arm[:, layout.A_WEIGHT].sum()
    assert 5.0 < weight < 15.0  # of the last ten decisions; not of ten of the 2,000 before


def test_epochs_tile_the_run():
    case = problem(500, 10)
    for make in (LRU(3), Polar(3, epoch=60), Static([1])):
        run = simulate(LinUCB(N, DIM, rng=0), case, make)
        parts = list(run.residents())
        assert parts[0][0] == 0 and parts[-1][1] == 500
        assert all(a[1] == b[0] for a, b in pairwise(parts))
        for start, stop, chosen in parts:
            assert np.array_equal(run.hits[start:stop], np.isin(run.arms[start:stop], sorted(chosen)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: simulate(LinUCB(N - 1, DIM), p), r"problem must have \(arms, dim\) = \(6, 5\)"),
        (lambda p: simulate(LinUCB(N, DIM + 1), p), r"problem must have \(arms, dim\) = \(7, 6\)"),
        (lambda p: simulate(LinUCB(N, DIM), p.stream, LRU(1)), "a Stream has no fault prices"),
        (lambda p: simulate(LinUCB(N, DIM), p, engine="fast"), "engine must be"),
        (
            lambda p: simulate(LinUCB(N, DIM), p, protected=np.ones(3, bool)),
            r"protected must have shape \(50,\), got \(3,\)",
        ),
        (lambda p: simulate(LinUCB(N, DIM, max_norm=0.1), p), "x must have norm <= max_norm = 0.1"),
        (
            lambda p: simulate(LinUCB(N, DIM, max_norm=0.1), p, engine="router"),
            "x must have norm <= max_norm = 0.1",
        ),
    ],
)
def test_misfits_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(problem(50, 11))


@pytest.mark.parametrize("engine", ["compiled", "router"])
def test_rewards_that_cannot_be_learned_are_refused(engine):
    case = problem(50, 12)
    rewards = case.stream.rewards.copy()
    rewards[20:] = 1e40
    with pytest.raises(ValueError, match="reward"):
        simulate(LinUCB(N, DIM), replace(case.stream, rewards=rewards), engine=engine)


SCENARIO = """
import numpy as np
from banditroute import LinUCB, Polar, Router
from banditroute import simulate
from banditroute.simulation import homes
problem = homes(120, 0, n_arms=4, dim=3, capacity=2)
policy = LinUCB(4, 3, mix=0.1, discount=0.95, rng=0)
run = simulate(policy, problem, Polar(2, epoch=40), engine={engine!r})
router = Router(LinUCB(4, 3, rng=1), Polar(2, epoch=10), 0.1)
arms = []
for t in range(40):
    decision = router.select(problem.stream.contexts[t])
    arms.append(int(decision.arm))
    router.update(decision.id, float(t % 2))
print([*run.arms.tolist(), *arms])
print(policy.theta.round(9).tolist())
"""


def test_without_compilation_everything_is_the_same():
    outputs = []
    for disable, engine in (("1", "compiled"), ("1", "router"), ("0", "compiled")):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", SCENARIO.format(engine=engine)],
            env={**os.environ, "NUMBA_DISABLE_JIT": disable},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout.splitlines())
    assert outputs[0] == outputs[1]
    assert outputs[0][0] == outputs[2][0]
    theta = [np.array(json.loads(lines[1])) for lines in outputs]
    np.testing.assert_allclose(theta[2], theta[0], rtol=0, atol=1e-8)


def test_contestants_run_where_arms_have_sizes():
    case = problem(300, 13, sizes=True)
    for make in contestants(case).values():
        run = simulate(LinUCB(case.stream.arms, DIM, rng=0), case, make())
        assert all(case.sizes[sorted(chosen)].sum() <= case.capacity for _, chosen in run.epochs)
