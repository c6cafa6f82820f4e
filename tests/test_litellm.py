"""The door to LiteLLM: hooks called by hand, and LiteLLM itself where it is installed."""

import asyncio
import os
import time
from collections import Counter
from datetime import datetime, timedelta

import numpy as np
import pytest

from banditroute import LinUCB, Router, UnknownDecision

os.environ.setdefault(
    "LITELLM_LOCAL_MODEL_COST_MAP", "True"
)  # it would ask the network for prices when imported
from banditroute.servers.litellm import CONTEXT, HEADER, MARK, LiteLLMDoor

START = datetime(2026, 1, 1)


def deployment(model, id_, **info):
    return {"model_name": "chat", "litellm_params": {"model": model}, "model_info": {"id": id_, **info}}


def router(arms=("small", "large"), dim=1, **options):
    return Router(LinUCB(list(arms), dim, rng=0), **options)


class Fake:
    """Calls the hooks as LiteLLM does; ``copies``: hands copies of deployments on, as releases before 1.110 did."""

    def __init__(self, door, deployments, copies=False, hook=True):
        self.door, self.deployments, self.copies, self.hook = door, deployments, copies, hook
        self.calls = 0

    async def attempt(self, request, failing=(), excluded=()):
        healthy = [d for d in self.deployments if d["model_info"]["id"] not in excluded]
        chosen = await self.door.async_filter_deployments("chat", list(healthy), [], request)
        one = chosen[0]
        if not self.copies:
            one = next(d for d in healthy if d["model_info"]["id"] == one["model_info"]["id"])
        await asyncio.sleep(0)  # others run between choice and call
        self.calls += 1
        metadata = {**request["metadata"], "model_info": one["model_info"]}
        kwargs = {
            "litellm_call_id": f"call-{self.calls}", "litellm_trace_id": request["litellm_trace_id"],
            "metadata": metadata, "model_info": one["model_info"],
        }  # fmt: skip
        if self.hook:
            await self.door.async_pre_call_deployment_hook(kwargs, "acompletion")
        event = {**kwargs, "litellm_params": {"metadata": metadata}, "response_cost": 0.25}
        failed = one["model_info"]["id"] in failing
        log = self.door.async_log_failure_event if failed else self.door.async_log_success_event
        await log(kwargs=event, response_obj=None, start_time=START, end_time=START + timedelta(seconds=2))
        return one["model_info"]["id"], failed, kwargs["litellm_call_id"]


class Answer:
    def __init__(self, call):
        self._hidden_params = {"litellm_call_id": call}


BOTH = [deployment("small", "1"), deployment("large", "2")]


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("hook", [False, True])
def test_a_retry_is_a_decision_of_its_own(copies, hook):
    door = LiteLLMDoor(router())
    fake = Fake(door, BOTH, copies, hook)

    async def main():
        request = {"metadata": {}, "litellm_trace_id": "t"}
        first, _, _ = await fake.attempt(request, failing=("1", "2"))
        second, failed, call = await fake.attempt(request, excluded=(first,))
        assert second != first and not failed
        return door.decision_id(Answer(call))

    found = asyncio.run(main())
    stats = door.router.stats()
    assert (stats["decisions"], stats["cancelled"], stats["pending"], stats["learned"]) == (2, 1, 1, 0)
    assert door.counts == {"decisions": 2, "cancels": 1, "answers": 1}
    if hook:
        assert door.feedback(found, 0.5)
        assert door.router.stats()["learned"] == 1


def test_a_failure_is_learned_where_the_caller_says_so():
    door = LiteLLMDoor(router(), failure=-1.0)
    asyncio.run(Fake(door, BOTH).attempt({"metadata": {}, "litellm_trace_id": "t"}, failing=("1", "2")))
    stats = door.router.stats()
    assert (stats["learned"], stats["cancelled"]) == (1, 0)
    assert min(arm["mean_reward"] for arm in stats["arms"].values() if arm["learned"]) == -1.0


