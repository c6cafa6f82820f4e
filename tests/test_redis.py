"""The Redis store against a real server."""

import subprocess
import sys
import time

import numpy as np
import pytest
import soak_redis

import schedules
from adapter_servers import Server
from banditroute import LRU, LinUCB, Router
from banditroute.durability.redis_store import RedisStore
from banditroute.terms import Sessions
from banditroute.testing.stores import STORE_CHECKS, check_store
from servers import redis_server


@pytest.fixture(scope="module")
def url():
    with redis_server() as address:
        yield address


@pytest.mark.parametrize("seed", range(20))
def test_fault_schedules(url, seed):
    schedules.run_schedule(RedisStore(url), 1000 + seed)


def test_what_every_store_must_do(url):
    prefixes = (f"checked{i}" for i in range(10_000))
    assert len(check_store(lambda: RedisStore(url, prefix=next(prefixes)))) == len(STORE_CHECKS)


def test_sessions_are_shared_over_redis(url):
    store = RedisStore(url, prefix="sessions")
    workers = [Router(LinUCB(["a", "b"], 1, rng=i), terms=[Sessions(0.5)]) for i in range(2)]
    replicas = [worker.join(store, background=False) for worker in workers]
    for i in range(600):
        workers[i % 2].select([1.0], session=f"s{i}", eligible={"b"})
    for replica in replicas * 2:
        assert replica.sync()
    assert all(worker.terms[0].cached(f"s{i}", 1e9) == {} for worker in workers for i in range(600))
    for worker in workers:
        now = worker.parts.books.now()
        assert all(worker.terms[0].cached(f"s{i}", now) == {"b": 1.0} for i in range(600))
        assert worker.select([1.0], session="s1").arm == "b"
        worker.close()


def test_a_client_that_decodes_is_refused_at_once(url):
    import redis

    with pytest.raises(ValueError, match="decode_responses"):
        RedisStore(redis.Redis.from_url(url, decode_responses=True))
    with pytest.raises(ValueError, match="decode_responses"):
        RedisStore(url + "&decode_responses=True")


def test_odd_keys_cost_nothing(url):
    import redis

    box, prefix = redis.Redis.from_url(url), "odd"
    routers = [Router(LinUCB(3, 2, rng=i)) for i in range(2)]
    replicas = [
        r.join(RedisStore(url, prefix=prefix), background=False, share_decisions=True) for r in routers
    ]
    box.set(f"{prefix}:replica:text", "a string")
    box.sadd(
        f"{prefix}:replicas", f"{prefix}:replica:text", "elsewhere", b"\xff\xfe", f"{prefix}:replica:gone"
    )
    for i, row in enumerate(
        [b"xx", b"[]", b"{}", b'{"seq":1,"beat":1}', b'{"seq":1,"beat":1,"parts":{},"x":null}']
    ):
        box.hset(f"{prefix}:replica:{i}", "row", row)
        box.sadd(f"{prefix}:replicas", f"{prefix}:replica:{i}")
    box.set(f"{prefix}:decision:{7:016x}", "x")
    box.lpush(f"{prefix}:decision:{8:016x}", "x")
    assert routers[0].update(routers[0].select([1.0, 0.0]).id, 1.0)
    for key in (7, 8):
        routers[0].update(key, 1.0)
    for _ in range(2):
        for replica in replicas:
            replica.exchange()
            assert replica.sync()
    assert routers[1].policy.counts.sum() == 1 and routers[1].stats()["parts_refused"] > 5
    box.delete(f"{prefix}:replica:{replicas[0].id}")
    box.set(f"{prefix}:replica:{replicas[0].id}", "in its place")
    for replica in replicas * 2:
        assert replica.sync()
    assert isinstance(RedisStore(url, prefix=prefix).index()[replicas[0].id]["body"], str)
    for router in routers:
        router.close()


@pytest.mark.parametrize("rate", [0.03, 0.15])
def test_answers_through_cut_connections_are_learned_exactly_once(url, rate):
    path = url.removeprefix("unix://").partition("?")[0]
    found = soak_redis.soak(path, rate=rate, seconds=120.0, workers=3, seed=1, answers=100)
    assert found["cuts"] > 20 and found["taken"] >= 100
    assert found["never"] == found["double"] == found["not taken"] == 0
    assert found["counts"] == [found["once"]] * 3 == [found["taken"]] * 3


