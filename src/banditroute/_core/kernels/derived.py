"""What follows from the statistics of a linear policy at once: inverses, coefficients, bounds of widths."""

import math

from banditroute._core.kernels import apart, borrowed, inlined, kernel, part, view, whole
from banditroute._core.kernels.inverses import INVERTED, inverse_slice
from banditroute._core.kernels.layout import (
    A_COUNT,
    A_ERROR,
    A_QUEUED,
    A_RADIUS,
    A_SQUARE,
    A_TIGHTEN,
    A_WEIGHT,
    EPSILON,
    FIRST_ALPHA,
    FIRST_REFRESH,
    H_ALPHA,
    H_ARM,
    H_ARMS,
    H_AUTO,
    H_COV,
    H_DIM,
    H_GRAM,
    H_HIGH,
    H_JOB_ARM,
    H_LEARNED,
    H_LOW,
    H_MOMENT,
    H_PACK,
    H_PAD,
    H_PRIOR,
    H_QUEUE,
    H_RIDGES,
    H_ROOM,
    H_STAGE,
    H_THETA,
    H_WORK,
    QUEUE,
    REBUILD_ERROR,
)
from banditroute._core.kernels.tiles import clear, copy, dot, product, quadratic, unpacked


@inlined
def reach(s):
    """s: buffer -> the range of the rewards and zero."""
    return max(s[H_HIGH], 0.0) - min(s[H_LOW], 0.0)


@part
def first_alpha(s):
    """s: buffer -> an automatic alpha, before anything is estimated, goes with the rewards."""
    if s[H_AUTO] > 0.0 and s[H_LEARNED] < FIRST_REFRESH and reach(s) > 0.0:
        s[H_ALPHA] = FIRST_ALPHA * reach(s)


@part
def squared_width(s, a, z):
    """s: buffer, a: arm, z: (D,) -> z' A^-1 z: the one place that tells how wide an arm is.

    Where nothing was learned A is its ridges, and they are read instead of its matrix: of a table of a thousand arms
    most are so for long, and to read 66 MB took 3 ms.
    """
    n, size = whole(s, H_PAD), whole(s, H_PACK)
    if s[whole(s, H_ARM) + A_WEIGHT * whole(s, H_ROOM) + a] == 0.0:
        ridges = view(s, whole(s, H_RIDGES) + a * n, n)
        total = 0.0
        for j in range(n):
            total += z[j] * z[j] / ridges[j]
        return total
    return quadratic(view(s, whole(s, H_COV) + a * size, size), z)


