"""The residency objective: greedy and 1-swap maximisation of facility location less load prices.

With utilities u (n contexts by N arms) and floor A_s = max_j(u_sj - fault_j), a set C is worth sum_s
max(A_s, max_{i in C} u_si) - sum_s A_s - sum_{i in C} price_i. Values here are sums over contexts, not
means, so prices arrive multiplied by n; they are zero for arms that are resident already or pinned.

A set matters to a context through its best and second best member only, and a move changes these in few
contexts. So the gains of all arms, and of all swaps, are kept up to date context by context over contiguous
rows of U: no transpose, nothing evaluated twice, and every sum runs in the order of the contexts whatever
the width of the vector unit. Tried before: lazy greedy over arm-major utilities (1.5-4.2 ms at N = 500,
K = 64, n = 2048 plus the transpose, against 1.4-2.0), and swaps that accept the first improvement (43 of them
where the best improvement needs 29, each pass bound by memory).

Shared arguments (nothing is allocated, see `workspace`; D is at least the size of every set that fits):

U (n, N) utilities; price (N,) >= 0; sizes (N,) > 0; standing (N,) int8: 2 pinned, 1 resident before, 0 new;
capacity in the unit of sizes; tol: a move must win more, well above rounding (1e-10 n times the scale of
the values) or moves may cycle; inside (N,) bool: the set, changed in place; rows (3, n): floor, best,
second best; holders (2, n) int64: slots of the members holding best and second best, -1 for the floor;
members (D,) int64: arm of each slot; arms (2, N) and shared (D, N + 1): scratch.

Values within tol are tied; ties go to the higher standing, then to the lower index.
"""

from typing import Any

import numpy as np

from banditroute._core.kernels import kernel


def workspace(n: int, N: int, D: int) -> tuple[Any, ...]:
    """Allocate for n contexts, N arms and sets of at most D the last six shared arguments."""
    rows, holders = np.empty((3, n)), np.empty((2, n), np.int64)
    return np.zeros(N, np.bool_), rows, holders, np.empty(D, np.int64), np.empty((2, N)), np.empty((D, N + 1))


@kernel
def floor_values(U, faults, floor):
    """U (n, N), faults (N,) -> floor (n,): the value of every context with nothing resident."""
    n, N = U.shape
    for s in range(n):
        row = U[s]
        a = b = c = d = row[0] - faults[0]  # four chains: a single maximum waits for itself at every step
        for j in range(0, N - 3, 4):
            a = max(a, row[j] - faults[j])
            b = max(b, row[j + 1] - faults[j + 1])
            c = max(c, row[j + 2] - faults[j + 2])
            d = max(d, row[j + 3] - faults[j + 3])
        for j in range(N - N % 4, N):
            a = max(a, row[j] - faults[j])
        floor[s] = max(max(a, b), max(c, d))


@kernel
def list_members(inside, members):
    """Write the set `inside` (N,) bool to members (D,) in index order; return its size."""
    m = 0
    for i in range(inside.shape[0]):
        if inside[i]:
            members[m] = i
            m += 1
    return m


@kernel
def used_room(sizes, inside):
    """Of sizes (N,) and the set `inside` (N,) -> room taken."""
    used = 0.0
    for i in range(sizes.shape[0]):
        if inside[i]:
            used += sizes[i]
    return used


@kernel
def raise_best(U, inside, rows, members):
    """U (n, N), inside (N,), rows (3, n), members (D,): best = max(floor, members)."""
    m = list_members(inside, members)
    floor, best = rows[0], rows[1]
    for s in range(U.shape[0]):
        row, value = U[s], floor[s]
        for k in range(m):
            value = max(value, row[members[k]])
        best[s] = value


@kernel
def add_gains(U, best, gains):
    """U (n, N), best (n,) -> gains (N,): sum over contexts of max(u - best, 0)."""
    n, N = U.shape
    for j in range(N):
        gains[j] = 0.0
    for s in range(n):
        row, value = U[s], best[s]
        for j in range(N):
            gains[j] += max(row[j] - value, 0.0)


