"""Sessions of workers on one store: each knows within a round where a conversation has its warm cache."""

import itertools
import json
import multiprocessing
import os
import signal
import time
import warnings

import numpy as np
import pytest

from banditroute import FileStore, LinUCB, Router
from banditroute.config import from_config
from banditroute.durability import notes
from banditroute.durability.rows import plain_bytes
from banditroute.durability.sheets import MOST, SHEET, Sheets, Told, told_rows
from banditroute.records import Extras, Note, Request
from banditroute.servers.sidecar import sidecar
from banditroute.terms import Sessions

ARMS = ("a", "b", "c")


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def worker(store, clock=time.monotonic, *, join=True, term=None, **options):
    """A Router with sessions whose prompt has the length of the second feature, and its replica."""
    options = {"saved": 0.001, "tokens": lambda x: x[1], **options}
    router = Router(
        LinUCB(ARMS, 2, rng=0), terms=[Sessions(**options) if term is None else term], clock=clock
    )
    return router, router.join(FileStore(store), background=False) if join else None


def turn(router, session, arm, tokens):
    return router.select([1.0, tokens], session=session, eligible={arm})


def now(router):
    return router.parts.books.now()


def asked(router, session, tokens):
    return Request(np.array([1.0, tokens]), 0, Extras(session=session), now(router))


def cached(router, session):
    return router.terms[0].cached(session, now(router))


def synced(*replicas, rounds=2):
    for _ in range(rounds):
        for replica in replicas:
            assert replica.sync()


def test_a_turn_is_known_elsewhere_after_a_round_and_shapes_the_choice(tmp_path):
    (one, first), (two, second) = (worker(tmp_path) for _ in range(2))
    turn(one, "u17", "b", 500.0)
    assert cached(two, "u17") == {}
    synced(first, second, rounds=1)
    assert cached(two, "u17") == {"b": 500.0}
    assert two.select([1.0, 600.0], session="u17").arm == "b"
    assert two.terms[0].prices(asked(two, "u17", 600.0)) == pytest.approx([0.6, 0.0, 0.6])
    synced(second, first, rounds=1)
    assert cached(one, "u17") == {"b": 600.0}


def test_without_a_store_nothing_is_noted():
    router, _ = worker("", join=False)
    turn(router, "u17", "b", 500.0)
    assert router.terms[0].notes() == []


def test_the_later_turn_counts_whatever_the_order(tmp_path):
    clock = Clock()
    told = [
        Note("s", "a", 10.0, 1.0),
        Note("s", "a", 30.0, 3.0),
        Note("s", "b", 5.0, 2.0),
        Note("s", "a", 20.0, 2.0),
    ]
    seen = set()
    for order in itertools.permutations(told):
        router, _ = worker("", clock, join=False)
        term = router.terms[0]
        term.take([*order, order[0]])
        assert term.take(order) == []
        seen.add(json.dumps(term.cached("s", 3.0), sort_keys=True))
    assert seen == {'{"a": 30.0, "b": 5.0}'}


def test_a_new_worker_hears_of_all_that_others_know(tmp_path):
    one, first = worker(tmp_path)
    for i in range(700):
        turn(one, f"s{i % 600}", ARMS[i % 3], 100.0 + i)
    first.sync()
    two, _ = worker(tmp_path)
    for i in range(600):
        assert cached(two, f"s{i}") == cached(one, f"s{i}")


def test_a_restart_keeps_what_was_known_and_tells_it_again(tmp_path):
    home = tmp_path / "journal"
    one, _ = worker(tmp_path / "store", join=False)
    one.recover(home)
    first = one.join(FileStore(tmp_path / "store"), background=False)
    two, second = worker(tmp_path / "store")
    turn(one, "mine", "a", 100.0)
    turn(two, "theirs", "b", 200.0)
    synced(first, second)
    turn(one, "mine", "c", 150.0)
    state = one.terms[0].to_state()
    journal_of(one).flush()
    journal_of(one).abandon()
    again, _ = worker(tmp_path / "other", join=False)
    again.recover(home)
    header, arrays = again.terms[0].to_state()
    assert header == state[0]
    assert all(np.array_equal(arrays[name], state[1][name]) for name in arrays)
    third = again.join(FileStore(tmp_path / "store"), background=False)
    synced(third, second)
    assert cached(two, "mine") == {"a": 100.0, "c": 150.0}
    assert cached(again, "theirs") == {"b": 200.0}


