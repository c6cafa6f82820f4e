"""Run what the documents quote, step by step, after saying what will be run and how long that takes.

    python benchmarks/run_all.py [--only NAME ...] [--plan]

A step that fails does not end the others; the exit status tells. out/bench-minutes.json keeps how long each took; where
a step has not run here yet, the plan reckons.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MINUTES = ROOT / "out" / "bench-minutes.json"
# Name, what it tells, command after `python`.
STEPS = (
    ("demo", "the demonstration's table", ["benchmarks/demo_page.py"]),
    ("peers", "time and regret beside other libraries", ["benchmarks/run_peers.py"]),
    ("agreement", "values beside obp and Vowpal Wabbit", ["benchmarks/agreement.py"]),
    ("first steps", "minutes from the README to a result", ["benchmarks/first_steps.py"]),
    ("engine", "kernels, memory, import", ["benchmarks/bars_engine.py"]),
    (
        "calls",
        "single calls",
        ["-m", "pytest", "-q", "--benchmark-enable", "--benchmark-only", "--benchmark-json=out/bench.json",
         *(f"benchmarks/test_bench_{name}.py" for name in ("graph", "linear", "objective"))],
    ),
    ("growth", "growth with arms, dimension, requests, alpha, pending",
     ["benchmarks/growth.py", "--json", "benchmarks/results/growth.json"]),
    ("tail", "p99.9 of select beside plans in the background", ["benchmarks/tail.py"]),
    ("holds", "how long the lock is held", ["benchmarks/holds.py"]),
    ("pauses", "the longest calls, worst and p99.9 against the shape",
     ["benchmarks/pauses.py", "--runs", "1", "--json", "out/pauses.json", "--picture", "out/tails.png"]),
    ("lag", "an event loop beside a router", ["benchmarks/lag.py", "--seconds", "5"]),
    ("pages", "tables of the documents", ["benchmarks/report.py"]),
)  # fmt: skip
# Minutes to reckon with on two free cores until a step has run here; those of the peers are as their results tell.
USUAL = {
    "demo": 1.0, "peers": 15.1, "agreement": 2.0, "first steps": 1.0, "engine": 2.0, "calls": 0.5, "growth": 0.3,
    "tail": 0.5, "holds": 0.5, "pauses": 2.5, "lag": 1.2, "pages": 0.1,
}  # fmt: skip


def main() -> int:
    """Print the plan, run it, and tell what failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[name for name, *_ in STEPS])
    parser.add_argument("--plan", action="store_true", help="print the plan alone")
    given = parser.parse_args()
    MINUTES.parent.mkdir(exist_ok=True)
    took = json.loads(MINUTES.read_text(encoding="utf-8")) if MINUTES.exists() else {}
    steps = [step for step in STEPS if given.only is None or step[0] in given.only]
    for name, tells, _ in steps:
        where = "the last time" if name in took else "reckoned; not run here so far"
        print(f"{name:11s} {tells:55s} {took.get(name, USUAL[name]):5.1f} min {where}")
    print(f"in all about {sum(took.get(name, USUAL[name]) for name, *_ in steps):.0f} min", flush=True)
    failed = []
    for name, _, command in [] if given.plan else steps:
        print(f"\n== {name}", flush=True)
        start = time.monotonic()
        if subprocess.run([sys.executable, *command], cwd=ROOT, check=False).returncode:
            failed.append(name)
        else:
            took[name] = (time.monotonic() - start) / 60
            MINUTES.write_text(json.dumps(took, indent=1) + "\n", encoding="utf-8")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
