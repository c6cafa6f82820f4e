"""Kernels of the linear policies: compiled == their Python source == plain numpy."""

import sys

import numpy as np
import pytest

from banditroute import DiagLinUCB, LinUCB
from banditroute._core.kernels import derived, inverses, layout, tiles
from banditroute._core.kernels import linear as k
from banditroute._core.kernels import refresh as refreshing
from banditroute.policies.linear_state import LinearState
from naive_linear import NaiveLinUCB

PADS = (8, 16, 24, 40, 136)


def packed_size(n):
    return n * (n + 8) // 2


def symmetric(rng, n, condition=1e3):
    """Return a positive definite matrix with eigenvalues in [1 / condition, 1]."""
    q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    full = (q * np.geomspace(1.0 / condition, 1.0, n)) @ q.T
    return (full + full.T) / 2


def packed(full):
    n = len(full)
    out = np.empty(packed_size(n))
    tiles.pack(full.ravel().copy(), out, n)
    return out


def unpacked(p, n):
    out = np.empty(n * n)
    tiles.unpack(p, out, n)
    return out.reshape(n, n)


def both(kernel):
    """Return the compiled kernel and its source (the same where compilation is switched off)."""
    return kernel, getattr(kernel, "py_func", kernel)


@pytest.fixture
def rng():
    return np.random.default_rng(20)


@pytest.mark.parametrize("n", PADS)
def test_packing_is_exact_and_symmetric(rng, n):
    full = symmetric(rng, n)
    p = packed(full)
    assert np.array_equal(unpacked(p, n), full)
    for pack, unpack in zip(both(tiles.pack), both(tiles.unpack), strict=True):
        q, again = np.empty_like(p), np.empty(n * n)
        pack(full.ravel().copy(), q, n)
        unpack(q, again, n)
        assert np.array_equal(q, p)
        assert np.array_equal(again.reshape(n, n), full)


@pytest.mark.parametrize("n", PADS)
def test_products(rng, n):
    full, x, y = symmetric(rng, n), rng.standard_normal(n), rng.standard_normal(n)
    p, out = packed(full), np.empty(n)
    for dot in both(tiles.dot):
        assert dot(x, y) == pytest.approx(x @ y, rel=1e-13, abs=1e-13)
    for quadratic in both(tiles.quadratic):
        assert quadratic(p, x) == pytest.approx(x @ full @ x, rel=1e-13)
        assert quadratic(np.diag(full).copy(), x) == pytest.approx(np.diag(full) @ x**2, rel=1e-13)
    for product in both(tiles.product):
        product(p, x, out)
        np.testing.assert_allclose(out, full @ x, rtol=0, atol=1e-13 * n)
        product(np.diag(full).copy(), x, out)
        np.testing.assert_allclose(out, np.diag(full) * x, rtol=1e-15)


def test_width_is_never_negative():
    p = packed(-np.eye(8))
    assert tiles.quadratic(p, np.ones(8)) == 0.0


@pytest.mark.parametrize("n", PADS)
def test_rank_one_is_symmetric_to_the_last_bit(rng, n):
    for add_outer in both(tiles.add_outer):
        p, diagonal, full = np.zeros(packed_size(n)), np.zeros(n), np.zeros((n, n))
        for sign in (1.0, 1.0, -1.0, 1.0, -1.0):
            u = rng.standard_normal(n) * 10.0 ** rng.integers(-6, 6)
            add_outer(p, u, sign)
            add_outer(diagonal, u, sign)
            full += sign * np.outer(u, u)
            scale = np.abs(full).max()
            np.testing.assert_allclose(unpacked(p, n), full, rtol=0, atol=1e-14 * scale)
            np.testing.assert_allclose(diagonal, np.diag(full), rtol=0, atol=1e-14 * scale)
            # unpacking mirrors what is stored once; the tiles on the diagonal are stored whole and must agree
            diagonal_tiles = np.array([unpacked(p, n)[m : m + 8, m : m + 8] for m in range(0, n, 8)])
            offset = 0
            for tile, m in zip(diagonal_tiles, range(0, n, 8), strict=True):
                rows = [p[offset + i * (m + 8) + m : offset + (i + 1) * (m + 8)] for i in range(8)]
                assert np.array_equal(np.array(rows), np.array(rows).T)
                assert np.array_equal(np.array(rows), tile)
                offset += 8 * (m + 8)


@pytest.mark.parametrize("arms", [1, 2, 7, 8, 9, 15, 16, 17, 50])
@pytest.mark.parametrize("n", [8, 24, 72])
def test_means_of_equal_rows_are_equal_bits(rng, arms, n):
    theta, x, out = rng.standard_normal((arms, n)), rng.standard_normal(n), np.empty(arms)
    for means in both(tiles.means):
        means(theta.ravel(), x, out)
        np.testing.assert_allclose(out, theta @ x, rtol=0, atol=1e-13 * n)
        means(np.tile(theta[0], arms), x, out)
        assert len(set(out.tolist())) == 1


