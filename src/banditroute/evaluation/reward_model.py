"""The one model of rewards that evaluation uses: ridge regressions by arm, each row predicted from the other folds."""

from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.regression import Columns, positive_solve
from banditroute._core.typing import Floats, Ints

__all__ = ["RewardModel", "RewardSums", "cross_fit", "cross_fitted"]

FOLDS = 5
_BLOCK = 16_384  # rows at once: keeps the scratch far below the table


class RewardModel(NamedTuple):
    """Coefficients that score each fold, (folds, k, width), learned from the rows of the others.

    Examples
    --------
    >>> model = cross_fit(np.zeros((4, 0)), np.zeros(4, int), np.ones(4), 1, folds=2)
    >>> model.expected(np.zeros((4, 0))).ravel().round(6)
    array([1., 1., 1., 1.])
    """

    columns: Columns
    theta: Floats

    def expected(self, contexts: Floats, first: int = 0) -> Floats:
        """Return the expected reward of every arm on rows numbered from `first`, (n, k).

        Row i belongs to fold ``i % folds`` and is scored by what the other folds taught.
        """
        folds, count, _ = self.theta.shape
        out = np.empty((len(contexts), count))
        for f in range(folds):
            begin = (f - first) % folds
            for start in range(begin, len(contexts), _BLOCK * folds):
                own = slice(start, min(start + _BLOCK * folds, len(contexts)), folds)
                out[own] = self.columns(contexts[own]) @ self.theta[f].T
        return out


class RewardSums:
    """Sums for the regressions, by fold and arm: they may be formed in parts, anywhere, and added.

    Parameters
    ----------
    columns : Columns
        The scale of the columns, the same for all parts.
    count : int
        Number of arms k.
    folds : int
        Row i belongs to fold ``i % folds``: neighbours in time are apart, so that drift is shared by all fits.

    Examples
    --------
    >>> sums = RewardSums(Columns.of(np.zeros((0, 0))), 1, 2)
    >>> sums.add(np.zeros((2, 0)), np.zeros(2, int), np.array([1.0, 3.0]))
    >>> sums.solved(1e-9).theta.ravel().round(3)
    array([3., 1.])
    """

    def __init__(self, columns: Columns, count: int, folds: int = FOLDS) -> None:
        self.columns, width = columns, columns.dim
        self.gram = np.zeros((folds, count, width, width))
        self.moment = np.zeros((folds, count, width))

    def add(self, contexts: Floats, arms: Ints, rewards: Floats, first: int = 0) -> None:
        """Count rows numbered from `first`: contexts (n, d), arms and rewards (n,)."""
        folds, count, _ = self.moment.shape
        cell = (first + np.arange(len(arms))) % folds * count + arms
        order = np.argsort(cell, kind="stable")
        edges = np.searchsorted(cell[order], np.arange(folds * count + 1))
        for j in range(folds * count):
            f, a = divmod(j, count)
            for start in range(edges[j], edges[j + 1], _BLOCK):
                own = order[start : min(start + _BLOCK, edges[j + 1])]
                x = self.columns(contexts[own])
                self.gram[f, a] += x.T @ x
                self.moment[f, a] += x.T @ rewards[own]

    @classmethod
    def of(
        cls, contexts: Floats, arms: Ints, rewards: Floats, count: int, folds: int = FOLDS
    ) -> "RewardSums":
        """Return the sums over a whole log, its columns brought to one scale."""
        sums = cls(Columns.of(contexts), count, folds)
        sums.add(contexts, arms, rewards)
        return sums

    def placed(self, place: list[int], count: int) -> "RewardSums":
        """Return the same sums among `count` arms, arm i at ``place[i]``.

        Examples
        --------
        >>> sums = RewardSums.of(np.zeros((2, 0)), np.zeros(2, int), np.ones(2), 1, 2)
        >>> sums.placed([2], 3).moment[:, :, 0].sum(axis=0)
        array([0., 0., 2.])
        """
        new = RewardSums(self.columns, count, len(self.moment))
        new.gram[:, place], new.moment[:, place] = self.gram, self.moment
        return new

    def __iadd__(self, other: "RewardSums") -> Self:
        """Add the sums of other rows."""
        self.gram += other.gram
        self.moment += other.moment
        return self

    def words(self) -> tuple[str, ...]:
        """Return in words what is odd about the columns: their scales, and that some follow from others."""
        more = self.redundant()
        if not more:
            return self.columns.words()
        return (
            *self.columns.words(),
            f"{more} of the {self.columns.dim - 1} context columns follow{'s' * (more == 1)} from the others and the "
            "constant; the fit of rewards shares the effect among them.",
        )

    def redundant(self) -> int:
        """Return how many columns follow from the others."""
        width = self.columns.dim
        whole = self.gram.reshape(-1, width, width).sum(axis=0)
        used = np.append(self.columns.factor > 0.0, True)
        values = np.linalg.eigvalsh(whole[np.ix_(used, used)])
        return int((values < 1e-10 * values[-1]).sum())

    def solved(self, ridge: float) -> RewardModel:
        """Return the model; `ridge` is the strength with which an arm is drawn towards the fit of all arms together."""
        change = self._to_unit_variance()
        theta = _solved(change @ self.gram @ change.T, self.moment @ change.T, ridge)
        return RewardModel(self.columns, theta @ change)

    def _to_unit_variance(self) -> Floats:
        """Return the change of basis to columns of mean 0 and variance 1 over all rows that were added.

        So the penalty means the same whichever part of the log told the scale of the columns.
        """
        width = self.columns.dim
        whole = self.gram.reshape(-1, width, width).sum(axis=0)
        change, rows = np.eye(width), whole[-1, -1]
        if rows > 0.0:
            mean = whole[:-1, -1] / rows
            variance = np.diagonal(whole)[:-1] / rows - mean**2
            factor = np.divide(
                1.0, np.sqrt(np.maximum(variance, 0.0)), out=np.ones(width - 1), where=variance > 1e-9
            )
            change[:-1, :-1] = np.diag(factor)
            change[:-1, -1] = -mean * factor
        return change


