"""Routing policies, one file each."""

from banditroute.policies.base import Choice, Compiled, Policy, Scores, Utilities
from banditroute.policies.diag import DiagLinUCB
from banditroute.policies.evidence import ArmEvidence, EvidencePolicy, summed
from banditroute.policies.featured import CandidatePolicy, Features
from banditroute.policies.graph.cluster_graph import ClusterGraph
from banditroute.policies.graph.online_matching import OnlineMatching
from banditroute.policies.graph.policy import GraphDiagLinUCB
from banditroute.policies.greedy import EpsilonGreedy
from banditroute.policies.hybrid import HybridLinUCB
from banditroute.policies.linear import LinearPolicy
from banditroute.policies.lints import LinTS
from banditroute.policies.linucb import LinUCB
from banditroute.policies.logistic import LogisticUCB
from banditroute.policies.restart import Restarting
from banditroute.policies.shared import SharedLinUCB
from banditroute.policies.simple import EMA, UCB1, BetaThompson, Fixed, GaussianThompson, RoundRobin, Uniform
from banditroute.policies.squarecb import SquareCB
from banditroute.policies.warm_starts import from_averages, preference_prior, quiz, warm_start
from banditroute.policies.window import BatchedUpdates, SlidingWindow, StalenessInflation

__all__ = [
    "EMA",
    "UCB1",
    "ArmEvidence",
    "BatchedUpdates",
    "BetaThompson",
    "CandidatePolicy",
    "Choice",
    "ClusterGraph",
    "Compiled",
    "DiagLinUCB",
    "EpsilonGreedy",
    "EvidencePolicy",
    "Features",
    "Fixed",
    "GaussianThompson",
    "GraphDiagLinUCB",
    "HybridLinUCB",
    "LinTS",
    "LinUCB",
    "LinearPolicy",
    "LogisticUCB",
    "OnlineMatching",
    "Policy",
    "Restarting",
    "RoundRobin",
    "Scores",
    "SharedLinUCB",
    "SlidingWindow",
    "SquareCB",
    "StalenessInflation",
    "Uniform",
    "Utilities",
    "from_averages",
    "preference_prior",
    "quiz",
    "summed",
    "warm_start",
]
