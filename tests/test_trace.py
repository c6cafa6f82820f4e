"""Traces: columns and their rules, files there and back, exports, and the recorder beside a Router."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from banditroute import LinUCB, Polar, Recorder, Router, Trace
from banditroute.evaluation import evaluate
from banditroute.logs import to_dsjson, to_obp

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
        ({"context": [1.0, None]}, "'context': must have a .*, got nan in row 1"),
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


def routed(recorder, requests=300, **options):
    rng = np.random.default_rng(1)
    clock = iter(range(10**6))
    policy = LinUCB(["a", "b", "c"], 3, mix=0.3, rng=0)
    router = Router(policy, recorder=recorder, clock=lambda: float(next(clock)), **options)
    seen = []
    for i in range(requests):
        x = rng.standard_normal(3)
        mask = np.array([True, True, i % 4 > 0])
        prices = np.array([0.0, 0.1, 0.2]) if i % 2 else None
        decision = router.select(x, eligible=mask if i % 3 == 0 else None, prices=prices)
        reward = float(rng.standard_normal()) if i % 5 else None
        if reward is not None:
            router.update(decision.id, reward)
            router.update(decision.id, 99.0)  # a repeated answer must not be recorded
        seen.append((decision, x, mask if i % 3 == 0 else np.ones(3, bool), prices, reward))
    return router, seen


def test_recorder_writes_down_what_the_router_did():
    recorder = Recorder()
    router, seen = routed(recorder)
    recorder.waited(seen[3][0].id, 0.25)
    trace = recorder.trace()
    assert len(trace) == len(recorder) == 300
    for i, (decision, x, mask, prices, reward) in enumerate(seen):
        assert (int(trace.ids[i]), trace.names[trace.arms[i]]) == (decision.id, decision.arm)
        assert (trace.propensities[i], trace.hits[i], trace.times[i]) == decision[2:4] + decision[5:]
        assert trace.contexts[i].tolist() == x.tolist()
        assert trace.eligible[i].tolist() == mask.tolist()
        assert trace.prices[i].tolist() == [
            0.0 if prices is None or not m else p
            for m, p in zip(mask, np.zeros(3) if prices is None else prices, strict=True)
        ]
        assert np.isnan(trace.rewards[i]) if reward is None else trace.rewards[i] == reward
    assert trace.versions[-1] == router.stats()["learned"] - 1  # the last reward came after the last decision
    assert np.isnan(trace.latencies[2]) and trace.latencies[3] == 0.25
    found = evaluate(trace[np.arange(300) % 3 > 0], "a")
    assert any("learning policy" in note for note in found.notes)


def test_recording_changes_nothing():
    _, one = routed(None)
    _, two = routed(Recorder())
    assert [d[0][1:] for d in one] == [d[0][1:] for d in two]


def test_sampling_goes_by_the_id_and_options_hold():
    whole, part, small = Recorder(), Recorder(share=0.25, contexts=False), Recorder(limit=10)
    for recorder in (part, small):
        routed(recorder)
    router, seen = routed(whole)
    expected = [d.id for d, *_ in seen if d.id < 2**62]
    again = Recorder(share=0.25)
    for decision, x, *_ in seen:
        again.decided(decision, x, None, ("a", "b", "c"), "LinUCB", 0)
    assert again.trace().ids.tolist() == expected
    assert 75 - 38 < len(part) < 75 + 38  # 5 standard deviations of a binomial
    assert part.trace().contexts is None
    assert (len(small), small.dropped) == (10, 290)
    whole.clear()
    router.update(next(d.id for d, *_, reward in seen if reward is None), 1.0)
    with pytest.raises(ValueError, match="got none"):
        whole.trace()
    none = Recorder(share=0.0)
    routed(none)
    assert len(none) == 0


def test_arms_that_come_and_go_keep_their_columns():
    recorder = Recorder()
    router = Router(LinUCB(["a", "b"], 2, mix=0.5, rng=0), recorder=recorder)
    for change in (lambda: router.add_arm("new"), lambda: router.remove_arm("a"), lambda: None):
        for _ in range(10):
            router.update(router.select([1.0, 2.0]).id, 1.0)
        change()
    trace = recorder.trace()
    assert trace.names == ("a", "b", "new")
    assert (
        trace.eligible.tolist() == [[True, True, False]] * 10 + [[True] * 3] * 10 + [[False, True, True]] * 10
    )
    assert not np.isnan(trace.rewards).any()


def test_fault_prices_are_recorded():
    recorder = Recorder()
    _, seen = routed(recorder, residency=Polar(1, epoch=50), paging=0.4)
    trace = recorder.trace()
    allowed = np.isfinite(trace.prices)
    assert allowed.all()
    for i, (decision, _, _, prices, _) in enumerate(seen):
        own = 0.0 if prices is None else prices[trace.arms[i]]
        assert trace.prices[i, trace.arms[i]] == pytest.approx(own + (0.0 if decision.hit else 0.4))
