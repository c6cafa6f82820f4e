"""What to change next: rules that follow from the numbers of a report, each with its number."""

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["advice"]

Numbers = Mapping[str, Any]


def advice(numbers: Numbers) -> list[dict[str, str]]:
    """Return what to change, the most urgent first: ``change`` says what, ``because`` the number behind it.

    Parameters
    ----------
    numbers : mapping
        Of a `report.report`.

    Examples
    --------
    >>> from banditroute import Trace
    >>> from banditroute.evaluation.reports import report
    >>> trace = Trace(names=["a", "b"], arms=[0, 1] * 50, rewards=[0.0, 1.0] * 50)
    >>> advice(report(trace).numbers)[0]["change"]
    'Record propensities, and explore: mix=0.02 or more.'
    """
    rules = (_recording, _exploration, _propensities, _deployment, _drift, _forecasts, _slots, _waits)
    return [
        {"change": change, "because": because}
        for rule in rules
        for change, because in rule(numbers)
        if change
    ]


def _recording(n: Numbers) -> Iterator[tuple[str, str]]:
    log, support = n["log"], n["support"]
    if not support["usable"]:
        there = "propensities" in log["columns"]
        more = "" if there else " Estimated ones may do: --estimate-propensities, propensities='estimated'."
        yield (
            "Mend the column of propensities."
            if there
            else "Record propensities, and explore: mix=0.02 or more.",
            f"Of {log['answered']:,} rows none can be used to value another rule: {support['reason']}.{more}",
        )
    if log["dim"] is None:
        yield (
            "Record contexts: Recorder(contexts=True).",
            f"None of {log['rows']:,} rows has one, so no rule that looks at the request can be learned or valued.",
        )
    if log["repeated"]:
        yield (
            "Take out the rows that are there twice.",
            f"{log['repeated']:,} rows have the decision id of an earlier one, as when logs are merged twice; "
            "everything here counts them again.",
        )
    missing = 1.0 - log["answered"] / log["rows"]
    if missing > 0.05:
        yield (
            "Find out why rewards are missing.",
            f"{missing:.1%} of the rows have none; everything here takes them as missing at random.",
        )


def _exploration(n: Numbers) -> Iterator[tuple[str, str]]:
    support = n["support"]
    if support["usable"] and support["sure_share"] > 0.0:
        yield (
            "Explore on every request: mix=0.02 or more.",
            f"On {support['sure_share']:.1%} of the rows the arm was chosen with probability 1 though there were "
            "others: these rows cannot say what another arm would have earned.",
        )
    if support["never_logged"]:
        names = ", ".join(support["never_logged"][:5]) + (", ..." if len(support["never_logged"]) > 5 else "")
        yield (
            f"Give {names} some requests, or take them out.",
            f"{len(support['never_logged'])} of {n['log']['arms']} arms have no row with a reward.",
        )
    best = n["candidates"][0] if n["candidates"] else None
    if best is not None and best["ess"] < 0.05 * n["log"]["answered"]:
        yield (
            "Explore more before trusting these values.",
            f"For {best['name']}, the best, {n['log']['answered']:,} rows count as {best['ess']:,.0f} "
            f"({best['ess'] / n['log']['answered']:.1%}); the heaviest weighs {best['max_weight']:,.0f} times a "
            "plain row.",
        )


def _propensities(n: Numbers) -> Iterator[tuple[str, str]]:
    for one in n["candidates"]:
        off = abs(one["mean_weight"] - 1.0)
        if one["name"] == "uniform" and off > 4.0 * one["mean_weight_error"] and off > 1e-6:
            yield (
                "Check how propensities are recorded.",
                f"Under uniform choice the mean weight is {one['mean_weight']:.3f} and should be 1; it is "
                f"{off / one['mean_weight_error']:.0f} standard errors away, so the values below are off too.",
            )


def _deployment(n: Numbers) -> Iterator[tuple[str, str]]:
    if not n["candidates"]:
        return
    best = max(n["candidates"], key=lambda one: one["gain"]["low"])
    gain, logged = best["gain"], n["log"]["reward"]["value"]
    if gain["low"] > 0.0:
        yield (
            f"Deploy {_rule(best['name'])}.",
            f"{_whose(best['name'])} would earn {best['dr']['value']:.4f} per request where the log earned "
            f"{logged:.4f}: {gain['value']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}], an interval that holds for "
            f"all {len(n['candidates'])} candidates at once.",
        )
    else:
        top = n["candidates"][0]
        wide = (top["gain"]["high"] - top["gain"]["low"]) / 2
        rows = top["rows_to_settle"]
        more = (
            f"Telling a gain of {wide / 2:.4f} takes about {4 * n['log']['answered']:,} rows."
            if rows is None or top["gain"]["value"] <= 0.0
            else f"Were it so, about {rows:,} rows like these would settle it."
        )
        yield (
            "Keep routing as it is.",
            f"No candidate beats the log beyond doubt; the best, {top['name']}, by {top['gain']['value']:+.4f} ± "
            f"{wide:.4f}. {more}",
        )


