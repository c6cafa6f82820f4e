"""Online contextual-bandit routing with residency control."""

from banditroute.budget import BudgetPacer, knapsack
from banditroute.cluster_graph import ClusterGraph
from banditroute.decision import Decision
from banditroute.errors import BanditRouteError, SnapshotError, UnknownArm, UnknownDecision
from banditroute.feedback import Source
from banditroute.floor import QualityFloor, cheapest_above
from banditroute.heads import Heads
from banditroute.paging import EmpiricalPaging, PagingModel, measure_paging
from banditroute.policies import DiagLinUCB, EpsilonGreedy, GraphDiagLinUCB, LinTS, LinUCB
from banditroute.policy import Choice, Policy, Scores
from banditroute.prices import Prices, Queues, energy, money
from banditroute.recorder import Recorder
from banditroute.regret import Regret, RegretTracker, regret
from banditroute.residency import (
    FIFO,
    FTPL,
    GDSF,
    LFU,
    LRU,
    SIEVE,
    Controller,
    DecayedLFU,
    Polar,
    Polaris,
    PolarPlus,
    Popularity,
    RandomSet,
    ResidentOnly,
    ResidentSet,
    Static,
)
from banditroute.router import Router
from banditroute.screening import ArmHealth, screen, stability
from banditroute.simulate import Run, simulate
from banditroute.stores import FileStore
from banditroute.stream import Problem, Stream
from banditroute.trace import Trace
from banditroute.warm import warmup

__all__ = [
    "FIFO",
    "FTPL",
    "GDSF",
    "LFU",
    "LRU",
    "SIEVE",
    "ArmHealth",
    "BanditRouteError",
    "BudgetPacer",
    "Choice",
    "ClusterGraph",
    "Controller",
    "DecayedLFU",
    "Decision",
    "DiagLinUCB",
    "EmpiricalPaging",
    "EpsilonGreedy",
    "FileStore",
    "GraphDiagLinUCB",
    "Heads",
    "LinTS",
    "LinUCB",
    "PagingModel",
    "Polar",
    "PolarPlus",
    "Polaris",
    "Policy",
    "Popularity",
    "Prices",
    "Problem",
    "QualityFloor",
    "Queues",
    "RandomSet",
    "Recorder",
    "Regret",
    "RegretTracker",
    "ResidentOnly",
    "ResidentSet",
    "Router",
    "Run",
    "Scores",
    "SnapshotError",
    "Source",
    "Static",
    "Stream",
    "Trace",
    "UnknownArm",
    "UnknownDecision",
    "cheapest_above",
    "energy",
    "knapsack",
    "measure_paging",
    "money",
    "regret",
    "screen",
    "simulate",
    "stability",
    "warmup",
]
