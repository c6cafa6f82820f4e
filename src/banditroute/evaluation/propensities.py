"""Propensities that nobody logged, estimated from the log: better than none, and never as good as those recorded."""

from dataclasses import replace

import numpy as np

from banditroute._core import validation as check
from banditroute._core.regression import Columns
from banditroute._core.typing import Floats
from banditroute.logs import Trace

__all__ = ["estimated_propensities"]


def estimated_propensities(trace: Trace, *, folds: int = 5, floor: float = 1e-3) -> Trace:
    """Return a trace with estimated propensities in the place of those it has, or lacks.

    Parameters
    ----------
    trace : Trace
        What the logging rule looked at must be in its contexts, masks or times; whatever else it knew biases every
        value that is computed with these propensities.
    folds : int
        Row i belongs to fold ``i % folds`` and gets its probabilities from a fit to the others.
    floor : float
        Smallest probability of an eligible arm, in (0, 1 / k].

    Returns
    -------
    Trace

    Raises
    ------
    ImportError
        With contexts, and without scikit-learn.
    ValueError
        Fewer rows than folds, or a floor above 1 / k.

    Notes
    -----
    With contexts a multinomial logistic regression of the arm on them, brought to one scale (scikit-learn's, with its
    default penalty); without, the shares of the arms. Arms that were not eligible get nothing, the others their share
    of the rest.

    Examples
    --------
    >>> trace = Trace(names=["a", "b"], arms=[0, 0, 0, 1] * 25, rewards=[1.0] * 100)
    >>> estimated_propensities(trace).propensities[:4].round(2)
    array([0.75, 0.75, 0.75, 0.25])
    """
    parts, width = check.integer("folds", folds, low=2), len(trace.names)
    least = check.finite("floor", floor, low=0.0, high=1.0 / width, open_low=True)
    if len(trace) < parts:
        raise ValueError(f"trace must hold at least {parts} rows, got {len(trace)}")
    fold = np.arange(len(trace)) % parts
    table = None if trace.contexts is None else Columns.of(trace.contexts)(trace.contexts)[:, :-1]
    shares = np.empty((len(trace), width))
    for f in range(parts):
        own, rest = fold == f, fold != f
        if table is None or table.shape[1] == 0:
            shares[own] = np.bincount(trace.arms[rest], minlength=width) / rest.sum()
        else:
            shares[own] = _regressed(table[rest], trace.arms[rest], table[own], width)
    shares = (1.0 - width * least) * shares + least
    if trace.eligible is not None:
        shares = np.where(trace.eligible, shares, 0.0)
        shares /= shares.sum(axis=1, keepdims=True)
    return replace(trace, propensities=np.minimum(shares[np.arange(len(trace)), trace.arms], 1.0))


def _regressed(table: Floats, arms: Floats, asked: Floats, width: int) -> Floats:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError(
            "propensities from contexts need sklearn: pip install 'banditroute[demo]'"
        ) from error
    out = np.zeros((len(asked), width))
    known = np.unique(arms)
    if len(known) == 1:
        out[:, known[0]] = 1.0
    else:
        model = LogisticRegression(max_iter=1000).fit(table, arms)
        out[:, model.classes_] = model.predict_proba(asked)
    return out
