"""Pictures: what is drawn is the tidy table, everything stays on the sheet, and nothing hides anything."""

import re
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from banditroute import Trace, plots
from banditroute.plots import canvas
from banditroute.simulation import Frontier, Run

TOOLS = {"COLOURS", "DASHES", "REST", "STYLE", "data", "page", "svg"}
TIMES = np.array([100, 200, 400, 800, 1600])
NAMES = ["a long name of an adapter", "b", "c", "d", "e", "f", "g", "h"]


def rows(shape, seed=0):
    return np.random.default_rng(seed).random(shape)


def one_run():
    run = Run(400)
    run.arms = np.arange(400) * 7 % 8
    run.epochs = [(0, frozenset({0, 1})), (100, frozenset({1, 2})), (300, frozenset({5}))]
    return run


def one_trace():
    arms = np.arange(400) * 7 % 8
    return Trace(names=NAMES, arms=arms, rewards=rows(400), hits=arms < 3)


CURVES = {
    name: [TIMES**power * (1.0 + 0.1 * s) for s in range(3)] for name, power in (("root", 0.5), ("line", 1.0))
}
TABLES = {"one": np.sort(rows((5, 4)), axis=0), "two": rows((5, 4), 1)}
# Every drawing function, on a small input of its own.
DRAWINGS = {
    "regret_bands": lambda ax: plots.regret_bands(CURVES, TIMES, ax=ax),
    "regret_slope": lambda ax: plots.regret_slope(CURVES, TIMES, ax=ax),
    "alpha_sweep": lambda ax: plots.alpha_sweep(TABLES, [0.01, 0.1, 0.3, 1.0, 3.0], default=0.2, ax=ax),
    "hit_rate_by_slots": lambda ax: plots.hit_rate_by_slots(TABLES, [1, 2, 3, 4, 5], ax=ax),
    "regret_by_slots": lambda ax: plots.regret_by_slots(TABLES, [1, 2, 3, 4, 5], ax=ax),
    "quality_cost": lambda ax: plots.quality_cost(
        {"llama-3.1-8b": (2.9e-5, 0.79), "mistral-large": (5e-4, 0.925), "gemini-2.5-flash": (8.9e-4, 0.927),
         "gemini-2.5-pro": (1.5e-2, 0.926), "routed": ([1e-3, 1.2e-3], [0.94, 0.95])},
        ax=ax,
    ),
    "cost_frontier": lambda ax: plots.cost_frontier(
        Frontier({"LinUCB": (np.array([[0.5], [0.8], [0.9]]), np.array([[0.1], [0.4], [1.0]])),
                  "ridge": (np.array([[0.45], [0.7], [0.85]]), np.array([[0.2], [0.5], [0.9]]))}, np.array([2.0, 0.5, 0.0])),
        arms={"small": (0.1, 0.42), "large": (1.0, 0.8)}, ax=ax,
    ),
    "value_intervals": lambda ax: plots.value_intervals(
        {"llama-3.1-8b": (0.79, 0.77, 0.81), "learned": (0.94, 0.92, 0.95), "uniform": (0.89, 0.86, 0.93)},
        reference=0.9, truth={"learned": 0.93}, ax=ax,
    ),
    "width_decay": lambda ax: plots.width_decay(1.0 / np.sqrt(1 + np.arange(800) // 8), np.arange(800) % 8, NAMES, ax=ax),
    "calibration": lambda ax: plots.calibration(rows(500), rows(500), ax=ax),
    "interval_coverage": lambda ax: plots.interval_coverage({"x": (rows(200), 0.2, 0.5), "y": (rows(200), 0.6, 0.5)}, ax=ax),
    "residency_timeline": lambda ax: plots.residency_timeline(one_run(), NAMES, bins=40, ax=ax),
    "residency of a trace": lambda ax: plots.residency_timeline(one_trace(), bins=100, ax=ax),
    "arm_shares": lambda ax: plots.arm_shares(one_run().arms, NAMES, bins=10, ax=ax),
    "mean_over_time": lambda ax: plots.mean_over_time({"x": rows(300), "y": rows(300, 1)}, bins=10, ax=ax),
    "latency_distribution": lambda ax: plots.latency_distribution(0.05 / (1e-3 + rows(2000)), rows(2000, 1) < 0.7, ax=ax),
    "weight_distribution": lambda ax: plots.weight_distribution({"x": 1.0 / (0.01 + rows(900)), "y": np.eye(900)[0] + 1.0}, ax=ax),
}  # fmt: skip


def shown_texts(ax):
    """Everything written on the sheet; ticks outside the limits exist and are not drawn."""
    found = [ax.title, ax._left_title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
    for axis in (ax.xaxis, ax.yaxis):
        low, high = sorted(axis.get_view_interval())
        found += [t.label1 for t in axis.get_major_ticks() if low - 1e-9 <= t.get_loc() <= high + 1e-9]
    if ax.get_legend() is not None:
        found += ax.get_legend().get_texts()
    return [text for text in found if text.get_text().strip()]


@pytest.fixture
def sheet(tmp_path):
    """A sheet as the documents use it: one Axes of half the width of a page."""
    with plots.page(1, 1, path=tmp_path / "sheet.png", width=4.8, height=3.4) as (ax,):
        yield ax


def test_every_public_drawing_is_tested():
    assert {name for name in plots.__all__ if name not in TOOLS} <= set(DRAWINGS)


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_has_titles_units_and_stays_on_its_sheet(name, sheet):
    assert DRAWINGS[name](sheet) is sheet
    figure = sheet.figure
    figure.canvas.draw()
    assert sheet.get_title(loc="left")
    assert sheet.get_xlabel()
    assert sheet.get_ylabel() or name.startswith(
        ("residency", "arm_shares", "value")
    )  # ticks there say what they are
    page = figure.bbox
    texts = shown_texts(sheet)
    assert len(texts) > 6
    for text in texts:
        box = text.get_window_extent()
        assert page.x0 - 1 <= box.x0 and box.x1 <= page.x1 + 1, text.get_text()
        assert page.y0 - 1 <= box.y0 and box.y1 <= page.y1 + 1, text.get_text()
        assert text.get_fontsize() * page.width / (figure.dpi * 4.8) >= 8.0  # points at half a page's width
    # Axes are left enough room to show something.
    assert sheet.bbox.width > 0.4 * page.width and sheet.bbox.height > 0.4 * page.height


@pytest.mark.parametrize("name", DRAWINGS)
def test_no_text_hides_another_and_no_legend_hides_a_line(name, sheet):
    DRAWINGS[name](sheet)
    sheet.figure.canvas.draw()
    boxes = [(t.get_text(), t.get_window_extent().padded(-1.5)) for t in shown_texts(sheet)]
    for i, (one, box) in enumerate(boxes):
        for other, second in boxes[i + 1 :]:
            assert not box.overlaps(second), (one, other)
    legend = sheet.get_legend()
    if legend is not None:
        assert not legend.get_window_extent().padded(-1).overlaps(sheet.bbox)


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_table_behind_a_drawing_is_tidy_and_what_the_lines_show(name, sheet):
    DRAWINGS[name](sheet)
    table = plots.data(sheet)
    assert len({len(column) for column in table.values()}) == 1
    assert all(column.ndim == 1 for column in table.values())
    if name == "value_intervals":
        assert (
            sheet.containers[0].lines[0].get_xdata().tolist() == table["value"].tolist() == [0.94, 0.89, 0.79]
        )
        return
    x, y = VALUES[name]
    known = np.isfinite(np.asarray(table[y], dtype=np.float64))
    wanted = np.column_stack([table[x][known], table[y][known]]).astype(np.float64)
    if name.startswith("residency"):
        shown = sheet.images[0].get_array()
        assert np.ma.masked_invalid(shown).compressed() == pytest.approx(wanted[:, 1])
        return
    if name == "arm_shares":
        tops = np.max([path.vertices[:, 1].max() for area in sheet.collections for path in area.get_paths()])
        assert tops == pytest.approx(1.0)
        drawn = sheet.collections[0].get_paths()[0].vertices[:, 1]  # the busiest lies at the bottom
        assert set(np.round(table["share"][table["name"] == "a long name of an adapter"], 9)) <= set(
            np.round(drawn, 9)
        )
        return
    drawn = np.concatenate([line.get_xydata() for line in sheet.lines if len(line.get_xydata())])
    for point in wanted:
        assert np.abs(drawn - point).max(axis=1).min() < 1e-9 * max(1.0, np.abs(point).max()), point


VALUES = {
    "regret_bands": ("requests", "regret"),
    "regret_slope": ("requests", "regret"),
    "alpha_sweep": ("alpha", "reward"),
    "hit_rate_by_slots": ("slots", "hit_rate"),
    "regret_by_slots": ("slots", "regret"),
    "quality_cost": ("cost", "reward"),
    "cost_frontier": ("cost", "reward"),
    "width_decay": ("rewards", "width"),
    "calibration": ("expected", "reward"),
    "interval_coverage": ("nominal", "coverage"),
    "residency_timeline": ("requests", "resident"),
    "residency of a trace": ("requests", "resident"),
    "arm_shares": ("requests", "share"),
    "mean_over_time": ("requests", "mean"),
    "latency_distribution": ("latency_ms", "share_slower"),
    "weight_distribution": ("weight", "share_as_large"),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_that_of_last_time(name, tmp_path):
    """Ink on a coarse grid, compared with a stored one: robust to fonts and versions, not to a missing line."""
    with plots.page(1, 1, path=tmp_path / "a.png", width=4.8, height=3.4) as (ax,):
        DRAWINGS[name](ax)
    image = Image.open(tmp_path / "a.png").convert("L")
    assert image.size == (720, 510)
    ink = 1.0 - np.asarray(image.resize((12, 8), Image.Resampling.BOX)) / 255.0
    levels = np.minimum((ink * 100).round(), 35).astype(int)  # percent, in one character each
    text = "".join("0123456789abcdefghijklmnopqrstuvwxyz"[v] for v in levels.ravel())
    wanted = np.array([int(c, 36) for c in PICTURES[name]])
    assert np.abs(levels.ravel() - wanted).mean() < 1.2, text
    assert np.corrcoef(levels.ravel(), wanted)[0, 1] > 0.9, text


PICTURES: dict[str, str] = {
    "cost_frontier": "089950000142721034445413710241210000922411101000644110000000344222222221002047783201049dc2000000",
    "regret_bands": "04b000000000240010010263740010025990730010498420720048620000243651010010057565565564000132840040",
    "regret_slope": "0499a2000012241001034430841144410100844401000100441001045663047777732221013003730320026bdbbb0000",
    "alpha_sweep": "08a890000000246301114310737766cdecb489defhjkic2065ghhigea96357cbaa953220046432322110030069762000",
    "hit_rate_by_slots": "27ca9034442034775afdab946189defhib4094dgghlhga2074deihfec95054gigee9777303cbbc954440011046752010",
    "regret_by_slots": "09992000000034410013421063767bedfc8486eggikjga2075hiiffb997377ba98632220045311212120010146851010",
    "quality_cost": "08a850000000220010030010733356582220820010683220610000210000622320210010125333221221000356893040",
    "value_intervals": "008999700220001000000110052000000153052000035420001000000100443530000100001141512315002466655700",
    "width_decay": "1aa990000000044000000000623311100000520320000000720042010000421015230000132222565555117679310000",
    "calibration": "06b600000003010000000230830010104201830010330101610013100000630330100101024121211212000796957811",
    "interval_coverage": "25acbb232352843401011251966101220371851111015b008421026c8100854abc7201015595322222210133186b0423",
    "residency_timeline": "2222zz8000001112zzzzzv000000abzzzz000001200000000001200009ti0001200006md000132222221000012294404",
    "residency of a trace": "2222rsrgikia1112zzzzzzzo0000zzzzzzzo000188867974000197777774000187797685000198798795000049796964",
    "arm_shares": "5dfgd72000004cffff5000000uzzzzi750004zzzzzza00004zzzzzp901004zzzzzk565552zzzzzm00000114952400000",
    "mean_over_time": "1989100000001224833200344bbgedffc9b89fkifiiiiid679b7aa89egb6111021001583232222222241000042704000",
    "latency_distribution": "57d99a40000062167100000084010876010074010013b600840100100795322422522724024667ca6000025ccbdb1000",
    "weight_distribution": "36e9b7000000624552000000843014540101622000025600643010100181545422222227001013951204025bbcd40000",
}


def test_colours_can_be_told_apart_without_red_or_green():
    """Viénot's simulation of protanopia and deuteranopia: any two of the first six stay 15 apart in CIE Lab, or dashes do."""
    simulated = {
        "protan": [[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]],
        "deutan": [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]],
    }
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    hexes = [[int(c[i : i + 2], 16) / 255 for i in (1, 3, 5)] for c in plots.COLOURS[:6]]
    linear = np.where(
        np.array(hexes) <= 0.04045, np.array(hexes) / 12.92, ((np.array(hexes) + 0.055) / 1.055) ** 2.4
    )
    for kind, matrix in simulated.items():
        seen = np.clip(linear @ np.array(matrix).T, 0, 1) @ to_xyz.T / [0.9505, 1.0, 1.089]
        f = np.where(seen > 0.008856, np.cbrt(seen), 7.787 * seen + 16 / 116)
        lab = np.column_stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])])
        apart = np.linalg.norm(lab[:, None] - lab[None], axis=2)[np.triu_indices(6, 1)]
        assert apart.min() > 15.0, (kind, apart.min())
    assert len({str(dash) for dash in plots.DASHES}) == len(plots.DASHES)