@apart
def fold(s, o, queued, blank, g):
    """s: buffer, o: offset of the queue of an arm, blank: of D zeros, g: of a packed matrix -> with the rows x x'.

    One pass over the matrix whatever the number of rows.
    """
    n = whole(s, H_PAD)
    q0, q1 = view(s, o if queued > 0 else blank, n), view(s, o + n if queued > 1 else blank, n)
    q2, q3 = view(s, o + 2 * n if queued > 2 else blank, n), view(s, o + 3 * n if queued > 3 else blank, n)
    q4, q5 = view(s, o + 4 * n if queued > 4 else blank, n), view(s, o + 5 * n if queued > 5 else blank, n)
    q6, q7 = view(s, o + 6 * n if queued > 6 else blank, n), view(s, o + 7 * n if queued > 7 else blank, n)
    o = g
    for i in range(n):
        m = 8 * (i // 8)
        row, tile = view(s, o, m), view(s, o + m, 8)
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


@part
def drain(s, a):
    """s: buffer, a: arm -> folds the queued contexts into gram."""
    n, size = whole(s, H_PAD), whole(s, H_PACK)
    slot = whole(s, H_ARM) + A_QUEUED * whole(s, H_ROOM) + a
    queued = whole(s, slot)
    if queued == 0:
        return
    s[slot] = 0.0
    o = whole(s, H_QUEUE) + a * QUEUE * n
    clear(view(s, o + queued * n, (QUEUE - queued) * n))
    fold(s, o, QUEUE, o, whole(s, H_GRAM) + a * size)


@kernel
def drain_all(s):
    """s: buffer -> `drain` of every arm."""
    s = borrowed(s)
    for a in range(whole(s, H_ARMS)):
        drain(s, a)


@apart
def solve(s, a):
    """s: buffer, a: arm -> theta = cov (moment + ridges prior)."""
    n, size = whole(s, H_PAD), whole(s, H_PACK)
    o = whole(s, H_WORK) + n
    right = view(s, o, n)
    m, p, r = whole(s, H_MOMENT) + a * n, whole(s, H_PRIOR) + a * n, whole(s, H_RIDGES) + a * n
    for j in range(n):
        right[j] = s[m + j] + s[r + j] * s[p + j]
    c, t = whole(s, H_COV) + a * size, whole(s, H_THETA) + a * n
    product(view(s, c, size), right, view(s, t, n))


@part
def least_ridge(s, a):
    """s: buffer, a: arm -> smallest precision of its prior."""
    r = whole(s, H_RIDGES) + a * whole(s, H_PAD)
    least = math.inf
    for j in range(whole(s, H_DIM)):
        least = min(least, s[r + j])
    return least


@part
def loosen(s, a):
    """s: buffer, a: arm -> the radius that holds for any statistics."""
    s[whole(s, H_ARM) + A_RADIUS * whole(s, H_ROOM) + a] = (1.0 + REBUILD_ERROR) / math.sqrt(
        least_ridge(s, a)
    )


@apart
def settle(s, a):
    """s: buffer, a: arm whose cov was just computed -> its theta, its error, a radius that covers the rounding."""
    n, size, room = whole(s, H_PAD), whole(s, H_PACK), whole(s, H_ROOM)
    least = least_ridge(s, a)
    # The inverse is right to about the rounding of the precision over the ridge: the radius must cover that too.
    largest = least
    row, r = whole(s, H_GRAM) + a * size, whole(s, H_RIDGES) + a * n
    for j in range(n):
        largest = max(largest, s[r + j] + s[row + j])
        row += 0 if size == n else 8 * (j // 8) + 8
    error = min(8.0 * n * EPSILON * largest / least, 1.0)
    radius = whole(s, H_ARM) + a + A_RADIUS * room
    s[radius] = math.sqrt(min(s[radius] * s[radius] + error / least, (1.0 + error) / least))
    s[whole(s, H_ARM) + a + A_ERROR * room] = 0.0
    solve(s, a)


@apart
def rebuilt(s, a):
    """As `rebuild`, for kernels."""
    drain(s, a)
    n, size = whole(s, H_PAD), whole(s, H_PACK)
    g, c, r = whole(s, H_GRAM) + a * size, whole(s, H_COV) + a * size, whole(s, H_RIDGES) + a * n
    ridges = view(s, r, n)
    if size == n:
        for j in range(n):
            s[c + j] = 1.0 / (ridges[j] + s[g + j])
    else:
        copy(view(s, g, size), view(s, c, size))
        o = whole(s, H_WORK) + 4 * n + 2 * whole(s, H_ROOM)
        place = view(s, o, 3)
        place[0], place[1], place[2] = 0.0, 0.0, -1.0
        full, inverse = view(s, o + 8, n * n), view(s, o + 8 + n * n, n * n)
        while place[0] < INVERTED:
            inverse_slice(view(s, c, size), ridges, full, inverse, n, least_ridge(s, a), place, math.inf)
    if a == whole(s, H_JOB_ARM):
        s[H_STAGE] = 0.0  # what a refresh has prepared of this arm may be out of date
    settle(s, a)


@kernel
def rebuild(s, a):
    """s: buffer, a: arm -> cov and theta afresh from the statistics; O(D^3), off the request path."""
    rebuilt(borrowed(s), a)


@apart
def tighten(s, a):
    """s: buffer, a: arm -> a smaller radius from lambda_max(M)^4 <= sum of the squares of the entries of M^2 M^2.

    Two products of D cubed, when the count of the arm has doubled: about the cost of one more update each at
    count 4 D, and less and less from there. Measured at (15, 32), t = 10k: 7.0 arms evaluated per decision become 3.0.
    """
    n, size, room = whole(s, H_PAD), whole(s, H_PACK), whole(s, H_ROOM)
    arm = whole(s, H_ARM) + a
    s[arm + A_TIGHTEN * room] = 2.0 * s[arm + A_COUNT * room]
    if size == n:
        return
    o = whole(s, H_WORK) + 4 * n + 2 * room + 8
    full, square = view(s, o, n * n), view(s, o + n * n, n * n)
    c = whole(s, H_COV) + a * size
    unpacked(view(s, c, size), full, n)
    for i in range(whole(s, H_DIM), n):
        full[i * n + i] = 0.0  # the padding, where nothing is ever learned, is no direction of a context
    for i in range(n):
        for j in range(i + 1):
            value = dot(view(full, i * n, n), view(full, j * n, n))
            square[i * n + j] = value
            square[j * n + i] = value
    total = 0.0
    for i in range(n):
        for j in range(i + 1):
            value = dot(view(square, i * n, n), view(square, j * n, n))
            total += value * value * (1.0 if i == j else 2.0)
    radius = math.sqrt(math.sqrt(math.sqrt(math.sqrt(total)))) if total > 0.0 else s[arm + A_RADIUS * room]
    s[arm + A_RADIUS * room] = min(s[arm + A_RADIUS * room], radius * (1.0 + 1e-9))


@part
def noise_scale(s):
    """s: buffer -> the noise variance that best explains the rewards, given the ridge.

    With theta ~ N(prior, sigma^2 / ridges) the maximum-likelihood sigma^2 is the mean of the squared one-step
    prediction errors, each over 1 + x' A^-1 x. That sum equals, whatever the order of the feedback,
    sum r^2 - 2 b'p + p'Sp - (b - S p)'(theta - p) with p the prior mean: no residual need be kept.
    """
    n, size, room = whole(s, H_PAD), whole(s, H_PACK), whole(s, H_ROOM)
    work = whole(s, H_WORK) + n
    product_out = view(s, work, n)
    total = 0.0
    weight = 0.0
    for a in range(whole(s, H_ARMS)):
        arm = whole(s, H_ARM) + a
        if s[arm + A_WEIGHT * room] <= 0.0:
            continue
        g = whole(s, H_GRAM) + a * size
        prior = view(s, whole(s, H_PRIOR) + a * n, n)
        moment = view(s, whole(s, H_MOMENT) + a * n, n)
        theta = view(s, whole(s, H_THETA) + a * n, n)
        product(view(s, g, size), prior, product_out)
        q = s[arm + A_SQUARE * room]
        for j in range(n):
            q += prior[j] * (product_out[j] - 2.0 * moment[j]) - (moment[j] - product_out[j]) * (
                theta[j] - prior[j]
            )
        total += max(q, 0.0)
        weight += s[arm + A_WEIGHT * room]
    return total / weight if weight > 0.0 else 0.0
