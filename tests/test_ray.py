"""The sweep and a log in parts on a local Ray cluster of two processes; in its own file, for a cluster starts slowly."""

import warnings
from functools import partial

import numpy as np
import pytest

from banditroute import Trace
from banditroute.evaluation import Batches, Draws, compare_batches, sweep
from banditroute.simulation import MatrixEnvironment


def logged(seed):
    rng = np.random.default_rng(seed)
    arms = rng.integers(2, size=200)
    contexts = rng.standard_normal((200, 2))
    return Trace(
        names=["a", "b"],
        arms=arms,
        rewards=arms + contexts[:, 0],
        propensities=np.full(200, 0.5),
        contexts=contexts,
    )


def test_ray_computes_the_table_of_one_process():
    ray = pytest.importorskip("ray", reason="the Ray backend needs ray: pip install 'banditroute[ray]'")
    rng = np.random.default_rng(0)
    draws = Draws(
        MatrixEnvironment(rng.standard_normal((300, 4)), rng.random((300, 4)), order="replace"), 200
    )
    parts = Batches(tuple(partial(logged, seed) for seed in range(4)))
    settings = [{"alpha": 0.1}, {"alpha": 1.0, "ridge": 3.0}, {"discount": 0.99}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of Ray itself
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        try:
            table = sweep(settings, draws, range(4), jobs=2, backend="ray")
            spread = compare_batches(parts, {"b": "b"}, jobs=2, backend="ray")["b"]
        finally:
            ray.shutdown()
    assert (table == sweep(settings, draws, range(4))).all()
    assert len(np.unique(table)) > 8  # settings and seeds do differ
    assert spread == compare_batches(parts, {"b": "b"})["b"]
