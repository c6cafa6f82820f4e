"""Kernels of the linear bandits over many rows: choosing block by block, learning in order."""

import math

import numpy as np

from banditroute._core.kernels import borrowed, kernel, part
from banditroute._core.kernels.layout import (
    H_ARMS,
    H_CURSOR,
    H_NOISE,
    H_PAD,
    H_PROPENSITY,
    H_ROWS,
    H_WIDTH,
    ROWS,
)
from banditroute._core.kernels.linear import bounds, checked, learn, offered, scored, settle


@part
def _choose_block(s, contexts, offers, start, size, z, score, bound, best, whole, arms, propensities):
    """Rows start .. start + size - 1 for `choose_rows`; z .. whole: scratch for at least so many rows; 0 or a code."""
    s, z, score, bound = borrowed(s), borrowed(z), borrowed(score), borrowed(bound)
    contexts, offers = borrowed(contexts), borrowed(offers)
    count, dim = score.shape[1], contexts.shape[1]
    eligible, row, first, chosen, ties = whole[0], whole[1], whole[2], whole[3], whole[4]
    for i in range(size):
        given = offers[start + i] if offers.shape[0] > 0 else s[:0]
        eligible[i] = offered(s, given)
        if eligible[i] < 0:
            return eligible[i]
        norm2 = checked(s, contexts[start + i])
        if norm2 < 0.0:
            return int(norm2)
        z[i, :dim] = contexts[start + i]
        row[i] = int(s[H_NOISE]) + int(s[H_CURSOR]) * int(s[H_WIDTH])
        s[H_CURSOR] += 1.0
        f = bounds(s, z[i], math.sqrt(norm2), given, eligible[i], row[i], score[i], bound[i])
        score[i, f] = scored(s, f, z[i], row[i], score[i, f])
        first[i], chosen[i], best[i], ties[i] = f, f, score[i, f], 1
    for a in range(count):
        for i in range(size):
            if a == first[i] or bound[i, a] == -math.inf:
                continue
            if bound[i, a] < best[i]:
                score[i, a] = -math.inf
                continue
            value = scored(s, a, z[i], row[i], score[i, a])
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
