"""Sufficient statistics of the linear policies, as one buffer with named views."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from banditroute._kernels import linear as k

__all__ = ["LinearState"]

Floats = NDArray[np.float64]

# The truth: sums over feedback, so that replicas merge by adding and a rebuild forgets rounding.
TRUTH: Final = ("gram", "moment", "arm")


def _aligned(size: int) -> Floats:
    """Return zeros that start on a 64-byte boundary: full vectors then never straddle two cache lines."""
    raw = np.zeros(size + 8)
    start = (-raw.ctypes.data // 8) % 8
    return raw[start : start + size]


class LinearState:
    """Statistics and derived arrays of N linear arms in one float64 buffer (layout: ``_kernels.linear``).

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
            k.H_THETA: arms * pad,
            k.H_COV: arms * pack,
            k.H_GRAM: arms * pack,
            k.H_QUEUE: 0 if diagonal else arms * k.QUEUE * pad,
            k.H_MOMENT: arms * pad,
            k.H_PRIOR: arms * pad,
            k.H_ARM: arms * k.ARM_SLOTS,
            k.H_NOISE: -(-rows * width // 8) * 8,
            k.H_WORK: 4 * pad + 2 * arms + square + 2 * pack,
        }
        self.buffer = _aligned(k.HEADER + sum(blocks.values()))
        head = self.buffer[: k.HEADER]
        offset = k.HEADER
        for slot, size in blocks.items():
            head[slot] = offset
            offset += size
        head[[k.H_ARMS, k.H_DIM, k.H_PAD, k.H_PACK]] = arms, dim, pad, pack
        head[[k.H_ROWS, k.H_WIDTH, k.H_CURSOR]] = rows, width, rows
        head[[k.H_RIDGE, k.H_DISCOUNT, k.H_SPAN, k.H_MAX2]] = ridge, 1.0, 1.0, 1e12
        self.view()
        self.reset(range(arms))

    def view(self) -> None:
        """Point the named views at the buffer."""
        head = self.buffer
        arms, self.dim, pad, pack = (int(head[i]) for i in (k.H_ARMS, k.H_DIM, k.H_PAD, k.H_PACK))
        self.arms, self.pad, self.pack = arms, pad, pack

        def block(slot: int, columns: int) -> Floats:
            start = int(head[slot])
            return head[start : start + arms * columns].reshape(arms, columns)

        self.theta = block(k.H_THETA, pad)
        self.cov = block(k.H_COV, pack)
        self._gram = block(k.H_GRAM, pack)
        self.moment = block(k.H_MOMENT, pad)
        self.prior = block(k.H_PRIOR, pad)
        start = int(head[k.H_ARM])
        self.arm = head[start : start + arms * k.ARM_SLOTS].reshape(k.ARM_SLOTS, arms).T
        start = int(head[k.H_NOISE])
        self.noise = head[start : start + int(head[k.H_ROWS]) * int(head[k.H_WIDTH])]

    @property
    def gram(self) -> Floats:
        """Weighted sum of x x' of every arm, packed, (N, L): a view, after folding in what is queued."""
        k.drain_all(self.buffer)
        return self._gram

    def reset(self, arms: range) -> None:
        """Return the given arms to the cold start: no evidence, cov = I / ridge, theta = prior."""
        ridge = self.buffer[k.H_RIDGE]
        eye = np.zeros(self.pack)
        if self.pack == self.pad:
            eye[:] = 1.0 / ridge
        else:
            k.pack(np.eye(self.pad).ravel() / ridge, eye, self.pad)
        for a in arms:
            self.gram[a] = self.moment[a] = self.arm[a] = 0.0
            self.cov[a] = eye
            self.theta[a] = self.prior[a]
            self.arm[a, [k.A_RADIUS, k.A_SPREAD]] = (1.0 + k.REBUILD_ERROR) / np.sqrt(ridge), 1.0

    def full(self, packed: Floats) -> Floats:
        """Unpack one matrix into (dim, dim)."""
        if self.pack == self.pad:
            return np.diag(packed)[: self.dim, : self.dim]
        out = np.empty(self.pad * self.pad)
        k.unpack(packed, out, self.pad)
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
        k.pack(wide.ravel(), out, self.pad)
        return out

    def cov_matrix(self, arm: int) -> Floats:
        """Return A^-1 of one arm as a (dim, dim) copy."""
        return self.full(self.cov[arm])

    def rebuild(self) -> None:
        """Derive cov and theta of every arm afresh from the statistics."""
        for a in range(self.arms):
            k.rebuild(self.buffer, a)

    def resized(self, keep: list[int | None], *, width: int | None = None) -> "LinearState":
        """Return a state whose arm i continues ``keep[i]``, or starts cold where that is None."""
        head = self.buffer[: k.HEADER]
        new = LinearState(
            len(keep),
            self.dim,
            ridge=float(head[k.H_RIDGE]),
            diagonal=self.pack == self.pad,
            rows=int(head[k.H_ROWS]),
            width=int(head[k.H_WIDTH]) if width is None else width,
        )
        carried = [
            k.H_ALPHA,
            k.H_MIX,
            k.H_SAMPLE,
            k.H_MAX2,
            k.H_DISCOUNT,
            k.H_SPAN,
            k.H_BUCKET,
            k.H_CLOCK,
            k.H_LEARNED,
        ]
        carried += [k.H_REFRESH, k.H_POOLED, k.H_POOL_RIDGE, k.H_AUTO, k.H_AUTO_RIDGE, k.H_SIGMA2]
        new.buffer[carried] = head[carried]
        if new.noise.size == self.noise.size:
            new.noise[:] = self.noise
            new.buffer[k.H_CURSOR] = head[k.H_CURSOR]
        for i, a in enumerate(keep):
            if a is not None:
                for name in ("theta", "cov", "gram", "moment", "prior", "arm"):
                    getattr(new, name)[i] = getattr(self, name)[a]
        return new

    def to_arrays(self) -> dict[str, Floats]:
        """Return a copy of everything as named arrays (the header, all blocks but the scratch)."""
        names = ("theta", "cov", "gram", "moment", "prior", "arm", "noise")
        return {"header": self.buffer[: k.HEADER].copy(), **{n: getattr(self, n).copy() for n in names}}

    def __reduce__(self) -> "tuple[Callable[..., LinearState], tuple[dict[str, Floats]]]":
        """Copies and process borders go through the arrays: views cannot be copied one by one."""
        return LinearState.from_arrays, (self.to_arrays(),)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> "LinearState":
        """Return the state that `to_arrays` described; shapes are checked against the header."""
        head = np.asarray(arrays["header"], dtype=np.float64)
        if head.ndim != 1 or not k.H_AUTO_RIDGE < head.size <= k.HEADER:
            raise ValueError(f"header must have shape ({k.HEADER},), got {head.shape}")
        count, pad = np.shape(arrays["theta"])
        pack = np.shape(arrays["cov"])[-1]
        sizes = [count, pad, pack]
        if (
            head[[k.H_ARMS, k.H_PAD, k.H_PACK]].tolist() != sizes
            or not 1 <= head[k.H_DIM] <= pad < head[k.H_DIM] + 8
        ):
            raise ValueError(f"header must tell the shapes of its arrays {sizes}, got {head[:4].tolist()}")
        drawn = head[[k.H_ROWS, k.H_WIDTH]]
        if (
            not (drawn >= 1).all()
            or not drawn.prod() == arrays["noise"].size
            or drawn[1] not in (1, 1 + count)
        ):
            raise ValueError(f"header must tell the shape of the noise, got {drawn.tolist()}")
        if not (0 <= head[k.H_CURSOR] <= drawn[0] and head[k.H_SPAN] >= 1 and head[k.H_RIDGE] > 0):
            raise ValueError("header must hold a cursor inside the noise, a span >= 1 and a ridge > 0")
        state = cls(
            int(head[k.H_ARMS]),
            int(head[k.H_DIM]),
            ridge=float(head[k.H_RIDGE]),
            diagonal=head[k.H_PACK] == head[k.H_PAD],
            rows=int(head[k.H_ROWS]),
            width=int(head[k.H_WIDTH]),
        )
        places = [*range(k.H_ROWS), k.H_QUEUE]  # sizes and offsets are never taken from outside
        layout = state.buffer[places]
        state.buffer[: head.size] = head
        state.buffer[places] = layout
        for name in ("theta", "cov", "gram", "moment", "prior", "arm", "noise"):
            block, given = getattr(state, name), np.asarray(arrays[name])
            if given.shape != block.shape:
                raise ValueError(f"{name} must have shape {block.shape}, got {given.shape}")
            block[...] = given
        state.arm[:, k.A_QUEUED] = 0.0  # gram came whole
        return state
