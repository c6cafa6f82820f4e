"""Traces: columns and their rules, files there and back, and exports."""

import csv
import json
import time
import tracemalloc
from datetime import date
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banditroute import LinUCB, Polar, Trace, simulate
from banditroute.logs import to_dsjson, to_obp
from banditroute.simulation.workloads import homes

SUFFIXES = ["npz", "csv", "jsonl", "parquet"]
OPTIONAL = [name for name in Trace.columns() if name not in ("arms", "rewards")]


def full(rows=7, seed=0):
    rng = np.random.default_rng(seed)
    arms = rng.integers(3, size=rows)
    eligible = rng.random((rows, 3)) < 0.6
    eligible[np.arange(rows), arms] = True
    rewards = rng.standard_normal(rows)
    rewards[::3] = np.nan
    return Trace(
        names=['a "quoted", one', "b:2", "ü"],
        policies=["LinUCB", "Polar, 4"],
        arms=arms,
        rewards=rewards,
        propensities=rng.random(rows),
        contexts=rng.standard_normal((rows, 2)),
        times=1.7e9 + rng.random(rows),
        ids=rng.integers(1 << 63, 1 << 64, size=rows, dtype=np.uint64),
        eligible=eligible,
        prices=rng.random((rows, 3)) / 3,
        fault_prices=rng.random((rows, 3)) / 6,
        costs=np.where(rng.random(rows) < 0.5, np.nan, rng.random(rows)),
        hits=rng.random(rows) < 0.5,
        latencies=np.where(rng.random(rows) < 0.5, np.nan, rng.random(rows)),
        policy=rng.integers(2, size=rows),
        versions=np.arange(rows) * 10**12,
    )


def assert_same(one, two):
    assert (one.names, one.policies) == (two.names, two.policies)
    for name in Trace.columns():
        a, b = getattr(one, name), getattr(two, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == b.dtype and a.shape == b.shape, name
            assert a.tobytes() == b.tobytes() or np.array_equal(a, b, equal_nan=a.dtype.kind == "f"), name


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_give_back_every_bit(suffix, tmp_path):
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    trace = full()
    assert_same(Trace.load(trace.save(tmp_path / f"log.{suffix}")), trace)
    for missing in OPTIONAL:
        columns = {n: getattr(trace, n) for n in Trace.columns() if n != missing}
        part = Trace(names=trace.names, policies=trace.policies, **columns)
        assert_same(Trace.load(part.save(tmp_path / f"part.{suffix}")), part)
    bare = Trace(names=["x", "never"], arms=[0, 0], rewards=[1.0, np.nan])
    assert_same(Trace.load(bare.save(tmp_path / f"bare.{suffix}")), bare)
    none = Trace(names=["x", "y"], arms=[], rewards=[], propensities=[])
    assert_same(Trace.load(none.save(tmp_path / f"none.{suffix}")), none)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.floats(allow_nan=False, allow_infinity=False)), min_size=1),
    st.sampled_from(SUFFIXES[:3]),
)
@settings(max_examples=40)
def test_any_finite_reward_survives(tmp_path_factory, rows, suffix):
    arms, rewards = zip(*rows, strict=True)
    trace = Trace(names=["a", "b"], arms=arms, rewards=rewards)
    assert_same(Trace.load(trace.save(tmp_path_factory.mktemp("t") / f"log.{suffix}")), trace)


