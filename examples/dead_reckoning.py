"""Batches that see their own queues: between two reports of the servers the router counts what it has sent itself."""

import numpy as np

from banditroute import LinUCB, Router
from banditroute.terms import Queues

SERVICE_S = np.array([0.5, 0.8, 1.0])  # seconds a request takes on each replica


def waited(arms: list[int]) -> float:
    """Mean wait of a batch whose requests queue up behind each other."""
    return float(np.mean([arms[: i + 1].count(arm) * SERVICE_S[arm] for i, arm in enumerate(arms)]))


def main() -> tuple[float, float]:
    """Serve 200 batches of 16; returns the mean wait with and without counting in between."""
    rng, waits = np.random.default_rng(0), []
    for counting in (True, False):
        queues, names = Queues(SERVICE_S, per_second=0.1), ["a", "b", "c"]
        router, seen = Router(LinUCB(names, 1, rng=0), terms=[queues] if counting else []), []
        for _ in range(200):
            prices = None if counting else queues.prices()  # as of the last report, for the whole batch
            batch = [router.select([1.0], prices=prices) for _ in range(16)]
            seen.append(waited([names.index(one.arm) for one in batch]))
            for one in batch:  # all is answered before the next batch
                router.update(one.id, 0.7 + 0.1 * rng.standard_normal(), seconds=seen[-1])
        waits.append(float(np.mean(seen)))
    print(f"mean wait: {waits[0]:.2f} s counting what was sent, {waits[1]:.2f} s between reports")
    return waits[0], waits[1]


if __name__ == "__main__":
    main()
