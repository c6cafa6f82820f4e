"""Kills and faults of the disk by the hundred, and ten thousand mutations of each persistent format.

``python benchmarks/soak_faults.py --runs 200 --mutations 10000``

Each run is a process that keeps a journal, on a disk that takes half of what is written, refuses writes, syncs, renames
and removals, singly and all at once, until SIGKILL at a random moment. The next run recovers: nothing whose `flush` had
returned may be missing, and the state must be that of the same events in the same order, arm by arm. Exits 1 otherwise.
"""

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from banditroute.durability import journal
from banditroute.durability import journal_records as form
from faults import harness, mutations
from faults.host import MemoryHost


def place():
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def kills(runs, seed):
    """Lost and wrong states over so many kills."""
    if harness.compiler() is None or not sys.platform.startswith("linux"):
        print("faults are skipped: no C compiler, or no LD_PRELOAD")
        return True
    draw, began = Random(seed), time.monotonic()
    kinds = [0, *harness.KINDS.values(), sum(harness.KINDS.values())]
    with tempfile.TemporaryDirectory(dir=place()) as folder:
        killing = harness.Killing(folder, harness.built(folder))
        try:
            for _ in range(runs):
                faults = draw.choice([draw.choice(kinds), draw.getrandbits(7)])
                limit = draw.choice([4000, 1 << 26])
                killing.run(draw, faults, draw.choice([20, 200, 700]), limit=limit)
            killing.run(draw, 0, 0)
        finally:
            killing.close()
    print(
        f"{killing.runs} runs ended by SIGKILL, {killing.injected:,} faults injected, {killing.twin.count:,} events, "
        f"{killing.checkpoints:,} checkpoints, {killing.dropped:,} records dropped and counted: "
        f"{killing.lost} lost after flush, {killing.wrong} states wrong ({time.monotonic() - began:.0f} s)"
    )
    return not killing.lost and not killing.wrong


def made(home):
    """A directory of three generations and an open journal."""
    host = MemoryHost()
    host.listener, _ = journal.recover(host, home, checkpoint_s=1e6, flush_s=1e6)
    for _ in range(4):
        host.listener.checkpoint()
        for _ in range(40):
            host.step()
    host.listener.flush()
    host.listener.abandon()


def mutate(count, seed):
    """Every format so often; an assertion or another exception than the documented one ends it."""
    draw = Random(seed)
    with tempfile.TemporaryDirectory(dir=place()) as folder:
        home, scratch = Path(folder) / "home", Path(folder) / "scratch"
        made(home)
        newest = {kind: sorted(home.glob(f"{kind}-*"))[-1] for kind in ("snapshot", "journal")}
        with newest["journal"].open("rb") as file:
            payloads = [form.packed(event) for _, event in form.events(file, form.opening(file))]
        data = {kind: path.read_bytes() for kind, path in newest.items()}

        def directory():
            shutil.copytree(home, scratch / "home")
            try:
                return mutations.directory_survives(scratch / "home", MemoryHost, draw)
            finally:
                shutil.rmtree(scratch / "home")

        scratch.mkdir()
        tries = {
            "snapshot": lambda: mutations.snapshot_survives(data["snapshot"], draw),
            "journal": lambda: mutations.journal_survives(scratch / "journal", data["journal"], draw),
            "record": lambda: mutations.records_survive(draw.choice(payloads), draw),
            "directory": directory,
            "router": mutations.RouterUnderMutation(scratch).one,
            "metrics": mutations.MetricsUnderMutation(scratch).one,
        }
        for name, one in tries.items():
            began = time.monotonic()
            seen = Counter(one(draw) if name in ("router", "metrics") else one() for _ in range(count))
            told = ", ".join(f"{kind} {number:,}" for kind, number in sorted(seen.items()))
            print(f"{count:,} mutations of a {name}: {told} ({time.monotonic() - began:.0f} s)", flush=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("banditroute").setLevel(logging.CRITICAL)
    good = kills(options.runs, options.seed)
    mutate(options.mutations, options.seed)
    sys.exit(not good)


if __name__ == "__main__":
    main()
