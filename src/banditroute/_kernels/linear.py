"""Kernels of the linear bandits: scoring, exact pruned argmax, rank-one learning, rebuilding.

One float64 buffer ``s`` holds everything a policy derives or counts, so that a call passes one array and the
request. The header (``H_*``) comes first, then blocks at the offsets it names. With D = dim rounded up to 8:

=========== ======== =================================================================================
``theta``   (N, D)   derived: A^-1 (b + ridge prior)
``cov``     (N, L)   derived: A^-1, A = ridge I + S
``gram``    (N, L)   truth: S, the weighted sum of x x', together with ``queue``
``queue``   (8 N, D) truth: the last few sqrt(weight) x of each arm, folded into S eight at a time
``moment``  (N, D)   truth: b, the weighted sum of reward x
``prior``   (N, D)   mean towards which each arm is shrunk
``arm``     (8, N)   truth: count, weight, sum of weighted reward^2; derived: radius, spread, error
``noise``   (R, W)   prefetched randomness, a row per decision
``work``    ...      scratch
=========== ======== =================================================================================

A symmetric matrix is packed as block rows of eight: row i keeps its columns 0 .. 8 (i // 8) + 7, so diagonal tiles
are whole, rows start on 64-byte boundaries and the rank-one write is exactly symmetric. Tiles left of the diagonal
are stored doubled, once for their mirror image: x' P x is then one plain sum over the block. L = D (D + 8) / 2. A diagonal policy stores L = D numbers instead, and the three functions that
touch a matrix branch on it.
"""

import math

import numpy as np

from banditroute._kernels import borrowed, inlined, kernel, part, short_kernel

# fmt: off
H_ARMS, H_DIM, H_PAD, H_PACK = 0, 1, 2, 3            # N, d, D, L
H_THETA, H_COV, H_GRAM, H_MOMENT, H_PRIOR = 4, 5, 6, 7, 8
H_ARM, H_NOISE, H_WORK = 9, 10, 11                   # offsets of the blocks
H_ROWS, H_WIDTH, H_CURSOR = 12, 13, 14               # noise: rows, numbers per row, next row
H_RIDGE, H_ALPHA, H_MIX, H_SAMPLE = 15, 16, 17, 18   # H_SAMPLE 1: Thompson, the bonus is a normal draw
H_MAX2 = 19                                          # largest squared norm of a context
H_DISCOUNT, H_SPAN, H_BUCKET, H_CLOCK = 20, 21, 22, 23
H_LEARNED, H_REFRESH = 24, 25                        # updates so far; next refresh of the pooled prior
H_POOLED, H_POOL_RIDGE, H_AUTO = 26, 27, 28
H_SIGMA2, H_PROPENSITY, H_EVALUATED = 29, 30, 31
H_AUTO_RIDGE = 32
H_QUEUE = 33                                         # offset: contexts not yet folded into gram
HEADER = 40

A_COUNT, A_WEIGHT, A_SQUARE, A_RADIUS, A_SPREAD, A_ERROR, A_TIGHTEN, A_QUEUED = 0, 1, 2, 3, 4, 5, 6, 7
ARM_SLOTS = 8

# What a kernel answers instead of an arm or of zero; the Python side builds the message.
BAD_SHAPE, BAD_CONTEXT, NO_NOISE, BAD_PRICES, NONE_ELIGIBLE = -1, -2, -3, -4, -5
BAD_ARM, BAD_REWARD, BAD_WEIGHT = -6, -7, -8
# fmt: on

