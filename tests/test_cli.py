"""The command line: what it writes, what it says when something is wrong, and the comparisons behind it."""

import csv
import io
import json
import re
import subprocess
import sys
from itertools import combinations

import numpy as np
import pytest
from recorded import data_file

from banditroute import LRU, LinUCB, PagingModel, Polar, Problem, Router, Trace, regret, simulate
from banditroute.cli import main
from banditroute.cli.commands import COMMANDS
from banditroute.cli.console import over_seeds
from banditroute.evaluation import diagnose, expected_rewards
from banditroute.simulation import Outcome, compare_policies, compare_residency, homes, linear_set, summary

CONTESTANTS = ["Polaris", "Polar", "LRU", "LFU", "static", "oracle", "uncached"]


def recorded(name):
    try:
        return str(data_file(name))
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture
def matrix(tmp_path):
    """A file of 60 requests and 4 arms under names of its own; arm 2 is best throughout."""
    rng = np.random.default_rng(3)
    path = tmp_path / "m.npz"
    rewards = rng.integers(0, 150, (60, 4)).astype(np.uint8)
    rewards[:, 2] = 200
    np.savez(path, x=rng.standard_normal((60, 5)), score=rewards, usd=np.tile([1.0, 2.0, 3.0, 4.0], (60, 1)))
    return path


KEYS = ["--contexts", "x", "--rewards", "score", "--scale", "255", "--seeds", "2", "--requests", "300"]


