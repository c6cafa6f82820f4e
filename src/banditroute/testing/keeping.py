"""What a policy keeps: through errors, changes of arms, saving and loading."""

import json
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from banditroute._core.typing import Floats
from banditroute.errors import UnknownArm
from banditroute.policies import Policy
from banditroute.router import Router
from banditroute.testing.material import (
    CLOSE,
    Factory,
    beliefs,
    bits,
    contexts,
    continued,
    lessons,
    new,
    require,
    same,
    starts_alike,
    taught,
    teach,
)

__all__ = [
    "arm_order_does_not_matter",
    "arms_come_and_go",
    "errors_change_nothing",
    "same_seed_same_trace",
    "saved_state_continues",
]


def errors_change_nothing(factory: Factory) -> bool:
    """A call that cannot be served raises ``ValueError``, ``TypeError`` or ``UnknownArm`` and changes not one bit.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> errors_change_nothing(lambda rng: LinUCB(3, 2, rng=rng))
    True
    """
    for policy in (new(factory), taught(factory)):
        d, k, good = policy.dim, len(policy.arms), contexts(policy, 1)[0]
        nan, inf = np.full(d, np.nan), np.append(np.zeros(d - 1), np.inf)
        wrong: list[Any] = [nan, inf, np.full(d, 1e200), [1e200] * d, np.ones(d + 1), np.ones((1, d)), 0.0]
        wrong += ["x" * d, None, [object()] * d, [10**400] * d]
        options: list[dict[str, Any]] = [
            {"prices": v} for v in (np.ones(k + 1), [np.nan] * k, [np.inf] * k, "p")
        ]
        options += [{"eligible": v} for v in (np.ones(k - 1, bool), np.zeros(k, bool), np.ones(k), [1] * k)]
        calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []
        for read in (policy.select, policy.propensities):
            calls += [(read, (x,), {}) for x in wrong] + [(read, (good,), option) for option in options]
            calls += [(read, (nan,), {"prices": np.ones(k)})]
        calls += [(policy.scores, (x,), {}) for x in wrong]
        calls += [(policy.update, (0, x, 1.0), {}) for x in wrong]
        bad_rewards: list[Any] = [np.nan, np.inf, -np.inf, 1e200, 10**400, None, "1", 1j, [1.0]]
        calls += [(policy.update, (0, good, r), {}) for r in bad_rewards]
        calls += [(policy.update, (a, good, 1.0), {}) for a in (k, -1, 2**70, 0.0, True, None, "no such arm")]
        calls += [(policy.update, (0, good, 1.0), {"weight": w}) for w in (0.0, -1.0, np.nan, np.inf, None)]
        calls += [(policy.update, (0, good, 1.0), {"at": t}) for t in (-1, 1.5, 2**70, "0")]
        calls += [(policy.update_batch, ([good, nan], [0, 1], [1.0, 1.0]), {})]
        calls += [(policy.update_batch, ([good, good], [0, 1], [1.0, np.nan]), {})]
        calls += [(policy.update_batch, ([good, good], [0, k], [1.0, 1.0]), {})]
        calls += [
            (policy.select_batch, ([good, nan],), {}),
            (policy.select_batch, ([good, 1e200 * good],), {}),
        ]
        calls += [(policy.add_arm, (name,), {}) for name in (policy.arms[0], 7, "", None)]
        calls += [(policy.remove_arm, (name,), {}) for name in ("no such arm", k, None)]
        before = bits(policy)
        for call, arguments, named in calls:
            shown = f"{call.__name__}{arguments} {named}"
            try:
                call(*arguments, **named)
            except (ValueError, TypeError, UnknownArm):
                require(bits(policy) == before, f"{shown} raised, as it should, but changed the state")
            else:
                require(False, f"{shown} was accepted")
    return True


