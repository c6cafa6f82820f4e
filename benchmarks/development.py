"""The default `LinUCB` on every development matrix, against textbook LinUCB, `LinTS` and Thompson without context.

Recorded matrices: 12,000 requests drawn with replacement (from the half not used to fit features, where there is one),
mean reward of the second half. `reallora16`: its own 4,000 requests shuffled within halves, mean of all. `specialists`:
regret of 6,000 requests, lower is better. Every policy sees the same requests; differences are paired, with half of a
95 % t interval.

    python benchmarks/development.py --seeds 40 --data DIR
    python benchmarks/development.py --seeds 20 --only mmlupro28 --requests 1000
    python benchmarks/development.py --noise-free --seeds 200

With another version as a further column, its numbers from a process of its own; seeds from 1,000 on chose no constant:

    PYTHONPATH=OTHER/src python benchmarks/development.py --first 1000 --seeds 20 --data DIR --save other.npz
    python benchmarks/development.py --first 1000 --seeds 20 --data DIR --against other.npz

``--noise-free`` counts the seeds in which the best arm has fewer than half of the last 500 requests. ``--residency``
tells the regret of 8,192 requests under Polaris and LRU, with the default and with the textbook's policy. ``--scales``
tells what the default loses with contexts of other scales, without their constant, and hidden in 384 coordinates.
"""

import argparse
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from banditroute import LRU, LinTS, LinUCB, Polaris
from banditroute.features import Embedding
from banditroute.simulation import FAMILIES, Stream, digits_adapters, regret, simulate

Floats = np.ndarray
POLICIES = ("default", "textbook", "LinTS", "Thompson")
DEFAULT: dict[str, Any] = {}
TEXTBOOK: dict[str, Any] = {"alpha": 1.0, "ridge": 1.0, "prior": None}


@cache
def table(name: str, folder: Path) -> tuple[Floats, Floats]:
    """Contexts with a constant in the last column, and rewards."""
    if name in ("mmlupro28", "llmrouter9", "pareto4"):
        with np.load(folder / f"{name}.npz") as file:
            parts = file["wordllama_pca64" if name == "mmlupro28" else "minilm_pca64"][:, :32].astype(
                np.float64
            )
            rewards = file["rewards"].astype(np.float64) if "rewards" in file else file["scores"] / 255.0
            if name == "mmlupro28":
                held_out = file["split"] == 1
                parts, rewards = parts[held_out], rewards[held_out]
                parts /= np.maximum(np.linalg.norm(parts, axis=1, keepdims=True), 1e-12)
        return np.column_stack([parts, np.ones(len(parts))]), rewards
    from sklearn import datasets

    data, target = getattr(datasets, f"load_{name}")(return_X_y=True)
    data = (data - data.mean(axis=0)) / np.maximum(data.std(axis=0), 1e-9)
    if data.shape[1] > 32:
        data = data @ np.linalg.svd(data, full_matrices=False)[2][:32].T
    data /= np.sqrt((data**2).sum(axis=1).mean())
    rewards = (target[:, None] == np.unique(target)).astype(np.float64)
    return np.column_stack([data, np.ones(len(data))]), rewards


def stream(contexts: Floats, means: Floats, rewards: Floats) -> Stream:
    """A stream whose arms are numbered."""
    names = tuple(str(a) for a in range(rewards.shape[1]))
    return Stream(*(np.ascontiguousarray(array) for array in (contexts, means, rewards)), names)


def drawn(name: str, folder: Path, length: int, seed: int) -> Stream:
    """Requests drawn with replacement."""
    contexts, rewards = table(name, folder)
    rows = np.random.default_rng(seed).integers(len(contexts), size=length)
    return stream(contexts[rows], rewards[rows], rewards[rows])


def reallora(folder: Path, length: int, seed: int) -> Stream:
    """Real LoRA adapters, shuffled within halves."""
    with np.load(folder / "reallora16.npz") as file:
        contexts, gain = file["contexts"].astype(np.float64), file["gain"].astype(np.float64)
    rng, half = np.random.default_rng(seed), len(contexts) // 2
    rows = np.append(rng.permutation(half), half + rng.permutation(len(contexts) - half))
    rewards = np.clip(0.5 + gain / 0.6, 0.0, 1.0)[rows]
    return stream(contexts[rows], rewards, rewards)


