"""What re-planning residency costs: ``pytest benchmarks/test_bench_objective.py --benchmark-enable``.

Targets: `best_set` under 10 ms at N = 500, K = 64, n = 2,048; the plan a simulation makes 2,000 times per
million requests (N = 15, K = 4, n = 512) under 0.2 ms, so that plans take less than a seventh of 3 s.
"""

import numpy as np
import pytest

from banditroute._core.kernels import facility
from banditroute.residency import best_set, objective
from naive_facility import clustered, isotropic

pytestmark = pytest.mark.benchmark(group="residency objective")

FAMILIES = ["clustered", "isotropic"]


def problem(family, arms, n):
    rng = np.random.default_rng(0)
    return (
        clustered(rng, arms, n, 32, arms * 4 // 5) if family == "clustered" else isotropic(rng, arms, n, 10)
    )


def numpy_greedy(utilities, faults, capacity):
    """The five-line greedy, the reference."""
    best, chosen = (utilities - faults).max(axis=1), []
    for _ in range(capacity):
        gains = np.maximum(utilities - best[:, None], 0.0).mean(axis=0)
        chosen.append(int(gains.argmax()))
        best = np.maximum(best, utilities[:, chosen[-1]])
    return chosen


@pytest.mark.parametrize("method", ["greedy", "auto"])
@pytest.mark.parametrize("size", [(15, 8), (100, 64), (500, 64)], ids=lambda s: f"N{s[0]}-K{s[1]}")
@pytest.mark.parametrize("family", FAMILIES)
def test_best_set(benchmark, family, size, method):
    utilities, faults = problem(family, size[0], 2048)
    chosen = best_set(utilities, faults, size[1], method=method)
    benchmark.extra_info["objective"] = objective(utilities, faults, chosen)
    benchmark(best_set, utilities, faults, size[1], method=method)


@pytest.mark.parametrize("size", [(15, 8), (500, 64)], ids=lambda s: f"N{s[0]}-K{s[1]}")
def test_numpy_greedy(benchmark, size):
    benchmark(numpy_greedy, *problem("isotropic", size[0], 2048), size[1])


def test_plan_inside_a_simulation(benchmark):
    utilities, faults = problem("clustered", 15, 512)
    work = facility.workspace(512, 15, 4)
    price, sizes, standing = np.full(15, 0.3), np.ones(15), np.zeros(15, np.int8)
    standing[:4] = 1
    price[:4] = 0.0

    def plan():
        facility.floor_values(utilities, faults, work[1][0])
        facility.plan(utilities, price, sizes, standing, 4.0, 512e-10, True, *work)

    benchmark(plan)
