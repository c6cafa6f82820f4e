"""A rolling deployment of real processes, in short; the long form is `benchmarks/rolling.py`."""

import rolling


def test_workers_restart_with_other_settings_and_adapters_under_load(tmp_path):
    homes = [str(tmp_path / f"worker{i}") for i in range(4)]
    found = rolling.deploy(str(tmp_path / "store"), homes, seconds=4.0)
    assert (
        found["wrong"] == [] and found["taken"] > 50
    )  # every worker counts every answer that was taken, once
    assert found["refused"] == found["unknown"] == found["pending"] == 0
    assert found["starts"] == 6  # nobody crashed on the way
    assert found["served"]["law"] and found["served"]["medicine"]
    old, new = ["base", "code", "law", "math", "medicine", "poems"], sorted(rolling.NEW)
    assert sorted(found["arms"]) == sorted([old, old, new, new])
