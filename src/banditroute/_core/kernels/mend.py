"""The inverse of one matrix, made afresh in slices: of an arm while it goes on learning, or of all arms together."""

import math

from banditroute._core.kernels import apart, part, view, whole
from banditroute._core.kernels.derived import (
    loosen,
    rebuilt,
    settle,
)
from banditroute._core.kernels.inverses import INVERTED, inverse_slice, spent
from banditroute._core.kernels.layout import (
    A_COUNT,
    A_QUEUED,
    A_RADIUS,
    EPSILON,
    H_APPLIED,
    H_ARM,
    H_BUDGET,
    H_COV,
    H_DIM,
    H_GRAM,
    H_JOB,
    H_LATE,
    H_LATE_AT,
    H_PACK,
    H_PAD,
    H_PHASE,
    H_POOLED,
    H_PRIOR,
    H_QUEUE,
    H_RIDGES,
    H_ROOM,
    H_STAGE,
    MEAN,
    MEND,
    MOVE,
    OWN,
    QUEUE,
    REBUILD_ERROR,
    SEVERE,
    SUMS,
    TARGET,
    VECTORS,
)
from banditroute._core.kernels.scales import (
    row_of,
)
from banditroute._core.kernels.tiles import add_outer, clear, copy, dot, product

APPLY = INVERTED + 1  # stage of an arm: what came late is applied


@part
def packed(s):
    """s: buffer -> the packed matrix of the job."""
    o = whole(s, H_JOB) + SUMS + VECTORS * whole(s, H_PAD)
    return view(s, o, whole(s, H_PACK))


@apart
def invert(s, ridges, floor, budget):
    """s: buffer -> goes on inverting the packed matrix of the job; budget left."""
    n, size = whole(s, H_PAD), whole(s, H_PACK)
    matrix = packed(s)
    if size == n:
        for j in range(n):
            matrix[j] = 1.0 / (ridges[j] + matrix[j])
        s[H_STAGE] = INVERTED
        return budget - n
    o = whole(s, H_JOB) + SUMS + VECTORS * n + size
    full, inverse = view(s, o, n * n), view(s, o + n * n, n * n)
    return inverse_slice(matrix, ridges, full, inverse, n, floor, view(s, H_STAGE, 3), budget)


@part
def restart_stage(s):
    s[H_STAGE], s[H_STAGE + 1], s[H_STAGE + 2] = 0.0, 0.0, -1.0


