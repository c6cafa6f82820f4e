"""The report: its numbers are those of the trace, its advice follows from them, its page stands in a browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from recorded import data_file

from banditroute import Trace
from banditroute.cli import main
from banditroute.cli.report_page import page
from banditroute.evaluation import advice, evaluate, expected_rewards, report

NAMES = ["small", "large <b>&amp;", "an arm with a very long name, indeed too long for a picture"]


def log(rows=900, seed=0, *, noise=0.1, shares=(0.5, 0.3, 0.2), **changes):
    """Three arms logged with fixed shares; the best arm depends on the sign of the first context component."""
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.standard_normal((rows, 2)), np.ones(rows)])
    arms = rng.choice(3, size=rows, p=shares)
    means = np.stack([0.5 + 0.3 * np.sign(x[:, 0]), 0.5 - 0.3 * np.sign(x[:, 0]), np.full(rows, 0.4)], axis=1)
    hits = rng.random(rows) < 0.7
    columns = {
        "names": NAMES, "arms": arms, "rewards": means[np.arange(rows), arms] + noise * rng.standard_normal(rows),
        "propensities": np.array(shares)[arms], "contexts": x, "times": np.arange(rows) * 2.0, "hits": hits,
        "latencies": 0.1 + 0.01 * rng.random(rows) + np.where(hits, 0.0, 0.3), "policies": ["weights"],
    }  # fmt: skip
    return Trace(**{name: value for name, value in (columns | changes).items() if value is not None})


def said(trace, **options):
    return {one["change"]: one["because"] for one in advice(report(trace, **options).numbers)}


def test_numbers_are_those_of_the_columns():
    trace = log()
    found = report(trace).numbers
    assert found["log"]["rows"] == found["log"]["answered"] == 900
    assert found["log"]["seconds"] == 1798.0
    assert found["log"]["reward"]["value"] == pytest.approx(trace.rewards.mean())
    assert [one["chosen"] for one in found["arms"]] == sorted(np.bincount(trace.arms).tolist(), reverse=True)
    first = found["arms"][0]
    own = trace.arms == NAMES.index(first["name"])
    assert first["reward"]["value"] == pytest.approx(trace.rewards[own].mean())
    assert first["hit_rate"] == pytest.approx(trace.hits[own].mean())
    assert found["residency"]["hit_rate"]["value"] == pytest.approx(trace.hits.mean())
    assert found["latency"]["faults"]["p50_ms"] == pytest.approx(
        1000 * np.median(trace.latencies[~trace.hits])
    )
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_candidates_are_valued_as_evaluate_values_them():
    trace = log()
    found = {one["name"]: one for one in report(trace).numbers["candidates"]}
    assert set(found) == {*(f"always {name}" for name in NAMES), "uniform", "learned", "learned, 5 % uniform"}
    alone = evaluate(trace, "small")
    for kind in ("dr", "snips", "ips", "dm"):
        assert found["always small"][kind]["value"] == pytest.approx(alone[kind].value)
    assert found["always small"]["ess"] == pytest.approx(alone.ess)
    learned = evaluate(trace, expected_rewards(trace).argmax(axis=1))
    assert found["learned"]["dr"]["value"] == pytest.approx(learned["dr"].value)
    for one in found.values():
        assert one["gain"]["value"] == pytest.approx(one["dr"]["value"] - trace.rewards.mean())


def test_gains_cover_the_truth_for_all_candidates_at_once():
    """60 draws of 600 rows: all intervals hold at once with 95 %, so 51 or fewer of 60 has probability below 3e-4.

    The truth of the learned rule is that of its own choices, known from the means.
    """
    kept = 0
    for seed in range(60):
        trace = log(600, seed)
        sign = np.sign(trace.contexts[:, 0])
        means = np.stack([0.5 + 0.3 * sign, 0.5 - 0.3 * sign, np.full(600, 0.4)], axis=1)
        best = expected_rewards(trace).argmax(axis=1)
        # What the log could expect on these contexts is part of the truth.
        logged = (means * [0.5, 0.3, 0.2]).sum(axis=1).mean()
        truth = {f"always {name}": means[:, a].mean() - logged for a, name in enumerate(NAMES)}
        truth["uniform"] = means.mean() - logged
        truth["learned"] = means[np.arange(600), best].mean() - logged
        truth["learned, 5 % uniform"] = 0.95 * truth["learned"] + 0.05 * truth["uniform"]
        gains = {one["name"]: one["gain"] for one in report(trace).numbers["candidates"]}
        kept += all(gains[n]["low"] <= t <= gains[n]["high"] for n, t in truth.items())
    assert kept > 51


def test_what_is_learned_is_better_and_the_advice_says_so_with_the_number():
    found = report(log())
    change, because = next((c, b) for c, b in said(log()).items() if c.startswith("Deploy"))
    assert "learning router" in change
    best = found.numbers["candidates"][0]
    assert f"{best['dr']['value']:.4f}" in because and f"{best['gain']['low']:+.4f}" in because


def test_a_log_that_cannot_be_beaten_is_kept():
    rows = 900
    x = log(rows).contexts
    rng = np.random.default_rng(1)
    best = np.where(x[:, 0] > 0, 0, 1)
    propensities = np.where(rng.random(rows) < 0.9, 0.9 + 0.1 / 3, 0.1 / 3)
    arms = np.where(propensities > 0.5, best, (best + rng.integers(1, 3, rows)) % 3)
    rewards = 0.5 + 0.3 * (arms == best) + 0.1 * rng.standard_normal(rows)
    trace = Trace(names=NAMES, arms=arms, rewards=rewards, propensities=propensities, contexts=x)
    text = said(trace)
    assert "Keep routing as it is." in text or any(c.startswith("Deploy a learning") for c in text)
    assert not any(c.startswith("Deploy the rule") for c in text)


@pytest.mark.parametrize(
    ("trace", "change", "number"),
    [
        (log(propensities=None), "Record propensities, and explore: mix=0.02 or more.", "Of 900 rows none"),
        (log(contexts=None), "Record contexts: Recorder(contexts=True).", "None of 900 rows"),
        (
            log(rewards=np.where(np.arange(900) % 5 == 0, np.nan, log().rewards)),
            "Find out why rewards are missing.",
            "20.0%",
        ),
        (
            log(propensities=np.where(np.arange(900) < 90, 1.0, log().propensities)),
            "Explore on every request: mix=0.02 or more.",
            "On 10.0% of the rows",
        ),
        (log(arms=log().arms % 2, propensities=np.full(900, 0.5)), f"Give {NAMES[2]} some requests, or take them out.", "1 of 3"),
        (log(ids=np.arange(900) // 2), "Take out the rows that are there twice.", "450 rows"),
        (log(propensities=log().propensities * 0.7), "Check how propensities are recorded.", "mean weight is 1.397"),
        (
            log(rewards=log().rewards - np.linspace(0, 1, 900)),
            "Let the policy forget: tune discount (banditroute tune --search alpha discount).",
            "fell from 0.",
        ),
        (log(), "Count waiting for adapters into the fault price.", "A fault takes 300 ms longer"),
    ],
)  # fmt: skip
def test_each_rule_fires_on_its_cause_with_its_number(trace, change, number):
    assert number in said(trace)[change]


def test_rules_do_not_fire_without_their_cause():
    text = said(log(2000))
    assert not [
        c for c in text if c.startswith(("Record", "Explore", "Give", "Check", "Find", "Let", "Look"))
    ]
    steady = log(2000, latencies=np.full(2000, 0.1))
    assert "Count waiting for adapters into the fault price." not in said(steady)
    assert "Leave residency alone." in said(log(2000), fault=0.001)
    slots = next(c for c in said(log(2000), fault=0.2) if c.startswith("Keep"))
    assert slots == "Keep 2 slots for arms in fast memory."


def test_forecasts_have_a_constant_and_their_advice_the_true_number():
    """Rewards far from 0 of contexts without a constant: a linear fit explains nearly all, and nothing is missing."""
    x = log().contexts[:, :2]
    rewards = 5.0 + x[:, 0] + 0.3 * np.random.default_rng(1).standard_normal(900)
    plain = log(contexts=x, rewards=rewards)
    found = report(plain).numbers["forecasts"]
    assert found["explained"] > 0.8 and found["fitted"] > 0.9
    assert not [c for c in said(plain) if "contexts" in c]
    # Contexts that say nothing: the number is given as it is, below 0 too.
    noise = log(
        contexts=np.random.default_rng(2).standard_normal((900, 8)),
        rewards=np.random.default_rng(3).random(900),
    )
    found = report(noise).numbers["forecasts"]
    assert found["explained"] < 0.0
    because = said(noise)["Look for contexts that say more about the reward."]
    assert f"explain {found['explained']:.1%}" in because and f"{found['fitted']:.1%}." in because
    assert f"explain {found['explained']:.1%}" in page(report(noise), "noise.csv")


def test_what_is_learned_late_is_not_put_down_to_the_contexts():
    numbers = report(log()).numbers
    late = {**numbers, "forecasts": {**numbers["forecasts"], "explained": -1.5, "fitted": 0.79}}
    text = {one["change"]: one["because"] for one in advice(late)}
    assert not [c for c in text if c.startswith("Look for contexts")]
    because = next(b for c, b in text.items() if c.startswith("Warm-start"))
    assert "-150.0%" in because and "79.0%" in because


def test_faults_cost_what_the_trace_says():
    trace = log(prices=np.full((900, 3), 0.25) * (1.0 - log().hits[:, None]))
    one = report(trace).numbers["residency"]["diagnosis"]
    assert (one["fault"], one["fault_source"]) == (0.25, "mean price of the faults")
    assert report(trace, fault=0.1).numbers["residency"]["diagnosis"]["fault"] == 0.1
    assert report(log()).numbers["residency"]["diagnosis"]["fault_source"] == "assumed"


def test_true_values_are_those_of_the_rewards_of_all_arms():
    rewards = np.random.default_rng(0).random((900, 3))
    found = report(log(), rewards=rewards).numbers["candidates"]
    truth = {one["name"]: one["truth"] for one in found}
    assert truth["uniform"] == pytest.approx(rewards.mean())
    assert truth["always small"] == pytest.approx(rewards[:, 0].mean())


def test_too_little_is_refused():
    with pytest.raises(ValueError, match="at least 50 rows with a reward for a report, got 49"):
        report(log(49))


# The page.


class Reader(HTMLParser):
    """Collects tags, headings, ids and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.headings, self.words, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1] in ("h1", "h2"):
            self.headings.append((self.open[-1], data))
        if not self.open or self.open[-1] not in ("style", "title"):
            self.words.append(data)


