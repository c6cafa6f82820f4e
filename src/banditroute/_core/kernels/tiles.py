"""Packed symmetric matrices: products, rank-one updates and inverses; the layout is told in `layout`."""

import math

import numpy as np

from banditroute._core.kernels import apart, inlined, kernel, part, view
from banditroute._core.kernels.layout import EPSILON


@inlined
def dot(a, b):
    """a, b: (n,) -> a'b."""
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@inlined
def copy(source, out):
    """source, out: (n,) -> out = source; a loop, because assigning one slice to another takes seconds to compile."""
    for i in range(out.size):
        out[i] = source[i]


@inlined
def clear(out):
    """out: (n,) -> zeros."""
    for i in range(out.size):
        out[i] = 0.0


@part
def means(theta, x, out):
    """theta: (N * D,), x: (D,), out: (N,) -> out[a] = theta_a' x, eight arms per pass over x.

    Every arm goes through the same loop (the last eight overlap the ones before), so equal rows give equal bits:
    ties between arms never played stay ties.
    """
    n, arms = x.size, out.size
    if arms < 8:
        for a in range(arms):
            out[a] = dot(view(theta, a * n, n), x)
        return
    for start in range(0, arms, 8):
        a = min(start, arms - 8)
        o = a * n
        r0, r1, r2, r3 = (
            view(theta, o, n),
            view(theta, o + n, n),
            view(theta, o + 2 * n, n),
            view(theta, o + 3 * n, n),
        )
        o += 4 * n
        r4, r5, r6, r7 = (
            view(theta, o, n),
            view(theta, o + n, n),
            view(theta, o + 2 * n, n),
            view(theta, o + 3 * n, n),
        )
        t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = 0.0
        for j in range(n):
            xj = x[j]
            t0 += r0[j] * xj
            t1 += r1[j] * xj
            t2 += r2[j] * xj
            t3 += r3[j] * xj
            t4 += r4[j] * xj
            t5 += r5[j] * xj
            t6 += r6[j] * xj
            t7 += r7[j] * xj
        out[a], out[a + 1], out[a + 2], out[a + 3] = t0, t1, t2, t3
        out[a + 4], out[a + 5], out[a + 6], out[a + 7] = t4, t5, t6, t7


