"""What others take from a policy: its evidence, what it maximises, an arm forgotten, random numbers of its own."""

import numpy as np

from banditroute.policies import EvidencePolicy, summed
from banditroute.testing.material import (
    CLOSE,
    EXACT,
    Factory,
    bits,
    contexts,
    lessons,
    new,
    require,
    same,
    teach,
)

__all__ = [
    "evidence_adds_up",
    "forgotten_arms_start_cold",
    "reseeded_policies_draw_apart",
    "utilities_decide",
]


def evidence_adds_up(factory: Factory) -> bool:
    """Evidence of two policies, added, is that of one that learned it all; needs `EvidencePolicy` that can share.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> evidence_adds_up(lambda rng: LinUCB(3, 2, discount=0.99, rng=rng))
    True
    """
    one, other, both, target = (new(factory, seed) for seed in range(4))
    if not isinstance(one, EvidencePolicy):
        return False
    try:
        fingerprint = one.fingerprint()
    except TypeError:
        return False
    assert isinstance(other, EvidencePolicy)
    assert isinstance(both, EvidencePolicy)
    assert isinstance(target, EvidencePolicy)
    require(fingerprint == other.fingerprint(), "two policies of one factory have different fingerprints")
    course = lessons(both, 120)
    teach(both, course)
    teach(one, course[::2])
    teach(other, course[1::2])
    books = {arm: both.empty_evidence() for arm in both.arms}
    for lesson in course:
        arm = both.arms[lesson.arm]
        books[arm] = both.credit(
            books[arm], both.check_kept(lesson.x, lesson.arm), lesson.reward, 1.0, lesson.at
        )
    for arm in both.arms:
        if both.generation(arm):  # restarted: that depends on the order of feedback
            continue
        wanted = both.aged(both.evidence(arm), both.bucket)
        ways = {"of two policies": [one.evidence(arm), other.evidence(arm)], "credited": [books[arm]]}
        for way, parts in ways.items():
            total = summed(both, [*parts, wanted._replace(buckets={})])
            target.set_evidence(arm, total)
            for got in (total, summed(both, [target.evidence(arm)])):
                got = both.aged(got, both.bucket)
                require(set(got.buckets) == set(wanted.buckets), f"buckets {way}: got {sorted(got.buckets)}")
                for bucket, sums in wanted.buckets.items():
                    for name, array in sums.items():
                        same(f"{name} of {arm!r}, {way}", got.buckets[bucket][name], array, EXACT)
    return True


def utilities_decide(factory: Factory) -> bool:
    """An arm that is likelier than by a uniform share alone has the largest utility less price; needs `utilities`.

    Policies that sample, and those that look at neither means nor prices, give every arm its own share: they are left
    out.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> utilities_decide(lambda rng: LinUCB(3, 2, mix=0.2, rng=rng))
    True
    """
    policy = new(factory)
    try:
        policy.utilities(contexts(policy, 1))
    except TypeError:
        return False
    rng, told = np.random.default_rng(4), False
    for lesson in lessons(policy, 80):
        prices = rng.choice([0.0, 0.1, 0.3], len(policy.arms))
        given = policy.propensities(lesson.x, prices=prices)
        mean, bonus = (of[0] for of in policy.utilities(lesson.x[None]))
        value = mean + bonus - prices
        if len(np.unique(np.round(given, 12))) > 2:
            return False  # it samples
        if np.sum(given == given.max()) == 1:
            told = True
            require(
                value[given.argmax()] >= value.max() - CLOSE,
                f"utilities less prices {value} do not agree with propensities {given}",
            )
        *_, frozen = policy.freeze()
        assert frozen is not None
        same("utilities of the frozen policy", frozen(lesson.x[None]), [[mean], [bonus]])
        policy.update(lesson.arm, lesson.x, lesson.reward, at=lesson.at)
    return told


def forgotten_arms_start_cold(factory: Factory) -> bool:
    """After `forget` an arm is what it would be had it never been tried, and its generation has risen.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> forgotten_arms_start_cold(lambda rng: LinUCB(3, 2, ridge=1.0, alpha=0.5, rng=rng))
    True
    """
    policy, never = new(factory), new(factory)
    course = lessons(policy)
    teach(policy, course)
    teach(never, [lesson for lesson in course if lesson.arm != 0])
    for p in (policy, never):
        p.advance(len(course))
    name, before = policy.arms[0], policy.generation(policy.arms[0])
    policy.forget(name)
    never.forget(name)
    require(
        policy.generation(name) > before, f"the generation of {name!r} is {policy.generation(name)} as before"
    )
    rows = contexts(policy, 5)
    if not _estimates(policy):
        for x in rows:
            same("mean of a forgotten arm", policy.scores(x).mean[0], never.scores(x).mean[0], CLOSE)
    counts = getattr(policy, "counts", None)
    require(counts is None or counts[0] == 0, "a forgotten arm still has rewards")
    if isinstance(policy, EvidencePolicy):
        try:
            policy.fingerprint()
        except TypeError:
            return True
        held = policy.evidence(name).buckets.values()
        require(not any(np.any(a) for sums in held for a in sums.values()), "a forgotten arm has evidence")
    return True


def _estimates(policy: object) -> bool:
    """Tell whether scales are fitted: those follow an arm for a while after it was forgotten."""
    inner = getattr(policy, "base", policy)
    return (inner is not policy and _estimates(inner)) or (
        float(getattr(inner, "sigma", 0.0)) > 0.0 and hasattr(inner, "refresh")
    )


def reseeded_policies_draw_apart(factory: Factory) -> bool:
    """After `reseed` two copies hold random numbers of their own, and nothing else of them has changed.

    Examples
    --------
    >>> from banditroute import LinTS
    >>> reseeded_policies_draw_apart(lambda rng: LinTS(3, 2, rng=rng))
    True
    """
    policy = teach(new(factory), lessons(new(factory)))
    twin, third = policy.copy(), policy.copy()
    for one in (twin, third):
        one.reseed()
    seen = {bits(one)[0] for one in (policy, twin, third)}
    require(len(seen) == 3, "reseeded policies are in the same state as before, or as each other")
    for x in contexts(policy, 4):
        same("propensities after reseed", twin.propensities(x), policy.propensities(x))
    return True
