"""Kernels of the linear bandits: scoring, exact pruned argmax, rank-one learning; `layout` tells where things are."""

import math

import numpy as np

from banditroute._core.kernels import borrowed, inlined, kernel, part, short_kernel
from banditroute._core.kernels.derived import advance, drain, rebuild, refresh, tighten
from banditroute._core.kernels.layout import (
    A_COUNT,
    A_ERROR,
    A_QUEUED,
    A_RADIUS,
    A_SPREAD,
    A_SQUARE,
    A_TIGHTEN,
    A_WEIGHT,
    BAD_ARM,
    BAD_CONTEXT,
    BAD_PRICES,
    BAD_REWARD,
    BAD_SHAPE,
    BAD_WEIGHT,
    EPSILON,
    H_ALPHA,
    H_ARM,
    H_ARMS,
    H_BUCKET,
    H_CLOCK,
    H_COV,
    H_CURSOR,
    H_DIM,
    H_DISCOUNT,
    H_EVALUATED,
    H_GRAM,
    H_LEARNED,
    H_MAX2,
    H_MIX,
    H_MOMENT,
    H_NOISE,
    H_PACK,
    H_PAD,
    H_PRIOR,
    H_PROPENSITY,
    H_QUEUE,
    H_REFRESH,
    H_RIDGE,
    H_ROWS,
    H_SAMPLE,
    H_SPAN,
    H_THETA,
    H_WIDTH,
    H_WORK,
    LARGEST,
    NO_NOISE,
    NONE_ELIGIBLE,
    QUEUE,
    REBUILD_ERROR,
    ROWS,
    TIGHTEN_DIM,
)
from banditroute._core.kernels.tiles import add_outer, dot, means, product, quadratic


@inlined
def checked(s, x):
    """s: buffer, x: (d,) -> squared norm of a context that may be used, or a code."""
    if x.size != int(s[H_DIM]):
        return float(BAD_SHAPE)
    norm2 = dot(x, x)
    if not norm2 <= s[H_MAX2]:  # also NaN and infinity
        return float(BAD_CONTEXT)
    return norm2


@inlined
def _load(s, x):
    """s: buffer, x: (d,) -> as `checked`, and copies x into the padded scratch context."""
    norm2 = checked(s, x)
    if norm2 >= 0.0:
        o = int(s[H_WORK])
        for j in range(x.size):
            s[o + j] = x[j]
    return norm2


@short_kernel
def predict(s, x, mean, std):
    """s: buffer, x: (d,), mean, std: (N,) -> x' theta_a and sqrt(x' cov_a x) of every arm; 0 or a code.

    Writes nothing into s, not even scratch: a reader must not disturb a thread that learns.
    """
    s, x, mean, std = borrowed(s), borrowed(x), borrowed(mean), borrowed(std)
    norm2 = checked(s, x)
    if norm2 < 0.0:
        return int(norm2)
    n, size = int(s[H_PAD]), int(s[H_PACK])
    arms, t, c = int(s[H_ARMS]), int(s[H_THETA]), int(s[H_COV])
    if mean.size != arms or std.size != arms:
        return BAD_SHAPE
    z = np.zeros(n)
    z[: x.size] = x
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
        norm2 = checked(s, contexts[i])
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
    if mean.shape[1] != int(s[H_ARMS]) or std.shape[1] != int(s[H_ARMS]):
        return BAD_SHAPE
    block = np.zeros((ROWS, int(s[H_PAD])))
    for start in range(0, contexts.shape[0], ROWS):
        stop = min(start + ROWS, contexts.shape[0])
        code = _predict_block(s, contexts, start, stop, block, mean, std)
        if code < 0:
            return code
    return 0


@inlined
def offered(s, offers):
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
    """prices, base, out: (N,), eligible: (N,) bool -> out = prices + base, infinite where closed.

    Returns the number of eligible arms, or a code where prices are not within LARGEST or a size is wrong.
    """
    arms = out.size
    if prices.size != arms or eligible.size != arms or base.size != arms:
        return BAD_PRICES
    count = 0
    for a in range(arms):
        price = prices[a]
        if not abs(price) <= LARGEST:
            return BAD_PRICES
        price += base[a]
        if not eligible[a]:
            price = math.inf
        out[a] = price
        count += price < math.inf
    return count


@part
def bounds(s, z, norm, offers, eligible, row, score, bound):
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
def scored(s, a, z, row, mean):
    """s: buffer, a: arm, z: (D,), mean: its mean less price -> its exact score."""
    size, c = int(s[H_PACK]), int(s[H_COV])
    bonus = s[H_ALPHA] * s[int(s[H_ARM]) + A_SPREAD * int(s[H_ARMS]) + a]
    if s[H_SAMPLE] > 0.0:
        bonus *= s[row + 1 + a]
    if bonus == 0.0:
        return mean
    return mean + bonus * math.sqrt(quadratic(s[c + a * size : c + a * size + size], z))


@part
def settle(s, u, eligible, score, bound, best, ties, chosen):
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
    eligible = offered(s, offers)
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
    first = bounds(s, z, math.sqrt(norm2), offers, eligible, row, score, bound)
    best = scored(s, first, z, row, score[first])
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
        value = scored(s, a, z, row, score[a])
        score[a] = value
        evaluated += 1
        if value > best:
            best = value
            chosen = a
            ties = 1
        elif value == best:
            ties += 1
    s[H_EVALUATED] = evaluated
    return settle(s, s[row], eligible, score, bound, best, ties, chosen)


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
