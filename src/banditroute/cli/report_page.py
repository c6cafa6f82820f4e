"""The page of a report: one HTML file with everything in it, for light and dark, wide and narrow screens."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from banditroute import plots
from banditroute.evaluation import Report, advice

__all__ = ["page"]

SHOWN = 30  # arms in a table
STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#59636e;--line:#d8dee4;--box:#f5f7f9;--mark:#0072b2}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e4e8ec;--soft:#9aa4af;--line:#343b43;--box:#1d2228;
--mark:#56b4e9}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
main{max-width:72rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.6rem;line-height:1.25;margin:.2rem 0}
h2{font-size:1.2rem;margin:2.4rem 0 .6rem;padding-top:.8rem;border-top:1px solid var(--line)}
p,li{max-width:46rem}.soft,figcaption{color:var(--soft);font-size:.9rem}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,9.5rem),1fr));gap:.7rem;margin:1rem 0}
dl div{background:var(--box);border:1px solid var(--line);border-radius:.5rem;padding:.6rem .8rem}
dt{color:var(--soft);font-size:.85rem}dd{margin:0;font-size:1.1rem;font-variant-numeric:tabular-nums}
ol.next{padding-left:1.3rem}ol.next li{margin:.7rem 0}ol.next strong{display:block}
.pictures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26rem),1fr));gap:1.2rem 2rem;
align-items:start}
figure{margin:.6rem 0;min-width:0}svg{display:block;width:100%;height:auto;max-width:36rem}
.wide{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem;min-width:60%}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}thead th{color:var(--soft);font-weight:600}
:focus-visible{outline:2px solid var(--mark)}
"""


def page(found: Report, title: str) -> str:
    """Return the report as one HTML page: no script, no request to anywhere.

    Parameters
    ----------
    found : Report
    title : str
        Names the trace.

    Examples
    --------
    >>> from banditroute import Trace
    >>> from banditroute.evaluation import report
    >>> trace = Trace(names=["a", "b"], arms=[0, 1] * 50, rewards=[0.0, 1.0] * 50)
    >>> page(report(trace), "log <1>").splitlines()[3]
    '<title>Report on log &lt;1&gt;</title>'
    """
    n = found.numbers
    parts = [
        *_summary(n, title),
        *_arms(found),
        *_support(found),
        *_values(found),
        *_knowledge(found),
        *_residency(found),
        *_latency(found),
        *_method(n),
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            '<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>Report on {escape(title)}</title>",
            f"<style>{STYLE}</style></head>",
            "<body><main>",
            *parts,
            "</main></body></html>\n",
        ]
    )


def _summary(n: Mapping[str, Any], title: str) -> list[str]:
    log = n["log"]
    figures = {
        "decisions": f"{log['rows']:,}",
        "arms": f"{log['arms']:,}",
        "mean reward": _between(log["reward"]),
        "rewards missing": f"{1.0 - log['answered'] / log['rows']:.1%}",
    }
    if "hit_rate" in n.get("residency", {}):
        figures["hit rate"] = f"{n['residency']['hit_rate']['value']:.1%}"
    if "latency" in n:
        figures["p99 latency"] = f"{n['latency']['all']['p99_ms']:,.0f} ms"
    boxes = "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in figures.items())
    items = "".join(
        f"<li><strong>{escape(one['change'])}</strong> {escape(one['because'])}</li>" for one in advice(n)
    )
    context = "without contexts" if log["dim"] is None else f"contexts of length {log['dim']}"
    policies = ", ".join(p for p in log["policies"] if p) or "a policy without a name"
    learning = " while it was learning" if log["learning"] else ""
    span = "" if not log["seconds"] else f", over {_span(log['seconds'])}"
    return [
        f"<h1>Report on {escape(title)}</h1>",
        f'<p class="soft">Decided by {escape(policies)}{learning}; {context}{span}. Columns: '
        f"{escape(', '.join(log['columns']))}.</p>",
        *(f'<p class="soft">{escape(note)}</p>' for note in n["notes"]),
        f"<dl>{boxes}</dl>",
        "<h2>What to change next</h2>",
        f'<ol class="next">{items}</ol>' if items else "<p>Nothing in these numbers asks for a change.</p>",
    ]


