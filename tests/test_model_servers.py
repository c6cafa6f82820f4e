"""The backends of real servers against stand-ins that keep their contracts, and lie as they do."""

import logging
import os
import threading
from contextlib import nullcontext

import numpy as np
import pytest

from adapter_servers import Clock
from banditroute import LFU, LRU, LinUCB, Polar, Polaris, Router
from banditroute.records import AdapterBackend
from banditroute.router.reconciler import Reconciler
from banditroute.servers import LlamaCppAdapters, PeftBackend, ServerError, SGLangBackend, VLLMBackend
from http_servers import FakeLlama, FakeSGLang, FakeVLLM, serving

pytest.importorskip("httpx")

NAMES = ["law", "code", "math", "chat"]
PATHS = {name: f"/adapters/{name}" for name in NAMES}


@pytest.fixture
def vllm():
    fake = FakeVLLM(2, PATHS.values())
    with serving(fake) as url, VLLMBackend(url, PATHS, slots=2, timeout_s=5.0) as backend:
        yield fake, backend


def on_gpu(backend):
    return {name for name, state in backend.observe().items() if state == "gpu"}


# vLLM.


def test_vllm_registers_loads_and_follows_the_order_of_requests(vllm):
    fake, backend = vllm
    assert isinstance(backend, AdapterBackend)
    assert backend.observe() == dict.fromkeys(NAMES, "disk")
    assert backend.ensure("law") and backend.ensure("code") and backend.ensure("law")
    assert on_gpu(backend) == set(fake.gpu) == {"law", "code"}
    assert fake.asked("/v1/load_lora_adapter") == 2
    assert backend.touch("code") and not backend.touch("math")
    assert backend.ensure("math")  # law was used longest ago
    assert on_gpu(backend) == set(fake.gpu) == {"code", "math"} and backend.observe()["law"] == "host"
    fake.use("code")
    assert backend.served("code") == ()
    fake.use("law")
    assert backend.served("law") == (("math", False), ("law", True))
    assert on_gpu(backend) == set(fake.gpu) and backend.served("base") == ()
    assert not backend.evict("law")


def test_vllm_already_loaded_is_taken_as_loaded_where_it_is_listed_from_the_same_place(vllm):
    fake, backend = vllm
    fake.registered["law"] = PATHS["law"]
    assert backend.ensure("law") and fake.asked("/v1/unload_lora_adapter") == 0
    fake.registered["code"] = "/elsewhere"
    assert backend.ensure("code") and fake.registered["code"] == PATHS["code"]


def test_vllm_that_says_already_loaded_and_lists_nothing_is_not_believed(vllm):
    fake, backend = vllm
    fake.registered["law"] = PATHS["law"]
    answer = fake.answer
    fake.answer = lambda method, path, body: (
        (200, {"data": []}) if path == "/v1/models" else answer(method, path, body)
    )
    with pytest.raises(ServerError, match="not listed"):
        backend.ensure("law")


def test_vllm_missing_files_and_unknown_names(vllm):
    fake, backend = vllm
    fake.disk.discard(PATHS["law"])
    with pytest.raises(ServerError, match=r"404 .*No adapter found"):
        backend.ensure("law")
    assert on_gpu(backend) == set() and backend.observe()["law"] == "disk"
    for call in (backend.ensure, backend.touch, backend.forget):
        with pytest.raises(ValueError, match="name must be one of"):
            call("zz")


@pytest.mark.parametrize("lie", ["500", "nonsense", "drop", "cut"])
@pytest.mark.parametrize("at", [0, 1])
def test_vllm_answers_that_are_none_are_errors_and_the_next_try_heals(vllm, lie, at):
    fake, backend = vllm
    fake.lies = [None] * at + [lie]
    if (lie, at) == ("nonsense", 0):  # of a load only the status is read
        assert backend.ensure("law")
    else:
        with pytest.raises((ServerError, OSError)):
            backend.ensure("law")
    assert backend.ensure("law") and on_gpu(backend) == set(fake.gpu) == {"law"}
    fake.lies = [lie]
    with pytest.raises((ServerError, OSError)):
        backend.observe()
    assert on_gpu(backend) == {"law"}


