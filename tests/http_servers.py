"""Model servers over real HTTP on loopback, with their contracts and their lies."""

import json
import threading
import time
from collections import OrderedDict
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Fake:
    """What a server does with (method, path, body): returns (status, text or JSON). ``lies`` go wrong in order.

    A lie is taken from the list for each call: "500", "nonsense" (text that is no JSON), "drop" (the connection),
    "cut" (the answer ends early), "slow" (a second), None (the truth).
    """

    def __init__(self):
        self.lies, self.log, self.lock = [], [], threading.RLock()

    def answer(self, method, path, body):
        raise NotImplementedError

    def asked(self, path):
        return sum(p == path for _, p, _ in self.log)


class FakeVLLM(Fake):
    """As vLLM 0.32 was seen to be: registering loads, displacing the least recently used, and so does a request.

    Its lies: an unloaded name leaves its weights in their place ("name (unloaded)"); a name loaded in place is read
    from disk at every later request (`reads`); a running request (`running`) keeps its adapter the last one used, so
    that not the order of arrivals counts; the metric of activity keeps a row for every combination it ever had, and
    says that what runs also waits.
    """

    def __init__(self, slots, disk, metric=False, static=(), base="base"):
        super().__init__()
        self.slots, self.disk, self.metric, self.static, self.base = (
            slots,
            set(disk),
            metric,
            dict(static),
            base,
        )
        self.started = 1000.0
        self.registered, self.gpu, self.loads = dict(self.static), OrderedDict(), 0
        self.reads, self.in_place, self.running, self.activity = 0, set(), [], {"": 0.0}

    def restart(self):
        with self.lock:
            self.registered, self.gpu = dict(self.static), OrderedDict()
            self.in_place, self.running, self.activity = set(), [], {"": 0.0}
            self.started += 100.0

    def use(self, name):
        for other in [*self.running, name]:  # every step of the engine touches what it computes with
            if other in self.gpu:
                self.gpu.move_to_end(other)
        self.reads += name in self.in_place
        if name in self.gpu:
            return
        if len(self.gpu) >= self.slots:
            self.gpu.popitem(last=False)
        self.gpu[name] = None
        self.loads += 1

    def run(self, *names):
        """Have requests to these adapters run from now on, until others are given."""
        with self.lock:
            for name in names:
                self.use(name)
            self.running = list(names)
            self.activity[",".join(names)] = 1.0 + max(self.activity.values())

    def unnamed(self, name):
        old = f"{name} (unloaded)"
        self.gpu = OrderedDict.fromkeys(old if n == name else n for n in self.gpu if n != old)

    def answer(self, method, path, body):
        if path == "/v1/load_lora_adapter":
            return self.load(body["lora_name"], body["lora_path"], body.get("load_inplace", False))
        if path == "/v1/unload_lora_adapter":
            name = body["lora_name"]
            if self.registered.pop(name, None) is None:
                return 404, _error("NotFoundError", f"The lora adapter '{name}' cannot be found.")
            self.unnamed(name)
            return 200, f"Success: LoRA adapter '{name}' removed successfully."
        if path == "/v1/models":
            rows = [{"id": self.base, "root": "/models/base", "parent": None}]
            return 200, {
                "data": rows + [{"id": n, "root": p, "parent": self.base} for n, p in self.registered.items()]
            }
        if path == "/v1/completions":
            return self.complete(body)
        if path == "/v1/chat/completions":
            status, said = self.complete(body)
            message = {"role": "assistant", "content": f"from {body['model']}"}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            return status, said if status != 200 else {**said, "id": "1", "created": 1, "choices": [choice]}
        if path == "/metrics":
            return 200, "\n".join([*self.metrics()])
        return 404, {"detail": "Not Found"}

    def load(self, name, path, in_place):
        if name == self.base:
            return 400, _error(
                "InvalidUserInput", f"The lora adapter '{name}' conflicts with a served base model."
            )
        if name in self.registered and not in_place:
            text = f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, ..."
            return 400, _error("InvalidUserInput", text)
        if path not in self.disk:
            return 404, _error("NotFoundError", f"Loading lora {name} failed: No adapter found for {path}")
        self.registered[name] = path
        (self.in_place.add if in_place else self.in_place.discard)(name)
        self.use(name)
        return 200, f"Success: LoRA adapter '{name}' added successfully."

    def complete(self, body):
        name = body["model"]
        if name != self.base and name not in self.registered:
            return 404, _error(
                "NotFoundError", f"The model `{name}` does not exist. Valid aliases: {self.base}."
            )
        if name != self.base:
            self.use(name)
        choice = {"index": 0, "text": "b", "logprobs": None, "finish_reason": "length"}
        if body.get("prompt_logprobs") is not None:
            choice["prompt_logprobs"] = [None, {"71": {"logprob": -1.5, "rank": 2, "decoded_token": "e"}}]
        return 200, {"model": name, "object": "text_completion", "choices": [choice]}

    def metrics(self):
        yield f"process_start_time_seconds {self.started}"
        for names, when in self.activity.items():
            labels = (
                f'max_lora="{self.slots}",running_lora_adapters="{names}",waiting_lora_adapters="{names}"'
            )
            yield f"vllm:lora_requests_info{{{labels}}} {1.7958528e9 + when}"
        if self.metric:
            for name in self.registered:
                labels = f'adapter_name="{name}",level="gpu",pinned="false",rank="8"'
                yield f"vllm:lora_adapter_loaded{{{labels}}} {float(name in self.gpu)}"


