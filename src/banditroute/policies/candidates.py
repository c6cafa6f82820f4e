"""What a policy is that chooses among candidates which each request brings."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from numpy.typing import ArrayLike

from banditroute._core.typing import Floats, Ints
from banditroute.policies.base import Choice, Policy, Utilities
from banditroute.policies.wrapper import Wrapper

__all__ = ["CandidatePolicy", "Candidates", "chooser", "unwrapped"]

Candidates = Mapping[str, ArrayLike] | tuple[Sequence[str], ArrayLike]


@runtime_checkable
class CandidatePolicy(Protocol):
    """A policy that chooses among candidates which each request brings with their features.

    Beside these methods, `Policy.update` takes a name that is no arm with what `kept_candidate` returned, where
    `Policy.learns_of` says so.

    Examples
    --------
    >>> from banditroute.policies import LinUCB, SharedLinUCB
    >>> isinstance(SharedLinUCB([], 1, features=2), CandidatePolicy), isinstance(LinUCB(2, 1), CandidatePolicy)
    (True, False)
    """

    dim: int

    @property
    def candidate_size(self) -> int:
        """How many features each candidate brings."""

    def check_candidates(self, candidates: Candidates) -> tuple[tuple[str, ...], Floats]:
        """Return names and features, (m,) and (m, candidate_size), or refuse them."""

    def candidate_utilities(self, x: ArrayLike, candidates: Candidates) -> Utilities:
        """Return mean and bonus of every candidate, both (m,); reads only."""

    def candidate_propensities(
        self, x: ArrayLike, candidates: Candidates, prices: ArrayLike | None = None
    ) -> Floats:
        """Return the probability of every candidate, (m,); reads only."""

    def select_candidate(
        self, x: ArrayLike, candidates: Candidates, prices: ArrayLike | None = None
    ) -> Choice:
        """Choose one; uses the same amount of randomness whatever the outcome."""

    def choose_candidate(self, x: Floats, names: tuple[str, ...], features: Floats, prices: Floats) -> Choice:
        """As `select_candidate`, for a caller that has had everything checked and leaves one open."""

    def places(self, names: tuple[str, ...]) -> Ints:
        """Return the position of each candidate among the arms, (m,), -1 for one that is none."""

    def kept_candidate(self, x: Floats, features: Floats) -> Floats:
        """Return what a decision keeps: the context and then the features, a new array; `update` learns from it."""

    def knows(self, name: str) -> bool:
        """Whether it has features of this name without being given any."""


def unwrapped(policy: Policy) -> Policy:
    """Return what is inside wrappers that pass candidates on.

    Examples
    --------
    >>> from banditroute.policies import SharedLinUCB, SlidingWindow
    >>> type(unwrapped(SlidingWindow(SharedLinUCB([], 1, features=2)))).__name__
    'SharedLinUCB'
    """
    while isinstance(policy, Wrapper) and not policy.refuses_candidates:
        policy = policy.base
    return policy


def chooser(policy: Policy) -> CandidatePolicy:
    """Return what of a policy chooses among candidates: itself, or what is inside wrappers that pass them on.

    Raises
    ------
    TypeError
        Nothing does; the message says why.

    Examples
    --------
    >>> from banditroute.policies import LinUCB
    >>> chooser(LinUCB(2, 1))
    Traceback (most recent call last):
    TypeError: candidates must be left out with LinUCB: it knows no features; SharedLinUCB and HybridLinUCB take them
    """
    inner = unwrapped(policy)
    if isinstance(inner, CandidatePolicy):
        return inner
    why = inner.refuses_candidates if isinstance(inner, Wrapper) else "it knows no features"
    raise TypeError(
        f"candidates must be left out with {type(inner).__name__}: {why}; SharedLinUCB and HybridLinUCB take them"
    )
