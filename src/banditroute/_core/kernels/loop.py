"""The compiled simulation: runs a linear policy from one residency event to the next."""

import math

from banditroute._core.kernels import borrowed, kernel, part
from banditroute._core.kernels.layout import (
    AGED,
    DUE,
    H_ARMS,
    H_BUCKET,
    H_CLOCK,
    H_DISCOUNT,
    H_MIX,
    H_PAD,
    H_PROPENSITY,
    H_SPAN,
    H_WORK,
)
from banditroute._core.kernels.linear import choose, learned
from banditroute._core.kernels.refresh import advance, upkeep

# Slots of the cursor array that `run` moves: feedback learned, controller noise used, forced decisions, code.
C_FEEDBACK, C_NOISE, C_FORCED, C_CODE = 0, 1, 2, 3
DONE, FAULT, NO_POLICY_NOISE, NO_CONTROLLER_NOISE, REFUSED = 0, 1, 2, 3, 4


@kernel
def forced_arm(needs, offers, rate, u):
    """needs, offers: (N,), u in [0, 1) -> forced arm, -1 for none drawn, -2 when nobody eligible needs it.

    One uniform number decides both whether to force and whom: arm a has the share rate needs_a / sum of needs.
    """
    total = 0.0
    for a in range(needs.size):
        if offers[a] < math.inf:
            total += needs[a]
    if total <= 0.0:
        return -2
    if u >= rate:
        return -1
    reached = 0.0
    last = -2
    for a in range(needs.size):
        if offers[a] < math.inf and needs[a] > 0.0:
            last = a
            reached += rate * (needs[a] / total)
            if u < reached:
                return a
    return last


@kernel
def forced_share(needs, offers, rate, arm):
    """needs, offers: (N,) -> probability that a forced decision goes to `arm`."""
    total = 0.0
    for a in range(needs.size):
        if offers[a] < math.inf:
            total += needs[a]
    return rate * (needs[arm] / total) if offers[arm] < math.inf else 0.0


@part
def scored_propensity(s, arm, chosen):
    """s: buffer right after `choose` returned `chosen` -> the propensity that `arm` had in that decision."""
    if arm == chosen:
        return s[H_PROPENSITY]
    n, arms = int(s[H_PAD]), int(s[H_ARMS])
    start = int(s[H_WORK]) + 4 * n + arms
    score = s[start : start + arms]
    best = -math.inf
    eligible = 0
    for a in range(arms):
        best = max(best, score[a])
        if s[start - arms + a] > -math.inf:
            eligible += 1
    ties = 0
    for a in range(arms):
        if score[a] == best:
            ties += 1
    share = s[H_MIX] / eligible
    return share + ((1.0 - s[H_MIX]) / ties if score[arm] == best else 0.0)


@kernel
def run(
    s, contexts, rewards, faults, resident, available, order, due, needs, rate, noise, protected,
    cursors, pending, offers, arms, propensities, hits, start, stop, halt,
):  # fmt: skip
    """contexts: (T, d), rewards: (T, N), faults, resident, needs, pending, offers: (N,) -> index of the next request.

    Serves requests start .. stop - 1 with a constant resident set and learns whatever feedback is due before each:
    ``order`` lists requests by the time ``due`` before which their feedback arrives. ``available`` is (T, N) or
    (0, N), ``protected`` (T,) or (0,). With `halt`, returns right after a fault, for controllers that insert then.
    The code in ``cursors[C_CODE]`` tells why it stopped.
    """
    s, contexts, offers = borrowed(s), borrowed(contexts), borrowed(offers)
    count = faults.size
    free = available.shape[0] == 0  # then the offers of every request are the same
    for a in range(count):
        offers[a] = 0.0 if resident[a] else faults[a]
        free = free and resident[a]
    given = offers[:0] if free else offers
    for t in range(start, stop):
        c = cursors[C_FEEDBACK]
        while c < order.size and due[c] <= t:
            i = order[c]
            code = learned(s, arms[i], contexts[i], rewards[i, arms[i]], 1.0, i)
            if code == AGED:
                advance(s, float(i // int(s[H_SPAN])))
                code = learned(s, arms[i], contexts[i], rewards[i, arms[i]], 1.0, i)
            if code == DUE:
                upkeep(s)
            pending[arms[i]] -= 1.0
            c += 1
        cursors[C_FEEDBACK] = c
        if s[H_DISCOUNT] < 1.0 and t // int(s[H_SPAN]) > s[H_BUCKET]:
            advance(s, float(t // int(s[H_SPAN])))
        force = rate > 0.0 and not (protected.size > 0 and protected[t])
        if force and cursors[C_NOISE] >= noise.size:
            cursors[C_CODE] = NO_CONTROLLER_NOISE
            return t
        if available.shape[0] > 0:
            for a in range(count):
                base = 0.0 if resident[a] else faults[a]
                offers[a] = base if available[t, a] else math.inf
        arm = choose(s, contexts[t], given, True)
        if arm < 0:
            cursors[C_CODE] = NO_POLICY_NOISE if arm == -3 else REFUSED
            return t
        propensity = s[H_PROPENSITY]
        if force:
            drawn = forced_arm(needs, offers, rate, noise[cursors[C_NOISE]])
            if drawn != -2:
                cursors[C_NOISE] += 1
                if drawn >= 0:
                    share = forced_share(needs, offers, rate, drawn)
                    propensity = share + (1.0 - rate) * scored_propensity(s, drawn, arm)
                    needs[drawn] -= 1.0
                    cursors[C_FORCED] += 1
                    arm = drawn
                else:
                    propensity = forced_share(needs, offers, rate, arm) + (1.0 - rate) * propensity
        arms[t] = arm
        propensities[t] = propensity
        hits[t] = resident[arm]
        pending[arm] += 1.0
        if halt and not resident[arm]:
            cursors[C_CODE] = FAULT
            return t + 1
    cursors[C_CODE] = DONE
    return stop


@kernel
def learn_rows(s, arms, contexts, rewards):
    """s: buffer, arms: (n,), contexts: (n, d), rewards: (n,) -> `learn` of every row in order; 0 or a code."""
    s, contexts = borrowed(s), borrowed(contexts)
    for i in range(arms.size):
        code = learned(s, arms[i], contexts[i], rewards[i], 1.0, -1)
        if code == AGED:
            advance(s, float(int(s[H_CLOCK]) // int(s[H_SPAN])))
            code = learned(s, arms[i], contexts[i], rewards[i], 1.0, -1)
        if code == DUE:
            upkeep(s)
        if code < 0:
            return code
    return 0
