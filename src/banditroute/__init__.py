"""Online contextual-bandit routing with residency control."""

from banditroute.decision import Decision
from banditroute.errors import BanditRouteError, SnapshotError, UnknownArm, UnknownDecision
from banditroute.paging import EmpiricalPaging, PagingModel, measure_paging
from banditroute.policies import LinUCB
from banditroute.policy import Choice, Policy, Scores
from banditroute.regret import Regret, RegretTracker, regret
from banditroute.residency import LFU, LRU, Controller, Polar, ResidentSet, Static
from banditroute.router import Router
from banditroute.simulate import Run, simulate
from banditroute.stream import Problem, Stream

__all__ = [
    "LFU",
    "LRU",
    "BanditRouteError",
    "Choice",
    "Controller",
    "Decision",
    "EmpiricalPaging",
    "LinUCB",
    "PagingModel",
    "Polar",
    "Policy",
    "Problem",
    "Regret",
    "RegretTracker",
    "ResidentSet",
    "Router",
    "Run",
    "Scores",
    "SnapshotError",
    "Static",
    "Stream",
    "UnknownArm",
    "UnknownDecision",
    "measure_paging",
    "regret",
    "simulate",
]
