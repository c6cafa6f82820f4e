"""What a Router says of its choices: explanations that add up and leave no trace."""

import json

import numpy as np

from banditroute.router import Explanation, Router
from banditroute.testing.material import EXACT, Factory, bits, requests, require, same, taught

__all__ = ["explanations_add_up"]


def explanations_add_up(factory: Factory) -> bool:
    """An explanation sums to its index, tells the propensities of the choice, and leaves no trace.

    The largest index is the likeliest arm wherever the rule of the policy says that it is played.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> explanations_add_up(lambda rng: LinUCB(3, 2, mix=0.1, rng=rng))
    True
    """
    router, twin = Router(taught(factory)), Router(taught(factory))
    policy = router.policy
    for x, prices, mask in requests(policy, 40, seed=31):
        given = policy.propensities(x, prices=prices, eligible=mask)
        before = bits(policy)
        why = router.explain(x, eligible=mask, prices=prices)
        require(bits(policy) == before, "an explanation changed the state of the policy")
        _adds_up(why)
        same("propensities of the explanation", [arm.propensity for arm in why.arms], given, EXACT)
        for a, arm in enumerate(why.arms):
            closed = mask is not None and not mask[a]
            require(
                not closed or "mask" in arm.closed, f"{arm.arm} is masked, its explanation says {arm.closed}"
            )
            require(not arm.closed or arm.propensity == 0.0, f"{arm.arm} is closed and has {arm.propensity}")
        if "largest index" in why.rule:
            _decides(why)
        json.dumps(why.to_dict(), allow_nan=False)
        require(why.best.arm in str(why), "the text of an explanation must name the likeliest arm")
        one, other = (r.select(x, eligible=mask, prices=prices) for r in (router, twin))
        require(
            (one.arm, one.propensity) == (other.arm, other.propensity)
            or (one.arm == other.arm and np.isnan(one.propensity)),
            f"explained, the choice was {one.arm}; not explained, {other.arm}",
        )
        require(
            given[policy.index(one.arm)] > 0.0, f"{one.arm} was played, its explanation gave it no chance"
        )
    return True


def _adds_up(why: Explanation) -> None:
    for one in why.arms:
        total = one.mean + one.bonus - sum(one.prices.values())
        if np.isfinite(one.index):
            same(f"index of {one.arm}", one.index, total, EXACT)
        else:
            same(
                f"{one.arm} without a finite index is closed",
                float(bool(one.closed) or np.isnan(one.mean)),
                1.0,
            )


def _decides(why: Explanation) -> None:
    open_ = [one for one in why.arms if not one.closed]
    best = max(one.index for one in open_)
    slack = 1e-9 * max(1.0, abs(best))
    for one in open_:
        likelier = one.propensity > min(other.propensity for other in open_) + EXACT
        require(
            not likelier or one.index >= best - slack,
            f"{one.arm} is likelier than others with index {one.index}, the largest is {best}",
        )
