"""Backends behind a Router, and plans off the request path."""

import threading
import time

import numpy as np
import pytest

from banditroute import Controller, LinUCB, Polar, Router, simulate
from banditroute.residency import Exchange
from banditroute.residency.paging import as_paging
from banditroute.router.views import frozen_utilities
from banditroute.servers import SimulatedBackend
from banditroute.simulation import homes

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


class Scripted(Controller):
    """Plans the sets it is given, one per call, every `epoch` requests; can be held up."""

    def __init__(self, plans, epoch=1, capacity=2):
        super().__init__(capacity)
        self.plans, self.epoch, self.next_plan = list(plans), epoch, epoch
        self.started, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.seen, self.planning = [], False

    def observe(self, arm, x, hit):
        assert not self.planning, "observed while planning"
        self.seen.append((arm, float(x[0]), hit))

    def plan(self, view):
        self.planning = True
        self.started.set()
        assert self.go.wait(10.0)
        view.utilities(np.eye(2))
        self.next_plan = view.clock + self.epoch
        self.planning = False
        wanted = self.plans.pop(0)
        if isinstance(wanted, Exception):
            raise wanted
        return wanted

    def resize(self, keep):
        self._resize_needs(keep)


def routed(controller, **options):
    return Router(LinUCB(list(ARMS), 2, rng=0), controller, 0.2, **options)


def until(condition):
    deadline = time.monotonic() + 10.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# The Router.


def test_the_first_set_is_loaded_by_the_first_request_and_what_fails_is_not_resident():
    backend, clock = simulated()
    router = routed(Scripted([]), backend=backend, maintenance="manual")
    assert router.resident == () and clock.now == 0.0
    router.maintain()
    assert router.resident == ("a", "b") and clock.now == pytest.approx(0.2048)
    assert router.stats()["page_ins"] == 2
    failing, _ = simulated(failures=1.0)
    router = routed(Scripted([]), backend=failing, maintenance="manual")
    router.maintain()
    assert router.resident == () and router.stats()["load_failures"] == 2


def test_the_first_set_is_loaded_though_no_request_comes():
    backend, _ = simulated()
    router = routed(Scripted([]), backend=backend)
    until(lambda: router.resident == ("a", "b"))


@pytest.mark.parametrize("maintenance", ["inline", "manual"])
def test_the_set_changes_as_the_backend_confirms(maintenance):
    backend, _ = simulated()
    router = routed(Scripted([{1, 2}, {2, 3}]), backend=backend, maintenance=maintenance)
    router.maintain()
    assert router.resident == ("a", "b")
    log = []
    evict, ensure = backend.evict, backend.ensure
    backend.evict = lambda name: (log.append(("evict", name)), evict(name))[1]
    backend.ensure = lambda name: (log.append(("ensure", name)), ensure(name))[1]
    router.select([1.0, 0.0])
    router.maintain()
    router.select([1.0, 0.0])
    assert router.resident == ("b", "c") and log == [("evict", "a"), ("ensure", "c")]
    assert router.stats()["loads"] == 3
    backend.failures = 1.0
    router.maintain()
    router.select([1.0, 0.0])
    assert router.resident == ("c",) and router.stats()["load_failures"] >= 1
    assert backend.observe()["c"] == "gpu"


def test_a_function_gets_one_change_at_a_time_and_says_what_loaded():
    plans = []

    def carry_out(plan):
        plans.append(plan)
        return [name for name in plan.load if name != "a" or len(plans) < 3]

    router = routed(Scripted([{1, 2}, {0, 3}]), backend=carry_out, maintenance="manual")
    router.maintain()
    router.select([1.0, 0.0])
    assert router.maintain() and router.resident == ("b", "c")
    assert plans == [
        Exchange(load=("a",)),
        Exchange(load=("b",), keep=("a",)),
        Exchange(evict=("a",), keep=("b",)),
        Exchange(load=("c",), keep=("b",)),
    ]
    router.select([1.0, 0.0])
    assert router.maintain()
    assert set(router.resident) == {"c", "d"}  # a would not load: what left for it came back


def test_confirm_reports_what_happened_elsewhere():
    router = routed(Scripted([]))
    assert not router.confirm("c", True)  # full
    assert router.confirm("a", False) and router.confirm("c", True) and router.resident == ("b", "c")
    assert not router.confirm("c", True) and not router.confirm("z", True)
    assert not Router(LinUCB(2, 2)).confirm("0", True)


def test_select_does_not_wait_for_a_plan_and_sees_the_old_set():
    controller = Scripted([{2, 3}], epoch=5)
    with routed(controller, maintenance="background") as router:
        controller.go.clear()
        for i in range(5):
            router.select([float(i), 1.0])
        assert not controller.started.is_set()
        router.select([5.0, 1.0])
        assert controller.started.wait(10.0)
        decisions = [router.select([float(i), 1.0]) for i in range(6, 40)]
        assert all(router.update(d.id, 0.5) for d in decisions)  # learning goes on as well
        assert router.resident == ("a", "b") and {d.epoch for d in decisions} == {0}
        assert len(controller.seen) <= 6
        controller.next_plan = 10**9
        controller.epoch = 10**9
        controller.go.set()
        until(lambda: router.resident == ("c", "d"))
        assert [x for _, x, _ in controller.seen] == [float(i) for i in range(40)]  # nothing missed, in order
        assert router.select([40.0, 1.0]).epoch == 1