def test_a_server_that_is_not_there_is_down(tmp_path):
    store = RedisStore(f"unix://{tmp_path}/none.sock")
    router = Router(LinUCB(2, 2, rng=0))
    replica = router.join(store, background=False)
    assert router.select([1.0, 0.0]).arm in ("0", "1")
    assert replica.sync() is False and router.stats()["store_errors"] >= 2
    with pytest.raises(OSError, match="redis"):
        store.index()


WORKER = """
import sys
import numpy as np
from banditroute import LinUCB, Router, UnknownDecision
from banditroute.durability.redis_store import RedisStore
url, prefix, number, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
router = Router(LinUCB(4, 3, mix=0.2, rng=number))
router.join(RedisStore(url, prefix=prefix), sync_s=0.1, share_decisions=True)
import redis
box = redis.Redis.from_url(url)
rng = np.random.default_rng(number)
refused = answered = 0
for i in range(count):
    x = rng.integers(-3, 4, size=3).astype(float)
    key = router.select(x).id
    if i % 10 == 0:
        box.rpush(prefix + ":post", key)  # for whoever picks it up
    else:
        answered += router.update(key, 1.0)
        if i % 7 == 0:
            refused += not router.update(key, 1.0)
    if i % 50 == 49:
        for _ in range(5):
            letter = box.lpop(prefix + ":post")
            if letter is None:
                break
            for _ in range(2):  # every answer comes twice
                try:
                    refused += not router.update(int(letter), 1.0)
                except UnknownDecision:
                    box.rpush(prefix + ":post", letter)  # its owner has not handed it over yet
                    break
import time
time.sleep(0.3)
while (letter := box.lpop(prefix + ":post")) is not None:
    try:
        router.update(int(letter), 1.0)
        refused += not router.update(int(letter), 1.0)
    except UnknownDecision:
        box.rpush(prefix + ":post", letter)
        time.sleep(0.05)
router.close()
print(router.stats()["learned"], refused)
"""


def crowd(url, prefix, workers, count):
    """Workers that answer each other's decisions, all of them twice; returns what one more replica finds."""
    command = [sys.executable, "-c", WORKER, url, prefix]
    running = [
        subprocess.Popen([*command, str(i), str(count)], stdout=subprocess.PIPE, text=True)
        for i in range(workers)
    ]
    results = [tuple(map(int, w.communicate(timeout=600)[0].split())) for w in running]
    router = Router(LinUCB(4, 3, mix=0.2, rng=99))
    replica = router.join(RedisStore(url, prefix=prefix), background=False)
    replica.sync()
    return sum(n for n, _ in results), int(router.policy.counts.sum()), router.policy


def test_workers_answer_each_other_once(url):
    learned, counted, policy = crowd(url, f"crowd{time.time_ns()}", 2, 300)
    assert learned == counted == 2 * 300
    assert np.all(policy.counts > 0)


def test_residency_is_shared_over_redis(url):
    server = Server(2)
    options = {"backend": server, "maintenance": "manual"}
    routers = [Router(LinUCB(list("abcd"), 1, rng=i), LRU(2), 0.1, **options) for i in range(3)]
    replicas = [r.join(RedisStore(url, prefix="residency"), background=False) for r in routers]

    def turn():
        for router, replica in zip(routers, replicas, strict=True):
            replica.sync()
            router.maintain()
            replica.sync()

    turn()
    turn()
    assert [r.stats()["plans_residency"] for r in routers] == [1, 0, 0] and server.loads == 2
    assert not routers[2].select([1.0], eligible={"d"}).hit
    for _ in range(3):
        turn()
    assert "d" in server.loaded and all(set(r.resident) == set(server.loaded) for r in routers)
    assert all(r.select([1.0], eligible={"d"}).hit for r in routers)
    routers[0].close()
    for router, replica in zip(routers[1:], replicas[1:], strict=True):
        replica.sync()
        router.maintain()
    assert routers[1].stats()["plans_residency"] == 1 and routers[1].stats()["store_errors"] == 0
    for router in routers[1:]:
        router.close()
