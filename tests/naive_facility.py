"""Residency problems, and a slow twin of the objective: all values from their definition, every set tried."""

from itertools import combinations

import numpy as np


def clustered(rng, arms=12, n=200, dim=10, centres=8):
    """Adapters with home clusters, clusters of Zipf popularity."""
    centre = rng.normal(size=(centres, dim))
    centre /= np.linalg.norm(centre, axis=1, keepdims=True)
    popularity = 1 / np.arange(1, centres + 1)
    x = centre[rng.choice(centres, n, p=popularity / popularity.sum())] + 0.15 * rng.normal(size=(n, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    home = centre[rng.integers(centres, size=arms)]
    theta = 0.55 * rng.uniform(0.7, 1, (arms, 1)) * home + 0.1 * rng.normal(size=(arms, dim)) / np.sqrt(dim)
    return x @ theta.T, rng.uniform(0.15, 0.35, arms)


def isotropic(rng, arms=12, n=200, dim=10):
    """Contexts and arms in every direction alike."""
    x, theta = rng.normal(size=(n, dim)), rng.normal(size=(arms, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    theta /= np.linalg.norm(theta, axis=1, keepdims=True)
    return x @ theta.T, rng.uniform(0.15, 0.35, arms)


def low_rank(rng, arms=12, n=200, rank=3):
    """Utilities of rank 3, prices of faults that differ by orders of magnitude."""
    utilities = rng.normal(size=(n, rank)) @ rng.normal(size=(rank, arms)) / np.sqrt(rank) / 2
    return utilities, rng.lognormal(-2, 1, arms)


def value(U, faults, chosen, loads=None, previous=()):
    """Sum over contexts of max(A, best member) - A, less n times the loads of the new members."""
    total = 0.0
    for row in U:
        floor = max(u - f for u, f in zip(row, faults, strict=True))
        total += max([floor, *(row[i] for i in chosen)]) - floor
    if loads is not None:
        total -= len(U) * sum(loads[i] for i in chosen if i not in previous)
    return total


def feasible_sets(count, capacity, sizes=None, pinned=()):
    """Every set that holds the pinned arms and fits."""
    sizes = np.ones(count) if sizes is None else sizes
    for k in range(count + 1):
        for chosen in combinations(range(count), k):
            if set(pinned) <= set(chosen) and sum(sizes[i] for i in chosen) <= capacity * (1 + 1e-12):
                yield chosen


def best_value(U, faults, capacity, previous=(), loads=None, sizes=None, pinned=()):
    """Largest mean value over all sets that fit (pinned arms pay their load like any other)."""
    sets = feasible_sets(len(faults), capacity, sizes, pinned)
    return max(value(U, faults, c, loads, previous) for c in sets) / len(U)


def climb(U, faults, capacity, previous=(), loads=None, sizes=None, pinned=(), swaps=True):
    """The documented moves, each fully evaluated: greedy, best single arm, best swaps, drops, additions."""
    N = len(faults)
    sizes = [1.0] * N if sizes is None else list(sizes)

    def worth(chosen):
        return value(U, faults, chosen, loads, previous)

    def room(chosen):
        return capacity * (1 + 1e-12) - sum(sizes[i] for i in chosen)

    def new(i):
        return i not in previous and i not in pinned

    def add(chosen):
        while True:
            best, pick = None, None
            for j in sorted(set(range(N)) - chosen, key=lambda j: (new(j), j)):
                net = worth(chosen | {j}) - worth(chosen)
                if sizes[j] > room(chosen) or (new(j) and net <= 1e-9):
                    continue
                if best is None or net - best * sizes[j] > 1e-9:
                    best, pick = net / sizes[j], j
            if pick is None:
                return chosen
            chosen = chosen | {pick}

    def swap(chosen):
        while True:
            best, pick = 0.0, None
            for a in sorted(chosen - set(pinned)):
                for j in sorted(set(range(N)) - chosen):
                    moved = chosen - {a} | {j}
                    if room(moved) >= 0 and worth(moved) - worth(chosen) > best + 1e-9:
                        best, pick = worth(moved) - worth(chosen), moved
            if pick is None:
                return chosen
            chosen = pick

    def drop(chosen):
        while True:
            losses = {i: worth(chosen) - worth(chosen - {i}) for i in chosen if new(i)}
            idle = [i for i in losses if losses[i] <= 1e-10]
            if not idle:
                return chosen
            chosen = chosen - {min(idle, key=lambda i: (losses[i], -i))}

    base = set(pinned)
    chosen = add(base)
    if len(set(sizes)) > 1:
        singles = [j for j in range(N) if j not in base and sizes[j] <= room(base)]
        if singles:
            other = add(base | {max(singles, key=lambda j: worth(base | {j}))})
            chosen = other if worth(other) > worth(chosen) + 1e-9 else chosen
    while True:
        before = swap(chosen) if swaps else chosen
        chosen = add(drop(before))
        if chosen == before:
            return tuple(sorted(chosen))