@pytest.fixture(scope="module")
def text():
    return page(report(log()), "log <1>.npz")


def test_the_page_has_headings_labels_and_nothing_from_elsewhere(text):
    read = Reader(text)
    assert [h for h in read.headings if h[0] == "h1"] == [("h1", "Report on log <1>.npz")]
    assert [h[1] for h in read.headings[1:]] == [
        "What to change next", "Arms and rewards", "What the log can answer", "What other rules would have earned",
        "How well rewards can be foreseen", "Residency", "Latency", "How these numbers came about",
    ]  # fmt: skip
    kinds = [tag for tag, _ in read.tags]
    assert "script" not in kinds and "link" not in kinds and "iframe" not in kinds
    pictures = [a for tag, a in read.tags if tag == "svg"]
    assert len(pictures) == kinds.count("figure") == kinds.count("figcaption") == 11
    assert all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in pictures)
    assert len({a["aria-label"] for a in pictures}) == len(pictures)
    for _, attributes in read.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("#", "data:image/png;base64,")), value
    assert not re.findall(r"url\((?!#)|@import|https?://(?!www\.w3\.org/)", text)
    ids = [a["id"] for _, a in read.tags if "id" in a]
    referenced = set(re.findall(r'(?:href="|url\()#([^")]+)', text))
    assert referenced <= set(ids)
    assert ("html", {"lang": "en"}) in read.tags
    assert any(tag == "meta" and a.get("name") == "viewport" for tag, a in read.tags)


