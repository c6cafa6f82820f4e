"""Policies, feedback and requests that the checks are made of."""

import json
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from banditroute._core.typing import Floats, Mask
from banditroute.policies import Policy

Factory = Callable[[np.random.Generator], Policy]


EXACT = 1e-12  # relative: a handful of roundings
CLOSE = 1e-8  # relative: quadrature, or rounding piled up over hundreds of updates
DRAWS = 1500


class Feedback(NamedTuple):
    """One reward to learn: arm, context, reward, clock index of its decision."""

    arm: int
    x: Floats
    reward: float
    at: int


def require(holds: Any, message: str) -> None:
    """Raise AssertionError with `message` unless `holds`."""
    if not holds:
        raise AssertionError(message)


def same(name: str, got: Any, wanted: Any, tolerance: float = 0.0) -> None:
    """Compare arrays, to the last bit or to a tolerance relative to the largest of `wanted` (at least 1)."""
    a, b = np.asarray(got, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    scale = max(1.0, float(np.abs(b).max(initial=0.0)))
    alike = a.shape == b.shape and (
        np.abs(a - b).max(initial=0.0) <= tolerance * scale if tolerance else np.array_equal(a, b)
    )
    require(alike, f"{name}: got {got}, wanted {wanted} to {tolerance:g} relative")


def new(factory: Factory, seed: int = 0) -> Policy:
    """Return a new policy of this seed."""
    return factory(np.random.default_rng(seed))


def contexts(policy: Policy, n: int, seed: int = 1) -> Floats:
    """Return (n, dim) contexts."""
    # Numbers that float32 holds too, so that the dtype of a context makes no difference to it.
    rows = np.random.default_rng(seed).standard_normal((n, policy.dim)).astype(np.float32)
    return rows.astype(np.float64)


def lessons(policy: Policy, n: int = 60, seed: int = 2) -> list[Feedback]:
    """Return feedback on random arms: each has two chances of a reward, one for either sign of x[0]."""
    rng = np.random.default_rng(seed)
    arms, better = rng.integers(len(policy.arms), size=n), rng.random((len(policy.arms), 2))
    rows = contexts(policy, n, seed + 1)
    won = rng.random(n) < better[arms, (rows[:, 0] > 0).astype(int)]
    return [Feedback(int(a), x, float(r), t) for t, (a, x, r) in enumerate(zip(arms, rows, won, strict=True))]


def teach(policy: Policy, lessons: Iterable[Feedback]) -> Policy:
    """Learn and return the policy."""
    for lesson in lessons:
        policy.update(lesson.arm, lesson.x, lesson.reward, at=lesson.at)
    return policy


def taught(factory: Factory, seed: int = 0) -> Policy:
    """Return a new policy that has learned 60 rewards."""
    policy = new(factory, seed)
    return teach(policy, lessons(policy))


def bits(policy: Policy) -> tuple[str, dict[str, bytes]]:
    """Everything of a policy that is saved, in a form that compares."""
    header, arrays = policy.to_state()
    return json.dumps(header, sort_keys=True), {name: array.tobytes() for name, array in arrays.items()}


def beliefs(policy: Policy) -> Floats:
    """Everything a policy says about a few contexts: (contexts, 3, k) means, widths and propensities."""
    return np.array([[*policy.scores(x), policy.propensities(x)] for x in contexts(policy, 8, 9)])


def starts_alike(policy: Policy) -> bool:
    """Tell whether a new policy believes the same of every arm."""
    cold = beliefs(policy)
    return bool((cold == cold[:, :, :1]).all())


def requests(policy: Policy, n: int, seed: int = 5) -> list[tuple[Floats, Floats | None, Mask | None]]:
    """Contexts with and without prices and masks; prices come from a short list, so that ties occur."""
    rng, count = np.random.default_rng(seed), len(policy.arms)
    made = []
    for x in contexts(policy, n, seed + 1):
        prices, mask = rng.choice([0.0, 0.1, 0.25, -0.5], size=count), rng.random(count) < 0.6
        mask[rng.integers(count)] = True
        made.append((x, prices if rng.random() < 0.7 else None, mask if rng.random() < 0.7 else None))
    return made


def continued(policy: Policy, n: int = 80) -> list[tuple[int, float]]:
    """Decide and learn on a fixed stream; the trace tells policies apart."""
    trace = []
    for t, (x, prices, mask) in enumerate(requests(policy, n, seed=11)):
        trace.append(policy.select(x, prices=prices, eligible=mask))
        policy.update(trace[-1].arm, x, float((t * 7) % 3 == 0), at=60 + t)
    return [(arm, propensity) for arm, propensity in trace]