def _arms(found: Report) -> list[str]:
    n, trace = found.numbers, found.trace
    columns = ["arm", "chosen", "share", "mean reward", "95 % interval"]
    extra = [("propensity", "median propensity", ".3f"), ("hit_rate", "hits", ".1%")]
    extra = [one for one in extra if one[0] in n["arms"][0]]
    rows = [
        [
            one["name"], f"{one['chosen']:,}", f"{one['share']:.1%}", _number(one["reward"]["value"]),
            _ends(one["reward"]), *("" if one[key] is None else f"{one[key]:{form}}" for key, _, form in extra),
        ]
        for one in n["arms"][:SHOWN]
    ]  # fmt: skip
    more = f" The busiest {SHOWN} of {len(n['arms'])} arms." if len(n["arms"]) > SHOWN else ""
    log = n["log"]
    return [
        "<h2>Arms and rewards</h2>",
        '<div class="pictures">',
        _figure(
            lambda ax: plots.arm_shares(trace.arms, _short(trace.names), ax=ax),
            "Share of requests that each arm served over time",
            f"{n['arms'][0]['name']} served most: {n['arms'][0]['share']:.1%} of {log['rows']:,} requests.",
        ),
        _figure(
            lambda ax: plots.mean_over_time({"log": trace.rewards}, what="mean reward per request", ax=ax),
            "Mean reward over time with 95 % bands",
            f"First quarter {log['first_quarter']:.4f}, last quarter {log['last_quarter']:.4f}, "
            f"{log['change_in_errors']:+.1f} standard errors.",
        ),
        "</div>",
        _table(
            [*columns, *(label for _, label, _ in extra)],
            rows,
            "What each arm earned on the requests it was given, which need not be those of the others."
            + more,
        ),
    ]


def _support(found: Report) -> list[str]:
    n = found.numbers
    support = n["support"]
    lines = ["<h2>What the log can answer</h2>"]
    if not support["usable"]:
        return [*lines, f"<p>Nothing about other rules: {escape(support['reason'])}.</p>"]
    lines.append(
        f"<p>Propensities are {support['median']:.3f} at the median and {support['smallest']:.2g} at the least; on "
        f"{support['sure_share']:.1%} of the rows there was no choice. A row weighs what the rule in question would "
        "have done, divided by its propensity: the fewer rows carry the weight, the less the log knows of that "
        "rule.</p>"
    )
    if found.weights:
        best = [one["name"] for one in n["candidates"]]
        shown = list(dict.fromkeys([*(b for b in best if b in ("learned", "uniform")), *best]))[:4]
        lines.append(
            _figure(
                lambda ax: plots.weight_distribution(
                    {
                        label: found.weights[name]
                        for label, name in zip(_short(shown, 24), shown, strict=True)
                    },
                    ax=ax,
                ),
                "Share of rows with at least so large an importance weight, for " + ", ".join(shown),
                "Lines that end far right rest on few rows; the legend says as how many the rows count.",
                height=2.8 + 0.2 * len(shown),
            )
        )
    if n["refused"]:
        lines.append(
            _table(
                ["rule", "why the log says nothing of it"],
                [[one["name"], one["reason"]] for one in n["refused"]],
                "Rules that cannot be valued.",
                wrap=True,
            )
        )
    return lines


