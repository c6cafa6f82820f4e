"""The scales of a linear policy, noise, alpha and ridges, from the sums that a refresh has collected."""

import math

from banditroute._core.kernels import part, view, whole
from banditroute._core.kernels.derived import reach
from banditroute._core.kernels.layout import (
    BELIEF,
    COLD,
    DOUBT,
    EVERY,
    FAR,
    FAR_FREE,
    FIRST,
    FIRST_SLOPE,
    FIRST_TAU,
    FREE,
    FREE2,
    H_ALPHA,
    H_ARMS,
    H_AUTO,
    H_AUTO_RIDGE,
    H_CALM,
    H_COLD,
    H_DIM,
    H_FEW,
    H_HIGH,
    H_JOB,
    H_LEVEL,
    H_LEVEL_RIDGE,
    H_LOW,
    H_MOVE,
    H_PAD,
    H_POOLED,
    H_RIDGE,
    H_SAMPLE,
    H_SEEN,
    H_SIGMA2,
    H_TOP,
    HOPE,
    LEAST,
    LOG_SPREAD,
    MATURE,
    MEAN,
    RANGE,
    SUMS,
    TARGET,
    TINY,
    UNKNOWN,
    WIDE,
)

# Sums of a refresh, at the start of the block `job`: squared deviations of levels and slopes, squared errors, weight,
# squared rewards, squared slopes of contexts, rewards, squared components, arms that have answered.
FAR_LEVEL, FAR_SLOPE, ERRORS, WEIGHT, SQUARES, SLOPES, REWARDS, UNITS, HEARD = 0, 1, 2, 3, 4, 5, 6, 7, 8


@part
def row_of(s, k):
    """s: buffer, k: 0 .. 10 -> a vector of the job: TARGET, MEAN, three of scratch, OWN, FIRST, FAR to FREE2."""
    n, o = whole(s, H_PAD), whole(s, H_JOB) + SUMS
    return view(s, o + k * n, n)


@part
def likeliest(far, free, middle, now, share):
    """Variance at a maximum of its likelihood and its prior.

    `far` is the sum of squared deviations, estimated while the variance was taken to be `now`, and `free` how many of
    them the data determine. Of each that is a `share`: its estimate is the deviation, blurred by noise, times `share`.
    The logarithm of the variance has a normal prior around that of `middle`, with standard deviation LOG_SPREAD.
    """
    centre = math.log(middle)
    if not 0.0 < share < 1.0:
        share = 1.0
    count, square, blur = free / share, far / (share * share), now * (1.0 - share) / share
    low, high = centre - 100.0, centre + 100.0
    for _ in range(60):
        value = 0.5 * (low + high)
        own = math.exp(value)
        told = 0.5 * own / (own + blur) * (square / (own + blur) - count)
        if told - (value - centre) / (LOG_SPREAD * LOG_SPREAD) > 0.0:
            low = value
        else:
            high = value
    return math.exp(0.5 * (low + high))


@part
def _apart(s, level, square):
    """s: buffer, level: (D,), square: of it -> levels and slopes that the data determine beyond the pooled prior.

    And the share of a slope that they determine, in the mean over what they do, and how many coefficients in all.

    Of each component the pooled prior took one arm's worth: arms count by what they determine, FREE^2 / FREE2 is their
    number where all determine as much, and one where one arm has all the feedback. That one is at the pooled prior,
    whatever the others are like.

    Beside a level, slopes are then measured around their own mean, not around the prior, and the prior moves there (less
    than one arm's worth is not stretched to one). Its slopes were those of the busiest arms, and what the best arm is good at says nothing of the others; its level stays,
    on purpose.
    """
    dim = whole(s, H_DIM)
    sums, mean = view(s, whole(s, H_JOB), SUMS), row_of(s, MEAN)
    far, far_free, free, free2 = row_of(s, FAR), row_of(s, FAR_FREE), row_of(s, FREE), row_of(s, FREE2)
    levels, slopes, used, all_slopes, twice = 0.0, 0.0, 0.0, 0.0, 0.0
    for j in range(dim):
        if free[j] <= 0.0:
            continue
        own = free[j]
        used += own
        if s[H_POOLED] > 0.0:
            own = max(own - free2[j] / free[j], 0.0)
            if level[j] == 0.0 and square > TINY:
                away = far[j] / max(free[j], 1.0)
                sums[FAR_SLOPE] -= away * (2.0 * far_free[j] - away * free2[j])
                mean[j] += away
        if level[j] != 0.0:
            levels += own
        else:
            slopes += own
            all_slopes += free[j]
            twice += free2[j]
    sums[FAR_SLOPE] = max(sums[FAR_SLOPE], 0.0)
    return levels, slopes, twice / all_slopes if all_slopes > 0.0 else 1.0, used


