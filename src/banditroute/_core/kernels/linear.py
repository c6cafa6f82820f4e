"""Kernels of the linear bandits: scoring, exact pruned argmax, rank-one learning; `layout` tells where things are."""

import math

from banditroute._core.kernels import apart, borrowed, inlined, part, short_kernel, view, whole
from banditroute._core.kernels.contexts import explored, load
from banditroute._core.kernels.derived import drain, first_alpha, squared_width, tighten
from banditroute._core.kernels.layout import (
    A_COUNT,
    A_ERROR,
    A_QUEUED,
    A_RADIUS,
    A_SPREAD,
    A_SQUARE,
    A_TIGHTEN,
    A_WEIGHT,
    AGED,
    BAD_ARM,
    BAD_PRICES,
    BAD_REWARD,
    BAD_WEIGHT,
    DUE,
    EPSILON,
    H_ALPHA,
    H_ARM,
    H_ARMS,
    H_BUCKET,
    H_CLOCK,
    H_COLD,
    H_COV,
    H_CURSOR,
    H_DISCOUNT,
    H_EVALUATED,
    H_FEW,
    H_FIRST,
    H_GRAM,
    H_HIGH,
    H_JOB_ARM,
    H_LATE,
    H_LATE_AT,
    H_LATE_ROWS,
    H_LEARNED,
    H_LEVEL,
    H_LOW,
    H_MIX,
    H_MOMENT,
    H_NOISE,
    H_PACK,
    H_PAD,
    H_PHASE,
    H_PRIOR,
    H_PROPENSITY,
    H_QUEUE,
    H_REFRESH,
    H_RIDGES,
    H_ROOM,
    H_ROWS,
    H_SAMPLE,
    H_SEEN,
    H_SPAN,
    H_SPENT,
    H_STAGE,
    H_THETA,
    H_TOP,
    H_WIDTH,
    H_WORK,
    LARGEST,
    NO_NOISE,
    NONE_ELIGIBLE,
    QUEUE,
    REBUILD_ERROR,
    TIGHTEN_DIM,
)
from banditroute._core.kernels.tiles import add_outer, dot, means, product


@inlined
def offered(s, offers):
    """s: buffer, offers: (N,) or (0,) -> number of eligible arms, or a code."""
    arms = whole(s, H_ARMS)
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
def bounds(s, z, norm, offers, eligible, row, score, bound, share):
    """s: buffer, z: (D,), score, bound: (N,) -> mean less price, and an upper bound of the score, of every arm.

    The bound is mean + the bonus of the largest width, ||x|| radius, - price, plus a slack for rounding. Returns the arm
    with the best mean less price: tried first, it rules out more of the others than the one with the largest bound.
    """
    arms, n = whole(s, H_ARMS), whole(s, H_PAD)
    t, k = whole(s, H_THETA), whole(s, H_ARM)
    room = whole(s, H_ROOM)
    spread = view(s, k + A_SPREAD * room, arms)
    radius = view(s, k + A_RADIUS * room, arms)
    alpha, cold = s[H_ALPHA], s[H_COLD]
    slack = 8.0 * (n + 8.0) * EPSILON
    means(view(s, t, arms * n), z, score)
    if s[H_FEW] > 0.0:
        weight = view(s, k + A_WEIGHT * room, arms)
        for a in range(arms):
            if weight[a] < s[H_FEW]:
                score[a] = max(score[a], s[H_TOP])
    if offers.size > 0:
        least = math.inf
        for a in range(arms):
            least = min(least, offers[a])
        for a in range(arms):
            score[a] -= offers[a] - least  # an equal price changes nothing, to the last bit
    if s[H_SAMPLE] > 0.0:
        draw = view(s, row + 1, arms)
        for a in range(arms):
            width = norm * spread[a] * radius[a]
            reach = max(draw[a], 0.0) * (alpha * width + cold * min(share * width * width, 1.0))
            bound[a] = score[a] + reach + slack * (abs(score[a]) + reach)
    else:
        for a in range(arms):
            width = norm * spread[a] * radius[a]
            reach = alpha * width + cold * min(share * width * width, 1.0)
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


