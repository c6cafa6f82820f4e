"""Hashes that are the same on every machine and in every process, and directions made of them."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from banditroute._core.typing import Floats

__all__ = ["mixed", "of_text", "signs"]

ROUND_1, ROUND_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
STEP = 0x9E3779B97F4A7C15


def mixed(keys: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return each key with all its bits stirred (the finaliser of splitmix64).

    >>> bool(mixed(np.array([1], dtype=np.uint64), 0)[0] != mixed(np.array([1], dtype=np.uint64), 1)[0])
    True
    """
    z = keys + np.uint64((seed * STEP + STEP) % (1 << 64))
    z = (z ^ (z >> np.uint64(30))) * ROUND_1
    z = (z ^ (z >> np.uint64(27))) * ROUND_2
    return np.asarray(z ^ (z >> np.uint64(31)))


def signs(hashes: NDArray[np.uint64], dim: int) -> Floats:
    """Return a direction of -1 and 1 for each hash, shape (n, dim).

    >>> signs(np.array([3], dtype=np.uint64), 4)
    array([[ 1.,  1., -1., -1.]])
    """
    words = [hashes]
    while len(words) * 64 < dim:
        words.append(mixed(words[-1], len(words)))
    bits = np.stack(words, axis=1).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(bits, axis=1, bitorder="little", count=dim).astype(np.float64) * 2.0 - 1.0


def of_text(text: str) -> np.uint64:
    """Return the hash of a name or a category.

    >>> bool(of_text("a") == of_text("a") != of_text("b"))
    True
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))
