"""Measured paging latency: the empirical sampler, recorded load times, timed files, the shipped fits."""

import os
import runpy
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest

from banditroute import PagingModel
from banditroute.residency.paging import (
    PROFILES,
    EmpiricalPaging,
    Measurement,
    adapter_bytes,
    load_times,
    measure_paging,
)

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("BANDITROUTE_DATA", ROOT.parent / "shared" / "data"))
MODELS = {"llama-3.1-8b": "llama-3.1-8b-instruct", "qwen2.5-7b": "qwen-2.5-7b-instruct"}
RANKS = (8, 16, 32)


@pytest.fixture
def recorded() -> Path:
    path = DATA / "lora_load_times.csv.gz"
    if not path.exists():
        pytest.skip("no recorded load times: set BANDITROUTE_DATA to the folder with lora_load_times.csv.gz")
    return path


# ---- the empirical sampler


def test_every_measurement_is_equally_likely():
    ms = [5.0, 1.0, 9.0, 3.0]
    paging = EmpiricalPaging(ms)
    normals = [NormalDist().inv_cdf((i + 0.5) / 400) for i in range(400)]
    drawn = [paging.sample_ms(7, z) for z in normals]
    assert drawn == sorted(drawn)
    assert {m: drawn.count(m) for m in ms} == dict.fromkeys(ms, 100)
    assert paging.sample_ms(0, -40.0) == 1.0
    assert paging.sample_ms(0, 40.0) == 9.0
    assert paging.prices(2) == pytest.approx([4.5e-3] * 2)


def test_lists_per_arm_and_clipping():
    paging = EmpiricalPaging([[10.0, 30.0], [5000.0]], ms_to_reward=0.01, max_price=0.5)
    assert paging.prices(2).tolist() == [0.2, 0.5]
    assert paging.sample_ms(1, 0.0) == 5000.0
    assert paging.to_reward(5000.0) == 0.5
    assert hash(paging) == hash(EmpiricalPaging([[30.0, 10.0], (5000.0,)], 0.01, 0.5))


@pytest.mark.parametrize(
    "bad", [[], [[]], [[1.0], []], [-1.0], [float("nan")], "12", None, 3.0, ["x"], [[[1.0]]]]
)
def test_empirical_refuses_bad_measurements(bad):
    with pytest.raises((ValueError, TypeError), match="ms must"):
        EmpiricalPaging(bad)


# ---- files


def test_measure_paging_times_every_file_in_rounds(tmp_path):
    """A clock that ticks by the size of the file just read: 5 ms plus 1 ms per kB."""
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    files[0].write_bytes(bytes(2000))
    files[1].write_bytes(bytes(8000))
    ticks = iter(np.cumsum([0.0, 0.007, 1.0, 0.013] * 3).tolist())
    measured = measure_paging(files, repeats=3, clock=lambda: next(ticks))
    assert measured.sizes == (2000, 8000)
    assert np.array(measured.ms) == pytest.approx(np.array([[7.0] * 3, [13.0] * 3]))
    assert measured.cold == hasattr(os, "posix_fadvise")
    assert "8000     13.000" in str(measured)
    fit = PagingModel.fit(measured.sizes, measured.ms)
    assert fit.base_ms == pytest.approx(5.0)
    assert 1e-6 / fit.bandwidth_gb_s == pytest.approx(1e-3)  # ms per byte
    assert EmpiricalPaging(measured.ms).prices(2) == pytest.approx([0.007, 0.013])


def test_measure_paging_with_the_real_clock_and_without_fadvise(tmp_path, monkeypatch):
    file = tmp_path / "adapter.bin"
    file.write_bytes(bytes(100_000))
    assert min(measure_paging([file], repeats=2).ms[0]) > 0.0
    assert not measure_paging([file], repeats=1, drop_cache=False).cold
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    measured = measure_paging([str(file)], repeats=1)
    assert not measured.cold
    assert "read from the page cache" in str(measured)


def test_measure_paging_refuses_bad_calls(tmp_path):
    for bad in ([], "adapter.bin"):
        with pytest.raises(ValueError, match="paths"):
            measure_paging(bad)
    with pytest.raises(ValueError, match="repeats"):
        measure_paging([tmp_path], repeats=0)
    with pytest.raises(FileNotFoundError):
        measure_paging([tmp_path / "absent"])