def specialists(length: int, seed: int) -> Stream:
    """Twelve arms that are each good at one of twelve groups; 10 dimensions and a constant, no noise."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((12, 10))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    groups = rng.integers(12, size=3000)
    contexts = centres[groups] + 0.3 * rng.standard_normal((3000, 10)) / np.sqrt(10.0)
    contexts /= np.linalg.norm(contexts, axis=1, keepdims=True)
    rewards = 0.4 + 0.5 * (groups[:, None] == np.arange(12)) + 0.05 * rng.standard_normal((3000, 12))
    shares = np.array([rng.permutation(1.0 / np.arange(1, 13)) for _ in range(2)])
    moved = np.linspace(0.0, 1.0, length)[:, None]
    popular = (1.0 - moved) * shares[0] + moved * shares[1]
    popular = (popular / popular.sum(axis=1, keepdims=True)).cumsum(axis=1)
    wanted = np.minimum((popular > rng.random((length, 1))).argmax(axis=1), 11)
    rows = np.array([rng.choice(np.flatnonzero(groups == g)) for g in wanted])
    return stream(np.column_stack([contexts[rows], np.ones(length)]), rewards[rows], rewards[rows])


def problems(folder: Path | None, length: int) -> dict[str, Callable[[int], Stream]]:
    """Name -> seed -> stream."""
    found: dict[str, Callable[[int], Stream]] = {}
    if folder is not None:
        for name in ("mmlupro28", "llmrouter9", "pareto4"):
            found[name] = partial(drawn, name, folder, length)
        found["reallora16"] = partial(reallora, folder, length)
    for name in ("digits", "iris", "wine", "breast_cancer"):
        found[name] = partial(drawn, name, Path(), length)
    found["digits adapters"] = lambda seed: digits_adapters().stream(length, seed)
    found["specialists"] = partial(specialists, min(length, 6000))
    for name in ("homes", "level", "collinear", "low-rank", "isotropic", "sigma-0.5", "d-32", "N-60-K-4"):
        found[name] = lambda seed, name=name: FAMILIES[name](min(length, 8192), seed).stream
    return found


def thompson(run: Stream, seed: int) -> Floats:
    """Arms of `GaussianThompson` with its defaults, by drawing: the same law, without the quadrature."""
    rng, count = np.random.default_rng(seed), len(run.arms)
    weight, total, arms = np.ones(count), np.full(count, 0.5), np.empty(len(run), dtype=np.int64)
    for t in range(len(run)):
        a = int((total / weight + 0.3 / np.sqrt(weight) * rng.standard_normal(count)).argmax())
        arms[t], weight[a], total[a] = a, weight[a] + 1.0, total[a] + run.rewards[t, a]
    return arms


def played(run: Stream, policy: str, seed: int) -> Floats:
    """Arms of one policy."""
    shape = (len(run.arms), run.dim)
    if policy == "Thompson":
        return thompson(run, seed)
    if policy == "LinTS":
        return simulate(LinTS(*shape, propensities=False, rng=seed), run).arms
    given = TEXTBOOK if policy == "textbook" else DEFAULT
    return simulate(LinUCB(*shape, rng=seed, **given), run).arms


def judged(name: str, run: Stream, arms: Floats) -> float:
    """Reward, or regret for the specialists."""
    got = run.means[np.arange(len(run)), arms]
    if name == "specialists":
        return float(run.means.max(axis=1).sum() - got.sum())
    return float(got.mean() if name == "reallora16" else got[len(got) // 2 :].mean())


def half(values: Floats) -> float:
    """Half of the 95 % t interval of a mean."""
    return float(student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def noise_free(first: int, seeds: int) -> None:
    """How often the best arm has fewer than half of the last 500 requests, rewards without noise."""
    print(
        "| rewards | arms | contexts | the best arm | LinUCB: seeds in which it is lost | LinTS |\n"
        "|---|---|---|---|---|---|"
    )
    for worth, rest in ((0.9, (0.6, 0.3)), (0.8, (0.75, 0.7))):
        for count in (3, 10, 30):
            for groups in (1, 4):
                for kind in ("is there", "is added at 1,000", "is unlucky at first", "costs .03"):
                    lost = [
                        sum(
                            best_arm_lost(make, worth, rest, count, groups, kind, seed)
                            for seed in range(first, first + seeds)
                        )
                        for make in (LinUCB, partial(LinTS, propensities=False))
                    ]
                    where = "constant" if groups == 1 else f"one of {groups}"
                    cells = " | ".join(f"{n} of {seeds}" for n in lost)
                    print(
                        f"| {worth} / {rest[0]}-{rest[1]} | {count} | {where} | {kind} | {cells} |",
                        flush=True,
                    )


def best_arm_lost(
    make: Callable[..., LinUCB], worth: float, rest: tuple, count: int, groups: int, kind: str, seed: int
) -> bool:
    """Whether the best arm has fewer than half of the last 500 requests.

    Unlucky: what it earns first in each group is nothing. Costs: a price is stated for it in each request.
    """
    rng, late = np.random.default_rng(seed), kind == "is added at 1,000"
    length = (6000 if count == 30 else 2000) + 1000 * late
    values = np.append(np.linspace(*rest, count - 1), worth)
    rewards = np.array([values if late else rng.permutation(values) for _ in range(groups)])
    best, unlucky = rewards.argmax(axis=1), set(range(groups)) if kind == "is unlucky at first" else set()
    policy = make(count - late, groups, rng=seed)
    eye, right, prices = np.eye(groups), 0, np.zeros((groups, count))
    prices[np.arange(groups), best] = 0.03
    for t in range(length):
        if late and t == 1000:
            policy.add_arm("new")
        g = int(rng.integers(groups))
        arm = policy.select(eye[g], prices=prices[g] if kind == "costs .03" else None).arm
        reward = float(rewards[g, arm])
        if arm == best[g] and g in unlucky:
            unlucky.remove(g)
            reward = 0.0
        policy.update(arm, eye[g], reward)
        right += t >= length - 500 and arm == best[g]
    return right < 250


def residency(first: int, seeds: int, only: str) -> None:
    """Regret under residency."""
    print(
        "| 8,192 requests | Polaris, default | LRU, default | Polaris, textbook | Polaris over LRU, default |"
    )
    print("|---" * 5 + "|")
    for name in ("homes", "abrupt", "gradual", "level", "low-rank", "isotropic"):
        if not name.startswith(tuple(only.split(","))):
            continue
        values = np.empty((3, seeds))
        for i, seed in enumerate(range(first, first + seeds)):
            problem = FAMILIES[name](8192, seed)
            shape = (problem.stream.arms, problem.stream.dim)
            for k, (given, controller) in enumerate(
                ((DEFAULT, Polaris), (DEFAULT, LRU), (TEXTBOOK, Polaris))
            ):
                run = simulate(LinUCB(*shape, rng=seed, **given), problem, controller(problem.capacity))
                values[k, i] = regret(run, problem).total[-1]
        cells = [f"{own.mean():.1f} ± {half(own):.1f}" for own in values]
        print(f"| {name} | {' | '.join(cells)} | {values[0].mean() / values[1].mean():.2f} |", flush=True)


def scales(folder: Path, length: int, first: int, seeds: int, only: str) -> None:
    """Reward with contexts that nobody scaled, less that with well-scaled ones, on the same requests.

    The first 32 of 64 components of an embedding; `Embedding` takes 32 too, of what a random rotation has hidden.
    """
    factors = (0.1, 0.3, 3.0, 10.0)
    shown = [
        *(f"all x {f:g}" for f in factors),
        *(f"all but 1 x {f:g}" for f in factors),
        "no 1",
        "intercept",
    ]
    print(f"| {length:,} requests | as they are | {' | '.join(shown)} | hidden in 384 |")
    print("|---" * (len(shown) + 3) + "|")
    for name in ("mmlupro28", "llmrouter9", "pareto4"):
        if not name.startswith(tuple(only.split(","))):
            continue
        values = np.empty((len(shown) + 2, seeds))
        whole, rewards = table(name, folder)
        wide, sample = hidden(name, folder)
        found = Embedding(components=32).fit(sample).batch(wide)
        for i, seed in enumerate(range(first, first + seeds)):
            rows = np.random.default_rng(seed).integers(len(whole), size=length)
            x, own = whole[rows], rewards[rows]
            bare, one = x[:, :-1], x[:, -1:]
            given = [(x, False), *((x * f, False) for f in factors)]
            given += [(np.column_stack([bare * f, one]), False) for f in factors]
            given += [(bare, False), (bare, True), (found[rows], True)]
            for k, (contexts, intercept) in enumerate(given):
                run = stream(contexts, own, own)
                policy = LinUCB(len(run.arms), run.dim, rng=seed, intercept=intercept)
                values[k, i] = judged(name, run, simulate(policy, run).arms)
        away = [f"{(v - values[0]).mean():+.4f} ± {half(v - values[0]):.4f}" for v in values[1:]]
        print(f"| {name} | {values[0].mean():.4f} ± {half(values[0]):.4f} | {' | '.join(away)} |", flush=True)


def hidden(name: str, folder: Path) -> tuple[Floats, Floats]:
    """The 64 components of an embedding, turned into 384 coordinates, and a sample that fits the map back.

    The sample is the other half where there is one.
    """
    with np.load(folder / f"{name}.npz") as file:
        parts = file["wordllama_pca64" if name == "mmlupro28" else "minilm_pca64"].astype(np.float64)
        held_out = file["split"] == 1 if name == "mmlupro28" else np.ones(len(parts), dtype=bool)
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((384, 64)))[0].T
    return parts[held_out] @ turn, parts[~held_out if name == "mmlupro28" else held_out] @ turn


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument(
        "--save", type=Path, help="where to keep the numbers of the default, and print no others"
    )
    parser.add_argument("--against", type=Path, help="such numbers of another version")
    parser.add_argument("--data", type=Path, help="folder of the recorded matrices")
    parser.add_argument(
        "--only", default="", help="problems whose name starts so, with commas between several"
    )
    parser.add_argument("--requests", type=int, default=12_000)
    parser.add_argument("--noise-free", action="store_true", help="the other table")
    parser.add_argument("--residency", action="store_true", help="the third table")
    parser.add_argument("--scales", action="store_true", help="the fourth table")
    options = parser.parse_args()
    if options.scales:
        scales(options.data, options.requests, options.first, options.seeds, options.only)
        return
    if options.residency:
        residency(options.first, options.seeds, options.only)
        return
    if options.noise_free:
        noise_free(options.first, options.seeds)
        return
    policies = POLICIES[:1] if options.save else POLICIES
    before = dict(np.load(options.against)) if options.against else {}
    shown = [*policies, *(["before"] if before else [])]
    print(
        f"| {options.requests:,} requests | {' | '.join(shown)} | default less best other | p90 of the default |"
    )
    print("|---" * (len(shown) + 3) + "|")
    kept = {}
    for name, draw in problems(options.data, options.requests).items():
        if not name.startswith(tuple(options.only.split(","))):
            continue
        values = np.empty((len(shown), options.seeds))
        for i, seed in enumerate(range(options.first, options.first + options.seeds)):
            run = draw(seed)
            values[: len(policies), i] = [judged(name, run, played(run, policy, seed)) for policy in policies]
        if before:
            values[-1] = before[name]
        kept[name] = values[0]
        print(row(name, values, shown), flush=True)
        if options.save:
            np.savez(options.save, **kept)


def row(name: str, values: Floats, shown: list[str]) -> str:
    """A row of the table."""
    means, digits = values.mean(axis=1), 1 if name == "specialists" else 4
    cells = [f"{own.mean():.{digits}f} ± {half(own):.{digits}f}" for own in values]
    gain = ""
    if len(values) > 1:
        best = 1 + int((means[1:] * (-1 if digits == 1 else 1)).argmax())
        apart = values[0] - values[best]
        gain = f"{apart.mean():+.{digits}f} ± {half(apart):.{digits}f} ({shown[best]})"
        if shown[-1] == "before" != shown[best]:
            apart = values[0] - values[-1]
            gain += f", {apart.mean():+.{digits}f} ± {half(apart):.{digits}f} (before)"
    return f"| {name} | {' | '.join(cells)} | {gain} | {np.quantile(values[0], 0.9):.{digits}f} |"


if __name__ == "__main__":
    main()
