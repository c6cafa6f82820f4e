"""Sufficient statistics of the linear policies, as one buffer with named views."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import numpy as np

from banditroute._core import validation as check
from banditroute._core.kernels import derived, layout, tiles
from banditroute._core.typing import Floats

__all__ = ["LinearState"]

EXACT: Final = float(1 << 53)  # beyond it floats do not count

# The truth: sums over feedback, so that replicas merge by adding and a rebuild forgets rounding.
TRUTH: Final = ("gram", "moment", "arm")

# What is saved beside the header; where the kernels find it is never taken from outside.
BLOCKS: Final = ("theta", "cov", "gram", "moment", "prior", "arm", "noise")
_PLACES: Final = [*range(layout.H_ROWS), layout.H_QUEUE]
_RANGES: Final = (
    (layout.H_ALPHA, 0.0, np.inf, "an alpha >= 0"),
    (layout.H_MIX, 0.0, 1.0, "a mix in [0, 1]"),
    (layout.H_DISCOUNT, 0.0, 1.0, "a discount in [0, 1]"),
    (layout.H_SPAN, 1.0, EXACT, "a span >= 1"),
    (layout.H_BUCKET, 0.0, EXACT, "a bucket >= 0"),
    (layout.H_CLOCK, 0.0, EXACT, "a clock >= 0"),
    (layout.H_LEARNED, 0.0, EXACT, "a number of updates >= 0"),
)


def _aligned(size: int) -> Floats:
    """Return zeros that start on a 64-byte boundary: full vectors then never straddle two cache lines."""
    raw = np.zeros(size + 8)
    start = (-raw.ctypes.data // 8) % 8
    return raw[start : start + size]


class Copying(Protocol):
    """A copy of a state that is under way; see `StateCopy`."""

    def keep(self, arm: int) -> None:
        """Copy an arm that is about to change."""

    def keep_all(self) -> None:
        """Copy all that is left: everything is about to change."""


class LinearState:
    """Statistics and derived arrays of N linear arms in one float64 buffer (see ``_kernels.layout``).

    Parameters
    ----------
    arms : int
        Number of arms N.
    dim : int
        Dimension d of the contexts, padded inside to D, the next multiple of eight.
    diagonal : bool
        Keep the diagonal of every matrix only.
    rows, width : int
        Shape of the prefetched noise block: decisions covered, random numbers per decision.

    Notes
    -----
    Derived state takes D (D + 8) / 2 + 2 D + 8 numbers per arm, the statistics as much again.

    Examples
    --------
    >>> state = LinearState(2, 3, ridge=2.0)
    >>> state.theta.shape, state.cov_matrix(0)[0, 0]
    ((2, 8), np.float64(0.5))
    """

    def __init__(
        self, arms: int, dim: int, *, ridge: float, diagonal: bool = False, rows: int = 1024, width: int = 1
    ) -> None:
        pad = -(-dim // 8) * 8
        pack = pad if diagonal else pad * (pad + 8) // 2
        square = 0 if diagonal else 2 * pad * pad
        blocks = {
            layout.H_THETA: arms * pad,
            layout.H_COV: arms * pack,
            layout.H_GRAM: arms * pack,
            layout.H_QUEUE: 0 if diagonal else arms * layout.QUEUE * pad,
            layout.H_MOMENT: arms * pad,
            layout.H_PRIOR: arms * pad,
            layout.H_ARM: arms * layout.ARM_SLOTS,
            layout.H_NOISE: -(-rows * width // 8) * 8,
            layout.H_WORK: 4 * pad + 2 * arms + square + 2 * pack,
        }
        self.buffer = _aligned(layout.HEADER + sum(blocks.values()))
        head = self.buffer[: layout.HEADER]
        offset = layout.HEADER
        for slot, size in blocks.items():
            head[slot] = offset
            offset += size
        head[[layout.H_ARMS, layout.H_DIM, layout.H_PAD, layout.H_PACK]] = arms, dim, pad, pack
        head[[layout.H_ROWS, layout.H_WIDTH, layout.H_CURSOR]] = rows, width, rows
        head[[layout.H_RIDGE, layout.H_DISCOUNT, layout.H_SPAN, layout.H_MAX2]] = ridge, 1.0, 1.0, 1e12
        self.copies: list[Copying] = []  # under way: whoever writes into the buffer tells them before
        self.view()
        self.reset(range(arms))

    def view(self) -> None:
        """Point the named views at the buffer."""
        head = self.buffer
        arms, self.dim, pad, pack = (
            int(head[i]) for i in (layout.H_ARMS, layout.H_DIM, layout.H_PAD, layout.H_PACK)
        )
        self.arms, self.pad, self.pack = arms, pad, pack

        def block(slot: int, columns: int) -> Floats:
            start = int(head[slot])
            return head[start : start + arms * columns].reshape(arms, columns)

        self.theta = block(layout.H_THETA, pad)
        self.cov = block(layout.H_COV, pack)
        self._gram = block(layout.H_GRAM, pack)
        self.moment = block(layout.H_MOMENT, pad)
        self.prior = block(layout.H_PRIOR, pad)
        start = int(head[layout.H_ARM])
        self.arm = head[start : start + arms * layout.ARM_SLOTS].reshape(layout.ARM_SLOTS, arms).T
        start = int(head[layout.H_NOISE])
        self.noise = head[start : start + int(head[layout.H_ROWS]) * int(head[layout.H_WIDTH])]

    @property
    def gram(self) -> Floats:
        """Weighted sum of x x' of every arm, packed, (N, L): a view, after folding in what is queued."""
        derived.drain_all(self.buffer)
        return self._gram

    def rows(self) -> dict[str, Floats]:
        """Return views of what each arm has, but for its numbers in ``arm``; ``gram`` is without what is queued."""
        return {
            "theta": self.theta,
            "cov": self.cov,
            "gram": self._gram,
            "moment": self.moment,
            "prior": self.prior,
        }

    def gram_of(self, arm: int) -> Floats:
        """Return the row of ``gram`` of one arm, a view, after folding in what is queued."""
        derived.drain(self.buffer, arm)
        row: Floats = self._gram[arm]
        return row

    def reset(self, arms: range) -> None:
        """Return the given arms to the cold start: no evidence, cov = I / ridge, theta = prior."""
        ridge = self.buffer[layout.H_RIDGE]
        eye = np.zeros(self.pack)
        if self.pack == self.pad:
            eye[:] = 1.0 / ridge
        else:
            tiles.pack(np.eye(self.pad).ravel() / ridge, eye, self.pad)
        for a in arms:
            self.gram[a] = self.moment[a] = self.arm[a] = 0.0
            self.cov[a] = eye
            self.theta[a] = self.prior[a]
            self.arm[a, [layout.A_RADIUS, layout.A_SPREAD]] = (
                (1.0 + layout.REBUILD_ERROR) / np.sqrt(ridge),
                1.0,
            )

    def full(self, packed: Floats) -> Floats:
        """Unpack one matrix into (dim, dim)."""
        if self.pack == self.pad:
            return np.diag(packed)[: self.dim, : self.dim]
        out = np.empty(self.pad * self.pad)
        tiles.unpack(packed, out, self.pad)
        return out.reshape(self.pad, self.pad)[: self.dim, : self.dim].copy()

    def packed(self, full: Floats) -> Floats:
        """Pack a symmetric (dim, dim) matrix; the lower triangle is what counts."""
        if self.pack == self.pad:
            out = np.zeros(self.pad)
            out[: self.dim] = np.diag(full)
            return out
        wide = np.zeros((self.pad, self.pad))
        wide[: self.dim, : self.dim] = np.tril(full) + np.tril(full, -1).T
        out = np.empty(self.pack)
        tiles.pack(wide.ravel(), out, self.pad)
        return out

    def cov_matrix(self, arm: int) -> Floats:
        """Return A^-1 of one arm as a (dim, dim) copy."""
        return self.full(self.cov[arm])

    def rebuild(self) -> None:
        """Derive cov and theta of every arm afresh from the statistics."""
        for a in range(self.arms):
            derived.rebuild(self.buffer, a)

    def resized(self, keep: list[int | None], *, width: int | None = None) -> "LinearState":
        """Return a state whose arm i continues ``keep[i]``, or starts cold where that is None."""
        head = self.buffer[: layout.HEADER]
        new = LinearState(
            len(keep),
            self.dim,
            ridge=float(head[layout.H_RIDGE]),
            diagonal=self.pack == self.pad,
            rows=int(head[layout.H_ROWS]),
            width=int(head[layout.H_WIDTH]) if width is None else width,
        )
        carried = [
            layout.H_ALPHA,
            layout.H_MIX,
            layout.H_SAMPLE,
            layout.H_MAX2,
            layout.H_DISCOUNT,
            layout.H_SPAN,
            layout.H_BUCKET,
            layout.H_CLOCK,
            layout.H_LEARNED,
        ]
        carried += [
            layout.H_REFRESH,
            layout.H_POOLED,
            layout.H_POOL_RIDGE,
            layout.H_AUTO,
            layout.H_AUTO_RIDGE,
            layout.H_SIGMA2,
        ]
        new.buffer[carried] = head[carried]
        if new.noise.size == self.noise.size:
            new.noise[:] = self.noise
            new.buffer[layout.H_CURSOR] = head[layout.H_CURSOR]
        for i, a in enumerate(keep):
            if a is not None:
                for name in ("theta", "cov", "gram", "moment", "prior", "arm"):
                    getattr(new, name)[i] = getattr(self, name)[a]
        return new

    def to_arrays(self) -> dict[str, Floats]:
        """Return a copy of everything as named arrays (the header, all blocks but the scratch)."""
        return {"header": self.buffer[: layout.HEADER].copy(), **{n: getattr(self, n).copy() for n in BLOCKS}}

    def __reduce__(self) -> "tuple[Callable[..., LinearState], tuple[dict[str, Floats]]]":
        """Copies and process borders go through the arrays: views cannot be copied one by one."""
        return LinearState.from_arrays, (self.to_arrays(),)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> "LinearState":
        """Return the state that `to_arrays` described; raises ``ValueError`` where shapes or numbers make no sense."""
        head, *blocks = (
            np.asarray(check.entry("arrays", arrays, name), dtype=np.float64) for name in ("header", *BLOCKS)
        )
        given = dict(zip(BLOCKS, blocks, strict=True))
        if head.ndim != 1 or not layout.H_AUTO_RIDGE < head.size <= layout.HEADER:
            raise ValueError(f"header must have shape ({layout.HEADER},), got {head.shape}")
        if given["theta"].ndim != 2 or given["cov"].ndim != 2:
            raise ValueError("theta and cov must have a row per arm")
        count, pad, pack = *given["theta"].shape, given["cov"].shape[1]
        sizes = [count, pad, pack]
        if (
            head[[layout.H_ARMS, layout.H_PAD, layout.H_PACK]].tolist() != sizes
            or not 1 <= head[layout.H_DIM] <= pad < head[layout.H_DIM] + 8
        ):
            raise ValueError(f"header must tell the shapes of its arrays {sizes}, got {head[:4].tolist()}")
        drawn = head[[layout.H_ROWS, layout.H_WIDTH]]
        if (
            not (drawn >= 1).all()
            or not drawn.prod() == given["noise"].size
            or drawn[1] != (1 + count if head[layout.H_SAMPLE] else 1)
        ):
            raise ValueError(f"header must tell the shape of the noise, got {drawn.tolist()}")
        _sound(head)
        state = cls(
            int(head[layout.H_ARMS]),
            int(head[layout.H_DIM]),
            ridge=float(head[layout.H_RIDGE]),
            diagonal=head[layout.H_PACK] == head[layout.H_PAD],
            rows=int(head[layout.H_ROWS]),
            width=int(head[layout.H_WIDTH]),
        )
        offsets = state.buffer[_PLACES]
        state.buffer[: head.size] = head
        state.buffer[_PLACES] = offsets
        for name, array in given.items():
            block = getattr(state, name)
            if array.shape != block.shape:
                raise ValueError(f"{name} must have shape {block.shape}, got {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
            block[...] = array
        state.arm[:, layout.A_QUEUED] = 0.0  # gram came whole
        if not (state.arm[:, [layout.A_COUNT, layout.A_RADIUS, layout.A_SPREAD]] >= 0.0).all():
            raise ValueError("arm must hold counts, radii and spreads >= 0")
        return state


def _sound(head: Floats) -> None:
    """Refuse a header that no settings and no feedback can have led to."""
    numbers = np.zeros(layout.HEADER)
    numbers[: head.size] = head
    numbers[_PLACES] = 0.0
    numbers[layout.H_PROPENSITY] = 0.0  # of the last choice: NaN after that of a sampling policy
    if numbers[layout.H_REFRESH] == np.inf:  # nothing is ever refreshed
        numbers[layout.H_REFRESH] = 0.0
    if not np.isfinite(numbers).all():
        raise ValueError("header must be finite")
    for slot, low, high, rule in _RANGES:
        if not low <= head[slot] <= high:
            raise ValueError(f"header must hold {rule}, got {head[slot]}")
    if not 0 <= head[layout.H_CURSOR] <= head[layout.H_ROWS] or not head[layout.H_RIDGE] > 0:
        raise ValueError("header must hold a cursor inside the noise and a ridge > 0")
