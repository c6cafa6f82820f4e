"""Residency: which arms stay in fast memory."""

from banditroute.residency.classic import FIFO, LRU, SIEVE
from banditroute.residency.controller import Controller, View, Window
from banditroute.residency.counting import FTPL, GDSF, LFU, DecayedLFU
from banditroute.residency.fixed import Popularity, RandomSet, ResidentOnly, Static
from banditroute.residency.objectives import best_set, coverage, gains, gap, objective
from banditroute.residency.plans import Exchange, difference
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
    "Static",
    "View",
    "Window",
    "best_set",
    "coverage",
    "difference",
    "gains",
    "gap",
    "objective",
]
