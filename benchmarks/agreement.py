"""Estimate the same targets on the same rows with Open Bandit Pipeline and Vowpal Wabbit, and compare.

Usage: ``python benchmarks/agreement.py [--json]``, or ``--freeze`` to write anew what the tests hold of them
(``tests/data/peers-1``: a log of obp in the columns of the Open Bandit Dataset, one of vw as decision-service JSON, and
the values that they compute of these). Traces are exported with `to_obp` and `to_dsjson`; the others run in
an environment of their own (``peers/agreement.txt``), where this file is started again as their worker.

* IPS, SNIPS, DM and DR of obp are the same formulas as ours and get the same predicted rewards, those of our cross-fit:
  what is left is rounding. obp's ``InverseProbabilityWeighting`` of this version does not clip, so our clipped estimate
  is compared with theirs on weights cut beforehand.
* IPS of ``vw --cb_type ips --eval`` is the same formula in single precision, and its value is a cost. It is read from
  the exported decision-service JSON.
* DR of ``vw`` uses a regression that it learns online along the log, row by row, ours one on the other folds: both are
  unbiased and not the same number, so the difference is given in standard errors of IPS. ``vw`` refuses the direct
  method as biased, and has no SNIPS.
* Its slate estimators SIPS, IIPS and RIPS are our `evaluate_lists` under three click models; a log of lists with their
  values is frozen for the tests. This version has no others for lists.
* Intervals: obp resamples rows, ours are Student's with a correction for skewness: the ends agree up to the noise of
  the bootstrap, and their difference is given in standard errors of DR.

obp is installed without its dependencies: the version pip finds for this Python asks for a PyYAML that no longer
builds, and for PyTorch, which it imports but does not need for these estimators; an empty stand-in takes its place.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import permutations
from pathlib import Path

import numpy as np

OBP = "obp==0.4.1"
SAME = ("ips", "snips", "dm", "dr", "clipped")  # the same formula on the same numbers
CLIP = 5.0


# In the environment of the others.


def absent_torch():
    """Let obp import PyTorch without having it: every name in it is an empty class."""

    class Absent(type):
        def __getattr__(cls, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return Absent(name, (), {})

    for name in ("torch", "torch.nn", "torch.optim", "torch.nn.functional", "torch.utils.data"):
        sys.modules.setdefault(name, Absent(name, (), {}))


def obp_values(feedback, target, q):
    """What obp makes of one target, (n, k) probabilities, its feedback dictionary and predicted rewards, (n, k)."""
    absent_torch()
    from obp import ope

    known = {
        "reward": feedback["reward"],
        "action": feedback["action"],
        "pscore": feedback["pscore"],
        "position": np.zeros(len(target), dtype=int),
        "action_dist": target[:, :, None],
        "estimated_rewards_by_reg_model": q[:, :, None],
    }
    found = {
        "ips": ope.InverseProbabilityWeighting(),
        "snips": ope.SelfNormalizedInverseProbabilityWeighting(),
        "dm": ope.DirectMethod(),
        "dr": ope.DoublyRobust(),
    }
    values = {name: float(one.estimate_policy_value(**known)) for name, one in found.items()}
    ends = found["dr"].estimate_interval(**known, alpha=0.05, n_bootstrap_samples=2000, random_state=0)
    values["dr interval"] = [ends["95.0% CI (lower)"], ends["95.0% CI (upper)"]]
    # Cut weights are those of a log whose propensities are larger.
    chosen = target[np.arange(len(target)), feedback["action"]]
    known["pscore"] = np.maximum(feedback["pscore"], chosen / CLIP)
    values["clipped"] = float(found["ips"].estimate_policy_value(**known))
    return values


def vw_values(lines, arms, target):
    """Values by ``vw --eval`` of a target that plays one arm per row, from lines of decision-service JSON."""
    from vowpalwabbit import Workspace

    values = {}
    for kind in ("ips", "dr"):
        workspace = Workspace(f"--cb {arms} --cb_type {kind} --eval --quiet")
        for line, arm in zip(lines, target, strict=True):
            event = json.loads(line)
            features = " ".join(f"{name}:{value}" for name, value in event["c"]["request"].items())
            label = f"{event['_label_Action']}:{event['_label_cost']}:{event['_label_probability']}"
            workspace.learn(f"{arm + 1} {label} | {features}")
        values[f"vw {kind}"] = -workspace.get_sum_loss() / len(lines)
        workspace.finish()
    with (
        tempfile.TemporaryDirectory() as folder
    ):  # and vw reads the export itself: as many events as there are
        whole = Path(folder, "log.dsjson")
        whole.write_text("".join(lines), encoding="utf-8")
        workspace = Workspace(f"--cb_explore_adf --dsjson --quiet -d {whole}")
        values["vw events"] = workspace.get_weighted_examples()
        workspace.finish()
    return values


def worker(folder):
    """Answer the question that lies in a folder."""
    with np.load(folder / "rows.npz", allow_pickle=False) as file:
        feedback = {name: file[name] for name in ("action", "reward", "pscore")}
        q, targets = file["q"], {name[7:]: file[name] for name in file.files if name.startswith("target:")}
    lines = (folder / "log.dsjson").read_text(encoding="utf-8").splitlines(keepends=True)
    answer = {}
    for name, target in targets.items():
        answer[name] = obp_values(feedback, target, q)
        if set(np.unique(target)) <= {0.0, 1.0}:
            answer[name] |= vw_values(lines, target.shape[1], target.argmax(axis=1))
    print(json.dumps(answer))


def frozen_lists(rows=300, items=5, places=3):
    """Lists that a softmax without replacement drew, and what obp's slate estimators make of another softmax."""
    absent_torch()
    from obp import ope

    rng = np.random.default_rng(11)

    def softmaxed(scores, arms):
        """Probability of each arm of a list after those above it."""
        left, found = np.exp(scores), []
        for arm in arms:
            found.append(left[arm] / left.sum())
            left[arm] = 0.0
        return np.array(found)

    def marginals(scores):
        """Probability of every arm at every place, (places, items), by trying all lists."""
        table = np.zeros((places, items))
        for arms in permutations(range(items), places):
            table[np.arange(places), arms] += softmaxed(scores, arms).prod()
        return table

    log = {name: [] for name in ("arms", "rewards", "marginal", "prefix")}
    target = {"marginal": [], "prefix": []}
    for _ in range(rows):
        own, other = rng.standard_normal((2, items))
        arms = np.argsort(-(own + rng.gumbel(size=items)))[:places]
        log["arms"].append(arms.tolist())
        log["rewards"].append((rng.random(places) < 0.2 + 0.1 * arms).astype(float).tolist())
        for scores, into in ((own, log), (other, target)):
            into["marginal"].append(marginals(scores)[np.arange(places), arms].tolist())
            into["prefix"].append(softmaxed(scores, arms).cumprod().tolist())
    flat = {
        "slate_id": np.repeat(np.arange(rows), places), "position": np.tile(np.arange(places), rows),
        "reward": np.ravel(log["rewards"]),
    }  # fmt: skip
    for of, name in ((log, ""), (target, "evaluation_policy_")):
        prefix = np.array(of["prefix"])
        flat[f"{name}pscore"] = np.repeat(prefix[:, -1], places)
        flat[f"{name}pscore_item_position"] = np.ravel(of["marginal"])
        flat[f"{name}pscore_cascade"] = prefix.ravel()
    kinds = {
        "places": ope.SlateIndependentIPS, "cascade": ope.SlateRewardInteractionIPS, "lists": ope.SlateStandardIPS,
    }  # fmt: skip
    values = {
        name: float(kind(len_list=places).estimate_policy_value(**flat)) for name, kind in kinds.items()
    }
    return {"obp": values, "log": {"arms_of": items, **log}, "target": target}


