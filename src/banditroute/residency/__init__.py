"""Residency: which arms stay in fast memory."""

from banditroute.residency.classic import LFU, LRU, Static
from banditroute.residency.controller import Controller, View, Window
from banditroute.residency.polar import Polar
from banditroute.residency.resident import ResidentSet

__all__ = ["LFU", "LRU", "Controller", "Polar", "ResidentSet", "Static", "View", "Window"]
