"""What every feature map is: pure, frozen once fitted, and known by what it computes."""

import copy
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from banditroute._core import container
from banditroute._core import validation as check
from banditroute._core.files import write
from banditroute._core.typing import Arrays, Floats, Header

__all__ = ["Features", "fitted_copy", "scaled_rows", "taken_copy"]

FORMAT = 1


class Features(ABC):
    """Turns raw requests into contexts of norm at most about 1.

    A map computes the same for the same request, always: what it must see first is given to `fit` once and frozen
    from then on. Subclasses say `dim`, `batch` and `settings`, and, where they are fitted, `fit`, `arrays` and `take`.

    Examples
    --------
    >>> from banditroute.features import HashedText
    >>> issubclass(HashedText, Features)
    True
    """

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of the contexts."""

    @abstractmethod
    def batch(self, requests: Sequence[Any]) -> Floats:
        """Return the contexts of several requests, shape (n, dim)."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """Return what was chosen, as plain data."""

    def __call__(self, request: Any) -> Floats:
        """Return the context of one request, shape (dim,)."""
        row: Floats = self.batch([request])[0]
        return row

    @property
    def fitted(self) -> bool:
        """Whether contexts can be made: always, where nothing has to be seen first."""
        return True

    def fit(self, sample: Sequence[Any]) -> Self:
        """Look at a sample of requests, once, and be frozen; a map that has nothing to look at stays as it is."""
        return self

    def arrays(self) -> Arrays:
        """Return what was fitted; empty before that, and where nothing is."""
        return {}

    def take(self, arrays: Arrays) -> None:
        """Take up what `arrays` returned; raises ``ValueError`` and changes nothing where it does not fit."""
        if arrays:
            raise ValueError(
                f"arrays must be empty for {type(self).__name__}, which fits nothing, got {sorted(arrays)}"
            )

    def to_state(self) -> tuple[Header, Arrays]:
        """Return settings and what was fitted, as plain data."""
        own: Header = {"format": FORMAT, "kind": type(self).__name__, "settings": self.settings()}
        return own, {name: array.copy() for name, array in self.arrays().items()}

    def load_state(self, header: Header, arrays: Arrays) -> None:
        """Take up what `to_state` returned.

        Raises
        ------
        ValueError
            Of another format, kind or settings, or this map is fitted to something else; nothing changed.
        """
        if header.get("format") != FORMAT:
            raise ValueError(f"format must be {FORMAT}, got {check.shown(header.get('format'))}")
        own = json.loads(json.dumps({"kind": type(self).__name__, "settings": self.settings()}))
        for name, value in own.items():
            if header.get(name) != value:
                raise ValueError(f"{name} must be {_difference(value, header.get(name))}")
        mine = self.arrays()
        if not self.fitted:
            self.take(arrays)
        elif not _equal(mine, arrays):
            raise ValueError(
                f"{type(self).__name__} must be fitted to the same sample, got {_digest(header, arrays)} "
                f"beside its own {self.fingerprint()}"
            )

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that differ where contexts may differ.

        Examples
        --------
        >>> from banditroute.features import HashedText
        >>> HashedText(32).fingerprint() == HashedText(32).fingerprint() != HashedText(64).fingerprint()
        True
        """
        return _digest(*self.to_state())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file, atomically: fitted once, it is read wherever the same contexts are needed."""
        write(path, container.pieces(*self.to_state()))

    def load(self, path: str | os.PathLike[str]) -> Self:
        """Take up a file that `save` wrote; returns this map.

        Raises
        ------
        SnapshotError, ValueError
            Torn or altered; of other settings, or this map is fitted to something else. Nothing changed.
        OSError
            The file cannot be read.
        """
        self.load_state(*container.read(path))
        return self

    def unfitted(self) -> None:
        """Raise where a sample was seen already."""
        if self.fitted:
            raise ValueError(f"fit must be called once, got a second call of {type(self).__name__}")

    def ready(self) -> None:
        """Raise where a sample has to be seen first."""
        if not self.fitted:
            raise ValueError(
                f"{type(self).__name__} must be fitted to a sample of requests, or loaded, before it makes contexts"
            )

    def __repr__(self) -> str:
        """Show what was chosen."""
        inside = ", ".join(
            f"{k}={check.shown(v)}" for k, v in self.settings().items() if not isinstance(v, dict)
        )
        return f"{type(self).__name__}({inside}{'' if self.fitted else ', not fitted'})"


def fitted_copy(features: Features, sample: Sequence[Any]) -> Features:
    """Return a map that is fitted: this one, or a copy: nothing is left half done when a later step fails."""
    return features if features.fitted else copy.copy(features).fit(sample)


def taken_copy(features: Features, arrays: Arrays, prefix: str) -> Features:
    """Return a map with what `arrays` holds of it under a prefix: this one where it is fitted, or a copy."""
    if features.fitted:
        return features
    new = copy.copy(features)
    new.take({name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)})
    return new


def scaled_rows(rows: Floats) -> Floats:
    """Return rows of norm 1; rows of zeros stay.

    >>> scaled_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]])
    """
    largest = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    rows = rows / np.where(largest > 0.0, largest, 1.0)  # squares neither overflow nor vanish
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(norms > 0.0, norms, 1.0))


def _digest(header: Header, arrays: Arrays) -> str:
    found = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        found.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        found.update(array.tobytes())
    return found.hexdigest()[:16]


def _equal(one: Arrays, two: Arrays) -> bool:
    return one.keys() == two.keys() and all(_same(one[name], two[name]) for name in one)


def _same(one: NDArray[Any], two: NDArray[Any]) -> bool:
    return one.shape == two.shape and bool((one == two).all())


def _difference(mine: Any, other: Any) -> str:
    """Return where two settings disagree, as the end of a sentence that says what must be."""
    if isinstance(mine, dict) and isinstance(other, dict):
        for key in mine:
            if mine[key] != other.get(key):
                if isinstance(mine[key], dict) and isinstance(other.get(key), dict):
                    return f"the same in {key}: " + _difference(mine[key], other[key])
                return f"the same: {key} must be {check.shown(mine[key])}, got {check.shown(other.get(key))}"
        return f"the same, got {sorted(set(other) - set(mine))} beside them"
    return f"{check.shown(mine)}, got {check.shown(other)}"