def journal_of(router):
    return next(one for one in router.parts.listeners.all if type(one).__name__ == "Journal")


def test_an_old_snapshot_takes_up_what_was_published_since(tmp_path):
    one, first = worker(tmp_path / "store")
    one.save(tmp_path / "old")
    turn(one, "s", "a", 100.0)
    first.sync()
    again, _ = worker("", join=False)
    again.load(tmp_path / "old")
    replica = again.join(FileStore(tmp_path / "store"), background=False)
    assert replica.id == first.id
    assert cached(again, "s") == {"a": 100.0}
    synced(replica)
    two, _ = worker(tmp_path / "store")
    assert cached(two, "s") == {"a": 100.0}


def test_what_a_dead_worker_told_outlives_its_compaction(tmp_path):
    (one, first), (two, second) = (worker(tmp_path) for _ in range(2))
    for i in range(300):
        turn(one, f"s{i}", "a", 100.0)
    turn(two, "s0", "a", 300.0)
    synced(first, second)
    gone = first.id
    del one, first
    assert second.compact([gone])
    second.sync()
    three, third = worker(tmp_path)
    assert [cached(three, f"s{i}")["a"] for i in range(300)] == [300.0] + [100.0] * 299
    assert third.stats()["parts_refused"] == 0


def test_a_call_that_came_to_nothing_warms_nothing_anywhere(tmp_path):
    (one, first), (two, second) = (worker(tmp_path) for _ in range(2))
    turn(one, "s", "a", 100.0)
    called = turn(one, "s", "a", 400.0)
    lost = turn(one, "t", "b", 400.0)
    synced(first, second)
    assert cached(two, "s") == {"a": 400.0}
    for decision in (called, lost):
        one.cancel(decision.id)
    synced(first, second)
    assert cached(two, "s") == {"a": 100.0}
    assert not any(cached(two, "t").values())
    assert two.terms[0].prices(Request(np.array([1.0, 9.0]), 0, Extras(session="t"), now(two))) is None


def test_an_arm_that_left_is_cold_when_it_returns(tmp_path):
    (one, first), (two, second) = (worker(tmp_path) for _ in range(2))
    turn(one, "s", "a", 100.0)
    synced(first, second)
    turn(one, "s", "a", 200.0)  # not told yet
    one.remove_arm("a")
    synced(first, second)
    one.add_arm("a")
    synced(first, second)
    assert cached(one, "s") == cached(two, "s") == {}
    three, _ = worker(tmp_path)
    assert cached(three, "s") == {}
    turn(one, "s", "a", 50.0)
    synced(first, second)
    assert cached(two, "s") == {"a": 50.0}


def test_an_arm_that_only_others_have_is_passed_over(tmp_path):
    one, first = worker(tmp_path)
    other = Router(LinUCB(("a", "z"), 2, rng=0), terms=[Sessions(0.001)])
    second = other.join(FileStore(tmp_path), background=False)
    other.select([1.0, 0.0], session="s", eligible={"z"})
    synced(second, first)
    assert cached(one, "s") == {} or one.policy.arms == (*ARMS, "z")


def test_memory_is_bounded_here_there_and_on_the_way(tmp_path):
    (one, first), (two, second) = (worker(tmp_path, limit=50) for _ in range(2))
    for i in range(500):
        turn(one, f"s{i}", "a", 100.0)
    assert len(one.terms[0].notes()) == 50
    for i in range(500):
        turn(one, f"s{i}", "a", 100.0)
        if i % 100 == 99:
            synced(first, second)
    assert len(two.terms[0]) == 50
    assert cached(two, "s499") == {"a": 100.0}