def test_select_goes_on_while_the_backend_loads():
    release = threading.Event()

    class Slow(SimulatedBackend):
        def ensure(self, name):
            if name == "c":
                assert release.wait(10.0)
            return super().ensure(name)

    backend = Slow(ARMS, as_paging(0.1, 4), capacity=2, clock=lambda: 0.0, wait=lambda s: None)
    controller = Scripted([{1, 2}], epoch=1)
    with routed(controller, maintenance="background", backend=backend) as router:
        controller.epoch = 10**9
        router.select([0.0, 1.0])
        router.select([1.0, 1.0])
        until(lambda: router.resident == ("b",))
        for i in range(20):
            router.select([float(i), 1.0])
        assert len(controller.seen) == 22  # the controller is free again
        router.add_arm("e")  # and arms may change meanwhile
        router.remove_arm("a")
        assert router.resident == ("b",)
        release.set()
        until(lambda: router.resident == ("b", "c"))


def test_changing_arms_waits_for_the_plan():
    controller = Scripted([{2, 3}], epoch=1)
    with routed(controller, maintenance="background") as router:
        controller.epoch = 10**9
        controller.go.clear()
        router.select([0.0, 1.0])
        router.select([1.0, 1.0])
        assert controller.started.wait(10.0)
        thread = threading.Thread(target=router.remove_arm, args=("b",))
        thread.start()
        time.sleep(0.05)
        assert "b" in router.policy.arms
        router.select([2.0, 1.0])  # which holds nobody up
        controller.go.set()
        thread.join(10.0)
        assert not thread.is_alive()
        assert router.policy.arms == ("a", "c", "d") and router.resident == ("c", "d")


def test_a_plan_that_raises_is_counted_and_tried_again_later():
    controller = Scripted([RuntimeError("no"), {2, 3}], epoch=1)
    with routed(controller, maintenance="background") as router:
        for i in range(2):
            router.select([float(i), 1.0])
        until(lambda: router.stats()["plan_failures"] == 1)
        assert controller.next_plan in (1001, 1002) and router.resident == ("a", "b")
        assert len(controller.seen) == 2
        controller.epoch = 10**9
        for i in range(2, 1003):
            router.select([float(i), 1.0])
        until(lambda: router.resident == ("c", "d"))
    inline = routed(Scripted([RuntimeError("no")]))
    inline.select([0.0, 1.0])
    inline.select([0.0, 1.0])
    assert inline.stats()["plan_failures"] == 1 and inline.resident == ("a", "b")


def test_many_threads_and_background_plans_keep_the_books_straight():
    class Counting(Controller):
        def __init__(self):
            super().__init__(3)
            self.seen, self.next_plan = 0, 50

        def observe(self, arm, x, hit):
            seen = self.seen  # a lost update would show
            time.sleep(0)
            self.seen = seen + 1

        def plan(self, view):
            self.next_plan = view.clock + 50
            mean, _ = view.utilities(np.eye(4))
            return set(np.argsort(-mean.sum(axis=0))[:3].tolist())

        def resize(self, keep):
            self._resize_needs(keep)

    router = Router(LinUCB(8, 4, rng=0), Counting(), 0.2, maintenance="background")
    errors = []

    def serve(seed):
        rng = np.random.default_rng(seed)
        try:
            for _ in range(400):
                decision = router.select(rng.standard_normal(4))
                router.update(decision.id, float(rng.random()))
        except Exception as error:
            errors.append(error)

    with router:
        threads = [threading.Thread(target=serve, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    stats = router.stats()
    assert not errors
    assert (stats["decisions"], stats["learned"], stats["pending"]) == (1600, 1600, 0)
    assert stats["epoch"] >= 1 and stats["plan_failures"] == 0
    assert router.residency.seen == 1600
    assert len(router.resident) == 3


def test_background_without_traffic_meanwhile_plans_as_inline_does():
    # The thread is waited for at each boundary: then the plans, hence the decisions, are those of inline.
    problem = homes(900, 3)
    inline = simulate(LinUCB(15, 10, rng=1), problem, Polar(4, epoch=200), engine="router")
    router = Router(
        LinUCB(15, 10, rng=1),
        Polar(4, epoch=200),
        problem.faults,
        loads=problem.loads,
        maintenance="background",
    )
    arms = []
    with router:
        for t, x in enumerate(problem.stream.contexts):
            if t >= router.residency.next_plan:
                epoch = router.stats()["epoch"]
                router.wake()
                until(lambda epoch=epoch: router.stats()["epoch"] > epoch)
            decision = router.select(x)
            arms.append(int(decision.arm))
            router.update(decision.id, problem.stream.rewards[t, arms[-1]])
    assert arms == inline.arms.tolist()


# Scores without the lock.


def test_frozen_utilities_are_those_of_the_moment():
    policy = LinUCB(5, 3, rng=0)
    rng = np.random.default_rng(0)
    contexts = rng.standard_normal((40, 3))
    for x in contexts:
        policy.update(int(rng.integers(5)), x, float(x[0]))
    before = policy.utilities(contexts)
    frozen = frozen_utilities(policy, threading.RLock())
    for x in contexts:
        policy.update(int(rng.integers(5)), x, 5.0)
    after = frozen(contexts)
    np.testing.assert_array_equal(before.mean, after.mean)
    np.testing.assert_array_equal(before.bonus, after.bonus)
    assert not np.allclose(before.mean, policy.scores_batch(contexts).mean)


def test_frozen_utilities_of_many_arms_are_copied_in_pieces():
    policy = LinUCB(30, 6, rng=0)
    for i in range(60):
        policy.update(i % 30, np.eye(6)[i % 6], 1.0)
    contexts = np.random.default_rng(1).standard_normal((7, 6))
    frozen, live = frozen_utilities(policy, threading.RLock())(contexts), policy.utilities(contexts)
    np.testing.assert_array_equal(frozen.mean, live.mean)
    np.testing.assert_array_equal(frozen.bonus, live.bonus)
