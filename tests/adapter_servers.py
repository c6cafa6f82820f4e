"""A server of adapters that misbehaves on request, and the time that it lives in."""

import threading

from banditroute.records import Capabilities


class Clock:
    """Virtual seconds; each look may take some."""

    def __init__(self, tick=0.0):
        self.now, self.tick = 0.0, tick

    def __call__(self):
        self.now += self.tick
        return self.now


class Server:
    """Slots that are filled by `ensure` and freed by `evict`; a set of faults says what goes wrong.

    "away": every call raises. "nonsense": answers are no answers. "hang": calls never come back (until `wake`).
    "mute": only `observe` raises. ``refuses`` and ``raises`` are adapters that do not load, ``busy`` counts evictions
    that will be refused. A full server refuses a load, or with ``displaces`` drops the least recently used.
    """

    def __init__(self, slots, *, capabilities=None, displaces=False, refuses=(), raises=(), busy=None):
        self.slots, self.displaces = slots, displaces
        self.capabilities = Capabilities() if capabilities is None else capabilities
        self.refuses, self.raises, self.busy = set(refuses), set(raises), dict(busy or {})
        self.faults = set()
        self.loaded, self.pinned, self.log = [], set(), []
        self.versions, self.memory = {}, {}  # of the weights on disk, and of those loaded
        self.loads = 0
        self.lock = threading.RLock()  # calls that hung come back beside others
        self.awake = threading.Event()

    def reach(self, what, name=""):
        self.log.append((what, name))
        if "hang" in self.faults:
            self.awake.wait(30.0)
        if "away" in self.faults or ("mute" in self.faults and what == "observe"):
            raise ConnectionError("connection refused")
        if "exit" in self.faults:
            raise SystemExit("the server's library ends the process")
        return "nonsense" in self.faults

    def asked(self, what, name=None):
        return sum(w == what and name in (None, n) for w, n in self.log)

    def ensure(self, name):
        if self.reach("ensure", name):
            return "<html>502</html>"
        with self.lock:
            if name in self.raises:
                raise RuntimeError(f"{name}: rank 64 is above the limit of 16")
            if name in self.refuses:
                return False
            if name in self.loaded:
                return True
            if len(self.loaded) >= self.slots and not (self.displaces and self.displace()):
                return False
            self.loaded.append(name)
            self.memory[name] = self.versions.get(name, 1)
            self.loads += 1
            return True

    def displace(self):
        for name in self.loaded:
            if name not in self.pinned:
                self.loaded.remove(name)
                return True
        return False

    def evict(self, name):
        if self.reach("evict", name):
            return None
        with self.lock:
            if self.busy.get(name, 0) > 0:
                self.busy[name] -= 1
                return False
            there = name in self.loaded and name not in self.pinned
            if there:
                self.loaded.remove(name)
            return there

    def pin(self, name, pinned=True):
        if self.reach("pin" if pinned else "unpin", name):
            return 7
        if pinned and name not in self.loaded:
            return False
        (self.pinned.add if pinned else self.pinned.discard)(name)
        return True

    def touch(self, name):
        if self.reach("touch", name):
            return []
        with self.lock:
            if name in self.loaded:
                self.loaded.remove(name)
                self.loaded.append(name)
            return name in self.loaded

    def observe(self):
        if self.reach("observe"):
            return ["a", "b"]
        return {name: "gpu" if name in self.loaded else "disk" for name in {*self.memory, *self.loaded}}

    def lose(self, name):
        """Drop an adapter behind everybody's back."""
        with self.lock:
            if name in self.loaded:
                self.loaded.remove(name)

    def restart(self):
        self.loaded, self.pinned = [], set()
