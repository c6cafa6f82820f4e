"""The contract of a term, as checks that anyone can run on their own: plain functions of a factory.

A factory takes the names of the arms and returns a new `Term` for them. A check raises ``AssertionError`` with what it
saw, and returns True. Seeds are fixed, so a term passes always or never.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from banditroute._core.typing import Floats
from banditroute.errors import UnknownArm
from banditroute.records import Extras, Request, SharedTerm, Term
from banditroute.testing.material import require
from banditroute.testing.term_driver import TermDriver

__all__ = [
    "TERM_CHECKS",
    "TermFactory",
    "check_term",
    "term_arms_come_and_go",
    "term_errors_change_nothing",
    "term_notes_agree",
    "term_prices_are_prices",
    "term_reading_changes_nothing",
    "term_release_leaves_nothing",
    "term_replay_rebuilds_it",
    "term_rings_when_its_row_changed",
    "term_state_continues",
    "term_survives_arms_that_are_gone",
]

TermFactory = Callable[[tuple[str, ...]], Term]
ARMS = ("a", "b", "c")


def _bits(term: Term) -> tuple[str, dict[str, bytes]]:
    header, arrays = term.to_state()
    try:
        text = json.dumps(header, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"the header of to_state must be JSON, got {header!r}") from error
    return text, {name: np.asarray(array).tobytes() for name, array in arrays.items()}


def _driven(factory: TermFactory, steps: int = 60, seed: int = 0) -> TermDriver:
    """Return a driver after requests, late answers with costs, failures and cancellations; some stay open."""
    driver, rng = TermDriver([factory(ARMS)], ARMS), np.random.default_rng(seed)
    _served(driver, rng, steps)
    return driver


def _served(driver: TermDriver, rng: np.random.Generator, steps: int) -> list[str]:
    served = []
    for _ in range(steps):
        driver.time += float(rng.exponential(5.0))
        decision = driver.select(rng.standard_normal(2), session=f"s{rng.integers(5)}")
        served.append(decision.arm)
        waiting = sorted(driver.open)
        if len(waiting) > 4:
            key = waiting[int(rng.integers(len(waiting)))]
            if rng.random() < 0.2:
                driver.cancel(key)
            else:
                cost, seconds = (float(v) if rng.random() < 0.8 else None for v in rng.exponential(1.0, 2))
                driver.update(
                    key, float(rng.random()), cost=cost, seconds=seconds, failed=bool(rng.random() < 0.2)
                )
    return served


def _request(driver: TermDriver) -> Request:
    return Request(np.array([0.3, -0.2]), driver.count, Extras(session="s1"), driver.time)


def term_prices_are_prices(factory: TermFactory) -> bool:
    """Rows and prices of a request hold a number or plus infinity for each arm, in a soft or a hard term.

    Examples
    --------
    >>> from banditroute.terms import Queues
    >>> term_prices_are_prices(lambda arms: Queues([1.0] * len(arms), per_second=0.1))
    True
    """
    driver = _driven(factory)
    term, request = driver.terms[0], _request(driver)
    for flag in ("soft", "per_request"):
        require(
            type(getattr(term, flag)) is bool, f"{flag} must be True or False, got {getattr(term, flag)!r}"
        )
    require(bool(term.name) and isinstance(term.name, str), f"name must be a text, got {term.name!r}")
    own: Any = term.prices(request) if term.per_request else None
    for what, values in (("row", driver.priced(request) - 0.0), ("prices", own)):
        if values is not None:
            shape = np.shape(values)
            require(shape == (3,), f"{what} must have shape (3,), got {shape}")
            require(
                bool((np.asarray(values) > -np.inf).all()), f"{what} must hold numbers or inf, got {values}"
            )
    return True


def term_reading_changes_nothing(factory: TermFactory) -> bool:
    """Prices, rows and states are read without a trace.

    Examples
    --------
    >>> from banditroute.terms import Queues
    >>> term_reading_changes_nothing(lambda arms: Queues([1.0] * len(arms), per_second=0.1))
    True
    """
    driver = _driven(factory)
    term, request = driver.terms[0], _request(driver)
    before = _bits(term)
    for _ in range(3):
        term.write()
        if term.per_request:
            term.prices(request)
        repr(term)
        term.to_state()
        require(_bits(term) == before, "reading changed the state")
    return True


def term_rings_when_its_row_changed(factory: TermFactory) -> bool:
    """After each event the row is what it would be if it were written anew: a term that forgets to ring is found.

    Examples
    --------
    >>> from banditroute.terms import Queues
    >>> term_rings_when_its_row_changed(lambda arms: Queues([1.0] * len(arms), per_second=0.1))
    True
    """
    driver, rng = _driven(factory, 5), np.random.default_rng(3)
    for step in range(80):
        _served(driver, rng, 1)
        driver.priced(_request(driver))
        row = driver.rows[0].values
        seen = row.copy()
        driver.terms[0].write()
        require(np.array_equal(seen, row), f"the row was {seen} after event {step}, written anew it is {row}")
    return True


def term_release_leaves_nothing(factory: TermFactory) -> bool:
    """A thousand requests that come to nothing leave the prices of the next where they were, to 1e-9.

    Examples
    --------
    >>> from banditroute.terms import Queues
    >>> term_release_leaves_nothing(lambda arms: Queues([1.0] * len(arms), per_second=0.1))
    True
    """
    driver = _driven(factory)
    request = _request(driver)
    driver.cancel(driver.select(request.x, session="s1").id)  # a term may take note of the time
    request = _request(driver)
    before = driver.priced(request)
    for _ in range(1000):
        driver.cancel(driver.select(request.x, session="s1").id)
    after = driver.priced(request)
    require(
        bool(np.allclose(before, after, rtol=0.0, atol=1e-9)),
        f"prices {before} became {after} by a thousand cancelled requests",
    )
    return True


def term_state_continues(factory: TermFactory) -> bool:
    """A saved state is plain data, and a term that loads it goes on as the first one does, to the last bit.

    Examples
    --------
    >>> from banditroute.terms import Queues
    >>> term_state_continues(lambda arms: Queues([1.0] * len(arms), per_second=0.1))
    True
    """
    driver = _driven(factory)
    header, arrays = driver.terms[0].to_state()
    header = json.loads(json.dumps(header, allow_nan=False))
    stored = {name: np.array(array) for name, array in arrays.items()}
    term = factory(ARMS)
    term.load_state(header, stored)
    require(_bits(term) == _bits(driver.terms[0]), "the state that was loaded is not the one that was saved")
    twin = TermDriver([term], ARMS, driver.policy.copy())
    twin.open, twin.count, twin.time = dict(driver.open), driver.count, driver.time
    for array in stored.values():
        array[...] = 0.0  # the caller's arrays are the caller's
    one, two = (_served(d, np.random.default_rng(5), 60) for d in (driver, twin))
    require(one == two and _bits(term) == _bits(driver.terms[0]), "the loaded term went another way")
    return True


def term_replay_rebuilds_it(factory: TermFactory) -> bool:
    """A new term that is told the same events ends in the same state, to the last bit: no clock, no random numbers.

    Examples
    --------
    >>> from banditroute.terms import Queues
    >>> term_replay_rebuilds_it(lambda arms: Queues([1.0] * len(arms), per_second=0.1))
    True
    """
    driver = _driven(factory)
    driver.add_arm("d")
    driver.remove_arm("a")
    _served(driver, np.random.default_rng(7), 30)
    twin = TermDriver([factory(ARMS)], ARMS).replay(driver.events)
    require(_bits(twin.terms[0]) == _bits(driver.terms[0]), "replay of the events led to another state")
    return True


def term_arms_come_and_go(factory: TermFactory) -> bool:
    """Arms can be added and removed, with a Router or without; one that returns is as new as a stranger.

    Examples
    --------
    >>> from banditroute.terms import Queues
    >>> term_arms_come_and_go(lambda arms: Queues([1.0] * len(arms), per_second=0.1))
    True
    """

    def priced(name: str) -> tuple[Floats, TermDriver]:
        driver = _driven(factory)
        driver.remove_arm("b")
        require(driver.priced(_request(driver)).shape == (2,), "prices do not fit after remove_arm")
        driver.add_arm(name)
        return driver.priced(_request(driver)), driver

    (again, one), (stranger, two) = priced("b"), priced("z")
    require(np.array_equal(again, stranger), f"an arm that returns is priced {again}, a new one {stranger}")
    counts = re.compile(
        r'"generations": {[^}]*}'
    )  # how often a name has left, which the policy of a term may count
    texts = [counts.sub("", _bits(driver.terms[0])[0]) for driver in (one, two)]
    require(texts[0].replace('"b"', '"z"') == texts[1], f"an arm that returns is remembered: {texts}")
    require(len(_served(one, np.random.default_rng(1), 10)) == 10, "requests after a change of arms")
    alone = factory(ARMS)
    TermDriver([alone], ARMS)  # names
    alone.add_arm("d")
    alone.remove_arm("a")
    return True


def term_survives_arms_that_are_gone(factory: TermFactory) -> bool:
    """Feedback, releases and marks of an arm that has been removed do no harm.

    Examples
    --------
    >>> from banditroute.terms import Queues
    >>> term_survives_arms_that_are_gone(lambda arms: Queues([1.0] * len(arms), per_second=0.1))
    True
    """
    driver = _driven(factory, 40)
    open_before = {key: kept for key, kept in driver.open.items() if kept[0] != "c"}
    term = driver.terms[0]
    for name in ("a", "b"):
        driver.open = {}  # a Router releases them; a late answer from elsewhere may come all the same
        driver.remove_arm(name)
    driver.open = open_before
    before = driver.priced(_request(driver))
    for i, key in enumerate(sorted(open_before)):
        if i % 2:
            driver.cancel(key)
        else:
            driver.update(key, 0.5, cost=1.0, seconds=1.0)
    term.replay_mark({"arm": "a", "state": "down", "cost": 1.0, "depth": 1.0, "served": False})
    after = driver.priced(_request(driver))
    require(before.shape == after.shape == (1,), f"prices {before} became {after}")
    return True


def term_errors_change_nothing(factory: TermFactory) -> bool:
    """What does not fit is refused in words, and not one bit has changed.

    Examples
    --------
    >>> from banditroute.terms import Queues
    >>> term_errors_change_nothing(lambda arms: Queues([1.0] * len(arms), per_second=0.1))
    True
    """
    driver = _driven(factory)
    term = driver.terms[0]
    before = _bits(term)
    header, arrays = term.to_state()
    calls: list[tuple[Callable[..., object], tuple[Any, ...]]] = [
        (term.add_arm, ("a",)),
        (term.add_arm, ("",)),
        (term.add_arm, (7,)),
        (term.remove_arm, ("nobody",)),
        (term.load_state, ({}, {})),
        (term.load_state, ({**header, "arms": ["a", "a"]}, arrays)),
        (term.load_state, ({**header, "arms": ["a", "b", "c", "d", 5]}, arrays)),
    ]
    for name, array in arrays.items():
        calls.append((term.load_state, (header, {k: v for k, v in arrays.items() if k != name})))
        calls.append((term.load_state, (header, {**arrays, name: np.zeros(97)})))
        if array.size:
            calls.append((term.load_state, (header, {**arrays, name: np.full(array.shape, np.nan)})))
    for name in header.keys() - {"arms", "named"}:
        calls += [(term.load_state, ({k: v for k, v in header.items() if k != name}, arrays))]
    for call, given in calls:
        shown = f"{call.__name__}{given}"[:200]
        try:
            call(*given)
        except (ValueError, TypeError, UnknownArm):
            require(_bits(term) == before, f"{shown} raised, as it should, but changed the state")
        else:
            require(False, f"{shown} was accepted")
    return True


def term_notes_agree(factory: TermFactory) -> bool:
    """What workers tell each other leads all of them to the same prices, in any order and told twice; see `SharedTerm`.

    Examples
    --------
    >>> from banditroute.terms import Sessions
    >>> term_notes_agree(lambda arms: Sessions([0.1] * len(arms)))
    True
    """
    drivers = [_driven(factory, 0) for _ in range(2)]
    if not isinstance(drivers[0].terms[0], SharedTerm):
        return True
    told = []
    for seed, driver in enumerate(drivers):
        term: Any = driver.terms[0]
        term.notes(anew=True)
        _served(driver, np.random.default_rng(seed), 30)
        told.append(term.notes())
        require(bool(told[-1]) and not term.notes(), "notes must tell what is new, once")
    end = max(driver.time for driver in drivers)
    sessions = [f"s{i}" for i in range(5)]

    def priced(orders: list[Any], driver: TermDriver) -> list[Floats]:
        one: Any = driver.terms[0]
        for notes in orders:
            one.take(notes)
        require(not one.take(orders[0]), "what is told again is no news")
        asked = (Request(np.array([0.3, -0.2]), 99, Extras(session=session), end) for session in sessions)
        return [driver.priced(request) for request in asked]

    forth, back = ([notes[::step] for notes in told[::step]] for step in (1, -1))
    seen = [priced(forth, _driven(factory, 0)), priced([*back, *back], _driven(factory, 0))]
    seen += [priced(told, driver) for driver in drivers]
    marked = _driven(factory, 0)
    for notes in told:
        marked.tell_term(marked.terms[0].name, {"notes": json.loads(json.dumps(notes))})
    seen.append(priced(told, marked))
    for other in seen[1:]:
        for session, one, two in zip(sessions, seen[0], other, strict=True):
            require(bool(np.allclose(one, two)), f"workers price {session} at {one} and at {two}")
    return True


TERM_CHECKS: tuple[Callable[[TermFactory], bool], ...] = (
    term_prices_are_prices,
    term_reading_changes_nothing,
    term_rings_when_its_row_changed,
    term_release_leaves_nothing,
    term_state_continues,
    term_replay_rebuilds_it,
    term_arms_come_and_go,
    term_survives_arms_that_are_gone,
    term_errors_change_nothing,
    term_notes_agree,
)


def check_term(factory: TermFactory) -> list[str]:
    """Run every check on a term and return their names.

    Parameters
    ----------
    factory : callable
        ``factory(arms) -> Term``: a new term for these three arms, with contexts of dimension 2.

    Returns
    -------
    list of str
        Names of the checks that passed.

    Raises
    ------
    AssertionError
        At the first check that fails, saying what it saw.

    Examples
    --------
    >>> from banditroute.terms import BudgetPacer
    >>> len(check_term(lambda arms: BudgetPacer(1.0, [0.5] * len(arms)))) == len(TERM_CHECKS)
    True
    """
    return [check.__name__ for check in TERM_CHECKS if check(factory)]