@kernel
def add(U, price, sizes, standing, capacity, tol, inside, rows, members, arms):
    """Shared arguments -> arms added: greedy by net gain per size, on top of `inside`, until nothing fits or pays.

    A new arm must gain more than tol net of its price; one resident before stays in free room even for nothing.
    """
    n, N = U.shape
    best, gains = rows[1], arms[0]
    used = used_room(sizes, inside)
    least = np.inf
    for j in range(N):
        if not inside[j]:
            least = min(least, sizes[j])
    if used + least > capacity:  # the usual case after a swap: spare the pass over U
        return 0
    raise_best(U, inside, rows, members)
    add_gains(U, best, gains)
    added = 0
    while True:
        pick, top = -1, 0.0
        for j in range(N):
            if not inside[j] and used + sizes[j] <= capacity:
                net = gains[j] - price[j]
                if standing[j] > 0 or net > tol:
                    ahead = net - top * sizes[j]
                    if pick < 0 or ahead > tol or (ahead >= -tol and standing[j] > standing[pick]):
                        pick, top = j, net / sizes[j]
        if pick < 0:
            return added
        inside[pick] = True
        used += sizes[pick]
        added += 1
        for s in range(n):
            old, new = best[s], U[s, pick]
            if new > old:
                best[s] = new
                row, rise = U[s], new - old
                for j in range(N):
                    gains[j] -= min(max(row[j] - old, 0.0), rise)


@kernel
def top_two(row, members, m, floor):
    """Of row (N,), members (D,), m, floor -> best, second best, and the slots holding them."""
    best, second, holder, next_holder = floor, floor, -1, -1
    for k in range(m):
        value = row[members[k]]
        if value > second:
            if value > best:
                best, second, holder, next_holder = value, best, k, holder
            else:
                second, next_holder = value, k
    return best, second, holder, next_holder


@kernel
def credit(row, sign, best, second, holder, gains, shared):
    """Count one context in (sign 1) or out (-1): row (N,), best, second, holder -> gains (N,), shared (D, N + 1).

    It counts in the gain of every arm, in what every arm would make good of the holder's loss, and in that loss.
    """
    N = row.shape[0]
    if holder < 0:
        for j in range(N):
            gains[j] += sign * max(row[j] - best, 0.0)
    else:
        held, rise = shared[holder], best - second
        for j in range(N):
            above = row[j] - second
            gains[j] += sign * max(above - rise, 0.0)
            held[j] += sign * min(max(above, 0.0), rise)
        held[N] += sign * rise


@kernel
def swap(U, price, sizes, standing, capacity, tol, inside, rows, holders, members, arms, shared):
    """Shared arguments -> swaps made: always the best exchange of a member for an arm, while it wins more than tol.

    F(C - a + j) - F(C) = gain_j - loss_a + shared_aj less prices; shared_aj: the part of a's loss that j makes good.
    """
    n, N = U.shape
    floor, best, second = rows[0], rows[1], rows[2]
    first, last = holders[0], holders[1]
    gains = arms[0]
    m = list_members(inside, members)
    used = used_room(sizes, inside)
    for j in range(N):
        gains[j] = 0.0
    for k in range(m):
        for j in range(N + 1):
            shared[k, j] = 0.0
    for s in range(n):
        best[s], second[s], first[s], last[s] = top_two(U[s], members, m, floor[s])
        credit(U[s], 1.0, best[s], second[s], first[s], gains, shared)
    swaps = 0
    while True:
        slot, pick, top, lead_top, least = -1, -1, 0.0, 0, tol
        for k in range(m):
            i, held = members[k], shared[k]
            if standing[i] == 2:
                continue
            room = capacity - used + sizes[i]
            base = price[i] - held[N]
            for j in range(N):
                delta = base + gains[j] + held[j] - price[j]
                if delta > least and not inside[j] and sizes[j] <= room:
                    lead = standing[j] - standing[i]  # rather an old arm in, rather a new one out
                    if slot < 0 or delta > top + tol or lead > lead_top:
                        slot, pick, top, lead_top = k, j, delta, lead
                        least = max(tol, top - tol)
        if slot < 0:
            return swaps
        out = members[slot]
        inside[out] = False
        inside[pick] = True
        used += sizes[pick] - sizes[out]
        members[slot] = pick
        swaps += 1
        for s in range(n):
            if first[s] == slot or last[s] == slot or U[s, pick] > second[s]:
                row = U[s]
                credit(row, -1.0, best[s], second[s], first[s], gains, shared)
                best[s], second[s], first[s], last[s] = top_two(row, members, m, floor[s])
                credit(row, 1.0, best[s], second[s], first[s], gains, shared)


