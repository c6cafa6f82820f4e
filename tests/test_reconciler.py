"""The reconciler: a server is brought to the wanted set, whatever it does meanwhile."""

import logging
import threading
import time

import numpy as np
import pytest

from adapter_servers import Clock, Server
from banditroute import LRU, LinUCB, Router, Static
from banditroute._core.background import Background
from banditroute._core.calls import LimitedCalls
from banditroute.records import Capabilities
from banditroute.router.backends import as_backend
from banditroute.router.conversation import COUNTS
from banditroute.router.reconciler import Reconciler


def reconciler(server, clock=None, **options):
    """A reconciler, and the set that `confirm` told of."""
    held = set()

    def confirm(name, resident):
        (held.add if resident else held.discard)(name)

    options = {"call_timeout_s": 5.0, **options}
    made = Reconciler(server, confirm=confirm, clock=Clock() if clock is None else clock, **options)
    made.own("abcdef")
    return made, held


def settle(made, clock, seconds=10.0, steps=40):
    for _ in range(steps):
        made.step()
        clock.now += seconds / steps
    made.step()


# What it does.


def test_one_adapter_leaves_for_each_that_comes_and_nothing_is_called_before_the_first_step():
    server = Server(2)
    made, held = reconciler(server)
    made.want("ab")
    assert server.log == []
    assert made.step() and held == set(server.loaded) == {"a", "b"} == made.actual
    del server.log[:]
    made.want("cd")
    assert made.step() and held == set(server.loaded) == {"c", "d"}
    changes = [call for call in server.log if call[0] in ("ensure", "evict")]
    assert changes == [("evict", "a"), ("ensure", "c"), ("evict", "b"), ("ensure", "d")]
    assert not made.step() and not made.step()
    assert made.stats()["loads"] == 4 and made.stats()["evictions"] == 2


def test_a_step_with_nothing_to_do_calls_nothing_and_takes_microseconds():
    server, clock = Server(2), Clock()
    made, _ = reconciler(server, clock)
    made.want("ab")
    made.step()
    calls, start = len(server.log), time.perf_counter()
    for _ in range(2000):
        made.step()
    assert time.perf_counter() - start < 0.2 and len(server.log) == calls
    assert made.due == pytest.approx(10.0)


def test_a_failure_is_blamed_on_its_adapter_and_the_place_stays_in_use():
    server, clock = Server(2, raises=["c"]), Clock()
    made, held = reconciler(server, clock)
    made.want("ab")
    made.step()
    made.want("ac")
    made.step()
    assert held == set(server.loaded) == {"a", "b"}  # b was brought back
    assert made.blocked() == {"c"} and made.stats()["load_failures"] == 1
    clock.now += 1.1
    assert made.blocked() == frozenset()
    before = server.asked("evict")
    made.step()  # c is tried before anything leaves for it
    assert made.blocked() == {"c"} and server.asked("evict") == before and server.asked("ensure", "c") == 2
    server.raises.clear()
    settle(made, clock)
    assert held == set(server.loaded) == {"a", "c"} and made.blocked() == frozenset()


def test_a_refusal_frees_a_place_first_and_is_then_blamed():
    server, clock = Server(1, refuses=["c"]), Clock()
    made, held = reconciler(server, clock)
    made.want("a")
    made.step()
    made.want("c")
    settle(made, clock, 100.0, 200)
    assert held == set(server.loaded) == {"a"} and server.asked("ensure", "c") < 20


def test_pauses_double():
    server, clock = Server(2, refuses=["c"]), Clock()
    made, _ = reconciler(server, clock)
    made.want("c")
    tries = []
    for _ in range(2000):
        before = server.asked("ensure")
        made.step()
        tries += [clock.now] * (server.asked("ensure") > before)
        clock.now += 0.1
    assert len(tries) == 8 and np.all(np.diff(np.diff(tries)) > 0)