def png(path):
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG\r\n\x1a\n")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_the_demo_prints_a_table_and_writes_what_it_says(tmp_path, capsys):
    assert main(["demo", "--seeds", "2", "--requests", "600", "--out", str(tmp_path / "new" / "out")]) == 0
    said = capsys.readouterr()
    table = [line.split()[0] for line in said.out.split("\n\n")[1].splitlines()[2:]]
    assert table == CONTESTANTS
    written = {path.name for path in (tmp_path / "new" / "out").iterdir()}
    assert written == {"demo.csv", "demo.json", "demo-regret.png", "demo-residency.png", "demo-arms.png"}
    assert all(name in said.out for name in written)
    for name in written:
        if name.endswith("png"):
            assert png(tmp_path / "new" / "out" / name)[0] in (1080, 1440)
    with (tmp_path / "new" / "out" / "demo.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["name"]) for row in rows] == [(s, n) for s in "01" for n in CONTESTANTS]
    uncached = [row for row in rows if row["name"] == "uncached"]
    assert {row["hit_rate"] for row in uncached} == {"0.0"}
    # A thousand draws of log-sigma 0.1 around 85 ms have their median within 3 ms of it for any seed that matters.
    assert all(abs(float(row["p50_ms"]) - 85.0) < 3.0 for row in uncached)
    assert all(row["page_ins"] == "0.0" for row in rows if row["name"] in ("static", "oracle", "uncached"))


def test_the_demo_prints_json_that_agrees_with_its_csv(tmp_path, capsys):
    assert main(["demo", "--json", "--seeds", "2", "--requests", "300", "--out", str(tmp_path)]) == 0
    result = json.loads(capsys.readouterr().out)
    with (tmp_path / "demo.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for row in result["rows"]:
        own = [float(line["regret"]) for line in lines if line["name"] == row["name"]]
        assert row["regret"]["mean"] == pytest.approx(np.mean(own))
        assert row["regret"]["low"] < np.mean(own) < row["regret"]["high"] or np.ptp(own) == 0
        assert row["us_per_decision"] > 0
    assert result["rows"][0]["regret_less"]["mean"] == 0.0


def test_a_study_of_a_matrix_finds_the_arm_that_is_best(matrix, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [
        "study",
        "matrix",
        str(matrix),
        *KEYS,
        "--costs",
        "usd",
        "--capacity",
        "2",
        "--out",
        str(out),
    ]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    rows = {row["name"]: row for row in result["policies"]}
    assert rows["best single arm"]["late_reward"]["mean"] == pytest.approx(200 / 255)
    assert rows["best single arm"]["cost"]["mean"] == pytest.approx(3.0)
    assert rows["random"]["cost"]["mean"] == pytest.approx(2.5)
    assert rows["oracle"]["regret"]["mean"] == 0.0
    assert rows["LinUCB"]["late_reward"]["mean"] > 0.7
    assert [row["name"] for row in result["residency"]["rows"]] == CONTESTANTS
    assert {path.name for path in out.iterdir()} == set(result["files"])
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "best single arm" in said
    assert "2 of 4 arms resident" in said
    assert "cost / request" in said


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (["--contexts", "embedding"], r"no array 'embedding'; it holds x, score, usd"),
        (["--costs", "dollars"], r"no array 'dollars'; it holds x, score, usd"),
        (["--scale", "100"], r"score of .* must be in \[0, 1\] after division by --scale 100"),
        (["--scale", "0"], r"scale must be"),
        (["--capacity", "4"], r"--capacity must be below the number of arms, 4, got 4"),
        (["--contexts", "flat"], r"flat of .* must have two dimensions, got shape \(60,\)"),
        (["--contexts", "short"], r"rewards must have shape \(3, d\), got \(60, 4\)"),
    ],
)
def test_what_a_user_gets_wrong_in_a_study_ends_in_one_line(matrix, tmp_path, capsys, change, reason):
    if change[1] in ("flat", "short"):
        with np.load(matrix) as file:
            np.savez(matrix, **file, flat=np.zeros(60), short=np.zeros((3, 2)))
    assert main(["study", "matrix", str(matrix), *KEYS, *change, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("banditroute: ")
    assert re.search(reason, said.err), said.err


def test_a_file_that_is_none_ends_in_one_line(tmp_path, capsys):
    other = tmp_path / "table.csv"
    other.write_text("1,2,3\n", encoding="utf-8")
    assert main(["study", "matrix", str(other)]) == 1
    assert "reward must name the columns of scores" in capsys.readouterr().err
    (tmp_path / "table.txt").write_text("1,2,3\n", encoding="utf-8")
    assert main(["study", "matrix", str(tmp_path / "table.txt")]) == 1
    assert "is not an .npz file" in capsys.readouterr().err
    assert main(["study", "matrix", str(tmp_path / "absent.npz")]) == 1
    assert "no file" in capsys.readouterr().err
    assert main(["demo", "--seeds", "1", "--requests", "50", "--out", str(other)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["dance"], ["study"], ["study", "matrix"], ["demo", "--seeds", "0"], ["demo", "--requests", "many"]],
)
def test_wrong_usage_leaves_with_code_two(arguments, capsys):
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    assert leaving.value.code == 2
    assert "usage: banditroute" in capsys.readouterr().err


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_explains_itself_with_an_example(words, capsys):
    with pytest.raises(SystemExit) as leaving:
        main([*words.split(), "--help"])
    assert leaving.value.code == 0
    assert f"  banditroute {words} " in capsys.readouterr().out


def test_a_missing_extra_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "joblib", None)
    assert main(["demo", "--seeds", "1", "--requests", "50", "--out", str(tmp_path)]) == 1
    assert "pip install 'banditroute[demo]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [
            "llmrouter9.npz",
            "--contexts",
            "minilm_pca64",
            "--rewards",
            "scores",
            "--scale",
            "255",
            "--capacity",
            "3",
        ],
        ["pareto4.npz", "--contexts", "minilm_pca64", "--costs", "cost_usd", "--capacity", "2"],
    ],
    ids=lambda a: a[0],
)
def test_recorded_data_are_read(arguments, tmp_path, capsys):
    options = [
        recorded(arguments[0]),
        *arguments[1:],
        "--seeds",
        "2",
        "--requests",
        "1000",
        "--components",
        "32",
        "--out",
        str(tmp_path),
    ]
    assert main(["study", "matrix", *options, "--json"]) == 0
    said = capsys.readouterr()
    assert "of 64 context columns the first 32 are kept" in said.err
    result = json.loads(said.out)
    rewards = {row["name"]: row["reward"]["mean"] for row in result["policies"]}
    assert rewards["random"] < rewards["LinUCB"] < rewards["oracle"]
    assert result["dim"] == 33


def test_residency_outcomes_are_those_of_a_run_looked_at_by_hand():
    problem, paging = homes(1500, 4), PagingModel(jitter=0.0)
    outcomes = {o.name: o for o in compare_residency(problem, paging, seed=7)}
    for name, controller in (("Polar", Polar(4)), ("LRU", LRU(4))):
        run = simulate(LinUCB(15, 10, rng=7), problem, controller)
        assert outcomes[name].figures["regret"] == regret(run, problem).final
        assert outcomes[name].figures["hit_rate"] == run.hits.mean()
        assert outcomes[name].curve[-1] == regret(run, problem).final
        assert outcomes[name].times[-1] == 1500.0
    wait = paging.latency_ms(1)[0]
    for name, outcome in outcomes.items():
        faults, own = 1500 * (1.0 - outcome.figures["hit_rate"]), outcome.figures
        assert own["mean_ms"] == pytest.approx(wait * faults / 1500)
        assert own["p95_ms"] <= own["p99_ms"] and set(map(round, (own["p95_ms"], own["p99_ms"]))) <= {
            0,
            round(wait),
        }
        if name in (
            "static",
            "oracle",
            "uncached",
            "Polar",
        ):  # every fault passes through: a load beside the planned
            assert own["loads"] == pytest.approx(own["page_ins"] + faults)
    assert outcomes["LRU"].figures["loads"] == outcomes["LRU"].figures["page_ins"]  # a fault is an insertion
    lfu = outcomes["LFU"].figures  # some are
    assert lfu["page_ins"] < lfu["loads"] == pytest.approx(1500 * (1.0 - lfu["hit_rate"]))
    assert outcomes["uncached"].figures["p50_ms"] == pytest.approx(wait)
    assert outcomes["uncached"].figures["hit_rate"] == 0.0


