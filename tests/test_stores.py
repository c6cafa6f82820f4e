"""Stores: the contract, files that are none of ours, and broken twins that the contract must tell apart."""

import tempfile
import threading

import pytest

from banditroute import FileStore, LinUCB, Router
from banditroute.durability.shared_residency import SharedResidency, SharedSet
from banditroute.testing.stores import STORE_CHECKS, check_store


def test_files_keep_the_contract(tmp_path):
    assert len(check_store(lambda: FileStore(tempfile.mkdtemp(dir=tmp_path)))) == len(STORE_CHECKS)


class Lacks(FileStore):
    look = None


class TakesOldRows(FileStore):
    def put(self, replica, row, parts):
        return super().put(
            replica, {**row, "seq": 1 + max([0, *(r.get("seq", 0) for r in self.index().values())])}, parts
        )


class SaysNothingIsMissing(FileStore):
    def put(self, replica, row, parts):
        super().put(replica, row, parts)
        return []


class Rewrites(FileStore):
    def index(self):
        return {
            n: {**r, "body": r["body"].replace("0.999123456789012", "0.99912345678901")} if "body" in r else r
            for n, r in super().index().items()
        }


class ShortNames(FileStore):
    def index(self):
        return {name[:200]: row for name, row in super().index().items()}


class KeepsAbsurdRows(FileStore):
    def put(self, replica, row, parts):
        if not 0 <= row["seq"] < 1 << 53:
            self.stuck = replica
        return [] if getattr(self, "stuck", None) == replica else super().put(replica, row, parts)


class FoldsWhateverIsThere(FileStore):
    def compact(self, expected, row, parts, gone):
        now = self.index()
        return super().compact(now.get("base"), {**row, "seq": 9}, parts, {n: now[n] for n in gone})


class ForgetsTokens(FileStore):
    def take(self, keys, token):
        return super().take(keys, f"{token}{threading.get_ident()}{len(list(self._taken.iterdir()))}")


class GivesTwice(FileStore):
    def take(self, keys, token):
        return super().take(keys, "the same for all")


class KeepsAgain(FileStore):
    def keep(self, decisions, ttl_s):
        for key in decisions:
            (self._taken / f"{key:016x}").unlink(missing_ok=True)
        super().keep(decisions, ttl_s)


class Replaces(FileStore):
    def keep(self, decisions, ttl_s):
        for key in decisions:
            if not (self._taken / f"{key:016x}").exists():
                (self._open / f"{key:016x}").unlink(missing_ok=True)
        super().keep(decisions, ttl_s)


BROKEN = [
    Lacks, TakesOldRows, SaysNothingIsMissing, Rewrites, ShortNames, KeepsAbsurdRows, FoldsWhateverIsThere, ForgetsTokens,
    GivesTwice, KeepsAgain, Replaces,
]  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_the_contract_tells_a_broken_store(tmp_path, broken):
    with pytest.raises(AssertionError):
        check_store(lambda: broken(tempfile.mkdtemp(dir=tmp_path)))


def test_files_of_others_are_passed_over(tmp_path):
    store = FileStore(tmp_path)
    store.put("r", {"seq": 1, "beat": 1.0, "parts": {"a": 1}}, {"a": b"A"})
    replicas = tmp_path / "replicas"
    for name in (".DS_Store", ".nfs0001", "Thumbs.db", "zz", "ff"):
        (replicas / name).write_bytes(b"\0\1")
    (replicas / "a folder" / "row").mkdir(parents=True)
    (replicas / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "decisions" / ".DS_Store").write_bytes(b"")
    (tmp_path / "decisions" / "folder").mkdir()
    rows = store.index()
    assert rows.pop("r")["seq"] == 1 and set(map(str, rows.values())) == {"{}"}
    assert len(rows) == 7
    store.keep(dict.fromkeys(range(10001), b"x"), 60.0)  # clears what is old
    assert store.take([5], "t") == [b"x"]


def test_a_store_whose_folders_were_removed_makes_them_again(tmp_path):
    import shutil

    store = FileStore(tmp_path / "home")
    shutil.rmtree(tmp_path / "home" / "replicas")
    shutil.rmtree(tmp_path / "home" / "decisions")
    assert store.index() == {}
    store.keep({1: b"x"}, 60.0)
    assert store.take([1], "t") == [b"x"]


# Residency that workers share.


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def told(actual="", desired=""):
    return SharedSet(frozenset(actual), frozenset(desired))


def test_one_worker_plans_and_all_believe_it(tmp_path):
    clock = Clock()
    one, two, three = (
        SharedResidency(FileStore(tmp_path), name, lease_s=5.0, clock=clock)
        for name in ("one", "two", "three")
    )
    assert one.believed() is None and one.tell(told("a", "a")) is False
    assert one.plans() is True and two.plans() is False and three.plans() is False
    assert one.tell(told("a", "ab")) and not two.tell(told("c", "c"))
    assert two.believed() == three.believed() == told("a", "ab")._replace(number=1)
    clock.now = 4.0
    assert one.plans() is True and two.plans() is False  # renewed
    clock.now = 8.9
    assert two.plans() is False
    clock.now = 9.1  # it has stood still for five seconds
    assert two.plans() is True and one.plans() is False and one.tell(told("x", "x")) is False
    assert two.tell(told("b", "b")) and one.believed().actual == {"b"}
    two.release()
    assert three.plans() is True and two.plans() is False


def test_of_many_who_ask_at_once_one_plans(tmp_path):
    start, won = threading.Barrier(4), []

    def ask(name):
        worker = SharedResidency(FileStore(tmp_path), name)
        start.wait()
        if worker.plans():
            won.append(name)

    threads = [threading.Thread(target=ask, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    holders = [name for name in won if SharedResidency(FileStore(tmp_path), name).tell(told())]
    assert len(holders) == 1


def test_a_lease_that_is_none_is_free(tmp_path):
    store = FileStore(tmp_path)
    store.put("~lease", {"seq": 7, "beat": 0.0, "body": "nonsense"}, {})
    store.put("~resident", {"seq": 7, "beat": 0.0, "body": "nonsense"}, {})
    worker = SharedResidency(store, "me")
    assert worker.believed() is None and worker.plans() and worker.tell(told("a", "a"))
    router = Router(LinUCB(2, 2, rng=0))
    router.join(store, background=False)
    assert router.stats()["parts_refused"] == 0 and router.stats()["replicas"] == 1