def test_cost_and_time_of_the_call_reach_the_terms_with_the_feedback():
    seen = []

    class Watch:
        keeps_parts = False

        def learned(self, feedback):
            seen.append(feedback[4:6])

    fits = {
        name: (lambda self, *_: None) for name in ("decided", "dropped", "arms_changed", "marked", "deferred")
    }
    watch = type("Watching", (Watch,), fits)()
    door = LiteLLMDoor(router(listeners=[watch]))

    async def main():
        _, _, call = await Fake(door, BOTH).attempt({"metadata": {}, "litellm_trace_id": "t"})
        assert await door.afeedback(str(door.decision_id(Answer(call))), 0.5)

    asyncio.run(main())
    assert seen == [(0.25, 2.0)]


@pytest.mark.parametrize("shared", ["nothing", "metadata", "trace"])
def test_concurrent_calls_keep_their_decisions_apart(shared):
    """Callers may share one dictionary of metadata, or one trace, between calls that run at the same time."""
    arms = ["small", "large"]
    door = LiteLLMDoor(
        router(dim=2),
        context=lambda messages, request: request["x"],
        reward=lambda kwargs, _: kwargs["metadata"]["r"],
    )
    one = {"r": 1.0}

    async def main():
        fake = Fake(door, BOTH)
        return await asyncio.gather(*(
            fake.attempt({
                "metadata": one if shared == "metadata" else {"r": 1.0},
                "litellm_trace_id": "t" if shared == "trace" else f"t{i}",
                "x": [1.0, i / 50],
            })
            for i in range(50)
        ))  # fmt: skip

    asyncio.run(main())
    stats = door.router.stats()
    assert (stats["decisions"], stats["learned"], stats["pending"]) == (50, 50, 0)
    assert all(stats["arms"][arm]["decisions"] == stats["arms"][arm]["learned"] for arm in arms)


def test_deployments_of_one_arm_are_left_to_litellm():
    door = LiteLLMDoor(router(["large"]))
    many = [
        deployment("azure/x", "1", arm="large"),
        deployment("openai/x", "2", arm="large"),
        deployment("o", "3"),
    ]
    chosen = asyncio.run(door.async_filter_deployments("chat", many, [], {"metadata": {}}))
    assert [d["model_info"]["id"] for d in chosen] == ["1", "2"]
    assert all(MARK in d["model_info"] for d in chosen) and MARK not in many[0]["model_info"]


def test_what_fails_here_fails_no_request(caplog):
    door = LiteLLMDoor(router(dim=2))
    request = {"metadata": {CONTEXT: [1.0]}, "litellm_trace_id": "t"}
    assert asyncio.run(door.async_filter_deployments("chat", BOTH, [], request)) is BOTH
    assert asyncio.run(door.async_filter_deployments("chat", BOTH, [], {"metadata": {}})) is BOTH
    assert door.counts == {"unrouted": 2} and len(caplog.records) == 1
    others = [deployment("embedding", "9")]
    assert asyncio.run(door.async_filter_deployments("e", others, [], {"metadata": {}})) is others
    assert door.counts == {"unrouted": 2} and door.router.stats()["decisions"] == 0


def test_events_of_unknown_decisions_are_swallowed():
    door = LiteLLMDoor(router())
    event = {"litellm_call_id": "c", "litellm_params": {"metadata": {MARK: "7"}}}
    for log in (door.async_log_success_event, door.async_log_failure_event):
        asyncio.run(log(kwargs=event, response_obj=None, start_time=START, end_time=START))
    assert door.counts == {"unknown": 2}
    with pytest.raises(UnknownDecision):
        door.feedback(7, 1.0)


def test_a_bad_reward_leaves_the_decision_open():
    door = LiteLLMDoor(router(), reward=lambda kwargs, answer: float("nan"))

    async def main():
        _, _, call = await Fake(door, BOTH).attempt({"metadata": {}, "litellm_trace_id": "t"})
        assert door.counts["refused"] == 1 and door.router.stats()["pending"] == 1
        assert door.feedback(door.decision_id(Answer(call)), 1.0)

    asyncio.run(main())


