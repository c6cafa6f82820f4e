"""Make the tables and pictures of docs/studies/polar.md from what the study measured.

    python benchmarks/study_page.py --runs out

`--runs` holds what `study_controllers.py` wrote: controllers*.jsonl, gaps.jsonl, recovery.jsonl, speed.json and
optimiser.json; and homes/ and sweep/ of ``python benchmarks/study_polar.py`` (docs/studies/polar.md has the commands).
Writes benchmarks/results/controllers.json, which report.py puts into the page, and docs/studies/*.png.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import study_controllers as study
import study_pictures
from study_pictures import LENGTH, OURS, Runs, named, values
from study_polar import summarised

from banditroute.simulation import interval

ROOT = Path(__file__).resolve().parents[1]
NAMED = (
    "homes",
    "abrupt",
    "gradual",
    "servegen",
    "digits",
)  # clustered Zipf, drift, digits: what a bar names
Table = dict[str, Any]


def online(names: Iterable[str]) -> list[str]:
    """Return the baselines that need no hindsight."""
    return [n for n in study.BASELINES if n in set(names)]


def spread(sample: np.ndarray) -> str:
    """Return a mean and its 95 % interval."""
    mean, low, high = interval(sample)
    return f"{mean:,.0f} [{low:,.0f}, {high:,.0f}]"


def families(by: Runs) -> Table:
    """Return regret of every family, and how Polaris stands against the best online baseline."""
    lines = []
    for family, runs in by.items():
        regret = values(runs)
        mean = {n: float(v.mean()) for n, v in regret.items()}
        best = min(online(mean), key=mean.__getitem__)
        over, low, high = study.excess(regret["Polaris"], regret[best])
        verdict = "yes" if high <= 0 else "in the mean" if over <= 0 else "unsure" if low <= 0 else "no"
        lines.append([
            family, len(regret["oracle"]),
            *(f"{mean[n]:,.0f}" for n in ("oracle", "Polaris", "Polar", "PolarPlus", "LRU")),
            f"{named(best)} {mean[best]:,.0f}", spread(regret["Polaris"] - regret[best]), verdict,
        ])  # fmt: skip
    columns = ["workload", "seeds", "best fixed set", "Polaris", "POLAR", "POLAR+", "LRU", "best online baseline",
               "Polaris less that, 95 %", "within 5 %"]  # fmt: skip
    note = ("Mean regret over seeds, T = 32,768. Within 5 %: mean regret of Polaris at most 1.05 times that of the "
            "best baseline; where that is negative, at least 0.95 of its gain on the best fixed set. Yes: so is the "
            "upper end of the paired 95 % interval. In the mean: the interval reaches beyond. Unsure: the mean is "
            "beyond, the interval reaches to within.")  # fmt: skip
    return {"columns": columns, "rows": lines, "note": note}


def wins(by: Runs) -> Table:
    """Return, for the workloads that move, the paired difference of each baseline to the best of our controllers."""
    lines = []
    for family in (f for f in (*NAMED, "clustered", "bursts") if f in by):
        regret = values(by[family])
        own = min(OURS, key=lambda n: regret[n].mean())
        gaps = {n: interval(regret[n] - regret[own]) for n in online(regret)}
        closest = min(gaps, key=lambda n: gaps[n][1])
        mean, low, high = gaps[closest]
        lines.append([
            family, f"{named(own)} {regret[own].mean():,.0f}",
            f"{named(closest)} {regret[closest].mean():,.0f}", f"{mean:,.0f} [{low:,.0f}, {high:,.0f}]",
            f"{sum(low > 0 for _, low, _ in gaps.values())} of {len(gaps)}",
        ])  # fmt: skip
    columns = [
        "workload",
        "least regret of ours",
        "hardest baseline",
        "that less ours, 95 %",
        "baselines beaten",
    ]
    note = (
        "Hardest: the lowest end of the paired 95 % interval. Beaten: the interval is above zero, unadjusted."
    )
    return {"columns": columns, "rows": lines, "note": note}


def unhelpful(by: Runs) -> Table:
    """Return where each of our controllers loses to the best online baseline, surely."""
    lines = []
    for own in OURS:
        lost = []
        for family, runs in by.items():
            regret = values(runs)
            best = min(online(regret), key=lambda n: regret[n].mean())
            mean, low, _ = interval(regret[own] - regret[best])
            if low > 0:
                lost.append((mean, f"{family} ({named(best)}, {mean:+,.0f})"))
        lines.append([named(own), len(lost), ", ".join(text for _, text in sorted(lost, reverse=True))])
    note = "Behind the online baseline of least mean regret, paired 95 % interval above zero. All other workloads: not."
    return {"columns": ["controller", "workloads", "which"], "rows": lines, "note": note}


def unlucky(by: Runs) -> Table:
    """Return where single seeds of our controllers lose more than LRU on the same seed, and the worst of them."""
    lines = []
    for own in OURS:
        found = []
        for family, runs in by.items():
            regret = values(runs)
            lost = regret[own] - regret["LRU"] - 0.05 * np.abs(regret["LRU"])
            if (lost > 0).any():
                at = int(lost.argmax())
                text = (
                    f"{family} ({(lost > 0).sum()}: {regret[own][at]:,.0f} against {regret['LRU'][at]:,.0f})"
                )
                found.append((lost.max(), text))
        lines.append([named(own), len(found), ", ".join(text for _, text in sorted(found, reverse=True))])
    note = "Number of seeds that lose more than 5 % beyond LRU on the same seed, and regret of the worst of them."
    return {"columns": ["controller", "workloads", "which"], "rows": lines, "note": note}


def recovered(path: Path) -> Table:
    """Return the share served from residents after a shift of popularity."""
    by: dict[str, list[dict[str, Any]]] = {}
    for row in study.rows(path):
        by.setdefault(row["controller"], []).append(row)
    lines = []
    for name, own in by.items():
        before, after = np.array([r["before"] for r in own]), np.array([r["after"] for r in own])
        there, course = (after.max(axis=1) >= 0.9 * before).mean(), after.mean(axis=0) / before.mean()
        ends = np.mean([r["later"] for r in own]) / before.mean()
        cells = [f"{c:.2f}" for c in (*course, ends)]
        lines.append([named(name), len(own), f"{before.mean():.3f}", *cells, f"{there:.0%}"])
    columns = ["controller", "seeds", "share before", "0-250", "250-500", "500-750", "750-1,000", "last 8,000",
               "seeds at 0.9 in 1,000"]  # fmt: skip
    note = ("Share served from residents in stretches of requests after the shift, relative to 2,000 before it. Last "
            "column: seeds of which a stretch within 1,000 requests reaches 0.9.")  # fmt: skip
    return {"columns": columns, "rows": lines, "note": note}


def over_gaps(path: Path) -> Table:
    """Return the worst case over gap scales."""
    seeds = len({row["seed"] for row in study.rows(path)})
    lines = [
        [named(name), *(f"{w:,.0f} ({g:g})" for w, g in zip(tops, where, strict=True)), f"{steep:.2f}"]
        for name, (tops, where, steep) in study.worst(path).items()
    ]
    note = f"Largest over gap scales of the mean regret over {seeds} seeds, and the scale; slope over the three T."
    return {
        "columns": ["router", *(f"T = {t:,}" for t in study.LENGTHS), "slope"],
        "rows": lines,
        "note": note,
    }


def homes(rows: list[dict[str, Any]]) -> Table:
    """Return the table of the basic family, with every contestant of the command line."""
    table = summarised(rows)
    table["columns"] = [c.replace("oracle set", "best fixed set") for c in table["columns"]]
    for line in table["rows"]:
        line[0] = named("oracle") if line[0] == "oracle set" else line[0]
    seeds = len({r["seed"] for r in rows})
    return {
        **table,
        "note": f"{seeds} seeds, T = {LENGTH:,}; means, with ± half a 95 % interval where it is shown.",
    }


def swept(rows: list[dict[str, Any]]) -> Table:
    """Return regret on the basic family by slots, epoch of POLAR and exploration width."""
    names = ("POLAR", "POLAR+", "Polaris", "LRU", "oracle set")
    by: dict[tuple[str, int, str], dict[str, list[float]]] = {}
    for row in rows:
        setting = row["capacity"], row["epoch"], row["alpha"]
        by.setdefault(setting, {}).setdefault(row["controller"], []).append(row["regret"])
    lines = []
    for (slots, epoch, alpha), own in sorted(
        by.items(), key=lambda i: (i[0][2] != "auto", i[0][2], int(i[0][0]), i[0][1])
    ):
        cells = [plus_minus(interval(own[n])) if n in own else "" for n in names]
        lines.append([f"K = {slots}, epoch {epoch}, alpha {alpha}", *cells])
    count = len(next(iter(by.values()))["POLAR"])
    columns = ["setting", *(named("oracle") if n == "oracle set" else n for n in names)]
    note = f"Regret on homes, {count} seeds, ± half a 95 % interval. The epoch is that of POLAR; only there it matters."
    return {"columns": columns, "rows": lines, "note": note}


def plus_minus(figures: tuple[float, float, float]) -> str:
    """Return "mean ± half the interval"."""
    return f"{figures[0]:,.0f} ± {figures[2] - figures[0]:,.0f}"


def bars(by: Runs, folder: Path) -> Table:
    """Return what was asked of the controllers, and what was measured."""
    lines: list[list[Any]] = []

    def bar(text: str, asked: str, measured: str, met: bool) -> None:
        lines.append([text, asked, measured, "yes" if met else "no"])

    base, seeds = by["homes"], len(by["homes"]["oracle"])
    regret = values(base)
    for name, most in (("PolarPlus", 0.25), ("Polar", 0.4)):
        slopes = [r["slope"] for r in base[name].values()]
        bar(f"homes: log-log slope of {named(name)}, mean of {seeds} seeds", "<= 0.65",
            f"{np.mean(slopes):.2f} (largest {np.max(slopes):.2f})", float(np.mean(slopes)) <= 0.65)  # fmt: skip
        part = (regret[name] - regret["oracle"]) / (regret["LRU"] - regret["oracle"])
        bar(f"homes: (regret - best set) / (LRU - best set), {named(name)}, median", f"<= {most}",
            f"{np.median(part):.2f}", bool(np.median(part) <= most))  # fmt: skip
    loads = max(r["page_ins"] for r in base["PolarPlus"].values())
    bar("homes: loads of POLAR+", "<= K (1 + log2 T) = 64", f"at most {loads}", loads <= 64)
    gaps = study.worst(folder / "gaps.jsonl")
    bar("worst case over gaps, best fixed set: slope", "0.40 to 0.65", f"{gaps['textbook'][2]:.2f} textbook router, "
        f"{gaps['oracle'][2]:.2f} default", 0.4 <= gaps["textbook"][2] <= 0.65)  # fmt: skip
    bar("the same, random routing", ">= 0.95", f"{gaps['random'][2]:.2f}", gaps["random"][2] >= 0.95)
    found = json.loads((folder / "optimiser.json").read_text())
    swaps = (
        [v for k, v in found.items() if k.endswith("swap mean")],
        [v for k, v in found.items() if k.endswith("swap min")],
    )
    greedy = min(v for k, v in found.items() if k.endswith("greedy min"))
    bar(
        "optimiser, 3 x 1,000 instances: greedy / exact",
        ">= 0.632",
        f"at least {greedy:.3f}",
        greedy >= 1 - 1 / np.e,
    )
    bar("greedy + swap / exact", "mean >= 0.998, min >= 0.93", f"mean {min(swaps[0]):.4f}, min {min(swaps[1]):.3f}",
        min(swaps[0]) >= 0.998 and min(swaps[1]) >= 0.93)  # fmt: skip
    bar(
        "optimiser, 500 adapters, 64 slots, 2,048 contexts",
        "< 10 ms",
        f"{found['ms']:.1f} ms",
        found["ms"] < 10,
    )
    beaten = {line[0]: complete(line[4]) for line in wins(by)["rows"]}
    good = [family for family in NAMED if beaten[family]]
    bar(
        "one of ours beats every online baseline: " + ", ".join(NAMED),
        "all",
        ", ".join(good),
        len(good) == len(NAMED),
    )
    bar("the same: clustered, working sets that come and go", "all", "yes" if beaten["clustered"] else "no; see below",
        beaten["clustered"])  # fmt: skip
    ratio = [
        float(values(r)["Polaris"].mean() / values(r)["LRU"].mean())
        for r in by.values()
        if values(r)["LRU"].mean() > 0
    ]
    count = f"of {len(ratio)} where LRU has regret"
    bar("Polaris / LRU, median workload", "<= 0.3", f"{np.median(ratio):.2f} {count}",
        float(np.median(ratio)) <= 0.3)  # fmt: skip
    verdicts = {line[0]: line[-1] for line in families(by)["rows"]}
    over = [f if v == "no" else f"{f} (unsure)" for f, v in verdicts.items() if v in ("no", "unsure")]
    sure = sum(v == "yes" for v in verdicts.values())
    bar("Polaris within 5 % of the best online baseline on every workload, in the mean", "all",
        f"{len(by) - len(over)} of {len(by)}" + (f"; not {', '.join(over)}" if over else ""), not over)  # fmt: skip
    bar("the same, upper end of the paired 95 % interval", "", f"{sure} of {len(by)}", sure == len(by))
    back = {line[0]: line for line in recovered(folder / "recovery.jsonl")["rows"]}["Polaris"]
    bar("ServeGen shift: share of residents back at 90 % within 1,000 requests, Polaris", "yes",
        f"{back[6]} at 750-1,000 in the mean; {back[8]} of seeds singly", float(back[6]) >= 0.9)  # fmt: skip
    speed = json.loads((folder / "speed.json").read_text())
    polar = speed["Polar(4, 500, sample=512)"]
    bar("a million requests of the study loop, POLAR", "< 3 s CPU", f"{polar:.1f} s", polar < 3.0)
    return {"columns": ["bar", "asked", "measured", "met"], "rows": lines}


def complete(text: str) -> bool:
    """Tell whether "7 of 8" is all."""
    count, total = text.split(" of ")
    return count == total


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Read the runs of ``python benchmarks/study_polar.py``."""
    return list(study.rows(folder / "runs.jsonl"))


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=Path("out"))
    parser.add_argument("--only", choices=("tables", "pictures"))
    given = parser.parse_args()
    folder = given.runs
    every = folder / "controllers-all.jsonl"
    every.write_text("".join(p.read_text() for p in sorted(folder.glob("controllers*.jsonl")) if p != every))
    by = study.summarised(every)
    shared = sorted(set.intersection(*(set(runs["oracle"]) for runs in by.values())))
    by = {
        f: {
            n: {s: {**own[s], "regret": round(own[s]["regret"], 1)} for s in shared}
            for n, own in runs.items()
        }
        for f, runs in by.items()
    }
    print(f"{len(by)} workloads, {len(shared)} seeds each: {shared}")
    if given.only != "pictures":
        tables = {
            "study-bars": bars(by, folder),
            "study-wins": wins(by),
            "study-families": families(by),
            "study-unhelpful": unhelpful(by),
            "study-unlucky": unlucky(by),
            "study-homes": homes(rows_of(folder / "homes")),
            "study-sweep": swept(rows_of(folder / "sweep")),
            "study-gaps": over_gaps(folder / "gaps.jsonl"),
            "study-recovery": recovered(folder / "recovery.jsonl"),
        }
        regret = {f: {n: v.round(1).tolist() for n, v in values(runs).items()} for f, runs in by.items()}
        result = {"length": LENGTH, "seeds": shared, "tables": tables, "regret": regret}
        path = ROOT / "benchmarks" / "results" / "controllers.json"
        path.write_text(json.dumps(result, indent=None, separators=(",", ":")).replace('],"', '],\n"') + "\n")
    if given.only != "tables":
        study_pictures.draw(by, folder)


if __name__ == "__main__":
    main()
