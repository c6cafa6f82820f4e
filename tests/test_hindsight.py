"""Hindsight optima against brute force, each other and every controller."""

from itertools import combinations, pairwise, product

import numpy as np
import pytest

from banditroute import LFU, LRU, LinUCB, Polar, Problem, Static, Stream, regret, simulate
from banditroute.residency import FIFO, FTPL, GDSF, SIEVE, Popularity, ResidentOnly
from banditroute.simulation import (
    best_fixed_arm,
    best_static_set,
    churning,
    drifting,
    earned,
    homes,
    joint_bound,
    joint_optimum,
    oracle_routing,
)


def tiny(seed, length, arms, capacity, *, sizes=None, absent=0.0):
    rng = np.random.default_rng(seed)
    means = rng.uniform(0, 1, (length, arms))
    available = rng.random((length, arms)) >= absent
    available[:, 0] = True
    stream = Stream(
        np.ones((length, 1)), means, means, tuple("abcdefgh"[:arms]), available=available if absent else None
    )
    loads, faults = rng.uniform(0.05, 0.5, arms), rng.uniform(0.1, 0.6, arms)
    return Problem(stream, faults, loads, capacity, sizes=sizes)


def brute(problem, epoch, loads):
    """The best total over all sequences of sets that fit, one set per epoch."""
    count = len(problem.faults)
    sizes = np.ones(count) if problem.sizes is None else problem.sizes
    sets = [
        frozenset(c)
        for j in range(count + 1)
        for c in combinations(range(count), j)
        if sizes[list(c)].sum() <= problem.capacity + 1e-9
    ]
    stream = problem.stream
    means = stream.means if stream.available is None else np.where(stream.available, stream.means, -np.inf)
    length = len(stream)
    epochs = [range(start, min(start + epoch, length)) for start in range(0, length, epoch)]
    value = {
        (e, s): sum(
            max(means[t, i] - (0 if i in s else problem.faults[i]) for i in range(count)) for t in rows
        )
        for e, rows in enumerate(epochs)
        for s in sets
    }
    best = -np.inf
    for path in product(sets, repeat=len(epochs)):
        total = sum(value[e, s] for e, s in enumerate(path))
        for old, new in pairwise(path):
            total -= sum(loads[i] for i in new - old)
        best = max(best, total)
    return best


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("epoch", [1, 2])
def test_dynamic_programme_is_the_best_of_all_sequences(seed, epoch):
    problem = tiny(seed, 4 * epoch - (epoch > 1), 4, 2, absent=0.3 * (seed % 2))
    prices = np.minimum(problem.loads, problem.faults)
    run = joint_optimum(problem, epoch=epoch)
    assert earned(run, problem) == pytest.approx(brute(problem, epoch, prices), abs=1e-9)
    assert joint_bound(problem, epoch=epoch) >= earned(run, problem) - 1e-7


@pytest.mark.parametrize("seed", range(3))
def test_dynamic_programme_with_sizes(seed):
    problem = tiny(seed, 4, 4, 3.0, sizes=[1.0, 2.0, 1.5, 0.7])
    run = joint_optimum(problem, loads=problem.loads)
    assert earned(run, problem) == pytest.approx(brute(problem, 1, problem.loads), abs=1e-9)
    assert joint_bound(problem, epoch=1, loads=problem.loads) >= earned(run, problem) - 1e-7
    for _, chosen in run.epochs:
        assert problem.sizes[sorted(chosen)].sum() <= 3.0


def test_blocks_do_not_matter(monkeypatch):
    problem = homes(330, 1, n_arms=6, capacity=2)
    whole = {epoch: joint_optimum(problem, epoch=epoch) for epoch in (1, 7, 100)}
    monkeypatch.setattr("banditroute.simulation.hindsight.BLOCK", 150)
    for epoch, run in whole.items():
        other = joint_optimum(problem, epoch=epoch)
        assert (other.epochs, other.loads) == (run.epochs, run.loads)


CONTROLLERS = {
    "LRU": lambda p: LRU(p.capacity),
    "FIFO": lambda p: FIFO(p.capacity),
    "SIEVE": lambda p: SIEVE(p.capacity),
    "LFU": lambda p: LFU(p.capacity),
    "GDSF": lambda p: GDSF(p.capacity, p.faults),
    "FTPL": lambda p: FTPL(p.capacity, rng=0),
    "Polar": lambda p: Polar(p.capacity, epoch=20),
    "ResidentOnly": lambda p: ResidentOnly(Polar(p.capacity, epoch=20)),
    "Popularity": lambda p: Popularity(p.capacity, prefix=50),
    "best static": lambda p: Static(best_static_set(p.stream, p.capacity, p.faults)),
    "none": lambda p: Static(()),
}


