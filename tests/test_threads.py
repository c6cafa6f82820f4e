"""Threads, forks and asyncio: nothing is lost, torn or blocked."""

import asyncio
import os
import signal
import threading

import numpy as np
import pytest

from banditroute import FileStore, LinUCB, Polar, Router, UnknownDecision


def hammered(router, threads, pairs, dim, *, log=None):
    """Select and update from many threads; feedback is whole numbers, so that sums do not depend on the order."""
    errors = []

    def work(seed):
        rng = np.random.default_rng(seed)
        rows = rng.integers(-3, 4, size=(1000, dim)).astype(float)
        rewards = rng.integers(-3, 4, size=1000).astype(float).tolist()
        waiting = []
        try:
            for i in range(pairs):
                decision = router.select(rows[i % 1000])
                waiting.append((decision, i % 1000))
                if len(waiting) > 8 or i == pairs - 1:
                    while len(waiting) > (0 if i == pairs - 1 else 8):
                        asked, j = waiting.pop(0)
                        assert router.update(asked.id, rewards[j]) is True
                        if log is not None:
                            log[seed].append((asked.arm, j, rewards[j]))
        except Exception as error:
            errors.append(error)

    if log is not None:
        log.extend([] for _ in range(threads))
    running = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    assert not errors, errors[0]


def replayed(log, arms, dim):
    """The same feedback by one thread on a bare policy."""
    policy = LinUCB(arms, dim, ridge=1.0, alpha=0.5, prior=None, rng=0)
    for seed, entries in enumerate(log):
        rows = np.random.default_rng(seed).integers(-3, 4, size=(1000, dim)).astype(float)
        for arm, j, reward in entries:
            policy.update(arm, rows[j], reward)
    return policy


@pytest.mark.parametrize("background", [False, True])
def test_no_update_is_lost_under_threads(tmp_path, background):
    log, before = [], set(threading.enumerate())
    policy = LinUCB(4, 5, ridge=1.0, alpha=0.5, prior=None, mix=0.2, rng=0)
    router = Router(policy, Polar(2, epoch=300), 0.1, maintenance="background" if background else "inline")
    if background:
        router.recover(tmp_path / "home", checkpoint_s=0.05, flush_s=0.005)
        router.join(FileStore(tmp_path / "store"), sync_s=0.02)
    hammered(router, 8, 1500, 5, log=log)
    router.close()
    stats = router.stats()
    assert stats["decisions"] == stats["learned"] == 8 * 1500 and stats["pending"] == 0
    alone = replayed(log, 4, 5)
    assert np.array_equal(policy.counts, alone.counts)
    for arm in range(4):
        assert np.array_equal(policy.precision(arm), alone.precision(arm))  # whole numbers: exact
        assert np.allclose(policy.cov(arm), alone.cov(arm), rtol=1e-9)
    assert np.allclose(policy.theta, alone.theta, rtol=1e-9, atol=1e-12)
    assert set(threading.enumerate()) == before  # a clean stop


def test_arms_may_change_while_threads_serve():
    router = Router(LinUCB(["a", "b"], 3, mix=0.5, rng=0), Polar(1, epoch=50), 0.1)
    done = threading.Event()

    def change():
        while not done.is_set():
            router.add_arm("c")
            router.quarantine("a")
            router.release("a")
            router.remove_arm("c")

    other = threading.Thread(target=change)
    other.start()
    answered = 0
    for _ in range(2000):
        decision = router.select(np.ones(3))
        answered += router.update(decision.id, 1.0)
    done.set()
    other.join()
    stats = router.stats()
    assert stats["learned"] == answered and stats["learned"] + stats["dropped"] == 2000


