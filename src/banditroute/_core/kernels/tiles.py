"""Packed symmetric matrices: products and rank-one updates; the layout is told in `layout`."""

from banditroute._core.kernels import apart, inlined, kernel, part, view


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
