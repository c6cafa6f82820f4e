"""Diag-LinUCB on a sparse graph of clusters and items."""

from banditroute.policies.graph.cluster_graph import ClusterGraph
from banditroute.policies.graph.online_matching import ItemScores, OnlineMatching, Pick, Slate
from banditroute.policies.graph.policy import GraphDiagLinUCB

__all__ = ["ClusterGraph", "GraphDiagLinUCB", "ItemScores", "OnlineMatching", "Pick", "Slate"]
