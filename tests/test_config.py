"""Configuration files: every kind can be made from one, every fault is told by file, key, rule and value."""

import json
import math
import tomllib

import numpy as np
import pytest

from banditroute import LinUCB, Router, from_config
from banditroute.cli import main
from banditroute.config import ConfigError, check_config, config_schema, read_config, summary
from banditroute.config.feature_options import FEATURES
from banditroute.config.models import CONTROLLERS, POLICIES, SERVERS, TERMS, WRAPPERS
from banditroute.errors import DirectoryInUse, SnapshotError
from banditroute.features import Embedding

POLICY = {"kind": "LinUCB", "arms": ["a", "b", "c"], "dim": 2, "rng": 0}
PLAIN = {"policy": POLICY}
OF_POLICIES = {"SharedLinUCB": {"features": 2}}
OF_CONTROLLERS = {"Static": {"arms": ["a"]}}
OF_TERMS = {
    "BudgetPacer": {"budget": 0.01, "costs": {"a": 0.02, "b": 0.01, "c": 0.001}},
    "CostModels": {"weights": {"latency": 0.1}},
    "QualityFloor": {"target": 0.5, "costs": [0.02, 0.01, 0.001]},
    "Queues": {"service_s": [0.1, 0.2, 0.3], "per_second": 0.1},
    "Sessions": {"saved": 0.1},
}
OF_SERVERS = {
    "LlamaCppAdapters": {"url": "http://127.0.0.1:1", "files": {"a": "a.gguf"}},
    "SGLangBackend": {"url": "http://127.0.0.1:1", "paths": {"a": "/a"}, "slots": 1},
    "VLLMBackend": {"url": "http://127.0.0.1:1", "paths": {"a": "/a"}, "slots": 1},
}
OF_FEATURES = {
    "Category": {"values": ["x", "y"]},
    "Embedding": {"components": 2},
    "Fields": {"parts": {"n": {"kind": "Number", "low": 0, "high": 1}, "m": {"kind": "Number"}}},
    "Fourier": {"of": {"kind": "HashedText"}, "dim": 2},
    "HashedText": {"dim": 2},
    "Number": {"low": 0, "high": 4.5},
}
RESIDENCY = {"residency": {"kind": "LRU", "capacity": 1}, "paging": 0.1}