def test_vllm_slow_answers_end_in_time():
    fake = FakeVLLM(2, PATHS.values())
    fake.lies = ["slow"]
    with (
        serving(fake) as url,
        VLLMBackend(url, PATHS, slots=2, timeout_s=0.1) as backend,
        pytest.raises(TimeoutError),
    ):
        backend.observe()


def test_vllm_restarts_are_noticed(vllm):
    fake, backend = vllm
    backend.ensure("law"), backend.ensure("code")
    fake.restart()
    assert backend.observe() == dict.fromkeys(NAMES, "disk")
    backend.ensure("law"), backend.ensure("code")
    fake.restart()
    assert backend.ensure("law") and set(fake.gpu) == {"law"} == on_gpu(backend)  # noticed by the load itself
    fake.restart()
    assert not backend.touch("law") and on_gpu(backend) == set()


def test_vllm_a_restart_is_noticed_though_the_names_are_there_again():
    fake = FakeVLLM(2, PATHS.values(), static=PATHS)
    with serving(fake) as url, VLLMBackend(url, PATHS, slots=2) as backend:
        assert backend.ensure("law") and on_gpu(backend) == {"law"}
        fake.restart()
        assert on_gpu(backend) == set() and backend.observe()["law"] == "host"


def test_vllm_the_metric_tells_where_it_is_there():
    fake = FakeVLLM(2, PATHS.values(), metric=True)
    with serving(fake) as url, VLLMBackend(url, PATHS, slots=2) as backend:
        backend.ensure("law"), backend.ensure("code")
        fake.registered["math"] = PATHS["math"]
        fake.use("math")  # somebody else's request
        assert on_gpu(backend) == set(fake.gpu) == {"code", "math"}
        fake.gpu.clear()
        assert on_gpu(backend) == set()


def test_vllm_forgets_so_that_weights_are_read_anew(vllm):
    fake, backend = vllm
    backend.ensure("law")
    assert backend.forget("law") and "law" not in fake.registered and on_gpu(backend) == set()
    assert backend.forget("law") and backend.ensure("law")
    assert fake.asked("/v1/load_lora_adapter") == 2


def test_vllm_a_registration_whose_request_fails_has_displaced_all_the_same(vllm):
    fake, backend = vllm
    backend.ensure("law"), backend.ensure("code")
    fake.lies = [None, "500"]
    with pytest.raises(ServerError, match="a token of 'math'"):
        backend.ensure("math")
    assert on_gpu(backend) == set(fake.gpu) == {"code", "math"}


def test_vllm_unloaded_weights_keep_their_place_until_they_are_displaced(vllm):
    fake, backend = vllm
    backend.ensure("code"), backend.ensure("law")
    backend.forget("law")  # the last one used: code goes first
    backend.ensure("math")
    assert set(fake.gpu) == {"law (unloaded)", "math"} and on_gpu(backend) == {"math"}
    assert backend.served("chat") == (("chat", True),)  # nothing that has a name goes for it
    backend.ensure("chat")
    assert on_gpu(backend) == set(fake.gpu) == {"math", "chat"}
    fake.answer("POST", "/v1/unload_lora_adapter", {"lora_name": "chat"})  # by somebody else
    assert on_gpu(backend) == {"math"}
    backend.ensure("law")
    assert set(fake.gpu) == {"chat (unloaded)", "law"} and on_gpu(backend) == {"law"}


def test_vllm_a_long_request_keeps_its_adapter_while_later_ones_are_displaced(vllm):
    fake, backend = vllm
    backend.ensure("law"), backend.ensure("code"), backend.ensure("math")
    fake.run("code")  # it goes on
    backend.served("code")
    for name in ("math", "chat"):
        backend.ensure(name)
    assert set(fake.gpu) == {"code", "chat"}
    assert on_gpu(backend) == {"code", "chat"}  # by the order of arrivals it would be math and chat
    fake.run()
    backend.ensure("math"), backend.ensure("law")  # what ran once runs no more
    assert on_gpu(backend) == set(fake.gpu) == {"math", "law"}


