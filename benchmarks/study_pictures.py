"""The pictures of docs/studies/polar.md; study_page.py calls `draw`."""

from pathlib import Path
from typing import Any

import numpy as np
import study_controllers as study
from recorded import WORKLOADS

from banditroute import LRU, LinUCB, PagingModel, Polar, Polaris, Static, simulate
from banditroute.plots import COLOURS, DASHES, page, regret_bands, regret_slope, residency_timeline
from banditroute.plots.canvas import name_points
from banditroute.simulation import best_static_set

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "studies"
NAMES = {"Polar": "POLAR", "PolarPlus": "POLAR+", "DecayedLFU": "decayed LFU", "oracle": "best fixed set",
         "textbook": "best fixed set, textbook router", "random": "random routing"}  # fmt: skip
OURS = ("Polaris", "Polar", "PolarPlus")
LENGTH = 32768
Runs = dict[str, dict[str, dict[int, dict[str, Any]]]]


def named(controller: str) -> str:
    """Return the name of a controller on the page."""
    return NAMES.get(controller, controller)


def values(runs: dict[str, dict[int, dict[str, Any]]], key: str = "regret") -> dict[str, np.ndarray]:
    """Return one figure of every controller, seed by seed in the same order."""
    return {n: np.array([row[key] for row in own.values()], dtype=float) for n, own in runs.items()}


def draw(by: Runs, folder: Path) -> None:
    """Draw every picture of the page."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    times = np.unique(np.geomspace(LENGTH / 128, LENGTH, 33).astype(int))
    curves = {
        f: {named(n): [r["curve"] for r in own.values()] for n, own in runs.items()} for f, runs in by.items()
    }
    shown = ("Polaris", "POLAR", "POLAR+", "LRU", "decayed LFU", "best fixed set")
    for picture, pair in {"regret": ("homes", "abrupt"), "regret-lost": ("clustered", "cheap")}.items():
        with page(1, 2, path=PICTURES / f"{picture}.png", width=9.6, height=3.4) as axes:
            for ax, family in zip(axes, pair, strict=True):
                regret_bands({n: curves[family][n] for n in shown}, times, ax=ax)
                ax.set_title(family)
    with page(1, 1, path=PICTURES / "slope.png", width=6.4, height=5.2) as (ax,):
        shown = ("Polaris", "POLAR", "POLAR+", "LRU", "LFU", "best fixed set")
        regret_slope({n: curves["homes"][n] for n in shown}, times, ax=ax)
        ax.set_title("homes: how regret grows")
    with page(1, 1, path=PICTURES / "gaps.png", width=6.4, height=4.2) as (ax,):
        for i, (name, (tops, _, steep)) in enumerate(study.worst(folder / "gaps.jsonl").items()):
            ax.plot(study.LENGTHS, tops, marker="o", color=COLOURS[i % len(COLOURS)], ls=DASHES[i % len(DASHES)],
                    label=f"{named(name)}: {steep:.2f}")  # fmt: skip
        ax.set(xscale="log", yscale="log", xlabel="requests T", ylabel="regret, worst gap scale",
               title="Worst case over gaps, and its slope")  # fmt: skip
        ax.set_xticks(study.LENGTHS, [f"{t:,}" for t in study.LENGTHS])
        ax.set_xticks([], minor=True)
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    with page(1, 3, path=PICTURES / "parts.png", width=11.0, height=3.8) as axes:
        for ax, family in zip(axes, ("homes", "abrupt", "cheap"), strict=True):
            parts_of(by[family], ax)
            ax.set_title(family)
        axes[0].legend()
    with page(1, 2, path=PICTURES / "hits.png", width=10.0, height=4.2) as axes:
        for ax, family in zip(axes, ("homes", "sized"), strict=True):
            hits, regret = values(by[family], "hits"), values(by[family])
            across, up = (np.array([own[n].mean() for n in hits]) for own in (hits, regret))
            colours = [COLOURS[0] if n in OURS else "#333333" for n in hits]
            ax.scatter(across, up, color=colours)
            ax.margins(0.12)
            name_points(ax, [named(n) for n in hits], across, up, colours)
            ax.set(xlabel="share served from residents", ylabel="regret", title=family)
    served()


def parts_of(runs: dict[str, dict[int, dict[str, Any]]], ax: Any) -> None:
    """Draw where each controller lost: mean route, residency and switching."""
    names = ("oracle", *OURS, "LRU", "LFU", "DecayedLFU", "GDSF", "SIEVE", "FIFO", "FTPL")
    rows = np.arange(len(names))
    right, left = np.zeros(len(names)), np.zeros(len(names))
    for colour, part in zip(COLOURS, ("route", "residency", "switching"), strict=False):
        height = np.array([values(runs, part)[n].mean() for n in names])
        ax.barh(rows, height, left=np.where(height >= 0, right, left), color=colour, label=part)
        right, left = right + np.maximum(height, 0.0), left + np.minimum(height, 0.0)
    ax.set_yticks(rows, [named(n) for n in names], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("regret")


def served() -> None:
    """Draw who is resident when, and how long requests wait, on one seed of the abrupt drift."""
    problem = WORKLOADS["abrupt"](LENGTH, 100)
    stream, paging = problem.stream, PagingModel()
    best = best_static_set(stream, problem.capacity, problem.faults)
    makers = {"Polaris": lambda: Polaris(4), "POLAR": lambda: Polar(4), "LRU": lambda: LRU(4), "best fixed set":
              lambda: Static(best)}  # fmt: skip
    runs = {n: simulate(LinUCB(stream.arms, stream.dim, rng=100), problem, m()) for n, m in makers.items()}
    with page(3, 1, path=PICTURES / "timeline.png", width=8.0, height=7.0) as axes:
        for ax, name in zip(axes, ("Polaris", "POLAR", "LRU"), strict=True):
            residency_timeline(runs[name], [str(a) for a in stream.arms], ax=ax).set_title(
                f"Resident under {name}"
            )
    medians = paging.latency_ms(len(stream.arms))
    noise = np.exp(paging.jitter * np.random.default_rng([100, 1]).standard_normal(len(stream)))
    with page(1, 1, path=PICTURES / "latency.png", width=7.0, height=3.8) as (ax,):
        for i, (name, run) in enumerate(runs.items()):
            waits = np.sort(np.where(run.hits, 0.0, medians[run.arms] * noise))[::-1]
            p99 = np.percentile(waits, 99)
            ax.plot(waits, (np.arange(len(waits)) + 1) / len(waits), color=COLOURS[i], ls=DASHES[i], drawstyle="steps",
                    label=f"{name}: faults {1 - run.hits.mean():.1%}, p99 {p99:.0f} ms")  # fmt: skip
        ax.set(xlabel="wait added by paging, ms", ylabel="share that waits longer", yscale="log", ylim=(1e-4, 1.0),
               title="abrupt, seed 100: waits for adapters")  # fmt: skip
        ax.legend()
