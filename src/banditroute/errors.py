"""The exceptions of the library; everything else is a plain ``ValueError`` or ``TypeError``."""

__all__ = ["BanditRouteError", "DirectoryInUse", "SnapshotError", "UnknownArm", "UnknownDecision"]


class BanditRouteError(Exception):
    """Base of the errors that are particular to this library.

    Examples
    --------
    >>> issubclass(UnknownArm, BanditRouteError)
    True
    """


class UnknownArm(BanditRouteError, LookupError):
    """An arm was named that the policy does not have.

    Examples
    --------
    >>> issubclass(UnknownArm, LookupError)
    True
    """


class UnknownDecision(BanditRouteError, LookupError):
    """Feedback came for an id that was never issued, or that is older than the bounded memory.

    Examples
    --------
    >>> issubclass(UnknownDecision, LookupError)
    True
    """


class SnapshotError(BanditRouteError, ValueError):
    """A snapshot is torn, foreign, oversized or of an unknown format; nothing was loaded.

    Examples
    --------
    >>> issubclass(SnapshotError, ValueError)
    True
    """


class DirectoryInUse(BanditRouteError, ValueError):
    """Another process, or another Router of this one, keeps its journal in the directory; nothing was changed.

    Examples
    --------
    >>> issubclass(DirectoryInUse, ValueError)
    True
    """