def test_vllm_loads_nothing_in_place_for_that_is_read_at_every_request(vllm):
    fake, backend = vllm
    fake.registered["law"] = "/elsewhere"
    backend.ensure("law"), backend.touch("law")
    assert fake.registered["law"] == PATHS["law"] and fake.reads == 0
    assert fake.load("law", PATHS["law"], True)[0] == 200
    backend.touch("law"), backend.touch("law")
    assert fake.reads == 3  # what the stand-in does, as seen


def test_vllm_an_arm_that_is_the_base_model_is_no_adapter(vllm):
    fake, backend = vllm
    fake.base = "law"
    with pytest.raises(ServerError, match="conflicts with a served base model"):
        backend.ensure("law")


@pytest.mark.parametrize("row", ["vllm:lora_requests_info{} nonsense", "vllm:lora_requests_info{} 1e9", ""])
def test_vllm_metrics_that_say_nothing_change_nothing(vllm, row):
    fake, backend = vllm
    backend.ensure("law")
    fake.metrics = lambda: [row]
    assert on_gpu(backend) == {"law"}


def test_settings_are_checked():
    for options, word in (
        ({"url": "127.0.0.1"}, "url"),
        ({"slots": 0}, "slots"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"load_timeout_s": -1.0}, "load_timeout_s"),
        ({"paths": {}}, "paths"),
    ):
        with pytest.raises(ValueError, match=word):
            VLLMBackend(**{"url": "http://127.0.0.1:1", "paths": PATHS, "slots": 2, **options})
    with pytest.raises(TypeError, match="paths must map"):
        VLLMBackend("http://127.0.0.1:1", ["law"], slots=2)
    with VLLMBackend("http://127.0.0.1:1", PATHS, slots=2) as nobody, pytest.raises(ConnectionError):
        nobody.observe()


@pytest.mark.parametrize("seed", range(6))
def test_vllm_behind_a_router_through_lies_and_restarts(seed):
    """What the router calls resident is what the server has, each time that it could look; no call raises."""
    rng = np.random.default_rng(seed)
    fake = FakeVLLM(3, PATHS.values())
    with serving(fake) as url, VLLMBackend(url, PATHS, slots=3, timeout_s=20.0) as backend:
        clock = Clock(tick=0.01)
        router = Router(LinUCB(NAMES, 1, rng=seed), Polar(2, epoch=20), 0.2, backend=backend, clock=clock)
        logging.getLogger("banditroute").setLevel(logging.CRITICAL)
        try:
            for t in range(300):
                decision = router.select([1.0])
                with fake.lock:  # the request itself, served by the arm
                    if decision.arm in fake.registered:
                        fake.use(decision.arm)
                    if t % 60 == 30:
                        fake.lies = list(rng.choice(["500", "nonsense", "drop", "cut"], 4))
                    if t % 100 == 99:
                        fake.restart()
                router.update(decision.id, {"law": 0.1, "code": 0.2, "math": 0.9, "chat": 0.8}[decision.arm])
            fake.lies = []
            clock.now += 400.0
            router.select([1.0])
            clock.now += 20.0
            for _ in range(200):
                decision = router.select([1.0])
                true = decision.arm in fake.gpu
                assert decision.hit == true or not decision.hit
                if decision.arm in fake.registered:
                    fake.use(decision.arm)
                router.update(decision.id, {"law": 0.1, "code": 0.2, "math": 0.9, "chat": 0.8}[decision.arm])
            assert set(router.resident) == on_gpu(backend) == set(fake.gpu) >= {"math"}
        finally:
            router.close()
            logging.getLogger("banditroute").setLevel(logging.NOTSET)


def test_many_threads_share_a_backend(vllm):
    _, backend = vllm
    errors = []

    def work(k):
        try:
            for i in range(20):
                backend.ensure(NAMES[(i + k) % 4])
                backend.observe()
                backend.served(NAMES[(i * k) % 4])
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and len(on_gpu(backend)) <= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_connections_of_its_own(vllm):
    fake, backend = vllm
    backend.observe()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(write, b"1" if backend.ensure("law") else b"0")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1) == b"1" and "law" in fake.gpu
    assert backend.ensure("code")


# SGLang.


