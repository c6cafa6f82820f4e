"""Two-stage selection: cheap screening to the best few arms, and the health that takes arms out at once."""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute._core.typing import Floats, Mask
from banditroute.policies import LARGEST
from banditroute.records import Decision
from banditroute.router import Router

__all__ = ["ArmHealth", "screen", "stability"]

State = Literal["up", "degraded", "down"]


def stability(load: ArrayLike, latency_s: ArrayLike, available: ArrayLike = True) -> Floats:
    """Return ``0.4 (1 - load) + 0.4 (1 - latency / 2 s) + 0.2 available``, (k,), each part clipped to [0, 1].

    Parameters
    ----------
    load : (k,) array
        Share of the arm's capacity in use.
    latency_s : (k,) array
        Recent latency, seconds.
    available : (k,) bool array
        Whether the arm answers.

    Notes
    -----
    Source: the code of Symphony-Coord (arXiv 2602.00966).

    Examples
    --------
    >>> stability([0.0, 1.0], [0.0, 4.0]).tolist()
    [1.0, 0.2]
    """
    free = 1.0 - np.clip(np.asarray(load, dtype=np.float64), 0.0, 1.0)
    quick = 1.0 - np.clip(np.asarray(latency_s, dtype=np.float64) / 2.0, 0.0, 1.0)
    return np.asarray(0.4 * free + 0.4 * quick + 0.2 * np.asarray(available, dtype=np.float64))


def screen(
    similarity: ArrayLike,
    success: ArrayLike,
    stable: ArrayLike,
    top: int = 3,
    *,
    eligible: ArrayLike | None = None,
) -> Mask:
    """Return the mask of the `top` arms by ``0.50 similarity + 0.35 success + 0.15 stable``: stage one of two.

    Parameters
    ----------
    similarity : (k,) array
        Of the request to what the arm is for, such as a cosine of embeddings.
    success : (k,) array
        Mean reward of the arm in the past, 0.5 where unknown.
    stable : (k,) array
        As from `stability`.
    top : int
        Arms to keep, >= 1; ties go to the arm that comes first.
    eligible : (k,) bool array, optional
        Arms that may be kept.

    Returns
    -------
    (k,) bool array
        The policy's ``eligible``. The policy never learns about arms that screening always drops.

    Notes
    -----
    Source: the code of Symphony-Coord (arXiv 2602.00966), weights and ``top`` included. Its regret bound is
    conditional on the candidates; what screening drops by mistake is outside it. O(k).

    Examples
    --------
    >>> screen([0.9, 0.1, 0.8], [0.5, 0.9, 0.5], [1.0, 1.0, 0.0], top=2)
    array([ True, False,  True])
    """
    count = np.size(similarity)
    parts = (("similarity", similarity), ("success", success), ("stable", stable))
    near, good, calm = (check.vector(name, value, count, limit=LARGEST) for name, value in parts)
    points = 0.5 * near + 0.35 * good + 0.15 * calm
    if eligible is not None:
        points = np.where(np.asarray(eligible), points, -np.inf)
    kept = np.zeros(count, dtype=np.bool_)
    kept[np.argsort(-points, kind="stable")[: check.integer("top", top, low=1)]] = True
    return kept & (points > -np.inf)


