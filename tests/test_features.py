"""Raw requests become contexts: pure, frozen, of a good scale, and known by what they compute."""

import json
import subprocess
import sys
import time

import features as bench
import numpy as np
import pytest
from recorded import data_file

from banditroute import FileStore, LinUCB, Router, SnapshotError
from banditroute.features import Category, Embedding, Features, Fields, Fourier, HashedText, Number
from banditroute.features.base import scaled_rows

TEXTS = [
    f"question {i}: what is {i} times {i + 1}?" if i % 2 else f"Write a function that sorts {i} lists"
    for i in range(60)
]
ROWS = np.random.default_rng(0).standard_normal((80, 6)) @ np.diag([5.0, 3.0, 2.0, 1.0, 0.5, 0.1]) + 3.0
TABLES = [
    {"text": t, "size": float(i), "tier": ["free", "pro", "none"][i % 3], "more": 1}
    for i, t in enumerate(TEXTS)
]


def count(texts):
    return [[len(text), text.count("e"), text.count("1")] for text in texts]


MAPS = {
    "text": (lambda: HashedText(16), TEXTS),
    "vectors": (lambda: Embedding(components=3), ROWS),
    "whitened": (lambda: Embedding(components=3, whiten=True), ROWS),
    "scaled": (lambda: Embedding(unit=False), ROWS),
    "as they are": (lambda: Embedding(center=False), ROWS),
    "encoder": (lambda: Embedding(count, 2), TEXTS),
    "reduced text": (lambda: Embedding(HashedText(128), 5), TEXTS),
    "twice": (lambda: Embedding(Embedding(count, 3), 2, whiten=True), TEXTS),
    "waves": (lambda: Fourier(Embedding(components=3), 20), ROWS),
    "number": (lambda: Number(), [1.0, 2.0, 4.0, None]),
    "log": (lambda: Number(0, 1000, log=True), [1.0, 2.0, 4.0, None]),
    "category": (lambda: Category(["a", "b"]), ["a", "b", "c", None]),
    "hashed": (lambda: Category(dim=9), ["a", "b", "c", None]),
    "table": (
        lambda: Fields(
            {
                "text": Embedding(HashedText(64), 4),
                "size": Number(log=True),
                "tier": Category(["free", "pro"]),
            }
        ),
        TABLES,
    ),
}


@pytest.fixture(params=MAPS)
def case(request):
    make, sample = MAPS[request.param]
    return make, sample


def fitted(case):
    make, sample = case
    new = make()
    return new if new.fitted else new.fit(sample)


def test_contexts_have_their_length_and_a_good_scale(case):
    one = fitted(case)
    rows = one.batch(case[1])
    assert rows.shape == (len(case[1]), one.dim)
    assert np.isfinite(rows).all()
    norms = np.linalg.norm(rows, axis=1)
    assert 0.3 < np.sqrt((norms**2).mean()) < 1.2
    assert norms.max() < 4.0


def test_one_request_is_as_in_a_batch_and_nothing_is_remembered(case):
    one = fitted(case)
    before = one.fingerprint()
    rows = one.batch(case[1])
    for request, row in zip(case[1], rows, strict=True):
        assert one(request) == pytest.approx(row, abs=1e-12)
    assert np.array_equal(one.batch(case[1]), rows)
    assert one.batch(case[1][::-1])[::-1] == pytest.approx(rows, abs=1e-12)
    assert one.batch(case[1][:0]).shape == (0, one.dim)
    assert one.fingerprint() == before


def test_two_fits_agree_and_one_map_is_fitted_once(case):
    one, two = fitted(case), fitted(case)
    assert one.fingerprint() == two.fingerprint()
    assert np.array_equal(one.batch(case[1]), two.batch(case[1]))
    if not case[0]().fitted:
        with pytest.raises(ValueError, match="fit must be called once"):
            one.fit(case[1])