def _whose(name: str) -> str:
    return "The arms that a linear fit to it expects most of" if name.startswith("learned") else "It"


def _rule(name: str) -> str:
    if name.startswith("learned"):
        return "a learning router (LinUCB), warm-started from this log"
    return f"the rule “{name}”"


def _drift(n: Numbers) -> Iterator[tuple[str, str]]:
    log = n["log"]
    if log["change_in_errors"] < -4.0:
        yield (
            "Let the policy forget: tune discount (banditroute tune --search alpha discount).",
            f"The mean reward fell from {log['first_quarter']:.4f} in the first quarter of the rows to "
            f"{log['last_quarter']:.4f} in the last, {-log['change_in_errors']:.0f} standard errors.",
        )


def _forecasts(n: Numbers) -> Iterator[tuple[str, str]]:
    found = n.get("forecasts")
    if not found or not found["rows"]:
        return
    if found["coverage_95"] < 0.9:
        yield (
            "Look for drift, or for contexts that say more: the model is too sure of itself.",
            f"Only {found['coverage_95']:.1%} of the rewards lie in the 95 % interval of their forecast.",
        )
    if found["explained"] is None or found["explained"] >= 0.01:
        return
    both = (
        f"Forecasts in the order of the log explain {found['explained']:.1%} of the variance of the rewards over "
        f"{found['rows']:,} rows, a linear fit to the rest of the log {found['fitted']:.1%}."
    )
    if found["fitted"] < 0.01:
        yield "Look for contexts that say more about the reward.", both
    else:
        yield (
            "Warm-start from this log, or look for drift: a router that begins with nothing learns late.",
            both,
        )


def _slots(n: Numbers) -> Iterator[tuple[str, str]]:
    if "residency" not in n:
        return
    one = n["residency"]["diagnosis"]
    price = f"at a fault price of {one['fault']:.3g} ({one['fault_source']})"
    if one["worth"] < 0.01 * max(abs(n["log"]["reward"]["value"]), 1e-9):
        yield (
            "Leave residency alone.",
            f"Keeping every arm resident would earn {one['worth']:.4g} per request {price}, below 1 % of the mean "
            "reward.",
        )
        return
    if one["enough"] is not None and one["enough"] < n["log"]["arms"]:
        at = one["slots"].index(one["enough"])
        text = (
            f"{price[:1].upper()}{price[1:]} they earn {one['coverage'][at]:.0%} of what keeping all "
            f"{n['log']['arms']} resident would, {one['worth']:.4g} per request."
        )
        gain = one["per_window"][at] - one["fixed"][at]
        if gain >= 0.02:
            text += (
                f" Chosen anew for each {one['window']} requests the set can serve {one['per_window'][at]:.0%} of "
                f"them, {one['fixed'][at]:.0%} when chosen once: re-plan by epochs."
            )
        hit = n["residency"].get("hit_rate")
        if hit is not None:
            text += f" The log's hit rate is {hit['value']:.0%}."
        yield f"Keep {one['enough']} slots for arms in fast memory.", text


def _waits(n: Numbers) -> Iterator[tuple[str, str]]:
    waits = n.get("latency", {})
    if not {"all", "hits", "faults"} <= set(waits):
        return
    more = waits["faults"]["p50_ms"] - waits["hits"]["p50_ms"]
    share = waits["faults"]["rows"] / waits["all"]["rows"]
    if more > 0.0 and share * more > 0.05 * waits["all"]["mean_ms"]:
        yield (
            "Count waiting for adapters into the fault price.",
            f"A fault takes {more:,.0f} ms longer at the median and happens on {share:.1%} of the requests: "
            f"{share * more:,.0f} ms of the mean {waits['all']['mean_ms']:,.0f} ms; p99 is "
            f"{waits['all']['p99_ms']:,.0f} ms, {waits['hits']['p99_ms']:,.0f} ms among hits.",
        )
