"""Lists of a policy: distinct arms that are open, one place explored, and chances that are those told."""

import numpy as np

from banditroute.records import Ranking
from banditroute.router import Router
from banditroute.testing.material import CLOSE, DRAWS, Factory, contexts, require, same, taught

__all__ = ["lists_explore_one_place"]


def lists_explore_one_place(factory: Factory) -> bool:
    """A list holds distinct open arms, its chances are its frequencies, and its order follows the means but for one.

    900 lists of three places; needs `utilities`. A right policy is refused with probability below 1e-5: five standard
    deviations and five draws are allowed.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> lists_explore_one_place(lambda rng: LinUCB(4, 2, mix=0.3, rng=rng))
    True
    """
    router = Router(taught(factory))
    policy = router.policy
    x, mask = contexts(policy, 1, seed=41)[0], np.ones(len(policy.arms), dtype=np.bool_)
    if len(mask) > 3:
        mask[1] = False
    try:
        policy.utilities(x[np.newaxis])
    except TypeError:
        return False
    draws = (
        20 if policy.span else DRAWS * 3 // 5
    )  # what forgets by the clock changes from one list to the next
    told, count = dict[tuple[int, str], float](), dict[tuple[int, str], int]()
    for _ in range(draws):
        shown = router.select(x, mask, k=3)
        assert isinstance(shown, Ranking)
        mean = policy.utilities(x[np.newaxis]).mean[0]
        arms = [policy.index(arm) for arm in shown.arms]
        require(
            len(set(arms)) == 3 and mask[arms].all(), f"a list must hold distinct open arms, got {shown.arms}"
        )
        rest = [[a for a in arms if a != arms[j]] for j in range(3)]
        require(
            any(mean[left[0]] >= mean[left[1]] for left in rest),
            f"all places but one must follow the means, got {mean[arms]}",
        )
        for i, (arm, p) in enumerate(zip(shown.arms, shown.propensities, strict=True)):
            require(0.0 < p <= 1.0 + CLOSE, f"the chance of {arm} at place {i} must be in (0, 1], got {p}")
            if not policy.span:
                same(f"chance of {arm} at place {i}", told.setdefault((i, arm), p), p, CLOSE)
                count[i, arm] = count.get((i, arm), 0) + 1
    for (i, arm), p in told.items():
        allowed = 5.0 * np.sqrt(draws * p * max(0.0, 1.0 - p)) + 5.0
        seen = count[i, arm]
        require(
            abs(seen - draws * p) <= allowed,
            f"{arm} stood {seen / draws:.3f} at place {i}, its chance was {p:.3f}",
        )
    return True
