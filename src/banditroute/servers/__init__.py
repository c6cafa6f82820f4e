"""Backends of real runtimes and a simulated one, and metrics; those that need an extra say so."""

from banditroute.servers.http import ServerError
from banditroute.servers.llamacpp import LlamaCppAdapters
from banditroute.servers.peft import Borrowed, PeftBackend
from banditroute.servers.sglang import SGLangBackend
from banditroute.servers.simulated import SimulatedBackend
from banditroute.servers.vllm import VLLMBackend

__all__ = [
    "Borrowed",
    "LlamaCppAdapters",
    "PeftBackend",
    "SGLangBackend",
    "ServerError",
    "SimulatedBackend",
    "VLLMBackend",
]
