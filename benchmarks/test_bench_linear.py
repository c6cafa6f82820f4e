"""Kernels of the linear policies, a row each: `pytest benchmarks/test_bench_linear.py --benchmark-enable`."""

import numpy as np
import pytest

from banditroute import DiagLinUCB, LinTS, LinUCB
from banditroute._core.kernels import derived, refresh

SHAPES = ((15, 32), (50, 64), (15, 128))


def learned(make, arms, dim):
    """A policy with 3,000 rewards behind it, and the contexts of the next requests."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(12, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    x = centres[rng.integers(12, size=3200)] + 0.15 * rng.normal(size=(3200, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    policy = make(arms, dim, alpha=0.3, ridge=1.0, rng=0)
    policy.update_batch(x[:3000], rng.integers(arms, size=3000), rng.normal(size=3000))
    return policy, [np.ascontiguousarray(row) for row in x[3000:]]


@pytest.mark.parametrize(("arms", "dim"), SHAPES)
@pytest.mark.parametrize("make", [LinUCB, LinTS, DiagLinUCB])
def test_select(benchmark, make, arms, dim):
    policy, rows = learned(make, arms, dim)
    policy._exact = False
    chosen = benchmark(lambda: [policy.select(x).arm for x in rows])
    assert max(chosen) < arms


@pytest.mark.parametrize(("arms", "dim"), SHAPES)
def test_select_with_prices(benchmark, arms, dim):
    policy, rows = learned(LinUCB, arms, dim)
    prices = np.linspace(0.0, 0.2, arms)
    benchmark(lambda: [policy.select(x, prices=prices) for x in rows])


@pytest.mark.parametrize(("arms", "dim"), SHAPES)
def test_select_batch(benchmark, arms, dim):
    policy, rows = learned(LinUCB, arms, dim)
    block = np.array(rows)
    arms_, _ = benchmark(policy.select_batch, block)
    assert len(arms_) == len(rows)


@pytest.mark.parametrize(("arms", "dim"), SHAPES)
def test_update(benchmark, arms, dim):
    policy, rows = learned(LinUCB, arms, dim)
    benchmark(lambda: [policy.update(1, x, 0.5) for x in rows])
    assert policy.counts[1] > 200


@pytest.mark.parametrize(("arms", "dim"), SHAPES)
@pytest.mark.parametrize("kernel", [derived.rebuild, refresh.refresh, derived.drain_all])
def test_maintenance(benchmark, kernel, arms, dim):
    policy, _ = learned(LinUCB, arms, dim)
    given = (policy.buffer, 0) if kernel is derived.rebuild else (policy.buffer,)
    benchmark(kernel, *given)
    assert np.isfinite(policy.theta).all()


@pytest.mark.parametrize(("arms", "dim"), SHAPES)
def test_scores_of_many(benchmark, arms, dim):
    policy, rows = learned(LinUCB, arms, dim)
    mean, _ = benchmark(policy.scores_batch, np.array(rows))
    assert mean.shape == (len(rows), arms)
