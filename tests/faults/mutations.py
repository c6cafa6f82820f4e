"""Bytes that are not what was written: cut, flipped, moved, doubled, or with every checksum put right again."""

import os
import zlib

import numpy as np

from banditroute import LinUCB, Polar, Router, SnapshotError
from banditroute._core import container
from banditroute.durability import journal
from banditroute.durability import journal_records as form

KINDS = ("flip", "cut", "zero", "double", "insert", "swap", "junk", "longer")


def mutated(data, draw):
    """Some bytes of `data` changed in one of several ways."""
    given, kind = bytearray(data), draw.choice(KINDS)
    at = draw.randrange(len(given))
    size = min(1 << draw.randrange(12), len(given) - at)
    if kind == "flip":
        for _ in range(draw.choice([1, 1, 3])):
            given[draw.randrange(len(given))] ^= 1 << draw.randrange(8)
    elif kind == "cut":
        del given[at : at + size if draw.random() < 0.5 else None]
    elif kind == "zero":
        given[at : at + size] = bytes(size)
    elif kind == "double":
        given[at:at] = given[at : at + size]
    elif kind == "insert":
        given[at:at] = draw.randbytes(size)
    elif kind == "swap":
        to = draw.randrange(len(given))
        given[at], given[to] = given[to], given[at]
    elif kind == "junk":
        given[at : at + size] = draw.randbytes(size)
    else:
        given += draw.randbytes(size)
    return bytes(given)


def snapshot_survives(data, draw):
    """One mutation of a snapshot: it reads identically or is refused whole."""
    given = mutated(data, draw)
    try:
        header, arrays = container.decode(given)
    except SnapshotError:
        return "refused"
    assert given == data, "another file was taken for good"
    assert container.encode(header, arrays) == data
    return "identical"


ODD_VALUES = (
    None, True, -1, 0, 1, 7, 1e308, 1e400, float("nan"), 10**30, "", "x", [], {}, [[]], ["a"], {"a": 1}, "\ud800",
)  # fmt: skip