@part
def _expect_answers(s, weight):
    """How many answers each arm should have by now, and what one with fewer is taken to be worth."""
    s[H_FEW] = math.floor(math.log2(1.0 + weight / (EVERY * s[H_ARMS]))) if s[H_SEEN] > 0.0 else 0.0
    s[H_TOP] = s[H_HIGH] + HOPE * reach(s)


@part
def rescale(s):
    """New noise, alpha and ridges from the sums; see docs/algorithms.md, "Estimated scales"."""
    n, dim = whole(s, H_PAD), whole(s, H_DIM)
    sums = view(s, whole(s, H_JOB), SUMS)
    level = view(s, whole(s, H_LEVEL), n)
    weight = sums[WEIGHT]
    s[H_MOVE] = 0.0
    target, square = row_of(s, TARGET), 0.0
    for j in range(dim):
        square += level[j] * level[j]
    slopes = sums[SLOPES] / weight if weight > 0.0 else 0.0
    sound = (
        sums[FAR_LEVEL] + sums[FAR_SLOPE] + sums[ERRORS] + sums[SQUARES] < math.inf
    )  # else rewards overflowed
    wanted = s[H_AUTO] > 0.0 or s[H_AUTO_RIDGE] > 0.0
    free_level, free_slope, share, used = _apart(s, level, square) if sound else (0.0, 0.0, 1.0, 0.0)
    if sound and wanted and weight > 0.0 and slopes + square > TINY:
        mean = sums[REWARDS] / weight
        power = sums[SQUARES] / weight
        least = 1e-12 * power if power > 0.0 else 1e-12
        variance = max(power - mean * mean, 0.0)
        width = s[H_HIGH] - s[H_LOW] if s[H_SEEN] > 0.0 else math.inf
        width = min(width, RANGE * math.sqrt(variance))
        floor = LEAST * LEAST * width * width
        if sums[HEARD] < 2.0 and s[H_ARMS] > 1.0:  # nothing tells yet how far arms are apart
            variance = max(variance, (UNKNOWN * reach(s)) ** 2)
        total = max(variance, least)
        # While there are hardly more rewards than coefficients, small errors tell little.
        spare = max(weight - used, 0.0)
        noise = (spare * sums[ERRORS] / weight + BELIEF * total) / (spare + BELIEF)
        s[H_SIGMA2] = max(noise, floor, 1e-3 * least)
        if s[H_AUTO] > 0.0:
            wide = WIDE * (0.2 if s[H_SAMPLE] > 0.0 else 1.0)
            age = min(1.0, math.sqrt(MATURE * s[H_ARMS] * dim / weight))
            sigma = math.sqrt(s[H_SIGMA2])
            s[H_ALPHA] = max(s[H_AUTO] * sigma, min(wide * width, DOUBT * sigma) * age)
            s[H_COLD] = COLD * math.sqrt(variance)
            _expect_answers(s, weight)
        s[H_CALM] = 0.0
        if s[H_AUTO_RIDGE] > 0.0:
            middle = FIRST_TAU * FIRST_TAU * total
            ridge, level_ridge = s[H_RIDGE], s[H_LEVEL_RIDGE]
            if slopes > TINY:
                first = FIRST_SLOPE * FIRST_SLOPE * total if square > TINY else middle
                ridge = s[H_SIGMA2] / likeliest(
                    sums[FAR_SLOPE], free_slope, first / slopes, s[H_SIGMA2] / ridge, share
                )
                # Slopes that move a reward less than its noise does would take longer to learn than they are worth; that
                # they are so small is believed as far as the data determine more of them than one arm has.
                if square > TINY and s[H_AUTO] > 0.0 and s[H_SAMPLE] == 0.0:
                    own = 0.0
                    for j in range(dim):
                        own += 1.0 if level[j] == 0.0 else 0.0
                    known = free_slope / (free_slope + own)
                    s[H_CALM] = known * (1.0 - min(1.0, math.sqrt(slopes / ridge)))
            if square > TINY:
                level_ridge = s[H_SIGMA2] / likeliest(sums[FAR_LEVEL], free_level, middle / square, 0.0, 1.0)
            # Where only one kind is there, its ridge is that of the padding too: no pivot may lie below the least of them.
            _aim(
                s,
                ridge if slopes > TINY else level_ridge,
                level_ridge if square > TINY else ridge,
                target,
                level,
            )


@part
def _aim(s, ridge, level_ridge, target, level):
    """Takes other ridges; moving an arm to them costs a cube of D, so only when one of them is off by a fifth."""
    n = whole(s, H_PAD)
    for j in range(n):
        wanted = level_ridge if level[j] != 0.0 else ridge
        if not 0.8 * wanted <= target[j] <= 1.25 * wanted:
            s[H_MOVE] = 1.0
    if s[H_MOVE] > 0.0:
        s[H_RIDGE], s[H_LEVEL_RIDGE] = ridge, level_ridge
        first = row_of(s, FIRST)
        for j in range(n):
            target[j] = level_ridge if level[j] != 0.0 else ridge
            first[j] = 1.0 / target[j]