@pytest.mark.parametrize("n", PADS)
@pytest.mark.parametrize("condition", [1.0, 1e3, 1e9])
def test_inverse(rng, n, condition):
    full = symmetric(rng, n, condition)
    for cholesky_inverse in both(inverses.cholesky_inverse):
        inverse = np.empty(n * n)
        cholesky_inverse(full.ravel().copy(), inverse, n, 0.5 / condition)
        got = inverse.reshape(n, n)
        assert np.array_equal(got, got.T)
        np.testing.assert_allclose(got @ full, np.eye(n), rtol=0, atol=1e-15 * n * condition)


@pytest.mark.parametrize("scale", 10.0 ** np.arange(8, 40, 4))
@pytest.mark.parametrize("n", [8, 40])
def test_inverse_stays_positive_where_rounding_eats_the_ridge(rng, scale, n):
    for rank in (1, 3):
        rows = rng.standard_normal((rank, n)) * 10.0 ** rng.uniform(-3, 0, n)
        full, inverse = scale * rows.T @ rows + np.eye(n), np.empty(n * n)
        inverses.cholesky_inverse(((full + full.T) / 2).ravel(), inverse, n, 1.0)
        values = np.linalg.eigvalsh(inverse.reshape(n, n))
        assert values.max() <= 1.01  # 1 / floor
        assert values.min() > -1e-14


@pytest.mark.parametrize("tilt", [1e-3, 1.0, 1e3])
def test_nearly_collinear_contexts_of_norm_a_million(rng, tilt):
    policy = LinUCB(2, 12, alpha=0.5, ridge=0.01, prior=None, rng=0)
    along = np.full(12, 1.0 / np.sqrt(12.0))
    for t in range(600):
        x = 9.9e5 * along + tilt * rng.standard_normal(12)
        policy.update(0, x, float(rng.standard_normal()))
        if t % 20 == 0:
            values = np.linalg.eigvalsh(policy.cov(0))
            assert values.min() > -1e-14 and values.max() <= policy.state.arm[0, layout.A_RADIUS] ** 2 * (
                1.0 + 1e-12
            )
            # The squared width of one of t + 1 contexts is 1 / (t + 1) if they are collinear, 12 / (t + 1) on average.
            assert 0.5 < (t + 1) * policy.scores(x).width[0] ** 2 < 50.0


# -- statistics of a whole state ------------------------------------------------------------------------------------


def fed(rng, *, arms=4, dim=11, n=300, cls=LinUCB, weights=False, late=False, **options):
    """Return a policy and its naive twin after n rewards."""
    options = {"alpha": 0.4, "ridge": 0.7, "prior": rng.standard_normal((arms, dim)), **options}
    policy = cls(arms, dim, rng=0, **options)
    span = max(policy.span, 1)
    naive = NaiveLinUCB(
        arms, dim, policy.alpha, policy.ridge, options["prior"], options.get("discount", 1.0), span
    )
    order = np.arange(n) + (rng.integers(0, 80, n) if late else 0)
    for at in np.argsort(order, kind="stable").tolist():
        arm, x, reward = int(rng.integers(arms)), rng.standard_normal(dim), float(rng.standard_normal())
        weight = float(rng.uniform(0.2, 3.0)) if weights else 1.0
        policy.update(arm, x, reward, weight=weight, at=at)
        naive.update(arm, x, reward, weight, at)
    return policy, naive


