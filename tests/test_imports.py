"""Ten files as pandas, RouterBench, Open Bandit, vw and LiteLLM write them: from file to report by one line of options."""

import json

import numpy as np
import pytest

from banditroute import Trace
from banditroute.cli import main
from banditroute.logs import Scores, from_dsjson, from_litellm, from_obp, to_dsjson

pd = pytest.importorskip("pandas", reason="frames need pandas")
pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")

ROWS = 240
MODELS = ("gpt-4o", "llama-3", "mixtral")


def wide():
    """Scores and costs of three models on every row, beside what nobody needs."""
    rng = np.random.default_rng(0)
    x = rng.random((ROWS, 3))
    frame = pd.DataFrame({"sample_id": [f"mmlu.{i}" for i in range(ROWS)], "prompt": ["why, then?\n"] * ROWS})
    for j in range(3):
        frame[f"e_{j}"] = x[:, j]
    for j, model in enumerate(MODELS):
        frame[model] = (rng.random(ROWS) < 0.3 + 0.4 * x[:, j]).astype(float)
        frame[f"{model}|total_cost"] = 10.0 ** -(j + 2) * (1 + x[:, 0])
    return frame, x


def log():
    """Requests with one model each, by names that are not ours."""
    frame, x = wide()
    rng = np.random.default_rng(1)
    arms = rng.choice(3, ROWS, p=[0.5, 0.3, 0.2])
    return pd.DataFrame(
        {
            "when": pd.date_range("2024-05-31T12:00:00.25Z", periods=ROWS, freq="s"),
            "call": [f"req-{i}" for i in range(ROWS)],
            "model": np.array(MODELS)[arms],
            "score": frame[list(MODELS)].to_numpy()[np.arange(ROWS), arms],
            "p": np.array([0.5, 0.3, 0.2])[arms],
            "emb": x.round(3).tolist(),
        }
    ), arms


def obp():
    rng = np.random.default_rng(2)
    arms = rng.integers(0, 12, ROWS)
    return pd.DataFrame(
        {
            "timestamp": [f"2019-11-24 00:00:{i % 60:02d}.{i:06d}+00:00" for i in range(ROWS)],
            "item_id": arms,
            "position": 1 + np.arange(ROWS) % 3,
            "click": (rng.random(ROWS) < arms / 12).astype(int),
            "propensity_score": 1 / 12,
            "user_feature_0": np.array(["81ce", "4ae3", "cef3"])[np.arange(ROWS) % 3],
            "user_feature_1": np.array(["03a5", "2723"])[np.arange(ROWS) % 2],
            "user-item_affinity_0": 0.0,
        }
    ), arms


def litellm():
    rng = np.random.default_rng(3)
    start = pd.date_range("2024-05-31", periods=ROWS, freq="min")
    return pd.DataFrame(
        {
            "request_id": [f"chatcmpl-{i:x}" for i in range(ROWS)],
            "call_type": "acompletion",
            "spend": rng.random(ROWS) / 100,
            "total_tokens": 50,
            "startTime": [t.isoformat() + "Z" for t in start],
            "endTime": [
                (t + pd.Timedelta(milliseconds=250 + i)).isoformat() + "Z" for i, t in enumerate(start)
            ],
            "model": np.array(MODELS)[np.arange(ROWS) % 3],
            "model_group": "chat",
            "metadata": [json.dumps({"user_api_key": "x", "score": i % 5 / 4}) for i in range(ROWS)],
            "status": np.where(np.arange(ROWS) % 4, "success", "failure"),
        }
    )


def dsjson(path, arms):
    """As vw's logger writes them: names under `_tag`, contexts by namespace, most probable action first."""
    with path.open("w") as file:
        for i, a in enumerate(arms):
            others = [j for j in range(3) if j != a]
            file.write(
                json.dumps(
                    {
                        "_label_cost": -float(i % 3 == 0), "_label_probability": 0.6, "_label_Action": int(a) + 1,
                        "_labelIndex": int(a), "o": [{"v": -float(i % 3 == 0)}], "Version": "1", "EventId": f"{i:032x}",
                        "Timestamp": f"2024-05-31T12:00:{i % 60:02d}.1234567Z", "a": [int(a) + 1, *(j + 1 for j in others)],
                        "c": {"FromUrl": [{"age": i % 7, "country": "de" if i % 2 else "fr"}], "_multi": [
                            {"_tag": m, "i": {"constant": 1}} for m in MODELS]},
                        "p": [0.6, 0.2, 0.2], "VWState": {"m": "m/1"},
                    }
                ) + "\n"
            )  # fmt: skip
            if i % 50 == 0:
                file.write(json.dumps({"RewardValue": 1, "EventId": "x"}) + "\n")