def test_names_from_the_trace_cannot_write_the_page(text):
    assert "<b>" not in text and "large &lt;b&gt;&amp;amp;" in text
    assert "large <b>&amp;" in " ".join(Reader(text).words)


def test_the_page_says_what_the_numbers_say(text):
    words = " ".join(Reader(text).words)
    numbers = report(log()).numbers
    for one in numbers["candidates"]:
        assert f"{one['dr']['value']:.4f}" in words
    for one in advice(numbers):
        assert one["change"] in words and one["because"] in words


@pytest.mark.parametrize(
    "changes",
    [
        {"propensities": None, "hits": None},
        {"contexts": None, "hits": None, "latencies": None, "times": None, "propensities": None},
        {"names": ["only"], "arms": np.zeros(900, int), "propensities": np.ones(900), "latencies": np.zeros(900)},
        {"rewards": np.zeros(900), "hits": np.zeros(900, bool)},
        {"hits": np.ones(900, bool), "eligible": np.eye(3, dtype=bool)[log().arms] | (np.arange(3) == 0)},
        {"contexts": None, "versions": np.arange(900)},
    ],
    ids=lambda c: ", ".join(c),
)  # fmt: skip
def test_a_page_can_be_had_of_any_log(changes):
    trace = log(**changes)
    found = report(trace)
    json.dumps(found.numbers, allow_nan=False)
    read = Reader(page(found, "x"))
    assert len(read.headings) >= 5
    assert "nan" not in re.findall(r"[a-z]+", " ".join(read.words))


