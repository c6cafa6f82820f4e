"""Ten files as other people's tools write them go to a report with one line of options, and its numbers are those of a hand.

pandas and pyarrow write theirs here; what Open Bandit Pipeline and Vowpal Wabbit wrote lies frozen in `tests/data`, with
the values that they computed of it (`python benchmarks/agreement.py --freeze` writes both anew).
"""

import json
from pathlib import Path

import numpy as np
import pytest

from banditroute import LinUCB, Trace
from banditroute.cli import main
from banditroute.evaluation import report
from banditroute.logs import Scores
from banditroute.simulation import MatrixEnvironment, simulate

pandas = pytest.importorskip("pandas", reason="frames: extra frame")
pytest.importorskip("pyarrow", reason="Parquet: extra parquet")

DATA = Path(__file__).parent / "data" / "peers-1"
ROWS, ARMS = 600, ["gpt-4o", "llama-70b", "mixtral"]


# By hand.


def ridge(gram, moment, penalty):
    return np.linalg.solve(gram + np.diag(penalty), moment)


def fitted(x, arms, rewards, count, folds=5):
    """Expected rewards of every arm, each row by ridge regressions of strength 1 on the rows of the other folds."""
    table = (
        np.c_[(x - x.mean(axis=0)) / x.std(axis=0), np.ones(len(x))] if x.shape[1] else np.ones((len(x), 1))
    )
    width, fold, out = table.shape[1], np.arange(len(x)) % folds, np.empty((len(x), count))
    for f in range(folds):
        rest = fold != f
        level_free = np.r_[np.ones(width - 1), 1e-9]
        shared = ridge(table[rest].T @ table[rest], table[rest].T @ rewards[rest], level_free)
        for a in range(count):
            own = rest & (arms == a)
            moment = table[own].T @ rewards[own] + shared
            out[fold == f, a] = table[fold == f] @ ridge(table[own].T @ table[own], moment, np.ones(width))
    return out


def by_hand(arms, rewards, propensities, x, count):
    """IPS, SNIPS, DM and DR of every arm alone."""
    each, found = np.arange(len(arms)), {}
    q = fitted(x, arms, rewards, count)
    for a in range(count):
        w = (arms == a) / propensities
        found[a] = {
            "ips": np.mean(w * rewards),
            "snips": np.sum(w * rewards) / np.sum(w),
            "dm": q[:, a].mean(),
            "dr": np.mean(q[:, a] + w * (rewards - q[each, arms])),
        }
    return found


def agree(numbers, names, arms, rewards, propensities, x, tolerance=1e-9):
    """The numbers of a report are those computed by hand from plain arrays."""
    assert numbers["log"]["rows"] == len(arms)
    assert numbers["log"]["reward"]["value"] == pytest.approx(rewards.mean(), abs=tolerance)
    counted = {one["name"]: (one["chosen"], one["reward"]["value"]) for one in numbers["arms"]}
    for a, name in enumerate(names):
        assert counted[name][0] == (arms == a).sum()
        assert counted[name][1] == pytest.approx(rewards[arms == a].mean(), abs=tolerance)
    valued = {one["name"]: one for one in numbers["candidates"]}
    for a, own in by_hand(arms, rewards, propensities, x, len(names)).items():
        for kind, value in own.items():
            assert valued[f"always {names[a]}"][kind]["value"] == pytest.approx(value, abs=tolerance), kind


def reported(capsys, tmp_path, path, options):
    """The numbers that one line on the shell prints."""
    assert main(["report", str(path), *options.split(), "--out", str(tmp_path / "page.html"), "--json"]) == 0
    assert (tmp_path / "page.html").stat().st_size > 10_000
    return json.loads(capsys.readouterr().out)


# Scores of all models on every row.


@pytest.fixture(scope="module")
def scores():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, 2))
    level = np.array([0.7, 0.5, 0.4]) + 0.2 * x[:, :1] * np.array([1.0, -1.0, 0.0])
    return x, (rng.random((ROWS, 3)) < level).astype(float)


