"""Diag-LinUCB on a cluster-item graph: only the edges of the active clusters are read or written.

One float64 buffer ``s`` holds everything, so that a call passes one array and the request. After the header
(``H_*``) come blocks at the offsets it names, for C clusters and room for E edges:

=========== ======= ======= =============================================================================
``first``   (C,)    int64   first edge of each cluster; its edges are contiguous, ascending by item
``size``    (C,)    int64   number of edges of each cluster
``items``   (E,)    uint32  item of each edge
``view``    (E, 2)  float64 derived: theta, spread; what a decision needs of an edge
``truth``   (E, 3)  float64 d, b, s = sums of w^2, w reward, w; the same for any order of feedback
``noise``   (R,)    float64 prefetched uniform numbers, two a decision
``mark``    (C,)    int64   scratch; never cleared
``seen``    (E,)    uint32  scratch: candidates
``sums``    (E, 2)  float64 scratch: their sums of w theta and of w^2 spread (or w spread)
``score``   (E,)    float64 scratch; ``pool`` likewise
``table``   (2^B,)  uint32  scratch: hash table, 2^B > 4 E
=========== ======= ======= =============================================================================

``H_SQUARED`` says which estimator: b / d with width sqrt(sum w^2 / d), or b / s with width sum w sqrt(d) / s.
"""

import numpy as np

from banditroute._core.kernels import kernel

# fmt: off
H_CLUSTERS, H_ROOM, H_TABLE_SIZE = 0, 1, 2           # C, E, 2^B
H_SQUARED, H_PRECISION, H_COUNT = 3, 4, 5            # estimator, prior precision, number of items
H_FIRST, H_SIZE, H_ITEMS, H_VIEW, H_TRUTH = 6, 7, 8, 9, 10
H_NOISE, H_MARK, H_SEEN, H_SUMS, H_SCORE, H_POOL, H_TABLE = 11, 12, 13, 14, 15, 16, 17
HEADER = 24
# fmt: on

LARGEST = 1e6  # weights above are refused
TINY = 1e-150  # weights up to here count as zero: their squares would vanish
EMPTY = 0xFFFFFFFF  # no place; also the item of an edge that is to be removed


@kernel
def floats(s, block, size):
    # s (B,) -> (size,) f8 from the start of the block
    at = int(s[block])
    return s[at : at + size]


@kernel
def ints(s, block):
    # s (B,) -> (C,) i8
    return floats(s, block, int(s[H_CLUSTERS])).view(np.int64)


@kernel
def words(s, block, size):
    # s (B,) -> (size,) u4, size even
    return floats(s, block, size >> 1).view(np.uint32)


@kernel
def rows(s, block, width):
    # s (B,) -> (E, width) f8
    room = int(s[H_ROOM])
    return floats(s, block, width * room).reshape((room, width))


@kernel
def refused(s, clusters, weights):
    # clusters i8, weights (K,) -> whether clusters are out of range or repeated, or weights out of range
    mark = ints(s, H_MARK)
    if clusters.shape[0] == 0 or clusters.shape[0] != weights.shape[0]:
        return True
    for i in range(clusters.shape[0]):
        c = clusters[i]
        if not (0 <= c < mark.shape[0] and 0.0 <= weights[i] <= LARGEST):
            return True
        # A sparse set: an old mark counts only if the place it names holds this cluster.
        p = mark[c]
        if 0 <= p < i and clusters[p] == c:
            return True
        mark[c] = i
    return False