def frozen(folder):
    """Let both draw a log and value every arm on it; write files and values."""
    (folder / "lists.json").write_text(json.dumps(frozen_lists()) + "\n", encoding="utf-8")
    values = {"obp": frozen_obp(folder / "open-bandit.csv"), "vw": frozen_vw(folder / "decisions.dsjson")}
    (folder / "values.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def frozen_obp(path, rows=400, items=4):
    """A synthetic log of obp in the columns of the Open Bandit Dataset, and IPS and SNIPS of every item by obp."""
    absent_torch()
    import pandas
    from obp import dataset, ope

    drawn = dataset.SyntheticBanditDataset(
        n_actions=items,
        dim_context=2,
        reward_function=dataset.logistic_reward_function,
        behavior_policy_function=dataset.linear_behavior_policy,
        random_state=7,
    ).obtain_batch_bandit_feedback(n_rounds=rows)
    frame = pandas.DataFrame({
        "timestamp": pandas.date_range("2019-11-24", periods=rows, freq="7s", tz="UTC").astype(str),
        "item_id": drawn["action"], "position": 1, "click": drawn["reward"].astype(int),
        "propensity_score": drawn["pscore"],
    })  # fmt: skip
    for i, column in enumerate(drawn["context"].T):  # features of users are categories there
        frame[f"user_feature_{i}"] = pandas.qcut(column, 3, labels=["4ae385", "81ce12", "cef3390"]).astype(
            str
        )
    frame.to_csv(path)
    again = pandas.read_csv(path)
    found = {}
    for item in range(items):
        known = {
            "reward": again["click"].to_numpy(), "action": again["item_id"].to_numpy(),
            "pscore": again["propensity_score"].to_numpy(), "position": np.zeros(rows, dtype=int),
            "action_dist": np.broadcast_to(np.eye(items)[item][None, :, None], (rows, items, 1)),
        }  # fmt: skip
        found[str(item)] = {
            "ips": float(ope.InverseProbabilityWeighting().estimate_policy_value(**known)),
            "snips": float(ope.SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(**known)),
        }
    return found


def frozen_vw(path, rows=240, actions=3):
    """Decisions with the probabilities that an exploring vw gives while it learns, and IPS of every action by vw."""
    from vowpalwabbit import Workspace

    rng = np.random.default_rng(3)
    explorer = Workspace("--cb_explore_adf --epsilon 0.4 --dsjson --quiet --random_seed 5")
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            x = rng.standard_normal(2).round(4)
            event = {
                "Timestamp": f"2024-05-31T12:{i // 60:02d}:{i % 60:02d}.0000000Z",
                "EventId": f"{rng.integers(1 << 60):016x}",
                "c": {
                    "User": {"load": float(x[0]), "zone": ["eu", "us"][int(rng.integers(2))]},
                    "_multi": [{"_tag": f"arm{a}", "Model": {"id": f"m{a}"}} for a in range(actions)],
                },
                "a": list(range(1, actions + 1)), "p": [1.0 / actions] * actions, "VWState": {"m": "v1"},
            }  # fmt: skip
            shares = np.array(explorer.predict(json.dumps(event)))
            shares /= shares.sum()
            chosen = int(rng.choice(actions, p=shares))
            cost = -float(rng.random() < 0.4 + 0.15 * chosen + 0.1 * np.tanh(x[0]))
            order = [chosen, *(a for a in range(actions) if a != chosen)]
            own = {
                "_label_cost": cost, "_label_probability": float(shares[chosen]), "_label_Action": chosen + 1,
                "_labelIndex": chosen, "a": [a + 1 for a in order], "p": [float(shares[a]) for a in order],
            }  # fmt: skip
            line = json.dumps({**{k: v for k, v in own.items() if k.startswith("_")}, **event,
                               **{k: v for k, v in own.items() if k in "ap"}})  # fmt: skip
            explorer.learn(line)
            file.write(line + "\n")
    explorer.finish()
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    reader = Workspace(f"--cb_explore_adf --dsjson --quiet -d {path}")
    if reader.get_weighted_examples() != rows:
        raise RuntimeError(f"vw must read its {rows} events, got {reader.get_weighted_examples()}")
    reader.finish()
    found = {}
    for action in range(actions):
        judge = Workspace(f"--cb {actions} --cb_type ips --eval --quiet")
        for line in lines:
            event = json.loads(line)
            label = f"{event['_label_Action']}:{event['_label_cost']}:{event['_label_probability']}"
            judge.learn(f"{action + 1} {label} | load:{event['c']['User']['load']}")
        found[str(action)] = -judge.get_sum_loss() / rows
        judge.finish()
    return found


# Here.


def log(kind, rows=4000, arms=5, dim=6, seed=0):
    """A linear problem logged uniformly, softly or with skewed shares; and targets on it."""
    from banditroute import Trace

    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, dim))
    means = 0.5 + x @ rng.standard_normal((dim, arms)) / 8
    soft, halves = np.exp(4.0 * means), 0.5 ** np.arange(arms)
    shares = {
        "uniform": np.full((rows, arms), 1.0 / arms),
        "soft": 0.1 / arms + 0.9 * soft / soft.sum(axis=1, keepdims=True),
        "skewed": np.broadcast_to(0.1 / arms + 0.9 * halves / halves.sum(), (rows, arms)),
    }[kind]  # fmt: skip
    chosen = (rng.random((rows, 1)) > shares.cumsum(axis=1)[:, :-1]).sum(axis=1)
    each = np.arange(rows)
    trace = Trace(
        names=[f"arm {a}" for a in range(arms)], arms=chosen, propensities=shares[each, chosen], contexts=x,
        rewards=means[each, chosen] + 0.1 * rng.standard_normal(rows),
    )  # fmt: skip
    greedy = np.eye(arms)[means.argmax(axis=1)]
    return trace, {
        "greedy": greedy,
        "one arm": np.eye(arms)[np.full(rows, 2)],
        "mixed": 0.7 * greedy + 0.3 / arms,
    }


