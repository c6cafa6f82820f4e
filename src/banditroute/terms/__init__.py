"""What shapes a choice beside its reward, and what forbids an arm: budget, floor, queues, health, cost models."""

from banditroute.terms.budget import BudgetPacer, knapsack
from banditroute.terms.cost_models import Heads
from banditroute.terms.floor import QualityFloor, cheapest_above
from banditroute.terms.health import ArmHealth, screen, stability
from banditroute.terms.prices import Prices, Queues, energy, money

__all__ = [
    "ArmHealth",
    "BudgetPacer",
    "Heads",
    "Prices",
    "QualityFloor",
    "Queues",
    "cheapest_above",
    "energy",
    "knapsack",
    "money",
    "screen",
    "stability",
]
