"""Processes that keep a journal on a faulty disk and are killed: what a recovery finds must be what was promised.

One process that has imported everything, with the shim preloaded, forks a worker for each line it reads.
"""

import mmap
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).parent
KINDS = {"short": 1, "eio": 2, "full": 4, "sync": 8, "rename": 16, "unlink": 32, "open": 64}
BOARD = struct.Struct("<QQQQ32sQQQ")  # sure, tried, ready, found, digest, dropped, checkpoints, injected


def compiler():
    """A C compiler, or None."""
    return shutil.which("gcc") or shutil.which("cc")


def built(folder):
    """The shim as a library."""
    library = Path(folder) / "shim.so"
    command = [compiler(), "-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "shim.c"), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    return library


def work(home, board, seed, kinds, per_mille, limit, sliced):
    """Serve until killed; never returns."""
    import ctypes
    import logging
    import threading
    from random import Random

    from banditroute.durability import journal, journal_writer
    from faults.host import MemoryHost, SlicedMemoryHost

    logging.getLogger("banditroute").setLevel(logging.CRITICAL)
    signal.alarm(120)  # it must not outlive the tests
    shim, draw = ctypes.CDLL(None), Random(seed)
    journal_writer.BUFFER_LIMIT = limit
    host = (SlicedMemoryHost if sliced else MemoryHost)()

    def arm(on):
        if hasattr(shim, "faults_arm"):
            shim.faults_arm(ctypes.c_ulonglong(draw.getrandbits(40)), kinds if on else 0, per_mille)

    def started():
        return journal.recover(host, home, checkpoint_s=0.03, flush_s=0.004, keep=2, arms="file")[0]

    arm(draw.random() < 0.3)
    try:
        kept = started()
    except OSError:  # it may be tried again
        arm(False)
        kept = started()
    host.listener = kept
    with open(board, "r+b") as file:
        shared = mmap.mmap(file.fileno(), BOARD.size)
    found = host.count
    shared[: BOARD.size] = BOARD.pack(found, found, 1, found, host.digest(), 0, 0, 0)
    arm(True)

    def promise():
        while True:
            with host.lock:
                sure = host.count
            try:
                kept.flush()
            except OSError:
                time.sleep(0.002)
                continue
            shared[0:8] = struct.pack("<Q", sure)

    threading.Thread(target=promise, daemon=True).start()
    while True:
        if draw.random() < 0.002:
            arm(draw.random() < 0.7)
        if draw.random() < 0.02:
            time.sleep(draw.random() * 0.004)
        shared[8:16] = struct.pack("<Q", host.count + 1)
        host.step()
        stats = kept.stats()
        shared[64:80] = struct.pack("<QQ", stats["journal_dropped"], stats["checkpoints"])
        if hasattr(shim, "faults_count"):
            shared[80:88] = struct.pack("<Q", sum(shim.faults_count(k) for k in range(8)))


def nursery():
    """Fork a worker for each line of orders; prints its process id."""
    sys.path.insert(0, str(HERE.parent))
    import faults.host  # noqa: F401 - and with it the package

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        home, board, *numbers = line.rstrip("\n").split("\t")
        child = os.fork()
        if not child:
            try:
                work(home, board, *(int(n) for n in numbers))
            except BaseException:
                import traceback

                traceback.print_exc()
            os._exit(3)
        print(child, flush=True)


class Killing:
    """A directory that survives kill after kill, and what is checked after each."""

    def __init__(self, folder, library):
        self.folder = Path(folder)
        self.home, self.board = self.folder / "home", self.folder / "board"
        self.board.write_bytes(bytes(BOARD.size))
        environment = {**os.environ, **({} if library is None else {"LD_PRELOAD": str(library)})}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._file = self.board.open("r+b")
        self._shared = mmap.mmap(self._file.fileno(), BOARD.size)
        from faults.host import MemoryHost

        self.twin = MemoryHost()  # the same history, undisturbed
        self.sure = self.tried = 0
        self.runs = self.lost = self.wrong = self.dropped = self.checkpoints = self.injected = 0

    def run(self, draw, kinds, per_mille, *, limit=1 << 26):
        """One worker from its recovery to its death; its recovery is that of the one before."""
        shared = self._shared
        shared[16:24] = bytes(8)
        numbers = (draw.getrandbits(30), kinds, per_mille, limit, draw.getrandbits(1))
        self._process.stdin.write("\t".join(map(str, (self.home, self.board, *numbers))) + "\n")
        self._process.stdin.flush()
        worker = int(self._process.stdout.readline())
        end = time.monotonic() + 60.0
        while shared[16:24] == bytes(8):
            os.kill(worker, 0)  # ProcessLookupError: it could not even start
            assert time.monotonic() < end, "a worker hangs"
            time.sleep(0.001)
        self._check()
        time.sleep(draw.random() * 0.15)
        os.kill(worker, signal.SIGKILL)
        with suppress(ProcessLookupError):
            while True:
                os.kill(worker, 0)
                time.sleep(0.001)
        self.sure, self.tried, *_, dropped, checkpoints, injected = BOARD.unpack(shared[: BOARD.size])
        self.dropped += dropped
        self.checkpoints += checkpoints
        self.injected += injected
        self.runs += 1

    def _check(self):
        _, _, _, found, digest, *_ = BOARD.unpack(self._shared[: BOARD.size])
        self.lost += max(0, self.sure - found)
        assert self.sure <= found <= self.tried, (self.sure, found, self.tried)
        assert found >= self.twin.count
        while self.twin.count < found:
            self.twin.step()
        self.wrong += self.twin.digest() != digest
        assert not self.wrong, "the recovered state is another than that of the same events"

    def close(self):
        """End the nursery."""
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()
        self._shared.close()
        self._file.close()


if __name__ == "__main__":
    nursery()
