"""Workers of one server share its residency: who plans, what the others believe, and what happens when one of them ends."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import shared_residency as bench

from adapter_servers import Clock, Server
from banditroute import LRU, FileStore, LinUCB, Polar, Polaris, Router, Static
from banditroute.durability.demand import Requests, packed_requests, read_requests, read_word
from banditroute.durability.shared_residency import written
from banditroute.errors import SnapshotError
from banditroute.records import Capabilities
from banditroute.router.uses import Uses

ARMS = tuple("abcdef")
WORTH = dict(zip(ARMS, (0.1, 0.3, 0.5, 0.6, 0.7, 0.8), strict=True))


class Group:
    """Workers of one server, with a clock that they share; every exchange is made by hand."""

    def __init__(self, tmp_path, server, make, count=3, clocks=None, **options):
        self.store, self.server, self.make = tmp_path, server, make
        self.clock = Clock()
        self.clocks = clocks
        self.options = {"maintenance": "manual", **options}
        self.workers, self.replicas = [], []
        for _ in range(count):
            self.add()

    def add(self, store=None, make=None, **options):
        offset = 0.0 if self.clocks is None else self.clocks[len(self.workers)]
        router = Router(
            LinUCB(ARMS, 1, rng=len(self.workers)), (make or self.make)(), 0.1, backend=self.server,
            clock=lambda: self.clock.now + offset, **self.options,
        )  # fmt: skip
        self.workers.append(router)
        self.replicas.append(router.join(store or FileStore(self.store), background=False, **options))
        return router

    def turn(self, seconds=0.3, times=1, workers=None):
        for _ in range(times):
            self.clock.now += seconds
            for router, replica in zip(self.workers, self.replicas, strict=True):
                if workers is None or router in workers:
                    replica.sync()
                    router.maintain()
                    replica.sync()

    def leaders(self):
        return [router for router in self.workers if router.stats()["plans_residency"]]

    def agree(self):
        return all(set(router.resident) == set(self.server.loaded) for router in self.workers)


def serve(router, arm, times=1, reward=None):
    hits = 0
    for _ in range(times):
        decision = router.select([1.0], eligible={arm})
        hits += decision.hit
        router.update(decision.id, WORTH[arm] if reward is None else reward)
    return hits


def test_one_worker_loads_and_all_believe_what_it_confirmed(tmp_path):
    server = Server(3)
    group = Group(tmp_path, server, lambda: Static(["a", "b", "c"]))
    group.turn(times=2)
    assert len(group.leaders()) == 1 and group.agree() and set(server.loaded) == set("abc")
    assert server.loads == 3  # by one of them
    assert [serve(router, "a", 5) for router in group.workers] == [5, 5, 5]
    assert [serve(router, "f", 5) for router in group.workers] == [0, 0, 0]
    server.lose("b")
    group.turn(3.0, times=4)
    assert group.agree() and set(server.loaded) == set("abc")
    group.turn(0.1, times=3)
    assert sum(router.stats()["load_price"] for router in group.workers) == pytest.approx(
        0.4
    )  # four loads in all


def test_the_plan_is_for_the_traffic_of_all(tmp_path):
    server = Server(1)
    group = Group(tmp_path, server, lambda: Polar(1, epoch=40, window=400))
    group.turn(times=2)
    leader = group.leaders()[0]
    others = [router for router in group.workers if router is not leader]
    for _ in range(8):
        for router in others:  # the leader serves nothing
            serve(router, "e", 30)
        group.turn(1.1)
    assert leader.stats()["decisions"] == 0 and leader.stats()["heard"] >= 400
    assert server.loaded == ["e"] and group.agree()


def test_a_fault_anywhere_inserts_at_the_one_server(tmp_path):
    server = Server(2)
    group = Group(tmp_path, server, lambda: LRU(2))
    group.turn(times=2)
    follower = next(router for router in group.workers if router not in group.leaders())
    assert serve(follower, "d") == 0
    group.turn(times=2)
    assert "d" in server.loaded and len(server.loaded) == 2 and group.agree()
    assert all(serve(router, "d") == 1 for router in group.workers)


def test_a_leader_that_is_gone_is_followed_by_another_that_goes_on_from_its_set(tmp_path):
    server = Server(2)
    group = Group(tmp_path, server, lambda: LRU(2))
    group.turn(times=2)
    first = group.leaders()[0]
    for _ in range(6):
        for router in group.workers:
            serve(router, "e", 10)
            serve(router, "d", 10)
        group.turn(1.1)
    loaded, loads = set(server.loaded), server.loads
    assert loaded == {"d", "e"} and group.agree()
    rest = [router for router in group.workers if router is not first]
    group.turn(1.0, times=5, workers=rest)
    assert not any(router.stats()["plans_residency"] for router in rest)  # its lease is not over
    group.turn(1.0, times=7, workers=rest)
    second = [router for router in rest if router.stats()["plans_residency"]]
    assert len(second) == 1 and set(server.loaded) == loaded and server.loads == loads
    assert not first.stats()["plans_residency"]  # it knows by its own clock, without asking
    server.log.clear()
    first.maintain()
    assert not server.asked("ensure") and not server.asked("evict")
    group.turn(times=2)  # it comes back and follows
    assert len(group.leaders()) == 1 and first not in group.leaders() and group.agree()
    second[0].close()
    group.workers.remove(second[0])
    group.replicas = [replica for replica in group.replicas if replica.sync() is not None][
        : len(group.workers)
    ]


def test_a_leader_that_closes_leaves_at_once(tmp_path):
    server = Server(2)
    group = Group(tmp_path, server, lambda: Static(["a", "b"]), count=2)
    group.turn(times=2)
    leader = group.leaders()[0]
    other = next(router for router in group.workers if router is not leader)
    leader.close()
    group.turn(0.1, times=1, workers=[other])
    assert other.stats()["plans_residency"] == 1 and set(other.resident) == {"a", "b"}


def test_a_worker_whose_planner_stands_still_leaves_the_lease(tmp_path):
    server = Server(2)
    group = Group(tmp_path, server, lambda: Static(["a", "b"]), count=2)
    group.turn(times=2)
    leader = group.leaders()[0]
    other = next(router for router in group.workers if router is not leader)
    for _ in range(12):  # it exchanges, and nobody calls `maintain`
        group.clock.now += 1.0
        group.replicas[group.workers.index(leader)].sync()
        group.turn(0.0, workers=[other])
    assert not leader.stats()["plans_residency"] and other.stats()["plans_residency"]


def test_failures_are_known_to_the_next_leader(tmp_path):
    server = Server(2, raises={"b"})
    group = Group(tmp_path, server, lambda: Static(["a", "b"]), count=2)
    group.turn(1.0, times=4)
    leader = group.leaders()[0]
    other = next(router for router in group.workers if router is not leader)
    tried = server.asked("ensure", "b")
    assert tried >= 2 and leader.stats()["blocked"] == 1
    pauses = leader._planner.reconciler.pauses()["b"]
    leader.close()
    group.turn(0.01, workers=[other])
    assert other._planner.reconciler.pauses()["b"][0] == pauses[0] and server.asked("ensure", "b") == tried


def test_while_the_store_is_away_everyone_goes_on_and_only_looks(tmp_path):
    class Store(FileStore):
        down = False

        def index(self):
            if self.down:
                raise OSError("away")
            return super().index()

    server = Server(2)
    group = Group(tmp_path, server, lambda: Static(["a", "b"]), count=0)
    stores = [Store(tmp_path) for _ in range(3)]
    for one in stores:
        group.add(one)
    group.turn(times=2)
    Store.down = True
    group.turn(1.0, times=15)
    assert group.leaders() == [] and group.agree()
    assert all(serve(router, "a", 3) == 3 for router in group.workers)
    server.lose("a")
    server.log.clear()
    group.turn(4.0, times=3)
    assert group.agree() and all(serve(router, "a") == 0 for router in group.workers)
    assert not server.asked("ensure")  # nobody may act
    assert all(router.stats()["store_errors"] for router in group.workers)
    Store.down = False
    group.turn(times=3)
    assert len(group.leaders()) == 1 and set(server.loaded) == {"a", "b"} and group.agree()


def test_a_worker_that_starts_disturbs_nobody(tmp_path):
    server = Server(2)
    group = Group(tmp_path, server, lambda: LRU(2), count=2)
    group.turn(times=2)
    for _ in range(6):
        for router in group.workers:
            serve(router, "e", 10)
            serve(router, "f", 10)
        group.turn(1.1)
    assert set(server.loaded) == {"e", "f"}
    server.log.clear()
    late = group.add()
    assert set(late.resident) == {"e", "f"}
    group.turn(times=3)
    assert not server.asked("evict") and set(server.loaded) == {"e", "f"} and group.agree()


def test_a_recovered_worker_waits_for_its_group(tmp_path):
    server = Server(2)
    make = lambda: Static(["a", "b"])  # noqa: E731
    with Router(LinUCB(ARMS, 1, rng=0), make(), 0.1, backend=server, maintenance="background") as router:
        router.recover(tmp_path / "own")
        router.join(FileStore(tmp_path / "store"))
    server.loaded = ["e", "f"]  # as another worker has planned since
    server.log.clear()
    router = Router(LinUCB(ARMS, 1, rng=0), make(), 0.1, backend=server, maintenance="background")
    router.recover(tmp_path / "own")
    assert not server.asked("ensure") and not server.asked("evict")
    router.close()


def test_what_one_is_told_from_outside_reaches_the_others(tmp_path):
    server = Server(2, capabilities=Capabilities(observe=False, pin=False))
    group = Group(tmp_path, server, lambda: Static(["a", "b"]))
    group.turn(times=2)
    leader = group.leaders()[0]
    follower = next(router for router in group.workers if router is not leader)
    server.lose("a")
    server.refuses = {"a"}
    assert follower.confirm("a", False) is True
    at = group.workers.index(follower)
    group.replicas[at].sync()
    assert "a" not in follower.resident  # what the leader has not heard of yet does not take it back
    group.turn(0.1, times=2)
    assert all(router.resident == ("b",) for router in group.workers)
    server.refuses = set()
    group.turn(2.0, times=6)
    assert group.agree() and set(server.loaded) == {"a", "b"}


class Shared(Server):
    """One LRU on the machine; every worker has a handle with a picture of its own."""

    def serve(self, name):
        with self.lock:
            if name in self.loaded:
                self.loaded.remove(name)
            elif len(self.loaded) >= self.slots:
                self.displace()
            self.loaded.append(name)


class Handle:
    capabilities = Capabilities(unload=False, pin=False, displaces=True, observe=False)

    def __init__(self, server):
        self.server, self.order = server, []

    def ensure(self, name):
        self.server.serve(name)
        self.served(name)
        return True

    def evict(self, name):
        return False

    def touch(self, name):
        if name not in self.order:
            return False
        self.server.serve(name)
        self.served(name)
        return True

    def served(self, name):
        before = set(self.order)
        if name in self.order:
            self.order.remove(name)
        elif len(self.order) >= self.server.slots:
            self.order.pop(0)
        self.order.append(name)
        after = set(self.order)
        return [*((n, False) for n in before - after), *((n, True) for n in after - before)]


def test_displacement_by_one_worker_reaches_the_others(tmp_path):
    server = Shared(3)
    group = Group(tmp_path, server, lambda: Static(["a", "b"]), count=0)
    for _ in range(3):
        group.server = Handle(server)
        group.add()
    group.server = server
    group.turn(times=3)
    assert set(server.loaded) == {"a", "b"} and group.agree()
    rng = np.random.default_rng(0)
    for _ in range(120):
        router = group.workers[rng.integers(3)]
        arm = str(rng.choice(ARMS))
        group.clock.now += 0.01
        decision = router.select([1.0], eligible={arm})
        assert decision.hit == (arm in server.loaded)  # the exchange below is as fast as the requests
        server.serve(arm)
        for replica in group.replicas:
            group.clock.now += 0.001
            replica.also()
        for replica in group.replicas:
            replica.also()
    assert group.agree()
    group.server = Handle(server)
    late = group.add()  # takes up the order from what the leader told
    assert set(late.resident) == set(server.loaded)


def test_the_order_of_uses_is_that_of_all_workers():
    clock = Clock()
    uses = Uses(clock)
    clock.now = 10.0
    uses.mark("a")
    clock.now = 12.0
    uses.mark("b")
    assert uses.take_in("other", {"c": (4, 1.0), "a": (3, 5.0)})  # c at 11, a at 7
    assert uses.since_news() == ["a", "c", "b"]
    assert not uses.take_in("other", {"c": (4, 9.0)}) and uses.since_news() == []
    clock.now = 13.0
    assert uses.take_in("other", {"a": (5, 0.5)}) and uses.since_news() == ["a"]
    assert list(uses.told()) == ["a", "b"] and uses.ages() == {"a": 0.5, "b": 1.0, "c": 2.0}


def test_clocks_of_other_machines_do_not_matter(tmp_path):
    server = Server(3)
    group = Group(tmp_path, server, lambda: LRU(3), clocks=[0.0, 1e6, -1e6])
    group.turn(times=2)
    assert len(group.leaders()) == 1 and group.agree()
    first = group.leaders()[0]
    rest = [router for router in group.workers if router is not first]
    group.turn(1.0, times=12, workers=rest)
    assert (
        len([r for r in rest if r.stats()["plans_residency"]]) == 1 and not first.stats()["plans_residency"]
    )
    serve(rest[0], "f")
    group.turn(times=2)
    assert "f" in server.loaded and group.agree()


def test_workers_of_other_settings_are_told_and_do_not_take_over(tmp_path, caplog):
    server = Server(2)
    group = Group(tmp_path, server, lambda: Static(["a", "b"]), count=2)
    group.turn(times=2)
    odd = group.add(make=lambda: Static(["c", "d", "e"]))
    assert odd.stats()["residency_disagrees"] == 1 and "capacity" in caplog.text
    group.turn(times=2)
    assert group.agree() and odd not in group.leaders()
    assert [router.stats()["residency_disagrees"] for router in group.workers] == [0, 0, 1]
    leader = group.leaders()[0]
    rest = [router for router in group.workers if router is not leader]
    group.turn(1.0, times=13, workers=rest)  # the lease runs out: it goes to the one that agrees
    assert odd.stats()["plans_residency"] == 0 and len([r for r in rest if r.stats()["plans_residency"]]) == 1
    group.turn(1.0, times=35, workers=[odd])  # and to the odd one where there is no other
    assert odd.stats()["plans_residency"] == 1


def test_servers_of_their_own_are_not_shared(tmp_path):
    servers = [Server(2), Server(2), Server(2)]
    group = Group(tmp_path, servers[0], lambda: Static(["a", "b"]), count=0)
    for server, name in zip(servers, ("left", "right", False), strict=True):
        group.server = server
        group.add(share_residency=name)
    group.turn(times=2)
    assert [set(server.loaded) for server in servers] == [{"a", "b"}] * 3
    servers[0].lose("a")
    servers[0].refuses = {"a"}
    group.turn(4.0, times=3)
    assert [set(router.resident) for router in group.workers] == [{"b"}, {"a", "b"}, {"a", "b"}]
    with pytest.raises(
        ValueError, match="share_residency must be True, False or the name of a server, got ''"
    ):
        Router(LinUCB(ARMS, 1), Static(["a"]), 0.1).join(FileStore(tmp_path), share_residency="")


def test_without_a_server_the_plan_itself_is_shared(tmp_path):
    group = Group(tmp_path, None, lambda: LRU(2))
    group.turn(times=2)
    for _ in range(6):
        for router in group.workers:
            serve(router, "e", 10)
            serve(router, "d", 10)
        group.turn(1.1)
        group.turn(0.1)
    assert [set(router.resident) for router in group.workers] == [{"d", "e"}] * 3


@pytest.mark.parametrize("damage", ["nonsense", "version", "shape", "part"])
def test_rows_that_are_torn_or_foreign_cost_nothing(tmp_path, damage):
    server = Server(2)
    group = Group(tmp_path, server, lambda: LRU(2))
    group.turn(times=2)
    leader = group.leaders()[0]
    follower = next(router for router in group.workers if router is not leader)
    store = FileStore(tmp_path)
    rows = store.index()
    for name in [n for n in rows if n.startswith("~")]:
        if damage == "nonsense":
            row = {**rows[name], "seq": rows[name]["seq"] + 1, "body": "nonsense"}
        elif damage == "version":
            row = written(rows[name]["seq"] + 1, {})
            body = json.loads(row["body"])
            row["body"] = json.dumps({**body, "fingerprint": {"told": '{"version": 99}'}})
        else:
            row = written(
                rows[name]["seq"] + 1, {"actual": 7, "uses": {"a": "b"}, "holder": ["x"], "news": 3}
            )
        if damage != "part":
            store.put(name, row, {})
    if damage == "part":
        serve(follower, "d")
        part = {"requests": b"torn"}
        store.put("~worker:intruder", {**written(5, _word(1)), "parts": {"requests": 1}}, part)
    for _ in range(4):
        serve(follower, "d")
        group.turn(1.1)
    assert len(group.leaders()) == 1 and group.agree() and "d" in server.loaded
    assert all(router.stats()["plan_failures"] == 0 for router in group.workers)


def _word(version):
    return {"uses": {}, "news": [], "eligible": None, "requests": version}


def test_requests_of_another_shape_are_refused():
    sent = Requests(("a", "b"), np.array([0, 1]), np.ones((2, 3)), np.array([True, False]))
    data = packed_requests(4, sent)
    version, got = read_requests(data, 3, 3)
    assert (
        (version, got.names) == (4, ("a", "b"))
        and (got.contexts == sent.contexts).all()
        and got.hits.tolist() == [True, False]
    )
    for bad in (
        lambda: read_requests(data, 5, 3),
        lambda: read_requests(data, 4, 2),
        lambda: read_requests(data[:-1], 4, 3),
        lambda: read_requests(packed_requests(4, sent._replace(arms=np.array([0, 2]))), 4, 3),
        lambda: read_requests(packed_requests(4, sent._replace(contexts=np.full((2, 3), np.nan))), 4, 3),
    ):
        with pytest.raises(SnapshotError):
            bad()
    assert read_word(written(1, {"uses": {"a": [1]}, "news": [], "eligible": None, "requests": 0})) is None


def test_what_is_told_is_bounded(tmp_path):
    server = Server(2)
    group = Group(tmp_path, server, lambda: Polar(2, epoch=10_000), count=2)
    group.turn(times=2)
    follower = next(router for router in group.workers if router not in group.leaders())
    serve(follower, "a", 2000)
    group.turn(1.1, times=2)
    assert 0 < group.leaders()[0].stats()["heard"] <= 512
    wide = Router(LinUCB(2, 1024, rng=0), Static(["0"]), 0.1)
    wide.join(FileStore(tmp_path / "wide"), background=False)
    assert wide._planner.shared._outbox.requests.maxlen == 32


def test_a_store_that_was_flushed_is_told_everything_again(tmp_path):
    server = Server(2)
    group = Group(tmp_path, server, lambda: LRU(2), count=2)
    group.turn(times=2)
    shutil.rmtree(tmp_path / "replicas")
    group.turn(times=2)
    assert len(group.leaders()) == 1 and {"~lease", "~resident"} <= set(FileStore(tmp_path).index())
    follower = next(router for router in group.workers if router not in group.leaders())
    for arm in ("e", "f"):
        serve(follower, arm)
        group.turn(1.1, times=2)
        assert arm in server.loaded and group.agree()


def test_arms_that_come_and_go(tmp_path):
    server = Server(2)
    group = Group(tmp_path, server, lambda: LRU(2), count=2)
    group.turn(times=2)
    leader = group.leaders()[0]
    follower = next(router for router in group.workers if router is not leader)
    follower.remove_arm("a")
    group.turn(1.1, times=3)
    assert "a" not in leader.arms and "a" not in server.loaded and group.agree()
    follower.add_arm("g")
    WORTH["g"] = 0.9
    serve(follower, "g")
    group.turn(1.1, times=3)
    assert "g" in server.loaded and group.agree()


def test_a_child_of_a_fork_is_a_worker_of_its_own(tmp_path):
    server = Server(2)
    group = Group(tmp_path, server, lambda: Static(["a", "b"]), count=1)
    group.turn(times=2)
    router, replica = group.workers[0], group.replicas[0]
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            mine = router._lasting.replica
            told = [mine.id != replica.id, router.stats()["plans_residency"], sorted(router.resident)]
            os.write(write, json.dumps(told).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    assert json.loads(os.read(read, 1000)) == [True, 0, ["a", "b"]]
    os.close(read)
    assert router.stats()["plans_residency"] == 1


def test_a_restarted_worker_is_heard_under_its_old_name(tmp_path):
    server = Server(2)
    group = Group(tmp_path / "store", server, lambda: LRU(2), count=1)
    options = {"maintenance": "manual", "backend": server, "clock": group.clock}
    for arm in ("d", "e", "f"):
        router = Router(LinUCB(ARMS, 1, rng=0), LRU(2), 0.1, **options)
        router.recover(tmp_path / "own")
        replica = router.join(FileStore(tmp_path / "store"), background=False)
        serve(router, arm)
        group.clock.now += 1.1
        replica.sync()
        group.turn(times=2)
        assert arm in server.loaded and router.stats()["plans_residency"] == 0
        router.close()


def test_the_thread_of_a_follower_learns_within_a_round(tmp_path):
    server = Server(2)
    options = {"backend": server, "maintenance": "background"}
    one = Router(LinUCB(ARMS, 1, rng=0), Static(["a", "b"]), 0.1, **options)
    two = Router(LinUCB(ARMS, 1, rng=1), Static(["a", "b"]), 0.1, **options)
    one.join(FileStore(tmp_path))
    two.join(FileStore(tmp_path))
    done, tries = threading.Event(), 0
    while set(two.resident) != {"a", "b"} and tries < 200:
        done.wait(0.05)
        tries += 1
    assert set(one.resident) == set(two.resident) == {"a", "b"} and server.loads == 2
    one.close()
    two.close()


def test_polaris_goes_on_from_the_set_of_another():
    controller = Polaris(2)
    Router(LinUCB(ARMS, 1, rng=0), controller, 0.1)
    from banditroute.residency import ResidentSet

    resident = ResidentSet(6, 2)
    resident.replace([3, 4])
    controller.adopt(resident)
    assert controller.make_room(0, resident) is None  # both are held: faults do not push them out


class Process:
    """A worker in a process of its own, asked one thing at a time."""

    def __init__(self, *arguments):
        command = [sys.executable, bench.__file__, "--steps", json.dumps(arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, *command):
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.mark.parametrize("kind", ["passes", "inserts", "displaces"])
def test_hits_of_three_processes_are_those_of_the_server(tmp_path, kind):
    """Requests and exchanges come in turn, so that what is said must be true but for what was asked meanwhile."""
    stub = bench.Stub(kind)
    server = bench.serving(stub)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    workers = [Process(kind, url, str(tmp_path), seed) for seed in range(3)]
    rng = np.random.default_rng(0)
    said, true = [], []
    try:
        for worker in workers:
            worker.ask("hello")

        def turn():
            told = [worker.ask("turn") for worker in workers]
            return [worker.ask("exchange") for worker in workers], told

        def request():
            group = int(rng.choice(len(bench.ARMS), p=bench.POPULARITY / bench.POPULARITY.sum()))
            hit, there = workers[rng.integers(len(workers))].ask("request", group)
            said.append(hit)
            true.append(there)
            return turn()

        for _ in range(3):  # the first loads
            turn()
        for _ in range(50):
            seen, _ = request()
        assert [row["plans"] for row in seen].count(1) == 1
        leader = next(i for i, row in enumerate(seen) if row["plans"])
        killed = workers.pop(leader).process
        killed.kill()
        killed.communicate()
        deadline = time.monotonic() + 30.0
        while not any(row["plans"] for row in turn()[0]) and time.monotonic() < deadline:
            time.sleep(0.05)
        for _ in range(25):
            seen, _ = request()
        while all(true) and len(true) < 500:  # a comparison wants both hits and misses
            seen, _ = request()
        for _ in range(2):
            seen, _ = turn()
        assert [row["plans"] for row in seen].count(1) == 1
        assert all(set(row["resident"]) == set(stub.gpu) for row in seen)
        assert abs(np.mean(said) - np.mean(true)) <= bench.BOUND and 0.3 < np.mean(true) < 1.0
        assert np.mean(np.array(said) != np.array(true)) <= 0.03
    finally:
        for worker in workers:
            worker.process.communicate(timeout=60.0)  # the end of its input is its end
        server.shutdown()
        server.server_close()


def test_compaction_takes_what_a_worker_told_of_its_residency_along(tmp_path):
    server = Server(2)
    group = Group(tmp_path, server, lambda: LRU(2))
    group.turn(times=2)
    follower = next(router for router in group.workers if router not in group.leaders())
    at = group.workers.index(follower)
    serve(follower, "d")
    group.turn(1.1, times=2)
    gone = group.replicas[at].id
    store = FileStore(tmp_path)
    assert f"~worker:{gone}" in store.index()
    del group.workers[at], group.replicas[at]
    follower.close()
    group.turn(1.1, times=2)
    assert group.replicas[0].compact([gone])
    assert not [name for name in store.index() if name.endswith(gone)]
    group.turn(1.1, times=2)
    assert group.agree()
