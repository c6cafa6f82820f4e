"""Requests that are tables of named values: numbers, categories, texts, each a part of the context."""

from collections.abc import Mapping, Sequence
from math import log1p
from typing import Any, Self

import numpy as np

from banditroute._core import validation as check
from banditroute._core.typing import Arrays, Floats
from banditroute.features.base import Features, fitted_copy, taken_copy
from banditroute.features.hashing import mixed, of_text, signs

__all__ = ["Category", "Fields", "Number"]


class Number(Features):
    """A number becomes one coordinate in [-1, 1]; None, the unknown one, becomes 0.

    Parameters
    ----------
    low, high : float, optional
        What becomes -1 and 1; beyond them it is clipped. Both or neither: left out, `fit` takes the 5th and the 95th
        percentile of the sample.
    log : bool
        Take ``log(1 + number)`` first, for lengths, prices and counts; numbers must be >= 0.

    Examples
    --------
    >>> Number(0, 4000).batch([0, 1000, 9000, None]).ravel()
    array([-1. , -0.5,  1. ,  0. ])
    """

    def __init__(self, low: float | None = None, high: float | None = None, *, log: bool = False) -> None:
        if not isinstance(log, bool):
            raise TypeError(f"log must be true or false, got {check.shown(log)}")
        if (low is None) != (high is None):
            raise ValueError(f"low must be given with high, got {check.shown(low)} and {check.shown(high)}")
        self.low = None if low is None else check.finite("low", low, low=0.0 if log else -np.inf)
        self.high = (
            None if high is None or low is None else check.finite("high", high, low=low, open_low=True)
        )
        self.log = log
        self._range: tuple[float, float] | None = None
        if self.low is not None and self.high is not None:
            self._range = (self._read(self.low), self._read(self.high))

    @property
    def dim(self) -> int:
        """One."""
        return 1

    @property
    def fitted(self) -> bool:
        """Whether the range is known."""
        return self._range is not None

    def settings(self) -> dict[str, Any]:
        """Return what was chosen, as plain data."""
        return {"low": self.low, "high": self.high, "log": self.log}

    def fit(self, sample: Sequence[Any]) -> Self:
        """Take the range from a sample."""
        self.unfitted()
        numbers = [self._read(one) for one in sample if one is not None]
        if not numbers:
            raise ValueError("sample must hold a number, got none")
        low, high = (float(v) for v in np.percentile(numbers, [5.0, 95.0]))
        if not low < high:
            low, high = min(numbers), max(numbers)
        if not low < high:
            raise ValueError(f"sample must hold numbers that differ, got {low:g} throughout")
        self._range = (low, high)
        return self

    def _read(self, given: Any) -> float:
        number = check.finite("number", given, low=0.0 if self.log else -np.inf)
        return log1p(number) if self.log else number

    def batch(self, requests: Sequence[float | None]) -> Floats:
        """Return the contexts of several numbers, shape (n, 1)."""
        self.ready()
        assert self._range is not None
        low, high = self._range
        rows = np.zeros((len(requests), 1))
        for row, one in zip(rows, requests, strict=True):
            if one is not None:
                share = (self._read(one) / 2 - low / 2) / (high / 2 - low / 2)
                row[0] = min(max(2.0 * share - 1.0, -1.0), 1.0)
        return rows

    def arrays(self) -> Arrays:
        """Return the range."""
        return {} if self._range is None else {"range": np.array(self._range)}

    def take(self, arrays: Arrays) -> None:
        """Take up what `arrays` returned."""
        low, high = check.vector("range", check.entry("arrays", arrays, "range"), 2).tolist()
        if not low < high:
            raise ValueError(f"range must rise, got {low:g} to {high:g}")
        self._range = (low, high)


class Category(Features):
    """A category becomes a coordinate of its own, or a direction that its name says; None becomes 0.

    Parameters
    ----------
    values : sequence of str, optional
        The categories; each gets a coordinate, one that is not among them is 0 everywhere. Left out, any text will do:
        it gets a direction of `dim` hashed signs, and no two are likely to share one.
    dim : int
        Length of hashed directions; not with `values`.

    Examples
    --------
    >>> Category(["free", "pro"]).batch(["pro", "free", "other"])
    array([[0., 1.],
           [1., 0.],
           [0., 0.]])
    >>> Category(dim=4)("Berlin")
    array([ 0.5, -0.5, -0.5,  0.5])
    """

    def __init__(self, values: Sequence[str] | None = None, *, dim: int | None = None) -> None:
        self.values = None if values is None else check.names("values", values)
        if values is not None and dim is not None:
            raise ValueError(f"dim must be left out with values, got {check.shown(dim)}")
        hashed = check.integer("dim", 8 if dim is None else dim, low=1, high=1 << 16)
        self._dim = hashed if self.values is None else len(self.values)

    @property
    def dim(self) -> int:
        """Length of the part."""
        return self._dim

    def settings(self) -> dict[str, Any]:
        """Return what was chosen, as plain data."""
        return {"values": None if self.values is None else list(self.values), "dim": self._dim}

    def batch(self, requests: Sequence[str | None]) -> Floats:
        """Return the contexts of several categories, shape (n, dim)."""
        rows = np.zeros((len(requests), self._dim))
        for row, one in zip(rows, requests, strict=True):
            if one is None:
                continue
            if not isinstance(one, str):
                raise TypeError(f"category must be a text, got {check.shown(one)}")
            if self.values is None:
                row[:] = signs(mixed(np.array([of_text(one)]), 0), self._dim)[0] / np.sqrt(self._dim)
            elif one in self.values:
                row[self.values.index(one)] = 1.0
        return rows


