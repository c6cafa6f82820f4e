"""What a policy learns: sums over feedback, whenever it comes."""

from collections.abc import Iterable
from typing import cast

import numpy as np

from banditroute._core.typing import Floats
from banditroute.policies import LinearPolicy, Policy
from banditroute.router import Router
from banditroute.testing.material import (
    CLOSE,
    EXACT,
    Factory,
    beliefs,
    contexts,
    lessons,
    new,
    require,
    same,
    taught,
    teach,
)

__all__ = [
    "arrays_of_the_caller_are_left_alone",
    "cold_start_is_exact",
    "feedback_is_learned_once_with_its_own_context",
    "feedback_order_does_not_matter",
    "online_equals_batch",
]


def cold_start_is_exact(factory: Factory) -> bool:
    """``cov`` inverts ``precision`` before any feedback and after, and widths come from it; needs both.

    Try it with a ridge that is not 1.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> cold_start_is_exact(lambda rng: LinUCB(3, 2, ridge=0.1, rng=rng))
    True
    """
    for policy in (new(factory), taught(factory)):
        cov, precision = getattr(policy, "cov", None), getattr(policy, "precision", None)
        if cov is None or precision is None:
            return False
        for arm in range(len(policy.arms)):
            eye = np.eye(len(cov(arm)))
            same(f"cov @ precision of arm {arm}", cov(arm) @ precision(arm), eye, CLOSE)
            for x in contexts(policy, 3):
                z = _components(policy, x)
                same(f"width of arm {arm}", policy.scores(x).width[arm], np.sqrt(z @ cov(arm) @ z), CLOSE)
    ridge = getattr(new(factory), "ridge", None)
    if ridge is not None:
        cold = _precisions(cast(LinearPolicy, new(factory)))[0]
        same("cold precision", cold, ridge * np.eye(len(cold)), EXACT)
    return True


def _precisions(policy: LinearPolicy) -> list[Floats]:
    return [policy.precision(arm) for arm in range(len(policy.arms))]


def _components(policy: Policy, x: Floats) -> Floats:
    """What the coefficients of a policy belong to: the context, and its constant where the policy adds one."""
    return policy.with_constant(x) if isinstance(policy, LinearPolicy) else x


def _prior_precision(policy: LinearPolicy, arm: int) -> Floats:
    """That of one arm: a ridge, or, where they are estimated, one for each coefficient."""
    ridges = getattr(policy, "ridges", None)
    return policy.ridge * np.eye(len(policy.precision(arm))) if ridges is None else np.diag(ridges[arm])


def _keeps_sums(policy: Policy) -> bool:
    return all(hasattr(policy, name) for name in ("precision", "moment", "prior", "theta", "ridge"))


def online_equals_batch(factory: Factory) -> bool:
    """One by one gives the batch ridge solution; needs ``precision, moment, prior, theta, ridge``, no forgetting.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> online_equals_batch(lambda rng: LinUCB(3, 2, rng=rng))
    True
    """
    policy = cast(LinearPolicy, new(factory))
    if not _keeps_sums(policy) or policy.span:
        return False
    weights = np.random.default_rng(8).uniform(0.5, 2.0, 200)
    course = lessons(policy, 200)
    for lesson, weight in zip(course, weights, strict=True):
        policy.update(lesson.arm, lesson.x, lesson.reward, weight=float(weight))
    for a in range(len(policy.arms)):
        own = [
            (_components(policy, lesson.x), lesson.reward, w)
            for lesson, w in zip(course, weights, strict=True)
            if lesson.arm == a
        ]
        prior = _prior_precision(policy, a)
        gram = prior + sum(w * np.outer(x, x) for x, _, w in own)
        got = policy.precision(a)
        if np.array_equal(got, np.diag(np.diag(got))):  # a policy that keeps the diagonal only
            gram = np.diag(np.diag(gram))
        moment = sum((w * r * x for x, r, w in own), np.zeros(len(gram)))
        same(f"precision of arm {a}", got, gram, CLOSE)
        same(f"moment of arm {a}", policy.moment[a], moment, CLOSE)
        wanted = np.linalg.solve(gram, moment + prior @ policy.prior[a])
        same(f"theta of arm {a}", policy.theta[a], wanted, CLOSE)
    return True


