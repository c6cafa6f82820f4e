"""Conversations on two workers: the next turn may go to either, and the model with the warm prompt is known to both."""

import tempfile

import numpy as np

from banditroute import FileStore, LinUCB, Router
from banditroute.terms import Sessions

MODELS, USD = list("abcde"), 1e-5  # models alike but for a kind of turn; a cached token costs a tenth


def served(terms) -> float:
    """Serve 80 conversations of six turns, each turn at any of two workers; returns mean cost of a turn."""
    rng, paid = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as store:
        workers = [Router(LinUCB(MODELS, 6, rng=seed), terms=terms()) for seed in range(2)]
        replicas = [worker.join(FileStore(store), background=False) for worker in workers]
        for turn in range(480):
            if turn % 6 == 0:
                cached = dict.fromkeys(MODELS, 0.0)
            worker, kind, length = workers[rng.integers(2)], rng.integers(5), 5000.0 + 500.0 * (turn % 6)
            decision = worker.select([*np.eye(5)[kind], length / 8000.0], session=f"c{turn // 6}")
            paid.append(USD * (length - 0.9 * cached[decision.arm]))
            cached[decision.arm] = length
            worker.update(decision.id, 0.89 + 0.005 * (decision.arm == MODELS[kind]) + 0.01 * rng.random())
            [replica.sync() for replica in replicas]  # in production a thread does that
    return float(np.mean(paid[240:]))


def main() -> tuple[float, float]:
    """Return what a turn costs with `Sessions`, and without."""
    kept, blind = served(lambda: [Sessions(0.9 * USD, tokens=lambda x: 8000.0 * x[-1])]), served(list)
    print(f"${kept:.4f} a turn where the warm model is known, ${blind:.4f} where it is not")
    return kept, blind


if __name__ == "__main__":
    main()
