"""Short seeded versions of the bars of doubt; `benchmarks/doubt.py` prints the long ones."""

import importlib.util
from functools import partial
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "doubt.py"


@pytest.fixture(scope="module")
def doubt():
    spec = importlib.util.spec_from_file_location("doubt", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("world", ["heavy", "drifting", "adaptive"])
def test_intervals_hold_in_hard_worlds(doubt, world):
    """60 logs of 1,000 rows: where 94 % hold, fewer than 85 % (51) are seen with probability .3 %."""
    value = {"heavy": 0.6885, "drifting": 0.6755, "adaptive": 0.6885}[world]  # of doubt.truth, to .0005
    found, answered = doubt.coverage(world, 60, value, rows=1000)
    assert answered >= 50
    assert min(found.values()) >= 0.85, found


def test_the_error_of_a_gain_covers(doubt):
    """30 pairs of halves: where 95 % hold, fewer than 25 are seen with probability .3 %."""
    held, wide, _ = doubt.errors(30, data=partial(doubt.drawn, rows=300, requests=400), seeds=20)
    assert held >= 25 / 30
    assert wide < 1.6  # and not by saying too much