def test_state_is_plain_data_and_brings_a_map_back(case, tmp_path):
    one, make = fitted(case), case[0]
    header, arrays = one.to_state()
    assert json.loads(json.dumps(header)) == header
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    two = make()
    two.load_state(header, arrays)
    assert np.array_equal(one.batch(case[1]), two.batch(case[1]))
    one.save(tmp_path / "map")
    three = make().load(tmp_path / "map")
    assert three.fingerprint() == one.fingerprint()
    one.load_state(header, arrays)  # its own, again
    for array in arrays.values():  # copies
        array += 1.0
    assert one.fingerprint() == three.fingerprint()


def test_a_state_of_another_map_is_refused(case):
    one = fitted(case)
    header, arrays = one.to_state()
    before = one.fingerprint()
    for wrong in (
        {**header, "format": 9},
        {**header, "kind": "Other"},
        {**header, "settings": {}},
        {},
    ):
        with pytest.raises(ValueError, match="must be"):
            one.load_state(wrong, arrays)
    if arrays:
        name = next(iter(arrays))
        with pytest.raises(ValueError, match="must be fitted to the same sample"):
            one.load_state(header, {**arrays, name: arrays[name] + 1e-9})
        for wrong in ({}, {**arrays, name: arrays[name][:-1]}, {**arrays, name: arrays[name] * np.nan}):
            new = case[0]()
            if not new.fitted:
                with pytest.raises(ValueError):
                    new.load_state(header, wrong)
                assert not new.fitted
    assert one.fingerprint() == before


def test_what_is_not_fitted_says_so(case):
    new = case[0]()
    if new.fitted:
        return
    assert "not fitted" in repr(new) or isinstance(new, Fields)
    with pytest.raises(ValueError, match=r"must be fitted to a sample of requests, or loaded"):
        new.batch(case[1])


def test_settings_change_the_fingerprint():
    maps = [
        HashedText(16), HashedText(17), HashedText(16, seed=1), HashedText(16, lower=False), HashedText(16, ngrams=(2, 4)),
        Embedding(components=2), Embedding(components=3), Embedding(components=2, whiten=True), Embedding(components=2, name="v2"),
        Embedding(count, 2), Number(), Number(log=True), Number(0, 1), Category(), Category(["a"]), Category(["b"]),
        Fields({"a": Number(0, 1)}), Fields({"b": Number(0, 1)}), Fourier(HashedText(4), 8), Fourier(HashedText(4), 8, width=2.0),
    ]  # fmt: skip
    assert len({one.fingerprint() for one in maps}) == len(maps)


# Text.


