"""Real adapters trained on the spot: classifiers of handwritten digits that each know a few classes well."""

from functools import cache
from typing import Any

import numpy as np

from banditroute._core.typing import Floats, Ints
from banditroute._core.validation import integer
from banditroute.simulation.environments import MatrixEnvironment
from banditroute.simulation.popularity import generator

__all__ = ["digits_adapters"]


_FOREIGN = 2  # images of each other class in a specialist's training set: enough to guess, not to know
_GENERAL = 5  # images of every class in the generalist's


def digits_adapters(n: int = 15, seed: int = 0, *, components: int = 16, **options: Any) -> MatrixEnvironment:
    """Train adapters on different classes of scikit-learn's digits and test all of them on all images.

    One generalist sees five images of each class; each of the ``n - 1`` specialists sees half of all images
    of its own three or four classes and two images of every other. The reward is 1 for a correct answer on an
    image that no adapter was trained on. Groups are the digit classes, their popularity is Zipf and is
    permuted half-way. These are logistic regressions, not LoRA adapters.

    Parameters
    ----------
    n
        Number of adapters, >= 2.
    seed
        Of the split, the class subsets and the training images.
    components
        Principal components of the image in the context, in [1, 64]; a bias is appended and contexts have
        unit norm on average.
    **options
        `order`, `zipf` and `shifts` of `MatrixEnvironment`.

    Returns
    -------
    MatrixEnvironment
        899 test images. Training takes under a second and is remembered per (n, seed).

    Raises
    ------
    ImportError
        Without scikit-learn, which comes with the extra "demo".

    Examples
    --------
    >>> environment = digits_adapters(4, components=8)
    >>> environment.arms[0], environment.dim
    ('generalist', 9)
    """
    integer("n", n, low=2)
    images, outcomes, classes, arms = _trained(n, integer("seed", seed))
    principal = images[:, : integer("components", components, low=1, high=64)]
    # Half of the squared norm is the bias, half the image's components.
    share = np.sqrt(2.0 * np.mean(np.einsum("ij,ij->i", principal, principal)))
    contexts = np.column_stack([principal / share, np.full(len(images), np.sqrt(0.5))])
    settings: dict[str, Any] = {"order": "drift", **options}
    return MatrixEnvironment(contexts, outcomes, arms=arms, groups=classes, **settings)


@cache
def _trained(n: int, seed: int) -> tuple[Floats, Floats, Ints, tuple[str, ...]]:
    try:
        from sklearn.datasets import load_digits
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise ImportError("digits_adapters needs scikit-learn: pip install 'banditroute[demo]'") from error
    rng = generator(seed, 0)
    data, target = load_digits(return_X_y=True)
    data = data / 16.0
    order = rng.permutation(len(data))
    train, test = order[: len(data) // 2], order[len(data) // 2 :]

    def some(classes: Any, count: int) -> Ints:
        chosen = [rng.choice(train[target[train] == c], count, replace=False) for c in classes]
        return np.concatenate(chosen).astype(np.int64)

    lessons = {"generalist": some(range(10), _GENERAL)}
    deck: list[int] = []
    for i in range(1, n):
        own: list[int] = []
        # Dealing from shuffled decks gives every class about the same number of specialists.
        for _ in range(int(rng.integers(3, 5))):
            if not deck:
                deck = [int(c) for c in rng.permutation(10) if c not in own]
            own.append(deck.pop())
        others = [c for c in range(10) if c not in own]
        name = f"specialist-{i}-on-{''.join(map(str, sorted(own)))}"
        lessons[name] = np.append(train[np.isin(target[train], own)], some(others, _FOREIGN))
    outcomes = np.empty((len(test), n))
    for i, lesson in enumerate(lessons.values()):
        model = LogisticRegression(max_iter=200).fit(data[lesson], target[lesson])
        outcomes[:, i] = model.predict(data[test]) == target[test]
    centre = data[train].mean(axis=0)
    axes = np.linalg.svd(data[train] - centre, full_matrices=False)[2]
    return (data[test] - centre) @ axes.T, outcomes, target[test].astype(np.int64), tuple(lessons)
