"""Tuning: settings tried on paired seeds, chosen on one half of the data and judged on the other."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from banditroute._core import validation as check
from banditroute._core.typing import Floats
from banditroute.evaluation.replays import replay
from banditroute.logs import Trace
from banditroute.policies import LinUCB
from banditroute.residency import Polar
from banditroute.simulation import MatrixEnvironment, Problem, Stream, simulate

__all__ = ["SPACE", "Draws", "Tuned", "score", "sweep", "tune"]

Setting = Mapping[str, Any]
Data = Callable[[int], Any]

SPACE: dict[str, Any] = {"alpha": (0.02, 2.0, "log"), "ridge": (0.03, 30.0, "log")}
_POLICY = ("alpha", "ridge", "discount", "mix", "prior")
_RESIDENCY = ("capacity", "epoch", "price_weight")
_CONFIRMED = 20  # paired seeds of the final comparisons, at least
_HELD = 1_000_000  # seeds from here on are never tuned on


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Streams of `requests` rows of a matrix by seed; with `fault` and `capacity`, residency problems.

    Examples
    --------
    >>> draws = Draws(MatrixEnvironment(np.eye(3), np.eye(3)), 10)
    >>> len(draws(0))
    10
    """

    environment: MatrixEnvironment
    requests: int
    capacity: int | None = None
    fault: float = 0.0

    def __call__(self, seed: int) -> Stream | Problem:
        """Return the stream or problem of a seed."""
        stream = self.environment.stream(self.requests, seed)
        if self.capacity is None:
            return stream
        prices = np.full(len(stream.arms), self.fault)
        return Problem(stream, prices, prices, capacity=self.capacity)

    def halves(self) -> tuple["Draws", "Draws"]:
        """Return the same draws from two random halves of the rows that have none in common."""
        order = np.random.default_rng(0).permutation(len(self.environment.contexts))
        middle = len(order) // 2
        first, second = (self._of(np.sort(rows)) for rows in (order[:middle], order[middle:]))
        return first, second

    def _of(self, rows: NDArray[np.int64]) -> "Draws":
        whole = self.environment
        part = MatrixEnvironment(
            whole.contexts[rows],
            whole.rewards[rows],
            costs=None if whole.costs is None else whole.costs[rows],
            arms=whole.arms,
            groups=whole.groups[rows],
            order=whole.order,
            zipf=whole.zipf,
            shifts=whole.shifts,
        )
        return replace(self, environment=part)