def test_evictions_are_repeated_until_they_are_confirmed():
    server, clock = Server(2, busy={"a": 3}), Clock()
    made, held = reconciler(server, clock)
    made.want("ab")
    made.step()
    made.want("bc")
    made.step()
    assert held == set(server.loaded) == {"a", "b"}  # a is there: requests to it are hits
    settle(made, clock, 20.0, 100)
    assert held == set(server.loaded) == {"b", "c"}
    assert made.stats()["eviction_failures"] == 3


def test_an_eviction_that_fails_is_not_blamed_on_the_load_that_lacks_room():
    server, clock = Server(1, busy={"a": 1}), Clock()
    made, held = reconciler(server, clock)
    made.want("a")
    made.step()
    made.want("b")
    made.step()
    settle(made, clock, 2.0)
    assert held == set(server.loaded) == {"b"}


def test_it_finds_what_the_server_holds_already():
    server = Server(3)
    for name in "abz":
        server.ensure(name)
    made, held = reconciler(server)
    made.want("ac")
    made.step()
    assert held == made.actual == {"a", "c"}
    assert set(server.loaded) == {"a", "c", "z"}  # z is somebody else's; b is ours and was not wanted
    assert server.asked("ensure", "a") == 1


def test_a_server_that_lost_everything_is_noticed_within_a_period():
    server, clock = Server(2), Clock()
    made, held = reconciler(server, clock)
    made.want("ab")
    made.step()
    server.restart()
    clock.now += 9.9
    assert not made.step() and held == {"a", "b"}
    clock.now += 0.2
    made.step()
    assert held == set(server.loaded) == {"a", "b"} and server.loads == 4
    server.loaded.remove("a")
    clock.now += 1.1
    made.want("ab")  # a new plan starts from news that is fresh
    made.step()
    assert set(server.loaded) == {"a", "b"}


def test_a_server_that_is_away_is_nobodys_fault():
    server, clock = Server(2), Clock()
    server.faults.add("away")
    made, held = reconciler(server, clock)
    made.want("ab")
    settle(made, clock, 100.0, 1000)
    assert held == set() and made.blocked() == frozenset()
    assert made.stats()["load_failures"] >= 2 and len(server.log) < 40
    server.faults.clear()
    settle(made, clock)
    assert held == set(server.loaded) == {"a", "b"}


def test_loads_go_on_where_the_server_cannot_tell():
    server, clock = Server(2), Clock()
    server.faults.add("mute")
    made, held = reconciler(server, clock)
    made.want("ab")
    made.step()
    assert held == set(server.loaded) == {"a", "b"} and made.stats()["observation_failures"] > 0


def test_pins_are_applied_checked_and_taken_back():
    server, clock = Server(2), Clock()
    made, held = reconciler(server, clock)
    made.want("ab", pinned="a")
    made.step()
    assert server.pinned == {"a"}
    server.restart()
    clock.now += 10.1
    made.step()
    assert server.pinned == {"a"} and held == {"a", "b"}
    made.want("cd")
    made.step()
    assert server.pinned == set() and held == set(server.loaded) == {"c", "d"}


def test_a_forgotten_adapter_is_unloaded_and_comes_back_anew():
    server = Server(2)
    made, held = reconciler(server)
    made.want("ab")
    made.step()
    made.forget("a")
    server.versions["a"] = 2
    made.want("ab")
    made.step()
    assert server.memory["a"] == 2 and held == set(server.loaded) == {"a", "b"}
    made.forget("a")
    made.step()
    assert set(server.loaded) == held == {"b"}
    made.forget("f")  # was never asked for
    before = len(server.log)
    made.step()
    assert server.asked("evict", "f") == 0 and len(server.log) <= before + 1


def test_what_is_forgotten_is_not_loaded_before_it_is_gone():
    server, clock = Server(2, busy={"a": 2}), Clock()
    made, held = reconciler(server, clock)
    made.want("a")
    made.step()
    server.versions["a"] = 2
    made.forget("a")
    made.want("a")
    made.step()
    assert server.memory["a"] == 1 and server.asked("ensure", "a") == 1
    settle(made, clock)
    assert server.memory["a"] == 2 and held == {"a"}


