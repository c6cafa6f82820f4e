"""Files as newcomers have them: odd ones are read, and those that are not say in one line what to do."""

import gzip

import numpy as np
import pytest

from banditroute import Trace
from banditroute.cli import main
from banditroute.evaluation import evaluate, report
from banditroute.logs import Scores

ROWS = 300
RNG = np.random.default_rng(5)
ARMS = RNG.choice(3, size=ROWS, p=[0.5, 0.3, 0.2])
SHARES = np.array([0.5, 0.3, 0.2])[ARMS]
WORDS = RNG.integers(5, 500, size=ROWS)
TIERS = RNG.choice(["gold", "free"], size=ROWS)
REWARDS = (RNG.random(ROWS) < 0.2 + 0.2 * ARMS + 0.3 * (TIERS == "gold")).astype(int)
NUMBERS = ("2", "10", "11")  # names of arms that are positions of none


def table(names=NUMBERS, titles=("arm", "reward", "propensity", "words", "tier", "prompt"), gap=False):
    rows = [",".join(titles)]
    for i in range(ROWS):
        words = "" if gap and i == 3 else WORDS[i]
        rows.append(f"{names[ARMS[i]]},{REWARDS[i]},{SHARES[i]},{words},{TIERS[i]},say {i % 97} things {i}")
    return "\n".join(rows) + "\n"


def test_a_report_takes_arms_that_are_numbers_as_it_takes_names():
    columns = {"arms": ARMS, "rewards": REWARDS, "propensities": SHARES, "contexts": WORDS[:, None] / 500.0}
    one, two = (
        report(Trace(names=names, **columns)).numbers["candidates"] for names in (NUMBERS, ("b", "j", "k"))
    )
    letters = dict(zip(("b", "j", "k"), NUMBERS, strict=True))
    renamed = [{**row, "name": " ".join(letters.get(w, w) for w in row["name"].split(" "))} for row in two]
    assert one == renamed and len(one) == 6


def test_a_position_beside_numbered_arms_says_how_it_becomes_a_name():
    trace = Trace(names=NUMBERS, arms=ARMS, rewards=REWARDS, propensities=SHARES)
    with pytest.raises(ValueError, match=r"np.array\(trace.names\)\[positions\]"):
        evaluate(trace, np.zeros(ROWS, int))
    named = evaluate(trace, np.array(trace.names)[np.full(ROWS, 2)])
    assert named["ips"].value == evaluate(trace, 11)["ips"].value
    leading = Trace(names=["01", "2"], arms=ARMS % 2, rewards=REWARDS, propensities=np.full(ROWS, 0.5))
    assert (
        evaluate(leading, 0)["ips"].value == evaluate(leading, "01")["ips"].value
    )  # no number is written so


