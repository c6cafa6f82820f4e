"""Paging latency: what it costs to serve a request with an arm that is not resident.

A fault waits for the adapter to come from disk or host memory. The policy sees the *expected* wait as a price
in reward units; a sampled wait is reported, and charged in simulation. Noise is a standard normal drawn by
the caller, so that the same draws can be replayed on another model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core.typing import Floats
from banditroute._core.validation import finite, integer, vector
from banditroute.residency.paging.measured import (
    MAX_PRICE,
    MS_TO_REWARD,
    EmpiricalPaging,
    Measurement,
    load_times,
    measure_paging,
    normal_draw,
)
from banditroute.residency.paging.profiles import PROFILES, adapter_bytes

__all__ = [
    "PROFILES",
    "EmpiricalPaging",
    "Link",
    "Measurement",
    "Paging",
    "PagingModel",
    "adapter_bytes",
    "as_paging",
    "fault_prices",
    "load_times",
    "measure_paging",
]


_DEFAULT = PROFILES["llama-3.1-8b/disk"]
_BYTES_PER_MS = 1e6  # of one GB/s
_FEWEST_BYTES = 1024.0  # no adapter is smaller
_NOMINAL = 2.0**-10  # reward units per nominal millisecond of a fixed price


@runtime_checkable
class Paging(Protocol):
    """What a router needs to know about faults; `PagingModel` and `EmpiricalPaging` are two of them.

    Examples
    --------
    >>> isinstance(PagingModel(), Paging), isinstance(0.1, Paging)
    (True, False)
    """

    def prices(self, n_arms: int, sizes: ArrayLike | None = None) -> Floats:
        """Return the expected price of a fault per arm, reward units, shape (n_arms,)."""

    def sample_ms(self, arm: int, normal: float, size: float | None = None) -> float:
        """Return one wait in milliseconds, made from one standard normal."""

    def to_reward(self, ms: float) -> float:
        """Return what a wait costs in reward units."""


def _vector(name: str, value: Any, size: int) -> Floats:
    array = vector(name, value, size)
    if not size or array.min() < 0.0:
        raise ValueError(f"{name} must hold numbers >= 0, one for each arm, got {value!r}")
    return array


def _amounts(name: str, value: Any) -> float | Sequence[float]:
    """Return one number for all arms, or a tuple with one for each; never negative."""
    if np.ndim(value) == 0:
        return finite(name, value, low=0.0)
    return tuple(_vector(name, value, len(value)).tolist())


def _per_arm(name: str, amounts: float | Sequence[float], n_arms: int) -> Floats:
    integer("n_arms", n_arms, low=1)
    return np.full(n_arms, amounts) if isinstance(amounts, float) else vector(name, amounts, n_arms)


@dataclass(frozen=True, slots=True, kw_only=True)
class PagingModel:
    """Latency = (base + tensors * overhead + bytes / bandwidth) * lognormal noise of median 1.

    The default is the measured disk-to-host load of a rank 16 adapter of Llama-3.1-8B, 45.7 + 2.47 rank ms;
    `profile` gives others, `fit` one of your own. Immutable and hashable.

    Parameters
    ----------
    base_ms, tensor_ms
        Milliseconds per load and per tensor, >= 0.
    tensors
        Tensors in an adapter.
    size_bytes
        Bytes of an adapter: a number for all arms, or one for each arm.
    bandwidth_gb_s
        1e9 bytes per second, > 0; ``math.inf`` when size does not matter.
    jitter
        Log-sigma of the noise, in [0, 3]. The mean is ``exp(jitter ** 2 / 2)`` times the median.
    ms_to_reward
        Reward units per millisecond. The default says that a second of waiting is worth one unit, the whole
        range of a reward in [0, 1]; a fault of the default profile then costs 0.086.
    max_price
        No fault costs more than this, reward units.

    Raises
    ------
    ValueError, TypeError
        If an argument is not a number in its range.

    Examples
    --------
    >>> model = PagingModel()
    >>> model.latency_ms(2).round(1)
    array([85.2, 85.2])
    >>> model.prices(2).round(4)
    array([0.0856, 0.0856])
    """

    base_ms: float = _DEFAULT.base_ms
    tensors: int = _DEFAULT.tensors
    tensor_ms: float = _DEFAULT.tensor_ms
    size_bytes: float | Sequence[float] = 16.0 * _DEFAULT.bytes_per_rank
    bandwidth_gb_s: float = _DEFAULT.bandwidth_gb_s
    jitter: float = _DEFAULT.jitter
    ms_to_reward: float = MS_TO_REWARD
    max_price: float = MAX_PRICE

    def __post_init__(self) -> None:
        """Check the arguments and store them in one form, so that equal models hash alike."""
        store = object.__setattr__
        for name in ("base_ms", "tensor_ms", "ms_to_reward", "max_price"):
            store(self, name, finite(name, getattr(self, name), low=0.0))
        store(self, "tensors", integer("tensors", self.tensors))
        store(self, "size_bytes", _amounts("size_bytes", self.size_bytes))
        if self.bandwidth_gb_s != math.inf:
            rate = finite("bandwidth_gb_s", self.bandwidth_gb_s, low=0.0, open_low=True)
            store(self, "bandwidth_gb_s", rate)
        store(self, "jitter", finite("jitter", self.jitter, low=0.0, high=3.0))

    @classmethod
    def profile(cls, name: str, rank: ArrayLike = 16, **changes: Any) -> Self:
        """Return a known profile for adapters of a rank, or of one rank per arm.

        Parameters
        ----------
        name
            One of `PROFILES`, which states the source of each.
        rank
            Rank of all adapters, or of each, >= 1.
        changes
            Other arguments of the model, such as ``ms_to_reward`` or ``size_bytes``.

        Raises
        ------
        ValueError
            If the name is unknown (the message lists them) or a rank is below 1.

        Examples
        --------
        >>> PagingModel.profile("qwen2.5-7b/disk", rank=[8, 32]).latency_ms(2).round(1)
        array([10.1, 20.7])
        """
        if name not in PROFILES:
            raise ValueError(f"name must be one of {', '.join(PROFILES)}, got {name!r}")
        row = PROFILES[name]
        ranks = [integer("rank", r, low=1) for r in np.atleast_1d(rank)]
        sizes = [float(r * row.bytes_per_rank) for r in ranks]
        known: dict[str, Any] = {
            "base_ms": row.base_ms,
            "tensors": row.tensors,
            "tensor_ms": row.tensor_ms,
            "size_bytes": sizes if np.ndim(rank) else sizes[0],
            "bandwidth_gb_s": row.bandwidth_gb_s,
            "jitter": row.jitter,
        }
        return cls(**(known | changes))

    @classmethod
    def fit(cls, sizes: ArrayLike, ms: Sequence[ArrayLike], **changes: Any) -> Self:
        """Fit base and bandwidth to measured loads by least squares on the median of each size.

        Parameters
        ----------
        sizes
            Shape (n,), bytes, at least two of them distinct.
        ms
            n lists of measured milliseconds, each > 0: the loads of each size.
        changes
            Other arguments of the model.

        Returns
        -------
        PagingModel
            ``base_ms >= 0``, a bandwidth (infinite where latency does not grow with size), the sizes given,
            and as jitter the pooled log-sigma within the lists (0 with a single load in each).

        Raises
        ------
        ValueError, TypeError
            If sizes are negative or all equal, a time is not positive, or the lengths differ.

        Examples
        --------
        >>> model = PagingModel.fit([1e6, 3e6], [[5.0], [9.0]])
        >>> model.base_ms, model.bandwidth_gb_s
        (3.0, 0.5)
        """
        loads = [_vector("ms", np.atleast_1d(own), np.size(own)) for own in ms]
        x = _vector("sizes", sizes, len(loads)) / _BYTES_PER_MS
        if np.ptp(x) == 0.0:
            raise ValueError(f"sizes must not all be equal, got {sizes!r}")
        if min(own.min() for own in loads) == 0.0:
            raise ValueError("ms must be > 0, got 0")
        y = np.array([np.median(own) for own in loads])
        slope = float(np.dot(x - x.mean(), y) / np.sum((x - x.mean()) ** 2))
        base = float(y.mean() - slope * x.mean())
        # With two coefficients the non-negative optimum lies on the boundary that the plain one crosses.
        if slope <= 0.0:
            slope, base = 0.0, float(y.mean())
        elif base < 0.0:
            slope, base = float(np.dot(x, y) / np.dot(x, x)), 0.0
        freedom = sum(own.size - 1 for own in loads)
        squares = sum(own.size * float(np.log(own).var()) for own in loads)
        known: dict[str, Any] = {
            "base_ms": base,
            "tensors": 0,
            "size_bytes": np.asarray(sizes),
            "bandwidth_gb_s": 1.0 / slope if slope > 0.0 else math.inf,
            "jitter": math.sqrt(squares / freedom) if freedom else 0.0,
        }
        return cls(**(known | changes))

    @property
    def _fixed_ms(self) -> float:
        return self.base_ms + self.tensors * self.tensor_ms

    def latency_ms(self, n_arms: int, sizes: ArrayLike | None = None) -> Floats:
        """Return the median wait of a fault per arm in milliseconds, shape (n_arms,).

        `sizes` (n_arms,) in bytes stand in for ``size_bytes``; ValueError if negative or of another length.

        Examples
        --------
        >>> PagingModel(base_ms=2.0, bandwidth_gb_s=0.5).latency_ms(2, [1e6, 0])
        array([4., 2.])
        """
        if sizes is None:
            amounts = _per_arm("size_bytes", self.size_bytes, n_arms)
        else:
            amounts = _vector("sizes", sizes, integer("n_arms", n_arms, low=1))
        return self._fixed_ms + amounts / (self.bandwidth_gb_s * _BYTES_PER_MS)

    def expected_ms(self, n_arms: int, sizes: ArrayLike | None = None) -> Floats:
        """Return the mean wait of a fault per arm in milliseconds: the median times ``exp(jitter ** 2 / 2)``.

        Examples
        --------
        >>> PagingModel(base_ms=2.0, size_bytes=0, jitter=0.5).expected_ms(1).round(3)
        array([2.266])
        """
        return self.latency_ms(n_arms, sizes) * math.exp(0.5 * self.jitter**2)

    def prices(self, n_arms: int, sizes: ArrayLike | None = None) -> Floats:
        """Return the price of a fault per arm: the mean wait in reward units, clipped at ``max_price``.

        Shape (n_arms,), in [0, max_price]; `sizes` as in `latency_ms`.

        Examples
        --------
        >>> PagingModel(base_ms=100, size_bytes=0, jitter=0).prices(2)
        array([0.1, 0.1])
        """
        return np.minimum(self.expected_ms(n_arms, sizes) * self.ms_to_reward, self.max_price)

    def sample_ms(self, arm: int, normal: float, size: float | None = None) -> float:
        """Return the wait of one fault in milliseconds: the median times ``exp(jitter * normal)``.

        `normal` is a standard normal drawn by the caller, `size` in bytes stands in for ``size_bytes``.
        ValueError if there is no such arm, the size is negative, or `normal` is beyond 40. About 2 us.

        Examples
        --------
        >>> PagingModel(base_ms=2.0, size_bytes=0, jitter=0.5).sample_ms(0, 0.0)
        2.0
        """
        amount = self.size_bytes if size is None else finite("size", size, low=0.0)
        if isinstance(amount, float):
            integer("arm", arm)
        else:
            amount = amount[integer("arm", arm, high=len(amount) - 1)]
        median = self._fixed_ms + amount / (self.bandwidth_gb_s * _BYTES_PER_MS)
        return median * math.exp(self.jitter * normal_draw(normal))

    def to_reward(self, ms: float) -> float:
        """Return what a wait of `ms` >= 0 milliseconds costs in reward units, at most ``max_price``.

        Examples
        --------
        >>> PagingModel(ms_to_reward=0.002).to_reward(50.0), PagingModel().to_reward(1e9)
        (0.1, 1.0)
        """
        return min(finite("ms", ms, low=0.0) * self.ms_to_reward, self.max_price)


def as_paging(value: Any, n_arms: int) -> Paging:
    """Return a paging model for `n_arms` arms: the one given, or one whose faults cost fixed prices.

    Parameters
    ----------
    value
        A `Paging`, or the price of a fault in reward units, >= 0: one for all arms, or one for each.
    n_arms
        Number of arms, >= 1.

    Returns
    -------
    Paging
        For prices, a model whose every wait converts back to exactly the price. Its milliseconds are nominal
        (1024 to the reward unit, a power of two for exactness): a price was stated, not a latency.

    Raises
    ------
    ValueError, TypeError
        If a price is negative or not finite, or the value is not for `n_arms` arms.

    Examples
    --------
    >>> paging = as_paging([0.1, 0.3], n_arms=2)
    >>> paging.prices(2), paging.to_reward(paging.sample_ms(1, normal=0.7))
    (array([0.1, 0.3]), 0.3)
    """
    if isinstance(value, Paging):
        value.prices(n_arms)
        return value
    prices = _amounts("paging", value)
    waits = _per_arm("paging", prices, n_arms) / _NOMINAL
    ms = waits[:1] if isinstance(prices, float) else waits[:, None]
    return EmpiricalPaging(ms, ms_to_reward=_NOMINAL, max_price=max(MAX_PRICE, np.max(prices)))


def fault_prices(paging: Paging, n_arms: int, sizes: ArrayLike | None = None) -> Floats:
    """Return what a fault of each arm costs when the arms have the sizes that a Router knows.

    Parameters
    ----------
    paging
        The model.
    n_arms
        Number of arms, >= 1.
    sizes
        Shape (n_arms,), > 0, in the unit of the controller's capacity. They are bytes where all are at least 1,024.
        Smaller ones cannot be: they count slots, or megabytes, and are multiples of their mean, which stands for the
        model's ``size_bytes``.

    Returns
    -------
    (n_arms,) array
        Reward units. A model that has a size for each arm keeps its own, fixed prices and measured waits stay as they
        are, and another model gets the sizes as they were given.

    Raises
    ------
    ValueError, TypeError
        If the sizes are not positive, or model or sizes are for another number of arms.

    Examples
    --------
    >>> model = PagingModel(base_ms=2.0, size_bytes=1e6, bandwidth_gb_s=0.1, jitter=0.0)
    >>> fault_prices(model, 2, [1e6, 9e6]), fault_prices(model, 2, [1, 3])
    (array([0.012, 0.092]), array([0.007, 0.017]))
    """
    if sizes is None:
        return paging.prices(n_arms)
    amounts = vector("sizes", sizes, integer("n_arms", n_arms, low=1))
    if not (amounts > 0.0).all():
        raise ValueError(f"sizes must be > 0, got {amounts.min()}")
    if not isinstance(paging, PagingModel):
        return paging.prices(n_arms, amounts)
    if not isinstance(paging.size_bytes, float):
        return paging.prices(n_arms)
    if amounts.min() < _FEWEST_BYTES:
        amounts = amounts / amounts.mean() * paging.size_bytes
    return paging.prices(n_arms, amounts)


class Link:
    """A link that moves one adapter at a time, first come first served: faults queue behind each other.

    Requests are taken in the order of the calls. Not thread-safe: the owner holds the lock.

    Parameters
    ----------
    free_s
        When the link is free, seconds on the owner's clock.

    Examples
    --------
    >>> link = Link()
    >>> link.request(now_s=1.0, ms=500.0), link.request(now_s=1.25, ms=500.0)
    ((1.0, 1.5), (1.5, 2.0))
    """

    def __init__(self, free_s: float = 0.0) -> None:
        """Start with a link that is free from `free_s` on."""
        self.free_s = finite("free_s", free_s)

    def request(self, now_s: float, ms: float) -> tuple[float, float]:
        """Queue a transfer of `ms` milliseconds at `now_s` and return when it starts and ends, in seconds.

        Raises ValueError (and the queue is unchanged) if an argument is not finite or `ms` is negative.

        Examples
        --------
        >>> Link(free_s=3.0).request(1.0, 250.0)
        (3.0, 3.25)
        """
        wait_ms = finite("ms", ms, low=0.0)
        start_s = max(finite("now_s", now_s), self.free_s)
        self.free_s = start_s + wait_ms / 1e3
        return start_s, self.free_s
