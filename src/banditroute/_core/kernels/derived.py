"""What follows from the statistics of a linear policy: inverses, coefficients, bounds, the pooled prior, the scales."""

import math

from banditroute._core.kernels import borrowed, kernel, part
from banditroute._core.kernels.layout import (
    A_COUNT,
    A_ERROR,
    A_QUEUED,
    A_RADIUS,
    A_SQUARE,
    A_TIGHTEN,
    A_WEIGHT,
    EPSILON,
    FIRST_REFRESH,
    GROWTH,
    H_ALPHA,
    H_ARM,
    H_ARMS,
    H_AUTO,
    H_AUTO_RIDGE,
    H_BUCKET,
    H_COV,
    H_DIM,
    H_DISCOUNT,
    H_GRAM,
    H_LEARNED,
    H_MOMENT,
    H_PACK,
    H_PAD,
    H_POOL_RIDGE,
    H_POOLED,
    H_PRIOR,
    H_QUEUE,
    H_REFRESH,
    H_RIDGE,
    H_SIGMA2,
    H_SPAN,
    H_THETA,
    H_WORK,
    QUEUE,
    REBUILD_ERROR,
    TINY,
)
from banditroute._core.kernels.tiles import dot, product, regularised_inverse, unpack


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
    regularised_inverse(
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
    regularised_inverse(pool, packed, ridge, n, full, inverse)
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
