"""The contract of a store where replicas meet, as checks that anyone can run on their own.

A factory returns a new, empty store each time; a check makes one and raises ``AssertionError`` with what it saw.
"""

import threading
from collections.abc import Callable

from banditroute.durability.stores import BASE, order
from banditroute.records import StateStore, StoreRow

__all__ = ["STORE_CHECKS", "StoreFactory", "check_store"]

StoreFactory = Callable[[], StateStore]

ODD_NAMES = ("a/b", "..", "x" * 300, "\u00e9\u4e2d" * 100, "with space", "row", 'quo"te', "nul\0")


def _row(seq: int, beat: float, **parts: int) -> StoreRow:
    return {"seq": seq, "beat": beat, "parts": parts, "lacking": {}, "body": "{}", "check": ""}


def _require(holds: object, saw: str) -> None:
    if not holds:
        raise AssertionError(saw)


def has_the_methods(factory: StoreFactory) -> None:
    """The store is a `StateStore`."""
    store = factory()
    _require(isinstance(store, StateStore), f"{type(store).__name__} lacks a method of StateStore")
    _require(store.index() == {}, f"a new store must be empty, got {store.index()}")
    _require(store.fetch("nobody", ["a"]) == {}, "what is not there must be left out")


def keeps_the_newest_row(factory: StoreFactory) -> None:
    """What is as old as what is there changes nothing: retries and stragglers do no harm."""
    store = factory()
    store.put("r", _row(2, 1.0, a=2), {"a": b"new"})
    for seq, beat in ((2, 1.0), (1, 9.0), (2, 0.5)):
        answer = store.put("r", _row(seq, beat, a=seq), {"a": b"old"})
        _require(answer == [], f"a straggler must be told that nothing is missing, got {answer}")
    _require(order(store.index()["r"]) == (2, 1.0), f"the newest row must stay, got {store.index()['r']}")
    _require(store.fetch("r", ["a"]) == {"a": b"new"}, "the newest part must stay")
    store.put("r", _row(2, 1.5, a=2), {})
    _require(order(store.index()["r"]) == (2, 1.5), "a beat between two whole ones must count")


def tells_what_is_missing(factory: StoreFactory) -> None:
    """A put names the parts that the store does not have; its row tells the truth."""
    store = factory()
    missing = store.put("r", _row(1, 1.0, a=1, b=1), {"a": b"A"})
    _require(missing == ["b"], f"what was never put must be missing, got {missing}")
    row = store.index()["r"]
    _require(row["parts"] == {"a": 1} and row["lacking"] == {"b": 1}, f"the row must say so, got {row}")
    _require(store.put("r", _row(1, 2.0, a=1, b=1), {"b": b"B"}) == [], "what was put must be there")
    _require(store.index()["r"]["parts"] == {"a": 1, "b": 1}, "the row must tell both parts")
    missing = store.put("r", _row(2, 3.0, a=2, b=1), {})
    _require(missing == ["a"], f"an older version must be missing, got {missing}")
    store.put("r", _row(3, 4.0, b=1), {})
    _require(store.index()["r"]["parts"] == {"b": 1}, "a part that its owner dropped must go from the row")


def keeps_bytes_and_rows_as_they_are(factory: StoreFactory) -> None:
    """Names of any kind and length, any bytes, any text in a row come back the same."""
    store, data = factory(), bytes(range(256)) * 3
    row = {**_row(1, 1.0, **dict.fromkeys(ODD_NAMES, 1)), "body": '{"discount":0.99912345678901234,"n":[]}'}
    for name in ODD_NAMES:
        _require(store.put(name, row, dict.fromkeys(ODD_NAMES, data)) == [], f"{name[:20]!r} must be kept")
    index = store.index()
    _require(set(index) == set(ODD_NAMES), f"names must come back, got {[n[:20] for n in index]}")
    for name in ODD_NAMES:
        _require(index[name]["body"] == row["body"], "text in a row must come back to the letter")
        _require(
            store.fetch(name, ODD_NAMES) == dict.fromkeys(ODD_NAMES, data), f"{name[:20]!r}: other bytes"
        )


def replaces_what_is_no_row(factory: StoreFactory) -> None:
    """A row with absurd numbers is older than any: its owner can put another."""
    store = factory()
    for seq in (1 << 60, -1, 1.5):
        store.put("r", {**_row(1, 1.0), "seq": seq}, {})
    store.put("r", _row(1, 1.0, a=1), {"a": b"A"})
    _require(order(store.index().get("r")) == (1, 1.0), f"a good row must replace it, got {store.index()}")


