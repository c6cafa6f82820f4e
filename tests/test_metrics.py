"""Metrics: what stats() says, exported, by one process or by several."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from banditroute import LRU, FileStore, LinUCB, Router
from banditroute.residency.paging import PagingModel
from banditroute.router import RewardLimits
from banditroute.servers import SimulatedBackend
from banditroute.servers.litellm import LiteLLMDoor
from banditroute.servers.metrics import METRICS, table
from banditroute.servers.prometheus import _parsed as parsed
from banditroute.servers.prometheus import export


def test_every_number_of_stats_is_exported_with_its_value(tmp_path):
    router = Router(
        LinUCB(["a", "b"], 2, rng=0), LRU(1), 0.1, sources={"judge": RewardLimits(0.0, 1.0, clip=True)}
    )
    router.recover(tmp_path)
    registry = CollectorRegistry()
    export(router, registry, service="chat")
    for _ in range(5):
        router.update(router.select([1.0, 0.0]).id, 2.0, source="judge")
    router.select([1.0, 0.0])
    stats = router.stats()
    found = {
        (s.name, tuple(sorted(s.labels.items()))): s.value for m in registry.collect() for s in m.samples
    }
    assert all(dict(labels)["service"] == "chat" for _, labels in found)
    plain = {k: v for k, v in stats.items() if isinstance(v, int | float)}
    for key, value in plain.items():
        label = (("service", "chat"),)
        assert (
            found.get((f"banditroute_{key}_total", label), found.get((f"banditroute_{key}", label))) == value
        )
    for arm, numbers in stats["arms"].items():
        label = (("arm", arm), ("service", "chat"))
        assert found[("banditroute_arm_decisions_total", label)] == numbers["decisions"]
        assert found[("banditroute_arm_mean_reward", label)] == numbers["mean_reward"]
    label = (("service", "chat"), ("source", "judge"))
    assert found[("banditroute_source_clipped_total", label)] == 5
    assert stats["arms"]["a"]["mean_reward"] in (0.0, 1.0)
    assert b"banditroute_hit_rate" in generate_latest(registry)
    router.close()


def test_stats_are_plain_numbers(tmp_path):
    router = Router(LinUCB(["a", "b"], 2, rng=0), LRU(1), 0.1)
    router.recover(tmp_path)
    router.update(router.select([1.0, 0.0]).id, 1.0)
    assert json.loads(json.dumps(router.stats())) == router.stats()
    router.close()


WORKER = """
import sys
import tempfile
from prometheus_client import CollectorRegistry
from banditroute import LinUCB, Router
from banditroute.servers.prometheus import export
router = Router(LinUCB(["a", "b"], 2, rng=0))
for _ in range(7):
    router.select([1.0, 0.0])