# The command.


def test_the_command_reads_traces_and_writes_the_page(tmp_path, capsys):
    results = []
    for suffix in ("npz", "csv"):
        path = log().save(tmp_path / f"log.{suffix}")
        out = tmp_path / "new" / f"{suffix}.html"
        assert main(["report", str(path), "--out", str(out), "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["out"] == str(out) and out.read_text(encoding="utf-8").startswith("<!doctype html>")
        results.append({k: v for k, v in result.items() if k not in ("out", "file")})
    assert results[0] == results[1]
    assert main(["report", str(path), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "What to change next:" in shown and f"Written to {out}." in shown and "learned" in shown


def test_a_matrix_becomes_a_log_with_true_values(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 4))
    rewards = np.clip(0.5 + 0.2 * x[:, :3], 0, 1)
    np.savez(tmp_path / "m.npz", contexts=x, rewards=rewards, models=["a", "b", "c"])
    options = [
        "--requests",
        "1500",
        "--arms",
        "models",
        "--capacity",
        "2",
        "--out",
        str(tmp_path / "m.html"),
        "--json",
    ]
    assert main(["report", str(tmp_path / "m.npz"), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in result["arms"]} == {"a", "b", "c"}
    assert 0.0 < result["residency"]["hit_rate"]["value"] < 1.0
    truth = {one["name"]: one["truth"] for one in result["candidates"]}
    assert truth["learned"] > truth["uniform"] > 0.0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere.npz"], "no file nowhere.npz"),
        (["{tmp}/few.csv"], "at least 50 rows"),
        (["{tmp}/text.npz"], "is not an .npz file"),
        (["{tmp}/text.csv"], "must have a column 'arm'"),
        (["{tmp}/log.npz", "--capacity", "2"], "--capacity is for a matrix"),
        (["{tmp}/log.npz", "--fault", "-1"], "fault must be"),
        (["{tmp}/m.npz", "--capacity", "3"], "--capacity must be below the number of arms, 3, got 3"),
        (["{tmp}/m.npz", "--arms", "models"], "--arms must name an array of 3 names"),
        (["{tmp}/other.npz"], "no array 'contexts'"),
        (["{tmp}/log.npz", "--out", "{tmp}/few.csv/x.html"], "few.csv"),
    ],
)
def test_what_a_user_gets_wrong_ends_in_one_line(arguments, reason, tmp_path, capsys):
    log().save(tmp_path / "log.npz")
    log(20).save(tmp_path / "few.csv")
    (tmp_path / "text.npz").write_text("1,2\n", encoding="utf-8")
    (tmp_path / "text.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    np.savez(tmp_path / "m.npz", contexts=np.ones((9, 2)), rewards=np.ones((9, 3)))
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "page.html")]
    assert main(["report", *(a.format(tmp=tmp_path) for a in arguments), *out]) == 1
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("banditroute: ") and shown.err.count("\n") == 1
    assert reason in shown.err
    assert not (tmp_path / "page.html").exists()


def test_recorded_data_make_a_page(tmp_path, capsys):
    try:
        path = data_file("llmrouter9.npz")
    except FileNotFoundError as error:
        pytest.skip(str(error))
    options = ["--contexts", "minilm_pca64", "--rewards", "scores", "--scale", "255", "--arms", "models"]
    assert (
        main(
            ["report", str(path), *options, "--requests", "3000", "--out", str(tmp_path / "a.html"), "--json"]
        )
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    held = [one["dr"]["low"] <= one["truth"] <= one["dr"]["high"] for one in result["candidates"]]
    assert np.mean(held) > 0.6  # nominal 95 % each; the log is of a learning policy, all rules share its rows


# A real browser.

MEASURE = """<!doctype html><body style="margin:0"><script>
window.onload = () => {
  const seen = [];
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, root = page.documentElement;
    const pictures = [...page.querySelectorAll("svg")].map(s => s.getBoundingClientRect());
    const images = [...page.querySelectorAll("svg image, img")];
    seen.push({
      asked: frame.clientWidth, width: root.clientWidth, scroll: root.scrollWidth, height: root.scrollHeight,
      pictures: pictures.map(b => [b.left, b.right, b.height]),
      images: images.map(i => i.getBoundingClientRect().width > 0 && (i.href ? i.href.baseVal : i.src).startsWith("data:")),
      text: Math.min(...[...page.querySelectorAll("p,li,td,dd")].map(e => parseFloat(page.defaultView.getComputedStyle(e).fontSize))),
      loaded: page.defaultView.performance.getEntriesByType("resource").length,
    });
  }
  document.body.insertAdjacentHTML("beforeend", "<pre id=seen>" + JSON.stringify(seen) + "</pre>");
};
</script>FRAMES</body>"""


@pytest.fixture(scope="module")
def browser():
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no browser: apt-get install chromium")
    return found


def test_the_page_fits_phone_and_desk_in_a_browser(text, browser, tmp_path):
    (tmp_path / "page.html").write_text(text, encoding="utf-8")
    frames = "".join(
        f'<iframe src="page.html" style="border:0;width:{w}px;height:900px"></iframe>' for w in (390, 1280)
    )
    (tmp_path / "measure.html").write_text(MEASURE.replace("FRAMES", frames), encoding="utf-8")
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=10000",
            "--window-size=1400,1000", "--dump-dom", f"file://{tmp_path / 'measure.html'}",
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    seen = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)
    assert seen, done.stderr[-2000:]
    phone, desk = json.loads(seen[1].replace("&amp;", "&"))
    for one, width in ((phone, 390), (desk, 1280)):
        assert one["asked"] == width
        assert one["scroll"] <= one["width"], "the page scrolls sideways"
        assert one["height"] > 2000
        assert len(one["pictures"]) == 11
        assert all(
            left >= 0 and right <= one["width"] and height > 100 for left, right, height in one["pictures"]
        )
        assert one["images"] and all(one["images"])
        assert one["text"] >= 14.0
        assert one["loaded"] == 0, "the page asked for something"
    # Pictures stand side by side where there is room.
    assert (
        len({left for left, _, _ in phone["pictures"]}) == 1 < len({left for left, _, _ in desk["pictures"]})
    )