@pytest.mark.parametrize(
    "options", [{}, {"weights": True}, {"weights": True, "discount": 0.97, "late": True}]
)
def test_state_equals_its_definition(rng, options):
    policy, naive = fed(rng, **options)
    state = policy.state
    for a in range(4):
        S, b, weight, square = naive.sums(a)
        cov, theta = naive.solution(a)
        np.testing.assert_allclose(policy.precision(a), S + 0.7 * np.eye(11), rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(state.moment[a, :11], b, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(
            state.arm[a, [layout.A_WEIGHT, layout.A_SQUARE]], [weight, square], rtol=1e-12
        )
        np.testing.assert_allclose(policy.cov(a), cov, rtol=0, atol=1e-12)
        np.testing.assert_allclose(policy.theta[a], theta, rtol=0, atol=1e-11)
        assert policy.counts[a] == len(naive.evidence[a])
        assert not state.moment[a, 11:].any() and not state.theta[a, 11:].any()  # the padding stays empty


def test_learning_equals_its_source(rng):
    policy, _ = fed(rng, n=20)
    a, b = policy.state, policy.copy().state
    for at in range(40):
        arm, x, reward = int(rng.integers(4)), rng.standard_normal(11), float(rng.standard_normal())
        for learn, state in zip(both(k.learn), (a, b), strict=True):
            assert learn(state.buffer, arm, x, reward, 1.5, at) == 0
    for name in ("theta", "cov", "gram", "moment", "arm"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-12, atol=1e-13)


def test_choosing_equals_its_source(rng):
    policy, _ = fed(rng, mix=0.1)
    policy.select(np.zeros(11))
    a, b = policy.state.buffer, policy.copy().state.buffer
    for _ in range(200):
        x, offers = rng.standard_normal(11), rng.uniform(0.0, 0.5, 4)
        offers[rng.random(4) < 0.2] = np.inf
        for prune in (True, False):
            assert k.choose(a, x, offers, prune) == both(k.choose)[1](b, x, offers, prune)
            assert a[layout.H_PROPENSITY] == b[layout.H_PROPENSITY]


def test_rebuild_changes_nothing_but_rounding(rng):
    policy, _ = fed(rng)
    theta, covs = policy.theta, [policy.cov(a) for a in range(4)]
    policy.rebuild()
    np.testing.assert_allclose(policy.theta, theta, rtol=0, atol=1e-12)
    for a in range(4):
        np.testing.assert_allclose(policy.cov(a), covs[a], rtol=0, atol=1e-13)


@pytest.mark.parametrize("weights", [False, True])
def test_noise_scale_is_the_mean_of_the_scaled_prediction_errors(rng, weights):
    # One step ahead: e = reward - theta'x before learning it, q = x' A^-1 x; with weights w e^2 / (1 + w q).
    arms, dim, total, mass = 3, 6, 0.0, 0.0
    prior = rng.standard_normal((arms, dim))
    policy = LinUCB(arms, dim, alpha=0.3, ridge=0.5, prior=prior, rng=0)
    feedback = []
    for _ in range(400):
        arm, x, r = int(rng.integers(arms)), rng.standard_normal(dim), float(rng.standard_normal())
        w = float(rng.uniform(0.2, 3.0)) if weights else 1.0
        mean, std = policy.scores(x)
        total += w * (r - mean[arm]) ** 2 / (1.0 + w * std[arm] ** 2)
        mass += w
        policy.update(arm, x, r, weight=w)
        feedback.append((arm, x, r, w))
    backwards = LinUCB(arms, dim, alpha=0.3, ridge=0.5, prior=prior, rng=0)
    for arm, x, r, w in reversed(feedback):
        backwards.update(arm, x, r, weight=w)
    derived.drain_all(policy.buffer)
    derived.drain_all(backwards.buffer)
    for noise_scale in both(derived.noise_scale):
        assert noise_scale(policy.buffer) == pytest.approx(total / mass, rel=1e-10)
        assert noise_scale(backwards.buffer) == pytest.approx(total / mass, rel=1e-10)


@pytest.mark.parametrize("cls", [LinUCB, DiagLinUCB])
def test_pooled_prior_is_the_ridge_solution_on_all_arms(rng, cls):
    policy, naive = fed(rng, cls=cls, prior=np.zeros((4, 11)), weights=True)
    policy.buffer[layout.H_POOLED] = 1.0
    for refresh, state in zip(both(refreshing.refresh), (policy.state, policy.copy().state), strict=True):
        refresh(state.buffer)
        S, b = (sum(naive.sums(a)[i] for a in range(4)) for i in (0, 1))
        # The pooled model counts for one average observation: its ridge is the mean square component of the contexts.
        unit = np.trace(S) / 11 / sum(naive.sums(a)[2] for a in range(4))
        if cls is DiagLinUCB:
            S = np.diag(np.diag(S))
        prior = np.linalg.solve(state.buffer[layout.H_POOL_RIDGE] * unit * np.eye(11) + S, b)
        for a in range(4):
            np.testing.assert_allclose(state.prior[a, :11], prior, rtol=0, atol=1e-12)
            own, moment, _, _ = naive.sums(a)
            own = np.diag(np.diag(own)) if cls is DiagLinUCB else own
            theta = np.linalg.solve(0.7 * np.eye(11) + own, moment + 0.7 * prior)
            np.testing.assert_allclose(state.theta[a, :11], theta, rtol=0, atol=1e-11)


@pytest.mark.parametrize("dim", [3, 16, 37])
@pytest.mark.parametrize("discount", [1.0, 0.99])
def test_radius_bounds_every_width(rng, dim, discount):
    # Contexts in a subspace, in one direction, and everywhere; the radius must hold after every single update.
    policy = LinUCB(3, dim, alpha=0.5, ridge=0.3, discount=discount, rng=0)
    lowest, steps = np.inf, 15 * policy.state.pad
    for t in range(steps):
        x = rng.standard_normal(dim) * (np.arange(dim) < 1 + dim // 2 if t % 3 else 1.0)
        policy.update(t % 3, x, 0.0, at=t)
        if t % 7 == 0 or t > steps - 20:
            for a in range(3):
                widest = np.sqrt(np.linalg.eigvalsh(policy.cov(a)).max())
                radius = policy.state.arm[a, layout.A_RADIUS]
                assert radius >= widest
                lowest = min(lowest, radius)
    if discount == 1.0:
        assert lowest < 0.7 / np.sqrt(0.3)  # it does tighten


def test_tighten_is_a_bound_and_near(rng):
    for dim in (8, 24, 64):
        state = LinearState(1, dim, ridge=1.0)
        matrix = symmetric(rng, dim, 50.0)
        state.cov[0] = packed(matrix)
        state.arm[0, layout.A_RADIUS] = 10.0
        for tighten in both(derived.tighten):
            tighten(state.buffer, 0)
            assert 1.0 <= state.arm[0, layout.A_RADIUS] <= 1.0 * dim ** (1 / 16) * (1.0 + 1e-8)


def test_advance_multiplies_and_never_goes_back(rng):
    policy, _ = fed(rng, discount=0.99, n=120)
    ridge = 0.7 * np.eye(11)
    for advance, aged in zip(both(refreshing.advance), (policy, policy.copy()), strict=True):
        state, before = aged.state, aged.precision(1)
        bucket = state.buffer[layout.H_BUCKET]
        advance(state.buffer, bucket)
        advance(state.buffer, bucket - 1)
        assert np.array_equal(aged.precision(1), before)
        advance(state.buffer, bucket + 3)
        aging = 0.99 ** (3 * aged.span)
        np.testing.assert_allclose(aged.precision(1) - ridge, (before - ridge) * aging, rtol=0, atol=1e-12)
        for name in ("theta", "cov", "gram", "moment", "arm"):
            assert np.isfinite(getattr(state, name)).all()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((-1, [1.0] * 11, 0.0, 1.0), layout.BAD_ARM),
        ((4, [1.0] * 11, 0.0, 1.0), layout.BAD_ARM),
        ((0, [1.0] * 10, 0.0, 1.0), layout.BAD_SHAPE),
        ((0, [np.nan] * 11, 0.0, 1.0), layout.BAD_CONTEXT),
        ((0, [np.inf] + [0.0] * 10, 0.0, 1.0), layout.BAD_CONTEXT),
        ((0, [1e200] * 11, 0.0, 1.0), layout.BAD_CONTEXT),
        ((0, [1.0] * 11, np.nan, 1.0), layout.BAD_REWARD),
        ((0, [1.0] * 11, -np.inf, 1.0), layout.BAD_REWARD),
        ((0, [1.0] * 11, 0.0, 0.0), layout.BAD_WEIGHT),
        ((0, [1.0] * 11, 0.0, np.nan), layout.BAD_WEIGHT),
        ((0, [1.0] * 11, 0.0, np.inf), layout.BAD_WEIGHT),
    ],
)
def test_kernel_refuses_before_it_writes(rng, arguments, code):
    policy, _ = fed(rng, n=30)
    arm, x, reward, weight = arguments
    before = policy.state.to_arrays()
    for learn in both(k.learn):
        assert learn(policy.buffer, arm, np.array(x), reward, weight, -1) == code
    after = policy.state.to_arrays()
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_fold_adds_prices_and_closes_what_is_masked(rng):
    base = np.array([0.0, 0.25, np.inf, 1.0, 0.5])
    for fold in both(k.fold):
        for mask in (np.ones(5, dtype=np.bool_), rng.random(5) < 0.5, np.zeros(5, dtype=np.bool_)):
            given, out = rng.normal(size=5), np.empty(5)
            wanted = np.where(mask, given + base, np.inf)
            assert fold(given, mask, base, out) == np.isfinite(wanted).sum()
            assert np.array_equal(out, wanted)
            for bad in (np.full(5, np.nan), np.full(5, np.inf), np.full(5, 2e30), np.zeros(4), np.zeros(0)):
                assert fold(bad, mask, base, out) == layout.BAD_PRICES
            assert fold(given, mask[:4], base, out) == layout.BAD_PRICES
            assert fold(given, mask, base[:4], out) == layout.BAD_PRICES


def test_borrowed_arguments_keep_their_owners(rng):
    policy = LinUCB(3, 4, rng=0)
    x, offers, rows = rng.normal(size=4), np.zeros(3), rng.normal(size=(50, 4))
    held = [policy.buffer, x, offers, rows]
    before = [sys.getrefcount(array) for array in held]
    for _ in range(20):
        policy.select(x, prices=offers)
        policy.update(1, x, 0.5)
        policy.update_batch(rows, np.zeros(50, dtype=np.int64), np.ones(50))
        policy.select_batch(rows)
        policy.scores_batch(rows)
        policy.refresh()
    assert [sys.getrefcount(array) for array in held] == before