def arms_come_and_go(factory: Factory) -> bool:
    """Arms can be added and removed, with feedback pending too; the others do not notice, and who returns is new.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> arms_come_and_go(lambda rng: LinUCB(3, 2, rng=rng))
    True
    """
    policy = taught(factory)
    rows, names = contexts(policy, 6), policy.arms

    def told(of: Policy, arms: Iterable[str]) -> Floats:
        places = [of.index(arm) for arm in arms]
        return np.array([np.array(of.scores(x))[:, places] for x in rows])

    before = told(policy, names)
    require(
        policy.add_arm("new") == len(names) and policy.arms == (*names, "new"), "the new arm is not the last"
    )
    same("scores of the others after add_arm", told(policy, names), before)
    policy.remove_arm("new")
    same("scores of the others after remove_arm", told(policy, names), before)
    policy.remove_arm(names[0])
    require(policy.arms == names[1:], f"arms after remove_arm: got {policy.arms}, wanted {names[1:]}")
    same("scores of the others after remove_arm", told(policy, names[1:]), before[:, :, 1:])
    twin = policy.copy()
    policy.update(names[2], rows[1], 1.0)
    twin.update(1, rows[1], 1.0)
    same("beliefs after learning by name", beliefs(policy), beliefs(twin))
    policy.add_arm(names[0])
    policy.add_arm("other")
    if starts_alike(new(factory)):
        same("scores of an arm that came back", told(policy, names[:1]), told(policy, ["other"]))

    full, thin = Router(taught(factory)), Router(taught(factory))
    decisions = [(full.select(x), thin.select(x)) for x in contexts(policy, 40)]
    gone = decisions[-1][0].arm
    for router in (full, thin):
        router.remove_arm(gone)
        router.add_arm(gone)
    for one, other in decisions:
        kept = full.update(one.id, 1.0)
        require(kept == (one.arm != gone), f"feedback for {one.arm} after {gone} left: learned is {kept}")
        if kept:
            thin.update(other.id, 1.0)
    same("beliefs after feedback for an arm that left", beliefs(full.policy), beliefs(thin.policy))
    return True


def arm_order_does_not_matter(factory: Factory) -> bool:
    """Arms that swap their feedback swap their scores; needs arms that start alike.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> arm_order_does_not_matter(lambda rng: LinUCB(3, 2, rng=rng))
    True
    """
    policy, other = new(factory), new(factory)
    if not starts_alike(policy):
        return False
    order = np.random.default_rng(3).permutation(len(policy.arms))
    course = lessons(policy)
    teach(policy, course)
    teach(other, [lesson._replace(arm=int(order[lesson.arm])) for lesson in course])
    same("beliefs after a permutation of the arms", beliefs(other)[:, :, order], beliefs(policy), CLOSE)
    return True


def saved_state_continues(factory: Factory) -> bool:
    """Save, load, continue equals continue: `to_state`, through JSON and copied arrays, holds everything.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> saved_state_continues(lambda rng: LinUCB(3, 2, mix=0.5, rng=rng))
    True
    """
    policy = taught(factory)
    for x in contexts(policy, 7):
        policy.select(x)
    header, arrays = policy.to_state()
    text = json.dumps(header)
    loaded = new(factory, seed=99)
    loaded.load_state(json.loads(text), {name: array.copy() for name, array in arrays.items()})
    copied = policy.copy()
    trace = continued(policy)
    require(continued(loaded) == trace, "a loaded policy decided otherwise than the one that was saved")
    require(continued(copied) == trace, "a copy decided otherwise than its original")
    require(
        bits(loaded) == bits(policy) == bits(copied), "loaded, copied and original end in different states"
    )
    return True


def same_seed_same_trace(factory: Factory) -> bool:
    """The generator handed over is the only source of randomness.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> same_seed_same_trace(lambda rng: LinUCB(3, 2, mix=0.5, rng=rng))
    True
    """
    require(continued(taught(factory)) == continued(taught(factory)), "one seed gave two traces")
    return True
