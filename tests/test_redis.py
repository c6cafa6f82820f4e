"""The Redis store against a real server."""

import subprocess
import sys
import time

import numpy as np
import pytest

import schedules
from banditroute import LinUCB, Router
from banditroute.durability import StateStore
from banditroute.durability.redis_store import RedisStore
from banditroute.durability.stores import BASE
from servers import redis_server


@pytest.fixture(scope="module")
def url():
    with redis_server() as address:
        yield address


@pytest.mark.parametrize("seed", range(20))
def test_fault_schedules(url, seed):
    schedules.run_schedule(RedisStore(url), 1000 + seed)


def test_the_protocol(url):
    store = RedisStore(url, prefix="protocol")
    assert isinstance(store, StateStore)
    row = {"seq": 1, "beat": 1, "parts": {"a": 1, "b": 1}, "decisions": 0}
    assert store.put("r", row, {"a": b"A"}) == ["b"]
    assert store.index()["r"]["parts"] == {"a": 1}
    assert store.put("r", {**row, "beat": 2}, {"b": b"B"}) == []
    assert store.put("r", row, {"a": b"old"}) == []  # a straggler: ignored
    assert store.fetch("r", ["a", "b", "c"]) == {"a": b"A", "b": b"B"}
    base = {"seq": 1, "beat": 0, "parts": {}, "decisions": 0, "folded": {"r": 1}}
    assert store.compact(None, base, {}, {"r": row}) is False  # its beat has moved on
    assert store.compact(None, base, {}, {"r": {**row, "beat": 2}}) is True
    assert set(store.index()) == {BASE}
    store.keep({7: b"seven"}, 60.0)
    assert store.take([7, 7, 8]) == [b"seven", b"", None]


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
