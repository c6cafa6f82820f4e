"""Do replicas keep to one budget? Real processes on one store, unequal traffic, every fifth answer at another worker.

Three arms whose calls cost 1, 4 and 10 (log-normal noise of 30 %) and earn the more the dearer they are; the budget is
a mean cost of a request. Prints what was spent of it by all together and by each worker, beside one Router that serves
all requests alone, and how many answers were learned at each worker and in all.

    python benchmarks/shared_budget.py [--requests 10000] [--workers 4] [--sync 0.1] [--budget 3.0] [--seeds 3]
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from pathlib import Path
from queue import Empty

import numpy as np

from banditroute import FileStore, LinUCB, Router
from banditroute.terms import BudgetPacer

ARMS, COSTS = ["small", "medium", "large"], np.array([1.0, 4.0, 10.0])
SKILL = np.array([[0.4, 0.2], [0.55, 0.3], [0.6, 0.35]])  # of a constant, and of what is known of the request
PER_S = 250.0  # requests a second of the busiest worker
PATIENCE_S = 60.0


def made(budget, seed):
    return Router(LinUCB(ARMS, 2, rng=seed), terms=[BudgetPacer(budget, COSTS)])


def request(rng):
    """A context, and what each arm would earn and cost."""
    x = np.array([1.0, rng.random()])
    return x, SKILL @ x, COSTS * np.exp(0.3 * rng.standard_normal(3) - 0.045)


def work(folder, at, requests, of_busiest, options, post, done):
    """Serve requests as one worker; every fifth answer goes by the next one's letter box."""
    rng, paid, answered = np.random.default_rng([options["seed"], at]), 0.0, 0
    with made(options["budget"], options["seed"] * 100 + at) as router:
        router.join(FileStore(folder), sync_s=options["sync"], share_decisions=True)

        def mine():
            nonlocal answered
            while True:
                try:
                    key, reward, cost = post[at].get_nowait()
                except Empty:
                    return
                answered += router.update(key, reward, cost=cost)

        began, step = time.monotonic(), of_busiest / PER_S / requests
        for i in range(requests):
            time.sleep(max(0.0, began + i * step - time.monotonic()))
            x, worth, costs = request(rng)
            decision = router.select(x)
            arm = ARMS.index(decision.arm)
            paid += costs[arm]
            answer = decision.id, float(worth[arm]), float(costs[arm])
            if i % 5:
                answered += router.update(answer[0], answer[1], cost=answer[2])
            else:
                post[(at + 1) % len(post)].put(answer)
            mine()
        done["ready"].wait()
        mine()
        end = time.monotonic() + PATIENCE_S  # letters and evidence arrive
        while time.monotonic() < end and (
            router.stats()["pending"] or router.policy.counts.sum() < options["total"]
        ):
            time.sleep(options["sync"])
        pacer = router.terms[0]
        found = {
            "requests": requests, "paid": paid, "answered": int(answered), "counts": router.policy.counts.tolist(),
            "booked": pacer.spent, "reserved": pacer.reserved, "pending": router.stats()["pending"],
        }  # fmt: skip
        done["found"].put(found)
        done["ready"].wait()


def together(requests, workers, options):
    """What each worker reports; traffic is halved from one to the next."""
    shares = 0.5 ** np.arange(workers)
    each = np.maximum((requests * shares / shares.sum()).astype(int), 1)
    each[0] += requests - each.sum()
    context = multiprocessing.get_context("spawn")
    post = [context.Queue() for _ in range(workers)]
    done = {"ready": context.Barrier(workers), "found": context.Queue()}
    with tempfile.TemporaryDirectory() as folder:
        all_ = [
            context.Process(target=work, args=(folder, at, int(n), int(each[0]), options, post, done))
            for at, n in enumerate(each)
        ]
        for one in all_:
            one.start()
        found = [done["found"].get(timeout=600.0) for _ in all_]
        for one in all_:
            one.join(60.0)
            if one.exitcode:
                raise RuntimeError(f"a worker ended with {one.exitcode}")
    return found


def alone(requests, options):
    """Mean cost and reward of one Router that serves all."""
    rng, router = np.random.default_rng([options["seed"], 99]), made(options["budget"], options["seed"])
    paid = 0.0
    for _ in range(requests):
        x, worth, costs = request(rng)
        decision = router.select(x)
        arm = ARMS.index(decision.arm)
        paid += costs[arm]
        router.update(decision.id, float(worth[arm]), cost=float(costs[arm]))
    return float(paid) / requests


def measured(requests, workers, **options):
    """One run: spend over budget of all, of each worker, and of one Router alone; and what was learned where."""
    found = together(requests, workers, {**options, "total": requests})
    budget = options["budget"]
    return {
        "seed": options["seed"],
        "all": float(sum(one["paid"] for one in found)) / requests / budget,
        "each": sorted(round(float(one["paid"]) / one["requests"] / budget, 4) for one in found),
        "alone": alone(requests, options) / budget,
        "answered": sum(one["answered"] for one in found),
        "learned_everywhere": [int(sum(one["counts"])) for one in found],
        "pending": sum(one["pending"] for one in found),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--sync", type=float, default=0.1)
    parser.add_argument("--budget", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for seed in range(given.seeds):
        row = measured(given.requests, given.workers, sync=given.sync, budget=given.budget, seed=seed)
        rows.append(row)
        print(
            f"seed {seed}: {row['all']:.4f} of the budget by {given.workers} workers, each {row['each']}; "
            f"{row['alone']:.4f} by one alone; {row['answered']} answers, learned by each in the end "
            f"{row['learned_everywhere']}, {row['pending']} pending",
            flush=True,
        )
    worst = max(abs(row["all"] - 1.0) for row in rows)
    print(f"furthest from the budget: {worst:.2%}; the bar is 2 %")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