def test_sglang_loads_verifies_and_frees():
    fake = FakeSGLang(PATHS.values())
    with serving(fake) as url, SGLangBackend(url, PATHS, slots=2) as backend:
        assert backend.ensure("law") and on_gpu(backend) == {"law"}
        fake.loaded["code"] = PATHS["code"]
        assert backend.ensure("code")  # already loaded, and listed
        fake.busy = 1
        assert not backend.evict("law")  # incomplete: asked again
        assert backend.evict("law") and "law" not in fake.loaded and backend.evict("law")
        fake.disk.clear()
        with pytest.raises(ServerError, match="no such folder"):
            backend.ensure("math")
        fake.restart()
        assert on_gpu(backend) == set()
        fake.disk.update(PATHS.values())
        held = set()
        made = Reconciler(
            backend,
            confirm=lambda n, r: (held.add if r else held.discard)(n),
            clock=Clock(),
            call_timeout_s=5.0,
        )
        made.own(NAMES)
        made.want(["law", "math"])
        made.step()
        made.want(["law", "chat"])
        made.step()
        assert held == set(fake.loaded) == {"law", "chat"}


# llama.cpp.


def test_llama_adapters_are_found_by_their_file_and_read_back():
    fake = FakeLlama(["/models/base/code.gguf", "/models/law/adapter.gguf", "/models/math/adapter.gguf"])
    files = {"law": "law/adapter.gguf", "math": "math/adapter.gguf", "code": "code.gguf", "chat": "chat.gguf"}
    with serving(fake) as url, LlamaCppAdapters(url, files) as backend:
        assert backend.field("law") == [{"id": i, "scale": float(i == 1)} for i in range(3)]
        assert backend.field(None) == [{"id": i, "scale": 0.0} for i in range(3)]
        assert backend.ensure("code") and not backend.ensure("chat") and not backend.evict("code")
        assert backend.observe() == {"law": "gpu", "math": "gpu", "code": "gpu", "chat": "disk"}
        with pytest.raises(ServerError, match="lists no adapter"):
            backend.field("chat")
        with pytest.raises(ValueError, match="name must be one of"):
            backend.field("zz")
        backend.choose("math")
        assert fake.scales == [0.0, 0.0, 1.0]
        backend.choose(None)
        assert fake.scales == [0.0, 0.0, 0.0]
        fake.files.reverse()  # restarted with another order
        backend.observe()
        assert backend.field("code")[2] == {"id": 2, "scale": 1.0}
        fake.files.reverse()
        fake.lies = ["drop"]  # a request that fails tells of a restart
        with pytest.raises(OSError):
            backend.ask("POST", "/completion", {"lora": backend.field("code")})
        assert backend.field("code")[0] == {"id": 0, "scale": 1.0}
        for lie in ("500", "nonsense", "drop", "cut"):
            fake.lies = [lie]
            with pytest.raises((ServerError, OSError)):
                backend.observe()


def test_llama_a_success_that_is_none_is_noticed():
    fake = FakeLlama(["/m/law.gguf", "/m/code.gguf"])
    answer = fake.answer
    fake.answer = lambda method, path, body: (
        (200, {"success": True}) if method == "POST" else answer(method, path, body)
    )
    with (
        serving(fake) as url,
        LlamaCppAdapters(url, ["law", "code"]) as backend,
        pytest.raises(ServerError, match="scales"),
    ):
        backend.choose("law")


# peft.


class Model:
    """Has the three calls of peft, and time that they take."""

    def __init__(self, clock):
        self.clock, self.loaded, self.active, self.log, self.broken = clock, set(), None, [], set()

    def load_adapter(self, path, adapter_name):
        assert adapter_name not in self.loaded
        self.loaded.add(adapter_name)
        self.clock.now += 0.027
        if adapter_name in self.broken:
            raise OSError(path)
        self.log.append(adapter_name)

    def set_adapter(self, name):
        assert name in self.loaded
        self.clock.now += 0.002
        self.active = name

    def disable_adapter(self):
        return nullcontext()

    def delete_adapter(self, name):
        self.loaded.remove(name)
        self.active = None if self.active == name else self.active


