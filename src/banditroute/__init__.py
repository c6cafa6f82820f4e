"""Online contextual-bandit routing with residency control."""

from banditroute.errors import BanditRouteError, SnapshotError, UnknownArm, UnknownDecision
from banditroute.policies import LinUCB
from banditroute.policy import Choice, Policy, Scores

__all__ = [
    "BanditRouteError",
    "Choice",
    "LinUCB",
    "Policy",
    "Scores",
    "SnapshotError",
    "UnknownArm",
    "UnknownDecision",
]