def naive_text(text, dim, low, high):
    """The sum of directions by a loop over n-grams, their hashes in Python's integers."""
    whole, odd = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def mix(z, seed):
        z = (z + seed * odd + odd) & whole
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & whole
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & whole
        return z ^ (z >> 31)

    text = " " + " ".join(text.lower().split()) + " "
    counts = {}
    for length in range(low, high + 1):
        for i in range(len(text) - length + 1):
            key = 0
            for character in text[i : i + length]:
                key = (key * odd + ord(character)) & whole
            key ^= (length << 56) & whole
            counts[key] = counts.get(key, 0) + 1
    out = np.zeros(dim)
    for key, times in counts.items():
        word, bits = mix(key, 0), []
        for n in range(1, dim // 64 + 2):
            bits += [(word >> i) & 1 for i in range(64)]
            word = mix(word, n)
        out += np.sqrt(times) * (2.0 * np.array(bits[:dim]) - 1.0)
    return out / np.linalg.norm(out)


@pytest.mark.parametrize("dim", [2, 16, 64, 100, 200])
@pytest.mark.parametrize("text", ["abc abc abc", "Übermäßig 漢字 😀", "a\n\tb", "x" * 300])
def test_text_is_the_signed_sum_over_its_ngrams(dim, text):
    assert HashedText(dim, ngrams=(2, 4))(text) == pytest.approx(naive_text(text, dim, 2, 4), abs=1e-12)


def test_text_is_the_same_in_every_process():
    code = "from banditroute.features import HashedText; print(HashedText(8)('a text').tolist())"
    said = {
        subprocess.run([sys.executable, "-c", code], env={**__import__("os").environ, "PYTHONHASHSEED": seed},
                       capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert said == {f"{HashedText(8)('a text').tolist()}\n"}


def test_odd_texts_have_contexts():
    text = HashedText(32)
    assert not text("").any() and not text(" \n").any()
    for odd in ("a", "\ud800", "\x00", "é" * 3, "x" * 1_000_000):
        assert np.linalg.norm(text(odd)) == pytest.approx(1.0)
    assert np.array_equal(text("Sort  This\n"), text("sort this"))
    assert not np.array_equal(HashedText(32, lower=False)("A b c"), HashedText(32, lower=False)("a b c"))
    with pytest.raises(TypeError, match=r"request must be a text, got 3"):
        text(3)
    with pytest.raises(TypeError, match="requests must be a sequence of texts, got the text 'ab'"):
        text.batch("ab")


def test_a_text_costs_less_than_a_fifth_of_a_millisecond():
    text, request = HashedText(), TEXTS[0] * 25
    assert 800 < len(request) < 1100
    best = min(_seconds(text, request) for _ in range(7))
    assert best < 0.2e-3 * 2  # a busy machine takes twice as long


def _seconds(text, request):
    start = time.thread_time()
    for _ in range(20):
        text(request)
    return (time.thread_time() - start) / 20


def test_similar_texts_are_closer():
    text = HashedText(64)
    code = text.batch(["def sort(items): return sorted(items)", "def sort(values): return sorted(values)"])
    other = text("Who painted the ceiling of the chapel?")
    assert code[0] @ code[1] > code[0] @ other + 0.3


# Embeddings.


def test_components_are_those_of_the_covariance():
    one = Embedding(components=3, unit=False).fit(ROWS)
    centred = ROWS - ROWS.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    wanted = centred @ vectors[:, ::-1][:, :3]
    wanted /= np.sqrt((wanted**2).sum(axis=1).mean())
    assert np.abs(one.batch(ROWS)) == pytest.approx(np.abs(wanted), abs=1e-9)
    white = Embedding(components=3, whiten=True, unit=False).fit(ROWS).batch(ROWS)
    assert np.cov(white.T, bias=True) == pytest.approx(np.eye(3) / 3, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-150, 0.1, 10.0, 1e150])
@pytest.mark.parametrize(
    "options", [{}, {"unit": False}, {"components": 3}, {"components": 3, "whiten": True}]
)
def test_the_scale_of_vectors_does_not_matter(scale, options):
    plain = Embedding(**options).fit(ROWS).batch(ROWS)
    assert Embedding(**options).fit(scale * ROWS).batch(scale * ROWS) == pytest.approx(plain, abs=1e-9)


def test_a_rotation_changes_no_angle():
    wide = bench.hidden(ROWS, 50)
    one, two = Embedding(components=6).fit(wide).batch(wide), Embedding(components=6).fit(ROWS).batch(ROWS)
    assert one @ one.T == pytest.approx(two @ two.T, abs=1e-9)


def test_bad_samples_and_encoders_are_refused_and_nothing_changes():
    for make, sample, rule in (
        (lambda: Embedding(components=7), ROWS, "components must be at most the number of directions in the sample, 6, got 7"),
        (lambda: Embedding(components=2), np.ones((5, 3)), "components must be at most the number of directions in the sample, 0"),
        (lambda: Embedding(), np.ones((5, 3)), "sample must hold requests that differ"),
        (lambda: Embedding(), ROWS[:1], "sample must hold at least two requests, got 1"),
        (lambda: Embedding(), ROWS * np.nan, "sample must be finite"),
        (lambda: Embedding(lambda texts: [[1.0]]), TEXTS, "encoder's vectors of sample must have shape"),
        (lambda: Embedding(lambda texts: None), TEXTS, "encoder's vectors of sample must"),
        (lambda: Embedding(HashedText(4), 5), TEXTS, "components must be at most"),
        (lambda: Fields({"size": Number(), "text": Embedding(count, 9)}), TABLES, "text: components must be"),
        (lambda: Fields({"size": Number(), "none": Number()}), TABLES, "none: request must have 'none'"),
        (Number, [None], "sample must hold a number"),
        (Number, [2.0, 2.0], "sample must hold numbers that differ"),
    ):  # fmt: skip
        new = make()
        with pytest.raises((ValueError, TypeError), match=rule):
            new.fit(sample)
        assert not new.fitted
        assert new.arrays() == {}
    one = Embedding(components=2).fit(ROWS)
    for wrong, rule in ((ROWS[:, :5], "shape"), (ROWS * np.inf, "finite"), ("text", "requests must")):
        with pytest.raises((ValueError, TypeError), match=rule):
            one.batch(wrong)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: HashedText(1), "dim must be in"),
        (lambda: HashedText(True), "dim must be an integer, got True"),
        (lambda: HashedText(ngrams=3), "ngrams must be two lengths"),
        (lambda: HashedText(ngrams=(4, 3)), "ngrams must be"),
        (lambda: HashedText(lower=1), "lower must be true or false, got 1"),
        (lambda: Embedding(3), "encoder must be a callable"),
        (lambda: Embedding(components=0), "components must be >= 1, got 0"),
        (lambda: Embedding(whiten=True), "whiten must be False without components"),
        (lambda: Embedding(name=3), "name must be a text, got 3"),
        (lambda: Fourier(len), "of must be a map of features"),
        (lambda: Fourier(HashedText(4), width=0.0), r"width must be in \(0, inf\]"),
        (lambda: Number(1), "low must be given with high"),
        (lambda: Number(2, 1), "high must be in"),
        (lambda: Number(-1, 1, log=True), "low must be in"),
        (lambda: Category(["a", "a"]), "values must be distinct, got 'a' twice"),
        (lambda: Category(["a"], dim=2), "dim must be left out with values"),
        (lambda: Fields({}), "parts must map names to features"),
        (lambda: Fields({"a": 3}), "parts must map names to features, got 'a': 3"),
    ],
)
def test_bad_settings_are_told(make, rule):
    with pytest.raises((ValueError, TypeError), match=rule):
        make()