@kernel
def gather(s, clusters, weights):
    # clusters i8, weights (K,) -> n; the first n rows of seen and sums hold the candidates
    room = int(s[H_ROOM])
    squared = s[H_SQUARED] != 0.0
    first, size = ints(s, H_FIRST), ints(s, H_SIZE)
    items, view = words(s, H_ITEMS, room), rows(s, H_VIEW, 2)
    seen, sums = words(s, H_SEEN, room), rows(s, H_SUMS, 2)
    total = 0
    for i in range(clusters.shape[0]):
        if weights[i] > TINY:
            total += size[clusters[i]]
    # The union is a hash table that fits the cache, a quarter full at most. At 1e6 edges and items, with
    # 5 x 2000 active ones that vary, it takes 3.8 ns an edge; a place for every item took 4.9 ns (cache
    # misses), signed integers 0.5 ns more (tests for negative indices), selects for the branch 0.6 ns more.
    bits = 1
    while (4 * total) >> bits > 0:
        bits += 1
    count = int(s[H_COUNT])
    direct = count <= 1 << bits  # a place for every item is no larger: 11 against 20 ns with all edges active
    table = words(s, H_TABLE, int(s[H_TABLE_SIZE]))[: count if direct else 1 << bits]
    table[:] = EMPTY
    empty, one, shift, last = np.uint64(EMPTY), np.uint64(1), np.uint64(32 - bits), np.uint64((1 << bits) - 1)
    factor, low_half = np.uint64(2654435769), np.uint64(0xFFFFFFFF)
    n = np.uint64(0)
    for i in range(clusters.shape[0]):
        w = weights[i]
        if w <= TINY:
            continue
        g = w * w if squared else w
        a = first[clusters[i]]
        z = a + size[clusters[i]]
        part = items[a:z]
        stat = view[a:z]
        for e in range(z - a):
            j = part[e]
            h = np.uint64(j) if direct else ((np.uint64(j) * factor) & low_half) >> shift
            p = np.uint64(table[h])
            while p != empty and not direct and seen[p] != j:
                h = (h + one) & last
                p = np.uint64(table[h])
            if p == empty:
                table[h] = n
                seen[n] = j
                sums[n, 0] = w * stat[e, 0]
                sums[n, 1] = g * stat[e, 1]
                n += one
            else:
                sums[p, 0] += w * stat[e, 0]
                sums[p, 1] += g * stat[e, 1]
    return np.int64(n)


@kernel
def descend(a):
    # a (n,) sorted in place, largest first; n is small
    for i in range(1, a.shape[0]):
        x = a[i]
        j = i
        while j > 0 and a[j - 1] < x:
            a[j] = a[j - 1]
            j -= 1
        a[j] = x


