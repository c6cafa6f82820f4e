"""Standing preferences as prices: money on a log scale, and energy."""

from math import log

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.policies.base import LARGEST

__all__ = ["energy", "money"]


def money(usd: ArrayLike, *, low: float = 1e-4, high: float = 0.1, weight: float = 0.3) -> Floats:
    """Return ``weight * log(usd / low) / log(high / low)``, clipped to [0, weight]: each factor of cost counts alike.

    Parameters
    ----------
    usd : (k,) array
        Cost of each arm, >= 0.
    low, high : float
        Costs that are priced at 0 and at `weight`; ``0 < low < high``.
    weight : float
        Reward units; negative would pay for spending and is refused.

    Notes
    -----
    Source: ParetoBandit (arXiv 2604.00136; equation numbers not checked against the text), with its defaults (there
    per 1,000 tokens). A price such as
    ``1 / (1 + usd)`` hardly tells $0.01 from $0.0001.

    Examples
    --------
    >>> money([1e-4, 1e-3, 0.1, 5.0]).round(3)
    array([0. , 0.1, 0.3, 0.3])
    """
    low = check.finite("low", low, low=0.0, open_low=True)
    high = check.finite("high", high, low=low, open_low=True)
    weight = check.finite("weight", weight, low=0.0, high=LARGEST)
    return (
        weight
        * np.log(np.clip(check.non_negative("usd", usd, limit=LARGEST), low, high) / low)
        / log(high / low)
    )


def energy(joules: ArrayLike, *, weight: float = 0.5, largest: float | None = None) -> Floats:
    """Return ``weight / (1 - weight) * joules / largest``: the energy weighting of GreenServ as a price.

    Its reward ``(1 - weight) * accuracy + weight * (1 - energy / largest)`` ranks arms as ``accuracy - price`` does,
    and the accuracy stays learned apart from the energy.

    Parameters
    ----------
    joules : (k,) array
        Energy of each arm in any unit, >= 0.
    weight : float
        In [0, 1); 0 is accuracy alone.
    largest : float, optional
        Energy that counts as 1; the largest given when left out.

    Notes
    -----
    Source: GreenServ (arXiv 2601.17551; equation numbers not checked against the text), which also clips the reward and
    subtracts the smallest energy; a price that is equal for all arms changes nothing.

    Examples
    --------
    >>> energy([1.0, 4.0], weight=0.5)
    array([0.25, 1.  ])
    """
    used = check.non_negative("joules", joules, limit=LARGEST)
    share = check.finite("weight", weight, low=0.0, high=1.0 - 1e-12)
    top = used.max() if largest is None else check.finite("largest", largest, low=0.0, open_low=True)
    return np.asarray(share / (1.0 - share) * used / top) if top else np.zeros(len(used))