class Fields(Features):
    """A table of named values becomes one context: its parts side by side, divided by the root of their number.

    Parameters
    ----------
    parts : mapping of str to Features
        What becomes of each value: `Number`, `Category`, `HashedText`, `Embedding` or a map of your own. A request may
        hold more; what it holds of these must be there, None where it is not known, which becomes zeros.

    Examples
    --------
    >>> from banditroute.features import HashedText
    >>> features = Fields({"tier": Category(["free", "pro"]), "tokens": Number(0, 8000), "text": HashedText(32)})
    >>> features({"tier": "pro", "tokens": 120, "text": "Translate this letter"}).shape
    (35,)
    """

    def __init__(self, parts: Mapping[str, Features]) -> None:
        if not isinstance(parts, Mapping) or not parts:
            raise TypeError(f"parts must map names to features, got {check.shown(parts)}")
        for name, part in parts.items():
            if not isinstance(name, str) or not isinstance(part, Features):
                raise TypeError(
                    f"parts must map names to features, got {check.shown(name)}: {check.shown(part)}"
                )
        self.parts = dict(parts)

    @property
    def dim(self) -> int:
        """Sum of the parts."""
        return sum(part.dim for part in self.parts.values())

    @property
    def fitted(self) -> bool:
        """Whether all parts are."""
        return all(part.fitted for part in self.parts.values())

    def settings(self) -> dict[str, Any]:
        """Return what was chosen, as plain data; parts in their order."""
        return {
            "order": list(self.parts),
            "parts": {n: {"kind": type(p).__name__, "settings": p.settings()} for n, p in self.parts.items()},
        }

    def fit(self, sample: Sequence[Mapping[str, Any]]) -> Self:
        """Fit the parts that are not yet, each to the values that are known of it."""
        self.unfitted()
        fitted = {}
        for name, part in self.parts.items():
            try:
                known = [value for value in self._column(name, sample) if value is not None]
                fitted[name] = fitted_copy(part, known)
            except (ValueError, TypeError) as error:
                raise type(error)(f"{name}: {error}") from error
        self.parts = fitted
        return self

    def _column(self, name: str, requests: Sequence[Mapping[str, Any]]) -> list[Any]:
        found = []
        for one in requests:
            if not isinstance(one, Mapping):
                raise TypeError(f"request must be a mapping, got {check.shown(one)}")
            if name not in one:
                raise ValueError(
                    f"request must have {name!r}, None where it is not known, got {check.shown(sorted(map(str, one)))}"
                )
            found.append(one[name])
        return found

    def batch(self, requests: Sequence[Mapping[str, Any]]) -> Floats:
        """Return the contexts of several requests, shape (n, dim).

        Raises
        ------
        ValueError, TypeError
            A value is missing, or its map refuses it; the message begins with its name.
        """
        self.ready()
        blocks = []
        for name, part in self.parts.items():
            given = self._column(name, requests)
            known = [i for i, value in enumerate(given) if value is not None]
            block = np.zeros((len(given), part.dim))
            try:
                if known:
                    block[known] = part.batch([given[i] for i in known])
            except (ValueError, TypeError) as error:
                raise type(error)(f"{name}: {error}") from error
            blocks.append(block)
        return np.asarray(np.concatenate(blocks, axis=1) / np.sqrt(len(blocks)), dtype=np.float64)

    def arrays(self) -> Arrays:
        """Return what was fitted of each part."""
        if not self.fitted:
            return {}
        return {
            f"{name}.{key}": array
            for name, part in self.parts.items()
            for key, array in part.arrays().items()
        }

    def take(self, arrays: Arrays) -> None:
        """Take up what `arrays` returned."""
        self.parts = {name: taken_copy(part, arrays, f"{name}.") for name, part in self.parts.items()}
