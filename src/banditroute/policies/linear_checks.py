"""What the arrays of a linear state must be like, whoever filed them."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from banditroute._core.kernels import layout, mend
from banditroute._core.typing import Floats

__all__ = ["PLACES", "check_header", "check_shapes"]

EXACT: Final = float(1 << 53)  # beyond it floats do not count

# Where the kernels find things, which is never taken from outside, and what the numbers of a header may be.
PLACES: Final = [
    *range(layout.H_ROWS),
    layout.H_QUEUE,
    *range(layout.H_RIDGES, layout.H_PHASE),
    layout.H_LATE_ROWS,
    layout.H_BUDGET,
    layout.H_FIRST,
    layout.H_LATE_AT,
]
RANGES: Final = (
    (layout.H_ALPHA, 0.0, np.inf, "an alpha >= 0"),
    (layout.H_MIX, 0.0, 1.0, "a mix in [0, 1]"),
    (layout.H_DISCOUNT, 0.0, 1.0, "a discount in [0, 1]"),
    (layout.H_SPAN, 1.0, EXACT, "a span >= 1"),
    (layout.H_BUCKET, 0.0, EXACT, "a bucket >= 0"),
    (layout.H_CLOCK, 0.0, EXACT, "a clock >= 0"),
    (layout.H_LEARNED, 0.0, EXACT, "a number of updates >= 0"),
)


def check_shapes(head: Floats, given: Mapping[str, Floats]) -> None:
    """Refuse arrays of which the header does not tell the shapes."""
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


def check_header(head: Floats) -> None:
    """Refuse a header that no settings and no feedback can have led to."""
    numbers = np.zeros(layout.HEADER)
    numbers[: head.size] = head
    numbers[PLACES] = 0.0
    numbers[layout.H_PROPENSITY] = 0.0  # of the last choice: NaN after that of a sampling policy
    if numbers[layout.H_REFRESH] == np.inf:  # nothing is ever refreshed
        numbers[layout.H_REFRESH] = 0.0
    if not np.isfinite(numbers).all():
        raise ValueError("header must be finite")
    for slot, low, high, rule in RANGES:
        if not low <= head[slot] <= high:
            raise ValueError(f"header must hold {rule}, got {head[slot]}")
    if head.size > layout.H_ROOM:
        for slot, low, high, rule in (
            (layout.H_PHASE, layout.IDLE, layout.MEND, "a phase of a refresh"),
            (layout.H_JOB_ARM, -1, head[layout.H_ARMS], "an arm of a refresh"),
            (layout.H_STAGE, 0, mend.APPLY, "a stage of an inverse"),
            (layout.H_ROW, 0, head[layout.H_PAD], "a row of an inverse"),
            (layout.H_LATE, 0, head[layout.H_LATE_ROWS], "a number of contexts that wait"),
            (layout.H_APPLIED, 0, head[layout.H_LATE], "a number of contexts applied"),
            (layout.H_FEW, 0, EXACT, "a number of answers >= 0"),
            (layout.H_SPENT, 0, EXACT, "an effort >= 0"),
        ):
            if not low <= head[slot] <= high:
                raise ValueError(f"header must hold {rule}, got {head[slot]}")
        if not 0.0 <= numbers[layout.H_CALM] <= 1.0:
            raise ValueError(f"header must hold a share of the slopes, got {numbers[layout.H_CALM]}")
        if not head[layout.H_LEVEL_RIDGE] > 0.0 or not head[layout.H_COLD] >= 0.0:
            raise ValueError("header must hold a ridge > 0 and a bonus >= 0")
    if numbers[layout.H_CONSTANT] not in (0.0, 1.0) or head[layout.H_DIM] <= numbers[layout.H_CONSTANT]:
        raise ValueError("header must hold whether the last of its components is a constant, beside others")
    if not 0 <= head[layout.H_CURSOR] <= head[layout.H_ROWS] or not head[layout.H_RIDGE] > 0:
        raise ValueError("header must hold a cursor inside the noise and a ridge > 0")