def test_policy_outcomes_are_those_of_a_router_served_by_hand():
    stream = homes(800, 2).stream
    outcomes = {o.name: o.figures for o in compare_policies(stream, seed=5)}
    router = Router(LinUCB(stream.arms, stream.dim, prior=None, alpha=0.3, ridge=1.0, rng=5))
    gained = []
    for x, rewards, means in zip(stream.contexts, stream.rewards, stream.means, strict=True):
        decision = router.select(x)
        arm = router.policy.index(decision.arm)
        router.update(decision.id, float(rewards[arm]))
        gained.append(means[arm])
    assert outcomes["textbook, alpha 0.3"]["late_reward"] == pytest.approx(np.mean(gained[400:]), abs=1e-12)
    assert outcomes["textbook, alpha 0.3"]["regret"] == pytest.approx(stream.means.max(1).sum() - sum(gained))
    assert outcomes["best single arm"]["reward"] == pytest.approx(stream.means.mean(axis=0).max())
    assert outcomes["random"]["reward"] == pytest.approx(stream.means.mean())


def test_the_linear_set_is_the_best_of_all_sets_under_a_ridge_fit():
    full = homes(400, 1)
    problem = Problem(full.stream, full.faults, full.loads, 2)
    x, y = full.stream.contexts, full.stream.rewards
    predicted = x @ np.linalg.inv(x.T @ x + np.eye(10)) @ x.T @ y

    def value(chosen):
        outside = np.where(np.isin(np.arange(15), chosen), 0.0, full.faults)
        return (predicted - outside).max(axis=1).mean()

    best = max(combinations(range(15), 2), key=value)
    assert value(linear_set(problem)) == pytest.approx(value(best), abs=1e-12)


def test_a_summary_pairs_seeds():
    def outcomes(*regrets):
        return [Outcome(n, {"regret": r}, np.ones(1), np.ones(1)) for n, r in zip("ab", regrets, strict=True)]

    a, b = summary([outcomes(10.0, 11.0), outcomes(90.0, 91.0)], against="a")
    assert b["regret_less"] == {"mean": 1.0, "low": 1.0, "high": 1.0}  # though seeds differ by far more
    assert a["regret"]["mean"] == 50.0
    assert summary([outcomes(1.0, 2.0)])[0]["regret"]["low"] is None


def test_processes_return_seeds_in_order():
    assert over_seeds(lambda seed: [seed], 3, requests=10**6, label="x") == [[0], [1], [2]]


# What all commands have in common.


@pytest.fixture
def every(tmp_path):
    """Arguments of a short run of each command."""
    rng = np.random.default_rng(0)
    contexts, rewards = rng.standard_normal((80, 3)), rng.random((80, 4))
    np.savez(tmp_path / "m.npz", contexts=contexts, rewards=rewards)
    priced = str(tmp_path / "priced.npz")
    np.savez(priced, contexts=contexts, rewards=rewards, usd=rewards + 0.1, who=["a", "b", "c", "d"])
    arms = rng.integers(4, size=900)
    Trace(
        names=["a", "b", "c", "d"], arms=arms, rewards=rng.random(900), propensities=np.full(900, 0.25),
        contexts=rng.standard_normal((900, 3)),
    ).save(tmp_path / "log.csv")  # fmt: skip
    short = ["--seeds", "2", "--requests", "256", "--out", str(tmp_path / "out")]
    matrix, log = str(tmp_path / "m.npz"), str(tmp_path / "log.csv")
    return {
        "demo": ["demo", *short],
        "study matrix": ["study", "matrix", matrix, *short],
        "study frontier": [
            "study",
            "frontier",
            priced,
            *short,
            "--prices",
            "0",
            "1",
            "--costs",
            "usd",
            "--arms",
            "who",
        ],
        "diagnose": ["diagnose", matrix],
        "diagnose, a trace": ["diagnose", log],
        "tune": ["tune", matrix, "--trials", "2", "--seeds", "4", "--requests", "60"],
        "tune, a trace": ["tune", log, "--trials", "2", "--seeds", "4"],
        "report": ["report", log, "--out", str(tmp_path / "out" / "page.html")],
    }