def test_what_is_remembered_is_bounded():
    door = LiteLLMDoor(router(), remembered=10)

    async def main():
        fake = Fake(door, BOTH)
        for i in range(50):
            await fake.attempt({"metadata": {}, "litellm_trace_id": f"t{i}"})
            await door.async_filter_deployments(
                "chat", BOTH, [], {"metadata": {}, "litellm_trace_id": f"u{i}"}
            )
        return [door.decision_id(Answer(f"call-{i}")) is not None for i in (40, 41, 50)]

    assert asyncio.run(main()) == [False, True, True]


def test_settings_are_checked():
    with pytest.raises(TypeError, match="router must be a Router"):
        LiteLLMDoor("config.toml")
    with pytest.raises(TypeError, match="reward must be callable"):
        LiteLLMDoor(router(), reward=1.0)
    with pytest.raises(ValueError, match="failure"):
        LiteLLMDoor(router(), failure=float("inf"))


# LiteLLM itself.


@pytest.fixture
def litellm():
    module = pytest.importorskip("litellm", reason="needs LiteLLM: pip install 'banditroute[litellm]'")
    lists = (
        "callbacks",
        "_async_success_callback",
        "_async_failure_callback",
        "success_callback",
        "failure_callback",
    )
    before = {name: list(getattr(module, name)) for name in lists}
    yield module
    for name, value in before.items():
        setattr(module, name, value)


def gateway(litellm, *, broken=(), cooldown_s=5.0, retries=3, arms=("a", "b", "c", "d")):
    return litellm.Router(
        model_list=[
            {
                "model_name": "chat",
                "litellm_params": {
                    "model": f"openai/{arm}", "api_key": "none",
                    "mock_response": Exception("injected") if arm in broken else f"from {arm}",
                },
                "model_info": {"id": arm.upper(), "arm": arm},
            }
            for arm in arms
        ],
        num_retries=retries, allowed_fails=0, cooldown_time=cooldown_s, retry_after=0,
    )  # fmt: skip


async def settled(door):
    """Wait for the events, which LiteLLM sends from a queue."""
    for _ in range(400):
        await asyncio.sleep(0.05)
        counts = door.counts
        if counts["decisions"] == counts["answers"] + counts["cancels"]:
            return