export(router, CollectorRegistry(), directory=sys.argv[1])
print("ready", flush=True)
sys.stdin.read()
"""


def test_one_scrape_shows_every_live_worker(tmp_path):
    router, registry = Router(LinUCB(["a", "b"], 2, rng=0)), CollectorRegistry()
    collector = export(router, registry, directory=tmp_path)
    router.select([1.0, 0.0])
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout.readline() == "ready\n"

        def decisions():
            families = [m for m in registry.collect() if m.name == "banditroute_decisions"]
            return sorted(s.value for s in families[0].samples)

        assert decisions() == [1.0, 7.0]
        worker.kill()
        worker.wait()
    assert decisions() == [1.0]
    collector.close()
    assert list(tmp_path.iterdir()) == []


def samples(registry):
    """Decisions by the label ``worker``, as one scrape tells them."""
    return {
        s.labels["worker"]: s.value
        for m in registry.collect()
        if m.name == "banditroute_decisions"
        for s in m.samples
    }


def within(seconds, condition):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_routers_of_one_process_share_a_directory(tmp_path):
    # The name of a file is free when another export has it: it once waited for its own lock, for ever.
    routers = [Router(LinUCB(2, 2, rng=0)) for _ in range(3)]
    registries = [CollectorRegistry() for _ in routers]
    pairs = list(zip(routers, registries, ("a", "b", "a"), strict=True))
    collectors = [
        export(router, registry, directory=tmp_path, write_s=0.01, service=service)
        for router, registry, service in pairs
    ]
    for router, plays in zip(routers, (1, 2, 3), strict=True):
        for _ in range(plays):
            router.select([1.0, 0.0])
    me = str(os.getpid())
    assert within(20.0, lambda: samples(registries[0]) == {me: 1.0, f"{me}-2": 3.0})
    assert within(20.0, lambda: samples(registries[2]) == {me: 1.0, f"{me}-2": 3.0})
    assert samples(registries[1]) == {f"{me}-1": 2.0}
    for collector in collectors:
        collector.close()
        collector.close()
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_is_refused_leaves_nothing(tmp_path):
    router, registry = Router(LinUCB(2, 2, rng=0)), CollectorRegistry(auto_describe=True)
    collector = export(router, registry, directory=tmp_path)
    with pytest.raises(ValueError, match="Duplicated"):
        export(router, registry, directory=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ValueError, match="write_s must be in"):
        export(router, CollectorRegistry(), directory=tmp_path, write_s=1e10)
    collector.close()


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("close", [False, True])
def test_a_forked_child_is_a_worker_of_its_own(tmp_path, close):
    router, registry = Router(LinUCB(2, 2, rng=0)), CollectorRegistry()
    collector = export(router, registry, directory=tmp_path, write_s=0.01)
    router.select([1.0, 0.0])
    me = str(os.getpid())
    answers, reports = os.pipe()
    orders, commands = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(120)  # it must not outlive the tests
        try:
            for _ in range(4):
                router.select([1.0, 0.0])
            within(20.0, lambda: samples(registry).get(me) == 1.0)
            os.write(reports, json.dumps(samples(registry)).encode())
            os.read(orders, 1)
            if close:
                collector.close()
        finally:
            os._exit(0)
    os.close(reports)
    os.close(orders)
    heard = json.loads(os.read(answers, 10_000))
    expected = {me: 1.0, str(child): 4.0}  # the one before the fork is the parent's alone
    assert heard == expected
    assert within(20.0, lambda: samples(registry) == expected)  # the thread of the child writes
    os.write(commands, b"x")
    os.waitpid(child, 0)
    assert samples(registry) == {me: 1.0}
    assert [path.name for path in tmp_path.iterdir()] == [
        f"worker-{me}.banditroute"
    ]  # closing in a child left it alone
    collector.close()
    for pipe in (answers, commands):
        os.close(pipe)


def test_writing_goes_on_after_an_error(tmp_path):
    router, failed, broken = Router(LinUCB(2, 2, rng=0)), [], []

    class Counted:
        def stats(self):
            if broken and len(failed) < 2:
                failed.append(1)
                raise SystemExit("or whatever")
            return router.stats()

    counted = Counted()
    collector = export(counted, CollectorRegistry(), directory=tmp_path, write_s=0.01)
    broken.append(1)
    router.select([1.0, 0.0])
    path = tmp_path / f"worker-{os.getpid()}.banditroute"
    assert within(20.0, lambda: len(failed) == 2)
    assert within(20.0, lambda: (parsed(path.read_bytes()) or {"stats": {}})["stats"].get("decisions") == 1)
    collector.close()


def kinds_of_file(folder, victim):
    """Things that lie under the names that this process would take."""
    for n, make in enumerate(
        [
            lambda path: path.symlink_to(victim),
            lambda path: path.write_bytes(b"{}"),
            lambda path: path.mkdir(),
            lambda path: os.mkfifo(path),
            lambda path: path.symlink_to(folder / "nothing"),
            lambda path: path.write_bytes(b"banditroute-metrics 1 2 0\n{}"),
        ]
    ):
        make(folder / f"worker-{os.getpid()}{f'-{n}' if n else ''}.banditroute")


def test_files_of_others_are_left_alone_and_no_link_is_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    home = tmp_path / "home"
    home.mkdir()
    kinds_of_file(home, victim)
    for name in ("config.json", "package.json", "worker-1.json"):
        (home / name).write_text("{}")
    before = sorted(path.name for path in home.iterdir())
    router, registry = Router(LinUCB(2, 2, rng=0)), CollectorRegistry()
    collector = export(router, registry, directory=home, write_s=0.01)
    router.select([1.0, 0.0])
    assert samples(registry) == {f"{os.getpid()}-6": 1.0}
    collector.close()
    assert sorted(path.name for path in home.iterdir()) == before
    assert victim.read_text() == "precious" and not (home / "nothing").exists()


def test_a_folder_that_was_replaced_belongs_to_the_other(tmp_path):
    router, registry = Router(LinUCB(2, 2, rng=0)), CollectorRegistry()
    collector = export(router, registry, directory=tmp_path / "home", write_s=0.01)
    (tmp_path / "home").rename(tmp_path / "old")
    (tmp_path / "home").mkdir()
    router.select([1.0, 0.0])
    path = tmp_path / "old" / f"worker-{os.getpid()}.banditroute"
    assert within(20.0, lambda: parsed(path.read_bytes())["stats"]["decisions"] == 1)
    collector.close()
    assert list((tmp_path / "home").iterdir()) == list((tmp_path / "old").iterdir()) == []


def test_what_a_worker_left_that_was_killed_goes_and_its_name_is_free(tmp_path):
    router, registry = Router(LinUCB(2, 2, rng=0)), CollectorRegistry()
    collector = export(router, registry, directory=tmp_path)
    path = tmp_path / f"worker-{os.getpid()}.banditroute"
    data = path.read_bytes()
    collector.close()
    path.write_bytes(data)
    collector = export(router, CollectorRegistry(), directory=tmp_path)
    assert list(tmp_path.iterdir()) == [path]
    collector.close()


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("shared", [True, False])
def test_decisions_of_forked_workers_add_up(tmp_path, shared):
    router, registry = Router(LinUCB(["a", "b"], 2, rng=0)), CollectorRegistry()
    collector = export(router, registry, directory=tmp_path if shared else None, write_s=0.01)

    def counted():
        found = {"decisions": 0.0, "arm_decisions": 0.0, "arm_learned": 0.0}
        for m in registry.collect():
            if m.name.removeprefix("banditroute_") in found:
                found[m.name.removeprefix("banditroute_")] += sum(s.value for s in m.samples)
        return found

    for _ in range(5):
        router.update(router.select([1.0, 0.0]).id, 1.0)
    answers, reports = os.pipe()
    orders, commands = os.pipe()
    children = []
    for _ in range(3):
        child = os.fork()
        if not child:
            signal.alarm(120)  # it must not outlive the tests
            try:
                for _ in range(10):
                    router.update(router.select([1.0, 0.0]).id, 1.0)
                if not shared:
                    os.write(reports, json.dumps(counted()).encode() + b"\n")
                os.close(commands)
                os.read(orders, 1)
            finally:
                os._exit(0)
        children.append(child)
    os.close(reports)
    os.close(orders)
    if shared:
        assert within(30.0, lambda: set(counted().values()) == {35.0}), counted()
    else:
        with os.fdopen(answers) as file:
            lines = [json.loads(file.readline()) for _ in children]
        assert all(set(line.values()) == {10.0} for line in lines), lines
        assert set(counted().values()) == {5.0}
    os.close(commands)
    for child in children:
        os.waitpid(child, 0)
    if shared:
        os.close(answers)
    collector.close()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Every family of metrics that there is: of what lasts, of a server that loads, of a door."""
    home = tmp_path_factory.mktemp("exported")
    lasting = Router(
        LinUCB(["a", "b"], 2, rng=0), LRU(1), 0.1, sources={"judge": RewardLimits(0.0, 1.0, clip=True)}
    )
    lasting.recover(home / "journal")
    lasting.join(FileStore(home / "store"), share_decisions=True, background=False)
    lasting.update(lasting.select([1.0, 0.0]).id, 2.0, source="judge")
    backend = SimulatedBackend(["a", "b", "c"], PagingModel.profile("qwen2.5-7b/memory"), capacity=2)
    loading = Router(LinUCB(["a", "b", "c"], 1, rng=0), LRU(2), 0.1, backend=backend, maintenance="manual")
    loading.select([1.0])
    loading.maintain()
    families = {}
    for counted in (lasting, LiteLLMDoor(loading)):
        registry = CollectorRegistry()
        export(counted, registry)
        families |= {family.name.removeprefix("banditroute_"): family for family in registry.collect()}
    lasting.close()
    loading.close()
    return families


