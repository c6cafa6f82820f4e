"""Diag-LinUCB on a sparse graph of clusters and items."""

from banditroute.policies.graph.cluster_graph import ClusterGraph
from banditroute.policies.graph.online_matching import GraphDiagLinUCB, ItemScores, Pick, Slate

__all__ = ["ClusterGraph", "GraphDiagLinUCB", "ItemScores", "Pick", "Slate"]