@pytest.mark.parametrize(
    ("name", "content", "options", "reason"),
    [
        (
            "a.csv",
            table(titles=("model_id", "reward", "p", "w", "t", "s")),
            [],
            "--arm model_id in a command",
        ),
        ("a.csv", table(titles=("Arm", "reward", "p", "w", "t", "s")), [], "--arm Arm in a command"),
        ("a.csv", table(titles=("who", "reward", "p", "w", "t", "s")), [], "--arm in a command"),
        ("a.csv", "q,gpt,gpt|total_cost\na,1,0.1\n", [], "--layout routerbench"),
        (
            "a.csv",
            "q,score:a,score:b\nx,1,0\n",
            ["--layout", "routerbench"],
            "--reward 'score:*' in a command",
        ),
        ("a.csv", table().replace(",", ";"), [], "separated by commas, got ';'"),
        ("a.csv", "", [], "got an empty file"),
        ("a.csv", "arm,reward\n", [], "it must hold a row"),
        ("a.csv", "arm,reward\na,1\n,0\n", [], "column 'arm': must hold names, got '' in row 1"),
        ("a.csv", table().encode() + b"caf\xe9,1,0.5,3,gold,x\n", [], "pandas.read_csv(path, encoding=...)"),
        ("a.tsv", table(), [], "sep='\\t'"),
        ("a.json", "[]", [], "pandas.read_json"),
        ("a.csv", table(gap=True), ["--context", "words"], "--features in a command"),
        ("a.csv", table(), ["--context", "words", "tier"], "--features in a command"),
        ("a.csv", table(), ["--features", "tier=number"], "must hold numbers, got"),
        ("a.csv", table(), ["--features", "nowhere"], "no column 'nowhere'"),
        ("a.csv", table(), ["--features", "w*"], "embedding"),
        (
            "a.csv",
            table(),
            ["--features", "tier", "reward"],
            "must be known before the decision, got 'reward'",
        ),
        ("a.csv", table(), ["--features", "tier", "tier=text"], "must name a column once"),
        ("a.csv", table(), ["--components", "2"], "--features 'e_*=embedding:16'"),
        ("a.csv", table(), ["--scale", "255"], "--scale is for the scores of all arms"),
        ("a.csv", table(), ["--rewards", "reward"], "--reward"),
        ("a.csv.gz", table().encode(), [], "gzip"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(name, content, options, reason, tmp_path, capsys):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert main(["report", str(path), *options, "--out", str(tmp_path / "a.html")]) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert reason in told[-1] and told[-1].startswith("banditroute: ")
    assert not (tmp_path / "a.html").exists()


def test_advice_tells_missing_propensities_from_wrong_ones(tmp_path, capsys):
    path = tmp_path / "a.csv"
    for change, first in (
        (lambda text: text.replace("propensity", "chance"), "--estimate-propensities"),
        (lambda text: text.replace(",0.", ",50."), "Mend the column of propensities"),
    ):
        path.write_text(change(table()))
        assert main(["report", str(path), "--out", str(tmp_path / "a.html")]) == 0
        assert first in next(line for line in capsys.readouterr().out.splitlines() if line.startswith("1. "))


def test_packed_text_is_read_as_the_same_text(tmp_path):
    plain, packed = tmp_path / "a.csv", tmp_path / "b.csv.gz"
    plain.write_text(table())
    packed.write_bytes(gzip.compress(table().encode()))
    with pytest.warns(UserWarning, match="not used: `words`"):
        one, two = Trace.load(plain), Trace.load(packed)
    assert one.names == two.names and (one.arms == two.arms).all() and (one.rewards == two.rewards).all()
    with pytest.raises(ValueError, match="must end in"):
        one.save(tmp_path / "c.csv.gz")


def test_levels_of_an_index_are_columns():
    pandas = pytest.importorskip("pandas", reason="frames: extra frame")
    frame = pandas.DataFrame({"arm": ["a", "b"], "reward": [1.0, 0.0], "tier": ["x", "y"], "e": [0.1, 0.2]})
    frame["time"] = pandas.to_datetime(["2024-01-01", "2024-01-02"])
    with pytest.warns(UserWarning, match="not used: `tier`"):
        found = Trace.from_frame(frame.set_index(["time", "tier"]), context="e")
    assert np.diff(found.times).tolist() == [86400.0] and found.contexts.tolist() == [[0.1], [0.2]]
    scores = Scores.read(
        frame.set_index("e")[["reward"]].rename(columns={"reward": "s:a"}), reward="s:*", context="e"
    )
    assert scores.contexts.tolist() == [[0.1], [0.2]]


def test_features_on_the_command_line_are_those_of_the_library_and_told(tmp_path, capsys):
    from banditroute.features import Category, Fields, HashedText, Number

    path = tmp_path / "a.csv"
    path.write_text(table(gap=True))
    out = ["--out", str(tmp_path / "a.html")]
    options = ["--features", "tier", "words", "prompt=text:16"]
    assert main(["report", str(path), *options, *out]) == 0
    told = capsys.readouterr()
    assert "contexts of 19 numbers: `tier` as one of 2 categories, `words` as a number" in told.err
    assert "`prompt` as a text hashed into 16" in told.err and "not used" not in told.err
    rows = [
        {
            "tier": str(TIERS[i]),
            "words": None if i == 3 else float(WORDS[i]),
            "prompt": f"say {i % 97} things {i}",
        }
        for i in range(ROWS)
    ]
    maps = Fields({"tier": Category(["free", "gold"]), "words": Number(), "prompt": HashedText(16)}).fit(rows)
    trace = Trace(names=NUMBERS, arms=ARMS, rewards=REWARDS, propensities=SHARES, contexts=maps.batch(rows))
    best = report(trace).numbers["candidates"][0]
    line = next(line for line in told.out.splitlines() if line.startswith(best["name"] + " "))
    assert f"{best['dr']['value']:.4f}" in line


def test_features_reduce_vectors_of_a_table_of_scores(tmp_path, capsys):
    rng = np.random.default_rng(0)
    path = tmp_path / "s.csv"
    rows = ["q,score:a,score:b,e_0,e_1,e_2"]
    rows += [
        f"what is {i},{i % 2},{(i + 1) % 2},{','.join(f'{v:.3f}' for v in rng.random(3))}" for i in range(60)
    ]
    path.write_text("\n".join(rows))
    arguments = [
        "--reward",
        "score:*",
        "--features",
        "e_*=embedding:2",
        "q",
        "--requests",
        "50",
        "--seeds",
        "2",
    ]
    assert main(["study", "matrix", str(path), *arguments, "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert "`e_*` as vectors of 3, reduced to 2 components, `q` as a text hashed into 64" in told.err
    assert "contexts of length 67" in told.out


def test_frames_of_several_levels_are_called_as_files_call_them():
    pandas = pytest.importorskip("pandas", reason="frames: extra frame")
    titles = [("score", "g"), ("score", "h"), ("context", 0), ("context", 1)]
    frame = pandas.DataFrame(np.eye(4), columns=pandas.MultiIndex.from_tuples(titles))
    scores = Scores.read(frame, reward="score:*")
    assert scores.arms == ("g", "h") and scores.contexts.shape == (4, 2)


def test_what_is_no_trace_and_no_target_is_told_with_the_way_out():
    pandas = pytest.importorskip("pandas", reason="frames: extra frame")
    frame = pandas.DataFrame({"arm": [1.0, 2.0], "reward": [1.0, 0.0]})
    with pytest.raises(ValueError, match=r"astype\('int64'\)"):
        Trace.from_frame(frame)
    with pytest.raises(TypeError, match=r"pandas.DataFrame\(rows\)"):
        Trace.from_frame(frame.to_dict("records"))
    with pytest.raises(TypeError, match=r"Trace.from_frame reads a frame\), got DataFrame$"):
        evaluate(frame, "a")
    trace = Trace(names=NUMBERS, arms=ARMS, rewards=REWARDS, propensities=SHARES)
    with pytest.raises(ValueError, match="such as the predict of an estimator, got None"):
        evaluate(trace, None)
    assert list(evaluate(trace, 2, estimators="ips").estimates) == ["ips"]


@pytest.mark.parametrize("word", ["tier=colour", "=text", "prompt=text:0", "words=number:3"])
def test_words_of_features_that_mean_nothing_are_wrong_usage(word, capsys):
    with pytest.raises(SystemExit) as left:
        main(["report", "a.csv", "--features", word])
    assert left.value.code == 2 and "got" in capsys.readouterr().err
