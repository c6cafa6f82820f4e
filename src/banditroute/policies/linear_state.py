"""Sufficient statistics of the linear policies, as one buffer with named views."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import numpy as np

from banditroute._core import validation as check
from banditroute._core.kernels import derived, layout, tiles
from banditroute._core.typing import Floats
from banditroute.policies.linear_checks import PLACES, check_header, check_shapes

__all__ = ["LinearState"]


# The truth: sums over feedback, so that replicas merge by adding and a rebuild forgets rounding.
TRUTH: Final = ("gram", "moment", "arm")

# What is saved beside the header; where the kernels find it is never taken from outside.
BLOCKS: Final = ("theta", "cov", "gram", "moment", "prior", "arm", "noise")
NEWER: Final = ("ridges", "level", "job", "queue")  # states of before have none of these


def _aligned(size: int) -> Floats:
    """Return zeros that start on a 64-byte boundary: full vectors then never straddle two cache lines."""
    raw = np.zeros(size + 8)
    start = (-raw.ctypes.data // 8) % 8
    return raw[start : start + size]


def _effort(arms: int, pad: int, diagonal: bool) -> tuple[float, int]:
    """Return the work of a slice of a refresh, and how many contexts may come while one arm is inverted in slices."""
    budget = min(50_000.0 + arms * float(pad) ** 3 / 72, 2.0e6 + 1.2 * pad * pad)
    return budget, 0 if diagonal else 24 + int(3 * pad**3 / budget)


class Copying(Protocol):
    """A copy of a state that is under way; see `StateCopy`."""

    def keep(self, arm: int) -> None:
        """Copy an arm that is about to change."""

    def keep_vectors(self, arm: int) -> None:
        """Copy the vectors of an arm, which are about to change."""

    def keep_all(self) -> None:
        """Copy all that is left: everything is about to change."""


class LinearState:
    """Statistics and derived arrays of N linear arms in one float64 buffer (see ``_kernels.layout``).

    Parameters
    ----------
    arms : int
        Number of arms N.
    dim : int
        Number d of components, padded inside to D, the next multiple of eight.
    diagonal : bool
        Keep the diagonal of every matrix only.
    constant : bool
        The last component is a constant 1 that contexts come without.
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
        self,
        arms: int,
        dim: int,
        *,
        ridge: float,
        diagonal: bool = False,
        constant: bool = False,
        rows: int = 1024,
        width: int = 1,
    ) -> None:
        pad = -(-dim // 8) * 8
        pack = pad if diagonal else pad * (pad + 8) // 2
        square = 0 if diagonal else 2 * pad * pad
        room = arms + max(8, arms // 2)  # pages never written to take no memory
        budget, waiting = _effort(arms, pad, diagonal)
        job = layout.SUMS + layout.VECTORS * pad + pack + square
        blocks = {
            layout.H_THETA: room * pad,
            layout.H_COV: room * pack,
            layout.H_GRAM: room * pack,
            layout.H_QUEUE: 0 if diagonal else room * layout.QUEUE * pad,
            layout.H_MOMENT: room * pad,
            layout.H_PRIOR: room * pad,
            layout.H_RIDGES: room * pad,
            layout.H_ARM: room * layout.ARM_SLOTS,
            layout.H_LEVEL: pad,
            layout.H_NOISE: -(-rows * width // 8) * 8,
            layout.H_WORK: 4 * pad + 2 * room + 8 + square,
            layout.H_JOB: job + waiting * pad,
        }
        blocks = {slot: -(-size // 8) * 8 for slot, size in blocks.items()}
        self.buffer = _aligned(layout.HEADER + sum(blocks.values()))
        head = self.buffer[: layout.HEADER]
        offset = layout.HEADER
        for slot, size in blocks.items():
            head[slot] = offset
            offset += size
        head[[layout.H_ARMS, layout.H_DIM, layout.H_PAD, layout.H_PACK, layout.H_ROOM]] = (
            arms,
            dim,
            pad,
            pack,
            room,
        )
        head[[layout.H_ROWS, layout.H_WIDTH, layout.H_CURSOR]] = rows, width, rows
        head[[layout.H_RIDGE, layout.H_LEVEL_RIDGE]] = ridge
        head[[layout.H_DISCOUNT, layout.H_SPAN, layout.H_MAX2]] = 1.0, 1.0, 1e12
        head[layout.H_CONSTANT] = constant
        head[[layout.H_JOB_ARM, layout.H_SHIFT]] = -1.0
        head[[layout.H_BUDGET, layout.H_LATE_ROWS]] = budget, waiting
        start = int(head[layout.H_JOB])
        head[layout.H_FIRST] = start + layout.SUMS + layout.FIRST * pad
        head[layout.H_LATE_AT] = start + job
        self.copies: list[Copying] = []  # under way: whoever writes into the buffer tells them before
        self.view()
        self.target[:], self.first[:] = ridge, 1.0 / ridge
        self.reset(range(arms))

    def view(self) -> None:
        """Point the named views at the buffer."""
        head = self.buffer
        arms, self.dim, pad, pack, room = (
            int(head[i]) for i in (layout.H_ARMS, layout.H_DIM, layout.H_PAD, layout.H_PACK, layout.H_ROOM)
        )
        self.arms, self.pad, self.pack = arms, pad, pack

        def block(slot: int, columns: int) -> Floats:
            start = int(head[slot])
            return head[start : start + arms * columns].reshape(arms, columns)

        self.theta = block(layout.H_THETA, pad)
        self.cov = block(layout.H_COV, pack)
        self._gram = block(layout.H_GRAM, pack)
        self.queue = block(layout.H_QUEUE, 0 if pack == pad else layout.QUEUE * pad)
        self.moment = block(layout.H_MOMENT, pad)
        self.prior = block(layout.H_PRIOR, pad)
        self.ridges = block(layout.H_RIDGES, pad)
        start = int(head[layout.H_ARM])
        self.arm = head[start : start + room * layout.ARM_SLOTS].reshape(layout.ARM_SLOTS, room).T[:arms]
        start = int(head[layout.H_LEVEL])
        self.level = head[start : start + pad]
        start = int(head[layout.H_NOISE])
        self.noise = head[start : start + int(head[layout.H_ROWS]) * int(head[layout.H_WIDTH])]
        start = int(head[layout.H_JOB])
        self.job = head[start : int(head[layout.H_LATE_AT]) + int(head[layout.H_LATE_ROWS]) * pad]
        vectors = self.job[layout.SUMS : layout.SUMS + layout.VECTORS * pad].reshape(-1, pad)
        self.target, self.first = vectors[layout.TARGET], vectors[layout.FIRST]

    @property
    def constant(self) -> bool:
        """Whether the last component is a constant that contexts come without."""
        return bool(self.buffer[layout.H_CONSTANT])

    def touch(self) -> None:
        """Have the system hand over the memory of refreshes now: in the middle of a slice it is a pause."""
        self.job[layout.SUMS + layout.VECTORS * self.pad :] = 0.0

    @property
    def gram(self) -> Floats:
        """Weighted sum of x x' of every arm, packed, (N, L): a view, after folding in what is queued."""
        for copy in self.copies:
            copy.keep_all()
        derived.drain_all(self.buffer)
        return self._gram

    def whole(self, arm: int) -> Floats:
        """Return the weighted sum of x x' of one arm with what is queued, packed, (L,): a copy; folds nothing in."""
        total: Floats = self._gram[arm].copy()
        queued = int(self.arm[arm, layout.A_QUEUED])
        if queued:
            rows = self.queue[arm, : queued * self.pad].reshape(queued, self.pad)[:, : self.dim]
            total += self.packed(rows.T @ rows)
        return total

    def put(self, arm: int, gram: Floats) -> None:
        """Set the weighted sum of x x' of one arm, packed, (L,); nothing is queued then."""
        self._gram[arm], self.arm[arm, layout.A_QUEUED] = gram, 0.0

    def rows(self) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Return views of what each arm has, beside its numbers in ``arm``: vectors, and matrices with the queue."""
        vectors = {"theta": self.theta, "moment": self.moment, "prior": self.prior, "ridges": self.ridges}
        return vectors, {"cov": self.cov, "gram": self._gram, "queue": self.queue}

    def reset(self, arms: range) -> None:
        """Return the given arms to the cold start: no evidence, cov = diag(1 / target), theta = prior."""
        eye = np.zeros(self.pack)
        if self.pack == self.pad:
            eye[:] = 1.0 / self.target
        else:
            at = np.arange(self.pad)
            block = at // 8
            eye[32 * block * (block + 1) + 8 * block + at % 8 * (8 * block + 9)] = 1.0 / self.target
        least = self.target[: self.dim].min()
        for a in arms:
            self._gram[a] = self.moment[a] = self.arm[a] = 0.0
            self.ridges[a] = self.target
            self.cov[a] = eye
            self.theta[a] = self.prior[a]
            self.arm[a, [layout.A_RADIUS, layout.A_SPREAD]] = (
                (1.0 + layout.REBUILD_ERROR) / np.sqrt(least),
                1.0,
            )

    def grown(self, *, width: int) -> bool:
        """Make room for one more arm, cold, where there is some; False where everything would have to move."""
        head = self.buffer[: layout.HEADER]
        block = int(head[layout.H_WORK] - head[layout.H_NOISE])
        if self.arms == head[layout.H_ROOM] or block < width:
            return False
        if width != head[layout.H_WIDTH]:
            rows = block // width
            head[[layout.H_ROWS, layout.H_WIDTH, layout.H_CURSOR]] = rows, width, rows
        head[layout.H_ARMS] = self.arms + 1
        head[[layout.H_BUDGET, layout.H_LATE_ROWS]] = _effort(self.arms + 1, self.pad, self.pack == self.pad)
        if head[layout.H_LATE] > head[layout.H_LATE_ROWS]:
            self.give_up()
        self.view()
        self.prior[-1] = 0.0
        self.reset(range(self.arms - 1, self.arms))
        return True

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

    def resized(
        self, keep: list[int | None], *, width: int | None = None, rows: int | None = None
    ) -> "LinearState":
        """Return a state whose arm i continues ``keep[i]``, or starts cold where that is None."""
        head = self.buffer[: layout.HEADER]
        new = LinearState(
            len(keep),
            self.dim,
            ridge=float(head[layout.H_RIDGE]),
            diagonal=self.pack == self.pad,
            rows=int(head[layout.H_ROWS]) if rows is None else rows,
            width=int(head[layout.H_WIDTH]) if width is None else width,
        )
        places = np.isin(np.arange(layout.HEADER), PLACES)
        drawn = [layout.H_ROWS, layout.H_WIDTH, layout.H_CURSOR]
        kept = new.buffer[drawn].copy()
        new.buffer[: layout.HEADER][~places] = head[~places]
        new.buffer[drawn] = kept
        new.level[:], new.target[:], new.first[:] = self.level, self.target, self.first
        new.give_up()
        new.reset(range(len(keep)))
        if new.noise.size == self.noise.size:
            new.noise[:] = self.noise
            new.buffer[layout.H_CURSOR] = head[layout.H_CURSOR]
        for i, a in enumerate(keep):
            if a is not None:
                for name in ("theta", "cov", "gram", "moment", "prior", "ridges", "arm"):
                    getattr(new, name)[i] = getattr(self, name)[a]
        return new

    def give_up(self) -> None:
        """End a refresh that is under way: what it knows of the arms no longer holds. Feedback starts another."""
        if self.buffer[layout.H_PHASE] > 0.0:
            self.buffer[[layout.H_PHASE, layout.H_JOB_ARM]] = 0.0, -1.0
            self.buffer[[layout.H_STAGE, layout.H_ROW, layout.H_SHIFT]] = 0.0, 0.0, -1.0

    def notice(self, rows: Floats, rewards: Floats) -> None:
        """Remember the range of rewards, the first alpha and what never changes, as the kernel does row by row."""
        s, level = self.buffer, self.level[: self.dim]
        if s[layout.H_SEEN] == 0.0:
            s[[layout.H_SEEN, layout.H_LOW, layout.H_HIGH]] = 1.0, rewards[0], rewards[0]
            level[:] = rows[0]
        s[layout.H_LOW] = min(s[layout.H_LOW], rewards.min())
        s[layout.H_HIGH] = max(s[layout.H_HIGH], rewards.max())
        level[(rows != level).any(axis=0)] = 0.0
        reach = max(s[layout.H_HIGH], 0.0) - min(s[layout.H_LOW], 0.0)
        if s[layout.H_AUTO] > 0.0 and s[layout.H_LEARNED] < layout.FIRST_REFRESH and reach > 0.0:
            s[layout.H_ALPHA] = layout.FIRST_ALPHA * reach

    def doubt_levels(self, arm: int) -> None:
        """Take for changing what was not the same in contexts that were learned elsewhere, by their mean square."""
        weight = self.arm[arm, layout.A_WEIGHT]
        squares = weight * self.level[: self.dim] ** 2
        own = np.diag(self.full(self.whole(arm)))
        self.level[: self.dim][np.abs(own - squares) > 1e-6 * squares] = 0.0

    def to_arrays(self) -> dict[str, Floats]:
        """Return a copy of everything as named arrays (the header, all blocks but the scratch).

        Contexts that wait in the queue stay there: folded in now, later sums would be grouped in another way.
        """
        arrays = self.small()
        for name, block in {k: v for part in self.rows() for k, v in part.items()}.items():
            arrays[name] = block.copy()
        for rows, queued in zip(arrays["queue"], self.arm[:, layout.A_QUEUED], strict=True):
            rows[int(queued) * self.pad :] = 0.0
        return arrays

    def small(self) -> dict[str, Floats]:
        """Return copies of what `to_arrays` has beside `rows`."""
        used = layout.SUMS + layout.KEPT * self.pad
        job = self.job if self.buffer[layout.H_PHASE] > 0.0 else self.job[:used]
        small = {
            "header": self.buffer[: layout.HEADER],
            "arm": self.arm,
            "noise": self.noise,
            "level": self.level,
        }
        return {name: block.copy() for name, block in small.items()} | {"job": job.copy()}

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
        check_shapes(head, given)
        check_header(head)
        new = cls(
            int(head[layout.H_ARMS]),
            int(head[layout.H_DIM]),
            ridge=float(head[layout.H_RIDGE]),
            diagonal=head[layout.H_PACK] == head[layout.H_PAD],
            rows=int(head[layout.H_ROWS]),
            width=int(head[layout.H_WIDTH]),
        )
        offsets = new.buffer[PLACES]
        new.buffer[: head.size] = head
        new.buffer[PLACES] = offsets
        if head.size <= layout.H_ROOM:
            new.buffer[layout.H_LEVEL_RIDGE] = head[layout.H_RIDGE]
        else:
            newer = {name: np.asarray(check.entry("arrays", arrays, name), np.float64) for name in NEWER}
            given.update(ridges=newer["ridges"], level=newer["level"], queue=newer["queue"])
            job = newer["job"]
            used = layout.SUMS + layout.KEPT * new.pad
            if job.shape != (new.job.size if head[layout.H_PHASE] > 0.0 else used,):
                raise ValueError(f"job must have shape ({used},) or that of a whole job, got {job.shape}")
            if not np.isfinite(job).all():
                raise ValueError(f"job must be finite, got {job[~np.isfinite(job)][0]}")
            new.job[: job.size] = job
        for name, array in given.items():
            block = getattr(new, name)
            if array.shape != block.shape:
                raise ValueError(f"{name} must have shape {block.shape}, got {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
            block[...] = array
        queued = new.arm[:, layout.A_QUEUED]
        if "queue" not in given:
            queued[:] = 0.0  # gram came whole
        elif not np.isin(queued, range(1 if new.pack == new.pad else layout.QUEUE)).all():
            raise ValueError(f"arm must hold numbers of contexts that wait, got {queued.tolist()}")
        if not (new.ridges > 0.0).all() or not (new.target > 0.0).all() or not (new.first > 0.0).all():
            raise ValueError("ridges must be > 0")
        if not (new.arm[:, [layout.A_COUNT, layout.A_RADIUS, layout.A_SPREAD]] >= 0.0).all():
            raise ValueError("arm must hold counts, radii and spreads >= 0")
        return new
