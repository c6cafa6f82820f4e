"""The refresh of the pooled prior and the automatic scales, in slices that no request can feel.

A refresh goes through the phases SUM (statistics of all arms), SOLVE (the pooled prior), MEASURE (how far arms are
from it, and the noise) and MOVE (every arm takes the new prior and ridges, one after the other). Its place is kept in
the header and its scratch in the block `job`, so it can stop after any slice; an arm is at every moment the exact
answer for the prior and the ridges it has, and takes the new ones together. What an arm learns while it is being
inverted anew waits in a list and is applied before the inverse is taken up.
"""

import math

from banditroute._core.kernels import borrowed, kernel, part, view, whole
from banditroute._core.kernels.derived import (
    drain_all,
    fold,
    loosen,
    rebuilt,
    solve,
)
from banditroute._core.kernels.inverses import INVERTED, spent
from banditroute._core.kernels.layout import (
    A_ERROR,
    A_QUEUED,
    A_SQUARE,
    A_WEIGHT,
    FAR,
    FAR_FREE,
    FIRST_REFRESH,
    FREE,
    FREE2,
    GROWTH,
    H_ARM,
    H_ARMS,
    H_BUCKET,
    H_BUDGET,
    H_COV,
    H_DIM,
    H_DISCOUNT,
    H_GRAM,
    H_JOB,
    H_JOB_ARM,
    H_LEARNED,
    H_LEFT,
    H_LEVEL,
    H_MOMENT,
    H_MOVE,
    H_PACK,
    H_PAD,
    H_PHASE,
    H_POOL_RIDGE,
    H_POOLED,
    H_PRIOR,
    H_QUEUE,
    H_REFRESH,
    H_RIDGE,
    H_RIDGES,
    H_ROOM,
    H_SPAN,
    H_SPENT,
    H_STAGE,
    IDLE,
    MEAN,
    MEASURE,
    MEND,
    MOVE,
    OWN,
    QUEUE,
    REBUILD_ERROR,
    SEVERE,
    SOLVE,
    SUM,
    SUMS,
    TARGET,
    TINY,
    VECTORS,
)
from banditroute._core.kernels.mend import (
    invert,
    mend,
    packed,
    restart_stage,
)
from banditroute._core.kernels.scales import (
    ERRORS,
    FAR_LEVEL,
    FAR_SLOPE,
    HEARD,
    REWARDS,
    SLOPES,
    SQUARES,
    UNITS,
    WEIGHT,
    rescale,
    row_of,
)
from banditroute._core.kernels.tiles import clear, copy, dot, product