@dataclass(frozen=True, slots=True)
class _Part:
    """A stretch of a trace; a seed leaves out a fifth of its rows."""

    trace: Trace

    def __call__(self, seed: int) -> Trace:
        count = len(self.trace)
        kept = np.random.default_rng(seed).choice(count, size=max(count * 4 // 5, 1), replace=False)
        return self.trace[np.sort(kept)]


@dataclass(frozen=True, slots=True)
class Tuned:
    """The chosen setting; ``{}`` means the defaults, when nothing beat them beyond doubt.

    ``train`` and ``default_train`` are mean rewards per request net of prices on the data that chose, ``held_out`` and
    ``default_held_out`` on data that did not; ``gain`` is the paired difference of the latter and ``gain_error`` its
    standard error over seeds. ``trials`` holds a dictionary per trial: setting, mean, and whether it was stopped early.

    Examples
    --------
    >>> Tuned({}, 0.5, 0.5, 0.4, 0.4, 0.0, 0.0, ()).setting
    {}
    """

    setting: dict[str, Any]
    train: float
    default_train: float
    held_out: float
    default_held_out: float
    gain: float
    gain_error: float
    trials: tuple[dict[str, Any], ...]


def score(setting: Setting, data: Stream | Problem | Trace, seed: int) -> float:
    """Return the mean reward per request, net of fault and load prices, of a setting on one draw of the data.

    Parameters
    ----------
    setting : mapping
        "alpha", "ridge", "discount", "mix" and "prior" go to `LinUCB`; "capacity" and "epoch" to `Polar`, which runs
        where the data are a `Problem`; "price_weight" scales the prices by which it decides, not those it is charged.
    data : Stream, Problem or Trace
        A trace is replayed, see `replay`.
    seed : int
        Of the policy.

    Examples
    --------
    >>> from banditroute.simulation import homes
    >>> score({"alpha": 0.3, "epoch": 200}, homes(500, 0), 0) > 0
    True
    """
    unknown = set(setting) - {*_POLICY, *_RESIDENCY}
    if unknown:
        raise ValueError(f"settings must be of {(*_POLICY, *_RESIDENCY)}, got {min(unknown)!r}")
    options = {name: setting[name] for name in _POLICY if name in setting}
    if isinstance(data, Trace):
        if data.contexts is None:
            raise ValueError("trace must hold contexts to tune on, got none")
        return replay(data, LinUCB(data.names, data.contexts.shape[1], rng=seed, **options), rng=seed).value
    stream = data if isinstance(data, Stream) else data.stream
    policy = LinUCB(stream.arms, stream.dim, rng=seed, **options)
    each = np.arange(len(stream))
    if isinstance(data, Stream):
        return float(stream.rewards[each, simulate(policy, stream).arms].mean())
    weight = check.finite("price_weight", setting.get("price_weight", 1.0), low=0.0, open_low=True)
    seen = replace(data, faults=weight * data.faults, loads=weight * data.loads)
    residency = Polar(setting.get("capacity", data.capacity), epoch=setting.get("epoch", 500))
    run = simulate(policy, seen, residency)
    earned = stream.rewards[each, run.arms].sum() - data.faults[run.arms[~run.hits]].sum()
    loads = sum(price for _, price in run.loads) / weight
    return float((earned - loads) / len(stream))


def _one(setting: Setting, data: Data, seed: int) -> float:
    return score(setting, data(seed), seed)


def sweep(
    settings: Sequence[Setting], data: Data, seeds: Iterable[int], *, jobs: int = 1, backend: str = "loky"
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
    jobs : int
        Processes; 1 stays in this one, -1 takes all cores.
    backend : str
        Of joblib: "loky" are processes here, "ray" a Ray cluster (``ray.init(address=...)`` beforehand names one of
        many machines), "dask" the cluster of the ``dask.distributed.Client`` that is open.

    Examples
    --------
    >>> draws = Draws(MatrixEnvironment(np.eye(3), np.eye(3)), 50)
    >>> sweep([{"alpha": 0.1}, {"alpha": 1.0}], draws, range(3)).shape
    (2, 3)
    """
    work = [(setting, int(seed)) for seed in seeds for setting in settings]
    if jobs == 1:
        cells = [_one(setting, data, seed) for setting, seed in work]
    else:
        joblib = _needed("joblib", "tune")
        if backend == "ray":
            _needed("ray", "ray")
            import_module("ray.util.joblib").register_ray()
        with joblib.parallel_config(backend=backend, n_jobs=jobs):
            cells = joblib.Parallel()(joblib.delayed(_one)(setting, data, seed) for setting, seed in work)
    return np.array(cells).reshape(-1, len(settings)).T


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
        The setting replaces the defaults only where it beats them by two standard errors, paired, on fresh draws of
        the data that chose.

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
    >>> rng = np.random.default_rng(0)
    >>> environment = MatrixEnvironment(rng.standard_normal((60, 2)), rng.random((60, 3)))
    >>> found = tune(Draws(environment, 100), trials=2, seeds=4)
    >>> len(found.trials)
    2
    """
    optuna = _needed("optuna", "tune")
    ranges = {name: _range(name, given) for name, given in (SPACE if space is None else space).items()}
    check.integer("trials", trials, low=1)
    half = check.integer("seeds", seeds, low=4) // 2
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
    run: dict[str, Any] = {"jobs": jobs, "backend": backend}
    default = sweep([{}], train, range(seeds), **run)[0]
    best, setting = default, dict[str, Any]()
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
        values = sweep([tried], train, range(half), **run)[0]
        behind = values - best[:half]
        hopeless = behind.mean() + 2.0 * behind.std(ddof=1) / np.sqrt(half) < 0.0
        if not hopeless:
            values = np.append(values, sweep([tried], train, range(half, seeds), **run)[0])
        trial.set_user_attr("values", values.tolist())
        study.tell(trial, float(values.mean()))
        idle += 1
        if not hopeless and values.mean() > best.mean():
            best, setting, idle = values, tried, 0
    progress("fresh and held-out data")
    # The best of many is lucky on its seeds: it must prove itself on others before it replaces the defaults.
    fresh = range(seeds, seeds + max(seeds, _CONFIRMED))
    best, default = sweep([setting, {}], train, fresh, **run)
    gain = best - default
    if gain.mean() <= 2.0 * gain.std(ddof=1) / np.sqrt(len(gain)):
        best, setting = default, {}
    table = sweep([setting, {}], held, range(_HELD, _HELD + max(seeds, _CONFIRMED)), **run)
    gain = table[0] - table[1]
    return Tuned(
        setting,
        train=float(best.mean()),
        default_train=float(default.mean()),
        held_out=float(table[0].mean()),
        default_held_out=float(table[1].mean()),
        gain=float(gain.mean()),
        gain_error=float(gain.std(ddof=1) / np.sqrt(len(gain))),
        trials=tuple(
            {**tried, "reward": float(values.mean()), "stopped": len(values) < seeds}
            for values, tried in _scored(study)
        ),
    )


def _scored(study: Any) -> list[tuple[Floats, dict[str, Any]]]:
    return [
        (np.array(t.user_attrs["values"]), dict(t.params)) for t in study.trials if "values" in t.user_attrs
    ]


def _split(data: Data | Trace) -> tuple[Data, Data]:
    if isinstance(data, Trace):
        known = data.answered()
        middle = len(known) // 2
        return _Part(known[:middle]), _Part(known[middle:])
    if isinstance(data, Draws):
        return data.halves()
    if not callable(data):
        raise TypeError(f"data must be a Trace, a Draws or a function of a seed, got {data!r}")
    return data, data  # held-out seeds differ


def _range(name: str, given: Any) -> Callable[[Any], Any]:
    """Return the function that asks a trial for a value."""
    if name not in (*_POLICY, *_RESIDENCY):
        raise ValueError(f"space must name {(*_POLICY, *_RESIDENCY)}, got {name!r}")
    if isinstance(given, list) and given:
        return lambda trial: trial.suggest_categorical(name, given)
    if isinstance(given, tuple) and len(given) in (2, 3) and given[2:] in ((), ("log",)):
        low, high, log = given[0], given[1], len(given) == 3
        if check.finite(name, low) < check.finite(name, high) and (low > 0 or not log):
            if isinstance(low, int) and isinstance(high, int):
                return lambda trial: trial.suggest_int(name, low, high, log=log)
            return lambda trial: trial.suggest_float(name, low, high, log=log)
    raise ValueError(f'{name} must be (low, high), (low, high, "log") or a list of choices, got {given!r}')


def _needed(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(f"needs {module}: pip install 'banditroute[{extra}]'") from error
