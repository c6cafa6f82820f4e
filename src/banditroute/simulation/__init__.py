"""Streams, environments, simulation, regret and hindsight: where every reward is known."""

from banditroute.simulation.comparison import (
    Outcome,
    compare_policies,
    compare_residency,
    linear_set,
    microseconds,
    summary,
)
from banditroute.simulation.costs import Frontier, Point, frontier, hull
from banditroute.simulation.digits import digits_adapters
from banditroute.simulation.engine import simulate
from banditroute.simulation.environments import LinearEnvironment, MatrixEnvironment
from banditroute.simulation.fitted import FittedPolicy
from banditroute.simulation.hindsight import (
    best_fixed_arm,
    earned,
    joint_bound,
    joint_optimum,
    oracle_routing,
)
from banditroute.simulation.regrets import Regret, RegretTracker, bands, interval, regret, slope
from banditroute.simulation.run import Run
from banditroute.simulation.stream import Problem, Stream, best_static_set, value_with
from banditroute.simulation.synthetic import (
    bursts,
    changing,
    churning,
    clustered,
    curved,
    delayed,
    drifting,
    homes,
    priced,
    rotating,
    sized,
)
from banditroute.simulation.warm import warmup
from banditroute.simulation.workloads import FAMILIES

__all__ = [
    "FAMILIES",
    "FittedPolicy",
    "Frontier",
    "LinearEnvironment",
    "MatrixEnvironment",
    "Outcome",
    "Point",
    "Problem",
    "Regret",
    "RegretTracker",
    "Run",
    "Stream",
    "bands",
    "best_fixed_arm",
    "best_static_set",
    "bursts",
    "changing",
    "churning",
    "clustered",
    "compare_policies",
    "compare_residency",
    "curved",
    "delayed",
    "digits_adapters",
    "drifting",
    "earned",
    "frontier",
    "homes",
    "hull",
    "interval",
    "joint_bound",
    "joint_optimum",
    "linear_set",
    "microseconds",
    "oracle_routing",
    "priced",
    "regret",
    "rotating",
    "simulate",
    "sized",
    "slope",
    "summary",
    "value_with",
    "warmup",
]
