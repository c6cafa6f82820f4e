"""The learner thread: equal to learning at once, bounded, and blind to how a measurement came out."""

import os
import signal
import threading

import numpy as np
import pytest

from banditroute import LinUCB, Router
from banditroute.policies import UCB1
from banditroute.router import Learner


def served(policy, n=400, seed=0):
    rng = np.random.default_rng(seed)
    router = Router(policy)
    rows = rng.standard_normal((n, 3))
    return router, [router.select(x).id for x in rows], rng.random(n), rows


def fixed():
    return LinUCB(4, 3, alpha=0.5, ridge=1.0, prior=None, mix=1.0, rng=1)


def test_the_queue_learns_what_learning_at_once_does():
    router, ids, rewards, rows = served(fixed())
    twin, twins, _, _ = served(fixed())
    order = np.random.default_rng(5).permutation(400)
    with Learner(router) as learner:
        shares = np.array_split(order, 4)
        threads = [
            threading.Thread(
                target=lambda share: [learner.put(ids[i], rewards[i]) for i in share], args=(share,)
            )
            for share in shares
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert learner.flush(20.0)
        assert learner.stats()["learned"] == 400
    for key, reward in zip(twins, rewards, strict=True):
        twin.update(key, reward)
    for x in rows[:20]:
        np.testing.assert_allclose(router.policy.scores(x), twin.policy.scores(x), rtol=1e-9)
    np.testing.assert_array_equal(router.policy.counts, twin.policy.counts)


def test_in_order_the_queue_is_synchronous_to_the_last_bit():
    router, ids, rewards, rows = served(LinUCB(4, 3, rng=1))
    twin, twins, _, _ = served(LinUCB(4, 3, rng=1))
    with Learner(router) as learner:
        for key, reward in zip(ids, rewards, strict=True):
            assert learner.put(key, reward)
    for key, reward in zip(twins, rewards, strict=True):
        twin.update(key, reward)
    np.testing.assert_array_equal(router.policy.scores(rows[0]), twin.policy.scores(rows[0]))


def test_the_gate_keeps_what_is_invalid_out_and_low_rewards_in():
    router, ids, _, _ = served(UCB1(2, 3, mix=1.0, rng=0))
    bad = set(ids[::3])
    with Learner(router, gate=lambda key, reward: key not in bad) as learner:
        for key in ids:
            learner.put(key, 0.0 if key not in bad else 1.0)
    assert learner.stats()["invalid"] == len(bad)
    assert router.policy.counts.sum() == 400 - len(bad)
    np.testing.assert_array_equal(router.policy.scores(np.zeros(3)).mean, 0.0)


def test_a_full_queue_refuses_at_once():
    router, ids, _, _ = served(UCB1(2, 3, rng=0))
    entered, release = threading.Event(), threading.Event()

    def gate(key, reward):
        entered.set()
        return release.wait(20.0)

    with Learner(router, gate=gate, limit=10) as learner:
        learner.put(ids[0], 0.5)
        assert entered.wait(20.0)
        accepted = [learner.put(key, 0.5) for key in ids[1:31]]
        assert accepted == [True] * 10 + [False] * 20
        assert learner.stats() | {} == {
            "learned": 0, "dropped": 0, "invalid": 0, "failed": 0, "refused": 20, "skipped": 0, "waiting": 11,
        }  # fmt: skip
        assert not learner.flush(0.01)
        release.set()
    assert learner.stats()["learned"] == 11


def test_sampling_leaves_out_at_random():
    # Seed 3, n = 2,000, share .3: 600 expected, standard deviation 20.5; six of them err below 1e-8.
    counts = []
    for _ in range(2):
        router, ids, _, _ = served(UCB1(2, 3, rng=0), n=2000)
        with Learner(router, share=0.3, rng=3) as learner:
            for key in ids:
                learner.put(key, 1.0)
        stats = learner.stats()
        assert stats["learned"] + stats["skipped"] == 2000
        counts.append(stats["learned"])
    assert counts[0] == counts[1] and abs(counts[0] - 600) < 123


def test_errors_are_counted_and_the_thread_goes_on():
    router, ids, _, _ = served(UCB1(2, 3, rng=0), n=5)

    def gate(key, reward):
        if key == ids[1]:
            raise RuntimeError("the judge is out")
        return True

    with Learner(router, gate=gate) as learner:
        learner.put(12345, 1.0)  # never issued
        for key in (ids[0], ids[0], ids[1], ids[2]):
            learner.put(key, 1.0)
        for wrong in (float("nan"), None, "1"):
            with pytest.raises((ValueError, TypeError)):
                learner.put(ids[3], wrong)
    stats = learner.stats()
    assert (stats["failed"], stats["dropped"], stats["learned"]) == (2, 1, 2)
    with pytest.raises(ValueError, match="open"):
        learner.put(ids[4], 1.0)


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_forked_child_learns_too():
    router, ids, _, _ = served(UCB1(2, 3, rng=0), n=5)
    entered, release = threading.Event(), threading.Event()

    def gate(key, reward):
        entered.set()
        return release.wait(20.0)

    read, write = os.pipe()
    with Learner(router, gate=gate, share=0.5, rng=3) as learner, Learner(router) as closed:
        while learner.stats()["waiting"] < 2:  # one being judged, one behind it
            learner.put(ids[0], 1.0)
        assert entered.wait(20.0)
        closed.close()
        child = os.fork()
        if not child:
            signal.alarm(120)  # it must not outlive the tests
            try:
                release.set()
                before = learner.stats()["waiting"]
                key = router.select([0.0, 0.0, 0.0]).id
                while not learner.put(key, 1.0):
                    pass
                flushed = learner.flush(20.0)
                learned = learner.stats()["learned"]
                learner.close()
                try:
                    closed.put(key, 1.0)
                except ValueError:
                    os.write(write, repr((before, flushed, learned, router.policy.counts.sum() > 0)).encode())
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        assert os.read(read, 1000) == b"(0, True, 1, np.True_)"
        assert learner.stats()["learned"] == 0 and learner.stats()["waiting"] == 2
        release.set()
    os.close(read)
