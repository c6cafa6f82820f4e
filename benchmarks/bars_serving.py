"""What a serving loop may rely on, measured: prints the figure of each bar.

``python benchmarks/bars_serving.py [threads] [kill] [schedules] [redis] [mutations] [fuzz] [--scale 0.1]``
Without names all of them run, in about half an hour on two cores; `--scale` shrinks every count.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import logging

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

import schedules
import test_faults
import test_journal
import test_redis
import test_threads
from banditroute import FileStore, LinUCB, Router, SnapshotError
from banditroute.durability.redis_store import RedisStore
from servers import redis_server


def fast_directory():
    """A directory in memory where there is one: schedules are about order, not about disks."""
    return tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)


def threads(scale):
    pairs = int(250_000 * scale)
    policy = LinUCB(4, 5, ridge=1.0, alpha=0.5, prior=None, mix=0.2, rng=0)
    router, log = Router(policy), []
    started = time.perf_counter()
    test_threads.hammered(router, 8, pairs, 5, log=log)
    taken = time.perf_counter() - started
    stats, alone = router.stats(), test_threads.replayed(log, 4, 5)
    assert stats["decisions"] == stats["learned"] == 8 * pairs
    worst = max(np.abs(policy.cov(a) - alone.cov(a)).max() / np.abs(alone.cov(a)).max() for a in range(4))
    exact = all(np.array_equal(policy.precision(a), alone.precision(a)) for a in range(4))
    assert np.array_equal(policy.counts, alone.counts) and exact and worst < 1e-9
    return (
        f"8 threads, {8 * pairs:,} pairs in {taken:.0f} s: counts and sums exact, inverse within {worst:.1e}"
    )


def kill(scale):
    rounds = max(1, int(200 * scale))
    with fast_directory() as home:
        place = Path(home)
        learned = test_journal.killed(place / "home", place / "board", rounds, np.random.default_rng(1))
    return f"kill -9 at {rounds} moments: all recovered, {learned:,} rewards in the end, each counted once"


def schedule(scale):
    lines = []
    count = max(1, int(1000 * scale))
    logging.disable(logging.CRITICAL)
    with fast_directory() as home, redis_server() as url:
        for name, store in (("files", FileStore(home)), ("redis", RedisStore(url))):
            totals = {}
            for seed in range(count):
                for kind, n in schedules.run_schedule(store, seed).items():
                    totals[kind] = totals.get(kind, 0) + n
            told = ", ".join(f"{n:,} {kind}" for kind, n in sorted(totals.items()))
            lines.append(f"{count:,} fault schedules on {name}: all exact ({told})")
    return "\n".join(lines)


def redis(scale):
    count = int(50_000 * scale)
    with redis_server() as url:
        started = time.perf_counter()
        learned, counted, _ = test_redis.crowd(url, "bar", 4, count)
    assert learned == counted == 4 * count, (learned, counted)
    return f"4 workers x {count:,} decisions over Redis in {time.perf_counter() - started:.0f} s: n exact"


def mutations(scale):
    count = int(5_000 * scale)
    rng, outcomes = np.random.default_rng(2), {}
    with fast_directory() as home:
        place = Path(home)
        router = test_journal.made("polar")
        router.recover(place / "good", flush_s=60.0)
        test_journal.serve(router, 40, 1)
        router._lasting.journal.flush()
        state, log = place / "state", sorted((place / "good").glob("journal-*"))[-1]
        router.save(state)
        originals = {"snapshot": state.read_bytes(), "journal": log.read_bytes()}
        whole = test_journal.compared(router)
        from banditroute.durability.journal import records

        told = [repr(r) for _, r in records(log)]
        for kind, data in originals.items():
            for _ in range(count):
                path = place / "mutant"
                path.write_bytes(mutated(data, rng))
                if kind == "snapshot":
                    target = outcome_router
                    try:
                        target.load(path, limit_bytes=1 << 24)
                        outcome = "loaded" if test_journal.compared(target) == whole else "WRONG"
                    except SnapshotError:
                        outcome = "refused"
                else:
                    try:
                        found = [repr(r) for _, r in records(path)]
                        outcome = "prefix" if found == told[: len(found)] else "WRONG"
                    except SnapshotError:
                        outcome = "refused"
                outcomes[kind, outcome] = outcomes.get((kind, outcome), 0) + 1
        router.close()
    assert not any(o == "WRONG" for _, o in outcomes), outcomes
    told = ", ".join(f"{n:,} {k} {o}" for (k, o), n in sorted(outcomes.items()))
    return f"{2 * count:,} mutated files: {told}"


outcome_router = test_journal.made("polar")


def mutated(data, rng):
    """Flip, cut, repeat, zero or insert, anywhere."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at, n = int(rng.integers(len(data) + 1)), int(rng.integers(1, 64))
        kind = rng.integers(5)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = data[at : at + n]
        elif kind == 3:
            data[at : at + n] = bytes(len(data[at : at + n]))
        else:
            data[at:at] = rng.bytes(n)
    return bytes(data)


def fuzz(scale):
    calls = int(100_000 * scale)
    options = settings(max_examples=calls // 50, stateful_step_count=50, deadline=None, database=None)
    run_state_machine_as_test(test_faults.Books, settings=options)
    return f"about {calls:,} fuzzed calls: every invariant held after each"


BARS = {
    "threads": threads,
    "kill": kill,
    "schedules": schedule,
    "redis": redis,
    "mutations": mutations,
    "fuzz": fuzz,
}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bars", nargs="*", metavar="bar", help=", ".join(BARS))
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    for name in options.bars or BARS:
        print(BARS[name](options.scale), flush=True)


if __name__ == "__main__":
    main()