class Terminal(io.StringIO):
    def isatty(self):
        return True


# Tried elsewhere: one serves until it is stopped (test_sidecar.py), the others are done at once (test_config.py).
ENDING = sorted(set(COMMANDS) - {"serve", "config check", "config schema", "warmup"})


@pytest.mark.parametrize("command", ENDING)
def test_every_command_prints_json_and_shows_progress_on_a_terminal_only(command, every, capsys, monkeypatch):
    assert main([*every[command], "--json"]) == 0
    quiet = capsys.readouterr()
    json.loads(quiet.out)
    assert quiet.err == ""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert main([*every[command], "--json"]) == 0
    json.loads(capsys.readouterr().out)  # the bar is not in what a program reads
    assert "100%" in terminal.getvalue() or "%|" in terminal.getvalue()


def test_every_command_of_the_table_is_tried(every):
    assert {name.split(",")[0] for name in every} == set(ENDING)


@pytest.mark.parametrize("command", ["diagnose, a trace", "tune, a trace"])
def test_traces_are_read_too(command, every, capsys):
    assert main(every[command]) == 0
    said = capsys.readouterr().out
    assert "4 arms" in said or "2 trials" in said


def test_a_diagnosis_of_a_trace_is_that_of_its_expected_rewards(every, capsys):
    assert main([*every["diagnose, a trace"], "--json", "--fault", "0.2", "--window", "50"]) == 0
    found = json.loads(capsys.readouterr().out)
    log = Trace.load(every["diagnose, a trace"][1])
    wanted = diagnose(expected_rewards(log), 0.2, window=50)
    assert found["worth"] == wanted.worth
    assert found["coverage"] == wanted.coverage.tolist() and found["hits"] == wanted.hits.tolist()


@pytest.mark.parametrize("command", ["study matrix", "diagnose", "tune", "report"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no file"),
        (b"a,b\n1,2\n", "is not an .npz file"),
        (b"PK\x05\x06" + bytes(18), "holds"),
        ("cut", ""),
        ("words", ""),
    ],
    ids=["absent", "text", "empty archive", "cut short", "strings"],
)
def test_a_file_that_will_not_do_ends_in_one_line(command, content, reason, tmp_path, capsys, every):
    path = tmp_path / "bad.npz"
    if content == "cut":
        path.write_bytes((tmp_path / "m.npz").read_bytes()[:-300])
    elif content == "words":
        np.savez(path, contexts=np.array([["a"]]), rewards=np.array([["b"]]))
    elif content is not None:
        path.write_bytes(content)
    rest = ["--out", str(tmp_path / "o")] if command in ("study matrix", "report") else []
    assert main([*command.split(), str(path), *rest]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and said.err.startswith("banditroute: ")
    assert reason in said.err and "Traceback" not in said.err


@pytest.mark.parametrize("command", ["diagnose", "tune", "report"])
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("bad.jsonl", b"[1, 2]\n", "is not JSON lines of objects"),
        ("bad.csv", b"# banditroute trace [1]\narm,reward\na,1\n", "its header must list names"),
        ("bad.csv", b"arm,reward\n\xe9,1\n", "can't decode"),
        ("bad.csv", b"arm,reward,id\na,1,-1\n", "column 'id': must hold whole numbers in"),
        ("bad.npz", {}, "its header must list names"),
    ],
)
def test_a_trace_that_will_not_do_is_named_with_its_fault(command, name, content, reason, tmp_path, capsys):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, header=np.array(json.dumps(content)), arms=[0], rewards=[1.0])
    assert main([command, str(path), *(["--out", str(tmp_path / "o")] if command == "report" else [])]) == 1
    said = capsys.readouterr()
    assert said.err.startswith(f"banditroute: {path} cannot be read: ") and said.err.count("\n") == 1
    assert reason in said.err


@pytest.mark.parametrize("arguments", [["--window", "0"], ["--slots", "0"], ["--components", "-1"]])
def test_numbers_that_make_no_sense_are_wrong_usage(arguments, every):
    with pytest.raises(SystemExit) as leaving:
        main([*every["diagnose"], *arguments])
    assert leaving.value.code == 2


