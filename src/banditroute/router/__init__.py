"""The Router: policy, residency, terms, ledger, listeners, clock and lock meet here, and only here."""

from banditroute.router.explain import ArmExplained, Explanation
from banditroute.router.feedback_queue import FeedbackQueue
from banditroute.router.ledger import Ledger, decision_key
from banditroute.router.limits import RewardLimits
from banditroute.router.lists import cascade
from banditroute.router.router import Router

__all__ = [
    "ArmExplained",
    "Explanation",
    "FeedbackQueue",
    "Ledger",
    "RewardLimits",
    "Router",
    "cascade",
    "decision_key",
]
