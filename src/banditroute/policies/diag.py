"""Diag-LinUCB: LinUCB that keeps the diagonal only."""

from banditroute.policies.linear import LinearPolicy

__all__ = ["DiagLinUCB"]


class DiagLinUCB(LinearPolicy):
    """LinUCB with every precision matrix cut to its diagonal: O(dim) per arm in time and memory.

    Plays the largest ``sum_j x_j b_j / (ridge + d_j) + alpha sqrt(sum_j x_j^2 / (ridge + d_j)) - price`` with
    ``d_j = sum x_j^2`` and ``b_j = sum reward x_j`` (plus ``ridge prior_j``).

    Parameters
    ----------
    arms, dim, alpha, ridge, prior, discount, mix, intercept, max_norm, rng
        As in `LinUCB`.

    Notes
    -----
    Source: Online Matching (arXiv 2307.15893), as summarised by third parties, who call it Eq. 7-9 (equation numbers
    not checked against the text); the sparse form over a graph of user clusters and items is `GraphDiagLinUCB`. Exact
    when contexts have one non-zero component; otherwise the misfit of the missing off-diagonal part does not vanish:
    the estimate of a component absorbs what correlated components explain, and regret grows linearly in the end. With
    weights that sum to one over several components the mean is inflated by a factor common to all arms, so ranking
    survives and prices and thresholds do not.

    Examples
    --------
    >>> policy = DiagLinUCB(arms=2, dim=3, rng=0)
    >>> policy.update(0, [0.0, 1.0, 0.0], reward=1.0)
    >>> policy.counts
    array([1, 0])
    """

    _diagonal = True