def test_load_times_drops_the_cold_start_of_every_series(tmp_path):
    file = tmp_path / "loads.csv"
    rows = ["run,tier,event_index,seconds"]
    rows += [f"{run},disk,{i},{9 if i == 0 else run + i / 10}" for run in (1, 2) for i in range(4)]
    file.write_text("\n".join(rows) + "\n")
    assert load_times(file) == pytest.approx([1100, 1200, 1300, 2100, 2200, 2300])
    assert load_times(file, run=2, drop_first=2) == pytest.approx([2200, 2300])
    assert load_times(file, drop_first=0).max() == 9000
    assert EmpiricalPaging.from_csv(file, run=1).prices(1)[0] == pytest.approx(1.0)
    assert EmpiricalPaging.from_csv(file, run=1, max_price=5.0).prices(1)[0] == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("text", "filters", "rule"),
    [
        ("", {}, "column 'seconds', got none"),
        ("tier,ms\ndisk,1\n", {}, "column 'seconds', got tier, ms"),
        ("tier,seconds\ndisk,1\n", {"rank": 8}, "column 'rank'"),
        ("tier,seconds\ndisk,1\ndisk,2\n", {"tier": "tape"}, "tape"),
        ("tier,seconds\ndisk,1\n", {}, "after the first 1"),
        ("tier,seconds\ndisk,1\ndisk,-2\n", {}, "line 3: seconds must be a positive number"),
        ("tier,seconds\ndisk,1\ndisk,soon\n", {}, "'soon'"),
        ("tier,seconds\ndisk,1\ndisk,nan\n", {}, "'nan'"),
        ("tier,seconds\ndisk,1\ndisk\n", {}, "got None"),
    ],
)
def test_load_times_names_what_is_wrong(tmp_path, text, filters, rule):
    file = tmp_path / "loads.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=rule):
        load_times(file, **filters)


def test_calibration_script_recovers_the_profiles_it_is_fed(tmp_path):
    """Loads made from the shipped profiles with antithetic noise, so that every median is exact."""
    rows = ["experiment,server_run,model,adapter_rank,max_lora_rank,tier,phase,event_index,seconds"]
    normals = [0.0, 1.0, -1.0, 2.0, -2.0]
    for name in (name for name, row in PROFILES.items() if row.measured):
        model, tier = name.split("/")
        for rank in RANKS:
            paging = PagingModel.profile(name, rank=rank)
            seconds = [9.0, *(paging.sample_ms(0, z) / 1e3 for z in normals)]
            for experiment in ("loading", "latency_overhead") if rank == 8 else ("loading",):
                rows += [
                    f"{experiment},0,{MODELS[model]},{rank},{rank},{tier},runtime,{i},{s!r}"
                    for i, s in enumerate(seconds)
                ]
    file = tmp_path / "loads.csv"
    file.write_text("\n".join(rows) + "\n")
    table = runpy.run_path(str(ROOT / "benchmarks" / "calibrate_paging.py"))["report"](file)
    assert "45.70 +    2.470" in table
    assert "6.60 +    0.440" in table
    assert "6.30 +    0.000" in table
    assert table.count("+0.0%") + table.count("-0.0%") >= 14  # 12 medians, 2 held-out medians


# ---- the recorded loads


@pytest.mark.parametrize(
    ("model", "base", "slope", "error"),
    [("llama-3.1-8b", 45.68, 2.469, 0.031), ("qwen2.5-7b", 6.58, 0.444, 0.078)],
)
def test_disk_profiles_fit_the_recorded_loads(recorded, model, base, slope, error):
    """Largest error of a median: 3.0 % for Llama, 7.7 % for Qwen (its medians do not lie on a line)."""
    loads = [
        load_times(recorded, experiment="loading", model=MODELS[model], tier="disk", adapter_rank=rank)
        for rank in RANKS
    ]
    per_rank = adapter_bytes(model, 1)
    fit = PagingModel.fit([per_rank * rank for rank in RANKS], loads)
    assert fit.base_ms == pytest.approx(base, abs=0.005)
    assert per_rank / (1e6 * fit.bandwidth_gb_s) == pytest.approx(slope, abs=0.0005)
    shipped = PagingModel.profile(f"{model}/disk", rank=RANKS)
    assert shipped.base_ms == pytest.approx(fit.base_ms, rel=0.005)
    assert shipped.jitter == pytest.approx(fit.jitter, abs=0.005)
    medians = [np.median(times) for times in loads]
    assert shipped.latency_ms(3) == pytest.approx(medians, rel=error)
    held_out = load_times(recorded, experiment="latency_overhead", model=MODELS[model], tier="disk")
    assert held_out.size > 2900
    assert shipped.latency_ms(3)[0] == pytest.approx(np.median(held_out), rel=0.075)


@pytest.mark.parametrize("model", MODELS)
def test_memory_profiles_fit_the_recorded_loads(recorded, model):
    shipped = PagingModel.profile(f"{model}/memory")
    for rank in RANKS:
        times = load_times(
            recorded,
            model=MODELS[model],
            tier="memory",
            phase="runtime",
            adapter_rank=rank,
            max_lora_rank=rank,
        )
        assert shipped.latency_ms(1)[0] == pytest.approx(np.median(times), rel=0.04)


def test_measurement_is_a_plain_record():
    measured = Measurement(("a",), (10,), ((1.0, 3.0),), cold=True)
    assert "page cache dropped" in str(measured)
    assert EmpiricalPaging(measured.ms).prices(1)[0] == pytest.approx(2e-3)
