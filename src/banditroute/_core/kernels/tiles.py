"""Packed symmetric matrices: products, rank-one updates and inverses; the layout is told in `layout`."""

import math

from banditroute._core.kernels import inlined, kernel, part
from banditroute._core.kernels.layout import EPSILON


@inlined
def dot(a, b):
    """a, b: (n,) -> a'b."""
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@part
def means(theta, x, out):
    """theta: (N * D,), x: (D,), out: (N,) -> out[a] = theta_a' x, eight arms per pass over x.

    Every arm goes through the same loop (the last eight overlap the ones before), so equal rows give equal bits:
    ties between arms never played stay ties.
    """
    n, arms = x.size, out.size
    if arms < 8:
        for a in range(arms):
            out[a] = dot(theta[a * n : a * n + n], x)
        return
    for start in range(0, arms, 8):
        a = min(start, arms - 8)
        o = a * n
        r0, r1, r2, r3 = (
            theta[o : o + n],
            theta[o + n : o + 2 * n],
            theta[o + 2 * n : o + 3 * n],
            theta[o + 3 * n : o + 4 * n],
        )
        o += 4 * n
        r4, r5, r6, r7 = (
            theta[o : o + n],
            theta[o + n : o + 2 * n],
            theta[o + 2 * n : o + 3 * n],
            theta[o + 3 * n : o + 4 * n],
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
            p[o : o + w],
            p[o + w : o + 2 * w],
            p[o + 2 * w : o + 3 * w],
            p[o + 3 * w : o + 4 * w],
        )
        o += 4 * w
        r4, r5, r6, r7 = (
            p[o : o + w],
            p[o + w : o + 2 * w],
            p[o + 2 * w : o + 3 * w],
            p[o + 3 * w : o + 4 * w],
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


@part
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
            p[o : o + w],
            p[o + w : o + 2 * w],
            p[o + 2 * w : o + 3 * w],
            p[o + 3 * w : o + 4 * w],
        )
        o += 4 * w
        r4, r5, r6, r7 = (
            p[o : o + w],
            p[o + w : o + 2 * w],
            p[o + 2 * w : o + 3 * w],
            p[o + 3 * w : o + 4 * w],
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


@part
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
        row = p[o : o + m]
        tile, own = p[o + m : o + m + 8], u[m : m + 8]
        once = sign * u[i]
        twice = once + once
        for j in range(m):
            row[j] += twice * u[j]
        for j in range(8):
            tile[j] += once * own[j]
        o += m + 8


@part
def cholesky_inverse(full, inverse, n, floor):
    """full, inverse: (n * n,) -> inverse = full^-1 of a symmetric matrix whose eigenvalues are >= floor.

    Every pivot of a Cholesky factor is at least the smallest eigenvalue, so a pivot below `floor` is rounding and is
    put back to it. Where rounding exceeds the floor (contexts of norm 1e6 under a small ridge) that alone would let
    the factor grow by their ratio at every further row, to overflow; the matrix is then taken with a diagonal of the
    size of its rounding. The result stays positive definite, and below 1 / floor, for any statistics.
    """
    largest = 0.0
    for i in range(n):
        inverse[i] = full[i * n + i]  # the diagonal is overwritten below
        largest = max(largest, inverse[i])
    rounding = 2.0 * n * EPSILON * largest
    shift = rounding if rounding > floor else 0.0
    done = False
    while not done:
        done = True
        for i in range(n):  # full = L L', row by row; L overwrites the lower triangle
            row = full[i * n : i * n + n]
            for j in range(i):
                other = full[j * n : j * n + n]
                row[j] = (row[j] - dot(row[:j], other[:j])) / other[j]
            pivot = inverse[i] + shift - dot(row[:i], row[:i])
            if pivot < 0.5 * floor:
                done = False
                break
            row[i] = math.sqrt(max(pivot, floor))
        if not done:
            shift = max(16.0 * shift, rounding)
            for i in range(n):
                for j in range(i):
                    full[i * n + j] = full[j * n + i]
    # Row j of `inverse` becomes column j of M = L^-1, so that every inner loop runs along rows.
    for j in range(n):
        column = inverse[j * n : j * n + n]
        column[:j] = 0.0
        column[j] = 1.0 / full[j * n + j]
        for i in range(j + 1, n):
            row = full[i * n : i * n + n]
            column[i] = -dot(row[j:i], column[j:i]) / row[i]
    # The answer is M' M: products of the columns of M, which are zero before their own index.
    for i in range(n):
        for j in range(i + 1):
            full[i * n + j] = dot(inverse[i * n + i : i * n + n], inverse[j * n + i : j * n + n])
    for i in range(n):
        for j in range(i + 1):
            inverse[i * n + j] = full[i * n + j]
            inverse[j * n + i] = full[i * n + j]


@kernel
def unpack(p, full, n):
    """p: (L,) packed, full: (n * n,) with n = D -> the whole symmetric matrix."""
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


@part
def regularised_inverse(gram, cov, ridge, n, full, inverse):
    """gram, cov: (L,) -> cov = (ridge I + gram)^-1; full, inverse: (n * n,) scratch."""
    if gram.size == n:
        for i in range(n):
            cov[i] = 1.0 / (ridge + gram[i])
        return
    unpack(gram, full, n)
    for i in range(n):
        full[i * n + i] += ridge
    cholesky_inverse(full, inverse, n, ridge)
    pack(inverse, cov, n)
