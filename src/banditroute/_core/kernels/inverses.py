"""Inverses of packed symmetric matrices, in slices of bounded work."""

import math

import numpy as np

from banditroute._core.kernels import apart, inlined, kernel, part, view
from banditroute._core.kernels.layout import EPSILON
from banditroute._core.kernels.tiles import clear, dot

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
