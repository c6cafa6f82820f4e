"""A vLLM server in a process of its own, and what its log says is true of it."""

import os
import re
import signal
import socket
import subprocess
import time
from contextlib import suppress

import httpx

EVENTS = re.compile(
    r"Adding lora\. Model id: \d+, int id: (\d+)|Activating LoRA\. int id: (\d+), slot index: (\d+)"
    r"|Loaded new LoRA adapter: name '([^']+)'"
)


class VLLMProcess:
    """Started with the base model of a folder; all its processes are of one group, and go together.

    A killed API server leaves its engine behind, which keeps its memory: `kill` ends the group.
    """

    def __init__(self, python, folder, log_folder, slots, adapters):
        self.python, self.folder, self.slots, self.adapters = python, folder, slots, adapters
        self.log_folder, self.starts, self.process = log_folder, 0, None
        self.on_gpu = Slots(log_folder)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    @property
    def log(self):
        return self.log_folder / f"vllm-{self.starts}.log"

    def start(self, within_s=420.0):
        """Start it, wait until it is up, and have its first prompt log-likelihood compiled; returns the seconds."""
        self.starts += 1
        own = {
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_LOGGING_LEVEL": "DEBUG", "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
        }  # fmt: skip
        options = [
            "--host", "127.0.0.1", "--port", self.port, "--model", self.folder / "base", "--served-model-name", "base",
            "--dtype", "float32", "--max-model-len", "256", "--max-num-seqs", "8", "--enforce-eager", "--enable-lora",
            "--max-loras", self.slots, "--max-cpu-loras", self.adapters, "--max-lora-rank", "8",
        ]  # fmt: skip
        command = [self.python, "-m", "vllm.entrypoints.openai.api_server", *map(str, options)]
        begin = time.monotonic()
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | own
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, cwd=self.log_folder, start_new_session=True
            )
        while True:
            if self.process.poll() is not None or time.monotonic() - begin > within_s:
                self.kill()
                raise RuntimeError("vLLM did not start:\n" + self.log.read_text(errors="replace")[-3000:])
            try:
                if httpx.get(f"{self.url}/health", timeout=5.0).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(1.0)
        up_s = time.monotonic() - begin
        body = {"model": "base", "prompt": [3, 4, 5], "max_tokens": 1, "prompt_logprobs": 0}
        httpx.post(f"{self.url}/v1/completions", json=body, timeout=within_s).raise_for_status()
        return up_s, time.monotonic() - begin - up_s

    def kill(self):
        """End all of it as a machine would that loses its power."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class Slots:
    """What is on the GPU of a vLLM that logs its debugging: read from its newest log, as far as it is written."""

    def __init__(self, folder):
        self.folder, self.path, self.place = folder, None, 0

    def __call__(self):
        """Return what is there: names, or ids of weights without a name."""
        newest = max(self.folder.glob("vllm-*.log"), key=lambda path: int(path.stem[5:]))
        if newest != self.path:
            self.path, self.place = newest, 0
            self.slots, self.names, self.added = {}, {}, None
        with self.path.open("rb") as file:
            file.seek(self.place)
            text = file.read()
        text = text[: text.rfind(b"\n") + 1]
        self.place += len(text)
        for event in EVENTS.finditer(text.decode(errors="replace")):
            added, activated, slot, name = event.groups()
            if added:
                self.added = int(added)
            elif activated:
                self.slots[int(slot)] = int(activated)
            else:
                self.names[self.added] = name
        return {self.names.get(own, own) for own in self.slots.values()}
