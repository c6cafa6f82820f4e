"""The sidecar with requests that bring their candidates, and with lists."""

from contextlib import ExitStack

import pytest

pytest.importorskip("fastapi", reason="needs FastAPI: pip install 'banditroute[serving]'")
from banditroute import FileStore, LinUCB, Router, from_config
from banditroute.policies import SharedLinUCB
from banditroute.router import RewardLimits
from sidecar_client import asking, said

ARMS = ["small", "medium", "large"]
X = {"context": [1.0, 0.5]}
LOADS = {"n1": [1.0, 0.9], "n2": [1.0, 0.1]}


def made(**options):
    return Router(LinUCB(ARMS, 2, mix=0.3, rng=0), **options)


def free():
    return from_config({"policy": {"kind": "SharedLinUCB", "arms": [], "dim": 1, "features": 2, "rng": 0}})


def test_candidates_come_by_name_or_as_a_matrix_and_teach_what_they_were():
    with asking(free) as call:
        for _ in range(30):
            pair = [list(LOADS), list(LOADS.values())]
            for given in (LOADS, pair):
                chosen = said(call.post("/select", json={"context": [1.0], "candidates": given}))
                reward = 1.0 - LOADS[chosen["arm"]][1]
                said(call.post("/feedback", json={"id": chosen["id"], "reward": reward}))
        asked = {"context": [1.0], "candidates": {"other": [1.0, 0.8], "idle": [1.0, 0.0]}}
        assert said(call.post("/select", json=asked))["arm"] == "idle"
        why = said(call.post("/explain", json=asked))
        assert [arm["arm"] for arm in why["arms"]] == ["other", "idle"]
        one = {**asked, "eligible": ["other"], "prices": {"other": 0.5}}
        assert said(call.post("/select", json=one))["arm"] == "other"
        assert said(call.get("/arms"))["arms"] == []


def test_an_id_of_the_caller_gets_the_first_candidate_and_the_first_list():
    with asking(free) as call:
        asked = {"context": [1.0], "candidates": LOADS, "id": "mine"}
        first = said(call.post("/select", json=asked))
        again = said(call.post("/select", json={**asked, "candidates": {"n3": [1.0, 0.0]}}))
        assert again == first and "places" not in first
        asked = {"context": [1.0], "candidates": LOADS, "id": "ours", "k": 2}
        shown = said(call.post("/select", json=asked))
        assert said(call.post("/select", json=asked)) == shown and len(shown["places"]) == 2
        assert said(call.post("/feedback", json={"id": "ours", "reward": {"n1": 0.1, "n2": 0.9}}))["places"]


def test_a_list_and_its_rewards():
    with asking(made) as call:
        shown = said(call.post("/select", json={**X, "k": 3}))
        places = shown["places"]
        assert places[0]["arm"] == shown["arm"] and places[0]["id"] == shown["id"]
        assert sorted(p["arm"] for p in places) == sorted(ARMS)
        assert all(0.0 < p["prefix"] <= p["propensity"] <= 1.0 for p in places)
        by_name = {"id": shown["id"], "reward": {places[1]["arm"]: 1.0}, "cost": 0.1}
        for _ in range(2):  # a repeated answer gets the same reply, and is learned once
            told = said(call.post("/feedback", json=by_name))
            assert told == {
                "id": shown["id"], "standing": "pending", "places": ["pending", "answered", "pending"]
            }  # fmt: skip
        told = said(call.post("/feedback", json={"id": shown["id"], "reward": [0.5, 1.0, None]}))
        assert told["places"] == ["answered", "answered", "cancelled"] and told["standing"] == "answered"
        learned = {arm["name"]: arm["learned"] for arm in said(call.get("/arms"))["arms"]}
        assert learned == {places[0]["arm"]: 1, places[1]["arm"]: 1, places[2]["arm"]: 0}
        alone = said(call.post("/select", json={**X, "k": [1.0, 0.5]}))["places"]
        told = said(call.post("/feedback", json={"id": alone[1]["id"], "reward": 1.0}))
        assert told["standing"] == "answered" and told["id"] == alone[1]["id"]
        assert said(call.post("/cancel", json={"id": alone[0]["id"]}))["standing"] == "cancelled"


