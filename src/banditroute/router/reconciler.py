"""Brings the server to the desired set (stand-in)."""

from typing import Any

__all__ = ["Reconciler"]


class Reconciler:
    """Stand-in."""

    def __init__(self, backend: Any, *, confirm: Any, clock: Any) -> None:
        self.backend = backend
