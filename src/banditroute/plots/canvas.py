"""What all pictures share: colours, the sheet they are drawn on, and the table behind each."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray

from banditroute._core.typing import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = ["COLOURS", "DASHES", "REST", "STYLE", "data", "page", "svg"]


# Okabe and Ito's colours, which stay apart under all common kinds of colour blindness, the strongest first; dashes
# tell lines apart where colour is gone.
COLOURS = ("#0072B2", "#D55E00", "#E69F00", "#009E73", "#333333", "#CC79A7", "#56B4E9", "#F0E442")
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (2, 2)), (0, (8, 2)))
REST = "#D9D9D9"
STYLE: Any = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#888888",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E8E8E8",
    "grid.linewidth": 0.8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
}
# On a page that may be dark, what is drawn in ink takes the colour of the text, and paper is left away.
_INK, _GRID = "#010203", "#888889"
_INKED: Any = {
    **STYLE,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
    "grid.color": _GRID,
    "grid.alpha": 0.25,
    "svg.fonttype": "path",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_BEHIND: WeakKeyDictionary[Axes, dict[str, NDArray[Any]]] = WeakKeyDictionary()


@contextmanager
def page(
    rows: int, columns: int, *, path: str | Path, width: float = 9.6, height: float = 3.6
) -> Iterator[list[Axes]]:
    """Give Axes to draw on and save them as a picture of ``width`` x ``height`` inches at 150 dpi when done.

    Works without a display and leaves matplotlib's global state alone.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with page(1, 1, path=folder + "/a.png", width=3, height=2) as (ax,):
    ...         lines = ax.plot([0, 1])
    ...     Path(folder, "a.png").exists()
    True
    """
    from matplotlib import rc_context

    with rc_context(STYLE):
        figure = _figure(width, height)
        yield list(figure.subplots(rows, columns, squeeze=False).ravel())
        figure.savefig(path)


def svg(draw: Callable[[Axes], object], title: str, *, width: float = 4.8, height: float = 3.2) -> str:
    """Return a drawing as an ``<svg>`` element for a page, light or dark: ink takes the colour of the text around it.

    Parameters
    ----------
    draw
        Draws on the Axes it is given.
    title
        What the drawing shows, for those who cannot see it.
    width, height
        Inches; the element shrinks with the page.

    Examples
    --------
    >>> svg(lambda ax: ax.plot([0, 1]), "A line")[:44]
    '<svg role="img" aria-label="A line" viewBox='
    """
    from html import escape

    from matplotlib import rc_context

    # Names inside an SVG are those of the whole page: the salt keeps drawings apart, and the same from run to run.
    with rc_context({**_INKED, "svg.hashsalt": title}):
        figure = _figure(width, height)
        draw(figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    body = re.sub(r"^.*?<svg[^>]*?(viewBox=\"[^\"]*\")[^>]*>", "", file.getvalue(), flags=re.DOTALL)
    box = re.search(r"viewBox=\"[^\"]*\"", file.getvalue())
    assert box is not None
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # Names of parts are written on the glyphs and groups alike; only referenced ones matter, and glyphs are shared.
    body = re.sub(r" id=\"(?:figure|axes|patch|line2d|text|xtick|ytick|matplotlib\.axis|legend|PolyCollection|"
                  r"FillBetweenPolyCollection|LineCollection|PathCollection)_\d+\"", "", body)  # fmt: skip
    for ink in (_INK, COLOURS[4]):
        body = body.replace(ink, "currentColor")
    return f'<svg role="img" aria-label="{escape(title)}" {box[0]} xmlns="http://www.w3.org/2000/svg" ' + (
        f'xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
    )


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def data(ax: Axes) -> dict[str, NDArray[Any]]:
    """Return the table behind what was last drawn on these Axes: columns of one length, ready for a data frame.

    Raises
    ------
    KeyError
        Nothing of ours was drawn on them.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute.plots import arm_shares
    >>> with tempfile.TemporaryDirectory() as folder, page(1, 1, path=folder + "/a.png") as (ax,):
    ...     data(arm_shares([0, 0, 1, 0], ["a", "b"], bins=2, ax=ax))["share"]
    array([1. , 0.5, 0. , 0.5])
    """
    if ax not in _BEHIND:
        raise KeyError("ax must have been drawn on by a function of banditroute.plots")
    return _BEHIND[ax]


def behind(axes: Axes, **columns: ArrayLike) -> None:
    """Keep the table that was drawn; columns broadcast to one length."""
    _BEHIND[axes] = {
        name: np.array(column)
        for name, column in zip(columns, np.broadcast_arrays(*columns.values()), strict=True)
    }


def joined(parts: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    """Return one table of the tables of several lines, one below the other."""
    whole = [dict(zip(p, np.broadcast_arrays(*p.values()), strict=True)) for p in parts]
    return {name: np.concatenate([p[name] for p in whole]) for name in whole[0]}


def given(ax: Axes | None) -> Axes:
    """Return the Axes, or the current ones of pyplot."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.gca()


def look(i: int) -> dict[str, Any]:
    """Return colour and dashes of the i-th line."""
    return {"color": COLOURS[i % len(COLOURS)], "ls": DASHES[i % len(DASHES)]}