def in_child(work):
    """Fork, run, and return what the child wrote."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(120)  # a child that hangs must not outlive the tests
        try:
            os.write(write, repr(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        answer = file.read().decode()
    os.waitpid(child, 0)
    return eval(answer)


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_fork_keeps_statistics_and_drops_what_is_not_its_own(tmp_path):
    router = Router(LinUCB(3, 2, rng=0), Polar(1, epoch=10), 0.1, maintenance="background")
    router.recover(tmp_path / "home", flush_s=0.005)
    replica = router.join(FileStore(tmp_path / "store"), sync_s=0.01)
    for _ in range(20):
        router.update(router.select([1.0, 0.5]).id, 1.0)
    mine = router.select([1.0, 0.5]).id
    while router.stats()["syncs"] < 2:
        pass

    def work():
        counts = router.policy.counts.tolist()
        keys = [router.select([1.0, 0.5]).id for _ in range(600)]
        for key in keys[:300]:
            router.update(key, 1.0)
        try:
            router.update(mine, 1.0)
            refused = False
        except UnknownDecision:
            refused = True
        router.close()
        return sum(counts), keys[0], refused, router._lasting.replica.id, router.stats()["learned"]

    results = [in_child(work) for _ in range(2)]
    assert all(r[2] for r in results)
    assert (
        results[0][0] == 20 and 20 <= results[1][0] <= 320
    )  # the second may know of the first, or of some arms
    assert len({r[1] for r in results} | {router.select([1.0, 0.5]).id}) == 3  # ids of their own
    assert len({r[3] for r in results} | {replica.id}) == 3
    assert router.update(mine, 1.0) is True
    router.close()
    assert router.policy.counts.sum() == 21 + 2 * 300
    again = Router(LinUCB(3, 2, rng=0), Polar(1, epoch=10), 0.1)
    again.recover(tmp_path / "home")  # the children never wrote to it
    assert again.stats()["decisions"] == router.stats()["decisions"]
    again.close()


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_child_forked_while_its_parent_holds_the_lock_of_the_store_takes_it_in_turn(tmp_path):
    store, inside, done = FileStore(tmp_path), threading.Event(), threading.Event()

    def hold():
        with store._locked():
            inside.set()
            done.wait(30.0)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(30.0)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(120)
        os.write(write, repr(store.index()).encode())
        os._exit(0)
    os.close(write)
    done.set()  # the parent lets go; the child, which inherited the open file, must not hold on to it
    holder.join()
    with os.fdopen(read, "rb") as file:
        assert file.read() == b"{}"
    os.waitpid(child, 0)
    assert store.index() == {}


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
def test_a_directory_is_free_when_its_owner_has_ended_though_its_child_lives_on(tmp_path):
    router = Router(LinUCB(3, 2, rng=0))
    router.recover(tmp_path)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(120)
        os.close(write)
        os.read(read, 1)  # until the parent closes its end, however it ends
        os._exit(0)
    try:
        router.close()
        again = Router(LinUCB(3, 2, rng=0))
        again.recover(tmp_path)
        again.close()
    finally:
        os.close(write)
        os.waitpid(child, 0)
        os.close(read)


def test_a_fork_while_threads_serve_is_whole():
    router = Router(LinUCB(3, 4, ridge=1.0, alpha=0.5, prior=None, rng=0))
    done = threading.Event()

    def serve():
        while not done.is_set():
            router.update(router.select([1.0, 2.0, 0.0, 1.0]).id, 1.0)

    running = [threading.Thread(target=serve) for _ in range(3)]
    for thread in running:
        thread.start()

    def work():
        policy, before = router.policy, router.policy.cov(0)
        router.update(router.select([1.0, 0.0, 0.0, 0.0], eligible=np.array([False, True, True])).id, 1.0)
        policy.rebuild()
        return bool(np.allclose(before, policy.cov(0), rtol=1e-9)), router.stats()["pending"]

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        results = [in_child(work) for _ in range(5)]
    done.set()
    for thread in running:
        thread.join()
    assert results == [(True, 0)] * 5


def test_asyncio_calls_never_block_on_the_store(tmp_path):
    """select and update are microseconds, so they are called as they are; a slow store only slows its thread."""

    class Slow(FileStore):
        def put(self, *args):
            slow.wait(2.0)
            return super().put(*args)

    slow = threading.Event()
    slow.set()
    router = Router(LinUCB(3, 2, rng=0))
    router.join(Slow(tmp_path), sync_s=0.01)
    slow.clear()  # from here on a put hangs

    async def request():
        decision = router.select([1.0, 0.0])
        await asyncio.sleep(0)
        return router.update(decision.id, 1.0)

    async def main():
        return await asyncio.gather(*(request() for _ in range(500)))

    syncs = router.stats()["syncs"]
    assert all(asyncio.run(main()))
    assert router.stats()["syncs"] <= syncs + 1  # none was waited for
    slow.set()
    router.close()
