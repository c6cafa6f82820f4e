"""Bars of budgets and quality floors on recorded data, and the quality-cost curve behind them.

The arms are whole language models, not LoRA adapters. `pareto4` has the dollars of every answer; `llmrouter9` has no
costs, so a model costs its parameters in billions there. Requests are rows drawn with replacement.

    python benchmarks/budgets.py [--requests 50000] [--seeds 2] [--json FILE]

The fixed mixtures and the rows called oracle and ridge know all rewards of all models; the pacer sees the reward of
the model it chose. For those two a dual price is found by bisection on the same rows.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from recorded import data_file

from banditroute import LinUCB
from banditroute.terms import BudgetPacer, QualityFloor, cheapest_above

CEILINGS = (1e-4, 3e-4, 1e-3, 5e-3)  # dollars; the models cost 2.9e-5 to 1.5e-2
BILLIONS = {  # parameters; the cost of a model of llmrouter9
    "codegemma-7b": 7,
    "gemma-2-9b-it": 9,
    "llama-3.1-8b-instruct": 8,
    "llama-3.1-nemotron-51b-instruct": 51,
    "llama-3.3-nemotron-super-49b-v1": 49,
    "llama3-chatqa-1.5-70b": 70,
    "llama3-chatqa-1.5-8b": 8,
    "mistral-7b-instruct-v0.3": 7,
    "qwen2.5-7b-instruct": 7,
}
FLOORS = {"pareto4": (0.82, 0.86, 0.90, 0.93), "llmrouter9": (0.46, 0.50, 0.52, 0.55)}


def load(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Contexts (32 components and a constant), rewards, costs and split of a data set."""
    with np.load(data_file(f"{name}.npz"), allow_pickle=False) as file:
        contexts = np.column_stack([file["minilm_pca64"][:, :32].astype(float), np.ones(len(file["split"]))])
        if name == "pareto4":
            return contexts, file["rewards"].astype(float), file["cost_usd"].astype(float), file["split"]
        costs = np.array([BILLIONS[model] for model in file["models"].tolist()], dtype=float)
        return contexts, file["scores"] / 255.0, np.tile(costs, (len(contexts), 1)), file["split"]


def mixture(spend: float, rewards: np.ndarray, costs: np.ndarray) -> float:
    """Reward of the best fixed mixture of two models (mean rewards and costs, (k,)) at a mean spend."""
    pairs = [(i, j) for i in range(len(costs)) for j in range(len(costs)) if costs[i] <= spend < costs[j]]
    shares = [(spend - costs[i]) / (costs[j] - costs[i]) for i, j in pairs]
    mixed = [(1 - w) * rewards[i] + w * rewards[j] for w, (i, j) in zip(shares, pairs, strict=True)]
    return float(max([*mixed, *rewards[costs <= spend]], default=-np.inf))


def informed(
    values: np.ndarray, priced: np.ndarray, rewards: np.ndarray, paid: np.ndarray, spend: float
) -> float:
    """Reward of the choice that maximises ``values - price * priced`` at the least price whose pay keeps to `spend`."""
    rows, low, high = np.arange(len(values)), 0.0, 1e5
    best = values.argmax(axis=1)
    if paid[rows, best].mean() <= spend:
        return float(rewards[rows, best].mean())
    for _ in range(60):
        price = (low + high) / 2
        best = (values - price * priced).argmax(axis=1)
        low, high = (low, price) if paid[rows, best].mean() <= spend else (price, high)
    best = (values - high * priced).argmax(axis=1)
    return float(rewards[rows, best].mean())


