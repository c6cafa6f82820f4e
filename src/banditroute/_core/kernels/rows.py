"""Kernels of the linear bandits for whoever reads, one context or many at a time, and for choices in batches."""

import math

import numpy as np

from banditroute._core.kernels import borrowed, kernel, part, short_kernel
from banditroute._core.kernels.contexts import checked, explored, fill
from banditroute._core.kernels.derived import squared_width
from banditroute._core.kernels.layout import (
    BAD_SHAPE,
    H_ARMS,
    H_CURSOR,
    H_NOISE,
    H_PAD,
    H_PROPENSITY,
    H_ROWS,
    H_THETA,
    H_WIDTH,
    ROWS,
)
from banditroute._core.kernels.linear import (
    bounds,
    exact_score,
    first_share,
    offered,
    settle,
)
from banditroute._core.kernels.tiles import means


@short_kernel
def predict(s, x, mean, std):
    """s: buffer, x: (d,), mean, std: (N,) -> x' theta_a and sqrt(x' cov_a x) of every arm; 0 or a code.

    Writes nothing into s, not even scratch: a reader must not disturb a thread that learns.
    """
    s, x, mean, std = borrowed(s), borrowed(x), borrowed(mean), borrowed(std)
    norm2 = checked(s, x)
    if norm2 < 0.0:
        return int(norm2)
    n, arms, t = int(s[H_PAD]), int(s[H_ARMS]), int(s[H_THETA])
    if mean.size != arms or std.size != arms:
        return BAD_SHAPE
    z = np.zeros(n)
    fill(s, x, z)
    means(s[t : t + arms * n], z, mean)
    for a in range(arms):
        std[a] = math.sqrt(squared_width(s, a, z))
    return 0


@part
def _predict_block(s, contexts, start, stop, block, mean, std):
    """Rows start .. stop - 1 for `predict_rows`; block: (stop - start or more, D) scratch; 0 or a code."""
    s, contexts, block = borrowed(s), borrowed(contexts), borrowed(block)
    mean, std = borrowed(mean), borrowed(std)
    n, arms, t = int(s[H_PAD]), int(s[H_ARMS]), int(s[H_THETA])
    for i in range(start, stop):
        norm2 = checked(s, contexts[i])
        if norm2 < 0.0:
            return int(norm2)
        fill(s, contexts[i], block[i - start])
        means(s[t : t + arms * n], block[i - start], mean[i])
    for a in range(arms):
        for i in range(start, stop):
            std[i, a] = math.sqrt(squared_width(s, a, block[i - start]))
    return 0


@kernel
def predict_rows(s, contexts, mean, std):
    """s: buffer, contexts: (n, d), mean, std: (n, N) -> `predict` of every row, to the bit; 0 or a code.

    A few dozen rows at a time, arm by arm: the matrix of an arm is read from the nearest cache instead of the next.
    """
    if mean.shape[1] != int(s[H_ARMS]) or std.shape[1] != int(s[H_ARMS]):
        return BAD_SHAPE
    block = np.zeros((ROWS, int(s[H_PAD])))
    for start in range(0, contexts.shape[0], ROWS):
        stop = min(start + ROWS, contexts.shape[0])
        code = _predict_block(s, contexts, start, stop, block, mean, std)
        if code < 0:
            return code
    return 0


@part
def _choose_block(
    s, contexts, offers, start, size, z, y, score, bound, best, share, whole, arms, propensities
):
    """Rows start .. start + size - 1 for `choose_rows`; z .. whole: scratch for at least so many rows; 0 or a code."""
    s, z, y, score, bound = borrowed(s), borrowed(z), borrowed(y), borrowed(score), borrowed(bound)
    contexts, offers = borrowed(contexts), borrowed(offers)
    count = score.shape[1]
    eligible, row, first, chosen, ties = whole[0], whole[1], whole[2], whole[3], whole[4]
    for i in range(size):
        given = offers[start + i] if offers.shape[0] > 0 else s[:0]
        eligible[i] = offered(s, given)
        if eligible[i] < 0:
            return eligible[i]
        norm2 = checked(s, contexts[start + i])
        if norm2 < 0.0:
            return int(norm2)
        fill(s, contexts[start + i], z[i])
        explored(s, z[i], y[i])
        row[i] = int(s[H_NOISE]) + int(s[H_CURSOR]) * int(s[H_WIDTH])
        s[H_CURSOR] += 1.0
        share[i] = first_share(s, y[i])
        f = bounds(s, z[i], math.sqrt(norm2), given, eligible[i], row[i], score[i], bound[i], share[i])
        score[i, f] = exact_score(s, f, y[i], row[i], score[i, f], share[i])
        first[i], chosen[i], best[i], ties[i] = f, f, score[i, f], 1
    for a in range(count):
        for i in range(size):
            if a == first[i] or bound[i, a] == -math.inf:
                continue
            if bound[i, a] < best[i]:
                score[i, a] = -math.inf
                continue
            value = exact_score(s, a, y[i], row[i], score[i, a], share[i])
            score[i, a] = value
            if value > best[i]:
                best[i], chosen[i], ties[i] = value, a, 1
            elif value == best[i]:
                ties[i] += 1
    for i in range(size):
        arms[start + i] = settle(s, s[row[i]], eligible[i], score[i], bound[i], best[i], ties[i], chosen[i])
        propensities[start + i] = s[H_PROPENSITY]
    return 0


@kernel
def choose_rows(s, contexts, offers, arms, propensities, start):
    """s: buffer, contexts: (n, d), offers: (n or 0, N) -> fills arms, propensities (n,); rows done or a code.

    The rule of `choose` for a few dozen rows at a time, arm by arm, so that the matrix of an arm is read once a block;
    every number comes from the same functions, hence every decision is that of the loop.
    """
    count, total = int(s[H_ARMS]), contexts.shape[0]
    z, y = np.zeros((ROWS, int(s[H_PAD]))), np.zeros((ROWS, int(s[H_PAD])))
    score, bound = np.empty((ROWS, count)), np.empty((ROWS, count))
    best, share = np.empty(ROWS), np.empty(ROWS)
    whole = np.empty((5, ROWS), np.int64)
    while start < total and s[H_CURSOR] < s[H_ROWS]:
        size = min(ROWS, total - start, int(s[H_ROWS] - s[H_CURSOR]))
        code = _choose_block(
            s, contexts, offers, start, size, z, y, score, bound, best, share, whole, arms, propensities
        )
        if code < 0:
            return code
        start += size
    return start
