"""What the automatic alpha and ridge of `LinUCB` cost against hand-tuned ones: one default, problems of every noise.

Prints two markdown tables. Recorded: mean reward in the second half of 12,000 requests drawn with replacement, over 32
MiniLM components and a constant. Synthetic: regret of isotropic linear arms (T = 5,000) and of adapters with homes
(T = 16,384) at several noise levels. The default sees no noise level and no data set; the others are the best of a
grid on the very same runs, which favours them. The last column is the paired difference of the default to that best,
with half of a 95 % t interval.

    python benchmarks/defaults.py --seeds 20 --data DIR
    python benchmarks/defaults.py --seeds 40 --only isotropic
"""

import argparse
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from banditroute import LinUCB
from banditroute.simulation import LinearEnvironment

Floats = np.ndarray
Run = tuple[Floats, Floats, Floats]  # contexts (T, d), rewards (T, N), means (T, N)

AUTO: dict = {}
TUNED = {"alpha": 0.1, "ridge": 0.03}  # by hand, for homes at noise .1
ALPHAS = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)


def recorded(path: Path) -> Callable[[int], Run]:
    """Requests drawn with replacement from a recorded matrix of rewards."""
    with np.load(path) as file:
        parts = file["minilm_pca64"][:, :32].astype(np.float64)
        rewards = file["rewards"].astype(np.float64) if "rewards" in file else file["scores"] / 255.0
    contexts = np.column_stack([parts, np.ones(len(parts))])

    def draw(seed: int) -> Run:
        rows = np.random.default_rng(seed).integers(len(contexts), size=12_000)
        return contexts[rows], rewards[rows], rewards[rows]

    return draw


def isotropic(noise: float) -> Callable[[int], Run]:
    """15 arms, 16 dimensions, normal theta, the longest of norm 1, contexts uniform on the unit sphere."""

    def draw(seed: int) -> Run:
        rng = np.random.default_rng(seed)
        theta = rng.standard_normal((15, 16))
        theta /= np.linalg.norm(theta, axis=1).max()
        contexts = rng.standard_normal((5000, 16))
        contexts /= np.linalg.norm(contexts, axis=1, keepdims=True)
        means = contexts @ theta.T
        return contexts, means + noise * rng.standard_normal((5000, 1)), means

    return draw


def homes(**options: object) -> Callable[[int], Run]:
    """Adapters with home regions, no residency."""

    def draw(seed: int) -> Run:
        stream = LinearEnvironment(**options).stream(16_384, seed)
        return stream.contexts, stream.rewards, stream.means

    return draw


def level(**options: object) -> Callable[[int], Run]:
    """Utilities 0.25 away from home and 0.7 to 1 at home."""
    return homes(centres=10, orthogonal=True, strength=1.0, away=0.25, **options)


def play(run: Run, seed: int, **options: object) -> Floats:
    """Means of the arms played, shape (T,)."""
    contexts, rewards, means = run
    policy = LinUCB(rewards.shape[1], contexts.shape[1], rng=seed, **options)
    arms = np.empty(len(contexts), dtype=np.int64)
    for t, x in enumerate(contexts):
        arms[t] = policy.select(x).arm
        policy.update(int(arms[t]), x, rewards[t, arms[t]])
    return means[np.arange(len(arms)), arms]


def measure(draw: Callable[[int], Run], seeds: int, settings: list[dict], late: bool) -> Floats:
    """Reward in the second half (`late`) or regret, shape (settings, seeds)."""
    out = np.empty((len(settings), seeds))
    for seed in range(seeds):
        run = draw(seed)
        for i, options in enumerate(settings):
            got = play(run, seed, **options)
            out[i, seed] = got[len(got) // 2 :].mean() if late else (run[2].max(axis=1) - got).sum()
    return out


def cell(values: Floats, digits: int) -> str:
    """Mean and standard error."""
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1) / np.sqrt(len(values)):.{digits}f}"


def paired(values: Floats, others: Floats, digits: int) -> str:
    """Mean difference and half of its 95 % t interval."""
    apart = values - others
    half = student.ppf(0.975, len(apart) - 1) * apart.std(ddof=1) / np.sqrt(len(apart))
    return f"{apart.mean():+.{digits}f} ± {half:.{digits}f}"


def label(options: dict) -> str:
    """Short name of a setting."""
    return f"{options['alpha']:g} / {options['ridge']:g}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--data", type=Path, help="folder with pareto4.npz and llmrouter9.npz")
    parser.add_argument("--only", default="", help="problems whose name starts so")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds must be >= 2: a standard error needs two")

    if options.data is not None:
        grid = [{"alpha": a, "ridge": r} for a, r in product((0.25, 0.5, 0.75), (3.0, 10.0, 30.0))]
        textbook = {"alpha": 0.5, "ridge": 1.0, "prior": None}
        print(
            "| reward, second half | default | best of a grid, alpha / ridge | textbook .5 / 1 | default less best |\n"
            "|---|---|---|---|---|"
        )
        for name in ("pareto4", "llmrouter9"):
            values = measure(
                recorded(options.data / f"{name}.npz"), options.seeds, [AUTO, textbook, *grid], True
            )
            best = int(values[2:].mean(axis=1).argmax())
            tuned = f"{cell(values[2 + best], 4)} ({label(grid[best])})"
            apart = paired(values[0], values[2 + best], 4)
            print(f"| {name} | {cell(values[0], 4)} | {tuned} | {cell(values[1], 4)} | {apart} |", flush=True)
        print()

    print(
        "| regret | default | best fixed alpha, ridge 1, no pooling | pooled .1 / .03 | default less best |"
    )
    print("|---|---|---|---|---|")
    problems = {
        **{f"isotropic, noise {noise:g}": isotropic(noise) for noise in (0.02, 0.1, 0.5)},
        **{f"homes, noise {noise:g}": homes(noise=noise) for noise in (0.02, 0.1, 0.5)},
        **{f"level, noise {noise:g}": level(noise=noise) for noise in (0.1, 0.5)},
        "homes, overlapping": homes(overlap=0.7),
        "homes, 32 dimensions": homes(dim=32),
        "homes, collinear contexts": homes(common=2.0),
        "homes, 60 arms": homes(n_arms=60),
    }
    fixed = [{"alpha": alpha, "ridge": 1.0, "prior": None} for alpha in ALPHAS]
    for name, draw in problems.items():
        if not name.startswith(options.only):
            continue
        values = measure(draw, options.seeds, [AUTO, TUNED, *fixed], False)
        best = int(values[2:].mean(axis=1).argmin())
        tuned = f"{cell(values[2 + best], 1)} ({ALPHAS[best]:g})"
        apart = paired(values[0], values[2 + best], 1)
        print(f"| {name} | {cell(values[0], 1)} | {tuned} | {cell(values[1], 1)} | {apart} |", flush=True)


if __name__ == "__main__":
    main()
