"""Forced exploration: a controller may replace the policy's choice, and the propensity says so."""

import numpy as np

from banditroute._core.kernels.loop import forced_share
from banditroute._core.typing import Floats
from banditroute.policies import Choice, Policy
from banditroute.residency import Controller

__all__ = ["forced"]


def forced(
    policy: Policy, controller: Controller, x: Floats, offers: Floats, choice: Choice
) -> tuple[int, float, bool]:
    """Replace the choice, with the controller's probability, by an arm that still needs forced decisions.

    Parameters
    ----------
    policy, controller
    x : (dim,) array
    offers : (k,) array
        Prices, infinite where an arm is closed.
    choice : Choice
        Of the policy.

    Returns
    -------
    (arm, propensity, whether it was forced)
        With needs m and rate p, ``P(a) = p m_a / sum m + (1 - p) pi(a | x)`` over open arms.
    """
    before = controller.needs.copy()
    drawn = controller.force(offers)
    if drawn is None:
        return choice.arm, choice.propensity, False
    arm, share = drawn
    rest = 1.0 - controller.rate
    if arm < 0:
        share = float(forced_share(before, offers, controller.rate, choice.arm))
        return choice.arm, share + rest * choice.propensity, False
    pure = choice.propensity if arm == choice.arm else 0.0
    if arm != choice.arm and not choice.propensity >= 1.0:  # also where it is not known yet
        allowed = np.isfinite(offers)
        prices = np.where(allowed, offers, 0.0)
        pure = float(policy.propensities(x, prices=prices, eligible=allowed)[arm])
    return arm, share + rest * pure, True
