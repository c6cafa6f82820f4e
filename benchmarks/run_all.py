"""Run what the documents quote, step by step, after saying what will be run and how long that takes.

    python benchmarks/run_all.py [--only NAME ...] [--plan]

A step that fails does not end the others; the exit status tells. out/bench-minutes.json keeps how long each took; where
a step has not run here yet, the plan says what it took elsewhere.
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
        ["-m", "pytest", "-q", "benchmarks", "--benchmark-enable", "--benchmark-only",
         "--benchmark-json=out/bench.json", "-o", "python_files=test_bench_*.py"],
    ),
    ("growth", "growth with arms, dimension, requests, alpha, pending",
     ["benchmarks/growth.py", "--json", "benchmarks/results/growth.json"]),
    ("tail", "p99.9 of select beside plans in the background", ["benchmarks/tail.py"]),
    ("holds", "how long the lock is held", ["benchmarks/holds.py"]),
    ("pages", "tables of the documents", ["benchmarks/report.py"]),
)  # fmt: skip


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
        last = f"{took[name]:5.1f} min the last time" if name in took else "not run here so far"
        print(f"{name:11s} {tells:55s} {last}")
    print(
        f"in all {sum(took.get(name, 0.0) for name, *_ in steps):.0f} min, of what was run before", flush=True
    )
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