def test_transformers_of_scikit_learn_are_taken_as_they_are():
    pytest.importorskip("sklearn")
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    words = TfidfVectorizer().fit(TEXTS)
    one = Embedding(words, 4).fit(TEXTS)
    assert one(TEXTS[0]).shape == (4,)
    again, other = Embedding(TfidfVectorizer().fit(TEXTS), 4), Embedding(TfidfVectorizer().fit(TEXTS[:30]), 4)
    assert again.settings() == one.settings() != other.settings()
    with pytest.raises(ValueError, match="encoder must be"):
        other.load_state(*one.to_state())
    pipeline = make_pipeline(StandardScaler()).fit(ROWS)
    plain = Embedding(pipeline, center=False, unit=False).fit(ROWS).batch(ROWS)
    wanted = pipeline.transform(ROWS)
    assert plain == pytest.approx(wanted / np.sqrt((wanted**2).sum(axis=1).mean()))


def test_waves_make_a_gaussian_kernel():
    one = Embedding(components=3).fit(ROWS)
    waves = Fourier(Embedding(components=3), 4000, width=0.7).fit(ROWS).batch(ROWS)
    x = one.batch(ROWS)
    apart = ((x[:, None] - x[None]) ** 2).sum(axis=2)
    assert waves @ waves.T == pytest.approx(np.exp(-apart / (2 * 0.7**2)), abs=0.1)


# Tables.