# Contestants that many pictures share keep their looks in all of them.
_OWN = {
    name: i
    for i, names in enumerate(
        [
            ("Polaris", "LinUCB"),
            ("Polar", "textbook, alpha 0.1"),
            ("LRU", "textbook, alpha 0.3"),
            ("LFU", "best single arm"),
            ("uncached", "random"),
            ("static",),
            ("oracle",),
        ]
    )
    for name in names
}


def looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return colour and dashes by name: they belong to the contestant, whoever else is drawn.

    >>> looks(["LRU", "Polar"])["Polar"] == looks(["Polar", "Polaris"])["Polar"]
    True
    """
    drawn = list(dict.fromkeys(names))
    slots = {name: _OWN[name] for name in drawn if name in _OWN}
    for name in drawn:
        if name not in slots:
            at = zlib.crc32(name.encode()) % 6  # the strongest first
            taken = {slot % len(COLOURS) for slot in slots.values()}
            order = [*((at + i) % 6 for i in range(6)), *range(6, len(COLOURS))]
            free = next((i for i in order if i not in taken), None)
            slots[name] = len(slots) if free is None else free
    return {name: look(slot) for name, slot in slots.items()}


def titles(axes: Axes, title: str, across: str, up: str) -> None:
    """Write title and labels."""
    axes.set_title(title)
    axes.set_xlabel(across)
    axes.set_ylabel(up)


def few_ticks(axis: Axis, ticks: int = 6) -> None:
    """Number an axis sparsely, with thousands apart."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value == round(value) else f"{value:g}")


def plain_log(axis: Axis, ticks: int = 6) -> None:
    """Number a logarithmic axis with plain numbers: 0.1, 1, 1,000."""
    from matplotlib.ticker import LogLocator, NullFormatter

    low, high = np.log10(axis.get_view_interval())
    steps = (1.0,) if high - low > 2.5 else (1.0, 3.0) if high - low > 1.2 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(10, subs=steps, numticks=ticks))
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:.10g}")
    axis.set_minor_formatter(NullFormatter())


def percent(axis: Axis) -> None:
    """Number an axis in percent."""
    axis.set_major_formatter(lambda value, _: f"{100 * value:.4g}%")


def legend_below(axes: Axes, columns: int = 1) -> None:
    """Put the legend under the drawing, where it can hide nothing."""
    from matplotlib.transforms import ScaledTranslation

    assert axes.figure is not None
    place = axes.transAxes + ScaledTranslation(0.0, -0.5, axes.figure.dpi_scale_trans)
    axes.legend(
        loc="upper left", bbox_to_anchor=(0.0, 0.0), bbox_transform=place, ncols=columns, borderaxespad=0.0,
        handlelength=2.6, borderpad=0.0,
    )  # fmt: skip


def name_ends(axes: Axes, drawn: list[tuple[str, float, str]]) -> None:
    """Write the name of each line where it ends, apart from each other: easier to read than a legend."""
    axes.get_ylim()  # settles the limits
    places = axes.transAxes.inverted()
    ordered = sorted(drawn, key=lambda line: line[1])
    heights = np.array([places.transform(axes.transData.transform((1.0, end)))[1] for _, end, _ in ordered])
    for _ in range(100):  # neighbours closer than a line of text push each other apart
        short = np.maximum(0.06 - np.diff(heights), 0.0) / 2
        heights[:-1] -= short
        heights[1:] += short
        np.clip(heights, 0.02, 0.98, out=heights)
    for (name, _, colour), height in zip(ordered, heights, strict=True):
        axes.text(1.02, height, name, color=colour, transform=axes.transAxes, va="center", fontweight="bold")


def name_points(axes: Axes, names: Sequence[str], across: Floats, up: Floats, colours: Sequence[str]) -> None:
    """Write the name of each point where it hides no other name or point: above left if it can be."""
    figure = axes.figure
    assert figure is not None
    figure.canvas.draw()  # only now is it known how large the Axes are
    points = axes.transData.transform(np.column_stack([across, up])) * 72.0 / figure.dpi
    inside = np.asarray(axes.bbox.extents) * 72.0 / figure.dpi
    taken = [(x - 4.0, y - 4.0, x + 4.0, y + 4.0) for x, y in points]
    for (x, y), name, colour, at in zip(points, names, colours, np.column_stack([across, up]), strict=True):
        best: tuple[float, Any, Any] | None = None
        for right, above in (
            (0, 1),
            (0, 0),
            (1, 1),
            (1, -1),
            (0, -1),
            (1, 0),
            (0, 2),
            (1, 2),
            (1, -2),
            (0, -2),
        ):
            left, low = (x + 6.0 if right else x - 6.0 - 4.9 * len(name)), y + 10.0 * above - 5.0
            box = (left, low, left + 4.9 * len(name), low + 10.0)
            hidden = (
                sum(_overlap(box, other) for other in taken)
                + 100.0
                - _overlap(box, inside) / len(name) / 0.49
            )
            if best is None or hidden < best[0] - 1.0:
                best = hidden, box, (6.0 if right else -6.0, 10.0 * above)
        assert best is not None
        taken.append(best[1])
        axes.annotate(
            name, at, xytext=best[2], textcoords="offset points", color=colour, fontsize=8,
            ha="left" if best[2][0] > 0 else "right", va="center",
        )  # fmt: skip


def _overlap(one: Any, other: Any) -> float:
    """Return the area that two boxes (left, low, right, high) share."""
    wide, high = (float(min(one[i + 2], other[i + 2]) - max(one[i], other[i])) for i in (0, 1))
    return max(wide, 0.0) * max(high, 0.0)
