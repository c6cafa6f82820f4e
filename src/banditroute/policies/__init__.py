"""Routing policies, one file each."""

from banditroute.policies.diag import DiagLinUCB
from banditroute.policies.greedy import EpsilonGreedy
from banditroute.policies.hybrid import HybridLinUCB
from banditroute.policies.lints import LinTS
from banditroute.policies.linucb import LinUCB
from banditroute.policies.logistic import LogisticUCB
from banditroute.policies.online_matching import GraphDiagLinUCB
from banditroute.policies.restart import Restarting
from banditroute.policies.shared import SharedLinUCB
from banditroute.policies.simple import EMA, UCB1, BetaThompson, Fixed, GaussianThompson, RoundRobin, Uniform
from banditroute.policies.squarecb import SquareCB
from banditroute.policies.window import RarelySwitching, SlidingWindow, Stale

__all__ = [
    "EMA",
    "UCB1",
    "BetaThompson",
    "DiagLinUCB",
    "EpsilonGreedy",
    "Fixed",
    "GaussianThompson",
    "GraphDiagLinUCB",
    "HybridLinUCB",
    "LinTS",
    "LinUCB",
    "LogisticUCB",
    "RarelySwitching",
    "Restarting",
    "RoundRobin",
    "SharedLinUCB",
    "SlidingWindow",
    "SquareCB",
    "Stale",
    "Uniform",
]