def ours(trace, targets):
    """Our estimates, and the predicted rewards (n, k) behind DM and DR."""
    from banditroute.evaluation import compare, expected_rewards

    return compare(trace, targets, clip=CLIP), expected_rewards(trace, ridge=1.0, folds=5)


def differences(found, theirs, rows):
    """What is compared, per target: absolute differences, and some in standard errors of ours."""
    table = []
    for name, answer in theirs.items():
        one = found[name]
        table += [(name, e, abs(answer[e] - one[e].value), "") for e in SAME]
        ends = (
            np.abs(np.subtract(answer["dr interval"], [one["dr"].low, one["dr"].high])) / one["dr"].std_error
        )
        table.append((name, "dr interval", float(ends.max()), "s.e."))
        if "vw ips" in answer:
            table.append((name, "vw ips", abs(answer["vw ips"] - one["ips"].value), ""))
            table.append(
                (name, "vw dr", abs(answer["vw dr"] - one["dr"].value) / one["ips"].std_error, "s.e.")
            )
            table.append((name, "vw events", abs(answer["vw events"] - rows), "events"))
    return table


def compared(python, kind):
    """Differences on one kind of log, with the others run by the given Python."""
    from banditroute.logs import to_dsjson, to_obp

    trace, targets = log(kind)
    found, q = ours(trace, targets)
    with tempfile.TemporaryDirectory() as folder:
        feedback = {n: v for n, v in to_obp(trace).items() if n in ("action", "reward", "pscore")}
        np.savez(Path(folder, "rows.npz"), q=q, **feedback, **{f"target:{n}": t for n, t in targets.items()})
        to_dsjson(trace, Path(folder, "log.dsjson"))
        done = subprocess.run(
            [python, "-W", "ignore", __file__, "--worker", folder],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"the worker failed: {done.stderr.strip()[-2000:]}")
    return differences(found, json.loads(done.stdout.splitlines()[-1]), len(trace))