class Watched(LiteLLMDoor):
    """Notes what was chosen while LiteLLM had put it away."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.serving, self.cooled, self.looks = None, [], 0

    async def async_filter_deployments(self, *args, **options):
        found = await super().async_filter_deployments(*args, **options)
        ids = [one["model_info"]["id"] for one in found]
        assert {*ids} <= {one["model_info"]["id"] for one in options["healthy_deployments"]}
        cache = getattr(self.serving, "cooldown_cache", None)
        if cache is not None:
            self.looks += 1
            for id_, value in await cache.async_get_active_cooldowns(model_ids=ids, parent_otel_span=None):
                if time.time() - value["timestamp"] > 0.2:  # not just now, while this was chosen
                    self.cooled.append(id_)
        return found


@pytest.mark.filterwarnings("ignore")
def test_litellm_two_thousand_calls_with_failures(litellm):
    """A fifth streamed, fifty at a time: every decision is answered or cancelled, once, for the call it was made for."""
    door = Watched(router("abcd", dim=2), context=lambda messages, request: request["metadata"]["x"])
    litellm.callbacks = [door]
    served, ids, lost = Counter(), {}, []

    async def one(i, turn, serving):
        async with turn:
            try:
                await answered(i, serving)
            except litellm.InternalServerError:  # every attempt of it failed
                lost.append(i)

    async def answered(i, serving):
        answer = await serving.acompletion(
            model="chat", messages=[{"role": "user", "content": "q"}], stream=i % 5 == 0,
            metadata={"x": [1.0, i / 2000]},
        )  # fmt: skip
        if i % 5 == 0:
            text = "".join([part.choices[0].delta.content or "" async for part in answer])
        else:
            text = answer.choices[0].message.content
        arm = text.removeprefix("from ")
        served[arm] += 1
        ids[door.decision_id(answer)] = arm

    async def main():
        turn, serving = asyncio.Semaphore(50), gateway(litellm, broken="ab", cooldown_s=1.0)
        door.serving = serving
        await asyncio.gather(*(one(i, turn, serving) for i in range(2000)))
        await settled(door)

    asyncio.run(main())
    counts, stats = door.counts, door.router.stats()
    print(f"{dict(counts)}, {len(lost)} calls failed in every attempt")
    assert (
        sum(served.values()) == counts["answers"] == len(ids) == 2000 - len(lost)
    )  # every id told, none twice
    assert counts["decisions"] == counts["answers"] + counts["cancels"] == stats["decisions"]
    assert counts["unknown"] == counts["unrouted"] == counts["refused"] == 0
    assert stats["cancelled"] == counts["cancels"] > 50
    assert stats["pending"] == len(ids)
    assert not door.cooled
    quality = {"a": 0.0, "b": 0.0, "c": 0.2, "d": 0.8}
    assert all(door.feedback(key, quality[arm]) for key, arm in ids.items())
    stats = door.router.stats()
    assert stats["learned"] == len(ids) and stats["pending"] == 0
    learned = {arm: stats["arms"][arm]["learned"] for arm in "abcd"}
    assert learned == {arm: served[arm] for arm in "abcd"}
    assert np.isclose(stats["arms"]["d"]["mean_reward"], 0.8)


@pytest.mark.filterwarnings("ignore")
def test_litellm_tells_the_events_to_each_of_two_doors(litellm):
    doors = [LiteLLMDoor(router("cd"), reward=lambda kwargs, answer: 1.0) for _ in range(2)]

    async def main():
        for door in doors:
            litellm.callbacks = [door]
            serving = gateway(litellm, arms="cd")
            for _ in range(5):
                await serving.acompletion(model="chat", messages=[{"role": "user", "content": "q"}])
            await settled(door)

    asyncio.run(main())
    assert [door.router.stats()["learned"] for door in doors] == [5, 5]


@pytest.mark.filterwarnings("ignore")
def test_litellm_sync_calls_are_told(litellm, caplog):
    door = LiteLLMDoor(router("abcd"))
    litellm.callbacks = [door]
    answer = gateway(litellm).completion(model="chat", messages=[{"role": "user", "content": "q"}])
    for _ in range(100):
        if door.counts["sync"]:
            break
        time.sleep(0.05)
    assert door.counts == {"sync": 1} and door.decision_id(answer) is None
    assert "acompletion" in caplog.text


@pytest.mark.filterwarnings("ignore")
def test_litellm_learns_through_the_reward_function(litellm):
    def reward(kwargs, answer):
        return 1.0 if answer.choices[0].message.content == "from d" else 0.0

    door = LiteLLMDoor(router("cd"), reward=reward)
    litellm.callbacks = [door]

    async def main():
        serving = gateway(litellm, arms="cd")
        for i in range(200):
            answer = await serving.acompletion(
                model="chat", messages=[{"role": "user", "content": "q"}], stream=i % 2 == 0
            )
            if i % 2 == 0:
                _ = [part async for part in answer]
            await asyncio.sleep(0.002)
        await settled(door)

    asyncio.run(main())
    stats = door.router.stats()
    assert stats["learned"] == 200 and stats["pending"] == 0
    assert stats["arms"]["d"]["decisions"] > 120


def test_the_header_names_the_decision():
    door = LiteLLMDoor(router())

    async def main():
        _, _, call = await Fake(door, BOTH).attempt({"metadata": {}, "litellm_trace_id": "t"})
        told = await door.async_post_call_response_headers_hook({}, None, Answer(call))
        stamped = await door.async_post_call_response_headers_hook({"metadata": {MARK: "8"}}, None, object())
        none = await door.async_post_call_response_headers_hook({"metadata": {MARK: "8"}}, None, None)
        assert told == {HEADER: str(door.decision_id(Answer(call)))}
        assert stamped == {HEADER: "8"} and none is None

    asyncio.run(main())
