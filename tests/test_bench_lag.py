"""The service whose event loop the lag benchmark watches: every request is decided and learned, the ticker ticks."""

import importlib.util
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(f"bench_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lag, pauses = load("lag"), load("pauses")


@pytest.mark.parametrize("where", ["coroutines", "pool"])
def test_a_loop_serves_every_request_and_goes_on_ticking(where):
    service = lag.Service(5, 8)
    lags = lag.measured(service, where, requests=60, rate=400.0)
    stats = service.router.stats()
    assert lags.served == stats["decisions"] == stats["learned"] == 60 and stats["pending"] == 0
    assert len(lags.late) == len(lags.busy) > 5
    assert (lags.busy >= 0.0).all()


def test_every_call_is_timed_and_drawn(tmp_path):
    took = pauses.run(3, 8, 40)
    assert [len(values) for values in took] == [40, 40, 4]
    pauses.draw({"3 x 8": {call: [0.1, 0.1, 0.2, 0.3] for call in pauses.CALLS}}, tmp_path / "tails.png")
    assert (tmp_path / "tails.png").stat().st_size > 1000