@kernel
def largest(score, k, a):
    # score (n,), 1 <= k <= n; a (n,): scratch -> the k-th largest score
    # A heap of k took 0.5 (k = 1) to 50 ns a candidate (k = n / 4), nearly all of it mispredicted branches; this
    # takes 0.7 to 4 ns: what passes a threshold guessed from 16 scores, then quickselect without branches.
    n, m = score.shape[0], 0
    if k == 1:
        best, other = score[0], score[n - 1]  # two chains: a comparison need not wait for the last one
        for i in range(1, n, 2):
            best = max(best, score[i - 1])
            other = max(other, score[i])
        return max(best, other)
    if n >= 64 and 4 * k <= n:
        for i in range(16):
            a[i] = score[i * (n // 16)]
        descend(a[:16])
        pivot = a[1 + 16 * k // n]
        for i in range(n):
            a[m] = score[i]
            m += score[i] > pivot
    if m < k:
        a[:n] = score
        m = n
    low, high = 0, m
    while high - low > 16:
        step = (high - low) // 8
        x, y, z = a[low + step], a[low + 4 * step], a[low + 7 * step]
        pivot = max(min(x, y), min(max(x, y), z))
        m = low
        for i in range(low, high):
            x = a[i]
            a[i], a[m] = a[m], x
            m += x > pivot
        if k - 1 < m:
            high = m
            continue
        low = m
        for i in range(m, high):
            x = a[i]
            a[i], a[low] = a[low], x
            low += x == pivot
        if k - 1 < low:
            return pivot
    descend(a[low:high])
    return a[k - 1]


@kernel
def rank(s, n, k, alpha):
    # sums (n, 2), k <= n -> score (n,); returns the k-th score, how many are above it, how many equal it
    sums = rows(s, H_SUMS, 2)
    score = floats(s, H_SCORE, n)
    if alpha == 0.0:  # the mean alone, also where the width is infinite
        for i in range(n):
            score[i] = sums[i, 0]
    elif s[H_SQUARED] != 0.0:
        for i in range(n):
            score[i] = sums[i, 0] + alpha * np.sqrt(sums[i, 1])
    else:
        for i in range(n):
            score[i] = sums[i, 0] + alpha * sums[i, 1]
    least = largest(score, k, floats(s, H_POOL, n))
    above = equal = 0
    for i in range(n):
        above += score[i] > least
        equal += score[i] == least
    return least, above, equal


@kernel
def pick(s, clusters, weights, k, alpha, at):
    # clusters i8, weights (K,); at: cursor in the noise -> item, propensity; item -1: refused, -2: none there
    if refused(s, clusters, weights):
        return -1, 0.0
    n = gather(s, clusters, weights)
    if n == 0:
        return -2, 0.0
    k = min(k, n)
    least, above, equal = rank(s, n, k, alpha)
    seen, score = words(s, H_SEEN, int(s[H_ROOM])), floats(s, H_SCORE, n)
    noise = floats(s, H_NOISE, at + 2)
    place = min(int(noise[at] * k), k - 1)
    if place < above:
        for i in range(n):
            if score[i] > least:
                if place == 0:
                    return np.int64(seen[i]), 1.0 / k
                place -= 1
    # All that tie at the k-th score have equal shares in the places left.
    place = min(int(noise[at + 1] * equal), equal - 1)
    for i in range(n):
        if score[i] == least:
            if place == 0:
                return np.int64(seen[i]), (k - above) / (float(k) * equal)
            place -= 1
    return -2, 0.0


@kernel
def slate(s, clusters, weights, k, alpha, noise, items, scores):
    # noise (k,) -> items i8, scores (k,): the top k in random order; returns how many, or -1: refused
    if refused(s, clusters, weights):
        return -1
    n = gather(s, clusters, weights)
    if n == 0:
        return 0
    k = min(k, n)
    least, above, equal = rank(s, n, k, alpha)
    seen, score = words(s, H_SEEN, int(s[H_ROOM])), floats(s, H_SCORE, n)
    ties = words(s, H_TABLE, int(s[H_TABLE_SIZE]))  # has served, and is longer than n
    m = t = 0
    for i in range(n):
        if score[i] > least:
            items[m] = i
            m += 1
        elif score[i] == least:
            ties[t] = i
            t += 1
    # Two partial shuffles with k numbers in all: which ties get in, and an order that favours nobody.
    for i in range(k - above):
        p = min(i + int(noise[i] * (equal - i)), equal - 1)
        items[above + i] = ties[p]
        ties[p] = ties[i]
    for i in range(above):
        p = min(i + int(noise[k - above + i] * (above - i)), above - 1)
        items[i], items[p] = items[p], items[i]
    for i in range(k):
        scores[i] = score[items[i]]
        items[i] = seen[items[i]]
    return k


@kernel
def derived(d, b, s, precision, squared):
    # sums of one edge -> theta, spread; without evidence the mean is zero and the width infinite
    p = d + precision
    q = p if squared else s + precision
    if p <= 0.0 or q <= 0.0:
        return 0.0, np.inf
    return b / q, (1.0 / p if squared else np.sqrt(p) / q)


@kernel
def derive(s):
    # s (B,) -> view of every edge from its truth, of gaps too
    truth, view = rows(s, H_TRUTH, 3), rows(s, H_VIEW, 2)
    for e in range(truth.shape[0]):
        d, b, w = truth[e, 0], truth[e, 1], truth[e, 2]
        view[e, 0], view[e, 1] = derived(d, b, w, s[H_PRECISION], s[H_SQUARED] != 0.0)


@kernel
def locate(cluster, item, first, size, items):
    # first, size (C,) i8; items (E,) u4 -> place of the edge, or -1
    low = first[cluster]
    end = low + size[cluster]
    high = end
    while low < high:
        middle = (low + high) >> 1
        if items[middle] < item:
            low = middle + 1
        else:
            high = middle
    return low if low < end and items[low] == item else -1


@kernel
def locate_rows(s, clusters, chosen, places):
    # clusters, chosen (n,) i8 -> places (n,) i8
    first, size, items = ints(s, H_FIRST), ints(s, H_SIZE), words(s, H_ITEMS, int(s[H_ROOM]))
    for i in range(clusters.shape[0]):
        places[i] = locate(clusters[i], chosen[i], first, size, items)


@kernel
def credit(s, clusters, weights, item, reward, weight):
    # clusters i8, weights (K,) -> number of edges that learned, or -1: refused and nothing written
    if refused(s, clusters, weights):
        return -1
    first, size, items = ints(s, H_FIRST), ints(s, H_SIZE), words(s, H_ITEMS, int(s[H_ROOM]))
    truth, view = rows(s, H_TRUTH, 3), rows(s, H_VIEW, 2)
    precision, squared = s[H_PRECISION], s[H_SQUARED] != 0.0
    count = 0
    for i in range(clusters.shape[0]):
        w = weights[i]
        if w <= TINY:
            continue
        e = locate(clusters[i], item, first, size, items)
        if e < 0:
            continue
        truth[e, 0] += weight * w * w
        truth[e, 1] += weight * w * reward
        truth[e, 2] += weight * w
        view[e, 0], view[e, 1] = derived(truth[e, 0], truth[e, 1], truth[e, 2], precision, squared)
        count += 1
    return count


@kernel
def credit_rows(s, chosen, clusters, weights, rewards, weight, learned):
    # chosen i8, rewards, weight (n,); clusters i8, weights (n, K) -> learned (n,) b1; a refused row, or -1
    for i in range(chosen.shape[0]):
        if refused(s, clusters[i], weights[i]):
            return i
    for i in range(chosen.shape[0]):
        learned[i] = credit(s, clusters[i], weights[i], chosen[i], rewards[i], weight[i]) > 0
    return -1


@kernel
def move(e, put, items, truth, view):
    # items (E,) u4, truth (E, 3), view (E, 2) -> edge e copied to another place
    items[put] = items[e]
    truth[put, 0], truth[put, 1], truth[put, 2] = truth[e, 0], truth[e, 1], truth[e, 2]
    view[put, 0], view[put, 1] = view[e, 0], view[e, 1]


@kernel
def widen(s, c, fresh):
    # fresh (m,) i8: items new to the cluster, ascending, for which there is room -> edges without evidence
    first, size, items = ints(s, H_FIRST), ints(s, H_SIZE), words(s, H_ITEMS, int(s[H_ROOM]))
    truth, view = rows(s, H_TRUTH, 3), rows(s, H_VIEW, 2)
    theta, spread = derived(0.0, 0.0, 0.0, s[H_PRECISION], s[H_SQUARED] != 0.0)
    e = first[c] + size[c] - 1
    size[c] += fresh.shape[0]
    put = first[c] + size[c] - 1
    f = fresh.shape[0] - 1
    while f >= 0:
        if e >= first[c] and items[e] > fresh[f]:
            move(e, put, items, truth, view)
            e -= 1
        else:
            items[put] = fresh[f]
            truth[put, 0], truth[put, 1], truth[put, 2] = 0.0, 0.0, 0.0
            view[put, 0], view[put, 1] = theta, spread
            f -= 1
        put -= 1


@kernel
def sweep(s, clusters, live):
    # clusters (m,) i8; live (N,) u1 -> their edges closed up over EMPTY and over items that do not live
    first, size, items = ints(s, H_FIRST), ints(s, H_SIZE), words(s, H_ITEMS, int(s[H_ROOM]))
    truth, view = rows(s, H_TRUTH, 3), rows(s, H_VIEW, 2)
    for c in clusters:
        put = first[c]
        for e in range(first[c], first[c] + size[c]):
            if items[e] != EMPTY and live[items[e]] != 0:
                move(e, put, items, truth, view)
                put += 1
        size[c] = put - first[c]
