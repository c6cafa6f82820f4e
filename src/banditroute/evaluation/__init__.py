"""What another policy would have earned on a log: overlap, estimators, tuning, reports."""

from banditroute.evaluation.batches import Batches, compare_batches, warm_start_batches
from banditroute.evaluation.diagnosis import (
    Diagnosis,
    diagnose,
    segment_cache,
    segment_hits,
    segment_routing,
)
from banditroute.evaluation.draws import Dealt, Draws, score
from banditroute.evaluation.estimators import ESTIMATORS
from banditroute.evaluation.faults import fault_price, scale_note
from banditroute.evaluation.forecasting import Forecasts, expected_rewards, forecasts
from banditroute.evaluation.overlap import Target, check_overlap, known_propensities, target_array
from banditroute.evaluation.propensities import estimated_propensities
from banditroute.evaluation.question import Estimate, Evaluation
from banditroute.evaluation.rankings import Lists, ListTarget, evaluate_lists
from banditroute.evaluation.replays import Replay, replay
from banditroute.evaluation.report_advice import advice
from banditroute.evaluation.reports import Report, report
from banditroute.evaluation.reward_model import RewardModel, cross_fit, cross_fitted
from banditroute.evaluation.sequences import ConfidenceSequence, Running, running
from banditroute.evaluation.tuning import SPACE, Tuned, sweep, tune
from banditroute.evaluation.values import Difference, compare, difference, evaluate

__all__ = [
    "ESTIMATORS",
    "SPACE",
    "Batches",
    "ConfidenceSequence",
    "Dealt",
    "Diagnosis",
    "Difference",
    "Draws",
    "Estimate",
    "Evaluation",
    "Forecasts",
    "ListTarget",
    "Lists",
    "Replay",
    "Report",
    "RewardModel",
    "Running",
    "Target",
    "Tuned",
    "advice",
    "check_overlap",
    "compare",
    "compare_batches",
    "cross_fit",
    "cross_fitted",
    "diagnose",
    "difference",
    "estimated_propensities",
    "evaluate",
    "evaluate_lists",
    "expected_rewards",
    "fault_price",
    "forecasts",
    "known_propensities",
    "replay",
    "report",
    "running",
    "scale_note",
    "score",
    "segment_cache",
    "segment_hits",
    "segment_routing",
    "sweep",
    "target_array",
    "tune",
    "warm_start_batches",
]
