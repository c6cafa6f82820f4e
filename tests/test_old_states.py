"""States of policies that were written before version 0.2.0 load for ever, and go on as they would have then."""

from pathlib import Path

import numpy as np
import pytest

from banditroute import DiagLinUCB, EpsilonGreedy, LinTS, LinUCB
from banditroute._core import container
from banditroute.policies import (
    EMA,
    UCB1,
    BatchedUpdates,
    BetaThompson,
    ClusterGraph,
    Fixed,
    GaussianThompson,
    GraphDiagLinUCB,
    HybridLinUCB,
    LogisticUCB,
    OnlineMatching,
    Restarting,
    RoundRobin,
    SharedLinUCB,
    SlidingWindow,
    SquareCB,
    StalenessInflation,
    Uniform,
)

HOME = Path(__file__).parent / "data" / "states-1"
TASTE = {"1": [0.0, 1.0], "2": [1.0, 0.0], "3": [0.5, 0.5]}


def features(name, x):
    return np.outer([1.0, *TASTE.get(name, [0.0, 0.0])], x).ravel()


MADE = {
    "LinUCB": lambda: LinUCB(4, 3, mix=0.1),
    "LinUCB-forgetting": lambda: LinUCB(4, 3, discount=0.95, mix=0.1),
    "LinTS": lambda: LinTS(4, 3),
    "DiagLinUCB": lambda: DiagLinUCB(4, 3),
    "EpsilonGreedy": lambda: EpsilonGreedy(4, 3, epsilon=0.2),
    "SharedLinUCB": lambda: SharedLinUCB(4, 3, features=features),
    "HybridLinUCB": lambda: HybridLinUCB(4, 3, features=features, mix=0.1),
    "LogisticUCB": lambda: LogisticUCB(4, 3),
    "UCB1": lambda: UCB1(4, 3, mix=0.1),
    "BetaThompson": lambda: BetaThompson(4, 3),
    "GaussianThompson": lambda: GaussianThompson(4, 3),
    "EMA": lambda: EMA(4, 3),
    "Uniform": lambda: Uniform(4, 3),
    "Fixed": lambda: Fixed(4, 3, arm=2),
    "RoundRobin": lambda: RoundRobin(4, 3),
    "SquareCB": lambda: SquareCB(LinUCB(4, 3)),
    "SlidingWindow": lambda: SlidingWindow(LinUCB(4, 3, mix=0.1), window=50),
    "Stale": lambda: StalenessInflation(LinUCB(4, 3)),
    "RarelySwitching": lambda: BatchedUpdates(LinUCB(4, 3, mix=0.1)),
    "Restarting": lambda: Restarting(LinUCB(4, 3, mix=0.1)),
}

REFITTED = {"LinUCB-forgetting", "LinTS", "SlidingWindow", "Stale", "RarelySwitching"}


def frozen(name):
    header, arrays = container.decode((HOME / f"{name}.state").read_bytes())
    return header["state"], *(
        {n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)}
        for start in ("state.", "expected.")
    )


@pytest.mark.parametrize("name", MADE)
@pytest.mark.parametrize("settings", ["strict", "own"])
def test_states_of_old_load(name, settings):
    policy = MADE[name]()
    header, arrays, expected = frozen(name)
    policy.load_state(header, arrays, settings=settings)
    assert policy.arms == ("0", "2", "3", "new")
    rows = np.random.default_rng(2).standard_normal((6, 3))
    fitted = hasattr(policy, "ridge") and settings == "own" and name not in ("SharedLinUCB", "HybridLinUCB")
    if not fitted and name not in ("RarelySwitching",):
        means = [policy.scores(x).mean for x in rows]
        np.testing.assert_allclose(means, expected["means"], rtol=1e-9, atol=1e-9)
        given = [policy.propensities(x) for x in rows]
        np.testing.assert_allclose(given, expected["propensities"], rtol=1e-6, atol=1e-6)
    if settings == "own":
        return
    trace = []
    for t in range(20):
        trace.append(policy.select(rows[t % 6]).arm)
        policy.update(trace[-1], rows[t % 6], float(t % 2), at=95 + t)
    # Scales are estimated in another way since: choices are those of then until the next fit.
    alike = 4 if name in REFITTED else 20
    np.testing.assert_array_equal(trace[:alike], expected["trace"][:alike])
    again = MADE[name]()
    again.load_state(*policy.to_state())
    np.testing.assert_array_equal(again.scores(rows[0]), policy.scores(rows[0]))


def test_states_of_a_graph_load():
    graph = ClusterGraph.from_edges([0, 0, 0, 1, 1, 2], ["a", "b", "c", "b", "c", "c"])
    header, arrays, expected = frozen("GraphDiagLinUCB")
    matching = OnlineMatching(graph, alpha=0.3, init_precision=0.5)
    matching.load_state(header, arrays)
    np.testing.assert_allclose(
        matching.scores([0, 1, 2], [0.2, 0.3, 0.5]).mean, expected["means"], rtol=1e-12
    )
    policy = GraphDiagLinUCB(graph, alpha=0.3, init_precision=0.5)
    policy.load_state(header, arrays)
    assert policy.arms == ("a", "b", "c")
    np.testing.assert_allclose(policy.scores([0.2, 0.3, 0.5]).mean, expected["means"], rtol=1e-12)
    other = GraphDiagLinUCB(graph, alpha=0.3, init_precision=0.5, rng=9)
    other.load_state(*policy.to_state())
    for _ in range(20):
        x = np.ones(3)
        arm, twin = policy.select(x).arm, other.select(x).arm
        assert arm == twin
        policy.update(arm, x, 0.5)
        other.update(twin, x, 0.5)
    before = repr(policy.to_state())
    for wrong in ({"policy": "x"}, {"arms": ["a"]}, {"generations": 3}, {"matching": {}}):
        with pytest.raises(ValueError):
            policy.load_state({**other.to_state()[0], **wrong}, other.to_state()[1])
        assert repr(policy.to_state()) == before
