"""Pictures of runs, traces and studies. Needs the extra "demo".

Each function draws on one matplotlib Axes, the current one when not given, and returns it; `data` returns the table
behind what it drew. `page` gives Axes that end up in a picture file, `svg` a drawing for a web page.
"""

from banditroute.plots.canvas import COLOURS, DASHES, REST, STYLE, data, page, svg
from banditroute.plots.learning import calibration, interval_coverage, width_decay
from banditroute.plots.requests import (
    arm_shares,
    latency_distribution,
    mean_over_time,
    residency_timeline,
    weight_distribution,
)
from banditroute.plots.studies import (
    alpha_sweep,
    hit_rate_by_slots,
    regret_bands,
    regret_by_slots,
    regret_slope,
)
from banditroute.plots.values import cost_frontier, quality_cost, value_intervals

__all__ = [
    "COLOURS",
    "DASHES",
    "REST",
    "STYLE",
    "alpha_sweep",
    "arm_shares",
    "calibration",
    "cost_frontier",
    "data",
    "hit_rate_by_slots",
    "interval_coverage",
    "latency_distribution",
    "mean_over_time",
    "page",
    "quality_cost",
    "regret_bands",
    "regret_by_slots",
    "regret_slope",
    "residency_timeline",
    "svg",
    "value_intervals",
    "weight_distribution",
    "width_decay",
]
