"""LiteLLM's proxy as a process of its own, with the door from our configuration file and answers that are made up."""

import json
import os
import re
import signal
import socket
import subprocess
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from banditroute import LinUCB, Router
from banditroute.servers.litellm import HEADER
from litellm_program import MISSING, PROGRAM, REASON

pytestmark = pytest.mark.skipif(MISSING, reason=REASON)

KEY = "sk-test"
ARMS = ("good", "plain", "broken")
COOLDOWN_S = 600  # longer than the test
ANSWERS = {"good": "from good", "plain": "from plain", "broken": "litellm.InternalServerError"}
FUNCTIONS = '''
"""What the proxy's process knows besides: the context, and a record of every attempt."""

import json
import os
import time

from litellm.integrations.custom_logger import CustomLogger


def context(messages, request):
    return [1.0, float("long" in str(messages))]


class Attempts(CustomLogger):
    def note(self, kind, kwargs, start):
        info = (kwargs.get("litellm_params") or {}).get("metadata", {}).get("model_info", {})
        line = {"kind": kind, "arm": info.get("arm"), "began": start.timestamp(), "seen": time.time()}
        with open(os.environ["ATTEMPTS"], "a") as file:
            file.write(json.dumps(line) + "\\n")

    async def async_log_success_event(self, kwargs, response_obj, start_time, end_time):
        self.note("answered", kwargs, start_time)

    async def async_log_failure_event(self, kwargs, response_obj, start_time, end_time):
        self.note("failed", kwargs, start_time)


attempts = Attempts()
'''


def written(home):
    """The files that a user writes; returns that of the proxy."""
    models = "\n".join(
        f"  - {{model_name: chat, litellm_params: {{model: openai/{arm}, api_key: none, mock_response: {ANSWERS[arm]}}},"
        f" model_info: {{id: {arm}, arm: {arm}}}}}"
        for arm in ARMS
    )
    settings = f"""
        litellm_settings:
          callbacks: [banditroute.config.proxy.door, seen.attempts]
        router_settings:
          num_retries: 3
          allowed_fails: 0
          cooldown_time: {COOLDOWN_S}
          retry_after: 0
    """
    (home / "config.yaml").write_text(f"model_list:\n{models}\n{textwrap.dedent(settings)}")
    (home / "seen.py").write_text(FUNCTIONS)
    (home / "router.toml").write_text(
        f"policy = {{ kind = 'LinUCB', arms = {json.dumps(ARMS)}, dim = 2, rng = 0 }}\n"
        f"recover = {{ directory = '{home / 'state'}' }}\n"
        "litellm = { context = 'seen:context' }\n"
    )
    return home / "config.yaml"