def reported(path, options, tmp_path, capsys):
    """Return the numbers of `banditroute report` on a file, and what it said beside."""
    capsys.readouterr()
    assert main(["report", str(path), *options, "--out", str(tmp_path / "page.html"), "--json"]) == 0, (
        capsys.readouterr()
    )
    said = capsys.readouterr()
    assert (tmp_path / "page.html").stat().st_size > 1000
    return json.loads(said.out), said.err


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_wide_table_of_scores(suffix, tmp_path, capsys):
    frame, x = wide()
    path = tmp_path / f"bench.{suffix}"
    write(frame, path)
    found = Scores.read(path, context="e_*")
    assert found.arms == MODELS
    assert found.rewards.tolist() == frame[list(MODELS)].to_numpy().tolist()
    assert np.allclose(
        found.costs, frame[[f"{m}|total_cost" for m in MODELS]].to_numpy(), rtol=1e-9, atol=0
    )  # pandas cuts digits in JSON
    assert np.allclose(found.contexts, x, rtol=1e-9, atol=0) and found.notes == (
        "not used: `sample_id`, `prompt`",
    )
    named = Scores.read(frame, reward=[*MODELS[::-1]], cost=[f"{m}|total_cost" for m in MODELS[::-1]])
    assert named.arms == MODELS[::-1] and np.allclose(named.costs[:, 0], found.costs[:, 2], rtol=1e-9, atol=0)
    numbers, said = reported(
        path, ["--layout", "routerbench", "--context", "e_*", "--requests", "300"], tmp_path, capsys
    )
    assert numbers["log"]["rows"] == 300 and {one["name"] for one in numbers["arms"]} == {*MODELS}
    assert "not used: `sample_id`, `prompt`" in said


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_a_log_by_names_of_its_own(suffix, tmp_path, capsys):
    frame, arms = log()
    path = tmp_path / f"calls.{suffix}"
    write(frame, path)
    columns = {
        "arm": "model",
        "reward": "score",
        "propensity": "p",
        "context": "emb",
        "time": "when",
        "id": "call",
    }
    trace = Trace.load(path, **columns)
    assert (trace.names, trace.arms.tolist()) == (MODELS, arms.tolist())
    assert (
        trace.rewards.tolist() == frame["score"].tolist()
        and trace.propensities.tolist() == frame["p"].tolist()
    )
    assert trace.contexts.tolist() == frame["emb"].tolist() and trace.times[:2].tolist() == [
        1717156800.25,
        1717156801.25,
    ]
    assert trace.repeated() == 0
    options = [word for name, title in columns.items() for word in (f"--{name}", title)]
    numbers, _ = reported(path, options, tmp_path, capsys)
    best = max(numbers["candidates"], key=lambda one: one["snips"]["value"])
    always = {one["name"]: one["ips"]["value"] for one in numbers["candidates"]}
    for a, model in enumerate(MODELS):  # by hand
        mine = (arms == a) * frame["score"] / frame["p"]
        for name, value in always.items():
            if name.startswith("always") and model in name:
                assert value == pytest.approx(float(mine.mean()), abs=1e-12)
    assert numbers["log"]["reward"]["value"] == pytest.approx(float(frame["score"].mean()))
    assert best["snips"]["value"] <= 1.0


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_open_bandit_dataset(suffix, tmp_path, capsys):
    frame, arms = obp()
    path = tmp_path / f"all.{suffix}"
    frame.to_csv(path) if suffix == "csv" else frame.to_parquet(
        path
    )  # pandas writes its index without a title
    for trace in (from_obp(path), from_obp(frame)):
        assert trace.names == tuple(str(i) for i in range(12)) and trace.arms.tolist() == arms.tolist()
        assert trace.rewards.tolist() == frame["click"].tolist() and set(trace.propensities) == {1 / 12}
        dummies = pd.get_dummies(frame[["user_feature_0", "user_feature_1"]], drop_first=True)  # as obp does
        assert np.array_equal(trace.contexts, dummies.to_numpy(dtype=float))
        assert trace.times[61] == pytest.approx(1574553601.000061, abs=1e-6)
        assert "`position`" in trace.notes[0] and "`user-item_affinity_0`" in trace.notes[0]
    numbers, said = reported(path, ["--layout", "obp"], tmp_path, capsys)
    assert numbers["log"]["reward"]["value"] == pytest.approx(frame["click"].mean()) and "`position`" in said