class ArmHealth:
    """Which arms are up, degraded or down; takes them out of the choice at once and counts every reroute.

    A degraded arm costs `penalty`, an arm that is down is not eligible. Mark arms from outside (`mark`), or let
    outcomes of calls decide (`report`): after `limits` failures in a row an arm is degraded, then down.

    Parameters
    ----------
    router : Router
        Its arms are watched; their order may change.
    penalty : float
        Price of a degraded arm, reward units.
    limits : (int, int)
        Failures in a row for degraded and for down.

    Notes
    -----
    A failed call is not a low reward: learn it only where the answer itself was bad, else the arm is distrusted long
    after it is back. An arm that comes back with other qualities is relearned with ``fresh=True``; a journal does not
    record that, so checkpoint after it.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> router = Router(LinUCB(["a", "b"], 1, rng=0))
    >>> health, x = ArmHealth(router), [1.0]
    >>> decision = router.select(x, prices=health.prices(), eligible=health.eligible())
    >>> health.mark(decision.arm, "down")
    >>> again = health.reroute(decision, x)
    >>> again.arm != decision.arm, health.reroutes.total()
    (True, 1)
    """

    def __init__(self, router: Router, *, penalty: float = 0.1, limits: tuple[int, int] = (2, 5)) -> None:
        self._router = router
        self.penalty = check.finite("penalty", penalty, low=0.0, high=LARGEST)
        first = check.integer("limits", limits[0], low=1)
        self.limits = (first, check.integer("limits", limits[1], low=first))
        self._states: dict[str, State] = {}
        self._failures: Counter[str] = Counter()
        self.reroutes: Counter[str] = Counter()  # requests taken away from each arm

    def state(self, arm: str) -> State:
        """Return the state of an arm."""
        self._router.policy.index(arm)
        return self._states.get(arm, "up")

    def mark(self, arm: str, state: State, *, fresh: bool = False) -> None:
        """Set the state of an arm; with `fresh` what was learned about it is forgotten.

        Raises
        ------
        UnknownArm, ValueError
            Nothing changed.
        """
        index = self._router.policy.index(arm)
        if state not in ("up", "degraded", "down"):
            raise ValueError(f"state must be 'up', 'degraded' or 'down', got {state!r}")
        self._states[arm] = state
        if state == "up":
            self._failures[arm] = 0
        if fresh:
            self._forget(index)

    def report(self, arm: str, served: bool) -> State:
        """Count the outcome of a call (not its quality) and return the state that follows from it."""
        self._router.policy.index(arm)
        if served:
            if self.state(arm) == "degraded":
                self._states[arm] = "up"
            self._failures[arm] = 0
        else:
            self._failures[arm] += 1
            if self._failures[arm] >= self.limits[1]:
                self._states[arm] = "down"
            elif self._failures[arm] >= self.limits[0] and self.state(arm) == "up":
                self._states[arm] = "degraded"
        return self.state(arm)

    def eligible(self, x: ArrayLike | None = None) -> Mask:
        """Return the arms that are not down, (k,); the context is not used."""
        return np.array([self._states.get(a) != "down" for a in self._router.policy.arms])

    def prices(self, x: ArrayLike | None = None) -> Floats:
        """Return `penalty` for degraded arms and 0 for others, (k,)."""
        return self.penalty * np.array(
            [self._states.get(a) == "degraded" for a in self._router.policy.arms], dtype=np.float64
        )

    def reroute(
        self, decision: Decision, x: ArrayLike, *, without: Iterable[str] = (), **options: Any
    ) -> Decision:
        """Choose anew for a request whose arm failed, at once, and count it.

        Parameters
        ----------
        decision : Decision
            The one that failed; it is left to expire without feedback.
        x : (dim,) array
            Its context.
        without : sequence of str
            Further arms that failed on this request.
        **options
            ``prices`` and ``protected`` of ``router.select``; ``eligible`` narrows further.

        Raises
        ------
        ValueError
            No other arm is left; nothing changed.
        """
        failed = {decision.arm, *without}
        allowed = self.eligible() & np.array([a not in failed for a in self._router.policy.arms])
        if options.get("eligible") is not None:
            allowed &= np.asarray(options.pop("eligible"))
        options.pop("eligible", None)
        prices = self.prices() + (0.0 if options.get("prices") is None else np.asarray(options["prices"]))
        again = self._router.select(x, **{**options, "prices": prices, "eligible": allowed})
        self.reroutes[decision.arm] += 1
        return again

    def _forget(self, index: int) -> None:
        policy = self._router.policy
        with self._router._lock:
            self._router._settle()
            policy.forget(index)