@inlined
def first_share(s, z):
    """s: buffer, z: (D,) of `explored` -> one over the squared width of an arm of which nothing is known, 0 where no bonus needs it."""
    if s[H_COLD] == 0.0:
        return 0.0
    n, o = whole(s, H_PAD), whole(s, H_FIRST)
    first = view(s, o, n)
    total = 0.0
    for j in range(n):
        total += first[j] * z[j] * z[j]
    return 1.0 / total if total > 0.0 else 0.0


@part
def exact_score(s, a, z, row, mean, share):
    """s: buffer, a: arm, z: (D,) of `explored`, mean: its mean less price -> its exact score."""
    bonus, cold = s[H_ALPHA], s[H_COLD]
    if s[H_SAMPLE] > 0.0:
        bonus *= s[row + 1 + a]
        cold *= s[row + 1 + a]
    if bonus == 0.0 and cold == 0.0:
        return mean
    width = s[whole(s, H_ARM) + A_SPREAD * whole(s, H_ROOM) + a] * math.sqrt(squared_width(s, a, z))
    return mean + (bonus * width + cold * min(share * width * width, 1.0))


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
    norm2 = load(s, x)
    if norm2 < 0.0:
        return int(norm2)
    if s[H_CURSOR] >= s[H_ROWS]:
        return NO_NOISE  # of a request that was found good
    arms, n, w = whole(s, H_ARMS), whole(s, H_PAD), whole(s, H_WORK)
    z, y = view(s, w, n), view(s, w + 2 * n, n)
    explored(s, z, y)
    bound = view(s, w + 4 * n, arms)
    score = view(s, w + 4 * n + arms, arms)
    row = whole(s, H_NOISE) + whole(s, H_CURSOR) * whole(s, H_WIDTH)
    s[H_CURSOR] += 1.0
    share = first_share(s, y)
    first = bounds(s, z, math.sqrt(norm2), offers, eligible, row, score, bound, share)
    best = exact_score(s, first, y, row, score[first], share)
    score[first] = best
    chosen = first
    ties = min(eligible, 1)  # of one type from here on: `settle` is compiled for each
    evaluated = 1
    for a in range(arms):
        if a == first or bound[a] == -math.inf:
            continue
        if prune and bound[a] < best:
            score[a] = -math.inf
            continue
        value = exact_score(s, a, y, row, score[a], share)
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
    arm = choose(s, x, view(s, 0, 0), True)
    return arm + whole(s, H_ARMS) if arm >= 0 and s[H_PROPENSITY] != 1.0 else arm


@short_kernel
def select_offered(s, x, offers):
    """s: buffer, x: (d,), offers: (N,) prices, infinite where ineligible -> as `select`."""
    arm = choose(s, x, offers, True)
    return arm + whole(s, H_ARMS) if arm >= 0 and s[H_PROPENSITY] != 1.0 else arm


@inlined
def _notice(s, z, reward):
    """s: buffer, z: (D,) -> remembers the range of the rewards and which components of contexts never change."""
    n, o = whole(s, H_PAD), whole(s, H_LEVEL)
    level = view(s, o, n)
    if s[H_SEEN] == 0.0:
        s[H_SEEN], s[H_LOW], s[H_HIGH] = 1.0, reward, reward
        for j in range(n):
            level[j] = z[j]
    s[H_LOW], s[H_HIGH] = min(s[H_LOW], reward), max(s[H_HIGH], reward)
    first_alpha(s)
    for j in range(n):
        level[j] = level[j] if level[j] == z[j] else 0.0