KINDS = (
    [{"policy": POLICY | {"kind": kind, **OF_POLICIES.get(kind, {})}} for kind in POLICIES]
    + [PLAIN | {"wrappers": [{"kind": kind}]} for kind in WRAPPERS]
    + [
        PLAIN | {"residency": {"kind": kind, **OF_CONTROLLERS.get(kind, {"capacity": 1})}, "paging": 0.1}
        for kind in CONTROLLERS
    ]
    + [PLAIN | {"terms": [{"kind": kind, **OF_TERMS.get(kind, {})}]} for kind in TERMS]
    + [PLAIN | RESIDENCY | {"backend": {"kind": kind, **OF_SERVERS[kind]}} for kind in SERVERS]
    + [
        {
            "policy": POLICY | {"dim": 1 if kind == "Number" else 2},
            "features": {"kind": kind, **OF_FEATURES[kind]},
        }
        for kind in FEATURES
    ]
)
OTHERS = [
    PLAIN,
    PLAIN | {"wrappers": [{"kind": "StalenessInflation", "discount": 0.99}, {"kind": "Restarting"}]},
    PLAIN | RESIDENCY | {"paging": {"a": 0.1, "b": 0.2, "c": 0}},
    PLAIN | RESIDENCY | {"paging": [0.1, 0.2, 0]},
    PLAIN | RESIDENCY | {"paging": {"kind": "PagingModel", "bandwidth_gb_s": 5}},
    PLAIN | RESIDENCY | {"sizes": {"a": 1, "b": 1, "c": 0.5}},
    PLAIN | {"sources": {"*": {"low": 0, "high": 1, "clip": True}, "app": {"per_s": 5.5}}},
    PLAIN | {"router": {"feedback_limit_s": 60, "spread_pending": True, "expired_reward": None}},
    {"policy": POLICY | {"alpha": 1, "arms": 3}},
    {"policy": {"kind": "HybridLinUCB", "arms": [], "dim": 2, "features": 2, "interactions": True}},
]
FAULTS = [
    ({}, "policy: must be given"),
    ({"policy": 3}, "policy: must be a table, got 3"),
    ({"policy": {"arms": ["a"], "dim": 2}}, "policy.kind: must be given"),
    (
        {"policy": POLICY | {"kind": "LinUBC"}},
        "policy.kind: no such kind, did you mean LinUCB?, got 'LinUBC'",
    ),
    (
        {"policy": POLICY | {"kind": "linucb"}},
        "policy.kind: no such kind, did you mean LinUCB?, got 'linucb'",
    ),
    ({"policy": POLICY | {"alfa": 1}}, "policy.alfa: no such setting, did you mean alpha?, got 1"),
    ({"policy": POLICY | {"dim": "2"}}, "policy.dim: must be an integer, got '2'"),
    ({"policy": POLICY | {"dim": True}}, "policy.dim: must be an integer, got True"),
    ({"policy": POLICY | {"dim": 2.5}}, "policy.dim: must be an integer, got 2.5"),
    ({"policy": POLICY | {"alpha": "1"}}, "policy.alpha: must be a number or 'auto', got '1'"),
    ({"policy": POLICY | {"alpha": False}}, "policy.alpha: must be a number or 'auto', got False"),
    ({"policy": POLICY | {"alpha": math.nan}}, "policy: alpha must be a finite number, got nan"),
    ({"policy": POLICY | {"alpha": -1}}, "policy: alpha must be in [0, "),
    (
        {"policy": POLICY | {"kind": "SharedLinUCB", "features": "load"}},
        "policy.features: must be an integer, got 'load'",
    ),
    ({"policy": POLICY | {"kind": "SharedLinUCB"}}, "policy.features: must be given"),
    ({"policy": POLICY | {"kind": "LinUCB", "arms": []}}, "policy: arms must"),
    ({"policy": POLICY | {"arms": ["a", "a"]}}, "policy: arms must be distinct, got 'a' twice"),
    ({"policy": POLICY | {"arms": ["a", 1]}}, "policy.arms.1: must be a text, got 1"),
    ({"policy": POLICY | {"dim": 10**9}}, "policy: "),
    (PLAIN | {"polcy": 1}, "polcy: no such setting, did you mean policy?, got 1"),
    (PLAIN | {"residency": RESIDENCY["residency"]}, "(all): paging must be given with residency"),
    (PLAIN | RESIDENCY | {"paging": "1"}, "paging: must be a number, got '1'"),
    (PLAIN | RESIDENCY | {"paging": {"a": "1"}}, "paging.a: must be a number, got '1'"),
    (PLAIN | RESIDENCY | {"paging": {"a": 1.0, "c": 1.0}}, "paging: must name every arm, got none for ['b']"),
    (
        PLAIN | RESIDENCY | {"paging": {"a": 1.0, "bb": 1.0}},
        "paging: must be by arm, did you mean b?, got 'bb'",
    ),
    (
        PLAIN | RESIDENCY | {"paging": {"kind": "PagingModel", "jiter": 1}},
        "paging.jiter: no such setting, did you mean jitter?, got 1",
    ),
    (
        PLAIN | {"wrappers": [{"kind": "StalenessInflatoin"}]},
        "wrappers.0.kind: no such kind, did you mean StalenessInflation?, got 'StalenessInflatoin'",
    ),
    (PLAIN | {"terms": [3]}, "terms.0: must be a table, got 3"),
    (
        PLAIN | {"terms": [{"kind": "BudgetPacer", "budget": 1.0, "costs": {"a": 1.0, "b": 1.0, "d": 1.0}}]},
        "terms.0.costs: must be by arm, got 'd'",
    ),
    (
        PLAIN | {"terms": [{"kind": "BudgetPacer", "budget": -1.0, "costs": [1.0, 1.0, 1.0]}]},
        "terms.0: budget must be",
    ),
    (PLAIN | {"sources": {"app": {"lo": 1}}}, "sources.app.lo: no such setting, did you mean low?, got 1"),
    (PLAIN | {"sources": {"app": {"low": 2.0, "high": 1.0}}}, "sources.app: "),
    (PLAIN | {"router": {"switching": 7.0}}, "(all): switching must be in [0, 1], got 7.0"),
    (
        PLAIN | {"router": {"maintenance": "inlin"}},
        "router.maintenance: must be 'inline', 'background' or 'manual'",
    ),
    (
        PLAIN | {"recover": {"directry": "x"}},
        "recover.directry: no such setting, did you mean directory?, got 'x'",
    ),
    (
        PLAIN | {"store": {"kind": "FileStore", "directory": "x", "sync": 1}},
        "store.sync: no such setting, did you mean sync_s?, got 1",
    ),
    (
        PLAIN | {"features": {"kind": "Embedding", "encoder": {"kind": "HashedTxt"}}},
        "features.encoder.kind: no such kind, did you mean HashedText?, got 'HashedTxt'",
    ),
    (
        PLAIN | {"features": {"kind": "Fields", "parts": {"t": {"kind": "HashedText", "dm": 3}}}},
        "features.parts.t.dm: no such setting, did you mean dim?, got 3",
    ),
    (
        PLAIN | {"features": {"kind": "Embedding", "components": 2, "encoder": "minilm"}},
        "features: encoder must be one that from_config was given, [], got 'minilm'",
    ),
    (
        PLAIN | {"features": {"kind": "HashedText", "dim": 3}},
        "(all): features must make contexts of length 2, got 3",
    ),
    (PLAIN | {"features_state": "x"}, "features_state: must come with features, got 'x'"),
]