def test_text_from_elsewhere(tmp_path):
    (tmp_path / "own.csv").write_text(
        "reward,arm,propensity,context:age,eligible:x,eligible:y\n1,y,0.5,3,0,1\n,x,1,4,1,1\n"
    )
    trace = Trace.load(tmp_path / "own.csv")
    assert (trace.names, trace.arms.tolist()) == (("x", "y"), [1, 0])
    assert np.isnan(trace.rewards[1])
    assert trace.contexts.tolist() == [[3.0], [4.0]]
    assert trace.eligible.tolist() == [[False, True], [True, True]]
    (tmp_path / "own.jsonl").write_text('{"arm": "m", "reward": 1}\n{"arm": "k", "reward": null}\n')
    assert Trace.load(tmp_path / "own.jsonl").names == ("k", "m")
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"arm": ["m", "k"], "reward": [1.0, None]}), tmp_path / "own.parquet")
    trace = Trace.load(tmp_path / "own.parquet")
    assert (trace.names[trace.arms[0]], np.isnan(trace.rewards[1])) == ("m", True)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "arm,value\nx,1\n", "must have a column 'reward'"),
        ("a.csv", "arm,reward\nx,1,2\n", "2 cells in every row, got 3"),
        ("a.csv", "arm,reward\nx,soon\n", "column 'reward'"),
        ("a.csv", "arm,reward,hit\nx,1,perhaps\n", "column 'hit'.*0 or 1"),
        ("a.jsonl", "{arm: 1}", "is not JSON lines"),
        ("a.jsonl", '{"reward": 1}', "must have a column 'arm'"),
        ("a.npz", "text", "is not an .npz file"),
        ("a.parquet", "text", "is not a Parquet file"),
        ("a.txt", "text", "path must end in"),
    ],
)
def test_files_that_are_no_traces_are_refused(name, text, message, tmp_path):
    if name == "a.parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        Trace.load(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"arms": [0, 3]}, ValueError, r"arms must be in \[0, 2\], got 0 .. 3"),
        ({"arms": [0, -1]}, ValueError, "arms must be in"),
        ({"arms": [0.0, 1.0]}, TypeError, "arms must be"),
        ({"rewards": [1.0]}, ValueError, r"rewards must have shape \(2,\)"),
        ({"rewards": [1.0, np.inf]}, ValueError, "rewards must be finite or NaN"),
        ({"rewards": ["1", "2"]}, TypeError, "rewards must hold real numbers"),
        ({"contexts": [[1.0], [np.nan]]}, ValueError, "contexts must be finite"),
        ({"eligible": [[1, 1, 1]] * 2}, ValueError, "eligible must be boolean"),
        ({"hits": [True]}, ValueError, "hits must be boolean"),
        ({"ids": [1.0, 2.0]}, ValueError, "ids must be 2 integers"),
        ({"ids": [1, -1]}, ValueError, r"ids must be in \[0, 2\^64 - 1\], got -1"),
        ({"policy": [0, 1]}, ValueError, "policy must be in"),
        ({"names": ["a", "a", "b"]}, ValueError, "distinct"),
    ],
)
def test_bad_columns_are_refused(change, error, message):
    columns = {"names": ["a", "b", "c"], "arms": [0, 1], "rewards": [1.0, 0.0]}
    with pytest.raises(error, match=message):
        Trace(**{**columns, **change})


def test_what_a_row_lacks_is_not_known_and_columns_may_begin_late(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"arm": "a", "reward": 1}\n{"arm": "b", "reward": 0, "propensity": 0.5}\n')
    trace = Trace.load(path)
    assert np.isnan(trace.propensities[0]) and trace.propensities[1] == 0.5


def test_columns_by_number_go_by_the_number_and_a_mark_of_a_spreadsheet_is_skipped(tmp_path):
    path = tmp_path / "a.csv"
    order = [10, 1, 0, 2, 3, 4, 5, 6, 7, 8, 9]
    head = ",".join(f"context:{j}" for j in order)
    path.write_text(f"\ufeffarm,reward,{head}\na,1,{','.join(map(str, order))}\n", encoding="utf-8")
    assert Trace.load(path).contexts.tolist() == [[float(j) for j in range(11)]]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"context": [[1.0, 2.0, 3.0], [4.0]]}, "must hold lists of one length, got 3 numbers in row 0 and 1 in row 1"),
        ({"context": [[1.0, 2.0], None]}, "'context': must have a number, or a list of numbers, in every row, got None in row 1"),
        ({"context": [[1.0], [None]]}, r"'context': must have a .*, got \[None\] in row 1"),
        ({"context": [1.0, None]}, "'context': must have a .*, got .nan. in row 1"),
        ({"eligible": [[True], [True, True]]}, "'eligible': must hold lists of one length"),
        ({"arm": ["a", None]}, "'arm': must hold names, got None in row 1"),
        ({"id": [1, -1]}, "'id': must hold whole numbers .*, got -1 in row 1"),
        ({"id": [1, None]}, "'id': must hold whole numbers .*, got None in row 1"),
    ],
)  # fmt: skip
def test_ragged_or_missing_cells_of_parquet_are_refused(column, message, tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"arm": ["a", "b"], "reward": [1.0, 0.0], **column}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet cannot be read: .*" + message):
        Trace.load(tmp_path / "a.parquet")