def _solved(gram: Floats, moment: Floats, ridge: float) -> Floats:
    """Return the coefficients that score each fold, (folds, arms, width), from the sums of the other folds."""
    folds, count, width = moment.shape
    theta = np.empty_like(moment)
    penalty = np.full(width, ridge)
    level_free = penalty.copy()
    level_free[-1] = 1e-9  # the level of the rewards is not shrunk, only kept solvable
    for f in range(folds):
        others = (
            np.arange(folds) != f
        )  # summed, not subtracted: the fold must not show in the last bit either
        other_gram, other_moment = gram[others].sum(axis=0), moment[others].sum(axis=0)
        shared = positive_solve(other_gram.sum(axis=0), other_moment.sum(axis=0), level_free)
        for a in range(count):
            theta[f, a] = positive_solve(other_gram[a], other_moment[a] + ridge * shared, penalty)
    return theta


def cross_fit(
    contexts: Floats | None,
    arms: Ints,
    rewards: Floats,
    count: int,
    *,
    ridge: float = 1.0,
    folds: int = FOLDS,
) -> RewardModel:
    """Fit rewards by ridge regression arm by arm, so that each row can be predicted from the other folds.

    Parameters
    ----------
    contexts : (n, d) array or None
        Brought to one scale first, and given a constant; without contexts the fit is the mean reward of each arm.
    arms, rewards : (n,) arrays
    count : int
        Number of arms.
    ridge : float
        Strength with which an arm is drawn towards the fit of all arms together.
    folds : int
        Row i belongs to fold ``i % folds``.

    Returns
    -------
    RewardModel
        Cost O(n d (d + count)), scratch a small part of the contexts.

    Examples
    --------
    >>> model = cross_fit(None, np.zeros(4, int), np.ones(4), 1, folds=2)
    >>> model.theta.round(6).ravel()
    array([1., 1.])
    """
    table = np.zeros((len(arms), 0)) if contexts is None else contexts
    return RewardSums.of(table, arms, rewards, count, folds).solved(ridge)


def cross_fitted(contexts: ArrayLike, rewards: ArrayLike, *, ridge: float = 1.0) -> Floats:
    """Return expected rewards as a linear router can know them: each row by a ridge regression on the other folds.

    The best of N noisy rewards on one request looks better than any router can do; this is the sober version.

    Parameters
    ----------
    contexts : (n, d) array
        Brought to one scale first, and given a constant.
    rewards : (n, N) array
        Of every arm on every row.
    ridge : float
        Strength with which an arm is drawn towards the fit of all arms together, > 0.

    Returns
    -------
    (n, N) array
        Five folds, every fifth row each.

    Raises
    ------
    ValueError, TypeError
        Arrays that do not fit together; fewer than five rows.

    Examples
    --------
    >>> x = np.linspace(0.0, 1.0, 50)
    >>> fitted = cross_fitted(x[:, None], np.column_stack([x, 1.0 - x]), ridge=1e-6)
    >>> bool(np.allclose(fitted[:, 0], x, atol=1e-4))
    True
    """
    X = check.matrix("contexts", contexts)
    R = check.matrix("rewards", rewards, rows=len(X))
    precision = check.finite("ridge", ridge, low=0.0, open_low=True)
    if len(X) < FOLDS:
        raise ValueError(f"contexts must have at least {FOLDS} rows, got {len(X)}")
    columns, count = Columns.of(X), R.shape[1]
    gram = np.zeros((FOLDS, 1, columns.dim, columns.dim))
    moment = np.zeros((FOLDS, count, columns.dim))
    for f in range(FOLDS):
        x = columns(X[f::FOLDS])
        gram[f, 0], moment[f] = x.T @ x, R[f::FOLDS].T @ x
    # Every arm is known on every row: all have the same gram matrix.
    every = np.broadcast_to(gram, (FOLDS, count, columns.dim, columns.dim))
    return RewardModel(columns, _solved(every, moment, precision)).expected(X)
