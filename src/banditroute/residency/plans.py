"""What has to change between two sets of adapters."""

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["Exchange", "difference"]


class Exchange(NamedTuple):
    """A change of what is loaded, by names: what to load, what to evict and what stays.

    Examples
    --------
    >>> Exchange(load=("c",)).evict
    ()
    """

    load: tuple[str, ...] = ()
    evict: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


def difference(now: Iterable[str], wanted: Iterable[str]) -> Exchange:
    """Return what has to change so that the loaded names `now` become those `wanted`; each part is sorted.

    Examples
    --------
    >>> difference({"a", "b"}, {"b", "c"})
    Exchange(load=('c',), evict=('a',), keep=('b',))
    """
    old, new = set(now), set(wanted)
    return Exchange(tuple(sorted(new - old)), tuple(sorted(old - new)), tuple(sorted(old & new)))