def _error(kind, message):
    return {"error": {"message": message, "type": kind, "param": None, "code": 400}}


class FakeSGLang(Fake):
    """Loads into host memory by name and frees when unloaded; may say that an unload is incomplete."""

    def __init__(self, disk):
        super().__init__()
        self.disk, self.loaded, self.busy = set(disk), {}, 0

    def restart(self):
        self.loaded = {}

    def answer(self, method, path, body):
        def said(success, error=None):
            row = {"success": success, "error_message": error, "loaded_adapters": self.loaded}
            return (200 if success else 400), row

        if path == "/load_lora_adapter":
            name = body["lora_name"]
            if name in self.loaded:
                return said(False, f"LoRA adapter {name} is already loaded")
            if body["lora_path"] not in self.disk:
                return said(False, "no such folder")
            self.loaded[name] = body["lora_path"]
            return said(True)
        if path == "/unload_lora_adapter":
            if self.busy:
                self.busy -= 1
                return said(False, "incomplete unload, please retry")
            if self.loaded.pop(body["lora_name"], None) is None:
                return said(False, "not loaded")
            return said(True)
        if path == "/v1/models":
            return 200, {"data": [{"id": n, "root": p} for n, p in self.loaded.items()]}
        if path == "/v1/completions":
            known = body["model"] in self.loaded
            return (
                (200, {"model": body["model"], "choices": [{}]})
                if known
                else (404, {"error": "no such model"})
            )
        return 404, {}


class FakeLlama(Fake):
    """Lists adapters; answers success to whatever is posted, and sets all others to 0."""

    def __init__(self, files):
        super().__init__()
        self.files, self.scales = list(files), [1.0] * len(files)

    def answer(self, method, path, body):
        if path != "/lora-adapters":
            return 404, {}
        if method == "POST":
            wanted = {row.get("id"): row.get("scale") for row in body}
            self.scales = [float(wanted.get(i, 0.0)) for i in range(len(self.files))]
            return 200, {"success": True}
        rows = zip(range(len(self.files)), self.files, self.scales, strict=True)
        return 200, [{"id": i, "path": f, "scale": s} for i, f, s in rows]


@contextmanager
def serving(fake):
    """Serve a fake on loopback; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def handle_one(self, method):
            size = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(size)) if size else None
            with fake.lock:
                fake.log.append((method, self.path, body))
                lie = fake.lies.pop(0) if fake.lies else None
            if lie == "drop":
                self.close_connection = True
                return
            if lie == "slow":
                time.sleep(1.0)
            with fake.lock:
                status, said = (
                    (500, {"error": {"message": "EngineDeadError"}}) if lie == "500" else (200, "<html>")
                )
                if lie not in ("500", "nonsense"):
                    status, said = fake.answer(method, self.path, body)
            data = (said if isinstance(said, str) else json.dumps(said)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if lie == "cut" else data)
            if lie == "cut":
                self.close_connection = True

        def do_GET(self):
            self.handle_one("GET")

        def do_POST(self):
            self.handle_one("POST")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)
