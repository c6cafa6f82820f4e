"""Text without a model: character n-grams, hashed with signs."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.features.base import Features, scaled_rows
from banditroute.features.hashing import mixed, signs

__all__ = ["HashedText"]

LONGEST = 1 << 16  # characters that are looked at; beginning and end of a longer text
ODD = np.uint64(0x9E3779B97F4A7C15)


class HashedText(Features):
    """A text becomes signed sums over its hashed character n-grams, of norm 1; needs no model and no sample.

    Every n-gram that occurs m times adds ``sqrt(m)`` along a direction of its own, signs that its hash says: two texts
    are the closer the more n-grams they share, up to an error of about ``1 / sqrt(dim)``.

    Parameters
    ----------
    dim : int
        Length of the contexts; at least 2.
    ngrams : (low, high)
        Lengths of the n-grams, in characters.
    lower : bool
        Take upper and lower case for the same.
    seed : int
        Another one gives other directions.

    Notes
    -----
    About .1 ms for a text of a thousand characters. A text longer than 65,536 characters counts by its first and last
    32,768. The empty text is the zero vector. White space of any length counts as one space.

    Source: signed feature hashing (Weinberger et al. 2009) with dense signs (Achlioptas 2003).

    Examples
    --------
    >>> text = HashedText(64)
    >>> a, b, c = text.batch(["sort a list in python", "sort a list in java", "qui a peint ce tableau"])
    >>> bool(a @ b > 0.5 > a @ c)
    True
    """

    def __init__(
        self, dim: int = 64, *, ngrams: Sequence[int] = (3, 4), lower: bool = True, seed: int = 0
    ) -> None:
        self._dim = check.integer("dim", dim, low=2, high=1 << 16)
        given = tuple(ngrams) if isinstance(ngrams, Sequence) and not isinstance(ngrams, str) else None
        if given is None or len(given) != 2:
            raise ValueError(f"ngrams must be two lengths, low and high, got {check.shown(ngrams)}")
        low = check.integer("ngrams", given[0], low=1, high=16)
        self.ngrams = (low, check.integer("ngrams", given[1], low=low, high=16))
        if not isinstance(lower, bool):
            raise TypeError(f"lower must be true or false, got {check.shown(lower)}")
        self.lower, self.seed = lower, check.integer("seed", seed, high=(1 << 63) - 1)

    @property
    def dim(self) -> int:
        """Length of the contexts."""
        return self._dim

    def settings(self) -> dict[str, Any]:
        """Return what was chosen, as plain data."""
        return {"dim": self.dim, "ngrams": list(self.ngrams), "lower": self.lower, "seed": self.seed}

    def batch(self, requests: Sequence[str]) -> Floats:
        """Return the contexts of several texts, shape (n, dim).

        Raises
        ------
        TypeError
            Not a sequence of texts.
        """
        if isinstance(requests, str):
            raise TypeError(f"requests must be a sequence of texts, got the text {check.shown(requests)}")
        rows = np.zeros((len(requests), self.dim))
        for row, text in zip(rows, requests, strict=True):
            if not isinstance(text, str):
                raise TypeError(f"request must be a text, got {check.shown(text)}")
            row[:] = self._sums(text)
        return scaled_rows(rows)

    def _sums(self, text: str) -> Floats:
        """Return the sum of the directions of all n-grams of one text."""
        if len(text) > LONGEST:
            text = text[: LONGEST // 2] + " " + text[-LONGEST // 2 :]
        plain = " ".join((text.lower() if self.lower else text).split())
        if not plain:
            return np.zeros(self.dim)
        # surrogatepass: half of a pair, which JSON can carry, is a character like any other.
        codes = np.frombuffer(f" {plain} ".encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(
            np.uint64
        )
        low, high = self.ngrams
        hashes = []
        rolled = np.zeros(len(codes), dtype=np.uint64)
        for length in range(1, min(high, len(codes)) + 1):  # n-grams of one length from those one shorter
            rolled = rolled[: len(codes) - length + 1] * ODD + codes[length - 1 :]
            if length >= low:
                hashes.append(rolled ^ np.uint64(length << 56))
        if not hashes:  # shorter than the shortest n-gram
            hashes.append(rolled)
        found, counts = np.unique(np.concatenate(hashes), return_counts=True)
        return np.sqrt(counts) @ signs(mixed(found, self.seed), self.dim)
