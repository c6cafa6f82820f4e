"""What shapes a choice beside its reward, and what forbids an arm: budget, floor, queues, health, cost models."""

from banditroute.terms.base import BaseTerm
from banditroute.terms.budget import BudgetPacer, knapsack
from banditroute.terms.cascade import Cascade
from banditroute.terms.cost_models import CostModels
from banditroute.terms.floor import QualityFloor, cheapest_above
from banditroute.terms.health import ArmHealth
from banditroute.terms.queues import Queues
from banditroute.terms.screening import screen, stability
from banditroute.terms.sessions import Sessions
from banditroute.terms.usage_prices import energy, money

__all__ = [
    "ArmHealth",
    "BaseTerm",
    "BudgetPacer",
    "Cascade",
    "CostModels",
    "QualityFloor",
    "Queues",
    "Sessions",
    "cheapest_above",
    "energy",
    "knapsack",
    "money",
    "screen",
    "stability",
]