def drawn(x, rewards):
    """The log that a report draws from such a table, formed without any file."""
    stream = MatrixEnvironment(np.c_[x, np.ones(len(x))], rewards, arms=ARMS, order="replace").stream(2000, 0)
    trace = simulate(LinUCB(ARMS, 3, mix=0.1, rng=0), stream).to_trace()
    return trace, stream.means


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_wide_table_of_scores(suffix, scores, capsys, tmp_path):
    x, rewards = scores
    frame = pandas.DataFrame(
        {"prompt": [f'question {i}, "quoted"' for i in range(ROWS)], "e_0": x[:, 0], "e_1": x[:, 1]}
    )
    for a, name in enumerate(ARMS):
        frame[f"score:{name}"] = rewards[:, a]
    path = written(frame, tmp_path / f"scores.{suffix}")
    found = reported(capsys, tmp_path, path, "--reward score:* --context e_* --requests 2000")
    trace, means = drawn(x, rewards)
    agree(found, ARMS, trace.arms, trace.rewards, trace.propensities, trace.contexts[:, :2])
    true = {one["name"]: one["truth"] for one in found["candidates"]}
    for a, name in enumerate(ARMS):
        assert true[f"always {name}"] == pytest.approx(means[:, a].mean())
    assert Scores.read(path, reward="score:*", context="e_*").notes == ("not used: `prompt`",)


def written(frame, path):
    """Write as pandas does."""
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True, double_precision=15, date_format="iso")
    else:
        frame.to_parquet(path, index=False)
    return path


# Logs.


@pytest.fixture(scope="module")
def calls():
    """Names of arms, rewards, propensities, contexts, costs, moments and ids of a log."""
    rng = np.random.default_rng(1)
    x, shares = rng.standard_normal((ROWS, 2)), np.array([0.5, 0.3, 0.2])
    arms = rng.choice(3, size=ROWS, p=shares)
    rewards = (rng.random(ROWS) < np.array([0.7, 0.5, 0.4])[arms] + 0.1 * x[:, 0]).astype(float)
    moments = pandas.date_range("2024-05-31 12:00", periods=ROWS, freq="90s", tz="UTC")
    return {
        "arms": arms, "rewards": rewards, "propensities": shares[arms], "x": x,
        "costs": rng.random(ROWS) / 100, "moments": moments, "ids": [f"chatcmpl-{i:x}" for i in range(ROWS)],
    }  # fmt: skip


def frame_of(calls, contexts):
    """A frame with columns called as people call them; contexts as cells of one column, or as columns."""
    frame = pandas.DataFrame({
        "created": calls["moments"], "request": calls["ids"], "model": [ARMS[a] for a in calls["arms"]],
        "score": calls["rewards"], "p": calls["propensities"], "usd": calls["costs"],
    })  # fmt: skip
    if contexts == "columns":
        frame["e_0"], frame["e_1"] = calls["x"].T
    else:
        frame["embedding"] = [json.dumps(row) if contexts == "json" else row for row in calls["x"].tolist()]
    return frame


def same(found, calls, tolerance=1e-9):
    agree(found, ARMS, calls["arms"], calls["rewards"], calls["propensities"], calls["x"], tolerance)
    assert found["log"]["seconds"] == pytest.approx(90.0 * (ROWS - 1))
    assert {"ids", "costs", "times", "contexts"} <= set(found["log"]["columns"])


@pytest.mark.parametrize(
    ("suffix", "contexts"), [("csv", "json"), ("parquet", "lists"), ("jsonl", "lists"), ("csv", "columns")]
)
def test_a_log(suffix, contexts, calls, capsys, tmp_path):
    path = written(frame_of(calls, contexts), tmp_path / f"calls.{suffix}")
    named = "e_*" if contexts == "columns" else "embedding"
    options = (
        f"--arm model --reward score --propensity p --context {named} --time created --id request --cost usd"
    )
    same(reported(capsys, tmp_path, path, options), calls)


