"""The study: resumable, paired, and its tables say what was run."""

import json
from argparse import ArgumentParser

import pytest
import study_polar


def test_a_small_study_resumes_and_writes_tables(tmp_path, capsys):
    words = ["--families", "homes", "--controllers", "oracle set,POLAR,LRU", "--seeds", "2"]
    words += ["--requests", "1024", "--out", str(tmp_path)]
    assert study_polar.main(words) == 0
    first = capsys.readouterr().out
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 6
    (tmp_path / "runs.jsonl").write_text(
        "\n".join([*lines[:-1], lines[-1][:20]]) + "\n"
    )  # as a kill leaves it
    assert study_polar.main(words) == 0
    assert capsys.readouterr().out == first  # what was lost is run again and comes out the same
    again = [
        json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines() if line.endswith("}")
    ]
    assert len({(r["controller"], r["seed"]) for r in again}) == 6
    (table,) = json.loads((tmp_path / "tables.json").read_text()).values()
    assert [row[0] for row in table["rows"]] == ["oracle set", "POLAR", "LRU"]
    assert (tmp_path / "homes.png").stat().st_size > 10_000


def test_parts_add_up_and_seeds_are_paired():
    rows = study_polar.one_stream("homes", "3", 256, "auto", 1024, 1, ("LRU", "LRU"))
    assert rows[0] == rows[1]  # the same stream, the same policy noise
    assert rows[0]["regret"] == pytest.approx(
        sum(rows[0][part] for part in ("route", "residency", "switching"))
    )


def test_unknown_names_are_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="nowhere"):
        study_polar.main(["--families", "nowhere", "--out", str(tmp_path)])


def test_every_contestant_of_the_study_runs():
    rows = study_polar.one_stream("homes", None, 256, "auto", 512, 0, tuple(study_polar.CONTROLLERS))
    assert [r["controller"] for r in rows] == list(study_polar.CONTROLLERS)
    parser = ArgumentParser()
    study_polar.configure(parser)
    assert parser.parse_args([]).controllers == list(study_polar.CONTROLLERS)
