"""Online contextual-bandit routing with residency control.

A policy turns a context into a choice and learns from rewards. A residency controller decides which arms stay loaded.
Terms say what else an arm costs now, or that it may not be used. The router joins them, remembers open decisions and
tells its listeners what happened. Logs are what a recorder wrote; evaluation asks what another policy would have
earned on them; simulation asks the same where every reward is known.

The names here are the words of the quickstart; everything else lives in its room: ``banditroute.policies``,
``residency``, ``terms``, ``logs``, ``durability``, ``router``, ``servers``, ``simulation``, ``evaluation``,
``plots`` and ``testing``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from banditroute.errors import BanditRouteError, SnapshotError, UnknownArm, UnknownDecision
from banditroute.policies import DiagLinUCB, EpsilonGreedy, LinTS, LinUCB, Policy
from banditroute.records import Decision
from banditroute.residency import LFU, LRU, Controller, Polar, Polaris, PolarPlus, Static
from banditroute.residency.paging import PagingModel
from banditroute.router import Router

if TYPE_CHECKING:
    from banditroute.config import from_config
    from banditroute.durability import FileStore
    from banditroute.logs import Recorder, Trace
    from banditroute.simulation import Problem, RegretTracker, Stream, regret, simulate, warmup

__all__ = [
    "LFU",
    "LRU",
    "BanditRouteError",
    "Controller",
    "Decision",
    "DiagLinUCB",
    "EpsilonGreedy",
    "FileStore",
    "LinTS",
    "LinUCB",
    "PagingModel",
    "Polar",
    "PolarPlus",
    "Polaris",
    "Policy",
    "Problem",
    "Recorder",
    "RegretTracker",
    "Router",
    "SnapshotError",
    "Static",
    "Stream",
    "Trace",
    "UnknownArm",
    "UnknownDecision",
    "from_config",
    "regret",
    "simulate",
    "warmup",
]

# Rooms that a serving process need not load; the first use of a name does.
_LAZY = {
    "FileStore": "durability",
    "Problem": "simulation",
    "Recorder": "logs",
    "RegretTracker": "simulation",
    "Stream": "simulation",
    "Trace": "logs",
    "from_config": "config",
    "regret": "simulation",
    "simulate": "simulation",
    "warmup": "simulation",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'banditroute' has no attribute {name!r}")
    value = getattr(import_module(f"banditroute.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