def test_tables_lie_side_by_side():
    parts = {"text": HashedText(8), "size": Number(0, 59), "tier": Category(["free", "pro"])}
    row = Fields(parts)({"text": "a b", "size": 59, "tier": "pro"})
    assert row == pytest.approx(np.concatenate([HashedText(8)("a b"), [1.0], [0.0, 1.0]]) / np.sqrt(3))
    assert not Fields(parts)({"text": None, "size": None, "tier": None}).any()
    for wrong, rule in (
        ({"text": "a", "size": 1.0}, "request must have 'tier', None where it is not known"),
        ({"text": 1, "size": 1.0, "tier": "pro"}, "text: request must be a text, got 1"),
        ({"text": "a", "size": "1", "tier": "pro"}, "size: number must be a finite number, got '1'"),
        ({"text": "a", "size": True, "tier": "pro"}, "size: number must be a finite number, got True"),
        ({"text": "a", "size": float("nan"), "tier": "pro"}, "size: number must be a finite number, got nan"),
        ({"text": "a", "size": 1.0, "tier": 3}, "tier: category must be a text, got 3"),
        ("a", "request must be a mapping, got 'a'"),
    ):
        with pytest.raises((ValueError, TypeError), match=rule):
            Fields(parts)(wrong)


# In a Router.


def trained(router, texts=TEXTS):
    for text in texts:
        decision = router.select(text)
        router.update(decision.id, float((decision.arm == "a") == text.startswith("question")))


def make(features=None, seed=0):
    return Router(LinUCB(["a", "b"], 16, rng=seed), features=HashedText(16) if features is None else features)


def test_a_router_takes_requests_as_a_router_takes_their_contexts():
    one, two = make(), Router(LinUCB(["a", "b"], 16, rng=0))
    for text, x in zip(TEXTS, HashedText(16).batch(TEXTS), strict=True):
        first, second = one.select(text), two.select(x)
        assert (first.arm, first.propensity) == (second.arm, second.propensity)
        one.update(first.id, 0.5), two.update(second.id, 0.5)
    assert np.array_equal(one.policy.theta, two.policy.theta)


def test_features_are_computed_once_and_without_the_lock():
    import threading

    calls, free = [], []

    class Watched(HashedText):
        def __call__(self, request):
            calls.append(request)
            other = threading.Thread(target=lambda: free.append(router.stats()["decisions"]))
            other.start()
            other.join(5.0)
            return super().__call__(request)

    router = Router(LinUCB(["a", "b"], 16, rng=0), features=Watched(16))
    for i in range(3):
        router.select(f"text {i}", eligible={"a"}, id=i + 1)
    assert calls == ["text 0", "text 1", "text 2"]
    assert free == [0, 1, 2]


def test_a_request_that_has_no_context_changes_nothing():
    router = make()
    trained(router, TEXTS[:5])
    before = router.stats(), router.policy.theta.copy()
    with pytest.raises(TypeError, match="request must be a text"):
        router.select([1.0] * 16)
    assert router.stats() == before[0]
    assert np.array_equal(router.policy.theta, before[1])


def test_a_router_refuses_features_that_do_not_fit():
    for features, rule in (
        (HashedText(8), "features must make contexts of length 16, got 8"),
        (len, "features must be a map of features"),
        (Embedding(), "must be fitted"),
    ):
        with pytest.raises((ValueError, TypeError), match=rule):
            make(features)
    router = make(Embedding(HashedText(64), 16))
    with pytest.raises(ValueError, match="must be fitted"):
        router.select("text")


