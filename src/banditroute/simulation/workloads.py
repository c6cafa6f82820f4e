"""Workloads: named families of residency problems, each a function of a length and a seed.

`FAMILIES` is a plain dict; ``FAMILIES["homes"](32_768, seed)`` is a `Problem`. The functions behind it take
every parameter as a keyword (`banditroute.simulation.synthetic`). Constants of a controller
tuned on one half of the families should be judged on the other half.
"""

from collections.abc import Callable
from functools import partial

from banditroute.simulation.popularity import Seed
from banditroute.simulation.stream import Problem
from banditroute.simulation.synthetic import (
    bursts,
    changing,
    churning,
    clustered,
    curved,
    delayed,
    drifting,
    homes,
    rotating,
    sized,
)

__all__ = ["FAMILIES"]

_DEAR = (0.5, 1.0)

FAMILIES: dict[str, Callable[[int, Seed], Problem]] = {
    # Utility and context structure.
    "homes": homes,
    "overlapping": partial(homes, overlap=0.7),
    "low-rank": partial(homes, rank=3),
    "collinear": partial(homes, common=2.0),
    "isotropic": partial(homes, spread=float("inf")),
    "level": partial(homes, centres=10, orthogonal=True, strength=1.0, away=0.25),
    # Popularity.
    "zipf-1.5": partial(homes, zipf=1.5),
    "flat": partial(homes, zipf=0.0),
    "abrupt": drifting,
    "gradual": partial(drifting, gradual=True),
    "bursts": bursts,
    "bursts-dear": partial(bursts, prices=_DEAR),
    # Prices, feedback, noise.
    "cheap": partial(homes, prices=(0.02, 0.05)),
    "dear": partial(homes, prices=_DEAR),
    "delay": delayed,
    "sigma-0.3": partial(homes, noise=0.3),
    # Dimension, slots, arms.
    "d-5": partial(homes, dim=5),
    "d-32": partial(homes, dim=32),
    "d-64": partial(homes, dim=64),
    "K-1": partial(homes, capacity=1),
    "K-2": partial(homes, capacity=2),
    "K-8": partial(homes, capacity=8),
    "N-60-K-4": partial(homes, n_arms=60, capacity=4),
    "N-60-K-30": partial(homes, n_arms=60, capacity=30),
    # Not among those the constants of the controllers were tuned on.
    "curved": curved,
    "correlated": partial(bursts, stay=0.8, memory=0.95),
    "sized": sized,
    "changing": changing,
    "sigma-0.02": partial(homes, noise=0.02),
    "sigma-0.5": partial(homes, noise=0.5),
    "clustered": clustered,
    "rotating": rotating,
    "churning": churning,
}