def test_a_list_is_withdrawn_with_all_its_places():
    with asking(made) as call:
        shown = said(call.post("/select", json={**X, "k": 2}))
        assert said(call.post("/cancel", json={"id": shown["id"]}))["standing"] == "cancelled"
        told = said(call.post("/feedback", json={"id": shown["id"], "reward": [1.0, 1.0]}))
        assert told["places"] == ["cancelled", "cancelled"] == [told["standing"]] * 2


WRONG = [
    ("/select", {**X, "k": 0}, "k must be"),
    ("/select", {**X, "k": 2.5}, "k.number"),
    ("/select", {**X, "k": True}, "k.number"),
    ("/select", {**X, "k": "3"}, "k.number"),
    ("/select", {**X, "k": []}, "k must hold"),
    ("/select", {**X, "k": [1.0, 2.0]}, "k must be"),
    ("/select", {**X, "k": 10**30}, "k must be"),
    ("/select", {**X, "candidates": {"n1": [1.0]}}, "LinUCB"),
    ("/select", {**X, "candidates": "n1"}, "candidates.by name"),
    ("/select", {**X, "candidates": [["n1"], [[1.0]], 3]}, "candidates.names and matrix"),
    ("/select", {"context": [True, 0.5]}, "context.numbers.0"),
    ("/select", {"context": ["1", 0.5]}, "context.numbers.0"),
    ("/select", {**X, "prices": {"small": True}}, "prices.small"),
    ("/select", {**X, "protected": "yes"}, "protected"),
    ("/feedback", {"id": "ID", "reward": "much"}, "reward.number"),
    ("/feedback", {"id": "ID", "reward": True}, "reward.number"),
    ("/feedback", {"id": "ID", "reward": "0.5"}, "reward.number"),
    ("/feedback", {"id": "ID", "reward": [1, False]}, "reward.by place"),
    ("/feedback", {"id": "ID", "reward": [1, 0], "cost": "2"}, "cost"),
    ("/feedback", {"id": "ID", "reward": [1, 0], "failed": 1}, "failed"),
    ("/feedback", {"id": "ID", "reward": {"other": 1.0}}, "reward must be of arms of the list"),
    ("/feedback", {"id": "ID", "reward": [1.0] * 4}, "at most 2 places, got 4"),
    ("/feedback", {"id": "ID", "reward": [1e300]}, "reward must be"),
    ("/feedback", {"id": "ID", "reward": {"small": "x"}}, "reward.by name.small"),
    ("/explain", {"id": "ID", "candidates": LOADS}, "candidates must come with a context"),
]


def test_what_is_wrong_with_a_list_is_told_and_changes_nothing():
    with asking(made) as call:
        id_ = said(call.post("/select", json={**X, "k": 2}))["id"]
        before = said(call.get("/arms"))
        for path, body, word in WRONG:
            body = {key: id_ if value == "ID" else value for key, value in body.items()}
            detail = said(call.post(path, json=body), 422)["detail"]
            assert word in detail and detail.count("Input should") <= 1, (body, detail)
        assert said(call.get("/arms")) == before
        assert (
            said(call.post("/feedback", json={"id": id_, "reward": [1.0, 0.0]}))["places"] == ["answered"] * 2
        )
        said(call.post("/feedback", json={"id": "7", "reward": [1.0]}), 404)


CANDIDATES = [
    ({}, "candidates must"), ({"": [1.0, 0.0]}, "candidates must"), ({"n1": [1.0]}, "candidates must"),
    ({"n1": [1.0, 1e300]}, "candidates must have features"), ([["n1", "n1"], [[1.0, 0.0]] * 2], "candidates must"),
    ([["n1", "n2"], [[1.0, 0.0]]], "candidates must"), ({"n1": ["a", 1.0]}, "candidates.by name.n1"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "word"), CANDIDATES)
def test_what_is_wrong_with_candidates_is_told(given, word):
    with asking(free) as call:
        for path in ("/select", "/explain"):
            answer = call.post(path, json={"context": [1.0], "candidates": given})
            assert word in said(answer, 422)["detail"], answer.text
        said(call.post("/select", json={"context": [1.0], "candidates": LOADS, "eligible": ["n9"]}), 422)
        said(call.post("/select", json={"context": [1.0], "candidates": LOADS}))