def test_snapshots_carry_features_and_refuse_others(tmp_path):
    router = make(Embedding(HashedText(64), 16).fit(TEXTS))
    trained(router)
    router.save(tmp_path / "state")
    again = make(Embedding(HashedText(64), 16), seed=1)  # fitted by what the file has
    again.load(tmp_path / "state")
    assert again.features.fingerprint() == router.features.fingerprint()
    assert [again.select(t).arm for t in TEXTS] == [router.select(t).arm for t in TEXTS]
    for other, rule in (
        (Embedding(HashedText(64), 16, whiten=True), "whiten must be True, got False"),
        (Embedding(HashedText(64), 16).fit(TEXTS[:40]), "must be fitted to the same sample"),
        (HashedText(16), "kind must be 'HashedText', got 'Embedding'"),
    ):
        wrong = make(other, seed=2)
        trained(wrong, TEXTS[:3]) if other.fitted else None
        before = wrong.policy.theta.copy(), other.fingerprint()
        for load in (wrong.load, wrong.rollback):
            with pytest.raises(SnapshotError, match=rule):
                load(tmp_path / "state")
        assert np.array_equal(wrong.policy.theta, before[0])
        assert other.fingerprint() == before[1]
    plain = Router(LinUCB(["a", "b"], 16, rng=0))
    with pytest.raises(SnapshotError, match="features must be those of the state, Embedding, got None"):
        plain.load(tmp_path / "state")
    plain.save(tmp_path / "plain")
    with pytest.raises(SnapshotError, match="features must be those of the state, which has none"):
        make().load(tmp_path / "plain")


def test_journals_carry_features(tmp_path):
    with make(Embedding(HashedText(64), 16).fit(TEXTS)) as router:
        router.recover(tmp_path)
        trained(router)
        decision, theta = router.select("one more"), router.policy.theta.copy()
    with make(Embedding(HashedText(64), 16), seed=1) as router:
        router.recover(tmp_path)
        assert np.array_equal(router.policy.theta, theta)
        assert router.update(decision.id, 1.0)
    with make(HashedText(16)) as router, pytest.raises(SnapshotError, match="kind must be 'HashedText'"):
        router.recover(tmp_path)


def test_replicas_of_other_features_share_nothing(tmp_path):
    routers = [
        make(f, seed=i) for i, f in enumerate((HashedText(16), HashedText(16), HashedText(16, seed=1)))
    ]
    joined = [router.join(FileStore(tmp_path), background=False) for router in routers]
    trained(routers[0])
    for _ in range(2):
        for replica in joined:
            replica.sync()
    assert routers[1].policy.counts.sum() == len(TEXTS)
    assert routers[2].policy.counts.sum() == 0
    with pytest.raises(ValueError, match="features must be fitted before join"):
        make(Embedding(HashedText(64), 16)).join(FileStore(tmp_path), background=False)


# What they earn; benchmarks/features.py has the long form.


def test_hidden_components_earn_what_well_scaled_ones_do():
    try:
        parts, rewards, half = bench.recorded(data_file("pareto4.npz"))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    makers = bench.rotation_makers(parts, half, scales=(0.1, 10.0))
    makers.pop("hidden, 16 components")
    found = bench.compare(makers, rewards, half, seeds=2, requests=4000)
    well = np.mean(found.pop("64 components, norm 1"))
    found.pop("best single model")
    assert all(abs(np.mean(values) - well) < 0.01 for values in found.values()), (well, found)


def test_a_map_of_ones_own_will_do(tmp_path):
    class Length(Features):
        @property
        def dim(self):
            return 1

        def settings(self):
            return {}

        def batch(self, requests):
            return np.array([[min(len(one) / 100, 1.0)] for one in requests]).reshape(-1, 1)

    router = Router(LinUCB(2, 1, rng=0), features=Length())
    router.select("some text")
    router.save(tmp_path / "state")
    Router(LinUCB(2, 1, rng=0), features=Length()).load(tmp_path / "state")


def test_rows_of_any_size_are_scaled():
    rows = scaled_rows(np.array([[3e-300, 4e-300], [3e300, 4e300], [0.0, 0.0]]))
    assert rows == pytest.approx(np.array([[0.6, 0.8], [0.6, 0.8], [0.0, 0.0]]))
