"""Residency control over real LoRA adapters: loads that really happen, waits that are measured.

Trains the model and the adapters of examples/real_lora where FOLDER has none, asks every adapter for the likelihood of
every prompt, runs the controllers over streams of those rewards, then serves live streams through peft. Writes
benchmarks/results/real_lora.json and docs/studies/real-lora-*.png; ``python benchmarks/report.py`` puts the tables into
docs/studies/real-lora.md.

    python benchmarks/study_lora.py                      # everything; see the page for how long
    python benchmarks/study_lora.py --live 0             # without the live runs
    python benchmarks/study_lora.py --folder out/lora    # where model and adapters are kept
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from recorded import data_file

from banditroute import LFU, LRU, Controller, LinUCB, Polar, Polaris, PolarPlus, Problem, Router, Static
from banditroute.simulation import MatrixEnvironment, Stream, best_static_set, interval, simulate

ROOT = Path(__file__).resolve().parents[1]
SLOTS, EPOCH = 4, 100
MS_TO_REWARD = (
    0.001,
    0.004,
    0.016,
)  # what a millisecond of waiting is worth; the second one in the live runs
LIVE_PRICE = 0.004
Floats = np.ndarray
Row = dict[str, Any]

# With the base model, which is always there and takes one more slot.
CONTROLLERS: dict[str, Callable[[Problem, int], Controller]] = {
    "Polaris": lambda p, seed: Polaris(p.capacity, pinned=["base"], rng=seed),
    "Polar": lambda p, seed: Polar(p.capacity, epoch=EPOCH, pinned=["base"], rng=seed),
    "PolarPlus": lambda p, seed: PolarPlus(p.capacity, pinned=["base"], rng=seed),
    "LRU": lambda p, seed: LRU(p.capacity, pinned=["base"]),
    "LFU": lambda p, seed: LFU(p.capacity, pinned=["base"]),
    "best fixed set": lambda p, seed: Static(_best(p), capacity=p.capacity),
    "no cache": lambda p, seed: Static(["base"]),
}


def _best(problem: Problem) -> tuple[int, ...]:
    own = best_static_set(
        problem.stream, SLOTS, problem.faults
    )  # the base model costs no fault, so it is not in it
    return tuple({*own, problem.stream.arms.index("base")})


def rows_of(data: dict[str, Floats], requests: int, seed: int) -> Floats:
    """Draw prompts: popularity of the domains is Zipf, and is dealt anew half-way."""
    numbers = np.arange(len(data["domain"]), dtype=float)[:, None]
    drawn = MatrixEnvironment(numbers, data["rewards"], groups=data["domain"], order="drift", zipf=1.0)
    return drawn.stream(requests, seed).contexts[:, 0].astype(int)


def problem_of(data: dict[str, Floats], rows: Floats, load_ms: float, worth: float) -> Problem:
    """Return the requests of these prompts, with what a load costs; the base model costs nothing."""
    arms = tuple(data["arms"].tolist())
    rewards = np.ascontiguousarray(data["rewards"][rows], dtype=float)
    stream = Stream(np.ascontiguousarray(data["contexts"][rows], dtype=float), rewards, rewards, arms)
    price = np.array([0.0 if arm == "base" else worth * load_ms for arm in arms])
    return Problem(stream, price, price, SLOTS + 1)


def replayed(
    data: dict[str, Floats], requests: int, seeds: Sequence[int], load_ms: float, worth: float
) -> list[Row]:
    """Run every controller over the same streams, whose rewards are known."""
    found = []
    for seed in seeds:
        problem = problem_of(data, rows_of(data, requests, seed), load_ms, worth)
        base = problem.stream.arms.index("base")
        for name, make in CONTROLLERS.items():
            policy = LinUCB(problem.stream.arms, problem.stream.dim, rng=seed)
            run = simulate(policy, problem, make(problem, seed))
            # Every miss is a load, whether the adapter stays or not; plans load beside.
            loads = int((~run.hits).sum()) + round(sum(price for _, price in run.loads) / problem.loads.max())
            reward = problem.stream.rewards[np.arange(requests), run.arms]
            found.append({
                "controller": name, "seed": seed, "worth": worth, "reward": float(reward.mean()),
                "hits": float(run.hits.mean()), "loads": loads, "base": float((run.arms == base).mean()),
                "net": float(reward.mean() - worth * load_ms * loads / requests),
                "curve": reward[: requests // 40 * 40].reshape(40, -1).mean(axis=1).tolist(),
            })  # fmt: skip
    return found


def measured(folder: Path, each: int) -> dict[str, Floats]:
    """Ask every adapter, and the base model, for the likelihood of every prompt."""
    from serve import backend_of, likelihood, prompts_of, reward

    prompts, contexts, domains = prompts_of(folder, each)
    backend, columns = backend_of(folder, clock=time.process_time), {}
    for name in (*backend.paths, "base"):
        with backend.borrow(name) as borrowed:
            parts = [likelihood(borrowed.model, prompts[i : i + 40]) for i in range(0, len(prompts), 40)]
        columns[name] = np.concatenate(parts)
    found = np.column_stack([*columns.values()])
    load_ms = float(np.median([ms for own in backend.loads_ms().values() for ms in own]))
    return {
        "contexts": contexts, "domain": domains, "arms": np.array([*columns]), "load_ms": np.array(load_ms),
        "likelihood": found, "rewards": reward(found, found[:, [-1]]),
    }  # fmt: skip


def live(folder: Path, data: dict[str, Floats], requests: int, seed: int, each: int) -> list[Row]:
    """Serve one stream with every controller: each request loads what it needs, and waits for it.

    The router has learned from 4,000 requests of another stream before: what is compared is residency.
    """
    from serve import backend_of, likelihood, prompts_of, reward

    prompts, rows, load_ms = (
        prompts_of(folder, each)[0],
        rows_of(data, requests, seed),
        float(data["load_ms"]),
    )
    problem = problem_of(data, rows, load_ms, LIVE_PRICE)
    before = problem_of(data, rows_of(data, 4000, seed + 1000), load_ms, LIVE_PRICE)
    found = []
    for name, make in CONTROLLERS.items():
        backend = backend_of(folder, clock=time.process_time, remembered=1 << 20)
        policy = LinUCB(problem.stream.arms, problem.stream.dim, rng=seed)
        simulate(policy, before.stream)
        router = Router(policy, make(problem, seed), problem.faults, loads=problem.loads, backend=backend)
        own: dict[str, list[float]] = {"waits": [], "walls": [], "rewards": [], "hits": []}
        with router:
            router.maintain()
            loaded = loads_of(backend)
            for t, row in enumerate(rows):
                begun, wall = time.process_time(), time.perf_counter()
                decision = router.select(problem.stream.contexts[t])
                with backend.borrow(decision.arm) as borrowed:
                    own["waits"].append(time.process_time() - begun)
                    own["walls"].append(time.perf_counter() - wall)
                    said = likelihood(borrowed.model, prompts[[row]])
                own["rewards"].append(float(reward(said, data["likelihood"][row, -1])[0]))
                own["hits"].append(decision.hit)
                expected = problem.stream.rewards[t, problem.stream.arms.index(decision.arm)]
                if abs(own["rewards"][-1] - expected) > 1e-3:
                    raise AssertionError(f"{decision.arm} was in force and answered as another one does")
                router.update(decision.id, own["rewards"][-1])
            loads, failures = loads_of(backend) - loaded, router.stats()["load_failures"]
        if failures:
            raise AssertionError(f"{failures} loads failed under {name}")
        net = np.mean(own["rewards"]) - LIVE_PRICE * 1e3 * np.mean(own["waits"])
        found.append({
            "controller": name, "seed": seed, "reward": float(np.mean(own["rewards"])), "net": float(net),
            "hits": float(np.mean(own["hits"])), "loads": loads, "waits": own["waits"], "walls": own["walls"],
        })  # fmt: skip
        print(f"live, seed {seed}, {name}: {time.process_time():.0f} s of CPU", flush=True)
    return found


def loads_of(backend: Any) -> int:
    """Return how many loads there were."""
    return sum(map(len, backend.loads_ms().values()))


def shown(values: Sequence[float], form: str = ".3f") -> str:
    """Return a mean and its 95 % interval."""
    mean, low, high = interval(values)
    return f"{mean:{form}}" if not np.isfinite(high) else f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def of(rows: Sequence[Row], name: str, key: str) -> list[float]:
    """Return a figure of a controller, seed by seed."""
    return [row[key] for row in sorted(rows, key=lambda row: row["seed"]) if row["controller"] == name]


def replay_table(rows: Sequence[Row], requests: int, note: str) -> Row:
    """Return the table of one price."""
    lines = []
    for name in CONTROLLERS:
        less = np.subtract(of(rows, name, "net"), of(rows, "LRU", "net"))
        lines.append([
            name, shown(of(rows, name, "reward")), f"{np.mean(of(rows, name, 'hits')):.0%}",
            f"{1000 * np.mean(of(rows, name, 'loads')) / requests:.0f}", f"{np.mean(of(rows, name, 'base')):.0%}",
            shown(of(rows, name, "net")), "" if name == "LRU" else shown(less, "+.3f"),
        ])  # fmt: skip
    columns = ["controller", "reward", "hits", "loads per 1,000", "base model", "net", "net less LRU's"]
    return {"columns": columns, "rows": lines, "note": note}


def price_table(by_price: dict[float, list[Row]]) -> Row:
    """Return what every controller earns above LRU, for each price of a millisecond."""
    lines = [
        [
            name,
            *(
                shown(np.subtract(of(rows, name, "net"), of(rows, "LRU", "net")), "+.3f")
                for rows in by_price.values()
            ),
        ]
        for name in CONTROLLERS
        if name != "LRU"
    ]
    lines.append(["net of LRU", *(shown(of(rows, "LRU", "net")) for rows in by_price.values())])
    return {
        "columns": ["net less LRU's", *(f"{1000 * worth:g} a second" for worth in by_price)],
        "rows": lines,
    }


def live_table(rows: Sequence[Row], note: str) -> Row:
    """Return what was measured while serving."""
    lines = []
    for name in CONTROLLERS:
        waits = 1e3 * np.concatenate([row["waits"] for row in rows if row["controller"] == name])
        walls = 1e3 * np.concatenate([row["walls"] for row in rows if row["controller"] == name])
        lines.append([
            name, shown(of(rows, name, "reward")), f"{np.mean(of(rows, name, 'hits')):.0%}",
            f"{np.mean(of(rows, name, 'loads')):.0f}", f"{waits.mean():.1f}", f"{np.quantile(waits, 0.95):.0f}",
            f"{np.quantile(waits, 0.99):.0f}", f"{walls.mean():.1f}", shown(of(rows, name, "net")),
        ])  # fmt: skip
    waited = ["mean wait, ms", "p95", "p99", "mean by the wall clock"]
    return {"columns": ["controller", "reward", "hits", "loads", *waited, "net"], "rows": lines, "note": note}


def draw(
    data: dict[str, Floats], by_price: dict[float, list[Row]], lived: Sequence[Row], folder: Path
) -> None:
    """Draw who serves what well, what was earned over time and by price, and how long requests waited."""
    from banditroute.plots import COLOURS, page

    domains = np.unique(data["domain"])
    arms = data["arms"].tolist()
    mean = np.array([data["rewards"][data["domain"] == d].mean(axis=0) for d in domains])
    order = sorted(range(len(arms)), key=lambda k: (arms[k] not in domains, arms[k] == "base", arms[k]))
    with page(1, 1, path=folder / "real-lora-quality.png", width=6.4, height=4.6) as (axes,):
        shade = axes.imshow(mean[:, order], vmin=0.0, vmax=1.0, cmap="viridis")
        axes.set_xticks(range(len(arms)), [arms[k] for k in order], rotation=90)
        axes.set_yticks(range(len(domains)), domains)
        axes.set_title("reward of each adapter (columns) on each domain")
        axes.grid(False)
        axes.figure.colorbar(shade, ax=axes)
    with page(1, 2, path=folder / "real-lora-net.png", width=11.0, height=3.8) as (left, right):
        for colour, name in zip(COLOURS, CONTROLLERS, strict=False):
            rows = [row for row in by_price[LIVE_PRICE] if row["controller"] == name]
            curve = np.mean([row["curve"] for row in rows], axis=0)
            left.plot(np.linspace(0.0, 1.0, len(curve)), curve, color=colour, label=name)
            nets = [interval(np.subtract(of(r, name, "net"), of(r, "LRU", "net"))) for r in by_price.values()]
            middle, low, high = np.array(nets).T
            right.errorbar(
                [1000 * w for w in by_price], middle, [middle - low, high - middle], color=colour, capsize=2
            )
        left.set_xlabel("share of the stream; popularity changes half-way")
        left.set_ylabel("reward of a request")
        left.legend(fontsize=7)
        right.set_xscale("log")
        right.set_xlabel("reward that a second of waiting costs")
        right.set_ylabel("net reward less LRU's, 95 %")
    if lived:
        with page(1, 1, path=folder / "real-lora-waits.png", width=6.4, height=3.8) as (axes,):
            for colour, name in zip(COLOURS, CONTROLLERS, strict=False):
                waits = np.sort(
                    np.concatenate([1e3 * np.array(r["waits"]) for r in lived if r["controller"] == name])
                )
                axes.plot(waits, 1.0 - np.arange(len(waits)) / len(waits), color=colour, label=name)
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_xlabel("wait for memory, ms of CPU")
            axes.set_ylabel("share of requests that waited longer")
            axes.legend(fontsize=7)


def prepared(requests: int, seeds: Sequence[int], load_ms: float) -> Row | None:
    """Return the table of the stream prepared earlier; None, and a line that says so, where it is not there."""
    try:
        path = data_file("reallora16.npz")
    except FileNotFoundError as error:
        print(f"the prepared stream is left out: {error}")
        return None
    with np.load(path, allow_pickle=False) as file:
        gain = np.column_stack([file["gain"], np.zeros(len(file["gain"]))])
        data = {
            "contexts": file["contexts"], "domain": file["domain"], "arms": np.array([*file["arms"], "base"]),
            "rewards": np.clip(0.5 + gain / 0.6, 0.0, 1.0),
        }  # fmt: skip
    rows = replayed(data, requests, seeds, load_ms, LIVE_PRICE)
    return replay_table(rows, requests, "")


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "out" / "lora", help="model, adapters, held-out texts"
    )
    parser.add_argument(
        "--seeds", type=int, default=10, help="streams of known rewards (default: %(default)s)"
    )
    parser.add_argument("--requests", type=int, default=8000, help="of each of them (default: %(default)s)")
    parser.add_argument(
        "--live", type=int, default=3, help="live runs of each controller (default: %(default)s)"
    )
    parser.add_argument(
        "--live-requests", type=int, default=600, help="of each of them (default: %(default)s)"
    )
    parser.add_argument("--prompts", type=int, default=40, help="of each domain (default: %(default)s)")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "examples" / "real_lora"))
    if not (args.folder / "held_out").is_dir():  # written last
        import train

        train.main(args.folder)
    data = measured(args.folder, args.prompts)
    load_ms = float(data["load_ms"])
    print(
        f"{len(data['domain'])} prompts; a load takes {load_ms:.1f} ms; {time.process_time():.0f} s of CPU",
        flush=True,
    )
    seeds = range(100, 100 + args.seeds)
    by_price = {worth: replayed(data, args.requests, seeds, load_ms, worth) for worth in MS_TO_REWARD}
    print(f"known rewards: {time.process_time():.0f} s of CPU", flush=True)
    lived = [
        row
        for k in range(args.live)
        for row in live(args.folder, data, args.live_requests, 200 + k, args.prompts)
    ]
    path = ROOT / "benchmarks" / "results" / "real_lora.json"
    each = f"{args.seeds} streams of {args.requests:,} requests, 95 % intervals."
    # What is left out this time stays as it was.
    tables = json.loads(path.read_text(encoding="utf-8"))["tables"] if path.exists() else {}
    tables |= {
        "lora-replay": replay_table(
            by_price[LIVE_PRICE], args.requests, f"{each} A load takes {load_ms:.0f} ms."
        ),
        "lora-prices": price_table(by_price),
    }
    if lived:
        note = f"{args.live} runs of {args.live_requests:,} requests each; waits in CPU time of the process."
        tables["lora-live"] = live_table(lived, note)
    if (table := prepared(args.requests, seeds, load_ms)) is not None:
        tables["lora-prepared"] = table
    draw(data, by_price, lived, ROOT / "docs" / "studies")
    mean = {str(d): data["rewards"][data["domain"] == d].mean(axis=0) for d in np.unique(data["domain"])}
    result = {
        "tables": tables,
        "cpu_s": round(time.process_time()),
        "load_ms": load_ms,
        "prompts": len(data["domain"]),
        "domains": len(mean),
        "best served by their own": int(sum(data["arms"][row.argmax()] == d for d, row in mean.items())),
        "own": float(np.mean([row[data["arms"] == d] for d, row in mean.items()])),
        "oracle": float(data["rewards"].max(axis=1).mean()),
    }
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{path}: {time.process_time():.0f} s of CPU in all")


if __name__ == "__main__":
    main()
