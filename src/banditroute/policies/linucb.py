"""Disjoint LinUCB."""

from banditroute.policies.linear import LinearPolicy

__all__ = ["LinUCB"]


class LinUCB(LinearPolicy):
    """Disjoint LinUCB whose arms are shrunk towards a pooled model.

    Plays the arm with the largest ``x'theta_a + alpha sqrt(x' A_a^-1 x) - price_a``, where
    ``A_a = ridge I + sum x x'`` and ``theta_a = A_a^-1 (b_a + ridge prior_a)``.

    Parameters
    ----------
    arms : int or sequence of str
        Names of the arms, or a count k for "0" .. "k-1".
    dim : int
        Length of the context vectors. An arm has a level of its own where they hold a constant, or with `intercept`.
    alpha : float or "auto"
        Width of exploration in reward units. "auto" takes the noise scale that best explains the rewards so far, and
        at least half of their range or three noise scales, whichever is less, while there are fewer than ten rewards
        per coefficient, less and less from then on; half of the range of rewards and zero until 16 rewards are known.
        Directions of which nothing is known keep a bonus of their own, a quarter of the standard deviation of the
        rewards, so that an arm is tried though rewards carry no noise. And an arm that has hardly answered, less than
        once by eight requests per arm, twice by 24, three times by 56, is taken to be better than the best reward seen:
        no estimate shuts it out.
    ridge : float or "auto"
        Prior precision. "auto" takes the noise variance over the variance between arms, one for the levels of the arms
        (the coefficients of components that never change: the scale of the constant does not matter) and one for their
        slopes, both at the maximum of their likelihood and a wide prior, refreshed whenever feedback grew by a fifth;
        1 until 16 rewards are known. Slopes that move rewards less than the noise does are explored less than fully.
        Nothing estimated depends on the units of contexts and rewards.
    prior : "pooled", None or (k, dim) array
        Mean towards which each arm is shrunk: one model fitted on all arms together and refreshed as feedback grows
        (the default: an arm not yet tried is then expected to be like the others instead of worthless), zero (the
        textbook), or given means.
    discount : float
        In (0, 1]; evidence of a decision made n decisions ago weighs about ``discount ** n``, exactly so by buckets
        of a tenth of the memory ``1 / (1 - discount)``. The ridge does not decay.
    mix : float
        Share of decisions drawn uniformly over the eligible arms, in [0, 1].
    intercept : bool
        Add a constant 1 to every context, as a last component of the arms that callers need not send. One that they do
        send is as good, whatever its scale, where ridge is "auto"; two do no harm.
    max_norm : float
        Contexts with a larger norm are refused.
    rng : int, SeedSequence, Generator or None
        Seed of tie breaks and of the uniform share.

    Notes
    -----
    Source: Li, Chu, Langford and Schapire, "A contextual-bandit approach to personalized news article
    recommendation" (WWW 2010), Algorithm 1 (scores: lines 8 and 9, with a ridge that need not be 1); MacKay, "Bayesian
    interpolation" (Neural Computation 4, 1992), for the ridge; the pooled prior, the width and the buckets are ours.
    The regret theory holds for a fixed ridge and alpha of its own choosing: neither the pooled prior nor an estimated
    scale is covered by it. With ``mix=0`` propensities are one-hot and logs cannot be evaluated off-policy.

    A refresh of prior and scales goes on in slices, a bounded one with each reward; `refresh` does all of it at once.

    `select` costs O(k dim) plus O(dim^2) per arm that is still in the running, `update` O(dim^2).

    Examples
    --------
    >>> policy = LinUCB(arms=["small", "large"], dim=2, rng=0)
    >>> for _ in range(20):
    ...     policy.update("small", [1.0, 0.0], reward=0.9)
    ...     policy.update("large", [1.0, 0.0], reward=0.2)
    >>> policy.arms[policy.select([1.0, 0.0]).arm]
    'small'
    """
