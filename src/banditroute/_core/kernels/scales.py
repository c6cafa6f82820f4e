"""The scales of a linear policy, noise, alpha and ridges, from the sums that a refresh has collected."""

import math

from banditroute._core.kernels import part, view, whole
from banditroute._core.kernels.derived import reach
from banditroute._core.kernels.layout import (
    COLD,
    EVERY,
    FIRST,
    FIRST_TAU,
    H_ALPHA,
    H_ARMS,
    H_AUTO,
    H_AUTO_RIDGE,
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
    RANGE,
    SUMS,
    TARGET,
    TINY,
    UNKNOWN,
    WIDE,
)

# Sums of a refresh, at the start of the block `job`: deviations and determined coefficients of levels and slopes,
# squared errors, weight, squared rewards, squared slopes of contexts, rewards, squared components; squares of what each
# arm determines of levels and of slopes; arms that have answered.
FAR_LEVEL, FREE_LEVEL, FAR_SLOPE, FREE_SLOPE, ERRORS, WEIGHT = 0, 1, 2, 3, 4, 5
SQUARES, SLOPES, REWARDS, UNITS = 6, 7, 8, 9
OWN_LEVEL, OWN_SLOPE, HEARD = 10, 11, 12


@part
def row_of(s, k):
    """s: buffer, k: 0 .. 6 -> a vector of the job: TARGET, MEAN, three of scratch, OWN, FIRST."""
    n, o = whole(s, H_PAD), whole(s, H_JOB) + SUMS
    return view(s, o + k * n, n)


@part
def likeliest(far, free, middle):
    """Variance at the maximum of its likelihood and its prior.

    `far` is the sum of `free` squared deviations of that variance; the logarithm of the variance has a normal prior
    around that of `middle`, with standard deviation LOG_SPREAD. The derivative falls strictly: bisection finds its root.
    """
    centre = math.log(middle)
    low, high = centre - 100.0, centre + 100.0
    for _ in range(60):
        value = 0.5 * (low + high)
        if 0.5 * far * math.exp(-value) - 0.5 * free - (value - centre) / (LOG_SPREAD * LOG_SPREAD) > 0.0:
            low = value
        else:
            high = value
    return math.exp(0.5 * (low + high))


@part
def _free(s, total, squares):
    """Coefficients that the data determine, less those that the pooled prior took: a share of one over the number of arms.

    Arms count by what they determine: total^2 / squares is their number where all determine as much, and one where one
    arm has all the feedback. That one is at the pooled prior, whatever the others are like.
    """
    if s[H_POOLED] == 0.0 or total <= 0.0:
        return max(total, 0.0)
    return max(total - squares / total, 0.0)


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
        s[H_SIGMA2] = max(sums[ERRORS] / weight, floor, 1e-3 * least)
        if s[H_AUTO] > 0.0:
            share = WIDE * (0.2 if s[H_SAMPLE] > 0.0 else 1.0)
            age = min(1.0, math.sqrt(MATURE * s[H_ARMS] * dim / weight))
            s[H_ALPHA] = max(s[H_AUTO] * math.sqrt(s[H_SIGMA2]), share * width * age)
            s[H_COLD] = COLD * math.sqrt(variance)
            _expect_answers(s, weight)
        if s[H_AUTO_RIDGE] > 0.0:
            middle = FIRST_TAU * FIRST_TAU * total
            ridge, level_ridge = s[H_RIDGE], s[H_LEVEL_RIDGE]
            if slopes > TINY:
                ridge = s[H_SIGMA2] / likeliest(
                    sums[FAR_SLOPE], _free(s, sums[FREE_SLOPE], sums[OWN_SLOPE]), middle / slopes
                )
            if square > TINY:
                level_ridge = s[H_SIGMA2] / likeliest(
                    sums[FAR_LEVEL], _free(s, sums[FREE_LEVEL], sums[OWN_LEVEL]), middle / square
                )
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
