"""Cascades against routing alone, at equal ceilings, with a confidence of a given AUC and with a useless one.

Costs of `pareto4` are dollars of each answer, of `llmrouter9` billions of parameters; `mmlupro28` has none, a model
costs 100 ** (its accuracy, scaled to [0, 1] over the models). The confidence is simulated: the reward of the answer
plus noise that makes it tell the better half of the answers from the other with the given AUC.

    python benchmarks/cascades.py [--requests 12000] [--seeds 5] [--first 0] [--auc 0.75] [--json FILE]
"""

import argparse
import json
from pathlib import Path

import numpy as np
from budgets import BILLIONS
from recorded import data_file

from banditroute import LinUCB, Router
from banditroute.terms import BudgetPacer, Cascade

CEILINGS = {"pareto4": (1e-4, 3e-4, 1e-3), "llmrouter9": (9.0, 15.0, 30.0), "mmlupro28": (5.0, 15.0, 40.0)}


def load(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Contexts, rewards and costs of the rows that requests are drawn from."""
    with np.load(data_file(f"{name}.npz"), allow_pickle=False) as file:
        split = file["split"]
        if name == "mmlupro28":
            x = file["wordllama_pca64"][:, :32].astype(float)
            contexts = np.column_stack([x / np.linalg.norm(x, axis=1, keepdims=True), np.ones(len(x))])[
                split == 1
            ]
            rewards = file["scores"][split == 1] / 255.0
            level = rewards.mean(axis=0)
            costs = np.tile(100.0 ** ((level - level.min()) / np.ptp(level)), (len(rewards), 1))
            return contexts, rewards, costs
        contexts = np.column_stack([file["minilm_pca64"][:, :32].astype(float), np.ones(len(split))])
        if name == "pareto4":
            return contexts, file["rewards"].astype(float), file["cost_usd"].astype(float)
        each = np.array([BILLIONS[model] for model in file["models"].tolist()], dtype=float)
        return contexts, file["scores"] / 255.0, np.tile(each, (len(contexts), 1))


def area(scores: np.ndarray, good: np.ndarray) -> float:
    """AUC of scores for telling the good ones."""
    rank = np.argsort(np.argsort(scores)) + 1.0
    n = int(good.sum())
    return float((rank[good].sum() - n * (n + 1) / 2) / (n * (len(good) - n)))


def confidences(rewards: np.ndarray, auc: float, rng: np.random.Generator) -> np.ndarray:
    """One for each row and arm; `auc` .5 is pure noise."""
    noise = rng.standard_normal(rewards.shape)
    out = np.empty(rewards.shape)
    for a in range(rewards.shape[1]):
        r, good = rewards[:, a], rewards[:, a] >= np.median(rewards[:, a])
        if good.all():
            good = rewards[:, a] > rewards[:, a].min()
        low, high = 0.0, 100.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if area(middle * r + noise[:, a], good) < auc else (low, middle)
        out[:, a] = (0.0 if auc == 0.5 else low) * r + noise[:, a]
    return out


def served(
    data: tuple, ceiling: float, requests: int, seed: int, sure: np.ndarray | None
) -> tuple[float, float, float]:
    """Mean reward and cost in the second half, and calls a request; without `sure` routing alone."""
    contexts, rewards, costs = data
    rows = np.random.default_rng(seed).integers(len(contexts), size=requests)
    pacer = BudgetPacer(ceiling, costs.mean(axis=0))
    router = Router(LinUCB(rewards.shape[1], contexts.shape[1], rng=seed), terms=[pacer])
    cascade = Cascade(router, costs=pacer.prices)
    got, paid, calls = np.empty(requests), np.zeros(requests), np.ones(requests)
    for t, row in enumerate(rows):
        x = contexts[row]
        decision = router.select(x) if sure is None else cascade.start(x)
        arm = int(decision.arm)
        paid[t] = cost = float(costs[row, arm])
        second = None if sure is None else cascade.look(decision, float(sure[row, arm]), cost=cost)
        if second is not None:
            arm, decision, calls[t] = int(second.arm), second, 2
            cost = float(costs[row, arm])
            paid[t] += cost
        got[t] = rewards[row, arm]
        (router if sure is None else cascade).update(decision.id, float(got[t]), cost=cost)
    half = slice(requests // 2, None)
    return float(got[half].mean()), float(paid[half].mean()), float(calls[half].mean())


def main(requests: int, seeds: range, auc: float, only: list[str]) -> list[dict]:
    """One line for each data set and ceiling."""
    print(
        f"mean reward and spend / ceiling of the second half of {requests} requests, seeds {seeds[0]} to {seeds[-1]}; "
        "+- is 1.96 s.e."
    )
    head = (
        "data",
        "ceiling",
        "alone",
        "cascade",
        "gain",
        "+-",
        "useless",
        "gain",
        "+-",
        "spend",
        "cascade",
        "useless",
        "calls",
        "useless",
    )
    print("".join(f"{h:>11}" for h in head))
    table = []
    for name in only:
        ceilings = CEILINGS[name]
        data = load(name)
        for ceiling in ceilings:
            runs = []
            for seed in seeds:
                rng = np.random.default_rng(1000 + seed)
                good, useless = confidences(data[1], auc, rng), confidences(data[1], 0.5, rng)
                runs.append([served(data, ceiling, requests, seed, sure) for sure in (None, good, useless)])
            r = np.array(runs)
            gains = [r[:, i, 0] - r[:, 0, 0] for i in (1, 2)]
            half = [1.96 * g.std(ddof=1) / np.sqrt(len(g)) for g in gains]
            row = [r[:, 0, 0].mean(), r[:, 1, 0].mean(), gains[0].mean(), half[0]]
            row += [r[:, 2, 0].mean(), gains[1].mean(), half[1], r[:, 0, 1].mean() / ceiling]
            row += [r[:, i, 1].mean() / ceiling for i in (1, 2)] + [r[:, i, 2].mean() for i in (1, 2)]
            print(f"{name:>11}{ceiling:11.1e}" + "".join(f"{v:11.4f}" for v in row), flush=True)
            table.append({"data": name, "ceiling": ceiling, "figures": [float(v) for v in row]})
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=12_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--only", nargs="*", default=list(CEILINGS))
    parser.add_argument("--auc", type=float, default=0.75)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = main(
        options.requests, range(options.first, options.first + options.seeds), options.auc, options.only
    )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