def others():
    """Python of an environment that has both, made on first use."""
    from peers.process import interpreter

    python = interpreter("agreement")
    if subprocess.run(
        [python, "-m", "pip", "show", "--quiet", "obp"], capture_output=True, check=False
    ).returncode:
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", OBP], check=True)
    return python


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print the differences as JSON")
    parser.add_argument("--freeze", action="store_true", help="write what the tests hold of them anew")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--writer", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker is not None or args.writer is not None:
        (worker if args.writer is None else frozen)(args.worker or args.writer)
        return 0
    python = others()
    if args.freeze:
        folder = Path(__file__).resolve().parents[1] / "tests" / "data" / "peers-1"
        folder.mkdir(exist_ok=True)
        return subprocess.run([python, "-W", "ignore", __file__, "--writer", folder], check=False).returncode
    rows = [(kind, *row) for kind in ("uniform", "soft", "skewed") for row in compared(python, kind)]
    if args.json:
        print(json.dumps(rows))
        return 0
    for kind, target, what, value, unit in rows:
        print(f"{kind:8s} {target:8s} {what:12s} {value:.3g} {unit}")
    exact = max(value for _, _, what, value, _ in rows if what in SAME)
    single = max(value for _, _, what, value, _ in rows if what == "vw ips")
    noisy = max(value for *_, value, unit in rows if unit == "s.e.")
    print(f"\nlargest absolute difference: {exact:.2g} to obp, {single:.2g} to vw (single precision); "
          f"fits and intervals of their own: at most {noisy:.2f} standard errors apart")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