@contextmanager
def proxy(home):
    """The proxy while the block lasts; yields a client that holds its key."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    paths = os.pathsep.join([str(home), *filter(None, [os.environ.get("PYTHONPATH")])])
    given = {
        "BANDITROUTE_CONFIG": str(home / "router.toml"), "LITELLM_MASTER_KEY": KEY, "PYTHONPATH": paths,
        "ATTEMPTS": str(home / "attempts"), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False",
        "NO_DOCS": "True",
    }  # fmt: skip
    command = [PROGRAM, "--config", home / "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    with open(home / "log", "wb") as log:
        running = subprocess.Popen(command, env={**os.environ, **given}, stdout=log, stderr=log, cwd=home)
        try:
            headers = {"authorization": f"Bearer {KEY}"}
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60.0, trust_env=False
            ) as call:
                for _ in range(2400):
                    try:
                        if call.get("/health/liveliness").status_code == 200:
                            break
                    except httpx.TransportError:
                        pass
                    assert running.poll() is None, (home / "log").read_text()
                    time.sleep(0.1)
                yield call
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(timeout=120)


def asked(call, i, stream=False):
    """One request; returns the arm that answered and the id of its decision."""
    words = "a long question" if i % 2 else "a question"
    body = {"model": "chat", "messages": [{"role": "user", "content": words}], "stream": stream}
    answer = call.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    if stream:
        lines = [
            line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")
        ]
        text = "".join(json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines)
    else:
        text = answer.json()["choices"][0]["message"]["content"]
    assert re.fullmatch(r"from \w+", text)
    return text.removeprefix("from "), answer.headers[HEADER]


def told(call, path, body, status=200, **options):
    answer = call.post(path, json=body, **options)
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """What came of 200 calls of a proxy, a fifth of them streamed, 50 at a time, and of what was told about them."""
    home, seen = tmp_path_factory.mktemp("proxy"), {}
    written(home)
    with proxy(home) as call:
        one_by_one = [asked(call, i) for i in range(20)]  # one of them meets the broken one
        time.sleep(1.0)
        seen["quiet"] = time.time()
        with ThreadPoolExecutor(50) as pool:
            many = list(pool.map(lambda i: asked(call, i, i % 5 == 0), range(200)))
        answers = one_by_one + many
        first, rest = answers[0][1], answers[1:]
        seen["bad"] = [
            told(call, "/banditroute/feedback", {"id": first, "reward": None}, 422),
            told(call, "/banditroute/feedback", {"id": first, "reward": 1.0, "rewrad": 1.0}, 422),
            told(call, "/banditroute/feedback", {"id": first, "reward": 1e300}, 422),
            told(call, "/banditroute/feedback", {"id": "12345", "reward": 1.0}, 404),
            told(call, "/banditroute/cancel", {"id": ""}, 422),
        ]
        nan = call.post("/banditroute/feedback", content=f'{{"id": "{first}", "reward": NaN}}')
        seen["nan"] = nan.status_code, nan.json()
        seen["keyless"] = [
            httpx.post(
                f"{call.base_url}{path}", json={"id": first, "reward": 1.0}, trust_env=False
            ).status_code
            for path in ("/banditroute/feedback", "/banditroute/cancel", "/v1/chat/completions")
        ]
        seen["cancel"] = [told(call, "/banditroute/cancel", {"id": first})["standing"] for _ in range(2)]
        with ThreadPoolExecutor(50) as pool:
            rewards = {"good": 0.9, "plain": 0.2}
            replies = list(
                pool.map(
                    lambda one: told(
                        call, "/banditroute/feedback", {"id": one[1], "reward": rewards[one[0]]}
                    ),
                    rest,
                )
            )
        seen["standing"] = [reply["standing"] for reply in replies]
        seen["again"] = told(call, "/banditroute/feedback", {"id": rest[0][1], "reward": 1.0})["standing"]
        time.sleep(1.0)  # events come from a queue
        seen["metrics"] = call.get("/banditroute/metrics").text
    seen["answers"] = answers
    lines = [json.loads(line) for line in (home / "attempts").read_text().splitlines()]
    seen["attempts"] = [
        line for line in lines if line["arm"] in ARMS
    ]  # a call without a key fails before any
    with Router(LinUCB(list(ARMS), 2, rng=0)) as router:
        router.recover(home / "state")
        seen["stats"] = router.stats()
    return seen


def test_every_answer_names_a_decision_of_its_own(served):
    ids = [id_ for _, id_ in served["answers"]]
    assert len(set(ids)) == len(ids) == 220
    assert all(id_.isdigit() for id_ in ids)


def test_decisions_are_answers_and_cancels(served):
    stats = served["stats"]
    assert stats["decisions"] == 220 + (stats["cancelled"] - 1)  # one was withdrawn by its caller
    assert stats["cancelled"] - 1 == sum(one["kind"] == "failed" for one in served["attempts"]) >= 1
    assert stats["learned"] == 219 and stats["pending"] == 0 and stats["expired"] == 0


def test_a_deployment_in_cooldown_is_never_chosen(served):
    broken = [one for one in served["attempts"] if one["arm"] == "broken"]
    assert broken and all(one["kind"] == "failed" for one in broken)
    assert max(one["began"] for one in broken) < served["quiet"]
    assert sum(one["began"] >= served["quiet"] for one in served["attempts"]) == 200


def test_feedback_reaches_the_arm_that_answered(served):
    assert set(served["standing"]) == {"answered"} and served["again"] == "answered"
    assert (
        served["stats"]["duplicates"] == 1
    )  # in no journal: the proxy wrote its last checkpoint when it stopped
    arms = served["stats"]["arms"]
    assert arms["good"]["mean_reward"] == pytest.approx(0.9) and arms["plain"][
        "mean_reward"
    ] == pytest.approx(0.2)
    by_arm = {arm: sum(one == arm for one, _ in served["answers"][1:]) for arm in ("good", "plain")}
    assert {arm: arms[arm]["learned"] for arm in by_arm} == by_arm
    assert by_arm["good"] > 0 and by_arm["plain"] > 0


def test_an_operator_sees_the_numbers_of_door_and_router(served):
    attempts = 220 + served["stats"]["cancelled"] - 1
    for line in (
        f"banditroute_decisions_total {attempts}.0", f"banditroute_door_decisions_total {attempts}.0",
        "banditroute_door_answers_total 220.0", "banditroute_learned_total 219.0", "banditroute_door_unrouted_total 0.0",
    ):  # fmt: skip
        assert line in served["metrics"].splitlines(), served["metrics"]


def test_what_callers_get_wrong_is_told(served):
    ours, cancel, litellms = served["keyless"]  # 401, or 500 where LiteLLM's check lacks its database client
    assert ours == cancel == litellms >= 400
    assert served["cancel"] == ["cancelled", "cancelled"]
    words = ("reward", "rewrad", "reward must be in", "decision_id", "1 to 128")
    assert all(word in bad["detail"] for word, bad in zip(words, served["bad"], strict=True))
    assert served["nan"] == (422, {"detail": "reward: Input should be a finite number"})