def test_lists_of_one_length_and_of_no_rows_are_read_from_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as pq

    columns = {"arm": ["a", "b"], "reward": [1.0, 0.0], "context": [[1.0, 2.0], [3.0, 4.0]]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert Trace.load(tmp_path / "a.parquet").contexts.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    empty = full()[:0]
    assert_same(Trace.load(empty.save(tmp_path / "empty.parquet")), empty)


MARKED = '# banditroute trace {"names": ["a"], "policies": [""]}\n'
MARKED_ROWS = (
    '{"banditroute trace": {"names": ["a"], "policies": [""], "columns": ["arm", "reward", "time"]}}\n'
)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '[1, 2]\n', "is not JSON lines of objects: got \\[1, 2\\]"),
        ("a.jsonl", '{"arm": "a", "reward": 1}\n3\n', "is not JSON lines of objects: got 3"),
        ("a.jsonl", '{"arm": null, "reward": 1}\n', "column 'arm': must hold names, got None in row 0"),
        ("a.jsonl", '{"arm": "a", "reward": 1}\n{"reward": 1}\n', "column 'arm': .* got None in row 1"),
        ("a.jsonl", '{"arm": {"x": 1}, "reward": 1}\n', "column 'arm': must hold names"),
        ("a.jsonl", '{"arm": "a", "reward": 1, "eligible": [2]}\n', "lists of values per arm must name the arms"),
        ("a.jsonl", '{"banditroute trace": "x"}\n', "its header must list names, got 'x'"),
        ("a.jsonl", MARKED_ROWS + '{"arm": "a", "time": 1}\n', "every row must hold arm, reward, time"),
        ("a.jsonl", MARKED_ROWS + '{"arm": "a", "reward": 1, "time": 1, "hit": 1}\n', "every row must hold"),
        ("a.csv", "arm,reward,reward\na,1,0\n", "columns must be distinct, got 'reward' twice"),
        ("a.csv", "arm,reward,eligible:a\na,1,.5\n", "column 'eligible:a': must be 0 or 1, got '.5' in row 0"),
        ("a.csv", "arm,reward,eligible:a\na,1,\n", "column 'eligible:a': must be 0 or 1, got '' in row 0"),
        ("a.csv", "arm,reward,context:0\na,1,\n", "column 'context:0': must have a value in every row, got '' in row 0"),
        ("a.csv", "arm,reward,id\na,1,-1\n", "column 'id': must hold whole numbers .*got '-1' in row 0"),
        ("a.csv", "arm,reward,id\na,1,18446744073709551616\n", "column 'id': must hold whole numbers in"),
        ("a.csv", "arm,reward\n\xe9,1\n".encode("latin-1"), "can't decode byte 0xe9"),
        ("a.csv", "arm,reward\na,inf\n", "column 'reward': must hold finite numbers, got 'inf' in row 0"),
        ("a.csv", "# banditroute trace {oops\narm,reward\n", "Expecting property name"),
        ("a.csv", "# banditroute trace [1]\narm,reward\n", "its header must list names"),
        ("a.csv", MARKED + "arm,reward,prices:b\na,1,2\n", "its columns prices: must be those of the arms"),
        ("a.npz", {}, "its header must list names, got {}"),
        ("a.npz", [1], "its header must list names"),
        ("a.npz", {"names": ["a"], "policies": [""]}, "rewards must have shape"),
    ],
)  # fmt: skip
def test_every_refusal_names_the_file_and_the_column(name, text, message, tmp_path):
    path = tmp_path / name
    if name == "a.npz":
        np.savez(path, header=np.array(json.dumps(text)), arms=[0, 0], rewards=[1.0])
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=rf"a\.\w+ cannot be read: .*{message}"):
        Trace.load(path)


def test_repeated_ids_are_counted():
    assert Trace(names=["a"], arms=[0] * 4, rewards=[1.0] * 4, ids=[3, 3, 3, 4]).repeated() == 2
    assert full().repeated() == 0 == Trace(names=["a"], arms=[0], rewards=[1.0]).repeated()


