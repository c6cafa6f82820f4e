"""The sweep on a local Ray cluster of two processes; in its own file, for a cluster takes twenty seconds to start."""

import warnings

import numpy as np
import pytest

from banditroute.evaluation import Draws, sweep
from banditroute.simulation import MatrixEnvironment


def test_ray_computes_the_table_of_one_process():
    ray = pytest.importorskip("ray", reason="the Ray backend needs ray: pip install 'banditroute[ray]'")
    rng = np.random.default_rng(0)
    draws = Draws(
        MatrixEnvironment(rng.standard_normal((300, 4)), rng.random((300, 4)), order="replace"), 200
    )
    settings = [{"alpha": 0.1}, {"alpha": 1.0, "ridge": 3.0}, {"discount": 0.99}]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of Ray itself
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
        try:
            table = sweep(settings, draws, range(4), jobs=2, backend="ray")
        finally:
            ray.shutdown()
    assert (table == sweep(settings, draws, range(4))).all()
    assert len(np.unique(table)) > 8  # settings and seeds do differ
