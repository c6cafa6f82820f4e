"""Harm to what lies in a store: every mutation is refused, healed or changes nothing, and no thread dies of it."""

import json

import numpy as np

from banditroute import LinUCB, Router


def harmed(data, rng):
    """Return the bytes after one mutation: a flip, a cut, a doubling, a swap, or something else altogether."""
    kind = int(rng.integers(7))
    at = int(rng.integers(len(data))) if data else 0
    if kind == 0:
        return data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :] if data else b"x"
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + data[at // 2 :]
    if kind == 3:
        return data[:at] + rng.bytes(8) + data[at + 8 :]
    if kind == 4:
        return rng.bytes(at)
    if kind == 5:
        digits = [i for i, c in enumerate(data) if 48 <= c <= 57]
        if not digits:
            return b""
        i = digits[int(rng.integers(len(digits)))]
        return data[:i] + str(int(rng.choice([0, 1, 7, 10**9, 10**30]))).encode() + data[i + 1 :]
    odd = [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"[" * 5000,
        b'{"seq":1e999}',
        b"\xff\xfe",
        json.dumps([0] * 9).encode(),
    ]
    return odd[int(rng.integers(len(odd)))]


def run(store, rng, rounds):
    """Harm a file of a replica in each round; afterwards all know what all have learned, and nothing else."""
    routers = [Router(LinUCB(3, 2, mix=0.2, rng=seed)) for seed in range(2)]
    replicas = [router.join(store, background=False) for router in routers]
    learned = 0
    for at in range(rounds):
        router = routers[at % 2]
        learned += router.update(router.select(rng.integers(-3, 4, size=2).astype(float)).id, 1.0)
        for replica in replicas:
            assert replica.sync(), "a mutation must not look like a store that is down"
        paths = sorted(path for path in store._replicas.rglob("*") if path.is_file())
        path = paths[int(rng.integers(len(paths)))]
        path.write_bytes(harmed(path.read_bytes(), rng))
        for replica in replicas:
            assert replica.sync()
            counts = replica.me.policy.counts
            assert counts.sum() <= learned and counts.min() >= 0
    late = Router(LinUCB(3, 2, mix=0.2, rng=9))
    replicas.append(late.join(store, background=False))
    for _ in range(4):
        for replica in replicas:
            assert replica.sync()
    for router in [*routers, late]:
        assert router.policy.counts.sum() == learned, (router.policy.counts, learned)
        assert np.isfinite(router.policy.theta).all()
