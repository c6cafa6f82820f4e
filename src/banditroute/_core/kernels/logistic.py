"""Kernels of the logistic arms: the fit by Newton's method, and the scores.

An arm minimises ``sum w (log(1 + exp z) - r z) + theta' P theta / 2 - q' theta + ridge |theta|^2 / 2`` with
``z = x' theta``: the rewards it still holds, the quadratic that stands for older ones, and the prior.
"""

import math

from banditroute._core.kernels import kernel, part

STEPS = 60  # of Newton's method: a bound that is not reached, a warm start takes four
SMALL = 1e-20  # squared length of a step, in standard deviations, after which the fit is exact to rounding
ROUNDING = 1e-12  # relative, of the objective
LEAST_RIDGE = 1e-12  # of the curvature: below it, rounding makes up coefficients where nothing was seen
NARROW = (
    1e-8  # log odds: of a narrower interval the two ends would tell the width less exactly than the slope
)


@part
def objective(rows, held, past, pull, ridge, theta):
    """rows: (m, d + 2) x, r, w; past: (d, d), pull, theta: (d,) -> the negative log posterior of theta."""
    d = theta.size
    total = 0.0
    for j in range(d):
        inner = 0.0
        for i in range(d):
            inner += past[j, i] * theta[i]
        total += theta[j] * (0.5 * inner - pull[j] + 0.5 * ridge * theta[j])
    for n in range(held):
        z = 0.0
        for j in range(d):
            z += rows[n, j] * theta[j]
        total += rows[n, d + 1] * (math.log1p(math.exp(-abs(z))) + max(z, 0.0) - rows[n, d] * z)
    return total


@part
def chance(z):
    """z: log odds -> probability, without overflow."""
    e = math.exp(-abs(z))
    return 1.0 / (1.0 + e) if z >= 0.0 else e / (1.0 + e)


@part
def factor(h, floor):
    """h: (d, d) -> its lower triangle becomes the Cholesky factor; no pivot is smaller than `floor`."""
    d = h.shape[0]
    for j in range(d):
        pivot = h[j, j]
        for k in range(j):
            pivot -= h[j, k] * h[j, k]
        h[j, j] = math.sqrt(max(pivot, floor))
        for i in range(j + 1, d):
            total = h[i, j]
            for k in range(j):
                total -= h[i, k] * h[j, k]
            h[i, j] = total / h[j, j]


@part
def solve(h, v):
    """h: (d, d) lower factor, v: (d,) -> v becomes the solution of h h' s = v."""
    d = v.size
    for i in range(d):
        total = v[i]
        for k in range(i):
            total -= h[i, k] * v[k]
        v[i] = total / h[i, i]
    for i in range(d - 1, -1, -1):
        total = v[i]
        for k in range(i + 1, d):
            total -= h[k, i] * v[k]
        v[i] = total / h[i, i]


@kernel
def least_ridge(rows, held, past, ridge):
    """rows: (m, d + 2), past: (d, d) -> the ridge, or LEAST_RIDGE of the largest curvature there can be."""
    d = past.shape[0]
    most = 0.0
    for j in range(d):
        most += past[j, j]
    for n in range(held):
        for j in range(d):
            most += 0.25 * rows[n, d + 1] * rows[n, j] * rows[n, j]
    return max(ridge, LEAST_RIDGE * most)


@kernel
def fit(rows, held, past, pull, ridge, theta, cov, work):
    """rows: (m, d + 2), past, cov: (d, d), pull, theta: (d,), work: (d + 3, d) -> theta at the optimum, cov there.

    Returns the number of Newton steps. Starts from theta; the objective is strictly convex, so the optimum does not
    depend on it. The exact pivots are at least the ridge, which is what the factor falls back to under rounding.
    """
    d = theta.size
    h, gradient, step, trial = work[:d], work[d], work[d + 1], work[d + 2]
    value = objective(rows, held, past, pull, ridge, theta)
    last, steps = math.inf, 0
    while steps < STEPS:
        for j in range(d):
            for i in range(j + 1):
                h[j, i] = past[j, i]
            h[j, j] += ridge
            total = 0.0
            for i in range(d):
                total += past[j, i] * theta[i]
            gradient[j] = total - pull[j] + ridge * theta[j]
        for n in range(held):
            x = rows[n]
            z = 0.0
            for j in range(d):
                z += x[j] * theta[j]
            p = chance(z)
            slope, bend = x[d + 1] * (p - x[d]), x[d + 1] * p * (1.0 - p)
            for j in range(d):
                gradient[j] += slope * x[j]
                scaled = bend * x[j]
                for i in range(j + 1):
                    h[j, i] += scaled * x[i]
        factor(h, ridge)
        step[:] = gradient
        solve(h, step)
        length = 0.0
        for j in range(d):
            length += gradient[j] * step[j]
        if length <= SMALL or (length < 1e-9 and length > 0.25 * last):
            break
        last, share = length, 1.0
        for _ in range(50):
            for j in range(d):
                trial[j] = theta[j] - share * step[j]
            reached = objective(rows, held, past, pull, ridge, trial)
            if reached <= value - 1e-4 * share * length + ROUNDING * (1.0 + abs(value)):
                break
            share *= 0.5
        theta[:] = trial
        value = reached
        steps += 1
    for j in range(d):
        for i in range(d):
            step[i] = 0.0
        step[j] = 1.0
        solve(h, step)
        for i in range(j + 1):
            cov[j, i] = step[i]
            cov[i, j] = step[i]
    return steps


@kernel
def fold(rows, held, past, pull, theta):
    """rows: (m, d + 2), past: (d, d), pull, theta: (d,) -> the first `held` rows go into past and pull.

    By their second-order expansion at theta: value, slope and curvature there stay what they were.
    """
    d = theta.size
    for n in range(held):
        x = rows[n]
        z = 0.0
        for j in range(d):
            z += x[j] * theta[j]
        p = chance(z)
        bend = x[d + 1] * p * (1.0 - p)
        lift = bend * z + x[d + 1] * (x[d] - p)
        for j in range(d):
            pull[j] += lift * x[j]
            for i in range(d):
                past[j, i] += bend * x[j] * x[i]


@kernel
def predict(theta, cov, alpha, x, mean, std):
    """theta: (k, d), cov: (k, d, d), x: (d,) -> mean: (k,) chances, std: (k,) their widths for this alpha."""
    d = x.size
    for a in range(mean.size):
        z = square = 0.0
        for j in range(d):
            z += theta[a, j] * x[j]
            inner = 0.0
            for i in range(d):
                inner += cov[a, j, i] * x[i]
            square += x[j] * inner
        width = math.sqrt(max(square, 0.0))
        p = chance(z)
        mean[a] = p
        reach = alpha * width
        std[a] = (chance(z + reach) - p) / alpha if reach > NARROW else p * (1.0 - p) * width