def test_a_backend_may_have_a_way_to_forget():
    class Forgetful(Server):
        def forget(self, name):
            self.log.append(("forget", name))
            self.loaded.remove(name)
            return True

    server = Forgetful(2, capabilities=Capabilities(unload=False))
    made, held = reconciler(server)
    made.want("ab")
    made.step()
    made.forget("a")
    made.step()
    assert held == {"b"} and server.asked("evict") == 0 and server.asked("forget", "a") == 1


def test_a_server_that_only_displaces_is_led_by_touching():
    server, clock = (
        Server(2, capabilities=Capabilities(unload=False, displaces=True), displaces=True),
        Clock(),
    )
    made, held = reconciler(server, clock)
    made.want("ab")
    made.step()
    server.touch("a")  # by its own order b would go first
    server.touch("b")
    server.touch("a")
    made.want("bc")
    made.step()
    assert held == set(server.loaded) == {"b", "c"} and server.asked("evict") == 0


def test_without_unload_and_without_news_the_oldest_that_is_not_wanted_is_not_counted_on():
    able = Capabilities(unload=False, observe=False, displaces=True)
    server = Server(2, capabilities=able, displaces=True)
    made, held = reconciler(server)
    made.want("ab")
    made.step()
    made.want("bc")
    made.step()
    assert held == set(server.loaded) == {"b", "c"}


def test_requests_change_what_a_displacing_server_holds():
    class Displacing(Server):
        def served(self, name):
            if self.touch(name):
                return ()
            gone = self.loaded[0] if len(self.loaded) >= self.slots else None
            self.displaces = True
            self.ensure(name)
            return [*([(gone, False)] if gone else []), (name, True)]

    server = Displacing(2, capabilities=Capabilities(unload=False, displaces=True), displaces=True)
    made, held = reconciler(server)
    assert not made.follows_requests
    made.want("ab")
    made.step()
    assert made.follows_requests
    for name in "acadbf":
        made.picture.served(name)
        assert held == set(server.loaded) == made.actual
    assert made.stats()["loads"] == server.loads


def test_own_loads_that_displace_what_is_wanted_are_blamed():
    # The server has fewer slots than the plan.
    server, clock = Server(2, displaces=True), Clock()
    made, held = reconciler(server, clock)
    made.want("abc")
    settle(made, clock, 60.0, 600)
    assert held == set(server.loaded) and len(held) == 2
    assert made.stats()["load_failures"] > 0 and server.loads < 60


def test_a_load_that_the_server_denies_is_a_failure():
    class Liar(Server):
        def ensure(self, name):
            return True if name == "a" else super().ensure(name)

    server, clock = Liar(2), Clock()
    made, held = reconciler(server, clock)
    made.want("ab")
    made.step()
    assert held == {"b"} and made.blocked() == {"a"} and made.stats()["load_failures"] == 1


def test_sizes_that_need_two_places_get_them():
    class Bytes(Server):
        size = {"a": 1, "b": 1, "c": 2}  # noqa: RUF012

        def ensure(self, name):
            self.log.append(("ensure", name))
            if sum(self.size[n] for n in self.loaded) + self.size[name] > 2:
                return False
            self.loaded.append(name)
            return True

    server = Bytes(2)
    made, held = reconciler(server)
    made.want("ab")
    made.step()
    made.want("c")
    made.step()
    assert held == set(server.loaded) == {"c"} and made.stats()["load_failures"] == 0


# What goes wrong.


