"""Paging latency: medians, means, prices, sampling, fits, what a router accepts, the transfer link."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.optimize import nnls

from banditroute import PagingModel
from banditroute.residency.paging import PROFILES, EmpiricalPaging, Link, Paging, adapter_bytes, as_paging

# Nodes and weights of the exact mean over a standard normal: no random numbers, so no false alarms.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


# ---- the parametric model


def test_default_is_the_measured_llama_profile():
    assert PagingModel() == PagingModel.profile("llama-3.1-8b/disk", rank=16)
    assert PagingModel().latency_ms(3) == pytest.approx([45.7 + 2.47 * 16] * 3, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "rank", "ms"),
    [
        ("llama-3.1-8b/disk", 32, 45.7 + 2.47 * 32),
        ("qwen2.5-7b/disk", 8, 6.6 + 0.44 * 8),
        ("llama-3.1-8b/memory", 8, 6.3),
        ("llama-3.1-8b/memory", 64, 6.3),
        ("qwen2.5-7b/memory", 16, 3.0),
    ],
)
def test_measured_profiles_state_their_medians(name, rank, ms):
    assert PROFILES[name].measured
    assert PagingModel.profile(name, rank=rank).latency_ms(1)[0] == pytest.approx(ms, rel=1e-12)


# The computed table, as published in the design: milliseconds for pinned, pageable, NVMe and SATA.
COMPUTED = {
    (8, "q+v"): (5.0, 0.2, 0.8, 1.9, 13),
    (16, "q+v"): (10.1, 0.4, 1.7, 3.8, 26),
    (16, "attention"): (20.2, 0.8, 3.4, 7.6, 51),
    (16, "all-linear"): (80.7, 3.4, 13.5, 30, 205),
    (64, "all-linear"): (323, 13.5, 54, 121, 821),
}


@pytest.mark.parametrize(("adapter", "row"), COMPUTED.items())
def test_computed_profiles_reproduce_the_table(adapter, row):
    rank, targets = adapter
    size = adapter_bytes("qwen2.5-7b", rank, targets)
    assert size / 1e6 == pytest.approx(row[0], rel=0.011)
    for link, ms in zip(("pinned", "pageable", "nvme", "sata"), row[1:], strict=True):
        name = f"qwen2.5-7b/computed-{link}"
        assert not PROFILES[name].measured
        assert "not measured" in PROFILES[name].source
        # the table is rounded to two digits
        assert PagingModel.profile(name, size_bytes=size).latency_ms(1)[0] == pytest.approx(ms, rel=0.06)


def test_adapter_bytes_counts_two_matrices_per_layer():
    """Llama-3.1-8B, rank 1, q and v: 32 layers of (4096 + 4096) + (4096 + 1024) bfloat16 numbers."""
    assert adapter_bytes("llama-3.1-8b", 1, "q+v") == 2 * 32 * (8192 + 5120)
    assert adapter_bytes("qwen2.5-7b", 1, "all-linear") == 2 * 2_523_136
    assert adapter_bytes("qwen2.5-7b", 1, "attention") == 2 * 630_784


def test_every_term_enters_the_latency():
    model = PagingModel(base_ms=5.0, tensors=100, tensor_ms=0.02, size_bytes=3e6, bandwidth_gb_s=1.5)
    assert model.latency_ms(1)[0] == pytest.approx(5.0 + 2.0 + 2.0)
    assert model.latency_ms(2, [0.0, 6e6]) == pytest.approx([7.0, 11.0])


@pytest.mark.parametrize("jitter", [0.0, 0.09, 0.7])
def test_samples_have_the_stated_median_and_mean(jitter):
    model = PagingModel(jitter=jitter)
    samples = np.array([model.sample_ms(0, z) for z in NODES])
    assert WEIGHTS @ samples == pytest.approx(model.expected_ms(1)[0], rel=1e-9)
    assert model.sample_ms(0, 0.0) == pytest.approx(model.latency_ms(1)[0], rel=1e-12)
    assert (np.diff(samples) > 0).all() if jitter else np.ptp(samples) < 1e-9


def test_heterogeneous_sizes_price_and_sample_each_arm():
    model = PagingModel.profile("llama-3.1-8b/disk", rank=[8, 32])
    low, high = model.prices(2)
    assert low < high
    for arm in (0, 1):
        assert model.sample_ms(arm, 0.0) == pytest.approx(model.latency_ms(2)[arm])
        alone = dataclasses.replace(model, size_bytes=model.size_bytes[arm])
        assert alone.sample_ms(0, 1.3) == model.sample_ms(arm, 1.3)
        assert PagingModel().sample_ms(0, 1.3, size=model.size_bytes[arm]) == alone.sample_ms(0, 1.3)
    assert PagingModel().prices(2, model.size_bytes) == pytest.approx([low, high], rel=1e-15)


@given(
    base=st.floats(0, 1e5),
    sizes=st.lists(st.floats(0, 1e10), min_size=1, max_size=5),
    rate=st.floats(0, 0.1),
    cap=st.floats(0, 10),
    jitter=st.floats(0, 1),
)
def test_prices_are_clipped_and_grow_with_size(base, sizes, rate, cap, jitter):
    model = PagingModel(base_ms=base, jitter=jitter, ms_to_reward=rate, max_price=cap)
    prices = model.prices(len(sizes), sizes)
    assert prices.dtype == np.float64
    assert (prices >= 0).all()
    assert (prices <= cap).all()
    order = np.argsort(sizes, kind="stable")
    assert (np.diff(prices[order]) >= 0).all()
    means = model.expected_ms(len(sizes), sizes)
    assert prices.tolist() == [model.to_reward(ms) for ms in means]


def test_model_is_immutable_and_hashable():
    model = PagingModel(size_bytes=np.array([1.0, 2.0]))
    assert {model: 1}[PagingModel(size_bytes=(1.0, 2.0))] == 1
    assert hash(PagingModel(base_ms=3)) == hash(PagingModel(base_ms=3.0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.base_ms = 1.0


def test_caller_arrays_are_neither_kept_nor_changed():
    sizes = np.array([2e6, 1e6])
    sizes.flags.writeable = False
    model = PagingModel(size_bytes=sizes)
    own = [30.0, 10.0]
    paging = EmpiricalPaging([own, own])
    before = paging.prices(2).copy()
    own[0] = 1e6
    prices = model.prices(2, sizes)
    prices[:] = 0.0
    assert model.prices(2).min() > 0.0
    assert paging.prices(2).tolist() == before.tolist()


# ---- bad input

BAD = [-1.0, math.nan, -math.inf, "fast", None, True]


@pytest.mark.parametrize("bad", [*BAD, math.inf])
@pytest.mark.parametrize(
    "name", ["base_ms", "tensor_ms", "size_bytes", "jitter", "ms_to_reward", "max_price"]
)
def test_model_refuses_bad_numbers(name, bad):
    with pytest.raises((ValueError, TypeError), match=name):
        PagingModel(**{name: bad})


@pytest.mark.parametrize("bad", [*BAD, 0.0])
def test_bandwidth_must_be_positive(bad):
    with pytest.raises((ValueError, TypeError), match="bandwidth_gb_s"):
        PagingModel(bandwidth_gb_s=bad)


@pytest.mark.parametrize("bad", [-1, 1.5, True])
def test_tensors_must_be_a_count(bad):
    with pytest.raises((ValueError, TypeError), match="tensors"):
        PagingModel(tensors=bad)


@pytest.mark.parametrize("bad", [[1.0], [1.0, -1.0], [1.0, math.nan], [[1.0, 2.0]], ["a", "b"], 5.0, []])
def test_sizes_must_be_one_number_per_arm(bad):
    with pytest.raises((ValueError, TypeError), match="sizes"):
        PagingModel().prices(2, bad)
    with pytest.raises((ValueError, TypeError), match="size_bytes"):
        PagingModel(size_bytes=bad if bad != 5.0 else [-5.0]).prices(2)


def test_jitter_and_normals_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"jitter must be in \[0, 3\]"):
        PagingModel(jitter=3.1)
    for paging in (PagingModel(), EmpiricalPaging([1.0])):
        for bad in (math.nan, 85.2, math.inf):
            with pytest.raises(ValueError, match="normal"):
                paging.sample_ms(0, bad)
        for bad in (-1, 0.5):
            with pytest.raises((ValueError, TypeError), match="arm"):
                paging.sample_ms(bad, 0.0)
        with pytest.raises(ValueError, match="ms must be"):
            paging.to_reward(-1.0)
        with pytest.raises(ValueError, match="n_arms"):
            paging.prices(0)
    with pytest.raises(ValueError, match="size must be"):
        PagingModel().sample_ms(0, 0.0, size=-1.0)


@pytest.mark.parametrize("paging", [PagingModel(size_bytes=[1.0, 2.0]), EmpiricalPaging([[1.0], [2.0]])])
def test_per_arm_models_know_their_number_of_arms(paging):
    assert paging.prices(2).shape == (2,)
    with pytest.raises(ValueError, match=r"\(3,\)"):
        paging.prices(3)
    with pytest.raises(ValueError, match=r"arm must be in \[0, 1\], got 2"):
        paging.sample_ms(2, 0.0)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match="gpt") as caught:
        PagingModel.profile("gpt")
    assert all(name in str(caught.value) for name in PROFILES)
    with pytest.raises(ValueError, match="rank must be >= 1, got 0"):
        PagingModel.profile("qwen2.5-7b/disk", rank=[8, 0])
    with pytest.raises(TypeError, match="rank"):
        PagingModel.profile("qwen2.5-7b/disk", rank=8.5)
    with pytest.raises(ValueError, match=r"llama-3.1-8b, qwen2.5-7b, got 'phi'"):
        adapter_bytes("phi")
    with pytest.raises(ValueError, match="attention, all-linear, got 'mlp'"):
        adapter_bytes("qwen2.5-7b", 8, "mlp")


# ---- fitting


def test_fit_recovers_a_noiseless_line():
    truth = PagingModel(base_ms=12.0, bandwidth_gb_s=0.8, jitter=0.0)
    sizes = [1e6, 4e6, 9e6]
    ms = truth.latency_ms(3, sizes)
    fit = PagingModel.fit(sizes, [[m, m] for m in ms], ms_to_reward=0.01)
    assert (fit.base_ms, fit.bandwidth_gb_s) == pytest.approx((12.0, 0.8))
    assert fit.jitter == pytest.approx(0.0, abs=1e-12)
    assert fit.prices(3) == pytest.approx(np.minimum(ms * 0.01, 1.0))


def test_fit_jitter_is_the_log_sigma_of_the_noise():
    """Seed 0, 5,000 loads: the relative standard error of a standard deviation is 1/sqrt(10,000) = 1 %.

    Tolerance 5 %, five standard errors: a false alarm in 2 million. The standard error of a median is
    jitter * 1.25 / sqrt(2,500) = 0.25 %; the tolerance is five of them.
    """
    rng = np.random.default_rng(0)
    truth = PagingModel(base_ms=20.0, bandwidth_gb_s=1.0, jitter=0.1)
    sizes = [1e6, 50e6]
    loads = [[truth.sample_ms(0, z, size) for z in rng.standard_normal(2500)] for size in sizes]
    fit = PagingModel.fit(sizes, loads)
    assert fit.jitter == pytest.approx(0.1, rel=0.05)
    assert fit.latency_ms(2) == pytest.approx(truth.latency_ms(2, sizes), rel=0.0125)


@given(
    x=st.lists(st.floats(0, 100), min_size=2, max_size=5, unique=True),
    y=st.lists(st.floats(0.1, 1000), min_size=5, max_size=5),
)
def test_fit_is_the_best_non_negative_line(x, y):
    """Against a solver of non-negative least squares."""
    assume(np.ptp(x) > 1e-2)
    y = np.array(y[: len(x)])
    fit = PagingModel.fit(np.array(x) * 1e6, [[v] for v in y])
    (base, slope), _ = nnls(np.column_stack([np.ones(len(x)), x]), y)
    assert fit.base_ms == pytest.approx(base, rel=1e-6, abs=1e-6 * y.max())
    assert 1.0 / fit.bandwidth_gb_s == pytest.approx(slope, rel=1e-6, abs=1e-6 * y.max() / np.ptp(x))


def test_fit_on_the_boundary():
    """Plain least squares would give -3 + 4 x and 11 - 2 x."""
    steep = PagingModel.fit([1e6, 3e6], [1.0, 9.0])
    assert (steep.base_ms, steep.bandwidth_gb_s) == pytest.approx((0.0, 1 / 2.8))
    falling = PagingModel.fit([1e6, 3e6], [9.0, 5.0])
    assert (falling.base_ms, falling.bandwidth_gb_s) == (7.0, math.inf)


@pytest.mark.parametrize(
    ("sizes", "ms", "rule"),
    [
        ([1.0, 1.0], [[1.0], [2.0]], "sizes must not all be equal"),
        ([1.0, -2.0], [[1.0], [2.0]], "sizes must hold numbers >= 0"),
        ([1.0, 2.0], [[1.0], [0.0]], "ms must be > 0"),
        ([1.0, 2.0], [[1.0], [math.nan]], "ms must be finite"),
        ([1.0, 2.0], [[1.0], []], "ms must hold numbers"),
        ([1.0, 2.0, 3.0], [[1.0], [2.0]], r"sizes must have shape \(2,\)"),
    ],
)
def test_fit_refuses_bad_measurements(sizes, ms, rule):
    with pytest.raises(ValueError, match=rule):
        PagingModel.fit(sizes, ms)


# ---- what a router accepts


def test_fixed_prices_convert_back_exactly():
    for price in (0.0, 1 / 3, 2.5, *np.linspace(0.001, 1.0, 200).tolist()):
        paging = as_paging(price, 3)
        assert isinstance(paging, Paging)
        assert paging.prices(3).tolist() == [price] * 3
        assert paging.prices(5).tolist() == [price] * 5
        assert paging.to_reward(paging.sample_ms(2, -1.7)) == price
    several = as_paging(np.array([0.1, 0.7]), 2)
    assert several.prices(2).tolist() == [0.1, 0.7]
    assert [several.to_reward(several.sample_ms(a, 0.4)) for a in (0, 1)] == [0.1, 0.7]


def test_models_pass_through_after_a_check():
    model = PagingModel(size_bytes=[1e6, 2e6])
    assert as_paging(model, 2) is model
    with pytest.raises(ValueError, match="size_bytes"):
        as_paging(model, 3)


@pytest.mark.parametrize("bad", [-0.1, math.nan, None, "cheap", [0.1], [0.1, -0.2], [], [[0.1, 0.2]]])
def test_bad_prices_are_refused(bad):
    with pytest.raises((ValueError, TypeError), match="paging"):
        as_paging(bad, 2)


# ---- the link


@given(
    st.floats(0, 10),
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 3000)), max_size=20),
)
def test_link_is_a_first_come_first_served_queue(free_s, requests):
    """Against the definition: a transfer starts when it was asked for and all earlier ones have ended."""
    link, now_s, ends = Link(free_s), 0.0, [free_s]
    for gap_s, ms in requests:
        now_s += gap_s
        start_s, end_s = link.request(now_s, ms)
        assert start_s == max([now_s, *ends])
        assert end_s == pytest.approx(start_s + ms / 1000)
        ends.append(end_s)


@pytest.mark.parametrize(("now_s", "ms"), [(math.nan, 1.0), (0.0, -1.0), (0.0, math.inf), (None, 1.0)])
def test_link_is_unchanged_by_a_refused_request(now_s, ms):
    link = Link()
    link.request(1.0, 500.0)
    with pytest.raises((ValueError, TypeError)):
        link.request(now_s, ms)
    assert link.request(0.0, 0.0) == (1.5, 1.5)
