"""Linear policies against plain numpy: scores, choices, sums, forgetting, the pruned argmax, and hostile numbers."""

import contextlib
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from recorded import digits, llmrouter9, pareto4

from banditroute import DiagLinUCB, EpsilonGreedy, LinTS, LinUCB, Stream, UnknownArm
from banditroute._core.kernels import layout
from banditroute._core.kernels import linear as k
from banditroute.simulation import homes
from naive_linear import NaiveLinUCB, differences


def fed(policy, n, seed, *, scale=1.0):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        policy.update(
            int(rng.integers(len(policy.arms))), scale * rng.standard_normal(policy.dim), float(rng.random())
        )
    return policy


def bits(policy):
    header, arrays = policy.to_state()
    return header, {name: array.tobytes() for name, array in arrays.items()}


# -- what the issue asks for, in short; benchmarks/bars_core.py has the full lengths ---------------------------------


@pytest.mark.parametrize("ridge", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("discount", [1.0, 0.999])
def test_sums_agree_with_a_batch_solution_in_any_order(ridge, discount):
    rng = np.random.default_rng(1)
    n, arms, dim = 4000, 3, 9
    policy = LinUCB(arms, dim, alpha=0.3, ridge=ridge, prior=None, discount=discount, rng=0)
    X, R, chosen = rng.standard_normal((n, dim)), rng.standard_normal(n), rng.integers(arms, size=n)
    for i in rng.permutation(n).tolist():
        policy.update(int(chosen[i]), X[i], float(R[i]), at=i)
    span = max(policy.span, 1)
    weights = discount ** (span * ((n - 1) // span - np.arange(n) // span))
    for a in range(arms):
        w = weights * (chosen == a)
        precision = ridge * np.eye(dim) + (X * w[:, None]).T @ X
        for got, wanted in (
            (policy.precision(a), precision),
            (policy.cov(a), np.linalg.inv(precision)),
            (policy.moment[a], X.T @ (w * R)),
            (policy.theta[a], np.linalg.solve(precision, X.T @ (w * R))),
        ):
            assert np.abs(got - wanted).max() <= 1e-9 * np.abs(wanted).max()


def recorded(family, length, seed):
    try:
        return family(length, seed).stream
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("family", [digits, llmrouter9, pareto4, homes], ids=lambda family: family.__name__)
def test_decisions_equal_plain_linucb(family):
    stream = recorded(family, 1500, 3)
    for alpha in (0.3, 1.0):
        policy = LinUCB(stream.arms, stream.dim, alpha=alpha, ridge=1.0, prior=None, rng=0)
        real, _, largest = differences(policy, stream, alpha, 1.0)
        assert real == 0, largest


# -- scores and choices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [None, "means"])
@pytest.mark.parametrize("discount", [1.0, 0.98])
def test_scores_and_choices_equal_the_definition(prior, discount):
    rng = np.random.default_rng(4)
    arms, dim = 5, 7
    means = rng.standard_normal((arms, dim)) if prior else None
    policy = LinUCB(arms, dim, alpha=0.6, ridge=0.5, prior=means, discount=discount, rng=0)
    naive = NaiveLinUCB(arms, dim, 0.6, 0.5, means, discount, max(policy.span, 1))
    late = []
    for t in range(250):
        x, prices = rng.standard_normal(dim), rng.uniform(0.0, 1.0, arms)
        policy.advance(t)
        naive.advance(t)
        mean, std = naive.scores(x)
        got = policy.scores(x)
        np.testing.assert_allclose(got.mean, mean, rtol=0, atol=1e-11)
        np.testing.assert_allclose(got.width, std, rtol=1e-11)
        index = naive.index(x, prices)
        arm = policy.select(x, prices=prices).arm
        assert index[arm] >= index.max() - 1e-10
        late.append((arm, x, float(rng.standard_normal()), t))
        while late and rng.random() < 0.5:  # feedback comes late and in any order
            a, z, r, at = late.pop(int(rng.integers(len(late))))
            policy.update(a, z, r, at=at)
            naive.update(a, z, r, at=at)


@pytest.mark.parametrize("cls", [LinUCB, LinTS, DiagLinUCB])
@pytest.mark.parametrize("options", [{}, {"mix": 0.3}, {"discount": 0.97}])
def test_batches_equal_the_loop(cls, options):
    if cls is LinTS:
        options = {**options, "propensities": False}
    one, many = (fed(cls(5, 6, rng=3, **options), 100, 1) for _ in range(2))
    rng = np.random.default_rng(5)
    rows, prices, mask = rng.standard_normal((900, 6)), rng.random((900, 5)), rng.random((900, 5)) < 0.7
    mask[:, 2] = True
    for given_prices, eligible in ((None, None), (prices, mask), (prices[0], None), (None, mask[0])):
        p = None if given_prices is None else np.broadcast_to(given_prices, (900, 5))
        e = None if eligible is None else np.broadcast_to(eligible, (900, 5))
        loop = [
            one.select(x, prices=None if p is None else p[i], eligible=None if e is None else e[i])
            for i, x in enumerate(rows)
        ]
        arms, propensities = many.select_batch(rows, prices=given_prices, eligible=eligible)
        assert arms.tolist() == [choice.arm for choice in loop]
        np.testing.assert_array_equal(propensities, [choice.propensity for choice in loop])
    both = many.scores_batch(rows[:70])
    each = [one.scores(x) for x in rows[:70]]
    assert np.array_equal(both.mean, [s.mean for s in each])
    assert np.array_equal(both.width, [s.width for s in each])


@pytest.mark.parametrize("n", [10, 500])
@pytest.mark.parametrize("options", [{}, {"discount": 0.97}, {"alpha": 0.3, "ridge": 1.0, "prior": None}])
def test_learning_a_batch_equals_the_loop(n, options):
    rng = np.random.default_rng(6)
    loop, batch = (fed(LinUCB(4, 6, rng=3, **options), 30, 1) for _ in range(2))
    rows, arms, rewards = rng.standard_normal((n, 6)), rng.integers(4, size=n), rng.random(n)
    for x, a, r in zip(rows, arms.tolist(), rewards.tolist(), strict=True):
        loop.update(a, x, r)
    batch.update_batch(rows, arms, rewards)
    assert np.array_equal(loop.counts, batch.counts)
    for a in range(4):
        gram = [p.precision(a) - p.ridge * np.eye(6) for p in (loop, batch)]
        np.testing.assert_allclose(gram[1], gram[0], rtol=0, atol=1e-10)
    np.testing.assert_allclose(batch.moment, loop.moment, rtol=0, atol=1e-11)
    if options.get("prior", "") is None:
        np.testing.assert_allclose(batch.theta, loop.theta, rtol=0, atol=1e-11)
        np.testing.assert_allclose(batch.cov(2), loop.cov(2), rtol=0, atol=1e-12)


# -- the pruned argmax ------------------------------------------------------------------------------------------------


def scenarios(rng):
    """Yield (policy, draw a context): sizes, widths, priors and kinds of context that could fool a bound."""
    while True:
        arms, dim = int(rng.choice([1, 2, 3, 7, 8, 9, 20, 70])), int(rng.choice([1, 2, 5, 8, 9, 17]))
        cls = [LinUCB, LinTS, DiagLinUCB][int(rng.integers(3))]
        options = {
            "alpha": [0.0, 1e-3, 0.3, 1.0, 30.0, "auto"][int(rng.integers(6))],
            "ridge": [1e-3, 0.1, 1.0, 10.0, "auto"][int(rng.integers(5))],
            "prior": [None, "pooled"][int(rng.integers(2))],
            "discount": [1.0, 1.0, 0.98, 0.7][int(rng.integers(4))],
            "mix": [0.0, 0.0, 0.2][int(rng.integers(3))],
        }
        if cls is LinTS:
            options["propensities"] = False
        kind, scale = int(rng.integers(5)), 10.0 ** float(rng.choice([-6.0, 0.0, 0.0, 3.0, 4.5]))
        basis, atoms = rng.standard_normal((max(1, dim // 2), dim)), rng.standard_normal((4, dim))

        def draw(kind=kind, scale=scale, basis=basis, atoms=atoms, dim=dim):
            if kind == 0:
                return scale * rng.standard_normal(dim)
            if kind == 1:  # one component: whole directions stay cold
                return scale * np.eye(dim)[int(rng.integers(dim))]
            if kind == 2:  # a subspace, and now and then what is orthogonal to it
                x = rng.standard_normal(len(basis)) @ basis
                if rng.random() < 0.2:
                    x = rng.standard_normal(dim)
                    x -= np.linalg.pinv(basis) @ (basis @ x)
                return scale * x
            if kind == 3:  # a few contexts again and again: ties
                return scale * atoms[int(rng.integers(4))]
            return (
                np.zeros(dim) if rng.random() < 0.1 else scale * (atoms[0] + 1e-6 * rng.standard_normal(dim))
            )

        yield cls(arms, dim, rng=int(rng.integers(1 << 30)), **options), draw


def prune_differences(decisions, seed):
    """Return (decisions, differences, arms evaluated, arms): the pruned choice against the full scan on equal states."""
    rng = np.random.default_rng(seed)
    made = different = evaluated = scanned = 0
    for policy, draw in scenarios(rng):
        count, s = len(policy.arms), policy.buffer
        twins = rng.random() < 0.4  # arms that learn the same tie at every turn
        for t in range(int(rng.choice([20, 200, 1000]))):
            x = draw()
            offers = np.zeros(0)
            if rng.random() < 0.6:
                offers = (
                    rng.choice([0.0, 0.1, 1.0], size=count)
                    if rng.random() < 0.5
                    else rng.standard_normal(count)
                )
                offers[rng.random(count) < 0.3] = np.inf
                offers[int(rng.integers(count))] = 0.0
            if s[layout.H_CURSOR] >= s[layout.H_ROWS]:
                policy.draw_noise()
            cursor = s[layout.H_CURSOR]
            full = k.choose(s, x, offers, False), s[layout.H_PROPENSITY]
            s[layout.H_CURSOR] = cursor
            pruned = k.choose(s, x, offers, True), s[layout.H_PROPENSITY]
            made += 1
            same = full[0] == pruned[0] and np.array_equal(full[1], pruned[1], equal_nan=True)
            different += not (same and full[0] >= 0)
            evaluated += int(s[layout.H_EVALUATED])
            scanned += count
            reward = float(rng.random())
            for arm in range(count) if twins and t % 5 == 0 else [pruned[0]]:
                policy.update(arm, x, reward, at=t)
            if made == decisions:
                return made, different, evaluated, scanned
    raise AssertionError("scenarios end only when the decisions do")


def test_pruned_choice_is_that_of_the_full_scan():
    made, different, evaluated, scanned = prune_differences(20_000, seed=0)
    assert made == 20_000
    assert different == 0
    assert evaluated < 0.8 * scanned  # and something was pruned


# -- hostile numbers --------------------------------------------------------------------------------------------------

EXTREME = st.sampled_from([0.0, -0.0, 5e-324, 1e-300, 1e-160, 1e-20, 1.0, -1.0, 1e3, 9e5, -9e5])


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.lists(EXTREME, min_size=3, max_size=3),
            st.sampled_from([0.0, 1.0, -1.0, 1e-300, 1e20, -1e30, 1e30]),
            st.sampled_from([1.0, 1e-300, 1e-10, 1e10, 1e30]),
        ),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from([{}, {"discount": 0.5}, {"alpha": 1.0, "ridge": 1e-6, "prior": None}, {"ridge": 1e30}]),
)
def test_accepted_feedback_never_poisons(feedback, options):
    policy = LinUCB(3, 3, rng=0, **options)
    taken = 0
    for arm, x, reward, weight in feedback:
        if np.linalg.norm(x) < 1e6:
            policy.update(arm, x, reward, weight=weight)
            taken += 1
        else:
            with pytest.raises(ValueError, match="max_norm"):
                policy.update(arm, x, reward, weight=weight)
    assert policy.counts.sum() == taken
    for x in ([1.0, -1.0, 0.5], [0.0, 0.0, 0.0], [5e5, 5e5, -5e5], [1e-200, 0.0, 0.0]):
        scores = policy.scores(x)
        assert np.isfinite(scores.mean).all()
        assert np.isfinite(scores.width).all()
        assert policy.propensities(x).sum() == pytest.approx(1.0)
        assert 0 <= policy.select(x).arm < 3


def test_largest_norm_is_accepted_on_every_path():
    # Rounding must not make the kernel refuse what the border let pass: it would ask for ever.
    rng = np.random.default_rng(2)
    policy = LinUCB(3, 7, max_norm=3.0, rng=0)
    for _ in range(500):
        x = rng.standard_normal(7)
        x *= 3.0 / np.linalg.norm(x)
        for form in (x, x.tolist(), x * (1.0 + 3e-16)):
            for call in (
                policy.scores,
                policy.propensities,
                policy.select,
                lambda z: policy.update(0, z, 1.0),
            ):
                with contextlib.suppress(ValueError):
                    call(form)
    with pytest.raises(ValueError, match=r"norm <= max_norm = 3, got 3\.1"):
        policy.select([3.1, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda p: p.select([np.nan, 0.0]), ValueError, "x must be finite, got nan at index 0"),
        (lambda p: p.select([0.0]), ValueError, r"x must have shape \(2,\), got \(1,\)"),
        (lambda p: p.select([1e200, 0.0]), ValueError, r"x must have norm <= max_norm = 1e\+06, got 1e\+200"),
        (lambda p: p.select(["a", "b"]), TypeError, "x must hold real numbers, got dtype <U1"),
        (lambda p: p.select([1, 0], prices=[1.0]), ValueError, r"prices must have shape \(3,\), got \(1,\)"),
        (
            lambda p: p.select([1, 0], prices=[1e60, 0, 0]),
            ValueError,
            r"prices must be in .* got 1e\+60 at index 0",
        ),
        (
            lambda p: p.select([1, 0], eligible=[1, 0, 1]),
            TypeError,
            "eligible must be a boolean mask, got dtype int",
        ),
        (
            lambda p: p.select([1, 0], eligible=[False] * 3),
            ValueError,
            "eligible must allow at least one arm",
        ),
        (lambda p: p.update(0, [1, 0], np.nan), ValueError, "reward must be a finite number, got nan"),
        (lambda p: p.update(0, [1, 0], 10**400), ValueError, "reward must be .* got an integer of 1329 bits"),
        (
            lambda p: p.update(0, [1, 0], 1e60),
            ValueError,
            r"reward must be in \[-1e\+30, 1e\+30\], got 1e\+60",
        ),
        (lambda p: p.update(0, [1, 0], 1.0, weight=0), ValueError, r"weight must be in \(0, 1e\+30\], got 0"),
        (lambda p: p.update(3, [1, 0], 1.0), UnknownArm, r"arm must be in \[0, 2\], got 3"),
        (lambda p: p.update("x", [1, 0], 1.0), UnknownArm, r"arm must be one of \['0', '1', '2'\], got 'x'"),
        (lambda p: p.update(0, np.array([1.0, 0.0]), 1.0, at=-3), ValueError, "at must be .* got -3"),
        (
            lambda p: p.update(0, np.array([1.0, 0.0]), 1.0, at=2.7),
            TypeError,
            "at must be an integer, got 2.7",
        ),
        (lambda p: p.add_arm(""), ValueError, "name must be non-empty, got ''"),
        (lambda p: p.select_batch(3), ValueError, r"contexts must have shape \(n, 2\), got \(\)"),
        (lambda p: LinUCB(2, 2, ridge=0.0), ValueError, r"ridge must be in \[1e-30, 1e\+30\], got 0"),
        (lambda p: LinUCB(2, 2, discount=0.0), ValueError, r"discount must be in \(0, 1\], got 0"),
        (lambda p: LinUCB(2, 2, prior="zero"), ValueError, "prior must be 'pooled', None or means of shape"),
        (
            lambda p: LinUCB(2, 2, prior=np.ones((3, 2))),
            ValueError,
            r"prior must have shape \(2, 2\), got \(3, 2\)",
        ),
        (lambda p: LinUCB(2, 2, max_norm=1e200), ValueError, r"max_norm must be in \(0, 1e\+30\]"),
        (lambda p: LinUCB(["a", "a"], 2), ValueError, "arms must be distinct, got 'a' twice"),
        (lambda p: LinUCB("ab", 2), TypeError, "arms must be a count or a sequence of strings, got 'ab'"),
    ],
)
def test_messages_name_argument_rule_and_value(call, error, message):
    policy = fed(LinUCB(3, 2, rng=0), 20, 0)
    before = bits(policy)
    with pytest.raises(error, match=message):
        call(policy)
    assert bits(policy) == before


def test_refused_request_draws_nothing_where_noise_runs_out():
    policy = LinUCB(3, 2, mix=0.5, rng=0)
    policy.select_batch(np.ones((4096, 2)))
    assert policy.buffer[layout.H_CURSOR] == policy.buffer[layout.H_ROWS]
    before = bits(policy)
    for x in (np.array([np.nan, 0.0]), np.array([1e9, 0.0]), np.ones(3), [np.inf, 0.0]):
        for options in ({}, {"prices": np.ones(3)}):
            with pytest.raises(ValueError, match="x must"):
                policy.select(x, **options)
    assert bits(policy) == before


def test_read_only_masks_and_prices():
    policy = LinUCB(3, 2, rng=0)
    prices, mask = np.array([0.3, 0.1, 0.2]), np.array([True, False, True])
    wanted = policy.propensities([1.0, 0.0], prices=prices, eligible=mask)
    prices.flags.writeable = mask.flags.writeable = False
    np.testing.assert_array_equal(policy.propensities([1.0, 0.0], prices=prices, eligible=mask), wanted)
    assert policy.select([1.0, 0.0], prices=prices, eligible=mask).arm == 2
    assert policy.select([1.0, 0.0], prices=prices).arm == 1


# -- clocks, copies, saving ---------------------------------------------------------------------------------------------


def test_rewind_keeps_what_was_learned_at_full_weight():
    policy = LinUCB(2, 3, discount=0.9, alpha=0.1, ridge=1.0, prior=None, rng=0)
    for at in range(500):
        policy.update(at % 2, np.ones(3), 1.0, at=at)
    before = policy.scores(np.ones(3))
    policy.rewind()
    for got, wanted in zip(policy.scores(np.ones(3)), before, strict=True):
        np.testing.assert_array_equal(got, wanted)
    fresh = LinUCB(2, 3, discount=0.9, alpha=0.1, ridge=1.0, prior=None, rng=0)
    for at in range(30):  # a new clock counts its own decisions as now, not as 500 ago
        policy.update(0, np.array([1.0, -1.0, 0.0]), 1.0, at=at)
        fresh.update(0, np.array([1.0, -1.0, 0.0]), 1.0, at=at)
    assert policy.scores([1.0, -1.0, 0.0]).mean[0] == pytest.approx(
        fresh.scores([1.0, -1.0, 0.0]).mean[0], abs=0.01
    )


def test_far_future_forgets_everything_but_the_ridge():
    policy = LinUCB(2, 3, discount=0.9, alpha=0.1, ridge=2.0, prior=None, rng=0)
    fed(policy, 200, 3)
    policy.advance(10**9)
    np.testing.assert_allclose(policy.precision(0), 2.0 * np.eye(3), atol=1e-12)
    np.testing.assert_allclose(policy.scores([1.0, 0.0, 0.0]).width, np.sqrt(0.5), rtol=1e-12)
    policy.update(0, [1.0, 0.0, 0.0], 1.0, at=0)  # a billion decisions late: weighs nothing, harms nothing
    np.testing.assert_allclose(policy.precision(0), 2.0 * np.eye(3), atol=1e-12)


def test_copies_are_independent_and_cross_processes():
    policy = fed(LinUCB(3, 2, mix=0.5, rng=1), 50, 2)
    policy.select([1.0, 0.0])
    received = object.__new__(LinUCB)  # as another process makes it of what it was sent
    received.__setstate__(deepcopy(policy.__getstate__()))
    for other in (policy.copy(), received):
        mine = policy.copy()
        rows = np.random.default_rng(0).standard_normal((5000, 2))
        assert mine.select_batch(rows)[0].tolist() == other.select_batch(rows)[0].tolist()
        before = bits(policy)
        fed(other, 10, 4)
        assert bits(policy) == before


@pytest.mark.parametrize("field", ["arms", "dim", "policy"])
def test_foreign_state_is_refused(field):
    policy = fed(LinUCB(3, 2, rng=1), 50, 2)
    header, arrays = LinUCB(3, 2, rng=0).to_state()
    header[field] = {"arms": ["a", "b"], "dim": 5, "policy": "LinTS"}[field]
    before = bits(policy)
    with pytest.raises(ValueError, match="must"):
        policy.load_state(header, arrays)
    assert bits(policy) == before


OFFSETS = [
    getattr(k, name)
    for name in dir(k)
    if name in ("H_THETA", "H_COV", "H_GRAM", "H_QUEUE", "H_MOMENT", "H_PRIOR", "H_ARM", "H_NOISE", "H_WORK")
]


@pytest.mark.parametrize("slot", OFFSETS)
def test_offsets_are_never_taken_from_outside(slot):
    # The kernels trust the offsets in the header: a damaged file must not make them read or write elsewhere.
    policy = fed(LinUCB(3, 2, rng=1), 50, 2)
    loaded = LinUCB(3, 2, rng=0)
    header, arrays = policy.to_state()
    arrays["header"][slot] += 1e6
    loaded.load_state(header, arrays)
    assert bits(loaded) == bits(policy)
    assert bits(fed(loaded, 20, 3)) == bits(fed(policy, 20, 3))


@pytest.mark.parametrize("queued", [1e6, -1.0, 0.5, layout.QUEUE])
def test_a_queue_that_does_not_fit_is_refused(queued):
    policy = fed(LinUCB(3, 2, rng=1), 53, 2)
    header, arrays = policy.to_state()
    arrays["arm"][0, layout.A_QUEUED] = queued  # would send the kernel beyond the queue
    before = bits(policy)
    with pytest.raises(ValueError, match="that wait"):
        policy.load_state(header, arrays)
    assert bits(policy) == before


def test_looking_at_the_state_does_not_change_how_sums_are_grouped():
    looked, alone = (fed(LinUCB(3, 2, rng=1), 53, 2) for _ in range(2))
    looked.to_state()
    loaded = LinUCB(3, 2, rng=0)
    loaded.load_state(*looked.to_state())
    wanted = bits(fed(alone, 200, 3))
    assert bits(fed(looked, 200, 3)) == wanted
    assert bits(fed(loaded, 200, 3)) == wanted


@pytest.mark.parametrize(
    ("slot", "value"),
    [(layout.H_CURSOR, -5.0), (layout.H_CURSOR, 1e9), (layout.H_SPAN, 0.0), (layout.H_RIDGE, np.nan)],
)
def test_state_with_impossible_settings_is_refused(slot, value):
    policy = fed(LinUCB(3, 2, rng=1), 50, 2)
    header, arrays = policy.to_state()
    arrays["header"][slot] = value
    with pytest.raises(ValueError, match="header"):
        policy.load_state(header, arrays)


def test_streams_that_cannot_be_written_to():
    from banditroute import simulate

    rng = np.random.default_rng(0)
    contexts, means = rng.standard_normal((300, 4)), rng.random((300, 3))
    plain = simulate(LinUCB(3, 4, rng=0), Stream(contexts, means, means, ("a", "b", "c")))
    for array in (contexts, means):
        array.flags.writeable = False
    frozen = simulate(LinUCB(3, 4, rng=0), Stream(contexts, means, means, ("a", "b", "c")))
    assert np.array_equal(plain.arms, frozen.arms)


@pytest.mark.parametrize("offered", ["nothing", "prices", "eligible", "both", "each"])
@pytest.mark.parametrize("exact", [True, False])
def test_a_batch_of_thompson_sampling_is_the_loop_with_its_propensities(offered, exact):
    policy = fed(LinTS(4, 3, mix=0.1, propensities=exact, rng=3), 60, 5)
    rows = np.random.default_rng(6).standard_normal((9, 3))
    prices, mask = np.array([0.0, 0.1, 0.2, 0.05]), np.array([True, False, True, True])
    each = np.random.default_rng(7).random((9, 4))
    options = {
        "nothing": {},
        "prices": {"prices": prices},
        "eligible": {"eligible": mask},
        "both": {"prices": prices, "eligible": mask},
        "each": {"prices": each, "eligible": each > 0.2},
    }[offered]
    twin = policy.copy()
    arms, propensities = policy.select_batch(rows, **options)
    alone = [
        twin.select(x, **{n: v if v.ndim == 1 else v[i] for n, v in options.items()})
        for i, x in enumerate(rows)
    ]
    assert arms.tolist() == [c.arm for c in alone]
    np.testing.assert_array_equal(propensities, [c.propensity for c in alone])  # both NaN without `exact`
    assert np.isnan(propensities).any() != exact
    # The header tells what the last choice of the kernel was and how many arms it looked at: no state.
    assert bits(policy)[0] == bits(twin)[0]


HOSTILE = {
    "theta": lambda a: a["theta"].__setitem__((1, 0), np.nan),
    "cov": lambda a: a["cov"].__setitem__((0, 3), np.inf),
    "gram": lambda a: a["gram"].__setitem__((0, 0), np.nan),
    "moment": lambda a: a["moment"].__setitem__((0, 0), -np.inf),
    "prior": lambda a: a["prior"].__setitem__((0, 0), np.nan),
    "radius": lambda a: a["arm"].__setitem__((0, layout.A_RADIUS), np.nan),
    "count": lambda a: a["arm"].__setitem__((0, layout.A_COUNT), -1.0),
    "noise": lambda a: a["noise"].__setitem__(0, np.nan),
    "no theta": lambda a: a.pop("theta"),
    "no header": lambda a: a.pop("header"),
    "flat theta": lambda a: a.update(theta=a["theta"].ravel()),
    "alpha": lambda a: a["header"].__setitem__(layout.H_ALPHA, np.nan),
    "ridge": lambda a: a["header"].__setitem__(layout.H_RIDGE, np.inf),
    "mix": lambda a: a["header"].__setitem__(layout.H_MIX, 1.5),
    "clock": lambda a: a["header"].__setitem__(layout.H_CLOCK, 1e300),
    "span": lambda a: a["header"].__setitem__(layout.H_SPAN, np.inf),
    "refresh": lambda a: a["header"].__setitem__(layout.H_REFRESH, np.nan),
    "sigma": lambda a: a["header"].__setitem__(layout.H_SIGMA2, np.nan),
    "sampling": lambda a: a["header"].__setitem__(
        layout.H_SAMPLE, 1.0
    ),  # and no normal numbers to sample with
}


@pytest.mark.parametrize("change", HOSTILE)
@pytest.mark.parametrize("make", [LinUCB, DiagLinUCB])
def test_a_state_that_makes_no_sense_is_refused(make, change):
    header, arrays = fed(make(3, 2, rng=0), 40, 1).to_state()
    HOSTILE[change](arrays)
    policy = fed(make(3, 2, rng=5), 20, 2)
    before = bits(policy)
    with pytest.raises(ValueError):
        policy.load_state(header, arrays)
    assert bits(policy) == before


@pytest.mark.parametrize(
    "make",
    [
        LinUCB,
        LinTS,
        DiagLinUCB,
        EpsilonGreedy,
        lambda *a, **o: LinUCB(*a, alpha=1.0, ridge=1.0, prior=None, **o),
    ],
)
def test_every_state_that_a_policy_writes_is_taken_back(make):
    # Also before the first reward, right after a choice (which leaves NaN in the header of LinTS), and after rewards
    # and weights at the limit.
    policy = make(3, 2, rng=0)
    for reward, weight in ((0.5, 1.0), (1e30, 1e30), (-1e30, 1e-300)):
        for _ in range(30):
            again = make(3, 2, rng=9)
            again.load_state(*policy.to_state())
            assert bits(again) == bits(policy)
            chosen = policy.select([0.3, -0.9e6 if weight > 1.0 else 0.2])
            policy.update(chosen.arm, [0.3, 0.7e6 if weight > 1.0 else 0.2], reward, weight=weight)
