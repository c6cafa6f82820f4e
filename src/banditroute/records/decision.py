"""A request, the decision that answers it, and the feedback that comes back later."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

from banditroute._core.typing import Floats, Mask

__all__ = ["Decision", "Extras", "Feedback", "Origin", "Parts", "Pending", "Ranking", "Recalled", "Request"]

# Whence a reward came: an answer to a decision of this router, the reward imputed to one that expired, an answer to a
# decision that another replica made, or an answer to a decision of this router that a peer learned: nothing is learned
# here then, for the peer's evidence brings it.
Origin = Literal["here", "expired", "elsewhere", "peer"]


class Extras(NamedTuple):
    """What a caller may say of one request beside its context.

    ``eligible`` (k,) and ``prices`` (k,) by index, ``protected`` from forced exploration, ``candidates`` (names,
    features (m, f)), ``k`` places of a list, ``weights`` of cost models by measure, ``session`` the request belongs to.

    Examples
    --------
    >>> Extras(session="u1").session
    'u1'
    """

    eligible: Mask | None = None
    prices: Floats | None = None
    protected: bool = False
    candidates: tuple[tuple[str, ...], Floats] | None = None
    k: int | None = None
    weights: Mapping[str, float] | None = None
    session: str | None = None


class Request(NamedTuple):
    """A context ``x`` (d,), its index ``at`` on the clock of decisions, and ``extras``, None where none were given.

    ``time`` is that of the decision, seconds on the Router's clock: the only time that terms know.

    Examples
    --------
    >>> import numpy as np
    >>> Request(np.ones(2), 7).at
    7
    """

    x: Floats
    at: int
    extras: Extras | None = None
    time: float = 0.0


class Decision(NamedTuple):
    """One routed request.

    ``id`` is a random positive 63-bit integer; ``arm`` a name; ``propensity`` the probability with which it was chosen;
    ``hit`` whether it was resident; ``epoch`` the number of residency plans so far; ``time`` the clock, seconds.

    Examples
    --------
    >>> Decision(id=7, arm="math", propensity=1.0, hit=True, epoch=0, time=0.0).arm
    'math'
    """

    id: int
    arm: str
    propensity: float
    hit: bool
    epoch: int
    time: float


class Ranking(Decision):
    """A list of arms for one request, best place first; as a `Decision` it is that of the first place.

    Parameters
    ----------
    places : sequence of Decision
        One for each place, with the probability that its arm stood there.
    prefixes : sequence of float
        Probability of the list down to each place: the last one is that of the whole list.

    Examples
    --------
    >>> one, two = (Decision(i, arm, 0.9, True, 0, 0.0) for i, arm in ((7, "b"), (8, "a")))
    >>> Ranking([one, two], [0.9, 0.8])
    Ranking(id=7, arms=('b', 'a'), propensities=(0.9, 0.9))
    """

    places: tuple[Decision, ...]
    prefixes: tuple[float, ...]

    def __new__(cls, places: Sequence[Decision], prefixes: Sequence[float]) -> Self:
        """Make a list of the decisions for its places."""
        new = super().__new__(cls, *places[0])
        new.places, new.prefixes = tuple(places), tuple(prefixes)
        return new

    def __reduce__(self) -> tuple[type[Self], tuple[tuple[Decision, ...], tuple[float, ...]]]:
        """Copy and pickle as what it was made of."""
        return type(self), (self.places, self.prefixes)

    def __repr__(self) -> str:
        """Show the arms and their probabilities."""
        return f"Ranking(id={self.id}, arms={self.arms}, propensities={self.propensities})"

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms, best place first."""
        return tuple(place.arm for place in self.places)

    @property
    def propensities(self) -> tuple[float, ...]:
        """Probability with which each arm stood at its place."""
        return tuple(place.propensity for place in self.places)

    @property
    def ids(self) -> tuple[int, ...]:
        """What answers each place alone; the first is the id of the list."""
        return tuple(place.id for place in self.places)


class Pending(NamedTuple):
    """What is kept of a decision until its feedback: all that learning and the terms need.

    ``held`` is what each term set aside for it, ``weights`` and ``session`` as in `Extras`.

    Examples
    --------
    >>> import numpy as np
    >>> Pending("math", np.zeros(2), 1.0, 0.0, 3).at
    3
    """

    arm: str
    context: Floats
    propensity: float
    time: float
    at: int
    held: tuple[Any, ...] | None = None
    weights: Mapping[str, float] | None = None
    session: str | None = None


class Feedback(NamedTuple):
    """What came back for a decision: the reward that was learned, and what the call did cost.

    ``kept`` is what the policy learned it from, where that is more than the context of the request (`Policy.kept`).

    Examples
    --------
    >>> import numpy as np
    >>> Feedback(7, "math", Request(np.ones(2), 3), 0.8, seconds=1.5).cost is None
    True
    """

    id: int
    arm: str
    request: Request
    reward: float
    cost: float | None = None
    seconds: float | None = None
    failed: bool = False
    origin: Origin = "here"
    kept: Floats | None = None


class Parts(NamedTuple):
    """The prices of one decision, by name of their term, each (k,) in reward units, infinite where it closed an arm.

    Examples
    --------
    >>> import numpy as np
    >>> Parts(("a", "b"), {"fault": np.array([0.0, 0.1])}).rows["fault"]
    array([0. , 0.1])
    """

    arms: tuple[str, ...]
    rows: dict[str, Floats]


class Recalled(NamedTuple):
    """What a listener that keeps decisions tells of one, for explanations: context, reward, candidates as it has them.

    Examples
    --------
    >>> Recalled(Decision(7, "math", 1.0, True, 0, 0.0)).reward is None
    True
    """

    decision: Decision
    context: Floats | None = None
    parts: Parts | None = None
    reward: float | None = None
    candidates: tuple[tuple[str, ...], Floats] | None = None