QUEUE = 8  # contexts an arm keeps before they go into gram: one pass over S for eight updates
ROWS = 32  # contexts per block of `predict_rows`
EPSILON = 2.220446049250313e-16
TINY = 1e-40  # contexts with a smaller mean square tell no scale: a ridge in proportion would overflow
LARGEST = 1e30  # rewards and weights beyond it are refused: products of them would overflow
TIGHTEN_DIM = 128  # above it the products of `tighten` would be a pause that a request can feel
REBUILD_ERROR = (
    1e-8  # bound of the accumulated rounding of a width at which an arm is rebuilt from its statistics
)
GROWTH = 1.2  # the pooled prior is refreshed whenever the number of updates grew by this
FIRST_REFRESH = 16.0


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
def drain(s, a):
    """s: buffer, a: arm -> folds the queued contexts into gram."""
    n, size, arms = int(s[H_PAD]), int(s[H_PACK]), int(s[H_ARMS])
    slot = int(s[H_ARM]) + A_QUEUED * arms + a
    queued = int(s[slot])
    if queued == 0:
        return
    s[slot] = 0.0
    o = int(s[H_QUEUE]) + a * QUEUE * n
    s[o + queued * n : o + QUEUE * n] = 0.0
    q0, q1, q2, q3 = s[o : o + n], s[o + n : o + 2 * n], s[o + 2 * n : o + 3 * n], s[o + 3 * n : o + 4 * n]
    o += 4 * n
    q4, q5, q6, q7 = s[o : o + n], s[o + n : o + 2 * n], s[o + 2 * n : o + 3 * n], s[o + 3 * n : o + 4 * n]
    o = int(s[H_GRAM]) + a * size
    for i in range(n):
        m = 8 * (i // 8)
        row, tile = s[o : o + m], s[o + m : o + m + 8]
        c0, c1, c2, c3, c4, c5, c6, c7 = q0[i], q1[i], q2[i], q3[i], q4[i], q5[i], q6[i], q7[i]
        for j in range(m):
            row[j] += 2.0 * (
                c0 * q0[j]
                + c1 * q1[j]
                + c2 * q2[j]
                + c3 * q3[j]
                + c4 * q4[j]
                + c5 * q5[j]
                + c6 * q6[j]
                + c7 * q7[j]
            )
        for j in range(8):
            k = m + j
            tile[j] += (
                c0 * q0[k]
                + c1 * q1[k]
                + c2 * q2[k]
                + c3 * q3[k]
                + c4 * q4[k]
                + c5 * q5[k]
                + c6 * q6[k]
                + c7 * q7[k]
            )
        o += m + 8


@kernel
def drain_all(s):
    """s: buffer -> `drain` of every arm."""
    s = borrowed(s)
    for a in range(int(s[H_ARMS])):
        drain(s, a)


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
def _regularised_inverse(gram, cov, ridge, n, full, inverse):
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


@part
def _solve(s, a):
    """s: buffer, a: arm -> theta = cov (moment + ridge prior)."""
    n, size = int(s[H_PAD]), int(s[H_PACK])
    ridge = s[H_RIDGE]
    o = int(s[H_WORK]) + n
    right = s[o : o + n]
    moment = s[int(s[H_MOMENT]) + a * n : int(s[H_MOMENT]) + a * n + n]
    prior = s[int(s[H_PRIOR]) + a * n : int(s[H_PRIOR]) + a * n + n]
    for j in range(n):
        right[j] = moment[j] + ridge * prior[j]
    c, t = int(s[H_COV]) + a * size, int(s[H_THETA]) + a * n
    product(s[c : c + size], right, s[t : t + n])


@kernel
def rebuild(s, a):
    """s: buffer, a: arm -> cov and theta afresh from the statistics; O(D^3), off the request path."""
    s = borrowed(s)
    drain(s, a)
    n, size, arms = int(s[H_PAD]), int(s[H_PACK]), int(s[H_ARMS])
    o = int(s[H_WORK]) + 4 * n + 2 * int(s[H_ARMS])
    g, c = int(s[H_GRAM]) + a * size, int(s[H_COV]) + a * size
    _regularised_inverse(
        s[g : g + size], s[c : c + size], s[H_RIDGE], n, s[o : o + n * n], s[o + n * n : o + 2 * n * n]
    )
    arm = int(s[H_ARM]) + a
    s[arm + A_ERROR * arms] = 0.0
    # The inverse is right to about the rounding of the precision over the ridge: the radius must cover that too.
    largest = s[H_RIDGE]
    row = g
    for j in range(n):
        largest = max(largest, s[H_RIDGE] + s[row + j])
        row += 0 if size == n else 8 * (j // 8) + 8
    error = min(8.0 * n * EPSILON * largest / s[H_RIDGE], 1.0)
    radius = arm + A_RADIUS * arms
    s[radius] = math.sqrt(min(s[radius] * s[radius] + error / s[H_RIDGE], (1.0 + error) / s[H_RIDGE]))
    _solve(s, a)


@part
def loosen(s, a):
    """s: buffer, a: arm -> the radius that holds for any statistics."""
    s[int(s[H_ARM]) + A_RADIUS * int(s[H_ARMS]) + a] = (1.0 + REBUILD_ERROR) / math.sqrt(s[H_RIDGE])


@part
def tighten(s, a):
    """s: buffer, a: arm -> a smaller radius from lambda_max(M)^4 <= sum of the squares of the entries of M^2 M^2.

    Two products of D cubed, when the count of the arm has doubled: about the cost of one more update each at
    count 4 D, and less and less from there. Measured at (15, 32), t = 10k: 7.0 arms evaluated per decision become 3.0.
    """
    n, size, arms = int(s[H_PAD]), int(s[H_PACK]), int(s[H_ARMS])
    arm = int(s[H_ARM]) + a
    s[arm + A_TIGHTEN * arms] = 2.0 * s[arm + A_COUNT * arms]
    if size == n:
        return
    o = int(s[H_WORK]) + 4 * n + 2 * int(s[H_ARMS])
    full, square = s[o : o + n * n], s[o + n * n : o + 2 * n * n]
    c = int(s[H_COV]) + a * size
    unpack(s[c : c + size], full, n)
    for i in range(int(s[H_DIM]), n):
        full[i * n + i] = 0.0  # the padding, where nothing is ever learned, is no direction of a context
    for i in range(n):
        for j in range(i + 1):
            value = dot(full[i * n : i * n + n], full[j * n : j * n + n])
            square[i * n + j] = value
            square[j * n + i] = value
    total = 0.0
    for i in range(n):
        for j in range(i + 1):
            value = dot(square[i * n : i * n + n], square[j * n : j * n + n])
            total += value * value * (1.0 if i == j else 2.0)
    radius = math.sqrt(math.sqrt(math.sqrt(math.sqrt(total)))) if total > 0.0 else s[arm + A_RADIUS * arms]
    s[arm + A_RADIUS * arms] = min(s[arm + A_RADIUS * arms], radius * (1.0 + 1e-9))


@part
def noise_scale(s):
    """s: buffer -> the noise variance that best explains the rewards, given the ridge.

    With theta ~ N(prior, sigma^2 / ridge) the maximum-likelihood sigma^2 is the mean of the squared one-step
    prediction errors, each over 1 + x' A^-1 x. That sum equals, whatever the order of the feedback,
    sum r^2 - 2 b'p + p'Sp - (b - S p)'(theta - p) with p the prior mean: no residual need be kept.
    """
    n, size, arms = int(s[H_PAD]), int(s[H_PACK]), int(s[H_ARMS])
    work = int(s[H_WORK]) + n
    product_out = s[work : work + n]
    total = 0.0
    weight = 0.0
    for a in range(int(s[H_ARMS])):
        arm = int(s[H_ARM]) + a
        if s[arm + A_WEIGHT * arms] <= 0.0:
            continue
        g = int(s[H_GRAM]) + a * size
        prior = s[int(s[H_PRIOR]) + a * n : int(s[H_PRIOR]) + a * n + n]
        moment = s[int(s[H_MOMENT]) + a * n : int(s[H_MOMENT]) + a * n + n]
        theta = s[int(s[H_THETA]) + a * n : int(s[H_THETA]) + a * n + n]
        product(s[g : g + size], prior, product_out)
        q = s[arm + A_SQUARE * arms]
        for j in range(n):
            q += prior[j] * (product_out[j] - 2.0 * moment[j]) - (moment[j] - product_out[j]) * (
                theta[j] - prior[j]
            )
        total += max(q, 0.0)
        weight += s[arm + A_WEIGHT * arms]
    return total / weight if weight > 0.0 else 0.0


@part
def _prior_variance(s):
    """s: buffer -> mean square, per determined coefficient, of what sets an arm apart from its prior.

    MacKay's fixed point of the evidence: sum ||theta - prior||^2 over the number of coefficients that the feedback
    determines, sum over arms of dim - ridge trace(cov). Arms without feedback count in neither sum.
    """
    n, size, dim = int(s[H_PAD]), int(s[H_PACK]), int(s[H_DIM])
    total = 0.0
    determined = 0.0
    for a in range(int(s[H_ARMS])):
        prior = s[int(s[H_PRIOR]) + a * n : int(s[H_PRIOR]) + a * n + n]
        theta = s[int(s[H_THETA]) + a * n : int(s[H_THETA]) + a * n + n]
        row = int(s[H_COV]) + a * size
        for j in range(dim):
            total += (theta[j] - prior[j]) ** 2
            determined += 1.0 - s[H_RIDGE] * s[row + j]
            row += 0 if size == n else 8 * (j // 8) + 8
    return total / max(determined, 1e-12)


@part
def _information(s):
    """s: buffer -> weight of all feedback, and the weighted sum of the mean square component of its contexts."""
    n, size, arms, dim = int(s[H_PAD]), int(s[H_PACK]), int(s[H_ARMS]), int(s[H_DIM])
    weight = 0.0
    trace = 0.0
    for a in range(arms):
        weight += s[int(s[H_ARM]) + A_WEIGHT * arms + a]
        row = int(s[H_GRAM]) + a * size
        for j in range(dim):
            trace += s[row + j]
            row += 0 if size == n else 8 * (j // 8) + 8
    return weight, trace / dim


@part
def _pool(s, ridge):
    """s: buffer, ridge: its precision -> every prior becomes theta0 = (ridge I + sum S)^-1 sum b.

    Busy arms weigh more in it, on purpose: they are the good ones, and an arm not yet tried is better expected to be
    like those. Weighing arms alike (the generalised least squares mean) multiplied the regret by up to ten.
    """
    n, size, arms = int(s[H_PAD]), int(s[H_PACK]), int(s[H_ARMS])
    # In the scratch space; a diagonal policy has no room for the square matrices and needs none.
    o = int(s[H_WORK]) + 4 * n + 2 * arms
    pool, packed = s[o : o + size], s[o + size : o + 2 * size]
    o += 2 * size
    full, inverse = s[o : o + n * n], s[o + n * n : o + 2 * n * n]
    right = s[int(s[H_WORK]) + n : int(s[H_WORK]) + 2 * n]
    mean = s[int(s[H_WORK]) + 2 * n : int(s[H_WORK]) + 3 * n]
    pool[:] = 0.0
    right[:] = 0.0
    for a in range(arms):
        g, m = int(s[H_GRAM]) + a * size, int(s[H_MOMENT]) + a * n
        gram, moment = s[g : g + size], s[m : m + n]
        for j in range(size):
            pool[j] += gram[j]
        for j in range(n):
            right[j] += moment[j]
    _regularised_inverse(pool, packed, ridge, n, full, inverse)
    product(packed, right, mean)
    for a in range(arms):
        p = int(s[H_PRIOR]) + a * n
        for j in range(n):
            s[p + j] = mean[j]


@part
def _move_ridge(s, ridge):
    """s: buffer -> takes another ridge; a rebuild costs N cubes of D, so only when the old one is off by a fifth."""
    if 0.8 * ridge <= s[H_RIDGE] <= 1.25 * ridge:
        return
    s[H_RIDGE] = ridge
    for a in range(int(s[H_ARMS])):
        loosen(s, a)
        rebuild(s, a)


@kernel
def refresh(s):
    """s: buffer -> the pooled prior, the automatic scales and everything that hangs on them; O(N L) at least.

    The automatic ridge is that of the model theta_a ~ N(prior, tau^2 I), noise sigma^2: sigma^2 / tau^2, both at the
    maximum of the evidence, by one step of the fixed point per refresh. Every constant is relative to the mean square
    component u of the contexts, so no estimate depends on the units of contexts or rewards: the prior of the
    pooled model counts for one average observation, the ridge starts there, moves by a factor 2 at most and stays
    between a millionth of an observation and all of them.
    """
    s = borrowed(s)
    drain_all(s)
    weight, information = _information(s)
    unit = information / weight if weight > 0.0 else 0.0
    unit = unit if unit > TINY else 0.0
    if s[H_POOLED] > 0.0:
        _pool(s, s[H_POOL_RIDGE] * unit if unit > 0.0 else s[H_RIDGE])
    for a in range(int(s[H_ARMS])):
        _solve(s, a)
    if unit > 0.0 and (s[H_AUTO] > 0.0 or s[H_AUTO_RIDGE] > 0.0):
        if s[H_AUTO_RIDGE] > 0.0 and s[H_SIGMA2] == 0.0:
            _move_ridge(s, unit)
        s[H_SIGMA2] = noise_scale(s)
        if s[H_AUTO] > 0.0:
            s[H_ALPHA] = s[H_AUTO] * math.sqrt(s[H_SIGMA2])
        if s[H_AUTO_RIDGE] > 0.0:
            variance = _prior_variance(s)
            ridge = s[H_AUTO_RIDGE] * s[H_SIGMA2] / variance if variance > 0.0 else information
            ridge = min(max(ridge, s[H_RIDGE] / 2.0), s[H_RIDGE] * 2.0)
            _move_ridge(s, max(min(ridge, information), 1e-6 * unit))
    s[H_REFRESH] = max(math.ceil(GROWTH * s[H_LEARNED]), FIRST_REFRESH)


@kernel
def advance(s, bucket):
    """s: buffer, bucket: index of the current bucket -> ages the statistics and rebuilds what hangs on them."""
    s = borrowed(s)
    now = s[H_BUCKET]
    if bucket <= now:
        return
    drain_all(s)
    factor = s[H_DISCOUNT] ** (s[H_SPAN] * (bucket - now))
    n, size, arms = int(s[H_PAD]), int(s[H_PACK]), int(s[H_ARMS])
    g, m = int(s[H_GRAM]), int(s[H_MOMENT])
    gram, moment = s[g : g + arms * size], s[m : m + arms * n]
    for j in range(gram.size):
        gram[j] *= factor
    for j in range(moment.size):
        moment[j] *= factor
    for a in range(arms):
        arm = int(s[H_ARM]) + a
        s[arm + A_WEIGHT * arms] *= factor
        s[arm + A_SQUARE * arms] *= factor
    s[H_BUCKET] = bucket
    for a in range(arms):
        loosen(s, a)
        rebuild(s, a)
    if s[H_LEARNED] >= FIRST_REFRESH and s[H_REFRESH] < math.inf:
        refresh(s)


@inlined
def _load(s, x):
    """s: buffer, x: (d,) -> copies x into the padded scratch context; returns its squared norm or a code."""
    if x.size != int(s[H_DIM]):
        return float(BAD_SHAPE)
    norm2 = dot(x, x)
    if not norm2 <= s[H_MAX2]:  # also NaN and infinity
        return float(BAD_CONTEXT)
    o = int(s[H_WORK])
    for j in range(x.size):
        s[o + j] = x[j]
    return norm2


@short_kernel
def predict(s, x, mean, std):
    """s: buffer, x: (d,), mean, std: (N,) -> x' theta_a and sqrt(x' cov_a x) of every arm; 0 or a code."""
    s, x, mean, std = borrowed(s), borrowed(x), borrowed(mean), borrowed(std)
    norm2 = _load(s, x)
    if norm2 < 0.0:
        return int(norm2)
    n, size = int(s[H_PAD]), int(s[H_PACK])
    arms, w, t, c = int(s[H_ARMS]), int(s[H_WORK]), int(s[H_THETA]), int(s[H_COV])
    z = s[w : w + n]
    means(s[t : t + arms * n], z, mean)
    for a in range(arms):
        std[a] = math.sqrt(quadratic(s[c + a * size : c + a * size + size], z))
    return 0


@part
def _predict_block(s, contexts, start, stop, block, mean, std):
    """Rows start .. stop - 1 for `predict_rows`; block: (stop - start or more, D) scratch; 0 or a code."""
    s, contexts, block = borrowed(s), borrowed(contexts), borrowed(block)
    mean, std = borrowed(mean), borrowed(std)
    n, size, arms, dim = int(s[H_PAD]), int(s[H_PACK]), int(s[H_ARMS]), int(s[H_DIM])
    t, c = int(s[H_THETA]), int(s[H_COV])
    for i in range(start, stop):
        norm2 = _load(s, contexts[i])
        if norm2 < 0.0:
            return int(norm2)
        block[i - start, :dim] = contexts[i]
        means(s[t : t + arms * n], block[i - start], mean[i])
    for a in range(arms):
        matrix = s[c + a * size : c + a * size + size]
        for i in range(start, stop):
            std[i, a] = math.sqrt(quadratic(matrix, block[i - start]))
    return 0


@kernel
def predict_rows(s, contexts, mean, std):
    """s: buffer, contexts: (n, d), mean, std: (n, N) -> `predict` of every row, to the bit; 0 or a code.

    A few dozen rows at a time, arm by arm: the matrix of an arm is read from the nearest cache instead of the next.
    """
    block = np.zeros((ROWS, int(s[H_PAD])))
    for start in range(0, contexts.shape[0], ROWS):
        stop = min(start + ROWS, contexts.shape[0])
        code = _predict_block(s, contexts, start, stop, block, mean, std)
        if code < 0:
            return code
    return 0


@inlined
def _offered(s, offers):
    """s: buffer, offers: (N,) or (0,) -> number of eligible arms, or a code."""
    arms = int(s[H_ARMS])
    if offers.size == 0:
        return arms
    if offers.size != arms:
        return BAD_PRICES
    eligible = 0
    for a in range(arms):
        if not offers[a] > -math.inf:
            return BAD_PRICES
        if offers[a] < math.inf:
            eligible += 1
    return eligible if eligible > 0 else NONE_ELIGIBLE


@short_kernel
def fold(prices, eligible, base, out):
    """prices, base: (N,) or (0,), eligible: (N,) bool or (0,), out: (N,) -> out = prices + base, infinite where closed.

    Returns the number of eligible arms, or a code where prices are not within LARGEST or a size is wrong.
    """
    arms = out.size
    if prices.size % arms or eligible.size % arms or max(prices.size, eligible.size) > arms:
        return BAD_PRICES
    count = 0
    for a in range(arms):
        price = prices[a] if prices.size > 0 else 0.0
        if not abs(price) <= LARGEST:
            return BAD_PRICES
        if base.size > 0:
            price += base[a]
        if eligible.size > 0 and not eligible[a]:
            price = math.inf
        out[a] = price
        count += price < math.inf
    return count


@part
def _bounds(s, z, norm, offers, eligible, row, score, bound):
    """s: buffer, z: (D,), score, bound: (N,) -> mean less price, and an upper bound of the score, of every arm.

    The bound is mean + |bonus scale| ||x|| radius - price, plus a slack for rounding. Returns the arm with the best
    mean less price: tried first, it rules out more of the others than the one with the largest bound.
    """
    arms, n = int(s[H_ARMS]), int(s[H_PAD])
    t, k = int(s[H_THETA]), int(s[H_ARM])
    spread = s[k + A_SPREAD * arms : k + A_SPREAD * arms + arms]
    radius = s[k + A_RADIUS * arms : k + A_RADIUS * arms + arms]
    reach_scale = s[H_ALPHA] * norm
    slack = 8.0 * (n + 8.0) * EPSILON
    means(s[t : t + arms * n], z, score)
    if offers.size > 0:
        least = math.inf
        for a in range(arms):
            least = min(least, offers[a])
        for a in range(arms):
            score[a] -= offers[a] - least  # an equal price changes nothing, to the last bit
    if s[H_SAMPLE] > 0.0:
        draw = s[row + 1 : row + 1 + arms]
        for a in range(arms):
            reach = reach_scale * max(spread[a] * draw[a], 0.0) * radius[a]
            bound[a] = score[a] + reach + slack * (abs(score[a]) + reach)
    else:
        for a in range(arms):
            reach = reach_scale * spread[a] * radius[a]
            bound[a] = score[a] + reach + slack * (abs(score[a]) + reach)
    if eligible < arms:
        for a in range(arms):
            if offers[a] == math.inf:
                bound[a] = -math.inf
                score[a] = -math.inf
    first = 0
    highest = score[0]
    for a in range(1, arms):
        if score[a] > highest:
            highest = score[a]
            first = a
    return first


@part
def _scored(s, a, z, row, mean):
    """s: buffer, a: arm, z: (D,), mean: its mean less price -> its exact score."""
    size, c = int(s[H_PACK]), int(s[H_COV])
    bonus = s[H_ALPHA] * s[int(s[H_ARM]) + A_SPREAD * int(s[H_ARMS]) + a]
    if s[H_SAMPLE] > 0.0:
        bonus *= s[row + 1 + a]
    if bonus == 0.0:
        return mean
    return mean + bonus * math.sqrt(quadratic(s[c + a * size : c + a * size + size], z))


@part
def _settle(s, u, eligible, score, bound, best, ties, chosen):
    """s: buffer, score, bound: (N,) -> the arm played: `chosen`, one of its ties, or one of the uniform share.

    One uniform number u serves the mixture and, rescaled, the choice inside it. H_PROPENSITY is set.
    """
    mix = s[H_MIX]
    share = mix / eligible
    if s[H_SAMPLE] > 0.0:  # the propensity integrates over the draws: not known here
        share = math.nan
    if u < mix:
        wanted = min(int(u / mix * eligible), eligible - 1)
        for a in range(score.size):
            if bound[a] > -math.inf:
                if wanted == 0:
                    chosen = a
                    break
                wanted -= 1
        s[H_PROPENSITY] = share + ((1.0 - mix) / ties if score[chosen] == best else 0.0)
        return chosen
    if ties > 1:
        wanted = min(int((u - mix) / (1.0 - mix) * ties), ties - 1)
        for a in range(score.size):
            if score[a] == best:
                if wanted == 0:
                    chosen = a
                    break
                wanted -= 1
    s[H_PROPENSITY] = share + (1.0 - mix) / ties
    return chosen


@part
def choose(s, x, offers, prune):
    """s: buffer, x: (d,), offers: (N,) prices, infinite where ineligible, or (0,) -> arm or a code.

    Exact argmax of mean + bonus - price with ties split evenly, under a uniform share `mix`. With `prune`, an arm is
    evaluated only when its bound reaches the best exact score so far: the answer is that of the full scan. One noise
    row is used.
    """
    s, x, offers = borrowed(s), borrowed(x), borrowed(offers)
    eligible = _offered(s, offers)
    if eligible < 0:
        return eligible
    if s[H_CURSOR] >= s[H_ROWS]:
        return NO_NOISE
    norm2 = _load(s, x)
    if norm2 < 0.0:
        return int(norm2)
    arms, n, w = int(s[H_ARMS]), int(s[H_PAD]), int(s[H_WORK])
    z = s[w : w + n]
    bound = s[w + 4 * n : w + 4 * n + arms]
    score = s[w + 4 * n + arms : w + 4 * n + 2 * arms]
    row = int(s[H_NOISE]) + int(s[H_CURSOR]) * int(s[H_WIDTH])
    s[H_CURSOR] += 1.0
    first = _bounds(s, z, math.sqrt(norm2), offers, eligible, row, score, bound)
    best = _scored(s, first, z, row, score[first])
    score[first] = best
    chosen = first
    ties = 1
    evaluated = 1
    for a in range(arms):
        if a == first or bound[a] == -math.inf:
            continue
        if prune and bound[a] < best:
            score[a] = -math.inf
            continue
        value = _scored(s, a, z, row, score[a])
        score[a] = value
        evaluated += 1
        if value > best:
            best = value
            chosen = a
            ties = 1
        elif value == best:
            ties += 1
    s[H_EVALUATED] = evaluated
    return _settle(s, s[row], eligible, score, bound, best, ties, chosen)


@short_kernel
def select(s, x):
    """s: buffer, x: (d,) -> arm, plus N when the propensity in H_PROPENSITY is not one, or a code."""
    arm = choose(s, x, s[:0], True)
    return arm + int(s[H_ARMS]) if arm >= 0 and s[H_PROPENSITY] != 1.0 else arm


@short_kernel
def select_offered(s, x, offers):
    """s: buffer, x: (d,), offers: (N,) prices, infinite where ineligible -> as `select`."""
    arm = choose(s, x, offers, True)
    return arm + int(s[H_ARMS]) if arm >= 0 and s[H_PROPENSITY] != 1.0 else arm


@short_kernel
def learn(s, a, x, reward, weight, at):
    """s: buffer, a: arm, x: (d,), at: clock index of the decision or < 0 for the next -> 0 or a code."""
    s, x = borrowed(s), borrowed(x)
    arms = int(s[H_ARMS])
    if a < 0 or a >= arms:
        return BAD_ARM
    if not abs(reward) <= LARGEST:
        return BAD_REWARD
    if not (weight > 0.0 and weight <= LARGEST):
        return BAD_WEIGHT
    norm2 = _load(s, x)
    if norm2 < 0.0:
        return int(norm2)
    if at < 0:
        at = int(s[H_CLOCK])
    s[H_CLOCK] = max(s[H_CLOCK], at + 1.0)
    if s[H_DISCOUNT] < 1.0:
        bucket = float(at // int(s[H_SPAN]))
        if bucket > s[H_BUCKET]:
            advance(s, bucket)
        elif bucket < s[H_BUCKET]:
            weight *= s[H_DISCOUNT] ** (s[H_SPAN] * (s[H_BUCKET] - bucket))
    n, size, w = int(s[H_PAD]), int(s[H_PACK]), int(s[H_WORK])
    z, v = s[w : w + n], s[w + n : w + 2 * n]
    t, c, g, m = (
        int(s[H_THETA]) + a * n,
        int(s[H_COV]) + a * size,
        int(s[H_GRAM]) + a * size,
        int(s[H_MOMENT]) + a * n,
    )
    arm = int(s[H_ARM]) + a
    cov, gram, theta, moment = s[c : c + size], s[g : g + size], s[t : t + n], s[m : m + n]
    s[arm + A_COUNT * arms] += 1.0
    s[arm + A_WEIGHT * arms] += weight
    s[arm + A_SQUARE * arms] += weight * reward * reward
    s[H_LEARNED] += 1.0
    if weight > 0.0:
        product(cov, z, v)
        q = max(weight * dot(z, v), 0.0)
        gain = weight * (reward - dot(theta, z)) / (1.0 + q)
        for j in range(n):
            moment[j] += weight * reward * z[j]
        if size == n:
            for j in range(n):
                gram[j] += weight * z[j] * z[j]
                cov[j] = 1.0 / (s[H_RIDGE] + gram[j])
                theta[j] = cov[j] * (moment[j] + s[H_RIDGE] * s[int(s[H_PRIOR]) + a * n + j])
        else:
            for j in range(n):
                theta[j] += gain * v[j]
            scale = math.sqrt(weight / (1.0 + q))
            for j in range(n):
                v[j] *= scale
            add_outer(cov, v, -1.0)
            queued = int(s[arm + A_QUEUED * arms])
            o = int(s[H_QUEUE]) + (a * QUEUE + queued) * n
            row, root = s[o : o + n], math.sqrt(weight)
            for j in range(n):
                row[j] = root * z[j]
            s[arm + A_QUEUED * arms] = queued + 1.0
            if queued + 1 == QUEUE:
                drain(s, a)
            # What rounding can do to x' cov x: relative to the largest width that x could have, not to its own.
            radius = s[arm + A_RADIUS * arms]
            s[arm + A_ERROR * arms] += (1.0 + weight * norm2 * radius * radius) * EPSILON
            if s[arm + A_ERROR * arms] > REBUILD_ERROR:
                rebuild(s, a)
            count = s[arm + A_COUNT * arms]
            if n <= TIGHTEN_DIM and count >= 4.0 * n and count >= s[arm + A_TIGHTEN * arms]:
                tighten(s, a)
    if s[H_LEARNED] >= s[H_REFRESH]:
        refresh(s)
    return 0


@part
def _choose_block(s, contexts, offers, start, size, z, score, bound, best, whole, arms, propensities):
    """Rows start .. start + size - 1 for `choose_rows`; z .. whole: scratch for at least so many rows; 0 or a code."""
    s, z, score, bound = borrowed(s), borrowed(z), borrowed(score), borrowed(bound)
    contexts, offers = borrowed(contexts), borrowed(offers)
    count, dim = score.shape[1], contexts.shape[1]
    eligible, row, first, chosen, ties = whole[0], whole[1], whole[2], whole[3], whole[4]
    for i in range(size):
        given = offers[start + i] if offers.shape[0] > 0 else s[:0]
        eligible[i] = _offered(s, given)
        if eligible[i] < 0:
            return eligible[i]
        norm2 = _load(s, contexts[start + i])
        if norm2 < 0.0:
            return int(norm2)
        z[i, :dim] = contexts[start + i]
        row[i] = int(s[H_NOISE]) + int(s[H_CURSOR]) * int(s[H_WIDTH])
        s[H_CURSOR] += 1.0
        f = _bounds(s, z[i], math.sqrt(norm2), given, eligible[i], row[i], score[i], bound[i])
        score[i, f] = _scored(s, f, z[i], row[i], score[i, f])
        first[i], chosen[i], best[i], ties[i] = f, f, score[i, f], 1
    for a in range(count):
        for i in range(size):
            if a == first[i] or bound[i, a] == -math.inf:
                continue
            if bound[i, a] < best[i]:
                score[i, a] = -math.inf
                continue
            value = _scored(s, a, z[i], row[i], score[i, a])
            score[i, a] = value
            if value > best[i]:
                best[i], chosen[i], ties[i] = value, a, 1
            elif value == best[i]:
                ties[i] += 1
    for i in range(size):
        arms[start + i] = _settle(s, s[row[i]], eligible[i], score[i], bound[i], best[i], ties[i], chosen[i])
        propensities[start + i] = s[H_PROPENSITY]
    return 0


@kernel
def choose_rows(s, contexts, offers, arms, propensities, start):
    """s: buffer, contexts: (n, d), offers: (n or 0, N) -> fills arms, propensities (n,); rows done or a code.

    The rule of `choose` for a few dozen rows at a time, arm by arm, so that the matrix of an arm is read once a block;
    every number comes from the same functions, hence every decision is that of the loop.
    """
    count, total = int(s[H_ARMS]), contexts.shape[0]
    z = np.zeros((ROWS, int(s[H_PAD])))
    score, bound, best = np.empty((ROWS, count)), np.empty((ROWS, count)), np.empty(ROWS)
    whole = np.empty((5, ROWS), np.int64)
    while start < total and s[H_CURSOR] < s[H_ROWS]:
        size = min(ROWS, total - start, int(s[H_ROWS] - s[H_CURSOR]))
        code = _choose_block(
            s, contexts, offers, start, size, z, score, bound, best, whole, arms, propensities
        )
        if code < 0:
            return code
        start += size
    return start


@kernel
def learn_rows(s, arms, contexts, rewards):
    """s: buffer, arms: (n,), contexts: (n, d), rewards: (n,) -> `learn` of every row in order; 0 or a code."""
    s, contexts = borrowed(s), borrowed(contexts)
    for i in range(arms.size):
        code = learn(s, arms[i], contexts[i], rewards[i], 1.0, -1)
        if code < 0:
            return code
    return 0
