"""What a residency rule would have earned: requests replayed against a set part of which follows the faults."""

from banditroute._core.kernels import kernel


@kernel
def replay(values, faults, sizes, planned, guests, stamps, room, now):
    """values: (n, N), faults, sizes, planned, guests, stamps: (N,) -> sum of the values served.

    A request goes to the best arm, less its fault when it is neither `planned` nor a guest. An arm that faults
    becomes a guest in the place of the guests used longest ago (`stamps`), if it fits `room`. Changes guests, stamps.
    """
    total = 0.0
    used = 0.0
    for a in range(faults.size):
        if guests[a]:
            used += sizes[a]
    for i in range(values.shape[0]):
        row = values[i]
        best = 0
        value = row[0] - (0.0 if planned[0] or guests[0] else faults[0])
        for a in range(1, faults.size):
            v = row[a] - (0.0 if planned[a] or guests[a] else faults[a])
            if v > value:
                value = v
                best = a
        total += value
        stamps[best] = now + i
        if planned[best] or guests[best] or sizes[best] > room + 1e-9:
            continue
        while used + sizes[best] > room + 1e-9:
            oldest = -1
            for a in range(faults.size):
                if guests[a] and (oldest < 0 or stamps[a] < stamps[oldest]):
                    oldest = a
            guests[oldest] = False
            used -= sizes[oldest]
        guests[best] = True
        used += sizes[best]
    return total