def test_the_wrong_kind_of_array_ends_in_one_line(tmp_path, capsys):
    np.savez(tmp_path / "a.npz", rewards=np.ones((30, 3)), served=np.full(30, 0.5))
    assert main(["diagnose", str(tmp_path / "a.npz"), "--trace", "served"]) == 1
    assert capsys.readouterr().err == "banditroute: trace must hold integers, got dtype float64\n"


def test_an_interrupt_leaves_with_130(monkeypatch, capsys, every):
    monkeypatch.setattr("banditroute.cli.diagnose.run", lambda args: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(every["diagnose"]) == 130
    assert capsys.readouterr().err == "banditroute: interrupted\n"


@pytest.mark.parametrize("module", ["joblib", "tqdm"])
def test_a_missing_package_is_named_with_its_extra(module, monkeypatch, capsys, every):
    monkeypatch.setitem(sys.modules, module, None)
    assert main([*every["study matrix"], "--seeds", "3"]) == 1
    assert f"needs {module}: pip install 'banditroute[demo]'" in capsys.readouterr().err


def test_without_tqdm_a_diagnosis_goes_on_without_a_bar(monkeypatch, every, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert main(every["diagnose"]) == 0
    assert "4 arms" in capsys.readouterr().out


def test_a_reader_that_leaves_early_is_no_error_to_shout_about(every):
    """As in ``banditroute diagnose ... | head -0``."""
    code = f"import sys; from banditroute.cli import main; sys.exit(main({every['diagnose']!r}))"
    done = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    done.stdout.close()
    assert done.wait(60) == 1
    assert done.stderr.read() == ""
    done.stderr.close()


def test_a_frontier_prints_prices_arms_by_name_and_the_area(every, tmp_path, capsys):
    assert main(every["study frontier"]) == 0
    said = capsys.readouterr()
    assert [line.split("  ")[0] for line in said.out.splitlines()[2:8]] == [
        "LinUCB, price 0", "LinUCB, price 1", "always a", "always b", "always c", "always d",
    ]  # fmt: skip
    assert "AIQ of LinUCB over its range of costs: 0." in said.out and png(tmp_path / "out" / "frontier.png")
    free = [one for one in every["study frontier"] if one not in ("--costs", "usd")]
    assert main(free) == 1
    assert "must have costs: --costs KEY" in capsys.readouterr().err


def test_arrays_that_a_command_does_not_use_are_named(every, tmp_path, capsys):
    free = [one for one in every["study frontier"] if one not in ("--arms", "who")]
    assert main(free) == 0
    assert capsys.readouterr().err == "banditroute: priced.npz: not used: `who`\n"


def test_one_set_of_matrix_options_for_all_commands(capsys):
    for words in ("study matrix", "study frontier", "tune", "report", "diagnose"):
        with pytest.raises(SystemExit):
            main([*words.split(), "--help"])
        said = capsys.readouterr().out
        assert all(
            option in said for option in ("--contexts", "--rewards", "--scale", "--components", "--context ")
        )


def test_the_demo_announces_what_it_does_and_how_long(tmp_path, capsys):
    assert main(["demo", "--seeds", "1", "--requests", "100", "--out", str(tmp_path)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("Training 15 classifiers of digits, then 1 seeds of 100 requests under 7 ways")
    assert "about 15 seconds" in first


def test_rewards_of_another_scale_than_the_fault_price_draw_a_word(tmp_path, capsys):
    rng = np.random.default_rng(0)
    arms = rng.integers(2, size=300)
    for size, word in (
        (100.0, "faults count for nothing here"),
        (0.01, "rewards count for nothing beside faults"),
    ):
        log = Trace(
            names=["a", "b"], arms=arms, rewards=size * rng.random(300), propensities=np.full(300, 0.5)
        )
        log.save(tmp_path / "log.csv")
        assert main(["report", str(tmp_path / "log.csv"), "--out", str(tmp_path / "r.html")]) == 0
        assert word in capsys.readouterr().out
        assert word in (tmp_path / "r.html").read_text()


def test_a_report_estimates_propensities_when_told_and_says_so(tmp_path, capsys):
    rng = np.random.default_rng(0)
    log = Trace(names=["a", "b"], arms=rng.integers(2, size=300), rewards=rng.random(300))
    log.save(tmp_path / "log.csv")
    arguments = ["report", str(tmp_path / "log.csv"), "--out", str(tmp_path / "r.html")]
    assert main(arguments) == 0
    assert "Record propensities" in capsys.readouterr().out
    assert main([*arguments, "--estimate-propensities"]) == 0
    assert "The propensities are estimated from the log" in capsys.readouterr().out
