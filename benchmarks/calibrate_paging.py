"""Fit the paging profiles to recorded load times and compare them with the ones that are shipped.

    python benchmarks/calibrate_paging.py PATH/lora_load_times.csv.gz

The file holds load events of vLLM servers: model, adapter_rank, max_lora_rank, tier, phase, seconds. The cold
first load of every series is left out. Disk profiles are fitted on the medians of the "loading" experiment by
rank, memory profiles on run-time copies of adapters of the server's maximal rank. The "latency_overhead"
experiment is used in no fit: its disk loads, all of rank 8, are held out.
"""

import argparse

import numpy as np

from banditroute import PagingModel
from banditroute.residency.paging import PROFILES, adapter_bytes, load_times

RANKS = (8, 16, 32)
MODELS = {"llama-3.1-8b": "llama-3.1-8b-instruct", "qwen2.5-7b": "qwen-2.5-7b-instruct"}


def loads(path: str, name: str) -> list[np.ndarray]:
    """Return the warm loads of a profile, one array of milliseconds for each rank."""
    model, tier = name.split("/")
    where = {"experiment": "loading", "model": MODELS[model], "tier": tier}
    if tier == "disk":
        return [load_times(path, **where, adapter_rank=rank) for rank in RANKS]
    return [
        load_times(path, **where, phase="runtime", adapter_rank=rank, max_lora_rank=rank) for rank in RANKS
    ]


def fitted(name: str, by_rank: list[np.ndarray]) -> PagingModel:
    """Return the fit of a profile: a line in the nominal bytes, or for host to GPU a level."""
    model, tier = name.split("/")
    fit = PagingModel.fit([adapter_bytes(model, rank) for rank in RANKS], by_rank)
    if tier == "disk":
        return fit
    level = float(np.median([np.median(times) for times in by_rank]))
    return PagingModel(base_ms=level, bandwidth_gb_s=np.inf, jitter=fit.jitter)


def ms_per_rank(model: PagingModel, name: str) -> float:
    """Return the slope of the median latency in milliseconds per unit of rank."""
    return adapter_bytes(name.split("/")[0], 1) / (1e6 * model.bandwidth_gb_s)


def report(path: str) -> str:
    """Return the table of fits, shipped profiles and errors."""
    head = f"{'loads':>6} {'median':>8} {'shipped':>8} {'error':>7}"
    lines = [f"{'profile':21} {'rank':>4} {head} {'mean error':>11}"]
    summary = [
        f"{'profile':21} {'fit: base + slope * rank ms':>28} {'jitter':>7} {'shipped':>18} {'jitter':>7}"
    ]
    for name in (name for name, row in PROFILES.items() if row.measured):
        by_rank = loads(path, name)
        fit, shipped = fitted(name, by_rank), PagingModel.profile(name, rank=RANKS)
        medians, means = shipped.latency_ms(len(RANKS)), shipped.expected_ms(len(RANKS))
        for rank, times, median, mean in zip(RANKS, by_rank, medians, means, strict=True):
            lines.append(
                f"{name:21} {rank:4d} {times.size:6d} {np.median(times):8.2f} {median:8.2f} "
                f"{median / np.median(times) - 1:+7.1%} {mean / times.mean() - 1:+11.1%}"
            )
        base = shipped.base_ms + shipped.tensors * shipped.tensor_ms
        summary.append(
            f"{name:21} {fit.base_ms:17.2f} + {ms_per_rank(fit, name):8.3f} {fit.jitter:7.3f} "
            f"{base:8.2f} + {ms_per_rank(shipped, name):7.3f} {shipped.jitter:7.3f}"
        )
    held_out = [f"{'held out (rank 8)':21} {head} {'log-sigma':>10}"]
    for model, recorded in MODELS.items():
        times = load_times(path, experiment="latency_overhead", model=recorded, tier="disk")
        shipped_ms = PagingModel.profile(f"{model}/disk", rank=8).latency_ms(1)[0]
        median = np.median(times)
        held_out.append(
            f"{model + '/disk':21} {times.size:6d} {median:8.2f} {shipped_ms:8.2f} "
            f"{shipped_ms / median - 1:+7.1%} {np.log(times).std():10.3f}"
        )
    return "\n".join([*summary, "", *lines, "", *held_out])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fit the paging profiles to recorded load times.")
    parser.add_argument("path", help="csv file of load events, plain or gzip")
    print(report(parser.parse_args().path))