def test_sheets_are_bounded_and_hold_the_latest():
    sheets, rng = Sheets("t"), np.random.default_rng(0)
    latest = {}
    for i in range(5 * MOST):
        key = f"s{rng.integers(3 * MOST) if i % 2 else rng.integers(20)}"
        sheets.write(Told(key, "a", 0, 1.0, float(i)))
        latest.pop(key, None)
        latest[key] = float(i)
    held = {told.key: told.time for sheet in sheets.versions for told in sheets.on(sheet)}
    assert MOST - SHEET <= len(held) == len(sheets) <= MOST
    assert len(sheets.versions) <= 2 * (MOST // SHEET + 1)
    assert all(latest[key] == at for key, at in held.items())
    newest = list(latest)[-MOST // 3 :]
    assert set(newest) <= set(held)


def test_a_round_costs_what_is_new(tmp_path):
    class Counting(FileStore):
        sent = 0

        def put(self, replica, row, parts):
            self.sent += sum(name.startswith("notes:") for name in parts)
            return super().put(replica, row, parts)

    router, _ = worker("", join=False)
    store = Counting(tmp_path)
    replica = router.join(store, background=False)
    for i in range(3000):
        turn(router, f"s{i}", "a", 100.0)
    replica.sync()
    assert 3000 // SHEET <= store.sent <= 3000 // SHEET + 2
    store.sent = 0
    for i in range(10):
        turn(router, f"s{i}", "a", 100.0)
        replica.sync()
    assert store.sent == 10
    replica.sync()
    assert store.sent == 10


@pytest.mark.parametrize(
    "rows",
    [
        [["s", "a", 0, float("nan"), 1.0]], [["s", "a", 0, 1.0]], [["s", "a", -1, 1.0, 1.0]], [[5, "a", 0, 1.0, 1.0]],
        [["s", "a", 0, -1.0, 1.0]], [["s", "a", 0, 1e200, 1.0]], [["s", "a", 0, 1.0, float("inf")]], 7, [None],
        [["s", "a", True, 1.0, 1.0]], [["s", "a", 0, "1", 1.0]],
    ],
)  # fmt: skip
def test_notes_that_are_none_are_refused(rows):
    with pytest.raises((ValueError, TypeError)):
        told_rows(rows)


def test_a_damaged_sheet_is_refused_counted_and_put_again(tmp_path):
    (one, first), (two, second) = (worker(tmp_path) for _ in range(2))
    turn(one, "s", "a", 100.0)
    first.sync()
    (sheet,) = (p for p in tmp_path.rglob("part-*") if bytes.fromhex(p.name[5:]).startswith(b"notes:"))
    data = bytearray(sheet.read_bytes())
    data[len(data) // 2] ^= 1
    sheet.write_bytes(data)
    second.sync()
    assert cached(two, "s") == {}
    assert second.stats()["parts_refused"] == 1
    synced(first, second)
    assert cached(two, "s") == {"a": 100.0}


def test_a_sheet_of_another_form_is_refused(tmp_path):
    (one, first), (two, second) = (worker(tmp_path) for _ in range(2))
    turn(one, "s", "a", 100.0)
    first.sync()
    (sheet,) = (p for p in tmp_path.rglob("part-*") if bytes.fromhex(p.name[5:]).startswith(b"notes:"))
    name = bytes.fromhex(sheet.name[5:]).decode()
    sheet.write_bytes(plain_bytes(name, 1, [["s", "a", 0, -5.0, 1.0]]))
    second.sync()
    assert cached(two, "s") == {}
    assert second.stats()["parts_refused"] == 1
    assert two.select([1.0, 1.0], session="s").arm in ARMS


def test_odd_names_of_sessions_and_arms_travel(tmp_path):
    arms = ["a:b", "ü\u0000", "x" * 300]
    sessions = ["", ":", "notes:0:sessions", "\u0000", "日本", "y" * 5000, "\ud800"]
    routers = [Router(LinUCB(arms, 1, rng=0), terms=[Sessions(0.1)]) for _ in range(2)]
    replicas = [router.join(FileStore(tmp_path), background=False) for router in routers]
    for i, session in enumerate(sessions):
        routers[0].select([1.0], session=session, eligible={arms[i % 3]})
    synced(*replicas)
    for i, session in enumerate(sessions):
        assert cached(routers[1], session) == {arms[i % 3]: 1.0}
    assert max(len(key) for key in routers[1].terms[0].to_state()[0]["sessions"]) <= 128


def test_a_clock_that_is_set_neither_hides_nor_freezes_a_session(tmp_path, monkeypatch):
    clocks, wall = [Clock(), Clock()], [1e9]
    clocks[1].now = 5_000.0  # of another machine
    monkeypatch.setattr(notes.time, "time", lambda: wall[0])
    (one, first), (two, second) = (worker(tmp_path, clock) for clock in clocks)

    def passes(seconds):
        wall[0] += seconds
        for clock in clocks:
            clock.now += seconds

    turn(one, "s", "a", 100.0)
    passes(10.0)
    synced(first, second)
    assert cached(two, "s") == {"a": 100.0}
    passes(295.0)  # 305 s after the turn, 295 after it was heard of: cold
    assert cached(two, "s") == {}
    turn(one, "s", "a", 200.0)
    wall[0] += 86_400.0  # both are set a day ahead
    synced(first, second)
    assert cached(two, "s") == {"a": 200.0}
    wall[0] -= 2 * 86_400.0  # and two days back
    turn(one, "t", "b", 300.0)
    passes(1.0)
    turn(two, "t", "b", 400.0)
    synced(first, second)
    assert cached(one, "t") == cached(two, "t") == {"b": 400.0}
    passes(301.0)
    assert cached(one, "t") == cached(two, "t") == cached(two, "s") == {}


def test_what_a_restarted_worker_knew_is_older_than_what_happened_meanwhile(tmp_path, monkeypatch):
    clock, wall = Clock(), [1e9]
    monkeypatch.setattr(notes.time, "time", lambda: wall[0])
    home, store = tmp_path / "journal", tmp_path / "store"
    one, _ = worker("", clock, join=False)
    one.recover(home)
    first = one.join(FileStore(store), background=False)
    turn(one, "s", "a", 100.0)
    turn(one, "t", "b", 100.0)
    first.sync()
    journal_of(one).flush()
    journal_of(one).abandon()
    clock.now, wall[0] = 3.0, wall[0] + 200.0  # the machine was started again: its clock too
    two, second = worker(store, clock)
    turn(two, "s", "a", 150.0)
    second.sync()
    clock.now, wall[0] = 5.0, wall[0] + 2.0
    again, _ = worker("", clock, join=False)
    again.recover(home)
    third = again.join(FileStore(store), background=False)
    synced(third, second)
    assert cached(again, "s") == cached(two, "s") == {"a": 150.0}
    assert cached(again, "t") == cached(two, "t") == {"b": 100.0}
    clock.now, wall[0] = 103.5, wall[0] + 98.5  # 300.5 s after the first turns
    assert cached(again, "t") == cached(two, "t") == {}
    assert cached(again, "s") == cached(two, "s") == {"a": 150.0}


def test_a_term_that_is_added_later_tells_all_it_knows(tmp_path):
    router = Router(LinUCB(ARMS, 2, rng=0))
    replica = router.join(FileStore(tmp_path), background=False)
    router.add_term(Sessions(0.001, tokens=lambda x: x[1]))
    turn(router, "s", "a", 100.0)
    replica.sync()
    turn(router, "s", "a", 200.0)
    replica.sync()
    two, _ = worker(tmp_path)
    assert cached(two, "s") == {"a": 200.0}


def test_a_term_that_raises_is_counted_and_evidence_is_exchanged(tmp_path):
    class Broken(Sessions):
        def notes(self, *, anew=False):
            raise RuntimeError("notes")

        def take(self, notes):
            raise RuntimeError("take")

    (one, first), (two, second) = worker(tmp_path, term=Broken(0.001)), worker(tmp_path)
    one.update(turn(one, "s", "a", 1.0).id, 0.5)
    turn(two, "t", "a", 1.0)
    synced(first, second)
    assert two.policy.counts.sum() == 1
    assert one.parts.books.errors


def test_sidecars_of_one_file_share_conversations(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from starlette.testclient import TestClient
    file = {
        "policy": {"kind": "LinUCB", "arms": list(ARMS), "dim": 1},
        "terms": [{"kind": "Sessions", "saved": 0.5}],
        "store": {"kind": "FileStore", "directory": str(tmp_path), "sync_s": 0.05},
    }
    one, two = (TestClient(sidecar(lambda: from_config(file), token=None)) for _ in range(2))
    with one, two:
        turn = {"context": [1.0], "session": "u17"}
        assert one.post("/select", json={**turn, "eligible": ["c"]}).json()["arm"] == "c"
        end = time.monotonic() + 20.0
        while time.monotonic() < end:
            arms = {arm["arm"]: arm for arm in two.post("/explain", json=turn).json()["arms"]}
            if arms["a"]["prices"]["sessions"]:
                break
            time.sleep(0.05)
        assert {name: arm["prices"]["sessions"] for name, arm in arms.items()} == {
            "a": 0.5,
            "b": 0.5,
            "c": 0.0,
        }
        assert two.post("/select", json=turn).json()["arm"] == "c"


# -- real processes -------------------------------------------------------------------------------------------------------


def converse(home, at, turns):
    """Serve turns of few sessions, write down what was served, and wait."""
    router, _ = worker("", join=False)
    router.recover(home / f"journal-{at}", flush_s=0.01)
    router.join(FileStore(home / "store"), sync_s=0.02)
    rng, served = np.random.default_rng(at), []
    (home / f"ready-{at}").touch()
    waited_for(home, "ready-0", "ready-1")
    for i in range(turns):
        session, arm, tokens = f"s{rng.integers(40)}", ARMS[rng.integers(3)], 1000.0 * at + i
        decision = turn(router, session, arm, tokens)
        served.append([session, arm, tokens, time.time()])
        router.update(decision.id, 0.5)
        time.sleep(0.001)
    time.sleep(0.3)  # a few rounds
    (home / f"served-{at}.new").write_text(json.dumps(served))
    (home / f"served-{at}.new").rename(home / f"served-{at}")
    waited_for(home, "over")
    router.close()


def waited_for(home, *names, patience_s=60.0):
    end = time.monotonic() + patience_s
    while not all((home / name).exists() for name in names) and time.monotonic() < end:
        time.sleep(0.01)


def test_processes_agree_though_one_is_killed(tmp_path):
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=converse, args=(tmp_path, at, 200), daemon=True) for at in range(2)]
    for one in workers:
        one.start()
    waited_for(tmp_path, "served-0", "served-1")
    os.kill(workers[0].pid, signal.SIGKILL)
    (tmp_path / "over").touch()
    for one in workers:
        one.join(60.0)
    assert [one.exitcode for one in workers] == [-signal.SIGKILL, 0]
    seen, _ = worker(tmp_path / "store")
    back, _ = worker("", join=False)
    back.recover(tmp_path / "journal-0")
    back.join(FileStore(tmp_path / "store"), background=False)
    latest = {}
    for session, arm, tokens, at in sorted(
        (row for n in range(2) for row in json.loads((tmp_path / f"served-{n}").read_text())),
        key=lambda row: row[3],
    ):
        near = latest.get((session, arm), ({}, 0.0))[0]
        latest[session, arm] = ({t: when for t, when in near.items() if at - when < 0.01} | {tokens: at}, at)
    for (session, arm), (near, _) in latest.items():
        assert cached(seen, session)[arm] in near
        assert cached(back, session) == cached(seen, session)
