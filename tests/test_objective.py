"""The residency objective: exact against brute force, heuristics against exact, promises as properties."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banditroute._core.kernels import facility, facility_exact
from banditroute.residency import best_set, coverage, gains, gap, objective
from banditroute.residency.set_search import SetSearch
from naive_facility import best_value, climb, clustered, feasible_sets, isotropic, low_rank, value

INTERPRETED = bool(os.environ.get("NUMBA_DISABLE_JIT"))
METHODS = ("auto", "greedy", "swap", "exact")


def instance(seed):
    """A small random problem with everything switched on at random."""
    rng = np.random.default_rng(seed)
    arms, n = int(rng.integers(1, 8)), int(rng.integers(1, 13))
    utilities, faults = [clustered, isotropic, low_rank][seed % 3](rng, arms, n)
    if rng.random() < 0.3:
        utilities = utilities.round(1)  # duplicates and ties
        faults = faults.round(1)
    extra = {"previous": rng.permutation(arms)[: rng.integers(arms + 1)].tolist()}
    if rng.random() < 0.7:
        extra["loads"] = rng.uniform(0, 0.1, arms) * (rng.random(arms) < 0.8)
    if rng.random() < 0.5:
        extra["sizes"] = rng.integers(1, 6, arms) * rng.choice([0.1, 1.0, 7.0])
        capacity = float(rng.uniform(0, 1.1) * extra["sizes"].sum())
    else:
        capacity = int(rng.integers(0, arms + 2))
    sizes = extra.get("sizes", np.ones(arms))
    pins = [i for i in range(arms) if rng.random() < 0.2]
    if sizes[pins].sum() <= capacity:
        extra["pinned"] = pins
    return utilities, faults, capacity, extra


seeds = st.integers(0, 10**6).map(instance)


def worth(utilities, faults, chosen, extra):
    return objective(utilities, faults, chosen, loads=extra.get("loads"), previous=extra["previous"])


@given(seeds)
@settings(max_examples=200, deadline=None)
def test_objective_is_its_definition(problem):
    utilities, faults, _, extra = problem
    chosen = [i for i in range(len(faults)) if i % 2 == 0]
    expected = value(utilities, faults, chosen, extra.get("loads"), extra["previous"]) / len(utilities)
    assert worth(utilities, faults, chosen, extra) == pytest.approx(expected, abs=1e-12)
    alone = [value([row], faults, chosen) for row in utilities]
    assert gains(utilities, faults, chosen) == pytest.approx(alone, abs=1e-12)
    assert objective(utilities, faults, []) == gains(utilities, faults, []).sum() == 0.0
    assert 0.0 <= objective(utilities, faults, range(len(faults))) <= faults.max() + 1e-12


@given(seeds)
@settings(max_examples=200, deadline=None)
def test_exact_finds_the_best_of_all_sets(problem):
    utilities, faults, capacity, extra = problem
    chosen = best_set(utilities, faults, capacity, method="exact", **extra)
    assert worth(utilities, faults, chosen, extra) == pytest.approx(
        best_value(utilities, faults, capacity, **extra), abs=1e-9
    )


@given(seeds, st.sampled_from(METHODS))
@settings(max_examples=300, deadline=None)
def test_sets_fit_keep_pins_and_never_load_at_a_loss(problem, method):
    utilities, faults, capacity, extra = problem
    chosen = best_set(utilities, faults, capacity, method=method, **extra)
    sizes = extra.get("sizes", np.ones(len(faults)))
    pinned = set(extra.get("pinned", ()))
    assert list(chosen) == sorted(set(chosen))
    assert sizes[list(chosen)].sum() <= capacity * (1 + 1e-9)
    assert pinned <= set(chosen)
    whole = worth(utilities, faults, chosen, extra)
    for i in set(chosen) - pinned - set(extra["previous"]):
        assert whole - worth(utilities, faults, [j for j in chosen if j != i], extra) > 0.0
    room = capacity - sizes[list(chosen)].sum()
    left = set(range(len(faults))) - set(chosen)
    for i in left & set(extra["previous"]):
        assert sizes[i] > room - 1e-9, "an old resident had room to stay"
    for j in left:
        if sizes[j] <= room:
            assert worth(utilities, faults, [*chosen, j], extra) <= whole + 1e-9, "an arm that pays had room"


@pytest.mark.parametrize("family", [isotropic, low_rank])
def test_swap_leaves_no_exchange_that_wins(family):
    rng = np.random.default_rng(12)
    for trial in range(25):
        utilities, faults = family(rng, 20, 60)
        sizes = np.ones(20) if trial % 2 else rng.uniform(0.5, 1.5, 20)
        extra = {
            "previous": rng.permutation(20)[:6].tolist(),
            "loads": rng.uniform(0, 0.02, 20),
            "sizes": sizes,
        }
        chosen = set(best_set(utilities, faults, 6.0, method="swap", pinned=[3], **extra))
        whole = worth(utilities, faults, sorted(chosen), extra)
        for a in chosen - {3}:
            for j in set(range(20)) - chosen:
                other = sorted(chosen - {a} | {j})
                if sizes[other].sum() <= 6.0:
                    assert worth(utilities, faults, other, extra) <= whole + 1e-8


@pytest.mark.parametrize("swaps", [False, True])
def test_moves_are_those_of_the_slow_twin(swaps):
    for seed in range(150):
        utilities, faults, capacity, extra = instance(seed)
        rng = np.random.default_rng(seed)
        utilities = utilities + 1e-6 * rng.random(utilities.shape)  # several best swaps may tie, others not
        chosen = best_set(utilities, faults, capacity, method="swap" if swaps else "greedy", **extra)
        assert chosen == climb(utilities.tolist(), faults.tolist(), capacity, swaps=swaps, **extra), seed


@pytest.mark.parametrize("family", [clustered, isotropic, low_rank])
def test_greedy_and_swap_are_near_the_optimum(family):
    # 1,000 instances, N = 12, K = 4, n = 200. Measured: greedy min 0.938, swap min 0.964 and mean 0.9994.
    rng = np.random.default_rng(7)
    greedy, swap = [], []
    for _ in range(20 if INTERPRETED else 1000):
        utilities, faults = family(rng)
        best = objective(utilities, faults, best_set(utilities, faults, 4, method="exact"))
        greedy.append(objective(utilities, faults, best_set(utilities, faults, 4, method="greedy")) / best)
        swap.append(objective(utilities, faults, best_set(utilities, faults, 4, method="swap")) / best)
    assert min(greedy) >= 1 - 1 / np.e
    assert np.mean(swap) >= 0.998
    assert min(swap) >= 0.93
    assert max(greedy + swap) <= 1 + 1e-9
    assert np.mean(swap) >= np.mean(greedy)


def test_unequal_sizes_start_from_the_best_single_arm_too():
    # greedy per size takes the small arm, which then blocks the large one: 0.02 instead of 1
    utilities = np.array([[0.02, 0.0], [0.0, 1.0]])
    faults, sizes = [1.0, 1.0], [0.01, 1.0]
    for method in METHODS:
        chosen = best_set(utilities - 1.0, faults, 1.0, sizes=sizes, method=method)
        assert chosen == (1,), method
        tenths = best_set(np.eye(3), np.ones(3), 0.3, sizes=[0.1, 0.2, 0.5], method=method)
        assert tenths == (0, 1), "0.1 + 0.2 > 0.3 by rounding only"


def test_larger_budgets_are_never_worse_when_enumerated():
    rng = np.random.default_rng(3)
    for _ in range(30):
        utilities, faults = isotropic(rng, 7, 20)
        values = [objective(utilities, faults, best_set(utilities, faults, k)) for k in range(9)]
        assert values[0] == 0.0
        assert (np.diff(values) >= -1e-12).all()
        assert values[7] == values[8] == pytest.approx(objective(utilities, faults, range(7)), abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_ties_go_to_old_residents_then_to_the_lowest_index(method):
    column = np.random.default_rng(1).random((30, 1))
    twins = np.repeat(column, 5, axis=1)
    faults = np.full(5, 0.2)
    assert best_set(twins, faults, 1, method=method) == (0,)
    assert best_set(twins, faults, 3, method=method) == (0,), "a copy gains nothing"
    assert best_set(twins, faults, 1, previous=[3], method=method) == (3,)
    assert best_set(twins, faults, 2, previous=[4, 2, 3], method=method) == (2, 3)
    assert best_set(twins, np.zeros(5), 3, previous=[4, 1], method=method) == (1, 4)
    assert best_set(twins, np.zeros(5), 3, pinned=[2], method=method) == (2,)


def test_order_of_arms_and_layout_do_not_matter():
    rng = np.random.default_rng(5)
    for count, method in ((9, "exact"), (40, "swap")):
        utilities, faults = isotropic(rng, count, 300)
        chosen = best_set(utilities, faults, 5, method=method)
        order = rng.permutation(count)
        moved = best_set(utilities[:, order], faults[order], 5, method=method)
        assert sorted(order[list(moved)]) == list(chosen)
        assert best_set(np.asfortranarray(utilities), list(faults), 5, method=method) == chosen
        fixed = utilities.copy()
        fixed.flags.writeable = False
        assert best_set(fixed, faults, 5, method=method) == chosen


def test_shift_and_scale_change_nothing():
    rng = np.random.default_rng(6)
    utilities, faults = isotropic(rng, 30, 100)
    chosen = best_set(utilities, faults, 6)
    for scale, shift in ((1e-9, 0.0), (1e9, 0.0), (1.0, 100.0)):
        assert best_set(scale * utilities + shift, scale * faults, 6) == chosen


def test_auto_enumerates_up_to_the_limit():
    rng = np.random.default_rng(8)
    found = 0
    for _ in range(40):
        utilities, faults = isotropic(rng, 12, 40)
        swap, exact = (best_set(utilities, faults, 4, method=m) for m in ("swap", "exact"))
        assert best_set(utilities, faults, 4, exact_limit=495) == exact
        assert best_set(utilities, faults, 4, exact_limit=494) == swap
        found += swap != exact
    assert found, "no instance tells the two apart"
    with pytest.raises(ValueError, match="exact_limit=494"):
        best_set(utilities, faults, 4, exact_limit=494, method="exact")
    # with load prices smaller sets count as well: 1 + 12 + 66 + 220 + 495
    loads = np.full(12, 0.01)
    assert best_set(utilities, faults, 4, loads=loads, method="exact", exact_limit=794)
    with pytest.raises(ValueError, match="exact_limit=793"):
        best_set(utilities, faults, 4, loads=loads, method="exact", exact_limit=793)


def test_coverage_and_gap_are_their_definitions():
    rng = np.random.default_rng(9)
    for _ in range(20):
        utilities, faults = low_rank(rng, 6, 15)
        every = value(utilities, faults, range(6))
        expected = [best_value(utilities, faults, k) * 15 / every for k in (0, 2, 6, 9)]
        assert coverage(utilities, faults, [0, 2, 6, 9]) == pytest.approx(expected, abs=1e-9)
        for k in (1, 3, 6, 8):
            values = sorted(value(utilities, faults, c) / 15 for c in feasible_sets(6, k))
            assert gap(utilities, faults, k) == pytest.approx(values[-1] - values[-2], abs=1e-12)
    assert gap([[0.3], [0.5]], [0.1], 1) == pytest.approx(0.1)
    assert (coverage(utilities, np.zeros(6), [0, 3]) == 1.0).all()
    large = isotropic(rng, 80, 100)
    assert (np.diff(coverage(*large, [1, 5, 20, 80])) >= 0).all()
    assert coverage(*large, [80, 1])[0] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at most 20000 sets to enumerate, got 1581580"):
        gap(*large, 4)


@pytest.mark.parametrize("seed", range(8))
def test_what_members_are_worth_is_what_leaving_them_out_loses(seed):
    rng = np.random.default_rng(seed)
    utilities, faults = (clustered, isotropic)[seed % 2](rng, 9, 40)
    members = sorted(rng.choice(9, rng.integers(1, 6), replace=False).tolist())
    look, mask = SetSearch(utilities, faults), np.isin(np.arange(9), members)
    whole = value(utilities, faults, members) / 40
    slow = [whole - value(utilities, faults, [i for i in members if i != m]) / 40 for m in members]
    assert look.losses(members) == pytest.approx(slow, abs=1e-12)
    floor = (utilities - faults).max(axis=1)
    assert (look.worth(mask) - floor).mean() == pytest.approx(whole, abs=1e-12)
    slots = np.array(members, np.int64)
    loss, rows = np.empty(len(members)), np.array([floor, floor, floor])
    facility.losses.py_func(utilities, rows, slots, len(members), loss)
    assert loss / 40 == pytest.approx(slow, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_the_search_of_a_look_is_that_of_best_set(seed):
    rng = np.random.default_rng(seed)
    utilities, faults = isotropic(rng, 9, 60)
    sizes = np.ones(9) if seed % 2 else rng.uniform(0.5, 2.0, 9)
    loads, capacity = rng.uniform(0.0, 0.1, 9), 4.0
    before, pinned = rng.random(9) < 0.3, np.arange(9) == seed % 3
    chosen = SetSearch(utilities, faults).best(capacity, sizes, pinned, previous=before, loads=loads)
    slow = best_set(
        utilities, faults, capacity, previous=np.flatnonzero(before).tolist(), loads=loads, sizes=sizes,
        pinned=[seed % 3], method="swap",
    )  # fmt: skip
    assert tuple(np.flatnonzero(chosen).tolist()) == slow


def test_kernels_compiled_and_interpreted_agree():
    if INTERPRETED:
        pytest.skip("NUMBA_DISABLE_JIT is set: nothing is compiled")
    rng = np.random.default_rng(10)
    kernels = [
        (m, n) for m in (facility, facility_exact) for n, k in vars(m).items() if hasattr(k, "py_func")
    ]
    assert len(kernels) == 16
    for trial in range(4):
        utilities, faults = isotropic(rng, 7, 12)
        sizes = np.ones(7) if trial % 2 else rng.uniform(0.5, 2.0, 7)
        standing = rng.permutation(np.array([2, 1, 1, 0, 0, 0, 0], np.int8))
        price = np.where(standing == 1, 0.0, rng.uniform(0, 0.3, 7))
        outcomes = []
        for interpreted in (False, True):
            with pytest.MonkeyPatch.context() as patch:
                if interpreted:
                    for module, name in kernels:
                        patch.setattr(module, name, getattr(module, name).py_func)
                work = facility.workspace(12, 7, 7)
                facility.floor_values(utilities, faults, work[1][0])
                facility.plan(utilities, price, sizes, standing, 3.5, 1e-9, True, *work)
                total = facility.net_value(utilities, price, work[0], work[1], work[3])
                inside = standing == 2
                stack = np.empty((4, 12))
                stack[0] = np.maximum(work[1][0], utilities[:, inside].max(axis=1))
                order = np.flatnonzero(~inside)
                scratch = np.empty((3, 4)), np.empty((2, 4), np.int64), np.empty((2, 4, order.size))
                best = facility_exact.exact(
                    np.ascontiguousarray(utilities.T), price, sizes, order, 3.5, 0, 1e-9, -np.inf, True,
                    inside, stack, *scratch,
                )  # fmt: skip
                outcomes.append((work[0].tolist(), total, inside.tolist(), *best))
        assert outcomes[0][0] == outcomes[1][0]
        assert outcomes[0][2] == outcomes[1][2]
        assert outcomes[0][1] == pytest.approx(outcomes[1][1], abs=1e-12)
        assert outcomes[0][3:] == pytest.approx(outcomes[1][3:], abs=1e-12)


U, C = [[0.1, 0.2], [0.3, 0.1]], [0.1, 0.1]


@pytest.mark.parametrize(
    ("error", "message", "call"),
    [
        (ValueError, "utilities must be finite, got nan", lambda: best_set([[np.nan, 0.2]], C, 1)),
        (ValueError, "utilities must have at least one context", lambda: best_set(np.empty((0, 2)), C, 1)),
        (ValueError, r"faults must have shape \(2,\)", lambda: best_set(U, [0.1], 1)),
        (ValueError, "faults must be >= 0, got -0.1", lambda: best_set(U, [0.1, -0.1], 1)),
        (ValueError, "loads must be >= 0", lambda: best_set(U, C, 1, loads=[-1, 0])),
        (ValueError, "sizes must be > 0", lambda: best_set(U, C, 1, sizes=[1, 0])),
        (ValueError, "capacity must be >= 0, got -1", lambda: best_set(U, C, -1)),
        (TypeError, "capacity must be an integer", lambda: best_set(U, C, 1.5)),
        (ValueError, r"capacity must be in \[0, inf\]", lambda: best_set(U, C, -1.5, sizes=[1, 1])),
        (ValueError, r"pinned arms must fit .* 1, got \[0, 1\]", lambda: best_set(U, C, 1, pinned=(1, 0))),
        (ValueError, "pinned arms must fit", lambda: best_set(U, C, 2.0, sizes=[3, 1], pinned=[0])),
        (ValueError, "method must be .* got 'best'", lambda: best_set(U, C, 1, method="best")),
        (ValueError, r"previous must be in \[0, 1\], got 2", lambda: best_set(U, C, 1, previous=[2])),
        (ValueError, "previous must be distinct", lambda: best_set(U, C, 1, previous=[1, 1])),
        (TypeError, "pinned must hold arm indices", lambda: best_set(U, C, 1, pinned="0")),
        (TypeError, "chosen must be an integer", lambda: objective(U, C, [0.0])),
        (ValueError, "capacity must be >= 1", lambda: gap(U, C, 0)),
    ],
)
def test_bad_input_is_refused_with_its_name(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_arguments_are_not_changed():
    rng = np.random.default_rng(11)
    utilities, faults = isotropic(rng, 6, 10)
    loads, sizes = rng.uniform(0, 0.1, 6), rng.uniform(1, 2, 6)
    copies = [a.copy() for a in (utilities, faults, loads, sizes)]
    for method in METHODS:
        best_set(utilities, faults, 4.0, loads=loads, sizes=sizes, previous=[1], pinned=[2], method=method)
    assert all((a == b).all() for a, b in zip((utilities, faults, loads, sizes), copies, strict=True))