def compacts_all_or_nothing(factory: StoreFactory) -> None:
    """The base is replaced and replicas go, at once, and only if all are as they were seen."""
    store, row, base = factory(), _row(1, 1.0, a=1), _row(1, 0.0, a=1)
    store.put("r", row, {"a": b"A"})
    store.put("s", row, {"a": b"A"})
    seen = store.index()["r"]
    store.put("r", _row(1, 2.0, a=1), {})
    _require(not store.compact(None, base, {"a": b"AA"}, {"r": seen}), "what has moved on must not be folded")
    _require(set(store.index()) == {"r", "s"}, "nothing may change then")
    seen = store.index()["r"]
    _require(
        not store.compact(base, base, {"a": b"AA"}, {"r": seen}), "a base that is not there was expected"
    )
    _require(store.compact(None, base, {"a": b"AA"}, {"r": seen}), "what stands still must be folded")
    _require(set(store.index()) == {BASE, "s"}, f"the base must take its place, got {set(store.index())}")
    _require(store.fetch(BASE, ["a"]) == {"a": b"AA"}, "the base must have its parts")
    _require(store.fetch("r", ["a"]) == {}, "the parts of what was folded must be gone")
    _require(not store.compact(None, base, {}, {"s": store.index()["s"]}), "there is a base by now")


def lets_one_take_a_decision(factory: StoreFactory) -> None:
    """Of several tokens one gets a decision, and gets it again each time it asks."""
    store = factory()
    store.keep({7: b"seven\n\0", (1 << 63) - 1: b"large"}, 60.0)
    _require(store.look([7, 8]) == [b"seven\n\0", None], f"got {store.look([7, 8])}")
    _require(store.take([7, 8], "one") == [b"seven\n\0", None], "the first to ask must get it")
    _require(
        store.take([7], "one") == [b"seven\n\0"], "asked again with the same token, it must answer the same"
    )
    _require(store.take([7], "two") == [b""], "another token must hear that it is taken")
    _require(store.look([7]) == [b""], "a look must tell that it is taken")
    store.keep({7: b"again", 9: b"nine"}, 60.0)
    _require(store.take([7], "two") == [b""], "what was taken must not come back with a late keep")
    store.keep({9: b"other"}, 60.0)
    _require(store.take([9], "two") == [b"nine"], "what is kept must not be replaced")
    _require(store.take([(1 << 63) - 1], "two") == [b"large"], "ids have 63 bits")
    _require(store.take([], "two") == [] == store.look([]), "nothing asked, nothing answered")
    store.keep({}, 60.0)


def lets_one_of_many_threads_take_it(factory: StoreFactory) -> None:
    """Threads that ask at once: one of them has each decision."""
    store, keys = factory(), list(range(50))
    won: list[int] = []
    store.keep(dict.fromkeys(keys, b"x"), 60.0)
    start = threading.Barrier(4)

    def ask(token: str) -> None:
        start.wait()
        won.extend(key for key in keys if store.take([key], token) == [b"x"])

    threads = [threading.Thread(target=ask, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _require(sorted(won) == keys, f"each of {len(keys)} decisions must be had once, got {len(won)}")


STORE_CHECKS: tuple[Callable[[StoreFactory], None], ...] = (
    has_the_methods,
    keeps_the_newest_row,
    tells_what_is_missing,
    keeps_bytes_and_rows_as_they_are,
    replaces_what_is_no_row,
    compacts_all_or_nothing,
    lets_one_take_a_decision,
    lets_one_of_many_threads_take_it,
)


def check_store(factory: StoreFactory) -> list[str]:
    """Run every check on a store and return their names.

    Parameters
    ----------
    factory : callable
        ``factory() -> StateStore``: a new store, empty, that nobody else uses.

    Returns
    -------
    list of str
        Names of the checks; all of them apply to every store.

    Raises
    ------
    AssertionError
        At the first check that fails, saying what it saw.

    Notes
    -----
    A fraction of a second for files. It harms nothing outside the stores that it was given.

    Examples
    --------
    >>> import tempfile
    >>> from banditroute import FileStore
    >>> with tempfile.TemporaryDirectory() as home:
    ...     len(check_store(lambda: FileStore(tempfile.mkdtemp(dir=home)))) == len(STORE_CHECKS)
    True
    """
    for check in STORE_CHECKS:
        check(factory)
    return [check.__name__ for check in STORE_CHECKS]