@pytest.mark.parametrize("family", [homes, drifting, churning])
def test_nobody_earns_more(family):
    problem = family(240, 5)
    best = earned(joint_optimum(problem), problem)
    bound = joint_bound(problem, epoch=1)
    fixed = earned(oracle_routing(problem), problem)
    assert bound >= best - 1e-6
    assert best >= fixed >= earned(best_fixed_arm(problem), problem)
    policy = LinUCB(len(problem.stream.arms), problem.stream.dim, rng=0)
    for name, make in CONTROLLERS.items():
        run = simulate(policy.copy(), problem, make(problem))
        assert earned(run, problem) < best, name
    epochs = joint_optimum(problem, epoch=20, loads=problem.loads)
    assert fixed - 1e-9 <= earned(epochs, problem) <= best + 1e-9


def test_without_changes_it_is_the_best_static_set():
    problem = homes(400, 3)
    free, dear = np.zeros(15), np.full(15, 1e6)
    assert joint_optimum(problem, loads=dear).epochs == oracle_routing(problem).epochs
    assert joint_optimum(problem, epoch=400).epochs == oracle_routing(problem).epochs
    # Free changes: every request finds its best arm resident.
    assert earned(joint_optimum(problem, loads=free), problem) == pytest.approx(
        problem.stream.means.max(axis=1).sum()
    )


def test_regret_agrees_with_what_was_earned():
    problem = homes(500, 4)
    best = earned(oracle_routing(problem), problem)
    for run in (joint_optimum(problem, epoch=50), best_fixed_arm(problem), oracle_routing(problem, [1, 2])):
        assert regret(run, problem).final == pytest.approx(best - earned(run, problem), abs=1e-9)


def test_fixed_arm_stands_in_where_it_is_missing():
    means = np.array([[0.9, 0.5], [0.9, 0.5], [0.9, 0.5]])
    available = np.array([[True, True], [False, True], [True, True]])
    stream = Stream(np.ones((3, 1)), means, means, ("a", "b"), available=available)
    run = best_fixed_arm(Problem(stream, [0.1, 0.2], [0.1, 0.2], 1))
    assert run.arms.tolist() == [0, 1, 0]
    assert run.hits.tolist() == [True, False, True]
    assert earned(run, Problem(stream, [0.1, 0.2], [0.1, 0.2], 1)) == pytest.approx(0.9 + 0.3 + 0.9)


def test_the_relaxation_can_be_strict():
    # Three arms, one slot, each request wants two of the three: half of each arm beats any whole one.
    means = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    stream = Stream(np.ones((3, 1)), means, means, ("a", "b", "c"))
    problem = Problem(stream, [1.0] * 3, [1.0] * 3, 1)
    assert earned(joint_optimum(problem, epoch=3), problem) == pytest.approx(2.0)
    assert joint_bound(problem, epoch=3) == pytest.approx(2.0)
    wide = Problem(stream, [1.0] * 3, [1.0] * 3, 1.5, sizes=[1.0] * 3)
    assert earned(joint_optimum(wide, epoch=3), wide) == pytest.approx(2.0)
    assert joint_bound(wide, epoch=3) == pytest.approx(3.0)


def test_nothing_to_gain():
    problem = Problem(
        Stream(np.ones((4, 1)), np.ones((4, 2)), np.ones((4, 2)), ("a", "b")), [0, 0], [0, 0], 1
    )
    assert joint_bound(problem, epoch=2) == earned(joint_optimum(problem), problem) == 4.0


def test_refusals():
    problem = homes(50, 0)
    with pytest.raises(ValueError, match="epoch must be >= 1"):
        joint_optimum(problem, epoch=0)
    with pytest.raises(ValueError, match="loads must be >= 0"):
        joint_bound(problem, epoch=5, loads=np.full(15, -1.0))
    with pytest.raises(ValueError, match="at most 20000 sets"):
        joint_optimum(homes(50, 0, n_arms=40, capacity=8))
    with pytest.raises(ValueError, match=r"resident must be in \[0, 14\]"):
        oracle_routing(problem, [15])
