"""The simulated server: loads take time, fail, get lost, displace and queue."""

import threading
import time

import numpy as np
import pytest

from banditroute import PagingModel
from banditroute.records import AdapterBackend
from banditroute.residency.paging import as_paging
from banditroute.servers import SimulatedBackend

ARMS = ("a", "b", "c", "d")


class Clock:
    """Virtual time: waiting advances it."""

    def __init__(self):
        self.now = 0.0
        self.lock = threading.Lock()

    def __call__(self):
        return self.now

    def wait(self, seconds):
        with self.lock:
            self.now += max(seconds, 0.0)


def simulated(capacity=2, price=0.1, **options):
    clock = Clock()
    backend = SimulatedBackend(
        ARMS, as_paging(price, len(ARMS)), capacity=capacity, clock=clock, wait=clock.wait, rng=0, **options
    )
    return backend, clock


def test_loads_take_as_long_as_the_paging_model_says_and_once():
    backend, clock = simulated()
    assert isinstance(backend, AdapterBackend)
    assert backend.ensure("a")
    assert clock.now == pytest.approx(0.1024)  # 0.1 reward units at 1,024 ms each
    assert backend.ensure("a")
    assert clock.now == pytest.approx(0.1024)
    assert backend.observe() == {"a": "gpu", "b": "disk", "c": "disk", "d": "disk"}


def test_the_least_recently_used_is_displaced_unless_pinned_or_touched():
    backend, _ = simulated()
    for name in "ab":
        backend.ensure(name)
    assert backend.touch("a")
    backend.ensure("c")
    assert backend.observe() == {"a": "gpu", "b": "host", "c": "gpu", "d": "disk"}
    assert backend.pin("a") and not backend.pin("d")
    backend.ensure("d")
    assert backend.observe()["a"] == "gpu" and backend.observe()["c"] == "host"
    assert not backend.evict("a") and not backend.evict("b")
    assert backend.pin("a", False) and backend.evict("a")
    assert backend.pin("d") and backend.ensure("b") and backend.pin("b")
    assert not backend.ensure("a")  # pins fill every slot


def test_requests_queue_on_the_link():
    backend, _ = simulated()
    backend.ensure("a")
    assert backend.serve("a") == 0.0
    first, second = backend.serve("b"), backend.serve("c")
    assert (first, second) == (pytest.approx(0.1024), pytest.approx(0.2048))
    assert backend.serve("a") == pytest.approx(0.2048)  # a load blocks those that are resident
    assert backend.observe()["b"] == "disk"  # served from a scratch slot
    free, _ = simulated(blocking=False)
    free.ensure("a")
    free.serve("b")
    assert free.serve("a") == 0.0


def test_concurrent_loads_are_serial_and_shared():
    # Real waits of 20 ms: three threads ask for two adapters; the link carries one at a time, each once.
    backend = SimulatedBackend(ARMS, as_paging(20 / 1024, 4), capacity=2)
    started = time.monotonic()
    answers = []
    threads = [threading.Thread(target=lambda n=n: answers.append(backend.ensure(n))) for n in "aab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 3
    assert 0.039 <= time.monotonic() - started < 5.0


def test_failures_and_lost_answers():
    # 400 loads each: failures 0.3 and losses 0.5 of the rest, within 4.5 standard errors (alarm below 1e-4), seed 0.
    backend, _ = simulated(capacity=1, failures=0.3, lost=0.5)
    outcome = []
    for _ in range(400):
        answered = backend.ensure("a")
        believed = backend.believed()["a"]
        truth = backend.observe()["a"]
        assert answered == (believed == "gpu") and backend.believed()["a"] == truth
        assert truth in ("gpu", "disk")
        outcome.append((believed, truth))
        backend.evict("a")
    share = {key: outcome.count(key) / 400 for key in set(outcome)}
    for key, p in {("disk", "disk"): 0.3, ("gpu", "gpu"): 0.35, ("unknown", "gpu"): 0.175}.items():
        assert abs(share[key] - p) < 4.5 * np.sqrt(p * (1 - p) / 400), key


def test_asking_again_after_a_lost_answer_needs_no_second_load():
    backend, clock = simulated(capacity=1, lost=1.0)
    while backend.believed()["a"] != "unknown" or backend._loaded == {}:
        backend.evict("a")
        backend.ensure("a")
    before = clock.now
    assert backend.ensure("a") and clock.now == before
    assert backend.believed()["a"] == "gpu"


@pytest.mark.parametrize("call", ["ensure", "evict", "pin", "touch", "serve"])
def test_unknown_names_are_refused(call):
    backend, _ = simulated()
    with pytest.raises(ValueError, match="name must be one of"):
        getattr(backend, call)("z")
    with pytest.raises(ValueError, match="failures"):
        simulated(failures=1.5)


def test_waits_follow_the_model():
    # 300 loads of a lognormal model with sigma 0.1: the mean is within 4 standard errors, seed 0.
    model = PagingModel()
    clock = Clock()
    backend = SimulatedBackend(["a"], model, capacity=1, clock=clock, wait=clock.wait, rng=0)
    waits = []
    for _ in range(300):
        before = clock.now
        backend.ensure("a")
        waits.append(1e3 * (clock.now - before))
        backend.evict("a")
    error = np.std(waits) / np.sqrt(300)
    assert error > 0 and abs(np.mean(waits) - model.expected_ms(1)[0]) < 4 * error
