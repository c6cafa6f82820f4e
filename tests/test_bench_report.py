"""The report that fills documents from results, and the yardstick of every speed figure."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def load(path):
    spec = importlib.util.spec_from_file_location(f"bench_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


report = load(BENCHMARKS / "report.py")
reference = load(BENCHMARKS / "peers" / "numpy_reference.py")
TABLE = {"columns": ["library", "us"], "rows": [["a|b", 1234.5], ["c", 0.27491], ["d", None]], "note": "CPU."}


def test_a_table_is_rendered_with_three_digits_and_escaped_bars():
    assert report.markdown(TABLE).splitlines() == [
        "| library | us |", "| :-- | --: |", "| a\\|b | 1,234 |", "| c | 0.275 |", "| d |  |", "", "CPU.",
    ]  # fmt: skip


def test_a_row_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="2 cells"):
        report.markdown({"columns": ["a", "b"], "rows": [[1]]})


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("<!-- bench:other -->\n<!-- /bench:other -->", "no result holds the table 'other'"),
        ("<!-- bench:one -->\n", "without their other half"),
        ("<!-- bench:one -->\n<!-- /bench:two -->", "without their other half"),
    ],
)
def test_bad_markers_are_refused(document, reason):
    with pytest.raises(ValueError, match=reason):
        report.filled(document, {"one": TABLE})


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A document with one marked place and one result file."""
    document = tmp_path / "README.md"
    document.write_text("before\n<!-- bench:one -->\n<!-- /bench:one -->\nafter\n", encoding="utf-8")
    (tmp_path / "results.json").write_text(json.dumps({"tables": {"one": TABLE}}), encoding="utf-8")
    monkeypatch.setattr(report, "DOCUMENTS", (document, tmp_path / "absent.md"))
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    return document


def test_check_fails_until_the_document_is_written_and_after_a_figure_was_edited(tree):
    empty = tree.read_text(encoding="utf-8")
    assert report.main(["--check"]) == 1
    assert tree.read_text(encoding="utf-8") == empty
    assert report.main([]) == 0
    assert report.main(["--check"]) == 0
    written = tree.read_text(encoding="utf-8")
    assert written.startswith("before\n")
    assert written.endswith("after\n")
    tree.write_text(written.replace("0.275", "0.027"), encoding="utf-8")
    assert report.main(["--check"]) == 1


def test_two_results_may_not_hold_a_table_of_the_same_name(tree):
    (tree.parent / "more.json").write_text(json.dumps({"tables": {"one": TABLE}}), encoding="utf-8")
    with pytest.raises(ValueError, match="one"):
        report.main([])


def test_the_tail_of_single_calls_says_what_the_scheduler_does_to_it(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    tables = load(BENCHMARKS / "peers" / "tables.py")
    made = tables._reference({})
    assert "p99 us" in made["columns"]
    assert "time slice" in made["note"] and "by the clock" in made["note"]


def test_the_documents_show_the_measured_tables():
    assert report.main(["--check"]) == 0


def test_the_yardstick_is_ridge_regression_with_an_upper_confidence_bound():
    rng = np.random.default_rng(5)
    arms, dim, alpha = 4, 6, 0.7
    peer = reference.Peer(arms, dim, alpha, seed=0)
    precision, moment = np.tile(np.eye(dim), (arms, 1, 1)), np.zeros((arms, dim))
    for x in rng.standard_normal((300, dim)):
        arm, reward = peer.select(x), float(rng.standard_normal())
        scores = np.empty(arms)
        for a in range(arms):
            inverse = np.linalg.inv(precision[a])
            scores[a] = x @ inverse @ moment[a] + alpha * np.sqrt(x @ inverse @ x)
        np.testing.assert_allclose(peer.scores(x), scores, atol=1e-10)
        assert arm == np.argmax(scores)
        peer.update(arm, x, reward)
        precision[arm] += np.outer(x, x)
        moment[arm] += reward * x