@kernel
def drop(U, price, standing, tol, inside, rows, holders, members, arms):
    """Shared arguments -> arms dropped: new members whose marginal gain does not exceed their price, worst first.

    Half the tolerance of `add` and `swap`: the value less 3/4 tol per new member never falls, so `settle` ends.
    """
    n = U.shape[0]
    floor, best, second = rows[0], rows[1], rows[2]
    first, last = holders[0], holders[1]
    loss = arms[1]
    dropped = 0
    while True:
        m = list_members(inside, members)
        for k in range(m):
            loss[k] = 0.0
        for s in range(n):
            best[s], second[s], first[s], last[s] = top_two(U[s], members, m, floor[s])
            if first[s] >= 0:
                loss[first[s]] += best[s] - second[s]
        out, low = -1, 0.5 * tol
        for k in range(m):
            i = members[k]
            net = loss[k] - price[i]
            if standing[i] == 0 and net <= 0.5 * tol and net <= low + tol:
                out, low = i, min(low, net)
        if out < 0:
            return dropped
        inside[out] = False
        dropped += 1


@kernel
def losses(U, rows, members, m, loss):
    """U (n, N), rows (3, n), members (D,), m -> loss (D,): what the set of the m members loses without each of them."""
    for k in range(m):
        loss[k] = 0.0
    for s in range(U.shape[0]):
        best, second, holder, _ = top_two(U[s], members, m, rows[0, s])
        if holder >= 0:
            loss[holder] += best - second


@kernel
def settle(U, price, sizes, standing, capacity, tol, swaps, inside, rows, holders, members, arms, shared):
    """Shared arguments, swaps bool: from any set that fits to one that no allowed move improves."""
    while True:
        if swaps:
            swap(U, price, sizes, standing, capacity, tol, inside, rows, holders, members, arms, shared)
        dropped = drop(U, price, standing, tol, inside, rows, holders, members, arms)
        added = add(U, price, sizes, standing, capacity, tol, inside, rows, members, arms)
        if dropped + added == 0:
            return


@kernel
def net_value(U, price, inside, rows, members):
    """U (n, N), price (N,), inside (N,), rows (3, n), members (D,) -> value of the set."""
    raise_best(U, inside, rows, members)
    total = 0.0
    for s in range(U.shape[0]):
        total += rows[1, s] - rows[0, s]
    for i in range(inside.shape[0]):
        if inside[i]:
            total -= price[i]
    return total


@kernel
def plan(U, price, sizes, standing, capacity, tol, swaps, inside, rows, holders, members, arms, shared):
    """Shared arguments, rows[0] = floor, swaps bool: writes the set into `inside`.

    With unequal sizes it starts from the better of greedy and of the best single arm filled up greedily: greedy per
    size alone has no guarantee.
    """
    N = U.shape[1]
    gains, spare = arms[0], arms[1]
    even = True
    for i in range(N):
        inside[i] = standing[i] == 2
        even = even and sizes[i] == sizes[0]
    add(U, price, sizes, standing, capacity, tol, inside, rows, members, arms)
    if not even:
        value = net_value(U, price, inside, rows, members)
        for i in range(N):
            spare[i] = 1.0 if inside[i] else 0.0
            inside[i] = standing[i] == 2
        raise_best(U, inside, rows, members)
        add_gains(U, rows[1], gains)
        room = capacity - used_room(sizes, inside)
        pick, top = -1, tol
        for j in range(N):
            if not inside[j] and sizes[j] <= room and gains[j] - price[j] > top:
                pick, top = j, gains[j] - price[j]
        if pick >= 0:
            inside[pick] = True
            add(U, price, sizes, standing, capacity, tol, inside, rows, members, arms)
        if net_value(U, price, inside, rows, members) <= value + tol:
            for i in range(N):
                inside[i] = spare[i] > 0.0
    settle(U, price, sizes, standing, capacity, tol, swaps, inside, rows, holders, members, arms, shared)
