"""Tuning: settings tried on paired seeds, chosen on one half of the data and judged on the other."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.evaluation.draws import (
    POLICY,
    RESIDENCY,
    Draws,
    Part,
    Scored,
    Setting,
    between,
    paired_gain,
    scored,
)
from banditroute.evaluation.intervals import rows_needed
from banditroute.evaluation.workers import needed, spread
from banditroute.logs import Trace

__all__ = ["SPACE", "Confirmed", "Tuned", "confirm", "sweep", "tune"]

Data = Callable[[int], Any]

SPACE: dict[str, Any] = {"alpha": (0.02, 2.0, "log"), "ridge": (0.03, 30.0, "log")}
# Paired seeds of the final comparisons, at least. With 20 a "gain +- 2 error" held in 80 to 85 % where one run in fifty
# settles on a poor arm: such runs were too often not among them.
_CONFIRMED = 60
DOUBT = 2.0  # standard errors between a gain and either end of its interval
# By so many a gain must show on data that did not choose. Of 120 logs of a world without a gain worth having
# (benchmarks/doubt.py), at two 4 were advised to change, 3 of them for the worse; at this, of 100 logs of a world where
# settings gain some thousandths, 6 and none.
SURE = 2.5
_FRESH, _HELD = 500_000, 1_000_000  # seeds from here on are never tuned on


@dataclass(frozen=True, slots=True)
class Tuned:
    """The chosen setting; ``{}`` means the defaults, where the candidate did not beat them beyond doubt.

    ``candidate`` is the best of the search, ``train`` and ``default_train`` are its and the defaults' mean rewards per
    request net of prices on fresh draws of the data that chose, ``held_out`` and ``default_held_out`` on data that did
    not; ``gain`` is the paired difference of the latter, ``gain_error`` its error over rows and seeds. ``rows``
    of data judged; ``trials`` holds a dictionary per trial: setting, mean, and whether it was stopped early.

    Examples
    --------
    >>> found = Tuned({}, {"alpha": 0.3}, 0.5, 0.5, 0.41, 0.4, 0.01, 0.01, 1000, ())
    >>> found.low, found.high, found.rows_to_settle
    (-0.01, 0.03, 6250)
    """

    setting: dict[str, Any]
    candidate: dict[str, Any]
    train: float
    default_train: float
    held_out: float
    default_held_out: float
    gain: float
    gain_error: float
    rows: int
    trials: tuple[dict[str, Any], ...]

    @property
    def low(self) -> float:
        """Lower end of the interval of the gain, two standard errors below."""
        return self.gain - DOUBT * self.gain_error

    @property
    def high(self) -> float:
        """Upper end of the interval of the gain."""
        return self.gain + DOUBT * self.gain_error

    @property
    def rows_to_settle(self) -> int | None:
        """Rows on the side that judges after which the gain would show, were it as found; None where it is 0."""
        return rows_needed(self.rows, self.gain, SURE * self.gain_error)


def _one(setting: Setting, data: Data, seed: int) -> Scored:
    return scored(setting, data(seed), seed)


def sweep(
    settings: Sequence[Setting],
    data: Data,
    seeds: Iterable[int],
    *,
    independent: bool = True,
    jobs: int = 1,
    backend: str = "loky",
) -> Floats:
    """Score every setting on every seed: a table, (settings, seeds), the same whatever computes it.

    Parameters
    ----------
    settings : sequence of mappings
        As in `score`.
    data : callable
        Returns the data of a seed; goes to other processes, so no lambda: a `Draws` or a ``functools.partial``.
    seeds : iterable of int
        The same for every setting, so that columns are paired.
    independent : bool
        Deal the rows of a `Draws` out, so that each seed has rows of its own and no more requests than rows: then the
        columns are independent, and their spread over the root of their number is an honest error bar, where they are
        many enough to hold the rare run that goes wrong. False lets all seeds draw from all rows: the horizon is as
        asked for, and the spread tells of the policies' luck only.
    jobs : int
        Processes; 1 stays in this one, -1 takes all cores.
    backend : str
        Of joblib: "loky" are processes here, "ray" a Ray cluster (``ray.init(address=...)`` beforehand names one of
        many machines), "dask" the cluster of the ``dask.distributed.Client`` that is open.

    Examples
    --------
    >>> from banditroute.simulation import MatrixEnvironment
    >>> draws = Draws(MatrixEnvironment(np.eye(30), np.eye(30)), 50)
    >>> sweep([{"alpha": 0.1}, {"alpha": 1.0}], draws, range(3)).shape
    (2, 3)
    """
    own = [int(seed) for seed in seeds]
    source = data.dealt(own) if independent and isinstance(data, Draws) else data
    table = _table(settings, source, own, jobs=jobs, backend=backend)
    return np.array([[cell.value for cell in row] for row in table]).reshape(len(settings), len(own))


def _table(
    settings: Sequence[Setting], data: Data, seeds: Iterable[int], *, jobs: int, backend: str
) -> list[list[Scored]]:
    """Return what every setting earned on every seed, by setting."""
    work = [(setting, data, seed) for seed in seeds for setting in settings]
    cells = spread(_one, work, jobs=jobs, backend=backend)
    return [cells[i :: len(settings)] for i in range(len(settings))]


def _values(setting: Setting, data: Data, seeds: Iterable[int], jobs: int, backend: str) -> Floats:
    (row,) = _table([setting], data, seeds, jobs=jobs, backend=backend)
    return np.array([cell.value for cell in row])


def tune(
    data: Data | Trace,
    space: Mapping[str, Any] | None = None,
    *,
    trials: int = 40,
    seeds: int = 8,
    patience: int = 20,
    storage: str | Path | None = None,
    seed: int = 0,
    jobs: int = 1,
    backend: str = "loky",
    progress: Callable[[str], object] = str,
) -> Tuned:
    """Choose a setting with Optuna on one part of the data, and report what it earns on the other.

    Parameters
    ----------
    data : Draws, Trace or callable
        Of a `Draws` half the rows choose and the other half judges, of a trace the first half of the time and the
        second; of another function of the seed, such as ``functools.partial(homes, 5000)``, disjoint seeds.
    space : mapping, optional
        For each name of `score` a range ``(low, high)`` or ``(low, high, "log")``, whole numbers where both ends are,
        or a list of choices. `SPACE` when left out: alpha and ridge.
    trials : int
        Settings to try in all; a resumed study tries what is missing.
    seeds : int
        Paired draws per setting. After half of them a setting that lies two standard errors below the best is stopped.
        The comparisons at the end take 60 on either side, or as many if more.
    patience : int
        Stop when so many trials in a row brought nothing better.
    storage : path, optional
        Journal file; the study goes on where it ended.
    seed : int
        Of the sampler.
    jobs, backend
        As in `sweep`.
    progress : callable
        Is told before each trial, and before the comparison at the end, what comes.

    Returns
    -------
    Tuned
        The best of the search replaces the defaults only where it beats them by 2.5 standard errors on data that did
        not choose it. The error counts rows once, however many seeds draw them, and the luck of policies, see
        `confirm`.

    Raises
    ------
    ImportError
        Without Optuna.
    ValueError
        A range, a name or the data will not do.

    Notes
    -----
    "capacity" may be searched, but more slots never cost anything here: see `diagnose` for their number.

    Examples
    --------
    >>> from banditroute.simulation import MatrixEnvironment
    >>> rng = np.random.default_rng(0)
    >>> environment = MatrixEnvironment(rng.standard_normal((60, 2)), rng.random((60, 3)))
    >>> found = tune(Draws(environment, 100), trials=2, seeds=4)
    >>> len(found.trials)
    2
    """
    optuna = needed("optuna", "tune")
    ranges = {name: _range(name, given) for name, given in (SPACE if space is None else space).items()}
    check.integer("trials", trials, low=1)
    check.integer("seeds", seeds, low=4)
    check.integer("patience", patience, low=1)
    train, held = _split(data)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = None
    if storage is not None:
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        journal = JournalStorage(JournalFileBackend(str(storage)))
    study = optuna.create_study(direction="maximize", study_name="tune", storage=journal, load_if_exists=True)
    done = _scored(study)
    # A sampler of the same seed would propose a resumed study its first settings again.
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(done))
    setting = _searched(
        study, partial(_values, data=train, jobs=jobs, backend=backend), ranges,
        trials=trials, seeds=seeds, patience=patience, progress=progress,
    )  # fmt: skip
    progress("fresh and held-out data")
    found = confirm(setting, train, held, seeds=max(seeds, _CONFIRMED), jobs=jobs, backend=backend)
    return Tuned(
        setting if found.gain > SURE * found.gain_error else {},
        setting,
        **found._asdict(),
        trials=tuple(
            {**tried, "reward": float(values.mean()), "stopped": len(values) < seeds}
            for values, tried in _scored(study)
        ),
    )


def _searched(
    study: Any,
    search: Callable[..., Floats],
    ranges: Mapping[str, Callable[[Any], Any]],
    *,
    trials: int,
    seeds: int,
    patience: int,
    progress: Callable[[str], object],
) -> dict[str, Any]:
    """Return the best setting of a study that goes on until so many trials, or until patience runs out."""
    done, half = _scored(study), seeds // 2
    best, setting = search({}, seeds=range(seeds)), dict[str, Any]()
    for values, tried in done:
        if len(values) == seeds and values.mean() > best.mean():
            best, setting = values, tried
    idle = 0
    for _ in range(trials - len(done)):
        if idle >= patience:
            break
        progress(f"trial {len(study.trials) + 1}, best {best.mean():.4f}")
        trial = study.ask()
        tried = {name: suggest(trial) for name, suggest in ranges.items()}
        values = search(tried, seeds=range(half))
        behind = values - best[:half]
        hopeless = behind.mean() + 2.0 * behind.std(ddof=1) / np.sqrt(half) < 0.0
        if not hopeless:
            values = np.append(values, search(tried, seeds=range(half, seeds)))
        trial.set_user_attr("values", values.tolist())
        study.tell(trial, float(values.mean()))
        idle += 1
        if not hopeless and values.mean() > best.mean():
            best, setting, idle = values, tried, 0
    return setting


class Confirmed(NamedTuple):
    """What a setting and the defaults earn on fresh draws of either side, and the paired gain where nothing was chosen.

    Examples
    --------
    >>> Confirmed(0.5, 0.5, 0.41, 0.4, 0.01, 0.01, 1000).gain
    0.01
    """

    train: float
    default_train: float
    held_out: float
    default_held_out: float
    gain: float
    gain_error: float
    rows: int


def confirm(
    setting: Setting,
    train: Data,
    held: Data,
    *,
    seeds: int = _CONFIRMED,
    jobs: int = 1,
    backend: str = "loky",
) -> Confirmed:
    """Compare a setting with the defaults on data that chose it and on data that did not.

    Parameters
    ----------
    setting : mapping
        As in `score`; ``{}`` gains nothing, without doubt.
    train, held : callable
        The data of a seed, disjoint: as `tune` divides them.
    seeds : int
        Paired seeds on each side, >= 2, none of them tuned on.
    jobs, backend
        As in `sweep`.

    Notes
    -----
    The error is that of `paired_gain`; how much luck moves the gain is the larger of what it did on the two sides.

    Examples
    --------
    >>> from banditroute.simulation import MatrixEnvironment
    >>> first, second = Draws(MatrixEnvironment(np.eye(30), np.eye(30)), 50).halves()
    >>> confirm({}, first, second, seeds=4).gain
    0.0
    """
    own = range(_HELD, _HELD + seeds)
    settings = [setting, {}] if setting else [{}]
    fresh = _table(settings, train, range(_FRESH, _FRESH + seeds), jobs=jobs, backend=backend)
    judged = _table(settings, held, own, jobs=jobs, backend=backend)
    rows = [held.rows(seed) for seed in own] if isinstance(held, Draws | Part) else None
    gain, error = paired_gain(judged[0], judged[-1], rows, luck=between(fresh[0], fresh[-1]))
    return Confirmed(
        _mean(fresh[0]),
        _mean(fresh[-1]),
        _mean(judged[0]),
        _mean(judged[-1]),
        gain,
        error,
        seeds if rows is None else len(np.unique(np.concatenate(rows))),
    )


def _mean(row: Sequence[Scored]) -> float:
    return float(np.mean([cell.value for cell in row]))


def _scored(study: Any) -> list[tuple[Floats, dict[str, Any]]]:
    return [
        (np.array(t.user_attrs["values"]), dict(t.params)) for t in study.trials if "values" in t.user_attrs
    ]


def _split(data: Data | Trace) -> tuple[Data, Data]:
    if isinstance(data, Trace):
        known = data.answered()
        middle = len(known) // 2
        return Part(known[:middle]), Part(known[middle:])
    if isinstance(data, Draws):
        return data.halves()
    if not callable(data):
        raise TypeError(f"data must be a Trace, a Draws or a function of a seed, got {type(data).__name__}")
    return data, data  # held-out seeds differ


def _range(name: str, given: Any) -> Callable[[Any], Any]:
    """Return the function that asks a trial for a value."""
    if name not in (*POLICY, *RESIDENCY):
        raise ValueError(f"space must name {(*POLICY, *RESIDENCY)}, got {name!r}")
    if isinstance(given, list) and given:
        return lambda trial: trial.suggest_categorical(name, given)
    if isinstance(given, tuple) and len(given) in (2, 3) and given[2:] in ((), ("log",)):
        low, high, log = given[0], given[1], len(given) == 3
        if check.finite(name, low) < check.finite(name, high) and (low > 0 or not log):
            if isinstance(low, int) and isinstance(high, int):
                return lambda trial: trial.suggest_int(name, low, high, log=log)
            return lambda trial: trial.suggest_float(name, low, high, log=log)
    raise ValueError(f'{name} must be (low, high), (low, high, "log") or a list of choices, got {given!r}')
