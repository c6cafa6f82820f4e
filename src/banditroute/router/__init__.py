"""The Router: policy, residency, terms, ledger, listeners, clock and lock meet here, and only here."""

from banditroute.router.feedback_queue import Learner
from banditroute.router.ledger import Ledger
from banditroute.router.limits import Source
from banditroute.router.router import Router

__all__ = ["Learner", "Ledger", "Router", "Source"]