def test_dsjson_of_a_logger(tmp_path, capsys):
    arms = np.random.default_rng(4).integers(0, 3, ROWS)
    path = tmp_path / "log.dsjson"
    dsjson(path, arms)
    trace = from_dsjson(path)
    assert (trace.names, trace.arms.tolist()) == (MODELS, arms.tolist())
    assert trace.rewards.tolist() == [float(i % 3 == 0) for i in range(ROWS)] and set(trace.propensities) == {
        0.6
    }
    age, fr, de = trace.contexts.T
    assert age.tolist() == [i % 7 for i in range(ROWS)] and (fr + de == 1.0).all() and fr[0] == de[1] == 1.0
    assert trace.notes == ("5 rows without a decision were passed over",) and trace.repeated() == 0
    numbers, said = reported(path, [], tmp_path, capsys)
    assert numbers["log"]["rows"] == ROWS and "passed over" in said


def test_dsjson_there_and_back(tmp_path):
    rng = np.random.default_rng(5)
    arms = rng.integers(0, 3, 50)
    eligible = rng.random((50, 3)) < 0.5
    eligible[np.arange(50), arms] = True
    whole = Trace(
        names=["a", "b", "c"], arms=arms, rewards=rng.standard_normal(50), propensities=1 - rng.random(50),
        contexts=rng.standard_normal((50, 2)), ids=rng.integers(2**63, size=50), eligible=eligible,
        times=np.arange(50) / 4,
    )  # fmt: skip
    again = from_dsjson(to_dsjson(whole, tmp_path / "log.dsjson"))
    order = [again.names.index(name) for name in whole.names]
    for name in ("rewards", "propensities", "contexts", "ids", "times"):
        assert getattr(again, name).tobytes() == getattr(whole, name).tobytes(), name
    assert np.array_equal(again.eligible[:, order], whole.eligible)
    assert [again.names[a] for a in again.arms] == [whole.names[a] for a in whole.arms]


@pytest.mark.parametrize(
    "text", ['{"_label_cost": 1}', '{"_label_cost": 1, "c": {"_multi": [{}]}, "_labelIndex": 3}', "{}", "[]"]
)
def test_what_is_no_dsjson_is_refused_with_file_and_row(text, tmp_path):
    (tmp_path / "log.dsjson").write_text(text)
    with pytest.raises(ValueError, match=r"log\.dsjson cannot be read: .* (row 0|1 rows|line 1)"):
        from_dsjson(tmp_path / "log.dsjson")


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_spend_logs_of_litellm(suffix, tmp_path, capsys):
    frame = litellm()
    path = tmp_path / f"spend.{suffix}"
    write(frame, path)
    trace = from_litellm(path)
    assert trace.names == MODELS and trace.arms.tolist() == [i % 3 for i in range(ROWS)]
    assert trace.rewards.tolist() == [float(i % 4 > 0) for i in range(ROWS)] and trace.propensities is None
    assert trace.costs == pytest.approx(frame["spend"].to_numpy(), rel=1e-9)  # pandas cuts digits in JSON
    assert trace.latencies[:3] == pytest.approx([0.25, 0.251, 0.252], abs=1e-6) and trace.repeated() == 0
    assert trace.notes[0] == "rewards are 1 where the call succeeded, else 0"
    scored = from_litellm(path, reward="metadata.score", arm="model_group")
    assert scored.names == ("chat",) and scored.rewards.tolist() == [i % 5 / 4 for i in range(ROWS)]
    numbers, said = reported(path, ["--layout", "litellm"], tmp_path, capsys)
    assert numbers["log"]["reward"]["value"] == pytest.approx(0.75) and "where the call succeeded" in said


