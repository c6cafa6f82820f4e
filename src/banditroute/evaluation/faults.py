"""What a fault costs, as a trace tells it, and whether rewards are of a scale that it can be weighed against."""

import numpy as np

from banditroute.logs import Trace

__all__ = ["fault_price", "scale_note"]

FAULT = 0.05  # price of a fault where neither the trace nor the caller tells one
SCALES = (5e-3, 2.0)  # fault prices beside the spread of rewards that need no word


def scale_note(spread: float, fault: float) -> str | None:
    """Return a word on rewards whose scale is far from that of a fault price, or None.

    Examples
    --------
    >>> scale_note(0.3, 0.05) is None
    True
    >>> scale_note(40.0, 0.05)
    'Rewards vary by 40 and a fault costs 0.05: prices are in reward units, so faults count for nothing here.'
    """
    if spread <= 0.0 or fault <= 0.0 or SCALES[0] <= fault / spread <= SCALES[1]:
        return None
    effect = (
        "faults count for nothing here" if fault < spread else "rewards count for nothing beside faults here"
    )
    return f"Rewards vary by {spread:.3g} and a fault costs {fault:.3g}: prices are in reward units, so {effect}."


def fault_price(trace: Trace) -> tuple[float, str]:
    """Return the price of a fault as the trace tells it, and where it is from.

    Examples
    --------
    >>> trace = Trace(names=["a", "b"], arms=[0, 0], rewards=[1.0, 1.0], hits=[True, False],
    ...               prices=[[0.25, 0.5], [0.375, 0.5]])
    >>> fault_price(trace)[0]
    0.125
    """
    own = getattr(trace, "fault_prices", None)  # kept apart from other prices by traces that know them
    missed = np.zeros(0, np.int64) if trace.hits is None else np.flatnonzero(~trace.hits)
    if own is not None and len(missed):
        return max(float(own[missed, trace.arms[missed]].mean()), 0.0), "mean price of the faults"
    if trace.hits is None or trace.prices is None or not len(missed):
        return FAULT, "assumed"
    # What an arm costs when it is resident is no fault price: the difference is.
    paid = trace.prices[np.arange(len(trace)), trace.arms]
    extra, count = 0.0, 0
    for arm in np.unique(trace.arms[missed]).tolist():
        faults, hits = paid[(trace.arms == arm) & ~trace.hits], paid[(trace.arms == arm) & trace.hits]
        if len(hits):
            extra, count = extra + float(faults.sum() - len(faults) * hits.mean()), count + len(faults)
    if count and paid[trace.hits].any():
        return max(extra / count, 0.0), "mean price of the faults above that of hits on the same arm"
    return max(float(paid[missed].mean()), 0.0), "mean price of the faults"