def told(given):
    with pytest.raises(ConfigError) as error:
        from_config(given)
    return str(error.value).splitlines()


def label(given):
    return next(
        (str(v["kind"]) for v in reversed(given.values()) if isinstance(v, dict) and "kind" in v), "list"
    )


@pytest.mark.parametrize("given", [*KINDS, *OTHERS], ids=label)
def test_what_a_file_can_name_can_be_made(given):
    if given.get("features", {}).get("kind") in ("Embedding", "Fields"):  # those wait for a sample or a state
        with from_config(given) as router, pytest.raises(ValueError, match="must be fitted"):
            router.select([0.0, 1.0])
        return
    request = {"HashedText": "a", "Fourier": "a", "Category": "x", "Number": 3.0}
    with from_config({key: value for key, value in given.items() if key != "backend"}) as router:
        x = request.get(given.get("features", {}).get("kind"), [1.0, 0.5])
        brought = {"a": [1.0, 0.2], "new": [1.0, 0.7]} if "features" in given["policy"] else None
        decision = router.select(x, candidates=brought)
        assert decision.arm in (brought or router.arms)
        assert router.update(decision.id, 0.5)
    with from_config(given | {"router": {"maintenance": "manual"}}) as router:
        assert (router.backend is None) == ("backend" not in given)


def test_each_kind_is_the_class_of_that_name():
    for given in KINDS:
        with from_config(given | {"router": {"maintenance": "manual"}}) as router:
            part = {
                "residency": router.residency,
                "features": router.features,
                "backend": router.backend,
                "policy": router.policy,
            }
            key = next(k for k in ("backend", "features", "residency", "policy") if k in given)
            if "wrappers" in given:
                assert type(router.policy).__name__ == given["wrappers"][-1]["kind"]
            elif "terms" in given:
                assert type(router.terms[0]).__name__ == given["terms"][0]["kind"]
            else:
                assert type(part[key]).__name__ == given[key]["kind"]


def test_settings_reach_the_class():
    with from_config({"policy": POLICY | {"alpha": 0.7, "mix": 0.1}, **RESIDENCY}) as router:
        assert (router.policy.alpha, router.residency.capacity) == (0.7, 1)
        assert router.select([1.0, 0.0]).propensity in (0.9 + 0.1 / 3, 0.1 / 3)
    with from_config(PLAIN | {"router": {"switching": 0.25}, **RESIDENCY}) as router:
        assert router.switching == 0.25
    with from_config(PLAIN | {"sources": {"*": {"low": 0.0, "high": 1.0, "clip": True}}}) as router:
        assert router.update(router.select([1.0, 0.0]).id, 7.0)
        assert router.policy.theta.max() <= 1.0