def feedback_order_does_not_matter(factory: Factory) -> bool:
    """The same feedback in any order leaves the same statistics, with discounting too.

    Statistics are ``precision`` less the ridge and ``moment`` where a policy has them (what it derives may follow
    estimated scales, which depend on when they were estimated), else the scores.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> feedback_order_does_not_matter(lambda rng: LinUCB(3, 2, discount=0.95, rng=rng))
    True
    """

    def known(policy: LinearPolicy) -> Floats:
        if not _keeps_sums(policy):
            return np.array([policy.scores(x) for x in contexts(policy, 8, 9)])
        sums = [p - _prior_precision(policy, a) for a, p in enumerate(_precisions(policy))]
        return np.append(np.ravel(sums), policy.moment)

    def learned(order: Iterable[int]) -> Floats:
        policy = cast(LinearPolicy, new(factory))
        teach(policy, [course[i] for i in order])
        policy.advance(len(course))
        return known(policy)

    course = lessons(new(factory), 200)
    forward = learned(range(200))
    for seed in range(3):
        same("statistics", learned(np.random.default_rng(seed).permutation(200)), forward, CLOSE)
    same("statistics in reverse", learned(range(199, -1, -1)), forward, CLOSE)
    return True


def feedback_is_learned_once_with_its_own_context(factory: Factory) -> bool:
    """Through a Router, late feedback counts for the context and clock of its own decision, and once.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> feedback_is_learned_once_with_its_own_context(lambda rng: LinUCB(3, 2, rng=rng))
    True
    """
    router, twin = Router(taught(factory)), taught(factory)
    twin.rewind()
    rows = contexts(twin, 80)
    decisions = [router.select(x) for x in rows]
    for t in range(80):
        twin.advance(t)
    for i in np.random.default_rng(6).permutation(80):
        reward = float(i % 3 == 0)
        require(router.update(decisions[i].id, reward), "feedback that was due was dropped")
        require(not router.update(decisions[i].id, 1.0 - reward), "a repeated answer was learned")
        twin.update(decisions[i].arm, rows[i], reward, at=int(i))
    same("beliefs after late feedback", beliefs(router.policy), beliefs(twin))
    return True


def arrays_of_the_caller_are_left_alone(factory: Factory) -> bool:
    """Arrays handed over are neither changed nor kept, by a policy or by a Router.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> arrays_of_the_caller_are_left_alone(lambda rng: LinUCB(3, 2, rng=rng))
    True
    """
    lent, owned = new(factory), new(factory)
    routers = Router(new(factory)), Router(new(factory))
    x = np.empty(lent.dim)
    for lesson in lessons(lent):
        x[:] = lesson.x
        prices, mask = np.linspace(0.0, 1.0, len(lent.arms)), np.ones(len(lent.arms), dtype=np.bool_)
        lent.select(x, prices=prices, eligible=mask)
        lent.propensities(x, prices=prices, eligible=mask)
        lent.scores(x)
        lent.update(lesson.arm, x, lesson.reward, at=lesson.at)
        unchanged = np.array_equal(x, lesson.x) and mask.all()
        require(
            unchanged and np.array_equal(prices, np.linspace(0.0, 1.0, len(prices))), "an array was changed"
        )
        decision = routers[0].select(x)
        x[:] = 1e5
        routers[0].update(decision.id, lesson.reward)
        owned.update(lesson.arm, lesson.x.copy(), lesson.reward, at=lesson.at)
        routers[1].update(routers[1].select(lesson.x.copy()).id, lesson.reward)
    same("beliefs when the array was reused", beliefs(lent), beliefs(owned))
    same("beliefs of routers", beliefs(routers[0].policy), beliefs(routers[1].policy))
    return True
