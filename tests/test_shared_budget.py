"""Replicas keep to one budget: real processes on one store; the long form is `benchmarks/shared_budget.py`."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from shared_budget import measured


def test_four_workers_keep_to_one_budget():
    """In so few requests what each has at hand at the start counts: 30 requests' worth, 7 % of all."""
    found = measured(1600, 4, sync=0.1, budget=3.0, seed=0)
    assert found["answered"] == 1600 and found["learned_everywhere"] == [1600] * 4 and not found["pending"]
    assert 0.9 < found["all"] < 1.0 + 4 * 30 / 1600 + 0.02
    assert found["all"] == pytest.approx(found["alone"], abs=0.08)
