"""Tables of a comparison, as `report.py` puts them into the documents and as the driver prints them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peers import LABELS, OTHERS, OURS, YARDSTICK

Cell = str | int | float | None


def tables(
    timing: Sequence[dict], regret: Sequence[dict], about: Mapping, failed: Mapping, where: Mapping
) -> dict:
    """All tables by name, from the rows of `run_peers.py`, the peers, those left out, and the machine."""
    at = {(row["peer"], row["arms"], row["dim"], row["stream"], row["alpha"]): row for row in timing}
    names = [name for name in LABELS if name in about]
    shapes = list(dict.fromkeys((row["arms"], row["dim"]) for row in timing if row["peer"] in OTHERS))
    common = {name: [at.get((name, *shape, "clustered", 0.3)) for shape in shapes] for name in names}
    columns = ["library", *(f"{arms} x {dim}" for arms, dim in shapes)]
    made = {"peers-reference": _reference(at)}
    for kind in ("select", "update"):
        rows = [[LABELS[name], *(_compared(row, kind) for row in common[name])] for name in names]
        note = f"CPU time per {kind} in us, in brackets as a multiple of ours in the same run; alpha 0.3."
        made[f"peers-{kind}"] = {"columns": columns, "rows": rows, "note": note}
    made["peers-memory"] = _memory(names, shapes, common)
    made["peers-regret"] = _regret(regret)
    made["peers-setup"] = _setup(names, about, failed, where)
    return made


def _reference(at: Mapping[tuple, dict]) -> dict:
    rows: list[list[Cell]] = []
    for (peer, arms, dim, stream, alpha), row in at.items():
        mine = at.get((OURS, arms, dim, stream, alpha))
        if peer == YARDSTICK and mine:
            cells: list[Cell] = [f"{arms} x {dim}", stream, alpha]
            for kind in ("select", "update"):
                cells += [mine[kind]["cpu_us"], row[kind]["cpu_us"], f"{row[kind]['ratio']:.1f}x"]
            tails = [mine["select"]["p99_us"], row["select"]["p99_us"]]
            rows.append([*cells, *tails, f"{mine['best_share']:.1%}"])
    kinds = [f"{kind} {what}" for kind in ("select", "update") for what in ("us", "numpy us", "ratio")]
    return {
        "columns": ["arms x dim", "contexts", "alpha", *kinds, "p99 us", "numpy p99 us", "same best arm"],
        "rows": rows,
        "note": "CPU time per call of ours and of the numpy reference, both after the reference's history; "
        "p99 of selections timed one by one, by the clock: a value near 8,000 us beside a select of a few hundred is a "
        "time slice that the scheduler gave to another process, and bounds what was measured, not what a call takes. "
        "Same best arm: share of 200 contexts where our choice is the "
        "best in the reference's scores, equals within 1e-9 included.",
    }


def _compared(row: dict | None, kind: str) -> str | None:
    if row is None:
        return None
    figure, ratio = _short(row[kind]["cpu_us"]), row[kind]["ratio"]
    return figure if ratio is None or row["peer"] == OURS else f"{figure} ({_short(ratio)}x)"


def _memory(names: Sequence[str], shapes: Sequence[tuple[int, int]], common: Mapping[str, list]) -> dict:
    large = [arms * dim * dim * 8 >= 1e6 for arms, dim in shapes]  # below, a page more or less decides
    rows: list[list[Cell]] = []
    for name in names:
        measured = [row for row, wanted in zip(common[name], large, strict=True) if wanted]
        rows.append([LABELS[name], *(row and row["memory_bytes"] / row["arms"] / 1e3 for row in measured)])
    return {
        "columns": [
            "library",
            *(f"{n} x {d}" for (n, d), wanted in zip(shapes, large, strict=True) if wanted),
        ],
        "rows": rows,
        "note": "Growth of the process from before the policy was made to after it learned, kB per arm. "
        "river makes an arm when it is first played; Vowpal Wabbit hashes all arms into one table of fixed "
        "size.",
    }


def _regret(regret: Sequence[dict]) -> dict:
    rows = []
    for row in regret:
        compared = "difference" in row and row["peer"] != OURS
        difference = f"{row['difference']:+.1f} ± {row['half_width']:.1f}" if compared else None
        rows.append([LABELS[row["peer"]], row["mean"], difference, row["seeds"]])
    note = (
        f"Mean cumulative regret of 15 arms in 16 dimensions over {regret[0]['steps']:,} requests, contexts "
        "and parameters uniform on the sphere, noise 0.1, alpha 1 or the library's default; the same streams "
        "for all, differences in pairs."
    )
    return {
        "columns": ["library", "regret", "minus ours, 95 % interval", "seeds"],
        "rows": rows,
        "note": note,
    }


def _setup(names: Sequence[str], about: Mapping, failed: Mapping, where: Mapping) -> dict:
    rows = []
    for name in names:
        versions = ", ".join(f"{package} {number}" for package, number in about[name]["versions"].items())
        rows.append([LABELS[name], about[name]["setting"], versions])
    note = (
        f"{where['processor']}, {where['cores']} cores, {', '.join(where['caches'])}; {where['date']}, "
        f"load average {where['load_average']} at the start."
    )
    if failed:
        note += f" Left out, because installing or running failed: {', '.join(sorted(failed))}."
    return {"columns": ["library", "what was run", "versions"], "rows": rows, "note": note}


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def show(made: Mapping[str, dict]) -> None:
    """The tables as aligned text on standard output."""
    for name, table in made.items():
        cells = [[_plain(cell) for cell in row] for row in [table["columns"], *table["rows"]]]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        print(f"\n{name}")
        for row in cells:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        print(table["note"])


def _plain(cell: Cell) -> str:
    return "" if cell is None else _short(cell) if isinstance(cell, float) else str(cell)