def test_the_fitted_exponent_is_that_of_a_power(sheet):
    """Exponents 0.5 and 1 on curves that are powers exactly: nothing random."""
    plots.regret_slope(CURVES, TIMES, ax=sheet)
    table = plots.data(sheet)
    found = {n: table["exponent"][table["name"] == n][0] for n in CURVES}
    assert found == {"root": pytest.approx(0.5, abs=0.01), "line": pytest.approx(1.0, abs=0.01)}
    assert table["low"][0] <= table["exponent"][0] <= table["high"][0]
    assert "exponent 0.50" in sheet.get_legend().get_texts()[0].get_text()


def said(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_effective_sample_size_is_written(sheet):
    plots.weight_distribution({"even": np.ones(10), "one row": np.array([10.0] + [0.0] * 9)}, ax=sheet)
    assert said(sheet) == ["even: counts as 10 of 10 rows", "one row: counts as 1 of 10 rows"]


def test_the_tail_of_hits_and_faults_is_written(sheet):
    waits = np.r_[np.full(98, 0.1), 2.0, 2.0]
    plots.latency_distribution(waits, waits < 1.0, ax=sheet)
    assert said(sheet) == [
        "all requests: p50 100 ms, p99 2,000 ms",
        "hits: p50 100 ms, p99 100 ms",
        "faults: p50 2,000 ms, p99 2,000 ms",
    ]


def test_a_thinned_tail_keeps_its_last_point_and_its_shape():
    at, share = canvas_survival(np.sort(1.0 / (1e-6 + rows(100_000))))
    assert len(at) <= 400
    exact = np.sort(1.0 / (1e-6 + rows(100_000)))
    assert at[-1] == exact[-1]
    assert share == pytest.approx(1.0 - np.searchsorted(exact, at) / len(exact), abs=1e-12)
    assert share[0] == 1.0


def canvas_survival(ordered):
    from banditroute.plots.requests import _survival

    return _survival(ordered)


def test_the_front_holds_who_is_not_beaten_in_both(sheet):
    points = {"cheap": (1.0, 0.5), "same cost, worse": (1.0, 0.4), "better": (2.0, 0.6), "dear": (3.0, 0.6)}
    plots.quality_cost(points, ax=sheet)
    assert plots.data(sheet)["on_front"].tolist() == [True, False, True, False]


def test_a_trace_shows_residency_only_where_it_knows_it(sheet):
    trace = Trace(
        names=["a", "b"], arms=[0, 0, 1, 1], rewards=np.zeros(4), hits=np.array([True, False, True, True])
    )
    plots.residency_timeline(trace, bins=2, ax=sheet)
    assert plots.data(sheet)["resident"] == pytest.approx([0.5, np.nan, np.nan, 1.0], nan_ok=True)


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        (lambda ax: plots.quality_cost({"a": (0.0, 1.0)}, ax=ax), "costs must be > 0, got 0"),
        (lambda ax: plots.regret_slope({"a": [[0.0, 0.0]]}, [1, 2], ax=ax), "regret of a must be positive"),
        (lambda ax: plots.weight_distribution({"a": np.zeros(3)}, ax=ax), "weights of a must not all be zero"),
        (lambda ax: plots.latency_distribution([np.nan], ax=ax), "latencies must hold known values > 0, got none"),
        (lambda ax: plots.latency_distribution([0.0, 1.0], ax=ax), "latencies must hold known values > 0, got 0"),
        (lambda ax: plots.interval_coverage({"a": ([1.0], [0.0], [1.0])}, ax=ax), "a must hold a row"),
        (lambda ax: plots.residency_timeline(Trace(names=["a"], arms=[0], rewards=[1.0]), ax=ax), "trace must hold hits"),
        (lambda ax: plots.arm_shares([], ["a"], ax=ax), "at least one request"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_with_the_reason(draw, reason, sheet):
    with pytest.raises(ValueError, match=re.escape(reason)):
        draw(sheet)
    with pytest.raises(KeyError):
        plots.data(sheet)


def test_without_axes_the_current_ones_are_used():
    from matplotlib import pyplot

    pyplot.switch_backend("Agg")
    figure, ax = pyplot.subplots()
    assert plots.calibration([0.0, 1.0], [0.0, 1.0], bins=2) is ax
    pyplot.close(figure)


def test_an_svg_takes_the_colour_of_the_text_and_shares_no_names_with_another():
    first = plots.svg(DRAWINGS["regret_slope"], "Growth of <regret>")
    second = plots.svg(DRAWINGS["latency_distribution"], "Latency")
    assert first == plots.svg(DRAWINGS["regret_slope"], "Growth of <regret>")  # the same bytes each time
    assert 'aria-label="Growth of &lt;regret&gt;"' in first
    assert "currentColor" in first and canvas._INK not in first and plots.COLOURS[4] not in second
    names = [set(re.findall(r' id="([^"]+)"', text)) for text in (first, second)]
    clips = [
        {n for n in own if re.search(rf"url\(#{re.escape(n)}\)", text)}
        for own, text in zip(names, (first, second), strict=True)
    ]
    assert clips[0] and clips[1] and not clips[0] & clips[1]
    for own, text in zip(names, (first, second), strict=True):
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) <= own  # nothing points outside
    assert (
        "<?xml" not in first
        and "<metadata" not in first
        and "http" not in first.replace("http://www.w3.org/", "")
    )


CELL = re.compile(
    r"^```\{code-cell\} ipython3\n(?:---\n(?P<options>.*?)^---\n)?(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "api" / "plots.md"


def test_the_reference_shows_every_drawing_with_a_text_for_those_who_cannot_see_it(monkeypatch, tmp_path):
    """Its cells run, each draws one picture by one function, and all functions are there."""
    monkeypatch.chdir(tmp_path)
    names, shown = {}, set()
    with matplotlib.rc_context():
        for cell in CELL.finditer(REFERENCE.read_text(encoding="utf-8")):
            exec(compile(cell["code"], "plots.md", "exec"), names)
            drawn = set(re.findall(r"^plots\.(\w+)\(", cell["code"], re.MULTILINE))
            assert len(pyplot.get_fignums()) == len(drawn) == bool(cell["options"])
            assert not drawn or re.search(r"alt: \w.{20,}", cell["options"])
            shown |= drawn
            pyplot.close("all")
    assert shown == {name for name in plots.__all__ if name not in TOOLS}
    assert not list(tmp_path.iterdir())
