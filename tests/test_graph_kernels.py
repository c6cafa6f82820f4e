import importlib.util

import numpy as np
import pytest

import banditroute._core.kernels as kernels
from banditroute._core.kernels import graph as g
from naive_graph import FORMS, trained

both = pytest.mark.parametrize(("estimator", "precision"), FORMS)


@pytest.fixture
def plain(monkeypatch):
    """The kernels as plain Python, all the way down."""
    monkeypatch.setattr(kernels, "kernel", lambda function: function)
    spec = importlib.util.spec_from_file_location("plain_graph", g.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@both
@pytest.mark.parametrize("among", [None, 4_000], ids=["direct", "hashed"])
def test_compiled_kernels_do_what_their_python_does(plain, estimator, precision, among):
    rng = np.random.default_rng(3)
    policy, _, log = trained(rng, estimator=estimator, init_precision=precision, among=among)
    ours = policy._edges.buffer
    theirs = ours.copy()
    noise = rng.random(40)
    for step, (item, c, w, reward) in enumerate(log):
        assert g.refused(ours, c, w) == plain.refused(theirs, c, w)
        assert g.credit(ours, c, w, item, reward, 2.0) == plain.credit(theirs, c, w, item, reward, 2.0)
        n = g.gather(ours, c, w)
        assert plain.gather(theirs, c, w) == n
        k = 1 + step % n
        for alpha in (0.0, 0.7):
            least, *counts = g.rank(ours, n, k, alpha)
            slow, *slow_counts = plain.rank(theirs, n, k, alpha)
            assert counts == slow_counts
            assert slow == pytest.approx(least, rel=1e-12)
            item, p = g.pick(ours, c, w, k, alpha, 2 * (step % 500))
            assert (item, p) == plain.pick(theirs, c, w, k, alpha, 2 * (step % 500))
            found = [(np.full(k, -1), np.zeros(k)) for _ in range(2)]
            assert g.slate(ours, c, w, k, alpha, noise[:k], *found[0]) == k
            assert plain.slate(theirs, c, w, k, alpha, noise[:k], *found[1]) == k
            np.testing.assert_array_equal(found[0][0], found[1][0])
            np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-12)
    chosen, c, w, r = (np.array(column) for column in zip(*log, strict=True))
    learned = np.zeros((2, len(r)), dtype=bool)
    assert g.credit_rows(ours, chosen, c, w, r, np.ones(len(r)), learned[0]) == -1
    assert plain.credit_rows(theirs, chosen, c, w, r, np.ones(len(r)), learned[1]) == -1
    np.testing.assert_array_equal(*learned)
    ids = np.unique(g.words(ours, g.H_ITEMS, 60)).astype(np.int64)
    places = np.zeros((2, 8 * len(ids)), dtype=np.int64)
    pairs = np.repeat(np.arange(8), len(ids)), np.tile(ids, 8)
    g.locate_rows(ours, *pairs, places[0])
    plain.locate_rows(theirs, *pairs, places[1])
    np.testing.assert_array_equal(*places)
    assert sorted(places[0][places[0] >= 0].tolist()) == list(range(60))
    policy._edges._move(100)  # leaves room behind the last cluster
    ours = policy._edges.buffer
    theirs = ours.copy()
    fresh = np.setdiff1d(np.arange(0, policy.n_items, 3), policy.neighbours(7))[:20]
    g.widen(ours, 7, fresh)
    plain.widen(theirs, 7, fresh)
    live = (np.arange(policy.n_items) % 3 > 0).astype(np.uint8)
    g.sweep(ours, np.arange(8), live)
    plain.sweep(theirs, np.arange(8), live)
    g.derive(ours)
    plain.derive(theirs)
    for block, rows in ((g.H_TRUTH, 3 * 80), (g.H_VIEW, 2 * 80)):
        np.testing.assert_allclose(g.floats(ours, block, rows), g.floats(theirs, block, rows), rtol=1e-12)
    for block in (g.H_FIRST, g.H_SIZE):
        np.testing.assert_array_equal(g.ints(ours, block), g.ints(theirs, block))
    np.testing.assert_array_equal(g.words(ours, g.H_ITEMS, 80), g.words(theirs, g.H_ITEMS, 80))


def test_the_kth_largest_is_that_of_a_sort(plain):
    rng = np.random.default_rng(5)
    for step in range(400):
        n = int(rng.integers(1, 300))
        k = int(rng.integers(1, 1 + (n if step % 2 else -(-n // 8))))
        given = rng.normal(size=n) if step % 3 else rng.integers(0, 4, n).astype(float)
        if step % 5 == 0:
            given[rng.random(n) < 0.5] = np.inf
        if step % 7 == 0:
            given.sort()
        want = np.sort(given)[-k]
        for kernels_of in (g, plain):
            assert kernels_of.largest(given, k, np.empty(n)) == want