@pytest.mark.parametrize(("given", "line"), FAULTS, ids=[line[:40] for _, line in FAULTS])
def test_a_fault_is_told_by_key_rule_and_value(given, line):
    assert any(one.startswith(f"config: {line}") for one in told(given)), told(given)


def test_all_faults_are_told_at_once_and_each_once():
    lines = told({"policy": {"kind": "LinUCB", "arms": 2, "dim": "x", "alpha": "y"}, "zzz": 1})
    assert len(lines) == 3 == len({line.split(":")[1] for line in lines})


def test_formats_say_the_same(tmp_path):
    yaml = pytest.importorskip("yaml")
    toml = (
        '[policy]\nkind = "LinUCB"\narms = ["a", "b", "c"]\ndim = 2\nrng = 0\n[[terms]]\nkind = "ArmHealth"\n'
    )
    given = tomllib.loads(toml)
    texts = {
        "r.toml": toml,
        "r.json": json.dumps(given),
        "r.yaml": yaml.safe_dump(given),
        "r.yml": yaml.safe_dump(given),
        "R.TOML": toml,
    }
    for name, text in texts.items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        assert read_config(path) == (str(path), given)
        with from_config(path) as router:
            assert router.arms == ("a", "b", "c")


BROKEN = {
    "r.toml": b"[policy\n",
    "twice.toml": b"a = 1\na = 2\n",
    "r.json": b"{",
    "deep.json": b"[" * 100_000,
    "twice.json": b'{"policy": {"kind": "LinUCB", "kind": "LinTS"}}',
    "r.yaml": b"a: [",
    "twice.yaml": b"policy:\n  kind: LinUCB\n  kind: LinTS\n",
    "tag.yaml": b"!!python/object/apply:os.getcwd []",
    "latin.toml": 'a = "\u00e9"'.encode("latin-1"),
    "list.json": b"[1]",
    "empty.yaml": b"",
    "r.ini": b"a = 1",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_configuration_is_told_with_the_file(tmp_path, name):
    if name.endswith("yaml"):
        pytest.importorskip("yaml")
    path = tmp_path / name
    path.write_bytes(BROKEN[name])
    with pytest.raises(ConfigError) as error:
        check_config(path)
    assert str(error.value).startswith(f"{path}: must ")
    assert len(str(error.value).splitlines()) == 1
    if name.startswith("twice"):
        assert "kind" in str(error.value) or "a" in str(error.value)


def test_a_file_that_cannot_be_read_is_no_fault_of_its_text(tmp_path):
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises((OSError, ConfigError)):
            from_config(path)
    with pytest.raises(FileNotFoundError):
        from_config(tmp_path / "none.toml")


def test_recover_and_store_go_on_where_they_were(tmp_path):
    home = str(tmp_path / "state")
    given = PLAIN | {"recover": {"directory": home, "flush_s": 0.01}}
    with from_config(given) as router:
        decision = router.select([1.0, 0.0])
        with pytest.raises(DirectoryInUse):
            from_config(given)
    with from_config(given) as router:
        assert router.update(decision.id, 0.5)
    shared = PLAIN | {
        "store": {"kind": "FileStore", "directory": str(tmp_path / "store"), "share_decisions": True}
    }
    with from_config(shared) as router:
        router.update(router.select([1.0, 0.0]).id, 0.5)
    with Router(LinUCB(["a", "b", "c"], 2)) as router:
        from banditroute import FileStore

        router.join(FileStore(tmp_path / "store"), background=False)
        assert router.policy.counts.sum() == 1


def test_a_router_that_cannot_be_finished_leaves_nothing_locked(tmp_path):
    given = PLAIN | {"recover": {"directory": str(tmp_path / "state")}}
    with from_config(given):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        from_config(given | {"store": {"kind": "FileStore", "directory": str(tmp_path / "file" / "store")}})
    with from_config(given) as router:
        assert router.select([1.0, 0.0]).arm in router.arms
    lines = told(PLAIN | {"recover": {"directory": str(tmp_path / "other"), "keep": 0}})
    assert lines == ["config: recover: keep must be >= 1, got 0"]


def test_encoders_and_fitted_features_come_from_outside_the_file(tmp_path):
    def encode(texts):
        return np.array([[len(text), text.count("a"), text.count("e")] for text in texts], dtype=float)

    sample = ["a tale", "eel", "banana bread", "tee"]
    Embedding(encode, 2, name="letters").fit(sample).save(tmp_path / "features")
    features = {"kind": "Embedding", "components": 2, "encoder": "letters"}
    given = PLAIN | {"features": features, "features_state": str(tmp_path / "features")}
    assert "features=Embedding" in summary(given)
    with from_config(given, encoders={"letters": encode}) as router:
        assert router.select("a banana").arm in router.arms
    other = PLAIN | {"features": features | {"whiten": True}, "features_state": str(tmp_path / "features")}
    with pytest.raises((ConfigError, SnapshotError), match="whiten must be True, got False"):
        from_config(other, encoders={"letters": encode})


# The schema, by the few words of JSON Schema that it uses.


def valid(schema, value, whole):
    if "$ref" in schema:
        return valid(whole["$defs"][schema["$ref"].rpartition("/")[2]], value, whole)
    for word, count in (("anyOf", any), ("oneOf", lambda found: sum(found) == 1)):
        if word in schema and not count([valid(one, value, whole) for one in schema[word]]):
            return False
    if ("const" in schema and value != schema["const"]) or ("enum" in schema and value not in schema["enum"]):
        return False
    number = isinstance(value, int | float) and not isinstance(value, bool)
    types = {
        "object": isinstance(value, dict),
        "array": isinstance(value, list),
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "number": number,
        "integer": number and value == int(value),
        "null": value is None,
    }
    if "type" in schema and not types[schema["type"]]:
        return False
    if isinstance(value, list) and "items" in schema:
        return all(valid(schema["items"], one, whole) for one in value)
    if isinstance(value, dict) and types["object"] and schema.get("type") == "object":
        known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        if not set(schema.get("required", ())) <= set(value):
            return False
        for key, one in value.items():
            inside = known.get(key, rest)
            if inside is False or (isinstance(inside, dict) and not valid(inside, one, whole)):
                return False
    return True


@pytest.mark.parametrize("given", [*KINDS, *OTHERS], ids=label)
def test_the_schema_accepts_what_check_accepts(given):
    check_config(given)
    schema = config_schema()
    assert valid(schema, json.loads(json.dumps(given)), schema)


def test_the_schema_refuses_what_check_refuses():
    schema = config_schema()
    seen = 0
    for given, _ in FAULTS:
        try:
            check_config(given)
        except ConfigError:
            if isinstance(given.get("policy"), dict) and given["policy"].get("dim") == 2.0:
                assert not valid(schema, given, schema), given
                seen += 1
    assert seen > 10


# The commands.


def test_check_tells_what_a_file_makes_and_touches_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = (
        PLAIN
        | RESIDENCY
        | {
            "terms": [{"kind": "ArmHealth"}],
            "backend": {"kind": "VLLMBackend", **OF_SERVERS["VLLMBackend"]},
            "recover": {"directory": "state"},
            "store": {"kind": "FileStore", "directory": "store"},
        }
    )
    path = tmp_path / "router.json"
    path.write_text(json.dumps(given))
    assert main(["config", "check", str(path)]) == 0
    assert capsys.readouterr().out == (
        "Router(LinUCB, 3 arms, dim=2, residency=LRU(1), terms=health, backend=VLLMBackend, recover=state, "
        "store=FileStore)\n"
    )
    assert [one.name for one in tmp_path.iterdir()] == ["router.json"]
    path.write_text(json.dumps(given | {"polcy": 1, "router": {"switching": "x"}}))
    assert main(["config", "check", str(path)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 2
    assert all(line.startswith(f"{path}: ") for line in said.err.splitlines())
    assert main(["config", "check", str(tmp_path / "none.json")]) == 1


def test_the_schema_is_printed_as_json(capsys):
    assert main(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(config_schema()))


def test_warmup_says_how_long_it_took(capsys):
    assert main(["warmup"]) == 0
    assert " s; kernels: " in capsys.readouterr().out
