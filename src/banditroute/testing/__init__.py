"""The contract of a policy, as checks that anyone can run on their own: plain functions of a factory.

A factory takes a ``numpy.random.Generator`` and returns a new policy of at least three arms; a check makes as many as
it needs. It raises ``AssertionError`` with what it saw, and returns True, or False when the policy lacks what the check
looks at (`cov`, say): a check that does not apply is not mistaken for one that passed. Seeds are fixed, so a policy
passes always or never. Contexts are standard normal, rewards 0 or 1.
"""

from collections.abc import Callable

from banditroute.testing.candidates import CANDIDATE_CHECKS, check_candidates
from banditroute.testing.cascades import CASCADE_CHECKS, check_cascade
from banditroute.testing.choices import (
    choice_agrees_with_a_full_scan,
    draws_do_not_depend_on_the_outcome,
    equal_contexts_count_alike,
    equal_prices_change_nothing,
    free_residency_changes_nothing,
    propensities_are_a_distribution,
    propensity_is_the_frequency,
    reading_changes_nothing,
)
from banditroute.testing.explaining import explanations_add_up
from banditroute.testing.keeping import (
    arm_order_does_not_matter,
    arms_come_and_go,
    errors_change_nothing,
    same_seed_same_trace,
    saved_state_continues,
)
from banditroute.testing.learning import (
    arrays_of_the_caller_are_left_alone,
    cold_start_is_exact,
    feedback_is_learned_once_with_its_own_context,
    feedback_order_does_not_matter,
    online_equals_batch,
)
from banditroute.testing.material import Factory
from banditroute.testing.ranking import lists_explore_one_place
from banditroute.testing.sharing import (
    evidence_adds_up,
    forgotten_arms_start_cold,
    reseeded_policies_draw_apart,
    utilities_decide,
)
from banditroute.testing.stores import STORE_CHECKS, StoreFactory, check_store
from banditroute.testing.term_driver import TermDriver
from banditroute.testing.terms import TERM_CHECKS, TermFactory, check_term

__all__ = [
    "CANDIDATE_CHECKS",
    "CASCADE_CHECKS",
    "CHECKS",
    "STORE_CHECKS",
    "TERM_CHECKS",
    "StoreFactory",
    "TermDriver",
    "TermFactory",
    "arm_order_does_not_matter",
    "arms_come_and_go",
    "arrays_of_the_caller_are_left_alone",
    "check_candidates",
    "check_cascade",
    "check_policy",
    "check_store",
    "check_term",
    "choice_agrees_with_a_full_scan",
    "cold_start_is_exact",
    "draws_do_not_depend_on_the_outcome",
    "equal_contexts_count_alike",
    "equal_prices_change_nothing",
    "errors_change_nothing",
    "evidence_adds_up",
    "explanations_add_up",
    "feedback_is_learned_once_with_its_own_context",
    "feedback_order_does_not_matter",
    "forgotten_arms_start_cold",
    "free_residency_changes_nothing",
    "lists_explore_one_place",
    "online_equals_batch",
    "propensities_are_a_distribution",
    "propensity_is_the_frequency",
    "reading_changes_nothing",
    "reseeded_policies_draw_apart",
    "same_seed_same_trace",
    "saved_state_continues",
    "utilities_decide",
]

CHECKS: tuple[Callable[[Factory], bool], ...] = (
    propensities_are_a_distribution,
    propensity_is_the_frequency,
    reading_changes_nothing,
    cold_start_is_exact,
    online_equals_batch,
    feedback_order_does_not_matter,
    feedback_is_learned_once_with_its_own_context,
    errors_change_nothing,
    arms_come_and_go,
    arm_order_does_not_matter,
    saved_state_continues,
    same_seed_same_trace,
    draws_do_not_depend_on_the_outcome,
    arrays_of_the_caller_are_left_alone,
    equal_contexts_count_alike,
    equal_prices_change_nothing,
    free_residency_changes_nothing,
    choice_agrees_with_a_full_scan,
    utilities_decide,
    evidence_adds_up,
    forgotten_arms_start_cold,
    reseeded_policies_draw_apart,
    explanations_add_up,
    lists_explore_one_place,
)


def check_policy(factory: Factory) -> list[str]:
    """Run every check on a policy and return the names of those that applied to it.

    Parameters
    ----------
    factory : callable
        ``factory(rng) -> Policy``: a new policy, of at least three arms, that draws from `rng` only.

    Returns
    -------
    list of str
        Names of the checks that passed; one that needs what the policy does not have is left out.

    Raises
    ------
    AssertionError
        At the first check that fails, saying what it saw.

    Notes
    -----
    About two seconds for a linear policy of five arms.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> len(check_policy(lambda rng: LinUCB(4, 3, mix=0.1, rng=rng))) == len(CHECKS)
    True
    """
    return [check.__name__ for check in CHECKS if check(factory)]