@apart
def _prepare(s, a, target):
    """s: buffer, a: arm, target: (D,) its new ridges -> what its new inverse starts from; the cost."""
    n, size, room = whole(s, H_PAD), whole(s, H_PACK), whole(s, H_ROOM)
    matrix = packed(s)
    queued = int(s[whole(s, H_ARM) + A_QUEUED * room + a])
    late, o = whole(s, H_LATE_AT), whole(s, H_QUEUE) + a * QUEUE * n
    if size > n:
        copy(view(s, o, queued * n), view(s, late, queued * n))
    s[H_LATE], s[H_APPLIED] = queued, 0.0
    s[H_STAGE + 1], s[H_STAGE + 2] = 0.0, -1.0
    if queued == s[whole(s, H_ARM) + A_COUNT * room + a] and size > n:  # nothing went into gram yet
        clear(matrix)
        at = 0
        for j in range(n):
            matrix[at + j] = 1.0 / target[j]
            at += 8 * (j // 8) + 8
        s[H_STAGE] = APPLY
    else:
        g = whole(s, H_GRAM) + a * size
        copy(view(s, g, size), matrix)
        s[H_STAGE] = 0.5  # begun: `inverse_slice` reads it as UNPACK
    return 3.0 * size


@apart
def _at_once(s, a, target, budget):
    """s: buffer, a: arm, target: (D,) -> its new ridges and an inverse from the statistics, in one go; budget left."""
    n = whole(s, H_PAD)
    r, p = whole(s, H_RIDGES) + a * n, whole(s, H_PRIOR) + a * n
    copy(target, view(s, r, n))
    if s[H_POOLED] > 0.0 and s[H_PHASE] == MOVE:
        copy(row_of(s, MEAN), view(s, p, n))
    loosen(s, a)
    rebuilt(s, a)
    restart_stage(s)
    return budget - float(n) ** 3


@apart
def _products(p, x, y, u, v):
    """p: (L,) packed, x, y, u, v: (D,) -> u = P x and v = P y, for one pass over the matrix."""
    n, o = x.size, 0
    for i in range(n):
        m = 8 * (i // 8)
        row, tile, own_x, own_y = view(p, o, m), view(p, o + m, 8), view(x, m, 8), view(y, m, 8)
        a, b, t0, t1 = 0.5 * x[i], 0.5 * y[i], 0.0, 0.0
        for j in range(m):
            value = row[j]
            t0 += value * x[j]
            t1 += value * y[j]
            u[j] += a * value
            v[j] += b * value
        t0, t1 = 0.5 * t0, 0.5 * t1
        for j in range(8):
            t0 += tile[j] * own_x[j]
            t1 += tile[j] * own_y[j]
        u[i], v[i] = t0, t1
        o += m + 8


@apart
def _subtract(p, u, v):
    """p: (L,) packed, u, v: (D,) -> P -= u u' + v v', exactly symmetric as `add_outer` is."""
    n, o = u.size, 0
    for i in range(n):
        m = 8 * (i // 8)
        row, tile, own_u, own_v = view(p, o, m), view(p, o + m, 8), view(u, m, 8), view(v, m, 8)
        a, b = u[i], v[i]
        for j in range(m):
            row[j] -= 2.0 * (a * u[j] + b * v[j])
        for j in range(8):
            tile[j] -= a * own_u[j] + b * own_v[j]
        o += m + 8


@part
def _narrow(u, z):
    """U = P z -> u / sqrt(1 + z'u), of which the square is taken off P; False where rounding would be too much."""
    width = max(dot(z, u), 0.0)
    scale = 1.0 / math.sqrt(1.0 + width)
    for j in range(u.size):
        u[j] *= scale
    return width * EPSILON <= SEVERE


@apart
def _apply(p, y, z, u, v, both):
    """p: (L,) packed, y, z: (D,) contexts, u, v: (D,) scratch -> P = (P^-1 + y y' + z z')^-1, or with y alone.

    Both cost two passes over the matrix, as one does. False, and P not touched, where rounding would be too much.
    """
    if not both:
        product(p, y, u)
        if not _narrow(u, y):
            return False
        add_outer(p, u, -1.0)
        return True
    _products(p, y, z, u, v)
    if not _narrow(u, y):
        return False
    inner = dot(u, z)
    for j in range(v.size):
        v[j] -= inner * u[j]
    if not _narrow(v, z):
        return False
    _subtract(p, u, v)
    return True


@apart
def mend(s, a, budget):
    """s: buffer, a: arm -> goes on with its new inverse; swaps it in, and the new ridges, when it is complete."""
    n, size, room = whole(s, H_PAD), whole(s, H_PACK), whole(s, H_ROOM)
    if s[H_STAGE] == 0.0:
        budget -= _prepare(s, a, row_of(s, OWN if s[H_PHASE] == MEND else TARGET))
    target = row_of(s, OWN if s[H_PHASE] == MEND else TARGET)
    matrix, w, v = packed(s), row_of(s, 3), whole(s, H_LATE_AT)
    inverted, applied = s[H_STAGE] < INVERTED, 0  # in this slice
    if s[H_STAGE] < INVERTED:
        floor = math.inf
        for j in range(whole(s, H_DIM)):
            floor = min(floor, target[j])
        budget = invert(s, target, floor, budget)
        if s[H_STAGE] < INVERTED:
            return budget
        s[H_STAGE] = APPLY
        if budget < 0.5 * s[H_BUDGET]:
            return 0.0
    # Two at least: another may come with each slice, and one at a time would never catch up.
    while s[H_APPLIED] < s[H_LATE] and (budget > 0.0 or applied == 1) and size > n:
        count = 2 if s[H_APPLIED] + 1.0 < s[H_LATE] else 1
        o = v + whole(s, H_APPLIED) * n
        if not _apply(matrix, view(s, o, n), view(s, o + (count - 1) * n, n), w, row_of(s, 4), count == 2):
            return _at_once(s, a, target, budget)
        s[H_APPLIED] += count
        applied += count
        budget = spent(budget, 3.5 * size)
    if s[H_APPLIED] < s[H_LATE] and size > n:
        return budget
    # To take it up is work for a slice of its own, but for one late context.
    if (inverted or applied > 1) and budget < 0.25 * s[H_BUDGET]:
        return 0.0
    c, r, p = whole(s, H_COV) + a * size, whole(s, H_RIDGES) + a * n, whole(s, H_PRIOR) + a * n
    ratio = 1.0  # A new >= ratio A old, so the bound of its widths can be kept
    for j in range(whole(s, H_DIM)):
        ratio = min(ratio, target[j] / s[r + j])
    copy(matrix, view(s, c, size))
    copy(target, view(s, r, n))
    if s[H_POOLED] > 0.0 and s[H_PHASE] == MOVE:
        copy(row_of(s, MEAN), view(s, p, n))
    radius = whole(s, H_ARM) + A_RADIUS * room + a
    kept = s[radius] / math.sqrt(ratio)
    loosen(s, a)
    s[radius] = min(s[radius], kept * (1.0 + REBUILD_ERROR))
    settle(s, a)
    restart_stage(s)
    return budget - 4.0 * size
