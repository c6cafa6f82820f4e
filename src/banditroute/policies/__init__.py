"""Routing policies, one file each."""

from banditroute.policies.diag import DiagLinUCB
from banditroute.policies.greedy import EpsilonGreedy
from banditroute.policies.lints import LinTS
from banditroute.policies.linucb import LinUCB
from banditroute.policies.online_matching import GraphDiagLinUCB

__all__ = ["DiagLinUCB", "EpsilonGreedy", "GraphDiagLinUCB", "LinTS", "LinUCB"]
