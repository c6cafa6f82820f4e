"""Ridge regression that stays solvable: columns brought to one scale, normal equations kept positive definite."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve

from banditroute._core.typing import Floats, Mask

__all__ = ["Columns", "positive_solve"]

_BLOCK = 16_384  # rows looked at once: keeps the scratch far below the table
_HARDLY = 1e-12  # a column that varies by less than this share of its size is a constant with rounding on it
_HUGE = 1e150  # squares beyond leave the range of a float
_APART = 1e6  # scales further apart are worth a word


class Columns(NamedTuple):
    """How the columns of a table come to one scale: ``(x - shift) * factor``, factor 0 where one is left out.

    ``left_out`` marks columns that do not vary, ``noted`` those among them that are no plain constant. Any shift and
    factor serve the fit equally well as long as they are about right: they may come from the first part of a table.

    Examples
    --------
    >>> columns = Columns.of(np.array([[1e9, 1.0], [3e9, 1.0]]))
    >>> columns(np.array([[1e9, 1.0], [3e9, 1.0]]))
    array([[-1.,  0.,  1.],
           [ 1.,  0.,  1.]])
    """

    shift: Floats
    factor: Floats
    noted: Mask

    @classmethod
    def of(cls, table: Floats) -> "Columns":
        """Return the shift and factor that give each column of a finite table, (n, d), mean 0 and variance 1."""
        rows, width = table.shape
        peak, total, square = np.zeros(width), np.zeros(width), np.zeros(width)
        low, high = np.full(width, np.inf), np.full(width, -np.inf)
        for start in range(0, rows, _BLOCK):
            block = table[start : start + _BLOCK]
            low, high = np.minimum(low, block.min(axis=0)), np.maximum(high, block.max(axis=0))
        peak = np.maximum(np.abs(low), np.abs(high)) if rows else peak
        unit = np.where((peak > 0.0) & (peak < _HUGE), peak, 1.0)
        usable = (peak > 0.0) & (peak < _HUGE) & (low < high)
        for start in range(0, rows, _BLOCK):
            total += np.where(usable, table[start : start + _BLOCK] / unit, 0.0).sum(axis=0)
        centre = total / max(rows, 1)
        for start in range(0, rows, _BLOCK):
            off = np.where(usable, table[start : start + _BLOCK] / unit, 0.0) - centre
            square += np.einsum("ij,ij->j", off, off)
        spread = np.sqrt(square / max(rows, 1))
        varies = usable & (spread > _HARDLY)
        factor = np.divide(1.0, spread * unit, out=np.zeros(width), where=varies)
        return cls(np.where(varies, centre * unit, 0.0), factor, ~varies & (low < high))

    @property
    def dim(self) -> int:
        """Number of columns that come out: one more than go in, for the constant 1."""
        return len(self.shift) + 1

    def __call__(self, table: Floats) -> Floats:
        """Return the columns on their scale with a last column of ones, (n, d + 1)."""
        out = np.ones((len(table), self.dim))
        used = self.factor > 0.0
        out[:, :-1] = (np.where(used, table, 0.0) - self.shift) * self.factor
        return out

    def words(self, what: str = "context") -> tuple[str, ...]:
        """Return in words what was done to columns that needed more than a change of unit.

        Examples
        --------
        >>> Columns.of(np.array([[1e9, 0.5], [3e9, 0.7]])).words()
        ('The context columns are of scales 1e+10 apart; they were brought to one scale for the fit of rewards.',)
        """
        notes = []
        used = self.factor[self.factor > 0.0]
        if used.size and used.max() / used.min() > _APART:
            notes.append(
                f"The {what} columns are of scales {used.max() / used.min():.0e} apart; they were brought to one "
                "scale for the fit of rewards."
            )
        if self.noted.any():
            which = ", ".join(str(i) for i in np.flatnonzero(self.noted)[:8])
            notes.append(
                f"Of the {what} columns {which} {'was' if self.noted.sum() == 1 else 'were'} left out of the fit of "
                "rewards: too large, or the same number up to rounding."
            )
        return tuple(notes)


def positive_solve(gram: Floats, moment: Floats, penalty: Floats) -> Floats:
    """Solve ``(gram + diag(penalty)) theta = moment`` for a gram matrix, whatever its rank.

    A millionth of a millionth of the trace is added to the diagonal: nothing where the matrix is well conditioned, and
    enough for Cholesky where columns follow from one another.

    Examples
    --------
    >>> positive_solve(np.ones((2, 2)), np.ones(2), np.zeros(2)).round(2)
    array([0.5, 0.5])
    """
    width = len(gram)
    floor = 1e-12 * float(np.trace(gram)) + np.finfo(np.float64).tiny
    system = gram.copy()
    system[np.arange(width), np.arange(width)] += penalty + floor
    answer: Floats = solve(system, moment, assume_a="pos")
    return answer
