"""What a page-in costs on known hardware: measured and computed profiles, adapter sizes."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from banditroute._core.validation import integer

__all__ = ["PROFILES", "Profile", "adapter_bytes"]

# hidden width, layers, width of the key and value projections, width of the MLP
_SHAPES = {"llama-3.1-8b": (4096, 32, 1024, 14336), "qwen2.5-7b": (3584, 28, 512, 18944)}
_TARGETS = ("q+v", "attention", "all-linear")


class Profile(NamedTuple):
    """One row of `PROFILES`: median latency = base + tensors * overhead + rank * bytes per rank / bandwidth.

    Attributes
    ----------
    base_ms, tensor_ms
        Milliseconds per load and per tensor.
    tensors
        Tensors in one adapter: two for every adapted linear layer.
    bytes_per_rank
        Bytes per unit of rank, bfloat16, every linear layer adapted.
    bandwidth_gb_s
        1e9 bytes per second; infinite where latency does not depend on rank.
    jitter
        Log-sigma of the lognormal noise around the median.
    measured
        False for latencies computed from nominal bandwidths.
    source
        Where the numbers come from.

    Examples
    --------
    >>> PROFILES["llama-3.1-8b/disk"].measured, PROFILES["qwen2.5-7b/computed-nvme"].measured
    (True, False)
    """

    base_ms: float
    tensors: int
    tensor_ms: float
    bytes_per_rank: int
    bandwidth_gb_s: float
    jitter: float
    measured: bool
    source: str


def adapter_bytes(model: str, rank: int = 16, targets: str = "all-linear") -> int:
    """Return the size in bytes of a bfloat16 LoRA adapter.

    Parameters
    ----------
    model
        "llama-3.1-8b" or "qwen2.5-7b".
    rank
        Rank of the adapter, at least 1.
    targets
        Layers adapted: "q+v", "attention" (q, k, v and o) or "all-linear" (attention and MLP).

    Returns
    -------
    int
        ``2 * rank * sum(inputs + outputs)`` over the adapted layers.

    Raises
    ------
    ValueError
        If the model, the targets or the rank is unknown or out of range.

    Examples
    --------
    >>> adapter_bytes("qwen2.5-7b", rank=16) / 1e6
    80.740352
    """
    if model not in _SHAPES:
        raise ValueError(f"model must be one of {', '.join(_SHAPES)}, got {model!r}")
    if targets not in _TARGETS:
        raise ValueError(f"targets must be one of {', '.join(_TARGETS)}, got {targets!r}")
    hidden, layers, narrow, mlp = _SHAPES[model]
    square, slim = 2 * hidden, hidden + narrow
    per_layer = {
        "q+v": square + slim,
        "attention": 2 * square + 2 * slim,
        "all-linear": 2 * square + 2 * slim + 3 * (hidden + mlp),
    }
    return 2 * integer("rank", rank, low=1) * layers * per_layer[targets]


def _disk(model: str, base_ms: float, ms_per_rank: float, jitter: float) -> Profile:
    size = adapter_bytes(model, 1)
    source = f"disk to host memory, load events of vLLM servers: {base_ms} + {ms_per_rank} * rank ms"
    return Profile(base_ms, 0, 0.0, size, size / ms_per_rank / 1e6, jitter, True, source)


def _memory(model: str, ms: float, jitter: float) -> Profile:
    tensors = 2 * 7 * _SHAPES[model][1]
    source = f"host memory to GPU, load events of vLLM servers: {ms} ms at any rank"
    return Profile(0.0, tensors, ms / tensors, adapter_bytes(model, 1), math.inf, jitter, True, source)


def _computed(path: str, *links_gb_s: float) -> Profile:
    bandwidth = 1.0 / sum(1.0 / link for link in links_gb_s)
    source = f"computed, not measured: bytes over nominal bandwidth, {path}, no overhead per tensor"
    return Profile(0.0, 0, 0.0, adapter_bytes("qwen2.5-7b", 1), bandwidth, 0.0, False, source)


PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "llama-3.1-8b/disk": _disk("llama-3.1-8b", 45.7, 2.47, jitter=0.09),
        "llama-3.1-8b/memory": _memory("llama-3.1-8b", 6.3, jitter=0.04),
        "qwen2.5-7b/disk": _disk("qwen2.5-7b", 6.6, 0.44, jitter=0.08),
        "qwen2.5-7b/memory": _memory("qwen2.5-7b", 3.0, jitter=0.04),
        "qwen2.5-7b/computed-pinned": _computed("pinned host memory at 24 GB/s", 24.0),
        "qwen2.5-7b/computed-pageable": _computed("pageable host memory at 6 GB/s", 6.0),
        "qwen2.5-7b/computed-nvme": _computed("NVMe at 3 GB/s, then 24 GB/s to the GPU", 3.0, 24.0),
        "qwen2.5-7b/computed-sata": _computed("SATA at 0.4 GB/s, then 24 GB/s to the GPU", 0.4, 24.0),
    }
)
"""Known profiles by name, ``model/path``.

============================  =============================  ======  ========================================
name                          median ms                      jitter  source
============================  =============================  ======  ========================================
llama-3.1-8b/disk             45.7 + 2.47 rank               0.09    measured, disk to host, ranks 8, 16, 32
qwen2.5-7b/disk               6.6 + 0.44 rank                0.08    the same
llama-3.1-8b/memory           6.3                            0.04    measured, host to GPU, rank = maximum
qwen2.5-7b/memory             3.0                            0.04    the same
qwen2.5-7b/computed-pinned    bytes / 24 GB/s                0       computed, not measured
qwen2.5-7b/computed-pageable  bytes / 6 GB/s                 0       computed, not measured
qwen2.5-7b/computed-nvme      bytes / 3 + bytes / 24 GB/s    0       computed, not measured
qwen2.5-7b/computed-sata      bytes / 0.4 + bytes / 24 GB/s  0       computed, not measured
============================  =============================  ======  ========================================

The measurements are load events of real vLLM servers published in
FerranAgulloLopez/GPULLMAdapterOptimization (Apache-2.0); ``benchmarks/calibrate_paging.py`` repeats the fits.
Not modelled: the first load of a server takes up to 7 times as long, and below the server's maximal rank a
copy to the GPU takes 12-25 % longer. The events do not record which layers were adapted, so a measured
bandwidth is per *nominal* byte (every linear layer): if fewer were adapted the true one is lower, while
milliseconds per rank stand as measured. The split of a rank-free latency into tensors and overhead is
nominal in the same way.
"""
