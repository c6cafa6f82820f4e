"""How a policy chooses: propensities, prices, masks, randomness."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from banditroute._core.typing import Floats
from banditroute.policies import Policy
from banditroute.residency import LRU, Polar, Static
from banditroute.router import Router
from banditroute.testing.material import (
    CLOSE,
    DRAWS,
    EXACT,
    Factory,
    beliefs,
    bits,
    contexts,
    continued,
    lessons,
    new,
    requests,
    require,
    same,
    taught,
    teach,
)

__all__ = [
    "choice_agrees_with_a_full_scan",
    "draws_do_not_depend_on_the_outcome",
    "equal_contexts_count_alike",
    "equal_prices_change_nothing",
    "free_residency_changes_nothing",
    "propensities_are_a_distribution",
    "propensity_is_the_frequency",
    "reading_changes_nothing",
]


def propensities_are_a_distribution(factory: Factory) -> bool:
    """Propensities are a distribution on every eligible subset, 0 outside it, equal for arms that score alike.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> propensities_are_a_distribution(lambda rng: LinUCB(3, 2, mix=0.1, rng=rng))
    True
    """
    cold = new(factory)
    count = len(cold.arms)
    require(count >= 3, f"the factory must make at least three arms, got {count}")
    twins = new(factory)
    for lesson in lessons(twins):  # arms 0 and 1 learn the same
        for arm in {lesson.arm, 1} if lesson.arm == 0 else {lesson.arm} - {1}:
            twins.update(arm, lesson.x, lesson.reward, at=lesson.at)
    subsets = list(product([False, True], repeat=min(count, 6)))[1:]
    for policy, subset in product([cold, twins, taught(factory)], subsets):
        mask = np.resize(np.array(subset), count)
        for x, prices, _ in requests(policy, 2):
            given = policy.propensities(x, prices=prices, eligible=mask)
            require(given.shape == (count,), f"propensities: got shape {given.shape}, wanted ({count},)")
            require(
                (given >= 0.0).all() and not given[~mask].any(), f"propensities {given} under mask {mask}"
            )
            same("sum of propensities", given.sum(), 1.0, CLOSE)
            scores = np.array([*policy.scores(x), np.zeros(count) if prices is None else prices])
            for a, b in zip(*np.triu_indices(count, 1), strict=True):
                if mask[a] and mask[b] and np.array_equal(scores[:, a], scores[:, b]):
                    same(f"propensities of arms {a} and {b}, which score alike", given[a], given[b], CLOSE)
    return True


def propensity_is_the_frequency(factory: Factory) -> bool:
    """The propensity of a choice is how often its arm is chosen, and `select` and `propensities` agree.

    1,500 draws of one context cold and of two taught. A right policy is refused with probability
    below 1e-5: each arm is allowed five standard deviations and five draws. Seeds are fixed.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> propensity_is_the_frequency(lambda rng: LinUCB(3, 2, mix=0.3, rng=rng))
    True
    """
    for policy, n in ((new(factory), 1), (taught(factory), 2)):
        for x, prices, mask in requests(policy, n, seed=7):
            wanted = policy.propensities(x, prices=prices, eligible=mask)
            count = np.zeros(len(policy.arms))
            for _ in range(DRAWS):
                arm, propensity = policy.select(x, prices=prices, eligible=mask)
                same(f"propensity of arm {arm} as chosen", propensity, wanted[arm], CLOSE)
                count[arm] += 1
            allowed = np.where(wanted < EXACT, 0.0, 5.0 * np.sqrt(DRAWS * wanted * (1.0 - wanted)) + 5.0)
            off = np.abs(count - DRAWS * wanted) > allowed + CLOSE * DRAWS
            require(not off.any(), f"frequencies {count / DRAWS}, wanted {wanted}")
    return True


def reading_changes_nothing(factory: Factory) -> bool:
    """`scores` and `propensities` change nothing at all; `select` changes nothing that is learned.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> reading_changes_nothing(lambda rng: LinUCB(3, 2, rng=rng))
    True
    """
    read, left = taught(factory), taught(factory)
    before = bits(read)
    rows = contexts(read, 5)
    for x in rows:
        read.scores(x)
        read.propensities(x)
    read.scores_batch(rows)
    require(bits(read) == before, "scores or propensities changed the state")
    for x, prices, mask in requests(read, 100):
        read.select(x, prices=prices, eligible=mask)
    read.select_batch(rows)
    same("beliefs after select", beliefs(read), beliefs(left))
    for policy in (read, left):
        teach(policy, [lesson._replace(at=lesson.at + 60) for lesson in lessons(policy, seed=4)])
    same("beliefs learned after select", beliefs(read), beliefs(left))
    return True


def draws_do_not_depend_on_the_outcome(factory: Factory) -> bool:
    """Every decision uses the same amount of randomness, whatever its prices, mask and outcome.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> draws_do_not_depend_on_the_outcome(lambda rng: LinUCB(3, 2, mix=0.5, rng=rng))
    True
    """
    free, bound = taught(factory), taught(factory)
    only = np.arange(len(free.arms)) == 1
    for x in contexts(free, 50):
        free.select(x)
        bound.select(x, eligible=only, prices=np.ones(only.size))
    require(
        continued(free) == continued(bound), "decisions of another kind before used another amount of noise"
    )
    return True


def equal_contexts_count_alike(factory: Factory) -> bool:
    """A context counts the same as a list, a tuple, float32, strided, read-only or unaligned array.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> equal_contexts_count_alike(lambda rng: LinUCB(3, 2, rng=rng))
    True
    """

    def frozen(x: Floats) -> Floats:
        copy = x.copy()
        copy.flags.writeable = False
        return copy

    def shifted(x: Floats) -> Any:
        return np.frombuffer(b"\0" + x.tobytes(), dtype=np.uint8)[1:].view(np.float64)

    forms: list[Callable[[Floats], Any]] = [list, tuple, frozen, shifted, lambda x: x.astype(np.float32)]
    forms += [lambda x: np.repeat(x, 2)[::2], lambda x: x[::-1].copy()[::-1], lambda x: x.astype(">f8")]
    plain = taught(factory)
    choices = [plain.select(x) for x in contexts(plain, 20)]
    wanted = beliefs(plain)
    for form in forms:
        policy = new(factory)
        teach(policy, [lesson._replace(x=form(lesson.x)) for lesson in lessons(policy)])
        same("beliefs", beliefs(policy), wanted)
        require(
            [policy.select(form(x)) for x in contexts(plain, 20)] == choices, "choices depend on the form"
        )
        for x in contexts(plain, 4):
            same("scores", np.array(policy.scores(form(x))), np.array(plain.scores(x)))
    return True


def equal_prices_change_nothing(factory: Factory) -> bool:
    """A price that all arms share, of any size, leaves choices and propensities as they were, to the last bit.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> equal_prices_change_nothing(lambda rng: LinUCB(3, 2, mix=0.5, rng=rng))
    True
    """
    for price in (0.0, 0.1, -0.3, 1e9, 1e-300):
        plain, priced = taught(factory), taught(factory)
        prices = np.full(len(plain.arms), price)
        for x in contexts(plain, 40):
            require(
                plain.select(x) == priced.select(x, prices=prices),
                f"a price of {price} for all changed a choice",
            )
            same(
                f"propensities under {price} for all",
                priced.propensities(x, prices=prices),
                plain.propensities(x),
            )
    return True


def free_residency_changes_nothing(factory: Factory) -> bool:
    """A Router in which everything is resident, or faults cost nothing, decides as one without residency.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> free_residency_changes_nothing(lambda rng: LinUCB(3, 2, mix=0.5, rng=rng))
    True
    """

    def traced(router: Router) -> list[tuple[str, float]]:
        made = []
        for t, x in enumerate(contexts(router.policy, 80)):
            decision = router.select(x)
            made.append((decision.arm, decision.propensity))
            router.update(decision.id, float(t % 3 == 0))
        return made

    plain = traced(Router(taught(factory)))
    full = traced(Router(taught(factory), LRU(len(new(factory).arms)), 0.3))
    require(full == plain, "residency of every arm changed the trace")
    if _tells_utilities(new(factory)):
        planned = traced(Router(taught(factory), Polar(len(new(factory).arms), epoch=16), 0.3))
        require(planned == plain, "plans of a controller changed the trace")
    require(
        traced(Router(taught(factory), Static(()), 0.0)) == plain,
        "faults that cost nothing changed the trace",
    )
    return True


def _tells_utilities(policy: Policy) -> bool:
    try:
        policy.utilities(contexts(policy, 1))
    except TypeError:
        return False
    return True


def choice_agrees_with_a_full_scan(factory: Factory) -> bool:
    """Whatever shortcut `select` takes, its arm and propensity are those of `propensities`, ties included.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> choice_agrees_with_a_full_scan(lambda rng: LinUCB(3, 2, rng=rng))
    True
    """
    policy = new(factory)
    course = lessons(policy, 600, seed=21)
    for lesson, (x, prices, mask) in zip(course, requests(policy, 600, seed=23), strict=True):
        arm, propensity = policy.select(x, prices=prices, eligible=mask)
        given = policy.propensities(x, prices=prices, eligible=mask)
        require(given[arm] > 0.0, f"arm {arm} was chosen at {x}, which a full scan never would: {given}")
        same(f"propensity of arm {arm}", propensity, given[arm], CLOSE)
        if lesson.at % 3 == 0:
            policy.update(lesson.arm, lesson.x, lesson.reward)
    return True