def test_a_list_under_an_id_of_the_caller_is_known_after_a_restart(tmp_path):
    def recovered():
        router = made()
        router.recover(tmp_path)
        return router

    asked = {**X, "k": 3}
    with asking(recovered) as call:
        first, other = (said(call.post("/select", json={**asked, "id": name})) for name in ("mine", "other"))
        said(call.post("/feedback", json={"id": "other", "reward": {other["places"][1]["arm"]: 1.0}}))
    with asking(recovered) as call:
        again = said(call.post("/select", json={**asked, "id": "mine"}))
        for one in (first, again):
            for place in one["places"]:
                del place["prefix"]  # which is forgotten
        assert again == first
        assert "answered" in said(call.post("/select", json={**asked, "id": "other"}), 409)["detail"]
        assert (
            said(call.post("/feedback", json={"id": "mine", "reward": [1.0, 0.0, 0.0]}))["standing"]
            == "answered"
        )


def test_places_above_the_rate_of_a_source_may_come_again():
    with asking(lambda: made(sources={"*": RewardLimits(0.0, 1.0, per_s=1.0)})) as call:
        shown = said(call.post("/select", json={**X, "k": 3}))
        rewards = {"id": shown["id"], "reward": [1.0, 1.0, 1.0]}
        assert "rate" in said(call.post("/feedback", json=rewards), 429)["detail"]
        assert sum(arm["learned"] for arm in said(call.get("/arms"))["arms"]) == 1
        said(call.post("/cancel", json={"id": shown["id"]}))
        assert said(call.post("/feedback", json=rewards))["places"] == ["answered", "cancelled", "cancelled"]


def test_any_worker_takes_the_rewards_of_a_list_by_name_and_withdraws_it(tmp_path):
    def worker(seed):
        router = Router(SharedLinUCB(["n1"], 1, features=2, mix=0.3, rng=seed))
        router.join(FileStore(tmp_path), sync_s=0.05, share_decisions=True)
        return router

    asked = {"context": [1.0], "candidates": {**LOADS, "n3": [1.0, 0.5]}, "k": 3}
    with ExitStack() as stack:
        one, two = (stack.enter_context(asking(lambda seed=seed: worker(seed))) for seed in (0, 1))
        shown = said(one.post("/select", json=asked))
        names = [place["arm"] for place in shown["places"]]
        wrong = said(two.post("/feedback", json={"id": shown["id"], "reward": {"small": 1.0}}), 422)
        assert "'small'" in wrong["detail"]
        assert (
            "at most 3"
            in said(two.post("/feedback", json={"id": shown["id"], "reward": [1.0] * 4}), 422)["detail"]
        )
        said(two.post("/feedback", json={"id": shown["id"], "reward": [1.0, 1e300]}), 422)
        for _ in range(2):
            told = said(
                two.post("/feedback", json={"id": shown["id"], "reward": {names[1]: 1.0, names[2]: None}})
            )
            assert told["places"] == ["pending", "answered", "cancelled"], told
        told = said(one.post("/feedback", json={"id": shown["id"], "reward": {names[0]: 1.0}}))
        assert told["places"][0] == "answered"
        under = said(one.post("/select", json={**asked, "id": "mine"}))
        assert said(two.post("/select", json={**asked, "id": "mine"})) == under  # with its places
        assert said(two.post("/cancel", json={"id": "mine"}))["standing"] == "cancelled"
        for place in under["places"]:
            assert (
                said(two.post("/feedback", json={"id": place["id"], "reward": 1.0}))["standing"]
                == "cancelled"
            )


def test_openapi_tells_of_candidates_and_lists():
    with asking(made) as call:
        told = said(call.get("/openapi.json"))["components"]["schemas"]
    assert {"candidates", "k"} <= set(told["Ask"]["properties"]) and "candidates" in told["Wonder"][
        "properties"
    ]
    assert "places" in told["Choice"]["properties"] and "places" in told["ListStands"]["properties"]
    ways = told["Answer"]["properties"]["reward"]["oneOf"]
    assert [way["type"] for way in ways] == ["number", "array", "object"]
