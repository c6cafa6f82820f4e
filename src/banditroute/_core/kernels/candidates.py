"""Kernels of policies whose arms differ by features: scores of candidates, and the draw among them."""

import math

from banditroute._core.kernels import kernel


@kernel
def within(z, limit):
    """z: (m, f) -> whether every number is in [-limit, limit]; a number that is none is not."""
    for a in range(z.shape[0]):
        for i in range(z.shape[1]):
            if not abs(z[a, i]) <= limit:
                return False
    return True


@kernel
def score(z, beta, cov, mean, width, work):
    """z: (m, f), beta: (f,), cov: (f, f) symmetric, work: (f + 1, M >= m) -> mean, width: (m,) z'beta, sqrt(z' cov z).

    One candidate's sums are formed in the same order as every other's: equal features score alike to the last bit.
    Candidates lie side by side in `work`, so that the innermost loop goes over them.
    """
    m, f = z.shape
    wide = work.shape[1]
    total = work[f]
    for i in range(f):
        for a in range(m):
            work[i, a] = z[a, i]
        for a in range(m, wide):
            work[i, a] = 0.0
    for a in range(wide):
        total[a] = 0.0
    for i in range(f):
        for a in range(wide):
            total[a] += beta[i] * work[i, a]
    for a in range(m):
        mean[a] = total[a]
    for a in range(wide):
        total[a] = 0.0
    for i in range(f):
        own = cov[i, i]
        for a in range(wide):
            total[a] += own * work[i, a] * work[i, a]
        for j in range(i):
            twice = 2.0 * cov[i, j]
            for a in range(wide):
                total[a] += twice * work[i, a] * work[j, a]
    for a in range(m):
        width[a] = math.sqrt(max(total[a], 0.0))


@kernel
def apart(x, places, z, cov, link, alone, prior, rest, mean, variance):
    """x: (d,), places: (m,), z: (m, f), cov: (k, d, d), link: (k, d, f), alone: (k, d) -> rest: (m, f) and two (m,).

    What is left of a candidate's features for the shared part, ``z - link' x``, and the mean and variance of its own
    part; a candidate at place -1 has none that is known: nothing is taken off, variance ``prior``.
    """
    d, f = x.size, z.shape[1]
    for a in range(places.size):
        p = places[a]
        for j in range(f):
            rest[a, j] = z[a, j]
        mean[a] = 0.0
        variance[a] = prior
        if p < 0:
            continue
        spread = 0.0
        for i in range(d):
            mean[a] += alone[p, i] * x[i]
            inner = 0.0
            for j in range(d):
                inner += cov[p, i, j] * x[j]
            spread += x[i] * inner
            for j in range(f):
                rest[a, j] -= link[p, i, j] * x[i]
        variance[a] = spread


@kernel
def draw(index, prices, mix, u, chance):
    """index, prices: (m,), u in [0, 1) -> the candidate drawn, -1 where all are closed; chance: (m,) of each.

    The largest index less price is played, ties split evenly, and a share `mix` is uniform over what is open. Equal
    prices change nothing: their least is taken off first.
    """
    m = index.size
    low = math.inf
    for a in range(m):
        low = min(low, prices[a])
    if low == math.inf:
        return -1
    best, open_ = -math.inf, 0
    for a in range(m):
        chance[a] = index[a] - (prices[a] - low)
        best = max(best, chance[a])
        if prices[a] < math.inf:
            open_ += 1
    ties = 0
    for a in range(m):
        if chance[a] == best:
            ties += 1
    pure, uniform = (1.0 - mix) / ties, mix / open_
    total = 0.0
    for a in range(m):
        given = pure if chance[a] == best else 0.0
        if prices[a] < math.inf:
            given += uniform
        chance[a] = given
        total += given
    reached, last = 0.0, -1
    for a in range(m):
        if chance[a] > 0.0:
            reached += chance[a]
            last = a
            if u * total < reached:
                return a
    return last
