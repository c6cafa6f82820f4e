"""What contexts earn that go through `banditroute.features`, against contexts that are well scaled already.

Prints markdown tables. Mean reward in the second half of the requests of `LinUCB` with its defaults, a constant beside
the features, requests drawn with replacement from the half that the features were not fitted to, paired over seeds
with half of a 95 % t interval.

1. ``--data DIR``: 64 components of a sentence embedding, of norm 1, against the same hidden in 384 coordinates by a
   fixed random rotation, at several scales, and taken through `Embedding`.
2. ``--texts DIR``: the prompts of ParetoBandit's wheel (``pareto_bandit/data/examples``, unpacked) through
   `HashedText`, against the best single model and components of MiniLM (``pareto4.npz`` in ``--data``).

    python benchmarks/features.py --data DIR --seeds 8
    python benchmarks/features.py --data DIR --texts WHEEL --seeds 20
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from banditroute import LinUCB
from banditroute.features import Embedding, HashedText

Floats = np.ndarray
SCALES = (0.1, 0.3, 1.0, 3.0, 10.0)
FITTED = 2000  # requests in the sample at most


def recorded(path: Path) -> tuple[Floats, Floats, Floats]:
    """Return 64 components, rewards, and which of two halves each row is in."""
    with np.load(path) as file:
        key = "wordllama_pca64" if "wordllama_pca64" in file else "minilm_pca64"
        parts = file[key].astype(np.float64)
        rewards = file["rewards"].astype(np.float64) if "rewards" in file else file["scores"] / 255.0
    return parts, rewards, np.random.default_rng(0).permutation(len(parts)) % 2


def hidden(parts: Floats, columns: int = 384) -> Floats:
    """Return the components in more coordinates, turned by a fixed random rotation."""
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((columns, columns)))[0]
    return parts @ rotation[: parts.shape[1]]


def normed(rows: Floats) -> Floats:
    """Rows of norm 1."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def earned(contexts: Floats, rewards: Floats, rows: Floats, seed: int) -> float:
    """Mean reward in the second half."""
    x = np.column_stack([contexts[rows], np.ones(len(rows))])
    policy = LinUCB(rewards.shape[1], x.shape[1], rng=seed)
    got = np.empty(len(rows))
    for t, (row, context) in enumerate(zip(rows, x, strict=True)):
        arm = policy.select(context).arm
        policy.update(int(arm), context, rewards[row, arm])
        got[t] = rewards[row, arm]
    return float(got[len(got) // 2 :].mean())


def paired(values: list[float], others: list[float]) -> str:
    """Mean difference and half of its 95 % t interval."""
    apart = np.array(values) - np.array(others)
    half = student.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
    return f"{apart.mean():+.4f} ± {half:.4f}"


def compare(
    makers: dict[str, Callable[[], Floats]], rewards: Floats, half: Floats, seeds: int, requests: int
) -> dict[str, list[float]]:
    """Return the earnings of several contexts on the same requests, one number a seed; and of the best single model."""
    pool = np.flatnonzero(half == 1)
    best = rewards[half == 0].mean(axis=0).argmax()
    drawn = [np.random.default_rng(seed).choice(pool, requests) for seed in range(seeds)]
    found = {"best single model": [float(rewards[rows[requests // 2 :], best].mean()) for rows in drawn]}
    for name, make in makers.items():
        contexts = make()
        found[name] = [earned(contexts, rewards, rows, seed) for seed, rows in enumerate(drawn)]
    return found


def rotation_makers(parts: Floats, half: Floats, scales: tuple[float, ...] = SCALES) -> dict:
    """Return the well-scaled contexts and those that went through `Embedding`."""
    sample = np.flatnonzero(half == 0)[:FITTED]

    def through(scale: float, **options: object) -> Callable[[], Floats]:
        rows = scale * hidden(parts)
        return lambda: Embedding(**{"components": 64, **options}).fit(rows[sample]).batch(rows)

    makers = {"64 components, norm 1": lambda: normed(parts)}
    makers |= {f"hidden in 384, x {scale:g}": through(scale) for scale in scales}
    return makers | {"hidden, 16 components": through(1.0, components=16)}


def texts_and_rewards(folder: Path, data: Path) -> tuple[list[str], Floats, Floats, Floats]:
    """Return prompts, rewards of four models, MiniLM components and halves; rows are matched by what calls did cost."""
    with np.load(data / "pareto4.npz") as file:
        models = [str(name) for name in file["models"][:2]]
        costs, rewards = file["cost_usd"][:, :2].astype(float), file["rewards"].astype(float)
        parts, half, lengths = file["minilm_pca64"].astype(float), file["split"], file["n_chars"]
    prompts: dict[tuple, list[str]] = {}
    for path in ("val.jsonl", "test_holdout.jsonl"):
        for line in (folder / path).read_text(encoding="utf-8").rstrip("\n").split("\n"):
            row = json.loads(line)
            key = tuple(round(row["arms"][model]["cost"], 8) for model in models)
            prompts.setdefault(key, []).append(row["prompt"])
    found, kept = [], []
    for i, cost in enumerate(costs):
        same = [p for p in prompts.get(tuple(np.round(cost, 8)), []) if len(p) == lengths[i]]
        if same:
            found.append(same[0])
            kept.append(i)
    return found, rewards[kept], parts[kept], half[kept]


def show(title: str, found: dict[str, list[float]], against: str) -> None:
    print(f"\n{title}\n\n| contexts | reward | against {against} |\n| :-- | --: | --: |")
    for name, values in found.items():
        apart = "" if name == against else paired(values, found[against])
        print(f"| {name} | {np.mean(values):.4f} | {apart} |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--texts", type=Path)
    options.add_argument("--seeds", type=int, default=8)
    options.add_argument("--requests", type=int, default=12_000)
    options.add_argument("--only", nargs="+", default=["pareto4", "llmrouter9", "mmlupro28"])
    given = options.parse_args()
    if given.texts is not None:
        texts, rewards, parts, half = texts_and_rewards(given.texts, given.data)
        makers = {f"MiniLM, {n} components": lambda n=n: normed(parts[:, :n]) for n in (8, 16, 64)}
        makers |= {f"HashedText({n})": lambda n=n: HashedText(n).batch(texts) for n in (16, 32, 64)}
        found = compare(makers, rewards, half, given.seeds, given.requests)
        show(f"{len(texts)} prompts, 4 models", found, "best single model")
        return
    for name in given.only:
        parts, rewards, half = recorded(given.data / f"{name}.npz")
        found = compare(rotation_makers(parts, half), rewards, half, given.seeds, given.requests)
        show(name, found, "64 components, norm 1")


if __name__ == "__main__":
    main()
