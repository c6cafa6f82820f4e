"""Workloads from recorded data: real rewards of models, real arrivals, real popularity.

The files of recorded data are not part of the package. They are looked for in the argument `data`, in the
directory named by the environment variable ``BANDITROUTE_DATA``, and in ``../shared/data``.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute import Problem
from banditroute._core.validation import finite, integer, unit
from banditroute.simulation import FAMILIES, MatrixEnvironment, digits_adapters, homes, priced
from banditroute.simulation.environments import Order
from banditroute.simulation.popularity import Seed, draw_groups

__all__ = ["RECORDED", "WORKLOADS", "arrivals", "data_file", "digits", "llmrouter9", "pareto4", "servegen"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_WINDOW_S = 600.0  # ServeGen counts requests in windows of ten minutes


def data_file(name: str, data: str | Path | None = None) -> Path:
    """Return the path of a recorded data file.

    Parameters
    ----------
    name
        File name.
    data
        Directory; the environment variable ``BANDITROUTE_DATA`` or ``../shared/data`` when not given.

    Raises
    ------
    FileNotFoundError
        When it is not there, saying where it was looked for.

    Examples
    --------
    >>> data_file("none.npz", data="nowhere")
    Traceback (most recent call last):
    FileNotFoundError: no none.npz in nowhere; BANDITROUTE_DATA names the directory
    """
    folder = Path(data or os.environ.get("BANDITROUTE_DATA") or Path("..", "shared", "data"))
    if not (folder / name).is_file():
        raise FileNotFoundError(f"no {name} in {folder}; BANDITROUTE_DATA names the directory")
    return folder / name


def llmrouter9(
    length: int,
    seed: Seed,
    *,
    order: Order = "replace",
    capacity: int = 3,
    prices: tuple[float, float] = (0.02, 0.1),
    data: str | Path | None = None,
    **options: Any,
) -> Problem:
    """Draw queries of 14 benchmarks, each answered by nine language models (whole models, not LoRA adapters).

    Parameters
    ----------
    length, seed, capacity, prices
        As in `synthetic.priced`. Fault prices are made up, on the scale of the gain that routing has here
        (0.03).
    order
        As in `MatrixEnvironment`; groups are benchmarks.
    data
        As in `data_file`.
    **options
        `components` (32), `bias`, `zipf` and `shifts` of `MatrixEnvironment.from_npz`.

    Examples
    --------
    >>> llmrouter9(10, 0, data="nowhere")
    Traceback (most recent call last):
    FileNotFoundError: no llmrouter9.npz in nowhere; BANDITROUTE_DATA names the directory
    """
    source = MatrixEnvironment.from_npz(
        data_file("llmrouter9.npz", data),
        "minilm_pca64",
        "scores",
        arms="models",
        groups="task",
        scale=255.0,
        order=order,
        **{"components": 32, **options},
    )
    return priced(source.stream(length, seed), seed, capacity=capacity, prices=prices)


def pareto4(
    length: int,
    seed: Seed,
    *,
    order: Order = "replace",
    capacity: int = 2,
    prices: tuple[float, float] = (0.01, 0.05),
    data: str | Path | None = None,
    **options: Any,
) -> Problem:
    """Draw prompts answered by four language models, with what each answer cost in dollars.

    Parameters
    ----------
    length, seed, order, capacity, prices, data, **options
        As in `llmrouter9`. Groups are sources of prompts.

    Examples
    --------
    >>> pareto4(10, 0, data="nowhere")
    Traceback (most recent call last):
    FileNotFoundError: no pareto4.npz in nowhere; BANDITROUTE_DATA names the directory
    """
    source = MatrixEnvironment.from_npz(
        data_file("pareto4.npz", data),
        "minilm_pca64",
        "rewards",
        "cost_usd",
        arms="models",
        groups="source",
        order=order,
        **{"components": 32, **options},
    )
    return priced(source.stream(length, seed), seed, capacity=capacity, prices=prices)


def digits(
    length: int,
    seed: Seed,
    *,
    n_arms: int = 15,
    capacity: int = 3,
    prices: tuple[float, float] = (0.15, 0.35),
    **options: Any,
) -> Problem:
    """Draw images of digits for classifiers that each know three or four classes; popularity shifts half-way.

    Parameters
    ----------
    length, seed, capacity, prices
        As in `synthetic.priced`. The seed is that of the requests; the classifiers are always the same.
    n_arms
        Number of classifiers.
    **options
        As in `digits_adapters`.

    Examples
    --------
    >>> digits(100, 0, n_arms=4).stream.arms[0]
    'generalist'
    """
    source = digits_adapters(n_arms, **options)
    return priced(source.stream(length, seed), seed, capacity=capacity, prices=prices)


def servegen(
    length: int,
    seed: Seed,
    *,
    series: str = "m_small",
    centres: int = 12,
    data: str | Path | None = None,
    **options: Any,
) -> Problem:
    """Let the popularity of the centres follow the largest clients of a language-model service over days.

    Client rates come from ServeGen in windows of ten minutes. The run is the whole series, thinned to T
    requests: a window receives requests in proportion to its total rate.

    Parameters
    ----------
    length, seed, **options
        As in `synthetic.homes`.
    series
        "m_small", "m_mid", "m_large" (14 days) or "deepseek_r1" (one day).
    centres
        Number of clients, the largest over the whole series, each with a centre of its own.
    data
        As in `data_file`.

    Examples
    --------
    >>> servegen(10, 0, data="nowhere")
    Traceback (most recent call last):
    FileNotFoundError: no arrivals.npz in nowhere; BANDITROUTE_DATA names the directory
    """
    rates = _array(f"servegen_{series}_rate", data)
    integer("centres", centres, low=1, high=rates.shape[1])
    rates = rates[:, np.argsort(-rates.sum(axis=0), kind="stable")[:centres]]
    reached = np.append(0.0, np.cumsum(rates.sum(axis=1)))
    places = (np.arange(length) + 0.5) / length * reached[-1]
    windows = np.searchsorted(reached, places, side="right") - 1
    times = np.interp(places, reached, np.arange(len(reached)) * _WINDOW_S)
    silent = rates.sum(axis=1) == 0
    rates[silent] = 1.0  # no request falls there, but shares must sum to something

    def popularity(shares: Floats, length: int, rng: np.random.Generator) -> Ints:
        return draw_groups(rates, windows, rng)

    problem = homes(length, seed, popularity=popularity, centres=centres, **options)
    return replace(problem, stream=replace(problem.stream, arrivals=times))


def arrivals(
    length: int,
    seed: Seed,
    *,
    log: str = "azure23_conv",
    stay: float = 0.9,
    feedback_s: float = 30.0,
    data: str | Path | None = None,
    **options: Any,
) -> Problem:
    """Let requests arrive as in a recorded log: bursts of one centre, and feedback after so many seconds.

    The logs do not say what a request is about. We suppose that a request repeats the centre of the one
    before it with probability `stay` when it came within the median gap, and is drawn anew otherwise. A log
    shorter than the run is repeated.

    Parameters
    ----------
    length, seed, **options
        As in `synthetic.homes`.
    log
        "azure23_code", "azure23_conv", "mooncake_conversation" or "mooncake_synthetic".
    stay
        In [0, 1].
    feedback_s
        Seconds from arrival to feedback, >= 0.
    data
        As in `data_file`.

    Examples
    --------
    >>> arrivals(10, 0, data="nowhere")
    Traceback (most recent call last):
    FileNotFoundError: no arrivals.npz in nowhere; BANDITROUTE_DATA names the directory
    """
    once = _array(f"{log}_t", data)
    rounds = np.arange(-(-length // len(once)))
    period = once[-1] - once[0] + np.diff(once).mean()
    times = (rounds[:, None] * period + (once - once[0])).ravel()[:length]
    gaps = np.diff(times, prepend=-np.inf)
    together = np.where(gaps <= np.median(np.diff(once)), unit("stay", stay), 0.0)

    def popularity(shares: Floats, length: int, rng: np.random.Generator) -> Ints:
        return draw_groups(shares, length, rng, stay=together)

    problem = homes(length, seed, popularity=popularity, **options)
    # The first request at or after the moment of feedback is the first that can profit from it.
    profits = np.searchsorted(times, times + finite("feedback_s", feedback_s, low=0.0), side="left")
    delays = np.maximum(profits - np.arange(length) - 1, 0)
    return replace(problem, stream=replace(problem.stream, arrivals=times, delays=delays))


def _array(key: str, data: str | Path | None) -> Floats:
    path = data_file("arrivals.npz", data)
    with np.load(path, allow_pickle=False) as file:
        if key not in file.files:
            raise ValueError(f"{path} has no array {key!r}; it holds {', '.join(file.files)}")
        return np.asarray(file[key], np.float64)


# Families as in `banditroute.simulation.FAMILIES`; all but the first need the recorded data files.
RECORDED: dict[str, Callable[[int, Seed], Problem]] = {
    "digits": digits,
    "llmrouter9": llmrouter9,
    "llmrouter9-drift": partial(llmrouter9, order="drift"),
    "pareto4": pareto4,
    "servegen": servegen,
    "azure-code": partial(arrivals, log="azure23_code"),
    "azure-conversation": partial(arrivals, log="azure23_conv"),
    "mooncake-conversation": partial(arrivals, log="mooncake_conversation"),
    "mooncake-synthetic": partial(arrivals, log="mooncake_synthetic"),
}
WORKLOADS = {**FAMILIES, **RECORDED}
