"""Hits said and true where several workers, real processes, share one server of adapters.

    python benchmarks/shared_residency.py [--workers 4] [--requests 1500] [--pause-ms 10] [--redis] [--kill]
                                          [--kinds passes inserts displaces]

One server over HTTP holds the adapters; it knows of every request whether the adapter was there when it came. Each
worker asks its Router, sends the request, and compares what the Router said. Three kinds of servers: requests to what
is not loaded pass through (`Polaris` plans), a fault inserts (`LRU` of the Router), or the server itself displaces the
least recently used (an LRU of its own with a slot to spare, spoken to as vLLM). For each the same is done with
``share_residency=False``: every worker for itself. It prints hit rates said and true, hits said of what was not there
and misses said of what was, adapters that the workers believed in together, and loads. With --kill the worker that
plans is ended with SIGKILL half-way and replaced. The exit status is 1 where a hit rate that was said of a shared
server is off by more than .01.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from banditroute import LRU, FileStore, LinUCB, Polaris, Router
from banditroute.records import Capabilities
from banditroute.router import shared_planning
from banditroute.servers import VLLMBackend
from banditroute.servers.http import HttpServer

ARMS = tuple(f"adapter-{k:02d}" for k in range(12))
ROOM, BOUND = 4, 0.01
POPULARITY = 0.6 ** np.arange(
    len(ARMS)
)  # of the kinds of requests, each served best by an adapter of its own
GAIN, FAULT = 0.3, 0.1  # of the right adapter over the others, and what a fault costs
LOAD_S = 0.02


class Stub:
    """Adapters of one server: slots, loads, and for each request whether its adapter was there."""

    def __init__(self, kind):
        self.displaces = kind == "displaces"
        self.slots = ROOM + self.displaces
        self.gpu, self.registered = OrderedDict(), {}
        self.lock, self.loads = threading.Lock(), 0
        self.requests = self.hits = 0

    def load(self, name):
        self.loads += 1
        self.gpu[name] = None

    def answer(self, method, path, body):
        """Return status and JSON."""
        with self.lock:
            if path == "/v1/completions":
                return self.complete(body["model"], probe=body.get("max_tokens") == 1)
            if path == "/v1/models":
                return 200, {"data": [{"id": n, "root": p} for n, p in self.registered.items()]}
            if path == "/v1/load_lora_adapter":
                if body["lora_name"] in self.registered:
                    return 400, {"error": {"message": "it has already been loaded"}}
                self.registered[body["lora_name"]] = body["lora_path"]
                return 200, {}
            if path == "/loaded":
                return 200, list(self.gpu)
            if path == "/load":
                if body["name"] not in self.gpu:
                    if len(self.gpu) >= self.slots:
                        return 409, {}
                    self.load(body["name"])
                return 200, {}
            if path == "/evict":
                return (200 if self.gpu.pop(body["name"], self) is None else 404), {}
            return 404, {}

    def complete(self, name, probe):
        """Serve a request, which loads the adapter where the server displaces."""
        hit = name in self.gpu
        if self.displaces:
            if hit:
                self.gpu.move_to_end(name)
            else:
                if len(self.gpu) >= self.slots:
                    self.gpu.popitem(last=False)
                self.load(name)
            self.registered.setdefault(name, f"/adapters/{name}")
        else:
            self.loads += not hit  # into a scratch place
        if not probe:
            self.requests += 1
            self.hits += hit
        return 200, {"model": name, "hit": hit, "choices": [{"text": "b"}]}


def serving(stub):
    """Start the stub on loopback; returns the server."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 1 << 16  # an answer in two pieces would wait for an acknowledgement

        def log_message(self, *_):
            pass

        def do_GET(self):
            size = int(self.headers.get("Content-Length") or 0)
            status, said = stub.answer(
                self.command, self.path, json.loads(self.rfile.read(size)) if size else None
            )
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Plain(HttpServer):
    """A server that loads and evicts when it is asked to, and at no other time."""

    capabilities = Capabilities(pin=False, touch=False)

    def ensure(self, name):
        """Load; False where there is no room."""
        time.sleep(LOAD_S)
        return self.ask("POST", "/load", {"name": name}).status == 200

    def evict(self, name):
        """Evict."""
        return self.ask("POST", "/evict", {"name": name}).status == 200

    def observe(self):
        """Return what is there."""
        there = self.ask("GET", "/loaded").data
        return {name: "gpu" if name in there else "disk" for name in ARMS}


def opened(store):
    """Return the store of this address."""
    if "://" in store:
        from banditroute.durability.redis_store import RedisStore

        return RedisStore(store)
    return FileStore(store)


def made(kind, url, seed, maintenance):
    """Return the Router of a worker."""
    paths = {name: f"/adapters/{name}" for name in ARMS}
    backend = VLLMBackend(url, paths, slots=ROOM + 1) if kind == "displaces" else Plain(url, timeout_s=30.0)
    controller = LRU(ROOM) if kind == "inserts" else Polaris(ROOM, rng=seed)
    policy = LinUCB(ARMS, len(ARMS), rng=seed)
    return Router(policy, controller, FAULT, backend=backend, maintenance=maintenance)


def asked(router, client, group, rng):
    """Serve one request; returns whether the Router said that it is a hit, and whether it was one."""
    decision = router.select(np.eye(len(ARMS))[group])
    body = {"model": decision.arm, "prompt": "?", "max_tokens": 16}
    there = bool(client.ask("POST", "/v1/completions", body).data["hit"])
    right = decision.arm == ARMS[group]
    router.update(decision.id, 0.5 + GAIN * right + 0.1 * rng.standard_normal())
    return decision.hit, there


