"""Residency: which arms stay in fast memory."""

from banditroute.residency.backend import (
    AdapterBackend,
    Capabilities,
    Exchange,
    SimulatedBackend,
    State,
    apply,
    exchange,
)
from banditroute.residency.classic import FIFO, LRU, SIEVE
from banditroute.residency.controller import Controller, View, Window
from banditroute.residency.counting import FTPL, GDSF, LFU, DecayedLFU
from banditroute.residency.fixed import Popularity, RandomSet, ResidentOnly, Static
from banditroute.residency.objectives import best_set, coverage, gains, gap, objective
from banditroute.residency.polar import Polar
from banditroute.residency.polar_plus import PolarPlus
from banditroute.residency.polaris import Polaris
from banditroute.residency.reservoir import Reservoir
from banditroute.residency.resident_set import ResidentSet

__all__ = [
    "FIFO",
    "FTPL",
    "GDSF",
    "LFU",
    "LRU",
    "SIEVE",
    "AdapterBackend",
    "Capabilities",
    "Controller",
    "DecayedLFU",
    "Exchange",
    "Polar",
    "PolarPlus",
    "Polaris",
    "Popularity",
    "RandomSet",
    "Reservoir",
    "ResidentOnly",
    "ResidentSet",
    "SimulatedBackend",
    "State",
    "Static",
    "View",
    "Window",
    "apply",
    "best_set",
    "coverage",
    "exchange",
    "gains",
    "gap",
    "objective",
]