def test_a_frame_with_string_arms_and_timestamps(calls):
    trace = Trace.from_frame(
        frame_of(calls, "columns"), arm="model", reward="score", propensity="p", context="e_*", time="created",
        id="request", cost="usd",
    )  # fmt: skip
    same(report(trace).numbers, calls)


def test_spend_logs_of_litellm(calls, capsys, tmp_path):
    """Its columns; nobody logged propensities, so they are estimated: here the shares of the other folds."""
    ended = calls["moments"] + pandas.to_timedelta(1.0 + calls["costs"] * 100, unit="s")
    frame = pandas.DataFrame({
        "request_id": calls["ids"], "call_type": "acompletion", "api_key": "88dc28..", "spend": calls["costs"],
        "total_tokens": 120, "startTime": calls["moments"].astype(str), "endTime": ended.astype(str),
        "model": [ARMS[a] for a in calls["arms"]], "status": np.where(calls["rewards"] > 0, "success", "failure"),
        "metadata": ['{"user_api_key_alias": "team-a"}'] * ROWS,
    })  # fmt: skip
    path = written(frame, tmp_path / "spend.csv")
    found = reported(capsys, tmp_path, path, "--layout litellm --estimate-propensities")
    fold, shares = np.arange(ROWS) % 5, np.empty(ROWS)
    for f in range(5):
        rest = calls["arms"][fold != f]
        counted = np.bincount(rest, minlength=3) / len(rest)
        shares[fold == f] = (counted * (1 - 3e-3) + 1e-3)[calls["arms"][fold == f]]
    agree(found, ARMS, calls["arms"], calls["rewards"], shares, np.zeros((ROWS, 0)))
    assert found["latency"]["all"]["p50_ms"] == pytest.approx(
        1000 * np.median(1.0 + calls["costs"] * 100), rel=1e-6
    )
    assert any("estimated" in note for note in found["notes"])


# What other libraries wrote.


@pytest.fixture(scope="module")
def peers():
    return json.loads((DATA / "values.json").read_text(encoding="utf-8"))


def test_a_log_in_the_columns_of_open_bandit(peers, capsys, tmp_path):
    """IPS and SNIPS are those that obp computed of the same rows."""
    found = reported(capsys, tmp_path, DATA / "open-bandit.csv", "--layout obp")
    valued = {one["name"]: one for one in found["candidates"]}
    assert len(peers["obp"]) == len(found["arms"])
    for name, own in peers["obp"].items():
        for kind, value in own.items():
            assert valued[f"always {name}"][kind]["value"] == pytest.approx(value, abs=1e-9), kind
    table = pandas.read_csv(DATA / "open-bandit.csv")
    assert found["log"]["reward"]["value"] == pytest.approx(table["click"].mean())
    assert found["log"]["dim"] == sum(table[f"user_feature_{i}"].nunique() - 1 for i in range(2))


def test_decision_service_json(peers, capsys, tmp_path):
    """Probabilities are those that vw predicted; IPS is that of vw, in single precision."""
    found = reported(capsys, tmp_path, DATA / "decisions.dsjson", "")
    valued = {one["name"]: one for one in found["candidates"]}
    rows = [json.loads(line) for line in (DATA / "decisions.dsjson").read_text(encoding="utf-8").splitlines()]
    arms = np.array([row["_labelIndex"] for row in rows])
    rewards = np.array([-row["_label_cost"] for row in rows])
    shares = np.array([row["_label_probability"] for row in rows])
    for name, value in peers["vw"].items():
        by_rows = np.mean((arms == int(name)) / shares * rewards)
        assert valued[f"always arm{name}"]["ips"]["value"] == pytest.approx(by_rows, abs=1e-9)
        assert valued[f"always arm{name}"]["ips"]["value"] == pytest.approx(value, abs=1e-5)
    assert found["log"]["rows"] == len(rows)