def test_rows_and_columns_of_a_part():
    trace = full()
    assert_same(trace[np.arange(7)], trace)
    assert trace[2:4].contexts.tolist() == trace.contexts[2:4].tolist()
    assert len(trace.answered()) == int((~np.isnan(trace.rewards)).sum())


def test_exports():
    trace = full()
    feedback = to_obp(trace)
    known = trace.answered()
    assert feedback["n_rounds"] == len(known) == len(feedback["pscore"])
    assert feedback["reward"].tolist() == known.rewards.tolist()
    with pytest.raises(ValueError, match="obp"):
        to_obp(Trace(names=["a"], arms=[0], rewards=[1.0]))
    with pytest.raises(ValueError, match="dsjson"):
        to_dsjson(Trace(names=["a"], arms=[0], rewards=[1.0]), "nowhere")


def test_dsjson_lists_eligible_arms_and_sums_to_one(tmp_path):
    trace = full()
    known = trace.answered()
    lines = [json.loads(line) for line in to_dsjson(trace, tmp_path / "l.dsjson").read_text().splitlines()]
    assert len(lines) == len(known)
    for i, line in enumerate(lines):
        arms = [next(iter(one["arm"])) for one in line["c"]["_multi"]]
        assert arms == [n for n, allowed in zip(known.names, known.eligible[i], strict=True) if allowed]
        assert arms[line["_labelIndex"]] == known.names[known.arms[i]]
        assert line["a"][0] == line["_label_Action"] == line["_labelIndex"] + 1
        assert sorted(line["a"]) == list(range(1, len(arms) + 1))
        assert line["p"][0] == line["_label_probability"] == known.propensities[i]
        if len(arms) > 1:
            assert sum(line["p"]) == pytest.approx(1.0)
        assert line["_label_cost"] == line["o"][0]["v"] == -known.rewards[i]
        assert int(line["EventId"]) == int(known.ids[i])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_of_the_first_format_are_read(suffix):
    """Frozen: what the first release wrote, and what the present one does."""
    if suffix == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    here = Path(__file__).parent / "data"
    first, second = (Trace.load(here / name / f"log.{suffix}") for name in ("trace-1", "trace-2"))
    assert first.fault_prices is None and first.costs is None
    assert (first.names, first.policies, len(first)) == (
        ('a "quoted", one', "b:2", "ü"),
        ("LinUCB", "Polar, 4"),
        7,
    )
    assert first.ids.tolist()[0] == 12954704163722812373 and first.versions.tolist()[-1] == 6 * 10**12
    assert np.isnan(first.rewards[0]) and first.rewards[1] == -0.7434992493538084
    assert_same(second, full())


@pytest.mark.parametrize("change", [{"format": 3}, {"format": "2"}, {"checksum": None}])
def test_a_file_of_a_later_format_or_without_its_checksum_is_refused(change, tmp_path):
    path = full().save(tmp_path / "log.jsonl")
    head, *rows = path.read_text().splitlines(keepends=True)
    header = json.loads(head)
    header["banditroute trace"] |= change
    path.write_text(json.dumps(header) + "\n" + "".join(rows))
    with pytest.raises(
        ValueError, match=r"log\.jsonl cannot be read: its (format must be|header is damaged)"
    ):
        Trace.load(path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_number_that_was_changed_is_told(suffix, tmp_path):
    path = full().save(tmp_path / f"log.{suffix}")
    text = path.read_text()
    digit = text.index("0.", text.index("\n")) + 4
    path.write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :])
    with pytest.raises(ValueError, match="its content is not what was written"):
        Trace.load(path)


@pytest.mark.parametrize("p", [0.0, 1.5, -0.2])
def test_writers_refuse_what_is_no_probability_and_change_no_file(p, tmp_path):
    trace = Trace(names=["a"], arms=[0, 0], rewards=[1.0, 1.0], propensities=[0.5, p], contexts=np.eye(2))
    for name in (*(f"log.{suffix}" for suffix in SUFFIXES), "log.dsjson"):
        path = tmp_path / name
        path.write_text("old")
        with pytest.raises(
            ValueError, match=rf"propensities must be in \(0, 1\] to be written, got {p} in row 1"
        ):
            to_dsjson(trace, path) if name.endswith("dsjson") else trace.save(path)
        assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
        path.unlink()
    with pytest.raises(ValueError, match="propensities must be in"):
        to_obp(trace)
    unknown = Trace(names=["a"], arms=[0], rewards=[1.0], propensities=[np.nan])
    with pytest.raises(ValueError, match="got nan in row 0"):
        to_dsjson(unknown, tmp_path / "log.dsjson")