def test_a_frame_with_string_arms_and_timestamps(tmp_path, capsys):
    frame, arms = log()
    columns = {
        "arm": "model",
        "reward": "score",
        "propensity": "p",
        "context": "emb",
        "time": "when",
        "id": "call",
    }
    trace = Trace.from_frame(frame, **columns)
    assert trace.arms.tolist() == arms.tolist() and trace.times[1] == 1717156801.25
    assert trace.contexts.tolist() == frame["emb"].tolist()
    local = frame.assign(when=frame["when"].dt.tz_convert("Asia/Tokyo"))
    assert Trace.from_frame(local, **columns).times.tolist() == trace.times.tolist()
    numbers, _ = reported(trace.save(tmp_path / "log.npz"), [], tmp_path, capsys)
    assert numbers["log"]["reward"]["value"] == pytest.approx(frame["score"].mean())


def test_a_frame_there_and_back():
    frame, _ = log()
    trace = Trace.from_frame(
        frame, arm="model", reward="score", propensity="p", context="emb", time="when", id="call"
    )
    names = ("never", *MODELS[::-1])
    arms = np.array([names.index(trace.names[a]) for a in trace.arms])
    full = Trace(
        names=names, arms=arms, rewards=trace.rewards, ids=trace.ids, times=trace.times, contexts=trace.contexts,
        eligible=np.ones((ROWS, 4), bool), prices=np.random.default_rng(0).random((ROWS, 4)), policies=["x", "y"],
        policy=np.arange(ROWS) % 2, hits=arms > 1, costs=np.full(ROWS, np.nan),
    )  # fmt: skip
    again = Trace.from_frame(full.to_frame())
    assert (again.names, again.policies, again.notes) == (names, ("x", "y"), ())
    for name in Trace.columns():
        a, b = getattr(again, name), getattr(full, name)
        assert (a is None) == (b is None) and (a is None or a.tobytes() == b.tobytes()), name


def test_frames_of_other_kinds_and_what_is_none():
    pa = pytest.importorskip("pyarrow")
    table = {"arm": ["b", "a"], "reward": [1, None], "context:0": [0.5, 1.0]}
    for one in (table, pa.table(table), pd.DataFrame(table).convert_dtypes(), pd.DataFrame(table)):
        trace = Trace.from_frame(one)
        assert (
            trace.arms.tolist() == [1, 0]
            and np.isnan(trace.rewards[1])
            and trace.contexts.ravel().tolist() == [0.5, 1.0]
        )
    with pytest.raises(TypeError, match="frame must be a frame or a mapping of columns, got int"):
        Trace.from_frame(3)
    with pytest.raises(ValueError, match="columns of one length"):
        Trace.from_frame({"arm": ["a"], "reward": [1, 2]})
    with pytest.raises(ValueError, match="'arm': must hold names, got nan in row 1"):
        Trace.from_frame(pd.DataFrame({"arm": ["a", np.nan], "reward": [1, 2]}))
    with pytest.raises(ValueError, match=r"'id': must hold whole numbers .* got 3\.5 in row 0"):
        Trace.from_frame(pd.DataFrame({"arm": ["a"], "reward": [1], "id": [3.5]}))


def test_options_that_do_not_go_together_end_in_one_line(tmp_path, capsys):
    frame, _ = obp()
    frame.to_csv(tmp_path / "all.csv")
    for options, message in (
        (["--layout", "obp", "--arm", "item_id"], "--layout obp knows its columns: --arm is for"),
        (["--arm", "item"], "it has no column 'item'; did you mean 'item_id'?"),
        (["--reward", "s:*", "--arm", "x"], "--arm is for a log"),
        ([], "must have a column 'arm'"),
    ):
        assert main(["report", str(tmp_path / "all.csv"), *options]) == 1
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1, said


def write(frame, path):
    """Write as pandas does."""
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_json(path, orient="records", lines=True, date_format="iso", double_precision=15)
