"""The study over real adapters, as far as it goes without torch: loads are counted, texts are cleaned, data may lack."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import study_lora

TEXTS = Path(__file__).parents[1] / "examples" / "real_lora" / "texts.py"


def data(rng):
    kinds = np.repeat(np.arange(5), 20)
    rewards = 0.2 + 0.6 * (kinds[:, None] == np.arange(6))
    rewards[:, 5] = 0.5
    return {
        "contexts": np.eye(5)[kinds], "rewards": rewards, "domain": np.array([f"k{k}" for k in kinds]),
        "arms": np.array([*(f"k{k}" for k in range(5)), "base"]),
    }  # fmt: skip


def test_loads_are_misses_and_what_plans_load(monkeypatch):
    monkeypatch.setattr(study_lora, "SLOTS", 2)
    rows = study_lora.replayed(data(np.random.default_rng(0)), 600, range(2), load_ms=30.0, worth=0.001)
    by = {(row["controller"], row["seed"]): row for row in rows}
    assert len(by) == 2 * len(study_lora.CONTROLLERS)
    for (name, _), row in by.items():
        misses = round(600 * (1.0 - row["hits"]))
        assert row["net"] == pytest.approx(row["reward"] - 0.03 * row["loads"] / 600)
        assert row["loads"] == misses if name in ("LRU", "LFU", "no cache") else row["loads"] >= misses
        assert row["reward"] > 0.49
    assert by["no cache", 0]["hits"] <= min(
        by[name, 0]["hits"] for name in ("LRU", "Polar", "best fixed set")
    )
    table = study_lora.replay_table(rows, 600, "note")
    assert [line[0] for line in table["rows"]] == [*study_lora.CONTROLLERS] and table["rows"][3][-1] == ""


def test_popularity_changes_half_way():
    own = data(np.random.default_rng(0))
    rows = study_lora.rows_of(own, 2000, 1)
    kinds = np.array([np.bincount(part // 20, minlength=5) for part in (rows[:1000], rows[1000:])])
    assert kinds.max(axis=1).min() > 350 and np.abs(kinds[0] - kinds[1]).max() > 100
    assert (study_lora.rows_of(own, 2000, 1) == rows).all()


def test_the_prepared_stream_is_left_out_with_a_reason_where_it_is_not(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("BANDITROUTE_DATA", str(tmp_path))
    assert study_lora.prepared(100, range(1), 30.0) is None
    assert "no reallora16.npz" in capsys.readouterr().out


def test_manual_pages_lose_their_markup_and_what_nobody_translated():
    spec = importlib.util.spec_from_file_location("texts_of_the_study", TEXTS)
    texts = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(texts)
    page = '.\\" a comment\n.TH LS 1\n.B ls\n\\fBlister\\fR des fichiers\nThis is not translated and long.\n.PP\n'
    assert texts.plain(page, translated=True).split("\n") == [" LS 1"[1:], "ls", "lister des fichiers"]
    assert "not translated" in texts.plain(page, translated=False)
