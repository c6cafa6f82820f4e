"""Metrics: what stats() says, exported, by one process or by several."""

import json
import subprocess
import sys

from prometheus_client import CollectorRegistry, generate_latest

from banditroute import LRU, LinUCB, Router, Source
from banditroute.integrations.prometheus import export


def test_every_number_of_stats_is_exported_with_its_value(tmp_path):
    router = Router(LinUCB(["a", "b"], 2, rng=0), LRU(1), 0.1, sources={"judge": Source(0.0, 1.0, clip=True)})
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
from prometheus_client import CollectorRegistry
from banditroute import LinUCB, Router
from banditroute.integrations.prometheus import export
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
