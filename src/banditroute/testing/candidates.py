"""The contract of a policy that takes candidates, as checks that anyone can run on their own.

A factory takes a ``numpy.random.Generator`` and returns a new policy with the arms "a" and "b", or none. A check raises
``AssertionError`` with what it saw, and returns True. Seeds are fixed, so a policy passes always or never.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from banditroute._core.typing import Floats
from banditroute.policies import CandidatePolicy, EvidencePolicy, Policy, summed
from banditroute.policies.candidates import chooser as choosing
from banditroute.router import Router
from banditroute.testing.material import CLOSE, DRAWS, Factory, bits, require, same

__all__ = [
    "CANDIDATE_CHECKS",
    "candidate_errors_change_nothing",
    "candidate_order_does_not_matter",
    "candidate_propensities_are_frequencies",
    "candidates_are_learned_as_they_were",
    "check_candidates",
    "evidence_of_guests_adds_up",
]

NAMES = ("a", "guest", "b", "other", "twin")
Set = tuple[tuple[str, ...], Floats]


def _new(factory: Factory, seed: int = 0) -> tuple[Policy, CandidatePolicy]:
    """Return a policy twice: as what it is and as what it must be too."""
    policy = factory(np.random.default_rng(seed))
    try:
        return policy, choosing(policy)
    except TypeError as error:
        raise AssertionError(f"{type(policy).__name__} must choose among candidates: {error}") from None


def _sets(policy: Policy, n: int, seed: int = 1) -> list[tuple[Floats, Set]]:
    """Return contexts, and candidates of which the last two are alike."""
    rng, size = np.random.default_rng(seed), policy.candidate_size or 0
    found: list[tuple[Floats, Set]] = []
    for _ in range(n):
        z = rng.standard_normal((len(NAMES), size))
        z[4] = z[3]
        found.append((rng.standard_normal(policy.dim), (NAMES, z)))
    return found


def _taught(factory: Factory, n: int = 40) -> tuple[Policy, CandidatePolicy]:
    policy, chooser = _new(factory)
    for i, (x, (names, z)) in enumerate(_sets(policy, n, seed=2)):
        at = i % 4
        policy.update(names[at], chooser.kept_candidate(x, z[at]), float(i % 3 == 0), at=i)
    return policy, chooser


def candidate_propensities_are_frequencies(factory: Factory) -> bool:
    """Propensities are a distribution, 0 at infinite prices, equal for guests alike, and how often each is chosen.

    1,500 draws of three sets; a right policy is refused with probability below 1e-5: five standard deviations and five
    draws are allowed.

    Examples
    --------
    >>> from banditroute.policies import SharedLinUCB
    >>> candidate_propensities_are_frequencies(lambda rng: SharedLinUCB([], 2, features=3, mix=0.3, rng=rng))
    True
    """
    policy, chooser = _taught(factory)
    for i, (x, given) in enumerate(_sets(policy, 3)):
        prices = np.array([0.0, 0.1 * i, np.inf if i else 0.0, 0.1, 0.1])
        wanted = chooser.candidate_propensities(x, given, prices)
        same("sum of propensities", wanted.sum(), 1.0, CLOSE)
        require((wanted >= 0.0).all() and not wanted[np.isinf(prices)].any(), f"propensities {wanted}")
        same("propensities of two guests alike", wanted[3], wanted[4])
        count = np.zeros(len(wanted))
        for _ in range(DRAWS):
            place, propensity = chooser.select_candidate(x, given, prices)
            same(f"propensity of {NAMES[place]} as chosen", propensity, wanted[place], CLOSE)
            count[place] += 1
        allowed = 5.0 * np.sqrt(DRAWS * wanted * (1.0 - wanted)) + 5.0 * (wanted > 0.0)
        off = np.abs(count - DRAWS * wanted) > allowed + CLOSE
        require(not off.any(), f"frequencies {count / DRAWS}, wanted {wanted}")
    return True


def candidate_order_does_not_matter(factory: Factory) -> bool:
    """Each candidate is worth the same wherever it stands in the set, and whoever else is in it.

    Examples
    --------
    >>> from banditroute.policies import SharedLinUCB
    >>> candidate_order_does_not_matter(lambda rng: SharedLinUCB([], 2, features=3, rng=rng))
    True
    """
    policy, chooser = _taught(factory)
    rng = np.random.default_rng(3)
    for x, (names, z) in _sets(policy, 10):
        whole = np.array(chooser.candidate_utilities(x, (names, z)))
        some = rng.permutation(len(names))[:3]
        part = np.array(chooser.candidate_utilities(x, (tuple(names[i] for i in some), z[some])))
        same("mean and bonus of some candidates in another order", part, whole[:, some])
    return True


def candidates_are_learned_as_they_were(factory: Factory) -> bool:
    """Late feedback in any order teaches, up to rounding, what immediate feedback on the same decisions does.

    The caller may write into his arrays meanwhile.

    Examples
    --------
    >>> from banditroute.policies import SharedLinUCB
    >>> candidates_are_learned_as_they_were(lambda rng: SharedLinUCB([], 2, features=3, mix=0.5, rng=rng))
    True
    """
    (late, _), (fresh, chooser) = _new(factory), _new(factory)
    router, waiting, probes = Router(late), [], _sets(late, 5, seed=7)
    for i, (x, (names, z)) in enumerate(_sets(late, 80)):
        decision = router.select(x, candidates=(names, z))
        place = names.index(decision.arm)
        fresh.update(decision.arm, chooser.kept_candidate(x, z[place]), float(i % 3 == 0), at=i)
        waiting.append((decision.id, float(i % 3 == 0)))
        z[:], x[:] = 9.0, 9.0
    for key, reward in reversed(waiting):
        require(router.update(key, reward), "a reward of a candidate was dropped")
    for x, given in probes:
        got, wanted = (np.array(one.candidate_utilities(x, given)) for one in (choosing(late), chooser))
        same("mean and bonus after late feedback", got, wanted, CLOSE)
    return True


def candidate_errors_change_nothing(factory: Factory) -> bool:
    """Sets that are no sets are refused with the state and the random numbers as they were.

    Examples
    --------
    >>> from banditroute.policies import SharedLinUCB
    >>> candidate_errors_change_nothing(lambda rng: SharedLinUCB([], 2, features=3, rng=rng))
    True
    """
    policy, chooser = _taught(factory)
    x, (names, z) = _sets(policy, 1)[0]
    bad: list[tuple[Floats, Any, Floats | None]] = [
        (x, {}, None), (x, (names[:2], z), None), (x, (("a", "a"), z[:2]), None), (x, (names, z[:, :-1]), None),
        (x, (names, np.where(z == z[0, 0], np.nan, z)), None), (x[:-1], (names, z), None),
        (x, (names, z), np.full(len(names), np.inf)), (x, (names, z), np.zeros(2)),
    ]  # fmt: skip
    before = bits(policy)
    for context, given, prices in bad:
        try:
            chooser.select_candidate(context, given, prices)
        except (ValueError, TypeError):
            require(bits(policy) == before, f"the refused candidates {given!r} changed the state")
        else:
            raise AssertionError(f"candidates {given!r} with prices {prices} must be refused")
    return True


def evidence_of_guests_adds_up(factory: Factory) -> bool:
    """What guests taught two policies, added, is what they taught one; policies that cannot share pass as they are.

    Examples
    --------
    >>> from banditroute.policies import SharedLinUCB
    >>> evidence_of_guests_adds_up(lambda rng: SharedLinUCB([], 2, features=3, rng=rng))
    True
    """
    (one, chooser), (other, _), (both, _), (target, _) = (_new(factory, seed) for seed in range(4))
    if not isinstance(both, EvidencePolicy) or not isinstance(target, EvidencePolicy):
        return True
    try:
        both.fingerprint()
    except TypeError:
        return True
    for i, (x, (_, z)) in enumerate(_sets(both, 60)):
        row = chooser.kept_candidate(x, z[0])
        for policy in (both, (one, other)[i % 2]):
            policy.update("guest", row, float(i % 3 == 0), at=i)
    for name in both.shared_names:
        assert isinstance(one, EvidencePolicy)
        assert isinstance(other, EvidencePolicy)
        target.set_evidence(name, summed(target, [one.evidence(name), other.evidence(name)]))
    for x, given in _sets(one, 5, seed=9):
        got, wanted = (np.array(choosing(policy).candidate_utilities(x, given)) for policy in (target, both))
        same("mean and bonus by added evidence", got, wanted, CLOSE)
    return True


CANDIDATE_CHECKS: tuple[Callable[[Factory], bool], ...] = (
    candidate_propensities_are_frequencies,
    candidate_order_does_not_matter,
    candidates_are_learned_as_they_were,
    candidate_errors_change_nothing,
    evidence_of_guests_adds_up,
)


def check_candidates(factory: Factory) -> list[str]:
    """Run every check on a policy that takes candidates; returns their names.

    Examples
    --------
    >>> from banditroute.policies import HybridLinUCB
    >>> len(check_candidates(lambda rng: HybridLinUCB(["a", "b"], 2, features=3, mix=0.2, rng=rng)))
    5
    """
    return [check.__name__ for check in CANDIDATE_CHECKS if check(factory)]