@pytest.mark.parametrize("fault", ["away", "nonsense", "exit", "mute"])
@pytest.mark.parametrize("observe", [True, False])
def test_whatever_a_backend_does_nothing_is_raised(fault, observe):
    server, clock = Server(2, capabilities=Capabilities(observe=observe)), Clock()
    made, held = reconciler(server, clock, log=logging.getLogger("quiet"))
    made.want("ab", pinned="a")
    made.step()
    server.faults.add(fault)
    made.want("cd", pinned="c")
    settle(made, clock)
    made.forget("c")
    made.want("bd")
    settle(made, clock)
    server.faults.clear()
    settle(made, clock, 400.0, 4000)
    assert held == set(server.loaded) == {"b", "d"} == made.actual


def test_a_call_that_hangs_holds_nothing_up_and_its_answer_counts():
    server, clock = Server(2), Clock()
    made, held = reconciler(server, clock, call_timeout_s=0.05)
    ensure = server.ensure

    def slow(name):
        if name == "a" and not server.awake.is_set():
            server.awake.wait(20.0)
        return ensure(name)

    server.ensure = slow
    made.want("ab")
    start = time.monotonic()
    made.step()
    assert time.monotonic() - start < 2.0
    assert held == set(server.loaded) == {"b"} and made.blocked() == {"a"}
    assert made.stats()["hanging_calls"] == 1 and made.stats()["timeouts"] == 1
    clock.now += 60.0
    made.step()
    assert made.blocked() == {"a"}  # its load is still under way: it is not asked for again
    server.awake.set()
    deadline = time.monotonic() + 5.0
    while "a" not in held and time.monotonic() < deadline:
        made.step()
        time.sleep(0.01)
    assert held == {"a", "b"} and made.stats()["hanging_calls"] == 0
    assert made.stats()["loads"] <= 2 and made.blocked() == frozenset()


@pytest.mark.parametrize("observe", [True, False])
def test_a_server_that_hangs_altogether_costs_one_time_limit_now_and_then(observe):
    server, clock = Server(4, capabilities=Capabilities(observe=observe)), Clock()
    server.faults.add("hang")
    made, _ = reconciler(server, clock, call_timeout_s=0.03)
    made.want("abcd")
    start = time.monotonic()
    settle(made, clock, 30.0, 300)
    assert time.monotonic() - start < 3.0
    assert made.close(1.0)
    server.awake.set()


def test_close_does_not_wait_for_a_call_that_hangs():
    server = Server(2)
    server.faults.add("hang")
    made, _ = reconciler(server, time.monotonic, call_timeout_s=20.0)
    made.want("ab")
    thread = threading.Thread(target=made.step, daemon=True)
    thread.start()
    time.sleep(0.05)
    start = time.monotonic()
    assert made.close(5.0) and time.monotonic() - start < 2.0
    thread.join(2.0)
    assert not thread.is_alive() and not made.step()
    server.awake.set()


def test_confirm_and_the_clock_may_raise():
    server, clock = Server(2), Clock()

    def confirm(name, resident):
        raise SystemExit("a listener ends the process")

    made = Reconciler(server, confirm=confirm, clock=clock)
    made.want("ab")
    made.step()
    assert made.actual == {"a", "b"}


def test_adapters_load_before_the_first_request():
    server = Server(2)
    with Router(LinUCB(["a", "b"], 1, rng=0), Static(["a", "b"]), 0.1, backend=server):
        deadline = time.monotonic() + 5.0
        while set(server.loaded) != {"a", "b"} and time.monotonic() < deadline:
            time.sleep(0.005)
        assert set(server.loaded) == {"a", "b"}


def test_after_invalidate_nothing_is_believed_before_it_is_seen():
    server, clock = Server(2), Clock()
    made, held = reconciler(server, clock)
    made.want("ab")
    made.step()
    server.loaded.remove("a")
    made.invalidate()
    assert held == set()
    made.step()
    assert held == {"a", "b"} and server.asked("ensure", "b") == 1