def test_files_with_contexts_are_for_their_owner_and_keep_mode_and_link(tmp_path):
    bare = Trace(names=["a"], arms=[0], rewards=[1.0])
    for suffix in SUFFIXES[:3]:
        assert full().save(tmp_path / f"x.{suffix}").stat().st_mode & 0o077 == 0
        assert bare.save(tmp_path / f"y.{suffix}").stat().st_mode & 0o400
    target = tmp_path / "x.csv"
    target.chmod(0o640)
    (tmp_path / "link.csv").symlink_to(target)
    full().save(tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink() and target.stat().st_mode & 0o777 == 0o640
    assert len(list(tmp_path.iterdir())) == 7


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_readers_agree_on_numbers_truth_values_times_and_ids(suffix, tmp_path):
    """One table, in the words of each format, and as text throughout."""
    columns = {
        "arm": ["b", "a", "b"],
        "reward": [True, 0.5, None],
        "time": ["2024-05-31T12:00:00Z", "2024-05-31 14:00:01+02:00", "1717156802"],
        "id": [str(2**64 - 1), "chatcmpl-9", "7"],
        "hit": [True, False, True],
        "context": [[0.5, 1], [2.0, 3], [4, 5]],
        "cost": [None, "0.25", "1e-3"],
    }
    text = {
        k: [v if k == "context" else "" if v is None else str(v) for v in values]
        for k, values in columns.items()
    }
    for table in (columns, text):
        if suffix == "parquet":
            pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
            own = (
                dict(table, reward=[None if r is None else float(r) for r in table["reward"]])
                if table is columns
                else table
            )
            pa.parquet.write_table(pa.table(own), tmp_path / "log.parquet")
        elif suffix == "jsonl":
            rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
            (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
        else:
            with (tmp_path / "log.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(table)
                writer.writerows(zip(*table.values(), strict=True))
        trace = Trace.load(tmp_path / f"log.{suffix}")
        assert (trace.names, trace.arms.tolist()) == (("a", "b"), [1, 0, 1])
        assert trace.rewards[:2].tolist() == [1.0, 0.5] and np.isnan(trace.rewards[2])
        assert trace.times.tolist() == [1717156800.0, 1717156801.0, 1717156802.0]
        assert trace.ids.tolist()[::2] == [2**64 - 1, 7] and 0 < int(trace.ids[1]) < 2**63
        assert trace.hits.tolist() == [True, False, True]
        assert trace.contexts.tolist() == [[0.5, 1.0], [2.0, 3.0], [4.0, 5.0]]
        assert np.isnan(trace.costs[0]) and trace.costs[1:].tolist() == [0.25, 0.001]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize(
    ("field", "cell"),
    [("id", "1_0"), ("id", "3.7"), ("id", "nan"), ("id", "-1"), ("id", "1.8446744073709550e19"), ("id", "9007199254740993.0"),
     ("reward", "1_0"), ("reward", "soon"), ("reward", "1e999"), ("version", "2.9"), ("hit", "2"), ("hit", ""),
     ("time", "yesterday"), ("context", "[1, null]"), ("context", "[1, true"), ("context", ""), ("arm", None)],
)  # fmt: skip
def test_readers_agree_on_what_they_refuse_and_name_the_row(suffix, field, cell, tmp_path):
    if cell is None and suffix == "csv":
        pytest.skip("CSV has no word for nothing")
    fine = {
        "id": "7",
        "reward": "1",
        "version": "3",
        "hit": "1",
        "time": "5",
        "context": "[1, 2]",
        "arm": "a",
    }
    table = {"arm": ["a", "a"], "reward": ["1", "1"], field: [fine[field], cell]}
    path = tmp_path / f"log.{suffix}"
    if suffix == "parquet":
        pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
        pa.parquet.write_table(pa.table(table), path)
    elif suffix == "jsonl":
        path.write_text("\n".join(json.dumps({k: v[i] for k, v in table.items()}) for i in range(2)))
    else:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([list(table), *zip(*table.values(), strict=True)])
    with pytest.raises(ValueError, match=rf"log\.{suffix} cannot be read: .*'{field}': must .* in row 1"):
        Trace.load(path)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_ids_that_went_through_doubles_are_refused_as_numbers_too(suffix, tmp_path):
    path = tmp_path / f"log.{suffix}"
    if suffix == "parquet":
        pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
        pa.parquet.write_table(pa.table({"arm": ["a"], "reward": [1], "id": [2.0**53]}), path)
    elif suffix == "jsonl":
        path.write_text('{"arm": "a", "reward": 1, "id": 9007199254740993.0}')
    else:
        path.write_text("arm,reward,id\na,1,9007199254740993.0\n")
    with pytest.raises(ValueError, match="went through no double"):
        Trace.load(path)


def test_columns_that_are_not_used_are_named_with_what_they_may_mean(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("arm,reward,propensities,tokens\na,1,0.5,7\n")
    with pytest.warns(
        UserWarning, match=r"log\.csv: not used: `propensities` \(did you mean propensity\?\), `tokens`"
    ):
        trace = Trace.load(path)
    assert trace.propensities is None and trace.notes == (
        "not used: `propensities` (did you mean propensity?), `tokens`",
    )
    assert trace[:1].notes == trace.notes
    with pytest.warns(UserWarning, match="not used: `tokens`$"):
        assert Trace.load(path, propensity="propensities").propensities.tolist() == [0.5]
    path.write_text("model,score\na,1\n")
    with pytest.raises(ValueError, match="must have a column 'arm', got 'model', 'score'; is it 'model'"):
        Trace.load(path)
    with pytest.raises(ValueError, match="it has no column 'scores'; did you mean 'score'"):
        Trace.load(path, arm="model", reward="scores")


def test_wide_contexts_and_arms_by_column_are_read_in_any_order(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("model,r,e_10,e_2,ok:b,ok:a\nb,1,10,2,1,0\na,0,11,3,1,1\n")
    trace = Trace.load(path, arm="model", reward="r", context="e_*", eligible="ok:*")
    assert trace.contexts.tolist() == [[2.0, 10.0], [3.0, 11.0]]
    assert (trace.names, trace.eligible.tolist()) == (("a", "b"), [[False, True], [True, True]])
    trace = Trace.load(path, arm="model", reward="r", context=["e_10", "e_2"], eligible="ok:*")
    assert trace.contexts.tolist() == [[10.0, 2.0], [11.0, 3.0]]


def test_values_per_arm_go_by_name(tmp_path):
    path = tmp_path / "log.jsonl"
    rows = [
        {"arm": "b", "reward": 1, "eligible": ["b"], "prices": {"b": 0.5, "a": 0.25}},
        {"arm": "a", "reward": 0, "eligible": ["a", "b"], "prices": {"a": 0.0, "b": 1.0}},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    trace = Trace.load(path)
    assert trace.eligible.tolist() == [[False, True], [True, True]]
    assert trace.prices.tolist() == [[0.25, 0.5], [0.0, 1.0]]
    rows[0]["eligible"] = rows[1]["eligible"] = [True, False]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=r"lists of values per arm must name the arms \['a', 'b'\]"):
        Trace.load(path)
    for row, arm in zip(rows, (1, 0), strict=True):
        row |= {"arm": arm, "prices": [0.0, 0.5]}
    path.write_text("\n".join(map(json.dumps, rows)))
    assert Trace.load(path).prices.tolist() == [[0.0, 0.5]] * 2


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_arms_that_are_whole_numbers_come_in_their_order(suffix, tmp_path):
    path, arms = tmp_path / f"log.{suffix}", [11, 2, 10, -1]
    if suffix == "parquet":
        pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
        pa.parquet.write_table(pa.table({"arm": arms, "reward": [1.0] * 4}), path)
    elif suffix == "jsonl":
        path.write_text("\n".join(json.dumps({"arm": arm, "reward": 1}) for arm in arms))
    else:
        path.write_text("arm,reward\n" + "".join(f"{arm},1\n" for arm in arms))
    assert Trace.load(path).names == ("-1", "2", "10", "11")


def test_csv_as_tools_write_it(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        '# made by hand\narm,reward,context\r\n"a,\nb",True,"[0.5, 1.0]"\r\n# done\nc,False,"[1, 2]"\n\n'
    )
    with pytest.raises(ValueError, match="its first line must be titles, got '# made by hand'; comment='#'"):
        Trace.load(path)
    trace = Trace.load(path, comment="#")
    assert (trace.names, trace.rewards.tolist()) == (("a,\nb", "c"), [1.0, 0.0])
    assert trace.contexts.tolist() == [[0.5, 1.0], [1.0, 2.0]]


def test_text_is_read_in_linear_time_and_bounded_memory(tmp_path):
    """Each row with a key of its own: the table of all keys by all rows has 400 million cells."""
    took, path = {}, tmp_path / "log.jsonl"
    for rows in (5_000, 20_000):
        path.write_text("".join(f'{{"arm":"a","reward":1,"k{i}":1}}\n' for i in range(rows)))
        tracemalloc.start()
        begin = time.process_time()
        with pytest.warns(UserWarning, match=rf"and {rows - 100:,} more"):
            Trace.load(path)
        took[rows] = time.process_time() - begin
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 15 * path.stat().st_size
    assert took[20_000] < 8 * max(took[5_000], 0.1)


def test_large_parquet_is_read_in_batches(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    rows = 150_000
    table = pa.table(
        {"arm": ["b", "a"] * (rows // 2), "reward": np.arange(rows) / rows, "other": ["x" * 200] * rows}
    )
    pa.parquet.write_table(table, tmp_path / "log.parquet", row_group_size=40_000)
    with pytest.warns(UserWarning, match="`other`"):
        trace = Trace.load(tmp_path / "log.parquet")
    assert len(trace) == rows and trace.arms[:3].tolist() == [1, 0, 1]
    assert trace.rewards.tolist() == table["reward"].to_pylist()


def test_types_of_parquet_mean_what_they_say(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    import pyarrow.parquet as pq

    columns = {
        "arm": pa.array(["a"]).dictionary_encode(),
        "reward": pa.array([Decimal("0.25")]),
        "time": pa.array([1717156800 * 10**9], pa.timestamp("ns", tz="Asia/Tokyo")),
        "id": pa.array([Decimal(2**64 - 1)], pa.decimal128(20, 0)),
        "cost": pa.array([3], pa.int8()),
        "eligible": pa.array([["a"]]),
        "prices": pa.array([{"a": 0.5}]),
        "context": pa.array(["[1, 2]"]),
    }
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    trace = Trace.load(tmp_path / "log.parquet")
    assert (trace.rewards[0], trace.times[0], int(trace.ids[0])) == (0.25, 1717156800.0, 2**64 - 1)
    assert (trace.costs[0], trace.prices.tolist()) == (3.0, [[0.5]])
    assert trace.eligible.all() and trace.contexts.tolist() == [[1.0, 2.0]]
    pq.write_table(pa.table({**columns, "time": pa.array([date(2024, 5, 31)])}), tmp_path / "log.parquet")
    assert Trace.load(tmp_path / "log.parquet").times.tolist() == [1717113600.0]
    assert repr(trace[:0]) == "Trace(0 rows, 1 arms ('a'), contexts, times, ids, eligible, prices, costs)"


def test_a_folder_is_read_as_one_trace(tmp_path):
    Trace(names=["a", "b"], arms=[1], rewards=[1.0], costs=[0.5], contexts=[[1.0]]).save(tmp_path / "1.npz")
    Trace(names=["b", "c"], arms=[0, 1], rewards=[0.0, 0.5], contexts=[[2.0], [3.0]]).save(tmp_path / "2.csv")
    (tmp_path / "notes.txt").write_text("not a trace")
    both = Trace.load(tmp_path)
    assert (both.names, both.arms.tolist(), both.rewards.tolist()) == (
        ("a", "b", "c"),
        [1, 1, 2],
        [1.0, 0.0, 0.5],
    )
    assert both.eligible.tolist() == [[True, True, False], [False, True, True], [False, True, True]]
    assert (
        both.costs[0] == 0.5
        and np.isnan(both.costs[1:]).all()
        and both.contexts.ravel().tolist() == [1, 2, 3]
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no trace in"):
        Trace.load(tmp_path / "empty")


def test_names_that_look_like_numbers_are_ids_and_damaged_numbers_are_none():
    names = ["12e45", "3e0012", "00000000000000000000000000000012", "0a", "chatcmpl-1", "f" * 32]
    ids = Trace.from_frame({"arm": ["a"] * 6, "reward": [1] * 6, "id": names}).ids
    assert len(set(ids.tolist())) == 6 and ids.max() < 2**63 and ids.min() > 2**40
    for odd in ("1e19", "1.5e19", "12.0e5", "inf", "NaN", "+7", "18446744073709551616", "9007199254740993.0"):
        with pytest.raises(ValueError, match=r"'id': .* in row 0"):
            Trace.from_frame({"arm": ["a"], "reward": [1], "id": [odd]})


def test_arms_and_times_may_be_names_and_datetimes_in_memory():
    moments = np.array(["2024-05-31T12:00:00", "NaT"], dtype="datetime64[ns]")
    trace = Trace(names=["a", "b"], arms=["b", "a"], rewards=[1.0, 0.0], times=moments, ids=["7", "x-1"])
    assert trace.arms.tolist() == [1, 0] and trace.times[0] == 1717156800.0 and np.isnan(trace.times[1])
    assert trace.ids[0] == 7
    with pytest.raises(ValueError, match="column 'arms': must be one of"):
        Trace(names=["a", "b"], arms=["c", "a"], rewards=[1.0, 0.0])


def test_a_run_of_a_simulation_becomes_a_trace(tmp_path):
    problem = homes(600, 3)
    run = simulate(LinUCB(15, 10, mix=0.1, rng=0), problem, Polar(4, epoch=200))
    trace = Trace.load(run.save(tmp_path / "run.npz"))
    at = np.arange(600)
    assert trace.names == problem.stream.arms and trace.policies == ("LinUCB",)
    assert trace.rewards.tolist() == problem.stream.rewards[at, run.arms].tolist()
    assert trace.contexts.tobytes() == problem.stream.contexts.tobytes()
    assert (trace.fault_prices[at, trace.arms] == 0.0).tolist() == trace.hits.tolist()
    assert np.array_equal(trace.prices, trace.fault_prices)
    assert trace.versions.tolist() == [int((at + 1 + problem.stream.delays <= t).sum()) for t in range(600)]


def test_a_folder_of_files_from_elsewhere_is_the_log_in_one_file(tmp_path):
    """An arm that a part of the log never chose was there all the same; numbers are in order over all parts."""
    rows = [f"{arm},{arm % 2},0.25\n" for arm in (2, 10, 2, -1, 9, -1, 10)]
    title, parts = "arm,reward,propensity\n", tmp_path / "parts"
    parts.mkdir()
    (tmp_path / "log.csv").write_text(title + "".join(rows))
    for i, some in enumerate((rows[:3], rows[3:5], rows[5:])):
        (parts / f"{i}.csv").write_text(title + "".join(some))
    whole, joined = Trace.load(tmp_path / "log.csv"), Trace.load(parts)
    assert whole.names == joined.names == ("-1", "2", "9", "10")
    assert whole.arms.tolist() == joined.arms.tolist() and joined.eligible is None
    known = Trace(names=["2", "other"], arms=[0], rewards=[1.0], propensities=[0.5])
    known.save(parts / "3.csv")  # says which arms there were
    mixed = Trace.load(parts)
    assert mixed.names == ("2", "10", "-1", "9", "other")
    assert mixed.eligible[:7].all() and mixed.eligible[7].tolist() == [True, False, False, False, True]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_numbers_of_arms_that_a_tool_wrote_as_fractions_come_in_order(suffix, tmp_path):
    path = tmp_path / f"log.{suffix}"
    row = {"csv": "{}.0,1\n", "jsonl": '{{"arm":"{}.0","reward":1}}\n'}[suffix]
    path.write_text(("arm,reward\n" if suffix == "csv" else "") + "".join(row.format(a) for a in (2, 10, 9)))
    assert Trace.load(path).names == ("2.0", "9.0", "10.0")