def _values(found: Report) -> list[str]:
    n = found.numbers
    if not n["candidates"]:
        return []
    known = "truth" in n["candidates"][0]
    columns = [
        "rule",
        "doubly robust",
        "95 % interval",
        "gain over the log",
        "self-normalised",
        "direct",
        "rows count as",
    ]
    rows = [
        [
            one["name"], _number(one["dr"]["value"]), _ends(one["dr"]),
            f"{one['gain']['value']:+.4f} {_ends(one['gain'], '+.4f')}", _number(one["snips"]["value"]),
            _number(one["dm"]["value"]), f"{one['ess']:,.0f}", *([_number(one["truth"])] if known else []),
        ]
        for one in n["candidates"]
    ]  # fmt: skip
    best = n["candidates"][0]
    named = dict(zip(_short([one["name"] for one in n["candidates"]], 24), n["candidates"], strict=True))
    values = {name: (one["dr"]["value"], one["dr"]["low"], one["dr"]["high"]) for name, one in named.items()}
    truth = {name: one["truth"] for name, one in named.items()} if known else None
    return [
        "<h2>What other rules would have earned</h2>",
        _figure(
            lambda ax: plots.value_intervals(
                values, reference=n["log"]["reward"]["value"], truth=truth, ax=ax
            ),
            "Doubly robust value of each rule with its 95 % interval, beside the mean reward of the log",
            f"{best['name']} is valued highest, {best['dr']['value']:.4f}; the log earned "
            f"{n['log']['reward']['value']:.4f}.",
            height=max(2.4, 0.9 + 0.26 * len(values)),
        ),
        _table(
            [*columns, *(["truth"] if known else [])],
            rows,
            "Reward per request, before prices. Gains are paired by row, their intervals hold for all rules at once.",
        ),
    ]


def _knowledge(found: Report) -> list[str]:
    ahead = found.forecasts
    if ahead is None:
        return []
    n, names = found.numbers["forecasts"], _short(found.trace.names)
    explained = ""
    if (
        n["explained"] is not None
    ):  # below 0 where the mean of the rewards would have been the better forecast
        explained = (
            f" and explain {n['explained']:.1%} of their variance; a fit to the other rows, {n['fitted']:.1%}"
        )
    return [
        "<h2>How well rewards can be foreseen</h2>",
        f"<p>A fresh LinUCB read the last {len(ahead.means):,} rows in order and said what it expected of each before "
        f"it saw the reward. Its forecasts are {n['bias']['value']:+.4f} off on average{explained}.</p>",
        '<div class="pictures">',
        _figure(
            lambda ax: plots.calibration(ahead.means, ahead.rewards, ax=ax),
            "Mean reward against expected reward, in ten groups of rows",
            "On the diagonal forecasts are right on average.",
        ),
        _figure(
            lambda ax: plots.interval_coverage({"LinUCB": (ahead.means, ahead.errors, ahead.rewards)}, ax=ax),
            "Share of rewards inside forecast intervals against the nominal share",
            f"{n['coverage_95']:.1%} of the rewards lie in the 95 % interval of their forecast.",
        ),
        _figure(
            lambda ax: plots.width_decay(ahead.widths, ahead.arms, names, ax=ax),
            "Width of the estimate of each busy arm against the rewards it has seen",
            "The grey line falls with the square root of the rewards.",
        ),
        "</div>",
    ]


def _residency(found: Report) -> list[str]:
    n, trace = found.numbers.get("residency"), found.trace
    if n is None:
        return []
    one = n["diagnosis"]
    lines = ["<h2>Residency</h2>", f"<p>{escape(one['summary'])}</p>", '<div class="pictures">']
    hits = trace.hits
    if hits is not None:
        lines += [
            _figure(
                lambda ax: plots.mean_over_time({"log": hits}, what="hit rate", ax=ax),
                "Hit rate over time with 95 % bands",
                f"{n['hit_rate']['value']:.1%} of the requests went to a resident arm; {n['faults']:,} were faults.",
            ),
            _figure(
                lambda ax: plots.residency_timeline(trace, _short(trace.names), bins=120, ax=ax),
                "Which arms were resident when they were chosen, over time",
                "Blue where the chosen arm was resident, white where it had to be paged in.",
                height=max(2.4, 0.9 + 0.17 * len(trace.names)),
            ),
        ]
    curves = {"sees ahead": one["sees_ahead"], "per window": one["per_window"], "fixed": one["fixed"]}
    lines += [
        _figure(
            lambda ax: plots.hit_rate_by_slots(curves, one["slots"], ax=ax),
            "Best hit rates by number of slots: a cache that sees ahead, the best set per window, the best fixed set",
            f"What could be hit on these requests, windows of {one['window']}.",
        ),
        "</div>",
        _table(
            ["slots", "share of the worth", "hits, fixed set", "hits, set per window", "hits, sees ahead"],
            [
                [f"{k}", *(f"{one[key][i]:.1%}" for key in ("coverage", "fixed", "per_window", "sees_ahead"))]
                for i, k in enumerate(one["slots"])
            ],
            f"Fault price {one['fault']:.4g} ({one['fault_source']}); {one['basis']}; the last {one['rows']:,} rows. "
            "A cache that sees ahead must take in each arm asked for: with few slots it may hit less than a fixed set.",
        ),
    ]
    return lines