def crafted(header, arrays, draw):
    """A state whose checksums are right and whose content is not: one value or array is another."""
    header, arrays = container.decode(container.encode(header, arrays))
    if arrays and draw.random() < 0.5:
        name = draw.choice(sorted(arrays))
        array = arrays[name]
        kind = draw.randrange(6)
        if kind == 0:
            del arrays[name]
        elif kind == 1:
            arrays[name] = array[: len(array) // 2] if array.ndim else array.reshape(1)
        elif kind == 2:
            arrays[name] = np.zeros((0, 1 << 40)) if draw.random() < 0.5 else np.zeros((2,) * 7)
        elif kind == 3:
            with np.errstate(all="ignore"):
                arrays[name] = array.astype(draw.choice(["<i8", "<f4", "|b1", "<u8"]))
        elif array.size:
            changed = np.array(array, copy=True).reshape(-1)
            odd = draw.choice([0, 1, -1, 1e308, np.inf, np.nan, -np.inf, 1e15])
            with np.errstate(all="ignore"):
                changed[draw.randrange(changed.size)] = np.array(odd).astype(changed.dtype)
            arrays[name] = changed.reshape(array.shape)
        return header, arrays
    place, path = header, []
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            break
        path.append((place, draw.choice(keys)))
        inner = path[-1][0][path[-1][1]]
        if not isinstance(inner, dict | list) or draw.random() < 0.15:
            break
        place = inner
    if path:
        place, key = path[-1]
        if draw.random() < 0.2:
            del place[key]
        else:
            place[key] = draw.choice(ODD_VALUES)
    return header, arrays


def events(path, data):
    """What a journal's file is read as, or the error it is refused with."""
    path.write_bytes(data)
    with path.open("rb") as file:
        try:
            opening = form.opening(file)
        except SnapshotError:
            return None
        return [] if opening is None else [repr(event) for _, event in form.events(file, opening)]


def journal_survives(path, data, draw):
    """One mutation of a journal's file: what is read is what was written, up to some record."""
    whole = events(path, data)
    found = events(path, mutated(data, draw))
    if found is None:
        return "refused"
    assert found == whole[: len(found)], "a record was read that nobody wrote"
    return "identical" if len(found) == len(whole) else "cut"


def records_survive(payload, draw):
    """One mutation of a record with its checksum put right: some event, or None; no error."""
    event = form.parsed(mutated(payload, draw))
    if event is None:
        return "skipped"
    form.packed(event)
    return "taken"


def directory_survives(home, make, draw):
    """A directory in which one file is another: it is recovered or refused, and the threads live."""
    path = draw.choice(sorted(p for p in home.iterdir() if p.name != "lock"))
    data = path.read_bytes()
    if path.name.startswith("snapshot") and draw.random() < 0.5:
        path.write_bytes(container.encode(*crafted(*container.decode(data), draw)))
    elif path.name.startswith("journal") and draw.random() < 0.3:
        with path.open("rb") as file:
            chain = form.opening(file).chain
            start = file.tell()
        frames, at = data[:start], start
        while at < len(data):
            size = form.FRAME.unpack_from(data, at)[0]
            payload = data[at + form.FRAME.size : at + form.FRAME.size + size]
            other = mutated(payload, draw) if draw.random() < 0.05 else payload
            frame, chain = form.framed(other, chain)
            frames += frame + other
            at += form.FRAME.size + size
        path.write_bytes(frames)
    else:
        path.write_bytes(mutated(data, draw))
    host = make()
    before = host.digest()
    try:
        kept, _ = journal.recover(host, home, checkpoint_s=1e6, flush_s=1e6, arms="file")
    except SnapshotError:
        assert host.digest() == before
        return "refused"
    alive = kept._flusher.alive and kept._checkpointer.alive
    kept.flush()
    kept.checkpoint()
    kept.abandon()
    assert alive
    return "recovered"


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class RouterUnderMutation:
    """Files that `Router.load` is given: it loads them and serves, or refuses them and is as it was, to the last bit."""

    def __init__(self, scratch):
        self.path = scratch / "state"
        source = self.made()
        rng = np.random.default_rng(0)
        waiting = [source.select(rng.normal(size=3)).id for _ in range(40)]
        for key in waiting[:30]:
            source.update(key, float(rng.random()))
        source.quarantine("b")
        source.save(self.path)
        self.data = self.path.read_bytes()
        self.target, self.before = None, None

    @staticmethod
    def made():
        policy = LinUCB(["a", "b", "c", "d"], 3, mix=0.1, rng=1)
        return Router(policy, Polar(2, epoch=7, rng=2), 0.1, clock=Clock(), feedback_limit_s=100.0)

    def _state(self):
        again = self.path.with_name("now")
        self.target.save(again)
        return again.read_bytes()

    def one(self, draw):
        """One mutation; returns what became of it."""
        if self.target is None:
            self.target = self.made()
            self.target.select(np.ones(3))
            self.before = self._state()
        if draw.random() < 0.2:
            given = mutated(self.data, draw)
        else:
            given = container.encode(*crafted(*container.decode(self.data), draw))
        self.path.write_bytes(given)
        try:
            self.target.load(self.path)
        except SnapshotError:
            assert self._state() == self.before, "refused, and yet another state"
            return "refused"
        target, self.target = self.target, None
        for step in range(12):
            target.residency.next_plan, target.parts.books.due = 0, 0.0  # plans too
            target.parts.books.clock.now += 30.0
            decision = target.select(np.full(3, step / 12))
            target.update(decision.id, 0.5)
        target.stats()
        return "identical" if given == self.data else "loaded"


class MetricsUnderMutation:
    """Files of workers that a scrape reads: shown as they were written, or passed over."""

    def __init__(self, scratch):
        from prometheus_client import CollectorRegistry

        from banditroute.servers.prometheus import export

        self.home = scratch / "metrics"
        router, self.registry = Router(LinUCB(2, 2, rng=0)), CollectorRegistry()
        for _ in range(3):
            router.select([1.0, 0.0])
        other = export(router, CollectorRegistry(), directory=self.home, write_s=1e6)
        self.data = next(self.home.iterdir()).read_bytes()
        other.close()
        self.mine = export(Router(LinUCB(2, 2, rng=0)), self.registry, directory=self.home, write_s=1e6)

    def one(self, draw):
        """One mutation; returns what became of it."""
        from prometheus_client import generate_latest

        from banditroute._core.files import lock

        given = mutated(self.data, draw)
        if draw.random() < 0.3:  # with its checksum put right
            body = mutated(self.data.partition(b"\n")[2], draw)
            given = b"banditroute-metrics 1 %d %d\n%s" % (len(body), zlib.crc32(body), body)
        path = self.home / "worker-1.banditroute"
        with open(path, "wb", buffering=0) as file:
            file.write(given)
            lock(file, wait=False)
            text = generate_latest(self.registry).decode()
            left = os.path.exists(path)
        assert left and path.read_bytes() == given, "a file of another was touched"
        path.unlink()
        shown = 'banditroute_decisions_total{worker="1"} 3.0' in text
        return "shown" if shown else "passed over" if 'worker="1"' not in text else "shown otherwise"
