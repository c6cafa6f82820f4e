"""Ways to give a linear policy a start: a preference prior, offline statistics, a phase without context, a quiz."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.kernels import layout
from banditroute._core.typing import Floats
from banditroute.policies.base import LARGEST, Policy
from banditroute.policies.linear import LinearPolicy
from banditroute.policies.linear_slices import changing

__all__ = ["from_averages", "preference_prior", "quiz", "warm_start"]


def preference_prior(
    policy: LinearPolicy, means: ArrayLike, accuracies: ArrayLike, *, anchor: ArrayLike | None = None
) -> None:
    """Start each arm at given coefficients, the more firmly the more they can be trusted.

    Adds ``A_a += l_a C`` and ``b_a += l_a C means_a`` with ``l_a = 1 / accuracy_a``: pseudo-observations that more
    feedback outweighs.

    Parameters
    ----------
    policy : LinearPolicy
        With ``prior=None`` (the default prior pulls all arms together, this one apart).
    means : (k, dim) array
        Coefficients expected of each arm, from preference data or anything else. Here as in `anchor` the constant of
        an intercept counts too, as the last.
    accuracies : (k,) array
        In (0, 1]; PILOT takes the pre-training accuracy of the arm.
    anchor : (dim, dim) array, optional
        C, positive semi-definite; the identity when left out.

    Raises
    ------
    ValueError, TypeError
        Nothing changed.

    Notes
    -----
    Source: PILOT (arXiv 2508.21141), read in a summary (equation numbers not checked against the text):
    ``A_a = lambda_a I, b_a = lambda_a theta_pref``. Its bound is no worse than without the prior when
    ``||theta_pref - theta|| <= ||theta||``; a worse prior costs regret, and nothing here notices. That a less accurate
    arm is held more firmly is the paper's choice: pass your own numbers otherwise.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = LinUCB(2, 1, ridge=1e-9, prior=None, rng=0)
    >>> preference_prior(policy, [[0.2], [0.8]], [1.0, 1.0])
    >>> policy.scores([1.0]).mean.round(3)
    array([0.2, 0.8])
    """
    count, dim = len(policy.arms), _linear(policy).state.dim
    given = check.matrix("means", means, columns=dim, rows=count)
    trust = check.vector("accuracies", accuracies, count)
    if not ((trust > 0.0) & (trust <= 1.0)).all():
        raise ValueError(f"accuracies must be in (0, 1], got {trust}")
    base = np.eye(dim) if anchor is None else check.matrix("anchor", anchor, columns=dim, rows=dim)
    grams = base / trust[:, None, None]
    _add(policy, grams, np.einsum("aij,aj->ai", grams, given), np.zeros(count))


def warm_start(
    policy: LinearPolicy,
    contexts: ArrayLike,
    arms: ArrayLike,
    rewards: ArrayLike,
    *,
    effective: float | None = None,
) -> None:
    """Learn offline records, scaled so that those of each arm count as `effective` observations at most.

    Parameters
    ----------
    policy : LinearPolicy
    contexts : (n, dim) array
    arms : (n,) array
        Index of the arm of each record. Full-information data: repeat the context for each arm.
    rewards : (n,) array
    effective : float, optional
        Largest weight of an arm's records together; all of their own weight when left out.

    Raises
    ------
    UnknownArm, ValueError, TypeError
        Nothing changed.

    Notes
    -----
    Source: ParetoBandit (arXiv 2604.00136), which scales A and b by n_eff over the count of records (its bias entry)
    and measures 1,164 as a good n_eff; here the ridge stays unscaled. Scaling leaves the fit and widens the widths: how
    far offline records resemble what comes is your judgement, and no theory covers a prior from shifted data.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = LinUCB(2, 1, ridge=1.0, prior=None, rng=0)
    >>> warm_start(policy, np.ones((500, 1)), np.zeros(500, dtype=int), np.ones(500), effective=9.0)
    >>> float(policy.precision(0)[0, 0]), float(policy.theta[0, 0])
    (10.0, 0.9)
    """
    rows, chosen, given = _linear(policy).check_batch(contexts, arms, rewards)
    rows = policy.with_constant(rows)
    most = np.inf if effective is None else check.finite("effective", effective, low=0.0, open_low=True)
    count, dim = len(policy.arms), policy.state.dim
    grams, moments, weights, squares = (
        np.zeros((count, dim, dim)),
        np.zeros((count, dim)),
        np.zeros(count),
        np.zeros(count),
    )
    for a in np.unique(chosen).tolist():
        x, r = rows[chosen == a], given[chosen == a]
        scale = min(1.0, most / len(x))
        grams[a], moments[a] = scale * (x.T @ x), scale * (r @ x)
        weights[a], squares[a] = scale * len(x), scale * float(r @ r)
    _add(policy, grams, moments, weights, squares)


def from_averages(
    policy: LinearPolicy, counts: ArrayLike, averages: ArrayLike, *, constant: int = -1
) -> None:
    """Take over a phase without context: each arm is known to earn its average where the constant component is 1.

    Parameters
    ----------
    policy : LinearPolicy
        Its contexts have a component that is always 1, or it has an intercept.
    counts : (k,) array
        Rewards seen per arm, >= 0.
    averages : (k,) array
        Their mean (ignored where the count is 0).
    constant : int
        Index of the constant component; the last is that of an intercept.

    Raises
    ------
    ValueError, TypeError
        Nothing changed.

    Notes
    -----
    Source: Conduit (ashita-ai/conduit) seeds its LinUCB from UCB1 counts in this way. It is what LinUCB would have
    learned from contexts that are zero but for the constant, so the intercept is taken for surer than it is where other
    components matter: scale `counts` down if in doubt.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = LinUCB(2, 3, ridge=1.0, prior=None, rng=0)
    >>> from_averages(policy, [99, 0], [0.5, 0.0])
    >>> policy.scores([0.0, 0.0, 1.0]).mean
    array([0.495, 0.   ])
    """
    number = len(_linear(policy).arms)
    seen = check.vector("counts", counts, number, limit=LARGEST)
    if (seen < 0.0).any():
        raise ValueError(f"counts must be >= 0, got {seen.min():g}")
    means = np.where(seen > 0.0, check.vector("averages", averages, number, limit=LARGEST), 0.0)
    dim = policy.state.dim
    at = check.integer("constant", constant, low=-dim, high=dim - 1)
    unit = np.zeros(dim)
    unit[at] = 1.0
    _add(
        policy,
        seen[:, None, None] * np.outer(unit, unit),
        np.outer(seen * means, unit),
        seen,
        seen * means**2,
    )


def quiz(
    policy: Policy,
    arm: str,
    contexts: ArrayLike,
    ask: Callable[[int], float],
    *,
    questions: int = 30,
    ridge: float = 1.0,
) -> list[int]:
    """Introduce an arm by asking it the most informative of some prompts, and learn its answers.

    Picks greedily the context with the largest ``x' (ridge I + sum x x')^-1 x`` over those asked (D-optimal design).

    Parameters
    ----------
    policy : Policy
        Any policy; the arm is added if it is not there.
    arm : str
    contexts : (n, dim) array
        Prompts to choose from.
    ask : callable
        ``ask(i) -> reward`` of the arm on prompt i.
    questions : int
        How many to ask, at most n.
    ridge : float
        Scale at which differences between contexts matter.

    Returns
    -------
    list of int
        Prompts asked, in this order.

    Notes
    -----
    Source: LLM Bandit (arXiv 2502.02743) places a new model with 20 to 50 selected prompts; its selection is not
    public; the greedy design is ours. All answers are learned or, should `ask` raise, none. Quizzed prompts are no
    sample of the traffic: fit for a linear model that holds, biased averages where it does not.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> policy = LinUCB(["old"], 2, rng=0)
    >>> rows = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    >>> quiz(policy, "new", rows, lambda i: [0.9, 0.9, 0.1][i], questions=2)
    [1, 2]
    >>> policy.arms
    ('old', 'new')
    """
    rows = check.matrix("contexts", contexts, columns=policy.dim)
    policy.check_norms(rows)
    wanted = min(check.integer("questions", questions, low=1), len(rows))
    cov = np.eye(policy.dim) / check.finite("ridge", ridge, low=1.0 / LARGEST, high=LARGEST)
    left = np.ones(len(rows), dtype=np.bool_)
    asked: list[int] = []
    for _ in range(wanted):
        gain = np.einsum("ni,ij,nj->n", rows, cov, rows)
        i = int(np.where(left, gain, -1.0).argmax())
        z = cov @ rows[i]
        cov -= np.outer(z, z) / (1.0 + rows[i] @ z)
        left[i] = False
        asked.append(i)
    answers = [policy.check_reward(check.finite("reward", ask(i)), 1.0)[0] for i in asked]
    if arm not in policy.arms:
        policy.add_arm(arm)
    policy.update_batch(rows[asked], np.full(len(asked), policy.index(arm)), answers)
    return asked


def _linear(policy: LinearPolicy) -> LinearPolicy:
    if not isinstance(policy, LinearPolicy):
        base = getattr(policy, "base", None)
        inner = ": give it the policy inside" if isinstance(base, LinearPolicy) else ""
        raise TypeError(f"policy must be a LinearPolicy, such as LinUCB, got {type(policy).__name__}{inner}")
    return policy


def _add(
    policy: LinearPolicy,
    grams: Floats,
    moments: Floats,
    weights: Floats,
    squares: Floats | Sequence[float] = (),
) -> None:
    """Add statistics (k, dim, dim), (k, dim), (k,), (k,) to those of a policy and derive everything afresh."""
    state = policy.state
    if state.pack == state.pad:
        raise ValueError("policy must keep whole matrices, got a diagonal one")
    changing(state)
    state.give_up()
    state.gram[:] += np.array([state.packed(gram) for gram in grams])
    state.moment[:, : state.dim] += moments
    state.arm[:, layout.A_COUNT] += np.floor(weights)
    state.arm[:, layout.A_WEIGHT] += weights
    state.arm[:, layout.A_SQUARE] += np.zeros(len(weights)) if len(squares) == 0 else np.asarray(squares)
    policy.buffer[layout.H_LEARNED] += float(np.floor(weights).sum())
    policy.rebuild()
    if policy.buffer[layout.H_LEARNED] >= policy.buffer[layout.H_REFRESH]:
        policy.refresh()