def ridge(contexts: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """Predictions (n, k) of a ridge fit on all rewards of all models, on the rows the stream draws from."""
    gram = contexts.T @ contexts + np.eye(contexts.shape[1])
    return contexts @ np.linalg.solve(gram, contexts.T @ rewards)


def paced(ceiling: float, data: tuple, requests: int, seed: int) -> dict:
    """Route a stream under a ceiling; spend and reward of the run and of its second half."""
    contexts, rewards, costs, _ = data
    rows = np.random.default_rng(seed).integers(len(contexts), size=requests)
    policy = LinUCB(rewards.shape[1], contexts.shape[1], rng=seed)
    pacer = BudgetPacer(ceiling, costs.mean(axis=0))
    arms = np.empty(requests, dtype=int)
    for t, row in enumerate(rows):
        x = contexts[row]
        arm = policy.select(x, prices=pacer.prices(), eligible=pacer.eligible()).arm
        held = pacer.reserve(arm)
        policy.update(arm, x, float(rewards[row, arm]))
        pacer.settle(arm, float(costs[row, arm]), held)
        arms[t] = arm
    paid, half = costs[rows, arms], requests // 2
    running = np.cumsum(paid) / np.arange(1, requests + 1)
    return {
        "spend / ceiling": float(running[-1] / ceiling),
        "largest after 10 %": float(running[requests // 10 :].max() / ceiling),
        "spend": float(paid[half:].mean()),
        "reward": float(rewards[rows, arms][half:].mean()),
    }


def budgets(requests: int, seeds: int) -> list[dict]:
    """The quality-cost curve and its bar at each ceiling."""
    data = load("pareto4")
    contexts, rewards, costs, _ = data
    means, mean_costs, predicted = rewards.mean(axis=0), costs.mean(axis=0), ridge(contexts, rewards)
    expected = np.tile(mean_costs, (len(costs), 1))
    print("pareto4, mean reward over the second half; spend as a share of the ceiling (whole run)")
    head = ("ceiling $", "seed", "spend", "worst", "pacer", "mixture", "gain", "ridge", "oracle")
    print("".join(f"{h:>10}" for h in head))
    table = []
    for ceiling in CEILINGS:
        for seed in range(seeds):
            run = paced(ceiling, data, requests, seed)
            run |= {"ceiling": ceiling, "seed": seed, "mixture": mixture(run["spend"], means, mean_costs)}
            run["ridge"] = informed(predicted, expected, rewards, costs, run["spend"])
            run["oracle"] = informed(rewards, costs, rewards, costs, run["spend"])
            run["passed"] = run["largest after 10 %"] <= 1.02 and run["reward"] >= run["mixture"] - 0.005
            shown = (run["spend / ceiling"], run["largest after 10 %"], run["reward"], run["mixture"])
            shown = (*shown, run["reward"] - run["mixture"], run["ridge"], run["oracle"])
            print(
                f"{ceiling:10.0e}{seed:10d}" + "".join(f"{v:10.4f}" for v in shown),
                "" if run["passed"] else "MISSED",
            )
            table.append(run)
    print("  models: " + ", ".join(f"{r:.3f} at ${c:.1e}" for r, c in zip(means, mean_costs, strict=True)))
    return table


def floored(target: float, data: tuple, requests: int, seed: int, rule: str) -> dict:
    """Learn on requests of split 0, then measure on requests of split 1, still learning."""
    contexts, rewards, costs, split = data
    rng = np.random.default_rng(seed)
    old, new = np.flatnonzero(split == 0), np.flatnonzero(split == 1)
    expected = costs[old].mean(axis=0)
    policy = LinUCB(rewards.shape[1], contexts.shape[1], rng=seed)
    floor = QualityFloor(target, expected)
    rows = np.append(rng.choice(old, requests), rng.choice(new, requests))
    arms = np.empty(len(rows), dtype=int)
    for t, row in enumerate(rows):
        x = contexts[row]
        if rule == "mean":
            arm = policy.select(x, prices=floor.prices()).arm
        else:
            width = policy.alpha if t < requests else -policy.alpha
            arm = policy.select(
                x, eligible=cheapest_above(policy.scores(x), target, expected, width=width)
            ).arm
        policy.update(arm, x, float(rewards[row, arm]))
        floor.report(float(rewards[row, arm]))
        arms[t] = arm
    fixed = costs[new].mean(axis=0)[rewards[new].mean(axis=0) >= target].min()
    served = slice(requests, None)
    quality = float(rewards[rows, arms][served].mean())
    cost = float(costs[rows, arms][served].mean())
    return {
        "floor": target,
        "seed": seed,
        "rule": rule,
        "quality": quality,
        "cost": cost,
        "fixed": float(fixed),
        "passed": bool(quality >= target - 0.005 and cost < fixed),
    }


def floors(requests: int, seeds: int) -> list[dict]:
    """Quality and cost at each floor on held-out rows."""
    table = []
    for name, targets in FLOORS.items():
        data = load(name)
        unit = "dollars" if name == "pareto4" else "billions of parameters"
        print(
            f"{name}, {requests} requests of held-out rows; cost in {unit}, beside the cheapest fixed model"
        )
        print("".join(f"{h:>10}" for h in ("floor", "rule", "seed", "quality", "cost", "fixed")))
        for target in targets:
            for rule in ("mean", "request"):
                for seed in range(seeds if rule == "mean" else 1):
                    run = {"data": name, **floored(target, data, requests, seed, rule)}
                    numbers = f"{run['quality']:10.4f}{run['cost']:10.3g}{run['fixed']:10.3g}"
                    missed = "" if run["passed"] or rule == "request" else "MISSED"
                    print(f"{target:10.2f}{rule:>10}{seed:10d}{numbers}", missed)
                    table.append(run)
    print("  rule mean: QualityFloor, the bar. Rule request: cheapest_above, no promise about the mean.")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {
        "budgets": budgets(options.requests, options.seeds),
        "floors": floors(options.requests * 2 // 5, options.seeds),
    }
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
