"""What makes contexts of requests, as a Router sees it: checked at the start, kept and compared with the state."""

import copy
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from banditroute._core.typing import Arrays, Floats, Header
from banditroute.policies import Policy

__all__ = ["FeatureMap", "agreed", "checked"]


@runtime_checkable
class FeatureMap(Protocol):
    """Makes a context of a request, the same one always; `banditroute.features.Features` is one."""

    @property
    def dim(self) -> int:
        """Length of the contexts."""

    @property
    def fitted(self) -> bool:
        """Whether contexts can be made, or a sample or a state is needed first."""

    def __call__(self, request: Any) -> Floats:
        """Return the context of a request, shape (dim,)."""

    def to_state(self) -> tuple[Header, Arrays]:
        """Return settings and what was fitted, as plain data."""

    def load_state(self, header: Header, arrays: Arrays) -> None:
        """Take up what `to_state` returned; raises ``ValueError`` and changes nothing where it disagrees."""

    def fingerprint(self) -> str:
        """Return a text that differs where contexts may differ."""


def checked(features: Any, policy: Policy) -> FeatureMap | None:
    """Return what a Router was given as features; it must make contexts of the policy's length.

    Examples
    --------
    >>> from banditroute import LinUCB
    >>> checked(None, LinUCB(2, 3)) is None
    True
    >>> checked(len, LinUCB(2, 3))
    Traceback (most recent call last):
    TypeError: features must be a map of features, such as HashedText, got <built-in function len>
    """
    if features is None:
        return None
    if not isinstance(features, FeatureMap):
        raise TypeError(f"features must be a map of features, such as HashedText, got {features!r}")
    if features.dim != policy.dim:
        raise ValueError(f"features must make contexts of length {policy.dim}, got {features.dim}")
    return features


def agreed(features: FeatureMap | None, header: Header, arrays: Arrays) -> Callable[[], None]:
    """Return the step that takes up the features of a state; raises ``ValueError`` where they are others than these.

    What a policy learned holds for the contexts it learned from. A map that is not fitted takes over the state's.

    Examples
    --------
    >>> agreed(None, {}, {})()
    >>> agreed(None, {"features": {"kind": "HashedText"}}, {})
    Traceback (most recent call last):
    ValueError: features must be those of the state, HashedText, got None
    """
    filed: Any = header.get("features")
    if filed is None and features is None:
        return lambda: None
    if features is None:
        raise ValueError(f"features must be those of the state, {filed.get('kind')}, got None")
    if not isinstance(filed, dict):
        raise ValueError(f"features must be those of the state, which has none, got {features!r}")
    own = {n.removeprefix("features."): a for n, a in arrays.items() if n.startswith("features.")}
    spare = copy.copy(features)
    try:
        spare.load_state(filed, own)
    except ValueError as error:
        raise ValueError(f"features must be those of the state: {error}") from error
    return lambda: features.load_state(filed, own)
