"""The regret benchmark: what it calls regret, continuing a stopped run, and marking what is surely better."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "regret.py"
spec = importlib.util.spec_from_file_location("bench_regret", PATH)
regret = importlib.util.module_from_spec(spec)
spec.loader.exec_module(regret)


@pytest.mark.parametrize("workload", ["linear", "cold arm", "yes / no"])
def test_uniform_play_loses_all_and_the_best_arm_nothing(workload):
    stream = regret.WORKLOADS[workload](400, 0)
    offered = np.ones_like(stream.means, dtype=bool) if stream.available is None else stream.available
    means = np.where(offered, stream.means, -np.inf)
    assert regret.lost(stream, means.argmax(axis=1)) == 0.0
    shares = [regret.lost(stream, np.full(400, a)) for a in range(len(stream.arms))]
    if stream.available is None:
        assert np.mean(shares) == pytest.approx(100.0)
    assert regret.cell(workload, regret.FIXED, 0, 400)["lost"] <= max(shares)


def test_a_run_goes_on_where_it_stopped_and_the_table_marks_what_is_better(tmp_path, monkeypatch, capsys):
    path, saved = tmp_path / "cells.jsonl", tmp_path / "table.json"

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["regret.py", *map(str, arguments)])
        regret.main()
        return capsys.readouterr().out

    options = ["--length", 60, "--out", path, "--workloads", "linear", "yes / no", "--policies", "LinUCB"]
    assert "0 cells known, 4 to run" in run("run", "--seeds", 2, *options)
    before = path.read_text()
    assert "4 cells known, 8 to run" in run("run", "--seeds", 3, *options, "BetaThompson")
    assert path.read_text().startswith(before)
    table = run("table", path, "--save", saved)
    rows = {row[0]: row for row in json.loads(saved.read_text())["tables"]["regret"]["rows"]}
    assert rows["BetaThompson"][1] == ""  # it does not take rewards outside [0, 1]
    assert "±" in rows["BetaThompson"][2] and rows["BetaThompson"][2] in table
    better = np.array([3.0, 4.0, 5.0]) + [0.001, -0.001, 0.0]
    assert regret.shown(better, better + [9.0, 9.1, 9.2]).startswith("**")
    assert not regret.shown(better + [9.0, 9.1, 9.2], better).startswith("**")
    assert not regret.shown(better, better[::-1].copy()).startswith("**")