def steps(kind, url, store, seed):
    """Do as a worker what standard input says, one thing at a time; with a lease of a second."""
    shared_planning.LEASE_S = 1.0
    rng, client = np.random.default_rng(seed), HttpServer(url, timeout_s=30.0)
    router = made(kind, url, seed, "manual")
    replica = router.join(opened(store), sync_s=0.01, background=False)
    for line in sys.stdin:
        what, *rest = json.loads(line)
        said = None
        if what == "request":
            said = asked(router, client, rest[0], rng)
        else:
            replica.sync()
            if what == "turn":
                router.maintain()
                replica.sync()
            said = {"plans": router.stats()["plans_residency"], "resident": router.resident}
        print(json.dumps(said), flush=True)
    router.close()


def work(kind, url, store, shared, seed, requests, pause_s):
    """Serve requests as one worker, and print what it saw."""
    rng = np.random.default_rng(seed)
    router = made(kind, url, seed, "background")
    router.join(opened(store), sync_s=0.25, share_residency=shared)
    print("ready", flush=True)
    sys.stdin.readline()  # all begin together
    said, true, believed = [], [], []
    client = HttpServer(url, timeout_s=30.0)
    for t in range(requests):
        if t % 50 == 49:
            believed.append([time.time(), router.resident])
            if router.stats()["plans_residency"] if shared else False:
                print("plans", flush=True)
        time.sleep(pause_s * rng.exponential())
        group = int(rng.choice(len(ARMS), p=POPULARITY / POPULARITY.sum()))
        hit, there = asked(router, client, group, rng)
        said.append(hit)
        true.append(there)
    stats = router.stats()
    print(json.dumps({"said": said, "true": true, "believed": believed, "loads": stats["loads"]}), flush=True)
    sys.stdin.readline()  # all end together: one that closes leaves the lease
    router.close()


class Worker:
    """One process."""

    def __init__(self, *arguments):
        command = [sys.executable, os.path.abspath(__file__), "--work", json.dumps(arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.plans, self.lines, self.result = False, [], None
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        """Follow what it prints."""
        for line in self.process.stdout:
            if line.startswith("{"):
                self.result = json.loads(line)
                return
            self.plans |= line.startswith("plans")
            if line.startswith("ready"):
                self.ready.set()

    def go(self):
        """Let it begin, or end."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def measured(kind, shared, args):
    """Run the workers against one server; returns the figures."""
    stub = Stub(kind)
    server = serving(stub)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    with tempfile.TemporaryDirectory() as home, _store(args, home) as store:
        workers = [
            Worker(kind, url, store, shared, seed, args.requests, args.pause_ms / 1000.0)
            for seed in range(args.workers)
        ]
        if not all(worker.ready.wait(120.0) for worker in workers):
            raise SystemExit("a worker did not start")
        for worker in workers:
            worker.go()
        killed = None
        if args.kill and shared:
            deadline = time.monotonic() + 60.0
            while killed is None and time.monotonic() < deadline:
                time.sleep(0.1)
                killed = next((w for w in workers if w.plans and stub.requests > args.requests), None)
            if killed is not None:
                killed.process.send_signal(signal.SIGKILL)
                killed.process.wait()
                workers.remove(killed)
        for worker in workers:
            worker.reader.join(600.0)
        for worker in workers:
            if worker.process.poll() is None:
                worker.go()
        for worker in workers:
            worker.process.wait(60.0)
    server.shutdown()
    server.server_close()
    return figures([worker.result for worker in workers], stub)


def _store(args, home):
    if not args.redis:
        return nullcontext(home)
    from servers import redis_server

    return redis_server()


def figures(results, stub):
    """Return what the workers said together, beside what was true."""
    half = [slice(len(r["said"]) // 5, None) for r in results]  # without the start
    said = np.concatenate([r["said"][part] for r, part in zip(results, half, strict=True)])
    true = np.concatenate([r["true"][part] for r, part in zip(results, half, strict=True)])
    rounds = list(zip(*(r["believed"][len(r["believed"]) // 5 :] for r in results), strict=False))
    together = np.mean([len(set().union(*(names for _, names in one))) for one in rounds]) if rounds else 0.0
    return {
        "said": float(said.mean()), "true": float(true.mean()), "false_hits": float((said & ~true).mean()),
        "false_misses": float((~said & true).mean()), "believed": float(together), "loads": stub.loads,
        "requests": len(said),
    }  # fmt: skip


def main(argv=None):
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ("passes", "inserts", "displaces")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--requests", type=int, default=1500, help="of each worker")
    parser.add_argument(
        "--pause-ms", type=float, default=10.0, help="mean pause of a worker between requests"
    )
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--redis", action="store_true")
    parser.add_argument("--kill", action="store_true", help="end the worker that plans half-way")
    parser.add_argument("--shared-only", action="store_true")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--steps", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.steps:
        steps(*json.loads(args.steps))
        return 0
    if args.work:
        work(*json.loads(args.work))
        return 0
    worst = 0.0
    print(
        f"{'server':10s} {'residency':9s}   said   true  false hits  false misses  believed  loads  requests"
    )
    for kind in args.kinds:
        for shared in (True,) if args.shared_only else (True, False):
            row = measured(kind, shared, args)
            print(
                f"{kind:10s} {'shared' if shared else 'own':9s} {row['said']:6.1%} {row['true']:6.1%}  "
                f"{row['false_hits']:10.2%}  {row['false_misses']:12.2%}  {row['believed']:8.1f}  {row['loads']:5d}  "
                f"{row['requests']:8d}",
                flush=True,
            )
            if shared:
                worst = max(worst, abs(row["said"] - row["true"]))
    print(f"said less true where residency is shared: {worst:.4f} at most, bound {BOUND}")
    return int(worst > BOUND)


if __name__ == "__main__":
    sys.exit(main())