@inlined
def _absorb(s, a, z, v, norm2, reward, weight):
    """s: buffer, a: arm, z: (D,), v: (D,) scratch -> the rank-one step of one reward."""
    n, size, room = whole(s, H_PAD), whole(s, H_PACK), whole(s, H_ROOM)
    t, c, g, m = (
        whole(s, H_THETA) + a * n,
        whole(s, H_COV) + a * size,
        whole(s, H_GRAM) + a * size,
        whole(s, H_MOMENT) + a * n,
    )
    arm = whole(s, H_ARM) + a
    cov, gram, theta, moment = view(s, c, size), view(s, g, size), view(s, t, n), view(s, m, n)
    product(cov, z, v)
    q = max(weight * dot(z, v), 0.0)
    gain = weight * (reward - dot(theta, z)) / (1.0 + q)
    for j in range(n):
        moment[j] += weight * reward * z[j]
    if size == n:
        p, r = whole(s, H_PRIOR) + a * n, whole(s, H_RIDGES) + a * n
        for j in range(n):
            gram[j] += weight * z[j] * z[j]
            cov[j] = 1.0 / (s[r + j] + gram[j])
            theta[j] = cov[j] * (moment[j] + s[r + j] * s[p + j])
        return
    for j in range(n):
        theta[j] += gain * v[j]
    scale = math.sqrt(weight / (1.0 + q))
    for j in range(n):
        v[j] *= scale
    add_outer(cov, v, -1.0)
    queued = whole(s, arm + A_QUEUED * room)
    o = whole(s, H_QUEUE) + (a * QUEUE + queued) * n
    row, root = view(s, o, n), math.sqrt(weight)
    for j in range(n):
        row[j] = root * z[j]
    if a == whole(s, H_JOB_ARM) and s[H_STAGE] > 0.0:
        _wait(s, row)
    s[arm + A_QUEUED * room] = queued + 1.0
    s[H_SPENT] = 0.0
    if queued + 1 == QUEUE:
        drain(s, a)
        s[H_SPENT] = 3.0 * size
    # What rounding can do to x' cov x: relative to the largest width that x could have, not to its own.
    radius = s[arm + A_RADIUS * room]
    s[arm + A_ERROR * room] += (1.0 + weight * norm2 * radius * radius) * EPSILON
    count = s[arm + A_COUNT * room]
    if n <= TIGHTEN_DIM and count >= 4.0 * n and count >= s[arm + A_TIGHTEN * room]:
        tighten(s, a)


@apart
def _wait(s, row):
    """s: buffer, row: (D,) context of the arm that is being inverted anew -> waits for the end of that."""
    n, late = row.size, whole(s, H_LATE)
    if late >= whole(s, H_LATE_ROWS):
        s[H_STAGE] = 0.0  # too many: begin again
        return
    o = whole(s, H_LATE_AT) + late * n
    for j in range(n):
        s[o + j] = row[j]
    s[H_LATE] = late + 1.0


@part
def learned(s, a, x, reward, weight, at):
    """As `learn`, for kernels."""
    s, x = borrowed(s), borrowed(x)
    room = whole(s, H_ROOM)
    if a < 0 or a >= whole(s, H_ARMS):
        return BAD_ARM
    if not abs(reward) <= LARGEST:
        return BAD_REWARD
    if not (weight > 0.0 and weight <= LARGEST):
        return BAD_WEIGHT
    norm2 = load(s, x)
    if norm2 < 0.0:
        return int(norm2)
    if at < 0:
        at = whole(s, H_CLOCK)
    if s[H_DISCOUNT] < 1.0:
        bucket = float(at // whole(s, H_SPAN))
        if bucket > s[H_BUCKET]:
            return AGED
        if bucket < s[H_BUCKET]:
            weight *= s[H_DISCOUNT] ** (s[H_SPAN] * (s[H_BUCKET] - bucket))
    s[H_CLOCK] = max(s[H_CLOCK], at + 1.0)
    n, w = whole(s, H_PAD), whole(s, H_WORK)
    z, v = view(s, w, n), view(s, w + n, n)
    _notice(s, z, reward)
    arm = whole(s, H_ARM) + a
    s[arm + A_COUNT * room] += 1.0
    s[arm + A_WEIGHT * room] += weight
    s[arm + A_SQUARE * room] += weight * reward * reward
    s[H_LEARNED] += 1.0
    if weight > 0.0:
        _absorb(s, a, z, v, norm2, reward, weight)
    due = s[H_PHASE] > 0.0 or s[H_LEARNED] >= s[H_REFRESH] or s[arm + A_ERROR * room] > REBUILD_ERROR
    return DUE if due else 0


@short_kernel
def learn(s, a, x, reward, weight, at):
    """s: buffer, a: arm, x: (d,), at: clock index of the decision or < 0 for the next -> 0, DUE or a code.

    DUE asks for a call of `upkeep`; AGED, with nothing changed, for `advance` to the bucket of `at`.
    """
    return learned(s, a, x, reward, weight, at)