def test_peft_loads_borrows_and_measures():
    clock = Clock()
    model = Model(clock)
    backend = PeftBackend(model, PATHS, base="plain", clock=clock)
    assert backend.ensure("law") and backend.ensure("law") and model.log == ["law"]
    with backend.borrow("law") as borrowed:
        assert borrowed.hit and model.active == "law" and borrowed.wait_s == pytest.approx(0.002)
    with backend.borrow("code") as borrowed:
        assert not borrowed.hit and model.active == "code" and borrowed.wait_s == pytest.approx(0.029)
        assert model.loaded == {"law", "code"}
    with backend.borrow("plain") as borrowed:
        assert borrowed.hit
    with pytest.raises(RuntimeError, match="the request failed"), backend.borrow("math"):
        raise RuntimeError("the request failed")
    assert model.loaded == {"law", "math"}  # one scratch place
    with backend.borrow("code") as borrowed:
        assert model.loaded == {"law", "code"} and backend.observe() == {
            "law": "gpu", "code": "disk", "math": "disk", "chat": "disk", "plain": "gpu",
        }  # fmt: skip
    assert backend.loads_ms()["code"] == (pytest.approx(27.0), pytest.approx(27.0))
    with backend.borrow("code") as borrowed:  # still in the scratch place: not resident, and no wait
        assert not borrowed.hit and borrowed.wait_s == pytest.approx(0.002)
    assert backend.loads_ms()["code"] == (pytest.approx(27.0), pytest.approx(27.0))
    paging = backend.paging((*NAMES, "plain"), ms_to_reward=0.01)
    assert paging.prices(5) == pytest.approx([0.27, 0.27, 0.27, 0.27, 0.0])
    assert backend.evict("law") and not backend.evict("law") and not backend.evict("plain")
    assert backend.ensure("code") and model.log.count("code") == 2 and backend.observe()["code"] == "gpu"
    with backend.borrow("math"):
        pass
    assert model.loaded == {"code", "math"}
    assert backend.evict("math") and model.loaded == {"code"}  # so that a name that comes back is read anew
    with backend.borrow("math"):
        pass
    assert model.log.count("math") == 3


@pytest.mark.parametrize(
    "controller", [LRU(2), LFU(2), Polar(2, epoch=20), Polaris(2)], ids=lambda c: type(c).__name__
)
def test_peft_a_miss_is_loaded_once_whether_it_stays_or_not(controller):
    clock = Clock()
    model = Model(clock)
    backend = PeftBackend(model, PATHS, clock=clock)
    router = Router(LinUCB(NAMES, 1, rng=0), controller, 0.01, backend=backend)
    rng = np.random.default_rng(0)
    with router:
        router.maintain()
        planned, misses = len(model.log), 0
        for _ in range(200):
            before = len(model.log)
            decision = router.select([1.0])
            planned += len(model.log) - before
            with backend.borrow(decision.arm) as borrowed:
                assert borrowed.hit or not decision.hit
                misses += not decision.hit
            router.update(decision.id, float(rng.random()))
            assert len(model.loaded) <= 3
        assert misses > 10 and len(model.log) <= planned + misses
        if controller.inserts:
            assert planned <= 2 + 2  # the first set, and what a fault brought in twice in a row


def test_peft_a_load_that_fails_leaves_nothing_behind():
    clock = Clock()
    model = Model(clock)
    backend = PeftBackend(model, PATHS, clock=clock)
    model.broken.add("law")
    with pytest.raises(OSError, match="law"):
        backend.ensure("law")
    assert model.loaded == set() and backend.observe()["law"] == "disk" and backend.loads_ms()["law"] == ()
    with pytest.raises(ValueError, match="got none"):
        backend.paging()
    model.broken.clear()
    assert backend.ensure("law")


def test_peft_settings_are_checked():
    clock = Clock()
    with pytest.raises(TypeError, match="load_adapter"):
        PeftBackend(object(), PATHS)
    with pytest.raises(ValueError, match="base"):
        PeftBackend(Model(clock), PATHS, base="law")
    for call in ("ensure", "evict"):
        with pytest.raises(ValueError, match="name must be one of"):
            getattr(PeftBackend(Model(clock), PATHS), call)("zz")
