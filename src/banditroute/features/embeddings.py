"""Any encoder's vectors, reduced on a sample: centred, projected to the directions that vary, and scaled."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from banditroute._core import validation as check
from banditroute._core.typing import Arrays, Floats
from banditroute.features.base import Features, fitted_copy, scaled_rows, taken_copy
from banditroute.features.encoders import described

__all__ = ["Embedding"]

SMALLEST = 1e-9  # share of the largest spread below which a direction counts as none


class Embedding(Features):
    """Vectors of an encoder become a few components of a good scale; fitted to a sample of requests and frozen.

    Parameters
    ----------
    encoder : callable, Features or scikit-learn transformer, optional
        Takes a list of requests and returns their vectors, (n, D): ``model.encode`` of sentence-transformers or
        model2vec, a call of an API, another map, or a pipeline with a ``transform`` that is fitted already. Left out,
        requests are vectors.
    components : int, optional
        Principal components kept; all coordinates as they are when left out.
    whiten : bool
        Give every component the same spread, so that those that vary little count as much as the first.
    center : bool
        Take the mean of the sample away.
    unit : bool
        Scale each context to norm 1; otherwise all by one factor, so that the mean square of their norms is 1 on the
        sample.
    name : str, optional
        What the fingerprint says of the encoder, such as the model's name and version; its own name when left out.

    Notes
    -----
    A sample of some ten times `components` or more, of requests like those to come, is enough; its singular value
    decomposition takes seconds for 5,000 vectors of 1,024 numbers. Contexts of the same request agree to rounding
    whether it comes alone or in a batch.

    Raises
    ------
    ValueError
        At `fit`: more components than the sample has directions.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> vectors = rng.normal(size=(500, 3)) @ rng.normal(size=(3, 100))
    >>> features = Embedding(components=3).fit(vectors)
    >>> features.dim, float(np.linalg.norm(features(vectors[0])).round(6))
    (3, 1.0)
    """

    def __init__(
        self,
        encoder: Callable[[list[Any]], Any] | Any = None,
        components: int | None = None,
        *,
        whiten: bool = False,
        center: bool = True,
        unit: bool = True,
        name: str | None = None,
    ) -> None:
        if encoder is not None:
            _callable(encoder)
        self.encoder = encoder
        self.components = None if components is None else check.integer("components", components, low=1)
        for key, value in (("whiten", whiten), ("center", center), ("unit", unit)):
            if not isinstance(value, bool):
                raise TypeError(f"{key} must be true or false, got {check.shown(value)}")
        if whiten and (components is None or not center):
            raise ValueError("whiten must be False without components or without center, got True")
        self.whiten, self.center, self.unit = whiten, center, unit
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a text, got {check.shown(name)}")
        self._described = described(encoder) if name is None else name
        self._mean: Floats | None = None
        self._axes: Floats | None = (
            None  # (D, dim) projection and scale in one; (dim,) scale where nothing is projected
        )

    @property
    def dim(self) -> int:
        """Length of the contexts; without `components` known once it is fitted."""
        if self.components is not None:
            return self.components
        if self._mean is None:
            self.ready()
        assert self._mean is not None
        return len(self._mean)

    @property
    def fitted(self) -> bool:
        """Whether a sample was seen, or a state loaded."""
        return self._mean is not None

    def settings(self) -> dict[str, Any]:
        """Return what was chosen, as plain data; of the encoder its name and, where it can be read, what it holds."""
        return {
            "encoder": self._described,
            "components": self.components,
            "whiten": self.whiten,
            "center": self.center,
            "unit": self.unit,
        }

    def fit(self, sample: Sequence[Any]) -> Self:
        """Find mean, directions and scale of a sample of requests; the encoder is fitted first where it is a map.

        Parameters
        ----------
        sample : sequence of requests, or (n, D) array
            At least two.
        """
        self.unfitted()
        encoder = self.encoder
        if isinstance(encoder, Features):
            encoder = fitted_copy(encoder, sample)
        rows = _encoded(encoder, "sample", sample, None)
        if len(rows) < 2:
            raise ValueError(f"sample must hold at least two requests, got {len(rows)}")
        mean = rows.mean(axis=0) if self.center else np.zeros(rows.shape[1])
        rows = rows - mean
        if self.components is None:
            axes = np.ones(rows.shape[1])
            projected = rows
        else:
            axes = self._directions(rows)
            projected = rows @ axes
        scale = np.sqrt((projected**2).sum(axis=1).mean())
        if not scale > 0.0:
            raise ValueError("sample must hold requests that differ, got the same vector throughout")
        self.encoder, self._mean, self._axes = encoder, mean, axes if self.unit else axes / scale
        return self

    def _directions(self, rows: Floats) -> Floats:
        assert self.components is not None
        _, spread, directions = np.linalg.svd(rows, full_matrices=False)
        rank = int((spread > SMALLEST * max(spread[0], 1e-300)).sum())
        if self.components > rank:
            raise ValueError(
                f"components must be at most the number of directions in the sample, {rank}, got {self.components}"
            )
        axes: Floats = directions[: self.components].T
        # Of the two signs of a direction the one whose largest coordinate is positive: libraries differ in it.
        axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(self.components)])
        if self.whiten:
            axes = axes * (np.sqrt(len(rows)) / spread[: self.components])
        return np.ascontiguousarray(axes)

    def batch(self, requests: Sequence[Any]) -> Floats:
        """Return the contexts of several requests, shape (n, dim).

        Raises
        ------
        ValueError, TypeError
            Not fitted; the encoder's vectors are of another length, or not finite.
        """
        self.ready()
        assert self._mean is not None and self._axes is not None
        if not len(requests):
            return np.zeros((0, self.dim))
        rows = _encoded(self.encoder, "requests", requests, len(self._mean)) - self._mean
        rows = rows @ self._axes if self._axes.ndim == 2 else rows * self._axes
        return scaled_rows(rows) if self.unit else np.asarray(rows)

    def arrays(self) -> Arrays:
        """Return mean and axes, and what was fitted of an encoder that is a map."""
        if self._mean is None or self._axes is None:
            return {}
        inner = self.encoder.arrays() if isinstance(self.encoder, Features) else {}
        return {
            "mean": self._mean,
            "axes": self._axes,
            **{f"encoder.{name}": array for name, array in inner.items()},
        }

    def take(self, arrays: Arrays) -> None:
        """Take up what `arrays` returned."""
        mean = check.matrix("mean", np.atleast_2d(check.entry("arrays", arrays, "mean")))[0]
        axes = np.array(check.entry("arrays", arrays, "axes"), dtype=np.float64)
        shape = (len(mean),) if self.components is None else (len(mean), self.components)
        if axes.shape != shape or not np.isfinite(axes).all():
            raise ValueError(f"axes must be finite and have shape {shape}, got {axes.shape}")
        if isinstance(self.encoder, Features):
            self.encoder = taken_copy(self.encoder, arrays, "encoder.")
        self._mean, self._axes = mean.copy(), axes


def _encoded(encoder: Any, name: str, requests: Sequence[Any], columns: int | None) -> Floats:
    """Return the vectors of requests, checked, shape (n, D)."""
    if encoder is None:
        return check.matrix(name, requests, columns=columns)
    given = _callable(encoder)(list(requests))
    if hasattr(given, "toarray"):  # a sparse matrix of scikit-learn
        given = given.toarray()
    return check.matrix(f"encoder's vectors of {name}", given, columns=columns, rows=len(requests))


def _callable(encoder: Any) -> Callable[[Any], Any]:
    if isinstance(encoder, Features):
        return encoder.batch
    found = getattr(encoder, "transform", encoder)
    if not callable(found) or isinstance(encoder, type):
        raise TypeError(
            "encoder must be a callable that takes a list of requests, a map of features or a transformer, "
            f"got {check.shown(encoder)}"
        )
    return found  # type: ignore[no-any-return]