def test_every_number_has_a_line_of_help_in_one_table(exported):
    assert set(exported) == set(METRICS)  # no number without a line, no line without a number
    for name, family in exported.items():
        assert family.documentation == METRICS[name].help and family.documentation.endswith(".")
        assert family.type == ("counter" if METRICS[name].counter else "gauge")
    assert all(f"banditroute_{name}" in table() for name in METRICS)


def test_the_board_shows_metrics_that_are_exported_under_their_names(exported):
    board = json.loads((Path(__file__).parents[1] / "examples" / "grafana.json").read_text())
    names = {f"banditroute_{name}{'_total' if f.type == 'counter' else ''}" for name, f in exported.items()}
    shown = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"banditroute_\w+", target["expr"])
    }
    assert shown <= names
    wanted = (
        "learned_total", "decisions_total", "pending", "desired", "actual", "blocked", "load_failures_total",
        "spend_total",
    )  # fmt: skip
    assert {f"banditroute_{name}" for name in wanted} <= shown
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_the_page_of_the_sidecar_has_a_line_for_each_metric():
    page = (Path(__file__).parents[1] / "docs" / "sidecar.md").read_text()
    assert table() in page


def test_what_calls_cost_is_added_up():
    router = Router(LinUCB(["a", "b"], 1, rng=0))
    for cost in (0.25, None, 0.5):
        router.update(router.select([1.0]).id, 1.0, cost=cost)
    assert router.stats()["spend"] == 0.75
    again = Router(LinUCB(["a", "b"], 1, rng=0))
    with tempfile.TemporaryDirectory() as home:
        router.save(f"{home}/state")
        again.load(f"{home}/state")
    assert again.stats()["spend"] == 0.75
