"""Our estimates are those of Open Bandit Pipeline and Vowpal Wabbit, where these are installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def agreement():
    path = ROOT / "benchmarks" / "agreement.py"
    spec = importlib.util.spec_from_file_location("agreement", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def python():
    """An interpreter that can import both: this one, or that of `benchmarks/agreement.py`."""
    code = "from importlib.util import find_spec as f; raise SystemExit(not (f('obp') and f('vowpalwabbit')))"
    for one in (sys.executable, str(ROOT / ".venv-peers" / "agreement" / "bin" / "python")):
        if Path(one).exists() and subprocess.run([one, "-c", code], check=False).returncode == 0:
            return one
    pytest.skip("obp and vowpalwabbit are not installed: python benchmarks/agreement.py installs them")


def test_the_same_formulas_give_the_same_numbers(agreement, python):
    """One fixed log of 4,000 rows: rounding for formulas; the rest within a standard error, 0.32 here."""
    rows = agreement.compared(python, "skewed")
    assert {what for _, what, _, _ in rows} >= {
        *agreement.SAME,
        "vw ips",
        "vw dr",
        "vw events",
        "dr interval",
    }
    for target, what, value, unit in rows:
        limit = (
            1e-12 if what in agreement.SAME else 1e-5 if what == "vw ips" else 1.0 if unit == "s.e." else 0.0
        )
        assert value <= limit, (target, what, value)


def test_a_wrong_estimate_would_be_seen(agreement):
    """The comparison itself: an estimate that is off by a hundredth shows."""
    trace, targets = agreement.log("uniform", rows=400)
    found, _ = agreement.ours(trace, targets)
    theirs = {"mixed": {e: found["mixed"][e].value for e in agreement.SAME}}
    theirs["mixed"]["dr interval"] = [found["mixed"]["dr"].low, found["mixed"]["dr"].high]
    assert max(row[2] for row in agreement.differences(found, theirs, 400)) == 0.0
    theirs["mixed"]["snips"] += 0.01
    assert max(row[2] for row in agreement.differences(found, theirs, 400)) == pytest.approx(0.01)
