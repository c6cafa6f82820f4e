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
    """Registers by name, loads at the first request, displaces the least recently used; unloading frees nothing."""

    def __init__(self, slots, disk, metric=False, static=()):
        super().__init__()
        self.slots, self.disk, self.metric, self.static = slots, set(disk), metric, dict(static)
        self.started = 1000.0
        self.registered, self.gpu, self.loads = dict(self.static), OrderedDict(), 0

    def restart(self):
        with self.lock:
            self.registered, self.gpu = dict(self.static), OrderedDict()
            self.started += 100.0

    def use(self, name):
        if name in self.gpu:
            self.gpu.move_to_end(name)
            return
        if len(self.gpu) >= self.slots:
            self.gpu.popitem(last=False)
        self.gpu[name] = None
        self.loads += 1

    def answer(self, method, path, body):
        if path == "/v1/load_lora_adapter":
            name = body["lora_name"]
            if name in self.registered:
                text = f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in place, ..."
                return 400, {"error": {"message": text, "type": "InvalidUserInput", "code": 400}}
            if body["lora_path"] not in self.disk:
                return 404, {
                    "error": {"message": f"No adapter found for {body['lora_path']}", "type": "NotFoundError"}
                }
            self.registered[name] = body["lora_path"]
            return 200, f"Success: LoRA adapter '{name}' added successfully."
        if path == "/v1/unload_lora_adapter":
            if self.registered.pop(body["lora_name"], None) is None:
                return 404, {"error": {"message": "not found", "type": "NotFoundError"}}
            return 200, "Success"
        if path == "/v1/models":
            rows = [{"id": "base", "root": "base"}]
            return 200, {
                "data": rows + [{"id": n, "root": p, "parent": "base"} for n, p in self.registered.items()]
            }
        if path == "/v1/completions":
            name = body["model"]
            if name != "base" and name not in self.registered:
                return 404, {
                    "error": {"message": f"The model `{name}` does not exist.", "type": "NotFoundError"}
                }
            if name != "base":
                self.use(name)
            return 200, {"model": name, "choices": [{"text": "b"}]}
        if path == "/v1/chat/completions":
            status, said = self.answer(method, "/v1/completions", body)
            message = {"role": "assistant", "content": f"from {body['model']}"}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            return status, said if status != 200 else {**said, "id": "1", "created": 1, "choices": [choice]}
        if path == "/metrics":
            lines = [f"process_start_time_seconds {self.started}"]
            if self.metric:
                for name in self.registered:
                    labels = f'adapter_name="{name}",level="gpu",pinned="false",rank="8"'
                    lines.append(f"vllm:lora_adapter_loaded{{{labels}}} {float(name in self.gpu)}")
            return 200, "\n".join(lines)
        return 404, {"detail": "Not Found"}


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