@part
def _sum(s, budget):
    """Adds up the statistics of the arms that are left."""
    n, size, room, dim = whole(s, H_PAD), whole(s, H_PACK), whole(s, H_ROOM), whole(s, H_DIM)
    sums, pool, right = view(s, whole(s, H_JOB), SUMS), packed(s), row_of(s, 2)
    vectors = whole(s, H_JOB) + SUMS  # see `row_of` and `packed`
    blank, at = vectors + 4 * n, vectors + VECTORS * n
    clear(row_of(s, 4))
    while s[H_JOB_ARM] < s[H_ARMS] and budget > 0.0:
        a = whole(s, H_JOB_ARM)
        s[H_JOB_ARM] += 1.0
        weight = s[whole(s, H_ARM) + A_WEIGHT * room + a]
        budget -= n
        if weight <= 0.0:
            continue
        sums[WEIGHT] += weight
        g, m = whole(s, H_GRAM) + a * size, whole(s, H_MOMENT) + a * n
        gram, moment = view(s, g, size), view(s, m, n)
        for j in range(size):
            pool[j] += gram[j]
        for j in range(n):
            right[j] += moment[j]
        queued = int(s[whole(s, H_ARM) + A_QUEUED * room + a])
        if queued > 0:
            fold(s, whole(s, H_QUEUE) + a * QUEUE * n, queued, blank, at)
            budget -= 3.0 * size
        budget = spent(budget, 3.0 * size)
    if s[H_JOB_ARM] >= s[H_ARMS]:
        row = 0
        for j in range(dim):
            sums[UNITS] += pool[row + j]
            row += 0 if size == n else 8 * (j // 8) + 8
        _enter(s, SOLVE, -1.0)
    return budget


@part
def _enter(s, phase, arm):
    s[H_PHASE], s[H_JOB_ARM] = phase, arm
    restart_stage(s)


@part
def _pool(s, budget):
    """The pooled prior theta0 = (ridge I + sum S)^-1 sum b.

    Busy arms weigh more in it, on purpose: they are the good ones, and an arm not yet tried is better expected to be
    like those. Weighing arms alike (the generalised least squares mean) multiplied the regret by up to ten.
    """
    n = whole(s, H_PAD)
    sums, ridges = view(s, whole(s, H_JOB), SUMS), row_of(s, 3)
    unit = sums[UNITS] / s[H_DIM] / sums[WEIGHT] if sums[WEIGHT] > 0.0 else 0.0
    ridge = s[H_POOL_RIDGE] * unit if unit > TINY else s[H_RIDGE]
    for j in range(n):
        ridges[j] = ridge
    budget = invert(s, ridges, ridge, budget)
    if s[H_STAGE] >= INVERTED:
        product(packed(s), row_of(s, 2), row_of(s, MEAN))
        _enter(s, MEASURE, 0.0)
        if budget < 0.5 * s[H_BUDGET]:
            budget = 0.0
    return budget


@part
def _measure(s, budget):
    """Adds up, over the arms that are left, what the scales are estimated from."""
    n, size, room, dim = whole(s, H_PAD), whole(s, H_PACK), whole(s, H_ROOM), whole(s, H_DIM)
    sums = view(s, whole(s, H_JOB), SUMS)
    right, theta, seen = row_of(s, 2), row_of(s, 3), row_of(s, 4)
    far, far_free, free, free2 = row_of(s, FAR), row_of(s, FAR_FREE), row_of(s, FREE), row_of(s, FREE2)
    level = view(s, whole(s, H_LEVEL), n)
    first = -1
    for j in range(dim):
        if first < 0 and level[j] != 0.0:
            first = j
    while s[H_JOB_ARM] < s[H_ARMS] and budget > 0.0:
        a = whole(s, H_JOB_ARM)
        s[H_JOB_ARM] += 1.0
        arm = whole(s, H_ARM) + a
        budget -= n
        if s[arm + A_WEIGHT * room] <= 0.0:
            continue
        c, g, m, r = (
            whole(s, H_COV) + a * size,
            whole(s, H_GRAM) + a * size,
            whole(s, H_MOMENT) + a * n,
            whole(s, H_RIDGES) + a * n,
        )
        moment, ridges = view(s, m, n), view(s, r, n)
        prior = row_of(s, MEAN) if s[H_POOLED] > 0.0 else view(s, whole(s, H_PRIOR) + a * n, n)
        for j in range(n):
            right[j] = moment[j] + ridges[j] * prior[j]
        product(view(s, c, size), right, theta)
        product(view(s, g, size), prior, seen)
        queued = whole(s, arm + A_QUEUED * room)
        for i in range(queued):
            o = whole(s, H_QUEUE) + (a * QUEUE + i) * n
            row = view(s, o, n)
            inner = dot(row, prior)
            for j in range(n):
                seen[j] += inner * row[j]
                if j < dim and level[j] == 0.0:
                    sums[SLOPES] += row[j] * row[j]
        error = s[arm + A_SQUARE * room]
        at = 0
        for j in range(dim):
            away, share = theta[j] - prior[j], 1.0 - ridges[j] * s[c + at + j]
            error += prior[j] * (seen[j] - 2.0 * moment[j]) - (moment[j] - seen[j]) * away
            far[j] += away
            far_free[j] += away * share
            free[j] += share
            free2[j] += share * share
            if level[j] != 0.0:
                sums[FAR_LEVEL] += away * away
            else:
                sums[FAR_SLOPE] += away * away
                sums[SLOPES] += s[g + at + j]
            at += 0 if size == n else 8 * (j // 8) + 8
        sums[HEARD] += 1.0
        sums[ERRORS] += max(error, 0.0)
        sums[SQUARES] += s[arm + A_SQUARE * room]
        if s[H_POOLED] == 0.0:
            sums[WEIGHT] += s[arm + A_WEIGHT * room]
        if first >= 0:
            sums[REWARDS] += moment[first] / level[first]
        budget = spent(
            budget, 6.0 * size + 2.0 * n * queued
        )  # two matrices, each once: their memory is what takes time
    if s[H_JOB_ARM] >= s[H_ARMS]:
        rescale(s)
        _enter(s, MOVE, 0.0)
    return budget


@part
def _move(s, budget):
    """Gives the arms that are left the new prior, and the new ridges where they moved."""
    n, size = whole(s, H_PAD), whole(s, H_PACK)
    while s[H_JOB_ARM] < s[H_ARMS] and budget > 0.0:
        a = whole(s, H_JOB_ARM)
        if s[H_MOVE] > 0.0:
            budget = mend(s, a, budget)
            if s[H_STAGE] != 0.0:
                return budget
        elif s[H_POOLED] > 0.0:
            p = whole(s, H_PRIOR) + a * n
            copy(row_of(s, MEAN), view(s, p, n))
            solve(s, a)
            budget -= 2.0 * size
        else:
            budget -= n
        s[H_JOB_ARM] += 1.0
    if s[H_JOB_ARM] >= s[H_ARMS]:
        s[H_PHASE], s[H_JOB_ARM], s[H_LEFT] = IDLE, -1.0, 0.0
        s[H_REFRESH] = max(math.ceil(GROWTH * s[H_LEARNED]), FIRST_REFRESH)
    return budget


@part
def _take(s):
    """Gives the arms that are left their new prior and ridges, and leaves their inverses as they were."""
    n = whole(s, H_PAD)
    for a in range(whole(s, H_JOB_ARM), whole(s, H_ARMS)):
        if s[H_MOVE] > 0.0:
            copy(row_of(s, TARGET), view(s, whole(s, H_RIDGES) + a * n, n))
        if s[H_POOLED] > 0.0:
            copy(row_of(s, MEAN), view(s, whole(s, H_PRIOR) + a * n, n))


@part
def cancel(s):
    """s: buffer -> gives up the refresh that is under way; arms that it has moved stay moved."""
    if s[H_PHASE] != IDLE:
        s[H_PHASE], s[H_JOB_ARM] = IDLE, -1.0
        restart_stage(s)


@part
def _begin(s):
    o = whole(s, H_JOB)
    clear(view(s, o, SUMS))
    clear(row_of(s, 2))
    clear(view(s, o + SUMS + FAR * whole(s, H_PAD), 4 * whole(s, H_PAD)))  # FAR to FREE2
    clear(packed(s))
    _enter(s, SUM if s[H_POOLED] > 0.0 else MEASURE, 0.0)


@part
def _go_on(s, budget):
    while s[H_PHASE] != IDLE and budget > 0.0:
        if s[H_PHASE] == SUM:
            budget = _sum(s, budget)
        elif s[H_PHASE] == SOLVE:
            budget = _pool(s, budget)
        elif s[H_PHASE] == MEASURE:
            budget = _measure(s, budget)
        elif s[H_PHASE] == MOVE:
            budget = _move(s, budget)
        else:
            a = whole(s, H_JOB_ARM)
            budget = mend(s, a, budget)
            if s[H_STAGE] == 0.0:
                s[H_PHASE], s[H_JOB_ARM] = IDLE, -1.0


@kernel
def upkeep(s):
    """s: buffer -> one slice of whatever is due: the refresh, or the inverse of an arm whose rounding grew too large."""
    s = borrowed(s)
    slot = whole(s, H_ARM) + A_ERROR * whole(s, H_ROOM)
    for a in range(whole(s, H_ARMS)):
        if s[slot + a] > SEVERE:
            loosen(s, a)
            rebuilt(s, a)
    budget = s[H_BUDGET] - s[H_SPENT]
    if budget < 0.5 * s[H_BUDGET]:
        return  # this request has done enough
    if s[H_PHASE] == IDLE:
        if s[H_LEARNED] >= s[H_REFRESH]:
            _begin(s)
            budget -= 3.0 * whole(s, H_PACK)
            if budget < 0.5 * s[H_BUDGET]:
                budget = 0.0
        else:
            for a in range(whole(s, H_ARMS)):
                if s[slot + a] > REBUILD_ERROR:
                    r = whole(s, H_RIDGES) + a * whole(s, H_PAD)
                    _enter(s, MEND, a)
                    copy(view(s, r, whole(s, H_PAD)), row_of(s, OWN))
                    break
    _go_on(s, budget)


@kernel
def refresh(s):
    """s: buffer -> a whole refresh from the statistics as they are now; O(N L), and O(N D^3) where ridges move."""
    s = borrowed(s)
    cancel(s)
    drain_all(s)
    _begin(s)
    _go_on(s, math.inf)


@kernel
def advance(s, bucket):
    """s: buffer, bucket: index of the current bucket -> ages the statistics and rebuilds what hangs on them."""
    s = borrowed(s)
    now = s[H_BUCKET]
    if bucket <= now:
        return
    if s[H_PHASE] == MOVE:  # every arm is rebuilt below: those whose turn had not come move with the others
        _take(s)
    cancel(s)
    drain_all(s)
    factor = s[H_DISCOUNT] ** (s[H_SPAN] * (bucket - now))
    n, size, arms, room = whole(s, H_PAD), whole(s, H_PACK), whole(s, H_ARMS), whole(s, H_ROOM)
    g, m = whole(s, H_GRAM), whole(s, H_MOMENT)
    gram, moment = view(s, g, arms * size), view(s, m, arms * n)
    for j in range(gram.size):
        gram[j] *= factor
    for j in range(moment.size):
        moment[j] *= factor
    for a in range(arms):
        arm = whole(s, H_ARM) + a
        s[arm + A_WEIGHT * room] *= factor
        s[arm + A_SQUARE * room] *= factor
    s[H_BUCKET] = bucket
    for a in range(arms):
        loosen(s, a)
        rebuilt(s, a)
    if s[H_LEARNED] >= FIRST_REFRESH and s[H_REFRESH] < math.inf:
        refresh(s)