def test_steps_from_two_threads_do_not_meet():
    inside, most = [0], [0]

    class Watched(Server):
        def reach(self, what, name=""):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.001)
            inside[0] -= 1
            return super().reach(what, name)

    server = Watched(3)
    made, held = reconciler(server, time.monotonic)

    def work(k):
        rng = np.random.default_rng(k)
        for _ in range(10):
            made.want(rng.choice(list("abcdef"), 3, replace=False).tolist())
            made.step()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.want("abc")
    deadline = time.monotonic() + 5.0
    while held != {"a", "b", "c"} and time.monotonic() < deadline:
        made.step()
    assert most[0] == 1 and held == set(server.loaded) == {"a", "b", "c"}


@pytest.mark.parametrize("seed", range(100))
def test_after_the_last_fault_the_picture_is_true_within_a_period(seed):
    """Random plans, faults of every kind and time; strict and displacing servers, with and without a word of theirs."""
    rng = np.random.default_rng(seed)
    displaces, unload = bool(rng.random() < 0.4), True
    if displaces:
        unload = bool(rng.random() < 0.5)
    server = Server(3, displaces=displaces, capabilities=Capabilities(displaces=displaces, unload=unload))
    clock = Clock()
    made, held = reconciler(server, clock, call_timeout_s=0.005, log=logging.getLogger("quiet"))
    names = list("abcdef")
    for _ in range(60):
        what = rng.integers(12)
        if what < 4:
            wanted = rng.choice(names, rng.integers(1, 4), replace=False).tolist()
            made.want(wanted, pinned=wanted[:1] if rng.random() < 0.3 else ())
        elif what == 4:
            server.restart()
        elif what == 5:
            server.lose(str(rng.choice(names)))
        elif what == 6:
            server.faults = {str(rng.choice(["away", "nonsense", "exit", "mute", "hang"]))}
        elif what == 7:
            server.refuses = set(rng.choice(names, 2, replace=False).tolist())
        elif what == 8:
            server.busy = dict.fromkeys(rng.choice(names, 2).tolist(), 2)
        elif what == 9:
            made.forget(str(rng.choice(names)))
            made.own(names)
        else:
            server.faults, server.refuses = set(), set()
            server.awake.set()
            server.awake = threading.Event()
        for _ in range(int(rng.integers(1, 6))):
            made.step()
            clock.now += float(rng.random())
    server.faults, server.refuses, server.busy = set(), set(), {}
    server.awake.set()
    made.call_timeout_s = 5.0  # a busy machine is no fault of the server
    deadline = time.monotonic() + 5.0
    while made.stats()["hanging_calls"] and time.monotonic() < deadline:
        time.sleep(0.002)
    last = rng.choice(names, 3, replace=False).tolist()
    made.want(last)
    settle(made, clock, 10.0, 50)
    assert held == made.actual == set(server.loaded) & set(names), (server.loaded, held)
    settle(made, clock, 310.0, 400)
    assert held == set(server.loaded)
    assert set(last) <= held
    assert set(COUNTS) <= made.stats().keys()


# What may be given.


def test_backends_are_taken_or_refused_with_a_word():
    class Small:
        def ensure(self, name):
            return True

        def evict(self, name):
            return True

    small = Small()
    assert as_backend(small) is small
    made, held = reconciler(small)
    made.want("a")
    made.step()
    assert held == {"a"}

    class Half:
        def ensure(self, name):
            return True

        def __call__(self, plan):
            raise AssertionError

    for wrong, word in ((Half(), "evict"), (7, "ensure, evict"), (None, "AdapterBackend")):
        with pytest.raises(TypeError, match=word):
            Reconciler(wrong, confirm=print)
    for option in ("period_s", "call_timeout_s", "retry_s"):
        with pytest.raises(ValueError, match=option):
            Reconciler(small, confirm=print, **{option: 0.0})


