"""Random Fourier features: a linear policy over them learns smooth curves."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from banditroute._core import validation as check
from banditroute._core.typing import Arrays, Floats
from banditroute.features.base import Features, fitted_copy, taken_copy

__all__ = ["Fourier"]


class Fourier(Features):
    """Waves in random directions over the contexts of another map: a Gaussian kernel, approximately.

    Worth it where rewards bend over wide regions and there are tens of thousands of requests; otherwise the extra
    dimensions cost more exploration than they explain.

    Parameters
    ----------
    of : Features
        Makes the contexts that are bent.
    dim : int
        Number of waves, and length of the contexts.
    width : float
        Distance over which a reward may change, in the unit of those contexts (norm 1); > 0.
    seed : int
        Another one draws other waves.

    Notes
    -----
    ``sqrt(2 / dim) * cos(W x + b)`` with ``W`` normal of deviation ``1 / width`` and ``b`` uniform in [0, 2 pi); norm
    about 1. The waves are part of the state, so that another release of numpy may draw others and is refused.

    Source: Rahimi and Recht, NeurIPS 2007.

    Examples
    --------
    >>> from banditroute.features import HashedText
    >>> features = Fourier(HashedText(16), 64)
    >>> features("a text").shape
    (64,)
    """

    def __init__(self, of: Features, dim: int = 128, *, width: float = 1.0, seed: int = 0) -> None:
        if not isinstance(of, Features):
            raise TypeError(f"of must be a map of features, got {check.shown(of)}")
        self.of = of
        self._dim = check.integer("dim", dim, low=1, high=1 << 16)
        self.width = check.finite("width", width, low=0.0, open_low=True)
        self.seed = check.integer("seed", seed)
        self._waves: Floats | None = None
        self._phases: Floats | None = None
        if of.fitted:
            self._draw()

    def _draw(self) -> None:
        rng = np.random.default_rng(self.seed)
        self._waves = rng.standard_normal((self.of.dim, self.dim)) / self.width
        self._phases = rng.uniform(0.0, 2.0 * np.pi, self.dim)

    @property
    def dim(self) -> int:
        """Number of waves."""
        return self._dim

    @property
    def fitted(self) -> bool:
        """Whether the map below is."""
        return self._waves is not None

    def settings(self) -> dict[str, Any]:
        """Return what was chosen, as plain data."""
        of = {"kind": type(self.of).__name__, "settings": self.of.settings()}
        return {"of": of, "dim": self.dim, "width": self.width, "seed": self.seed}

    def fit(self, sample: Sequence[Any]) -> Self:
        """Fit the map below."""
        self.unfitted()
        self.of = fitted_copy(self.of, sample)
        self._draw()
        return self

    def batch(self, requests: Sequence[Any]) -> Floats:
        """Return the contexts of several requests, shape (n, dim)."""
        self.ready()
        assert self._waves is not None and self._phases is not None
        return np.asarray(
            np.sqrt(2.0 / self.dim) * np.cos(self.of.batch(requests) @ self._waves + self._phases)
        )

    def arrays(self) -> Arrays:
        """Return the waves, and what was fitted below."""
        if self._waves is None or self._phases is None:
            return {}
        below = {f"of.{name}": array for name, array in self.of.arrays().items()}
        return {"waves": self._waves, "phases": self._phases, **below}

    def take(self, arrays: Arrays) -> None:
        """Take up what `arrays` returned."""
        of = taken_copy(self.of, arrays, "of.")
        waves = check.matrix("waves", check.entry("arrays", arrays, "waves"), columns=self.dim, rows=of.dim)
        phases = check.vector("phases", check.entry("arrays", arrays, "phases"), self.dim)
        self.of, self._waves, self._phases = of, waves.copy(), phases.copy()
