"""The page of the study: its tables are those of the regrets kept beside them, its pictures are there."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "controllers.json"
PAGE = ROOT / "docs" / "studies" / "polar.md"


@pytest.fixture(scope="module")
def study_page():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import study_page
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return study_page


@pytest.fixture(scope="module")
def result():
    return json.loads(RESULT.read_text(encoding="utf-8"))


def runs(regret):
    return {
        family: {name: {i: {"regret": v} for i, v in enumerate(own)} for name, own in controllers.items()}
        for family, controllers in regret.items()
    }


def test_tables_follow_from_the_regrets(study_page, result):
    by = runs(result["regret"])
    for name, table in (
        ("study-families", study_page.families),
        ("study-wins", study_page.wins),
        ("study-unhelpful", study_page.unhelpful),
        ("study-unlucky", study_page.unlucky),
    ):
        assert json.loads(json.dumps(table(by))) == result["tables"][name]


def test_every_workload_has_the_same_seeds_and_contestants(result):
    names = {tuple(sorted(own)) for own in result["regret"].values()}
    lengths = {len(v) for own in result["regret"].values() for v in own.values()}
    assert len(names) == 1
    assert lengths == {len(result["seeds"])}
    assert min(result["seeds"]) >= 100  # constants were chosen on seeds below 20
    assert len(result["regret"]) >= 30


def test_a_margin_of_five_per_cent(study_page):
    # Regret of 110 against 100 is 5 above 105; a gain of 110 against one of 100 is 15 more than 95.
    flat = np.full(3, 100.0)
    assert study_page.study.excess(flat + 10.0, flat)[0] == pytest.approx(5.0)
    assert study_page.study.excess(-flat - 10.0, -flat)[0] == pytest.approx(-15.0)
    assert study_page.study.excess(-flat + 6.0, -flat)[0] == pytest.approx(1.0)


def test_the_page_shows_every_table_and_picture(result):
    text = PAGE.read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- bench:(study-[\w-]+) -->", text)) == set(result["tables"])
    pictures = set(re.findall(r"\]\(([\w-]+\.png)\)", text))
    assert pictures == {
        path.name for path in PAGE.parent.glob("*.png") if not path.name.startswith("real-lora-")
    }
    assert all((PAGE.parent / name).stat().st_size < 150_000 for name in pictures)