def _latency(found: Report) -> list[str]:
    n, trace = found.numbers.get("latency"), found.trace
    if n is None or trace.latencies is None:
        return []
    waits = np.where(trace.latencies > 0.0, trace.latencies, np.nan)
    picture = []
    if np.isfinite(waits).any():
        picture.append(
            _figure(
                lambda ax: plots.latency_distribution(waits, trace.hits, ax=ax),
                "Share of requests that take at least so many milliseconds",
                f"Half take {n['all']['p50_ms']:,.0f} ms or more, one in a hundred "
                f"{n['all']['p99_ms']:,.0f} ms or more.",
            )
        )
    rows = [[name, f"{g['rows']:,}", *(f"{g[k]:,.1f}" for k in ("mean_ms", "p50_ms", "p90_ms", "p99_ms"))]
            for name, g in n.items()]  # fmt: skip
    return [
        "<h2>Latency</h2>",
        *picture,
        _table(["requests", "number", "mean ms", "p50 ms", "p90 ms", "p99 ms"], rows, "Time to answer."),
    ]


def _method(n: Mapping[str, Any]) -> list[str]:
    learning = (
        " The log is that of a learning policy: its rows depend on each other, and intervals are nominal."
        if n["log"]["learning"]
        else ""
    )
    return [
        "<h2>How these numbers came about</h2>",
        "<p>Values of other rules are doubly robust estimates; “direct” is the fit alone, "
        "“self-normalised” the weights alone: where the three disagree, trust none of them. The learned rule takes the "
        "arm of which a linear fit to the other four fifths of the rows expects most. Rewards are before prices. "
        "Rows without a reward are left out, as if they were missing at random." + learning + "</p>",
    ]


def _figure(draw: Callable[[Any], object], what: str, says: str, *, height: float = 3.2) -> str:
    return f"<figure>{plots.svg(draw, what, height=height)}<figcaption>{escape(says)}</figcaption></figure>"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str, *, wrap: bool = False) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    style = ' style="white-space:normal;text-align:left"' if wrap else ""
    body = "".join(
        "<tr>" + "".join(f"<td{style}>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    label = escape(caption)
    return (
        f'<p class="soft">{label}</p><div class="wide" tabindex="0" role="region" aria-label="{label}"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _short(names: Sequence[str], most: int = 20) -> list[str]:
    """Return names that leave room in a picture: long ones lose their middle, but are still told apart."""
    cut = [n if len(n) <= most else f"{n[: most - 8]}…{n[-7:]}" for n in names]
    return [c if cut.count(c) == 1 else f"{c} ({i})" for i, c in enumerate(cut)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _ends(one: Mapping[str, Any], form: str = ".4f") -> str:
    return "" if one["low"] is None else f"[{one['low']:{form}}, {one['high']:{form}}]"


def _between(one: Mapping[str, Any]) -> str:
    return f"{one['value']:.4f} ± {one['high'] - one['value']:.4f}"


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2.0 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.3g} seconds"
