"""The sidecar: what it answers, and its workers as real processes on loopback."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event, Thread

import pytest

pytest.importorskip("fastapi", reason="needs FastAPI: pip install 'banditroute[serving]'")
pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'banditroute[serving]'")
import httpx

from banditroute import FileStore, LinUCB, Router
from banditroute.cli import main
from banditroute.config import ConfigError, worker_router
from banditroute.router import RewardLimits
from banditroute.servers.answers import aupdate, standing, waits, withdraw
from banditroute.servers.repeats import Repeats
from banditroute.servers.sidecar import sidecar
from sidecar_client import asking, said

ARMS = ["small", "large"]
X = {"context": [1.0, 0.5]}


def made(**options):
    return Router(LinUCB(ARMS, 2, rng=0), **options)


def test_a_choice_is_explained():
    with asking(made) as call:
        why = said(call.post("/explain", json={**X, "eligible": ["large"], "prices": {"large": 0.1}}))
        small, large = why["arms"]
        assert small["closed"] == ["mask"] and small["index"] is None
        assert large["prices"]["caller"] == 0.1 and large["propensity"] == 1.0
        assert large["index"] == large["mean"] + large["bonus"] - sum(large["prices"].values())
        assert why["sentence"].startswith("large would be played") and why["decision"] is None
        assert said(call.get("/arms"))["arms"][1]["decisions"] == 0  # nothing was decided
        chosen = said(call.post("/select", json=X))
        by_id = said(call.get("/explain", params={"id": chosen["id"]}))
        assert by_id["decision"]["id"] == chosen["id"] and by_id["decision"]["arm"] == chosen["arm"]
        assert said(call.post("/explain", json={"id": chosen["id"]})) == by_id
        said(call.get("/explain", params={"id": "17"}), 404)
        said(call.post("/explain", json={}), 422)
        said(call.post("/explain", json={**X, "id": chosen["id"]}), 422)
        said(call.post("/explain", json={"context": [1.0]}), 422)
    with asking(made, token="secret") as call:
        said(call.get("/explain", params={"id": "17"}), 401)


def test_a_decision_and_its_feedback():
    with asking(made) as call:
        chosen = said(call.post("/select", json={**X, "eligible": ["large"], "prices": {"large": 0.1}}))
        assert chosen["arm"] == "large" and chosen["id"].isdigit() and chosen["hit"]
        answer = {"id": chosen["id"], "reward": 0.5, "cost": 0.01, "seconds": 1.5, "source": "judge"}
        assert said(call.post("/feedback", json=answer)) == {"id": chosen["id"], "standing": "answered"}
        assert said(call.post("/feedback", json=answer)) == {"id": chosen["id"], "standing": "answered"}
        arms = {arm["name"]: arm for arm in said(call.get("/arms"))["arms"]}
        assert arms["large"]["mean_reward"] == 0.5 and arms["large"]["learned"] == 1
        assert arms["small"]["mean_reward"] is None
        page = call.get("/metrics").text
        assert "banditroute_learned_total 1.0" in page and "banditroute_duplicates_total 1.0" in page
        assert said(call.get("/healthz")) == {"status": "ok"}


def test_a_decision_is_withdrawn():
    with asking(made) as call:
        id_ = said(call.post("/select", json=X))["id"]
        for _ in range(2):
            assert said(call.post("/cancel", json={"id": id_})) == {"id": id_, "standing": "cancelled"}
        assert said(call.post("/feedback", json={"id": id_, "reward": 1.0}))["standing"] == "cancelled"
        assert said(call.get("/arms"))["arms"][0]["learned"] == 0


def test_an_id_of_the_caller_gets_the_first_answer():
    with asking(made) as call:
        first = said(call.post("/select", json={**X, "id": "request-17"}))
        assert said(call.post("/select", json={**X, "id": "request-17"})) == first
        assert said(call.post("/feedback", json={"id": "request-17", "reward": 1.0}))["id"] == first["id"]
        assert "digits" in said(call.post("/select", json={**X, "id": "17"}), 422)["detail"]
        assert "bytes" in said(call.post("/select", json={**X, "id": "x" * 129}), 422)["detail"]


def test_an_id_of_the_caller_is_known_after_a_restart(tmp_path):
    def recovered():
        router = made()
        router.recover(tmp_path)
        return router

    with asking(recovered) as call:
        first = said(call.post("/select", json={**X, "id": "mine"}))
    with asking(recovered) as call:
        again = said(call.post("/select", json={**X, "id": "mine"}))
        assert (again["id"], again["arm"], again["propensity"]) == (
            first["id"],
            first["arm"],
            first["propensity"],
        )
        assert said(call.post("/feedback", json={"id": "mine", "reward": 1.0}))["standing"] == "answered"


def test_what_is_wrong_is_told():
    wrong = [
        ("/select", {"context": [1.0]}, 422, "shape (2,)"),
        ("/select", {"context": [1.0, 2.0], "eligible": ["other"]}, 422, "other"),
        ("/select", {"context": [1.0, 2.0], "eligible": []}, 422, ""),
        ("/select", {"contekst": [1.0, 2.0]}, 422, "contekst"),
        ("/feedback", {"id": "7", "reward": 1.0}, 404, "decision_id"),
        ("/feedback", {"id": "-7x", "reward": 1.0}, 404, ""),
        ("/feedback", {"id": "", "reward": 1.0}, 422, ""),
        ("/feedback", {"id": "9" * 40, "reward": 1.0}, 404, ""),
        ("/feedback", {"id": "7"}, 422, "reward"),
        ("/cancel", {"id": "7"}, 404, "decision_id"),
    ]
    with asking(made) as call:
        for path, body, status, word in wrong:
            assert word in said(call.post(path, json=body), status)["detail"], body
        answer = call.post(
            "/select", content='{"context": [NaN, 1.0]}', headers={"content-type": "application/json"}
        )
        assert answer.status_code == 422
        id_ = said(call.post("/select", json=X))["id"]
        assert said(call.post("/feedback", json={"id": id_, "reward": 1.0, "cost": -1.0}), 422)
        assert said(call.post("/feedback", json={"id": id_, "reward": 1.0}))["standing"] == "answered"


def test_what_is_sent_to_do_harm_is_refused_and_changes_nothing():
    """No server error, no state: what no JSON is, what is too large, too deep, too long, or no number."""
    start = '{"context": [1.0, 0.5]'
    wrong = [
        ("/select", "[" * 100_000, 400),
        ("/select", '{"context": ' + '{"a": ' * 50_000 + "1" + "}" * 50_000 + "}", 400),
        ("/select", b'{"context": "\xff\xfe"}', 400),
        ("/select", '{"context": "' + "x" * (1 << 20) + '"}', 413),
        ("/feedback", '{"id": "' + "9" * (1 << 20) + '", "reward": 1}', 413),
        ("/select", '{"context": [' + "1," * 100_000 + "1]}", 422),
        ("/select", '{"context": [1e999, 0]}', 422),
        ("/select", '{"context": [1e308, 1e308]}', 422),
        ("/select", '{"context": [' + "9" * 400 + ", 0]}", 422),
        ("/select", '{"context": [' + "9" * 6000 + ", 0]}", 400),
        ("/select", start + ', "prices": {"small": Infinity}}', 422),
        ("/select", start + ', "prices": {"small": 1e308}}', 422),
        ("/select", start + ', "eligible": ["\\ud800"]}', 422),
        ("/select", start + ', "\\ud800": 1}', 422),
        ("/feedback", '{"id": 7, "reward": 1}', 422),
        ("/feedback", '{"id": "-7", "reward": 1}', 404),
        ("/feedback", '{"id": "' + "9" * 5000 + '", "reward": 1}', 404),
        ("/feedback", '{"id": "\u0667", "reward": 1}', 404),
        ("/feedback", '{"id": "mine", "reward": 1}', 404),
        ("/feedback", '{"id": "ID", "reward": NaN}', 422),
        ("/feedback", '{"id": "ID", "reward": 1e300}', 422),
        ("/feedback", '{"id": "ID", "reward": 1, "cost": 1e300}', 422),
        ("/feedback", '{"id": "ID", "reward": 1, "seconds": -Infinity}', 422),
        ("/cancel", "null", 422),
    ]
    with asking(made) as call:
        id_ = said(call.post("/select", json=X))["id"]
        before = said(call.get("/arms"))
        for path, body, status in wrong:
            body = body.replace("ID", id_) if isinstance(body, str) else body
            content = body if isinstance(body, bytes) else body.encode()
            answer = call.post(path, content=content, headers={"content-type": "application/json"})
            assert answer.status_code == status, (body[:80], answer.text)
            assert len(answer.content) < 1000
        assert "mine" in said(call.post("/cancel", json={"id": "mine"}), 404)["detail"]
        assert (
            call.post("/select", content=start + "}", headers={"content-type": "text/plain"}).status_code
            == 422
        )
        assert said(call.get("/arms")) == before
        assert said(call.post("/feedback", json={"id": id_, "reward": 1.0}))["standing"] == "answered"


def test_a_source_above_its_rate_may_come_again():
    with asking(lambda: made(sources={"*": RewardLimits(0.0, 1.0, per_s=1.0)})) as call:
        ids = [said(call.post("/select", json=X))["id"] for _ in range(3)]
        states = [call.post("/feedback", json={"id": id_, "reward": 1.0}).status_code for id_ in ids]
        assert states == [200, 429, 429]
        assert said(call.post("/cancel", json={"id": ids[1]}))["standing"] == "cancelled"


def test_the_token_guards_everything_but_health():
    with asking(made, token="secret") as call:
        for answer in (call.post("/select", json=X), call.get("/arms"), call.get("/metrics")):
            assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert call.get("/healthz").status_code == 200
        assert call.post("/select", json=X, headers={"authorization": "Bearer sekret"}).status_code == 401
        assert said(call.post("/select", json=X, headers={"authorization": "Bearer secret"}))


@pytest.mark.parametrize("token", ["", "two words", "schlüssel", "line\n"])
def test_a_token_that_no_header_can_carry_is_refused(token, tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="token must be"):
        sidecar(made, token=token)
    monkeypatch.setenv("BANDITROUTE_TOKEN", token)
    assert (
        main(["serve", str(written(tmp_path)), "--workers", "2"]) == 1
    )  # an empty one would let everybody in
    assert "BANDITROUTE_TOKEN" in capsys.readouterr().err


def test_openapi_tells_what_each_call_takes():
    with asking(made, token="secret") as call:
        told = said(call.get("/openapi.json"))
    assert set(told["paths"]) == {
        "/select",
        "/feedback",
        "/cancel",
        "/explain",
        "/arms",
        "/healthz",
        "/metrics",
    }
    fields = told["components"]["schemas"]["Ask"]["properties"]
    assert all("description" in fields[name] for name in ("context", "eligible", "id"))
    assert told["paths"]["/select"]["post"]["security"] == [{"HTTPBearer": []}]


@contextmanager
def pair(tmp_path):
    """Two workers on one store, whose threads hand decisions over."""
    with made() as one, made() as two:
        for router in (one, two):
            router.join(FileStore(tmp_path), sync_s=0.1, share_decisions=True)
        yield one, two


def test_a_decision_under_an_id_of_the_caller_is_explained_where_decisions_are_shared(tmp_path):
    def shared():
        router = made()
        router.join(FileStore(tmp_path), sync_s=0.1, share_decisions=True)
        return router

    with asking(shared) as call:
        chosen = said(call.post("/select", json={**X, "id": "mine"}))
        by_own, by_number = (said(call.get("/explain", params={"id": i})) for i in ("mine", chosen["id"]))
        assert by_own == by_number and by_own["decision"]["id"] == chosen["id"]
        assert said(call.post("/explain", json={"id": "mine"})) == by_own
        assert "'other'" in said(call.get("/explain", params={"id": "other"}), 404)["detail"]


def test_another_worker_knows_how_a_decision_stands(tmp_path):
    with pair(tmp_path) as (one, two):
        answered, cancelled, cancelled_there = (one.select([1.0, 0.5]).id for _ in range(3))
        assert withdraw(two, cancelled_there) == "cancelled"  # waits until it is in the store
        assert withdraw(two, cancelled_there) == "cancelled"
        assert standing(two, cancelled_there) == "cancelled"
        assert waits(two, answered) and not waits(one, answered)
        assert standing(two, answered) == "pending"
        assert asyncio.run(aupdate(two, answered, 1.0))
        assert standing(two, answered) == withdraw(two, answered) == "answered"
        assert one.cancel(cancelled)
        end = time.monotonic() + 5.0
        while standing(two, cancelled) == "pending" and time.monotonic() < end:
            time.sleep(0.02)
        assert standing(two, cancelled) == "cancelled"
        assert standing(two, 12345) is None
        one.update(cancelled_there, 1.0)  # waits for the store, which says no
        end = time.monotonic() + 5.0
        while one.stats()["deferred"] and time.monotonic() < end:
            time.sleep(0.02)
        assert one.stats()["learned"] + two.stats()["learned"] == 1


def test_an_event_loop_goes_on_while_the_store_is_slow(tmp_path):
    class Slow(FileStore):
        def take(self, *args):
            time.sleep(0.5)
            return super().take(*args)

    with made() as one, made() as two:
        one.join(FileStore(tmp_path), sync_s=0.05, share_decisions=True)
        two.join(Slow(tmp_path), sync_s=0.05, share_decisions=True)
        id_ = one.select([1.0, 0.5]).id
        end = time.monotonic() + 20.0
        while standing(two, id_) != "pending" and time.monotonic() < end:
            time.sleep(0.02)

        async def main():
            learning, turns = asyncio.create_task(aupdate(two, id_, 1.0)), 0
            while not learning.done():
                await asyncio.sleep(0.01)
                turns += 1
            return await learning, turns

        learned, turns = asyncio.run(main())
        assert learned and turns >= 5  # one or two, if the loop had waited


def test_an_id_whose_decision_ended_before_a_restart_is_told(tmp_path):
    def recovered():
        router = made()
        router.recover(tmp_path)
        return router

    with asking(recovered) as call:
        first = said(call.post("/select", json={**X, "id": "mine"}))
        said(call.post("/feedback", json={"id": "mine", "reward": 1.0}))
        assert said(call.post("/select", json={**X, "id": "mine"})) == first
    with asking(recovered) as call:
        answer = call.post("/select", json={**X, "id": "mine"})
        if answer.status_code == 200:  # whoever remembers it may tell it
            assert answer.json() == first
        else:
            assert "mine" in said(answer, 409)["detail"] and "answered" in answer.text
        assert said(call.post("/select", json={"context": [1.0], "id": "new"}), 422)
        assert said(call.get("/arms"))["arms"][ARMS.index(first["arm"])]["learned"] == 1


def test_workers_that_are_asked_at_once_under_one_id_tell_the_same(tmp_path):
    with pair(tmp_path) as (one, two):
        found = {}

        def ask(name, router, own):
            found[own, name] = Repeats(router).select(own, lambda: router.select([1.0, 0.5]))

        for i in range(100):
            both = [Thread(target=ask, args=(n, r, f"r{i}")) for n, r in (("one", one), ("two", two))]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join()
            assert found[f"r{i}", "one"] == found[f"r{i}", "two"]
        stats = [router.stats() for router in (one, two)]
        made_, gone = (sum(s[name] for s in stats) for name in ("decisions", "cancelled"))
        assert made_ - gone == 100
        assert asyncio.run(Repeats(two).key("r7")) == found["r7", "one"].id


# Real processes.


def written(tmp_path, **more):
    path = tmp_path / "config.json"
    path.write_text(
        json.dumps({
            "policy": {"kind": "LinUCB", "arms": ARMS, "dim": 2},
            "recover": {"directory": str(tmp_path / "state"), "flush_s": 0.02},
            "store": {"kind": "FileStore", "directory": str(tmp_path / "store"), "sync_s": 0.2, "share_decisions": True},
            **more,
        })
    )  # fmt: skip
    return path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def served(config, port, workers=2):
    command = [
        sys.executable,
        "-m",
        "banditroute",
        "serve",
        str(config),
        "--port",
        str(port),
        "--workers",
        str(workers),
    ]
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "BANDITROUTE_TOKEN": "t"}
    )
    try:
        for _ in range(1200):
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5.0)
                break
            except httpx.TransportError:
                assert running.poll() is None, running.stderr.read()
                time.sleep(0.05)
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(timeout=60)
        running.stderr.close()


class Worker:
    """A service of one process, beside another on the same store, with a directory of its own; can be killed."""

    def __init__(self, home, name):
        (home / name).mkdir()
        store = {
            "kind": "FileStore",
            "directory": str(home / "store"),
            "sync_s": 0.2,
            "share_decisions": True,
        }
        self.config, self.port, self.running = written(home / name, store=store), free_port(), None

    def start(self):
        command = [sys.executable, "-m", "banditroute", "serve", str(self.config), "--port", str(self.port)]
        self.running = subprocess.Popen(command, stderr=subprocess.DEVNULL, env=without_token())

    def ready(self):
        for _ in range(1200):
            try:
                return httpx.get(f"http://127.0.0.1:{self.port}/healthz", timeout=5.0)
            except httpx.TransportError:
                assert self.running.poll() is None
                time.sleep(0.05)
        raise AssertionError("not ready")

    def stop(self, how):
        self.running.send_signal(how)
        self.running.wait(timeout=60)

    def post(self, path, body):
        return said(httpx.post(f"http://127.0.0.1:{self.port}{path}", json=body, timeout=30.0))


def without_token():
    return {key: value for key, value in os.environ.items() if key != "BANDITROUTE_TOKEN"}


def at_once(workers, path, bodies):
    """Send each body to every worker at the same time; returns the answers, those to one body together."""
    with ThreadPoolExecutor(len(workers)) as pool:
        return [list(pool.map(lambda worker, body=body: worker.post(path, body), workers)) for body in bodies]


def test_one_id_sent_to_two_workers_at_once_is_one_decision_also_after_kill_9(tmp_path):
    workers = [Worker(tmp_path, name) for name in ("one", "two")]
    keys = [f"request-{i}" for i in range(40)]
    bodies = [{**X, "id": key} for key in keys]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.ready()
        first = at_once(workers, "/select", bodies)
        assert all(one == two for one, two in first)
        assert len({one["id"] for one, _ in first}) == len(keys)
        time.sleep(1.0)  # longer than flush_s and sync_s
        for worker in workers:
            worker.stop(signal.SIGKILL)
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.ready()
        assert at_once(workers, "/select", bodies) == first
        answers = at_once(workers, "/feedback", [{"id": key, "reward": 0.5} for key in keys])
        assert {answer["standing"] for pair in answers for answer in pair} == {"answered"}
        assert [pair[0]["id"] for pair in answers] == [one["id"] for one, _ in first]
    finally:
        for worker in workers:
            if worker.running is not None and worker.running.poll() is None:
                worker.stop(signal.SIGTERM)
    with made() as router:
        router.join(FileStore(tmp_path / "store"), background=False)
        assert router.policy.counts.sum() == len(keys)  # each of them learned, once


def load(port, stopped, acknowledged, ids):
    """Decide and answer until told to stop; calls that get no answer are made again, as clients do."""
    limits = httpx.Limits(
        max_keepalive_connections=0
    )  # a new connection for each: they spread over the workers
    headers = {"authorization": "Bearer t"}
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers=headers, limits=limits, timeout=20.0
    ) as call:

        def insist(path, body):
            while True:
                try:
                    answer = call.post(path, json=body)
                except httpx.TransportError:
                    time.sleep(0.05)
                    continue
                if answer.status_code != 503:
                    assert answer.status_code == 200, answer.text
                    return answer.json()

        i = 0
        while not stopped.is_set():
            i += 1
            chosen = insist("/select", {**X, "id": f"{id(acknowledged)}-{i}"})
            ids.append(chosen["id"])
            assert insist("/feedback", {"id": chosen["id"], "reward": 0.5})["standing"] == "answered"
            acknowledged.append(chosen["id"])


def test_restarted_under_load_nothing_acknowledged_is_lost(tmp_path):
    config, port = written(tmp_path), free_port()
    stopped, all_acknowledged, all_ids = Event(), [[], []], [[], []]
    clients = [
        Thread(target=load, args=(port, stopped, acknowledged, ids))
        for acknowledged, ids in zip(all_acknowledged, all_ids, strict=True)
    ]
    for turn in range(3):
        with served(config, port):
            if turn == 0:
                for one in clients:
                    one.start()
            time.sleep(1.5)
            if turn == 2:
                stopped.set()
                for one in clients:
                    one.join(60)
                    assert not one.is_alive()
                page = httpx.get(
                    f"http://127.0.0.1:{port}/metrics", headers={"authorization": "Bearer t"}
                ).text
                assert page.count("banditroute_decisions_total{") == 2
    acknowledged = [id_ for one in all_acknowledged for id_ in one]
    ids = [id_ for one in all_ids for id_ in one]
    assert len(acknowledged) == len(set(ids)) > 50
    with made() as router:
        replica = router.join(FileStore(tmp_path / "store"), background=False)
        assert len(replica.peers) >= 2
        assert router.policy.counts.sum() == len(acknowledged)


def test_what_cannot_work_is_refused_before_any_process_starts(tmp_path, capsys):
    path = written(tmp_path, store={"kind": "FileStore", "directory": str(tmp_path / "store")})
    assert main(["serve", str(path), "--workers", "2"]) == 1
    assert "share_decisions" in capsys.readouterr().err
    path = written(tmp_path, policy={"kind": "LinUCB", "arms": ARMS, "dim": 0})
    assert main(["serve", str(path), "--workers", "2"]) == 1
    assert "config.json" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()


def test_workers_recover_from_directories_of_their_own(tmp_path):
    path = written(tmp_path)
    with worker_router(path, 2), worker_router(path, 2):
        assert (tmp_path / "state" / "worker-0").is_dir() and (tmp_path / "state" / "worker-1").is_dir()
    with pytest.raises(ConfigError, match="dim"):
        worker_router(written(tmp_path, policy={"kind": "LinUCB", "arms": ARMS, "dim": -1}), 2)


def test_with_features_a_raw_request_is_routed():
    from banditroute.features import HashedText

    with asking(lambda: Router(LinUCB(ARMS, 32, rng=0), features=HashedText(32))) as call:
        id_ = said(call.post("/select", json={"context": "an integral of x"}))["id"]
        assert said(call.post("/feedback", json={"id": id_, "reward": 1.0}))["standing"] == "answered"
    with asking(made) as call:
        assert said(call.post("/select", json={"context": "a text"}), 422)