def test_a_function_is_asked_for_one_adapter_at_a_time():
    plans = []

    def carry_out(plan):
        plans.append((plan.load, plan.evict, plan.keep))
        return [name for name in plan.load if name != "d"]

    made, held = reconciler(carry_out)
    made.want("ab")
    made.step()
    made.want("bd")
    made.step()
    assert plans[:2] == [(("a",), (), ()), (("b",), (), ("a",))]
    assert plans[2:] == [((), ("a",), ("b",)), (("d",), (), ("b",)), (("a",), (), ("b",))]
    assert held == {"a", "b"} and made.blocked() == {"d"}


def test_limited_calls_refuse_beyond_what_may_hang_and_end_with_close():
    calls, wait = LimitedCalls("test", most=2), threading.Event()
    late = []
    for _ in range(2):
        assert calls.run(lambda: wait.wait(20.0), 0.01, late.append).hung
    refused = calls.run(lambda: 1, 5.0)
    assert isinstance(refused.error, TimeoutError) and not refused.hung and calls.hanging == 2
    wait.set()
    deadline = time.monotonic() + 5.0
    while calls.hanging and time.monotonic() < deadline:
        time.sleep(0.002)
    assert calls.run(lambda: 1, 5.0).value == 1
    time.sleep(0.02)
    assert [outcome.value for outcome in late] == [True, True]
    calls.close()
    assert calls.run(lambda: 1, 5.0).error is not None


def test_what_is_just_being_evicted_is_no_hit():
    asked, go = threading.Event(), threading.Event()

    class Slow(Server):
        def evict(self, name):
            asked.set()
            go.wait(10.0)
            return super().evict(name)

    router = Router(LinUCB(["a", "b"], 1, rng=0), LRU(1), 0.1, backend=Slow(1), maintenance="manual")
    router.maintain()
    assert router.select([1.0], eligible={"a"}).hit and not router.select([1.0], eligible={"b"}).hit
    planning = threading.Thread(target=router.maintain)
    planning.start()
    assert asked.wait(10.0)
    during = router.select([1.0], eligible={"a"}, protected=True).hit
    go.set()
    planning.join()
    assert not during
    router.close()


def test_a_call_that_no_thread_began_in_time_is_not_made_and_does_not_hang_for_ever(monkeypatch):
    class Starved(Background):
        def wake(self):
            threading.Timer(0.05, super().wake).start()

    calls, made = LimitedCalls("test", most=2), []
    monkeypatch.setattr("banditroute._core.calls.Background", Starved)
    for _ in range(4):
        outcome = calls.run(lambda: made.append(1), 0.005)
        assert isinstance(outcome.error, TimeoutError) and not outcome.hung
    time.sleep(0.15)
    assert calls.hanging == 0 and made == []
    assert calls.run(lambda: 1, 10.0).value == 1
    calls.close()


@pytest.mark.parametrize("maintenance", ["inline", "background"])
def test_close_lets_go_of_a_server_that_hangs_and_writes_the_last_checkpoint(maintenance, tmp_path):
    server = Server(2)
    router = Router(LinUCB(["a", "b"], 1, rng=0), LRU(1), 0.1, backend=server, maintenance=maintenance)
    router.recover(tmp_path)
    decided = [router.select([1.0]) for _ in range(3)]
    for decision in decided:
        router.update(decision.id, 1.0)
    missing = next(arm for arm in router.arms if arm not in router.resident)
    server.faults, calls = {"hang"}, len(server.log)

    def serve():
        for _ in range(2):  # a fault, and in line a request that waits for its load
            router.select([1.0], eligible={missing})

    waiting = threading.Thread(target=serve)
    waiting.start()
    deadline = time.monotonic() + 10.0
    while len(server.log) == calls and time.monotonic() < deadline:
        time.sleep(0.005)
    assert len(server.log) > calls
    begin = time.monotonic()
    router.close()
    assert time.monotonic() - begin < 8.0  # a call may take thirty seconds
    again = Router(LinUCB(["a", "b"], 1, rng=0), LRU(1), 0.1, maintenance="manual")
    again.recover(tmp_path)
    assert again.stats()["learned"] == 3
    again.close()
    server.awake.set()
    waiting.join(10.0)