@part
def quadratic(p, x):
    """p: (L,) packed or (D,) diagonal, x: (D,) -> x' P x, clipped at zero."""
    n = x.size
    total = 0.0
    if p.size == n:
        for i in range(n):
            total += p[i] * x[i] * x[i]
        return max(total, 0.0)
    o = 0
    for block in range(n // 8):
        m = 8 * block
        w = m + 8
        # Eight rows at a time: one load of x[j] serves eight, and there is one reduction instead of eight.
        r0, r1, r2, r3 = (
            view(p, o, w),
            view(p, o + w, w),
            view(p, o + 2 * w, w),
            view(p, o + 3 * w, w),
        )
        o += 4 * w
        r4, r5, r6, r7 = (
            view(p, o, w),
            view(p, o + w, w),
            view(p, o + 2 * w, w),
            view(p, o + 3 * w, w),
        )
        o += 4 * w
        x0, x1, x2, x3 = x[m], x[m + 1], x[m + 2], x[m + 3]
        x4, x5, x6, x7 = x[m + 4], x[m + 5], x[m + 6], x[m + 7]
        for j in range(w):
            total += (
                x0 * r0[j]
                + x1 * r1[j]
                + x2 * r2[j]
                + x3 * r3[j]
                + x4 * r4[j]
                + x5 * r5[j]
                + x6 * r6[j]
                + x7 * r7[j]
            ) * x[j]
    return max(total, 0.0)


@apart
def product(p, x, out):
    """p: (L,) packed or (D,) diagonal, x: (D,), out: (D,) -> out = P x."""
    n = x.size
    if p.size == n:
        for i in range(n):
            out[i] = p[i] * x[i]
        return
    o = 0
    for block in range(n // 8):
        m = 8 * block
        w = m + 8
        r0, r1, r2, r3 = (
            view(p, o, w),
            view(p, o + w, w),
            view(p, o + 2 * w, w),
            view(p, o + 3 * w, w),
        )
        o += 4 * w
        r4, r5, r6, r7 = (
            view(p, o, w),
            view(p, o + w, w),
            view(p, o + 2 * w, w),
            view(p, o + 3 * w, w),
        )
        o += 4 * w
        x0, x1, x2, x3 = x[m], x[m + 1], x[m + 2], x[m + 3]
        x4, x5, x6, x7 = x[m + 4], x[m + 5], x[m + 6], x[m + 7]
        h0, h1, h2, h3, h4, h5, h6, h7 = x0 / 2, x1 / 2, x2 / 2, x3 / 2, x4 / 2, x5 / 2, x6 / 2, x7 / 2
        t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = 0.0
        for j in range(m):  # each tile left of the diagonal stands for itself and for its mirror image
            xj = x[j]
            t0 += r0[j] * xj
            t1 += r1[j] * xj
            t2 += r2[j] * xj
            t3 += r3[j] * xj
            t4 += r4[j] * xj
            t5 += r5[j] * xj
            t6 += r6[j] * xj
            t7 += r7[j] * xj
            out[j] += (
                h0 * r0[j]
                + h1 * r1[j]
                + h2 * r2[j]
                + h3 * r3[j]
                + h4 * r4[j]
                + h5 * r5[j]
                + h6 * r6[j]
                + h7 * r7[j]
            )
        for j in range(m, w):
            out[j] = (
                x0 * r0[j]
                + x1 * r1[j]
                + x2 * r2[j]
                + x3 * r3[j]
                + x4 * r4[j]
                + x5 * r5[j]
                + x6 * r6[j]
                + x7 * r7[j]
            )
        out[m] += t0 / 2
        out[m + 1] += t1 / 2
        out[m + 2] += t2 / 2
        out[m + 3] += t3 / 2
        out[m + 4] += t4 / 2
        out[m + 5] += t5 / 2
        out[m + 6] += t6 / 2
        out[m + 7] += t7 / 2


@apart
def add_outer(p, u, sign):
    """p: (L,) packed or (D,) diagonal, u: (D,), sign: 1 or -1 -> P += sign u u'.

    Weights go into u beforehand: u_i u_j is then the same number on both sides of the diagonal, whatever the compiler
    regroups. Symmetry to the last bit is what keeps float64 stable for ever.
    """
    n = u.size
    if p.size == n:
        for i in range(n):
            p[i] += sign * (u[i] * u[i])
        return
    o = 0
    for i in range(n):
        m = 8 * (i // 8)
        row = view(p, o, m)
        tile, own = view(p, o + m, 8), view(u, m, 8)
        once = sign * u[i]
        twice = once + once
        for j in range(m):
            row[j] += twice * u[j]
        for j in range(8):
            tile[j] += once * own[j]
        o += m + 8


# Stages of an inverse that is computed in slices.
UNPACK, FACTOR, INVERT, MULTIPLY, PACK, INVERTED = 0, 1, 2, 3, 4, 5


@inlined
def spent(budget, cost):
    """budget, cost of a step -> what is left; none where another such step would be more than half in excess of it."""
    left = budget - cost
    return left if left >= 0.5 * cost else min(left, 0.0)


@inlined
def _four(a, b, c, d, z):
    """a, b, c, d, z: (n,) -> their four products with z, which is read once: it may be far away, and they are near."""
    t0 = t1 = t2 = t3 = 0.0
    for k in range(z.size):
        value = z[k]
        t0 += a[k] * value
        t1 += b[k] * value
        t2 += c[k] * value
        t3 += d[k] * value
    return t0, t1, t2, t3


@apart
def _factor(full, inverse, n, floor, place, budget):
    """Full = L L', four rows at a time; L overwrites the lower triangle, the diagonal waits in `inverse`.

    See `inverse_slice`.
    """
    if place[1] == 0.0 and place[2] < 0.0:
        largest = 0.0
        for i in range(n):
            inverse[i] = full[i * n + i]
            largest = max(largest, inverse[i])
        rounding = 2.0 * n * EPSILON * largest
        place[2] = rounding if rounding > floor else 0.0
    i = int(place[1])
    while i < n and budget > 0.0:
        end, first = min(4 * (i // 4) + 4, n), 0
        if end == i + 4:
            first = i
            r0, r1, r2, r3 = (
                view(full, i * n, n),
                view(full, (i + 1) * n, n),
                view(full, (i + 2) * n, n),
                view(full, (i + 3) * n, n),
            )
            for j in range(i):
                pivot, other = full[j * n + j], view(full, j * n, j)
                t0, t1, t2, t3 = _four(view(r0, 0, j), view(r1, 0, j), view(r2, 0, j), view(r3, 0, j), other)
                r0[j] = (r0[j] - t0) / pivot
                r1[j] = (r1[j] - t1) / pivot
                r2[j] = (r2[j] - t2) / pivot
                r3[j] = (r3[j] - t3) / pivot
        budget = spent(budget, (end - i) * (0.5 * i * i + n))
        while i < end:
            row = view(full, i * n, n)
            for j in range(first, i):
                other = view(full, j * n, n)
                row[j] = (row[j] - dot(view(row, 0, j), view(other, 0, j))) / other[j]
            pivot = inverse[i] + place[2] - dot(view(row, 0, i), view(row, 0, i))
            if pivot < 0.5 * floor:
                largest = 0.0
                for j in range(n):
                    largest = max(largest, inverse[j])
                place[2] = max(16.0 * place[2], 2.0 * n * EPSILON * largest)
                for m in range(n):
                    for j in range(m):
                        full[m * n + j] = full[j * n + m]
                i = 0
                break
            row[i] = math.sqrt(max(pivot, floor))
            i += 1
    place[1] = i
    return budget


@apart
def _invert(full, inverse, n, place, budget):
    """Row j of `inverse` becomes column j of M = L^-1, so that every inner loop runs along rows; four at a time."""
    j = int(place[1])
    while j < n and budget > 0.0:
        end = min(4 * (j // 4) + 4, n)
        last = end if end == j + 4 else n  # up to here column by column
        for k in range(j, end):
            column = view(inverse, k * n, n)
            clear(view(column, 0, k))
            column[k] = 1.0 / full[k * n + k]
            for i in range(k + 1, last):
                row = view(full, i * n, n)
                column[i] = -dot(view(row, k, i - k), view(column, k, i - k)) / row[i]
        if last < n:
            c0, c1, c2, c3 = (
                view(inverse, j * n, n),
                view(inverse, (j + 1) * n, n),
                view(inverse, (j + 2) * n, n),
                view(inverse, (j + 3) * n, n),
            )
            for i in range(last, n):
                m = i - j
                t0, t1, t2, t3 = _four(
                    view(c0, j, m), view(c1, j, m), view(c2, j, m), view(c3, j, m), view(full, i * n + j, m)
                )
                pivot = -full[i * n + i]
                c0[i] = t0 / pivot
                c1[i] = t1 / pivot
                c2[i] = t2 / pivot
                c3[i] = t3 / pivot
        budget = spent(budget, (end - j) * (0.5 * (n - j) * (n - j) + n))
        j = end
    place[1] = j
    return budget


@apart
def _multiply(full, inverse, n, place, budget):
    """The answer is M' M: products of the columns of M, which are zero before their own index; four at a time."""
    i = int(place[1])
    while i < n and budget > 0.0:
        end, m = min(4 * (i // 4) + 4, n), n - i
        first = 0
        if end == i + 4:
            first = i + 1
            o = i * n + i
            c0, c1, c2, c3 = (
                view(inverse, o, m),
                view(inverse, o + n, m),
                view(inverse, o + 2 * n, m),
                view(inverse, o + 3 * n, m),
            )
            o = i * n
            for j in range(first):
                t0, t1, t2, t3 = _four(c0, c1, c2, c3, view(inverse, j * n + i, m))
                full[o + j] = t0
                full[o + n + j] = t1
                full[o + 2 * n + j] = t2
                full[o + 3 * n + j] = t3
        for k in range(i, end):
            for j in range(first, k + 1):
                full[k * n + j] = dot(view(inverse, k * n + k, n - k), view(inverse, j * n + k, n - k))
        budget = spent(budget, (end - i) * ((i + 1.0) * (n - i) + n))
        i = end
    place[1] = i
    return budget


@part
def _unpack_rows(p, ridges, full, n, i):
    """Eight rows of the whole matrix from row i on, a multiple of eight, and their mirror image.

    The image is written eight columns at a time, a cache line of each row: column by column it took 14 ms at 1,536.
    """
    w, o = i + 8, 4 * (i // 8) * (i + 8)
    r0, r1, r2, r3 = view(p, o, w), view(p, o + w, w), view(p, o + 2 * w, w), view(p, o + 3 * w, w)
    o += 4 * w
    r4, r5, r6, r7 = view(p, o, w), view(p, o + w, w), view(p, o + 2 * w, w), view(p, o + 3 * w, w)
    for j in range(i):
        line = view(full, j * n + i, 8)
        line[0], line[1], line[2], line[3] = r0[j] / 2, r1[j] / 2, r2[j] / 2, r3[j] / 2
        line[4], line[5], line[6], line[7] = r4[j] / 2, r5[j] / 2, r6[j] / 2, r7[j] / 2
    o -= 4 * w
    for k in range(8):
        row, source = view(full, (i + k) * n, w), view(p, o + k * w, w)
        for j in range(i):
            row[j] = source[j] / 2
        for j in range(i, w):
            row[j] = source[j]
        row[i + k] += ridges[i + k]


@apart
def inverse_slice(p, ridges, full, inverse, n, floor, place, budget):
    """p: (L,) packed, ridges: (D,), full, inverse: (D * D,) scratch, place: (3,) stage, row, shift -> budget left.

    Goes on with p = (diag(ridges) + p)^-1 until the budget, in multiplications, is used up or the stage is INVERTED;
    p is overwritten in the last stage only. All eigenvalues of the matrix must be >= `floor`: every pivot of a
    Cholesky factor is at least the smallest of them, so a pivot below is rounding and is put back to it. Where
    rounding exceeds the floor (contexts of norm 1e6 under a small ridge) that alone would let the factor grow by
    their ratio at every further row, to overflow; the matrix is then taken with a diagonal of the size of its
    rounding, the shift. The result stays positive definite, and below 1 / floor, for any statistics.
    """
    while place[0] < INVERTED and budget > 0.0:
        stage = int(place[0])
        if stage == UNPACK:
            i = 8 * (int(place[1]) // 8)
            while i < n and budget > 0.0:
                _unpack_rows(p, ridges, full, n, i)
                budget -= 64.0 * (i + 8)
                i += 8
            place[1] = i
        elif stage == FACTOR:
            budget = _factor(full, inverse, n, floor, place, budget)
        elif stage == INVERT:
            budget = _invert(full, inverse, n, place, budget)
        elif stage == MULTIPLY:
            budget = _multiply(full, inverse, n, place, budget)
        else:
            i = int(place[1])
            while i < n and budget > 0.0:
                m = 8 * (i // 8)
                o = 32 * (i // 8) * (i // 8 + 1) + (i - m) * (m + 8)
                for j in range(m):
                    p[o + j] = 2.0 * full[i * n + j]
                for j in range(m, m + 8):
                    p[o + j] = full[i * n + j] if j <= i else full[j * n + i]
                budget -= 4.0 * (m + 8)
                i += 1
            place[1] = i
        if place[1] >= n:
            place[0], place[1] = stage + 1.0, 0.0
            place[2] = place[2] if stage != UNPACK else -1.0
    return budget


@kernel
def cholesky_inverse(full, inverse, n, floor):
    """full, inverse: (n * n,) -> inverse = full^-1 of a symmetric matrix whose eigenvalues are >= floor, at once."""
    place = np.array([0.0, 0.0, -1.0])
    _factor(full, inverse, n, floor, place, math.inf)
    place[1] = 0.0
    _invert(full, inverse, n, place, math.inf)
    place[1] = 0.0
    _multiply(full, inverse, n, place, math.inf)
    for i in range(n):
        for j in range(i + 1):
            inverse[i * n + j] = full[i * n + j]
            inverse[j * n + i] = full[i * n + j]


@part
def unpacked(p, full, n):
    """As `unpack`, for kernels."""
    o = 0
    for i in range(n):
        m = 8 * (i // 8)
        for j in range(m):
            full[i * n + j] = p[o + j] / 2
            full[j * n + i] = p[o + j] / 2
        for j in range(m, m + 8):
            full[i * n + j] = p[o + j]
        o += m + 8


@kernel
def unpack(p, full, n):
    """p: (L,) packed, full: (n * n,) with n = D -> the whole symmetric matrix."""
    unpacked(p, full, n)


@kernel
def pack(full, p, n):
    """full: (n * n,) symmetric, p: (L,) -> packed."""
    o = 0
    for i in range(n):
        m = 8 * (i // 8)
        for j in range(m):
            p[o + j] = full[i * n + j] * 2
        for j in range(m, m + 8):
            p[o + j] = full[i * n + j]
        o += m + 8
