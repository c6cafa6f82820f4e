"""A checked configuration becomes a Router."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from banditroute.config.faults import nearest
from banditroute.config.feature_options import features_of
from banditroute.config.files import ConfigError, Source, checked, read_config
from banditroute.config.models import CONTROLLERS, POLICIES, SERVERS, TERMS, WRAPPERS
from banditroute.config.options import Options
from banditroute.durability import FileStore, StateStore
from banditroute.errors import BanditRouteError
from banditroute.features import Features
from banditroute.policies import Policy
from banditroute.records import Term
from banditroute.residency.paging import PagingModel
from banditroute.router import RewardLimits, Router

__all__ = ["from_config", "summary"]


def from_config(source: Source, *, encoders: Mapping[str, Callable[..., Any]] | None = None) -> Router:
    """Return the Router that a file describes; it has recovered its directory and joined its store.

    Parameters
    ----------
    source : path or mapping
        A .toml, .json, .yaml or .yml file, or what it would hold: tables ``policy``, ``wrappers``, ``residency``,
        ``paging``, ``sizes``, ``features``, ``terms``, ``sources``, ``backend``, ``router``, ``recover`` and
        ``store``. ``kind`` names a class, everything else is a parameter of it.
    encoders : mapping of str to callable, optional
        Encoders of features, by the names that the file gives them.

    Raises
    ------
    ConfigError
        Names file, key, rule and value.
    OSError
        The file, the directory or the store cannot be reached.
    SnapshotError
        The directory or the state of features is of another Router.

    Notes
    -----
    Paths in a file are taken from the working directory.

    Examples
    --------
    >>> router = from_config({
    ...     "policy": {"kind": "LinUCB", "arms": ["math", "code", "chat"], "dim": 2, "rng": 0},
    ...     "residency": {"kind": "Polaris", "capacity": 2},
    ...     "paging": 0.1,
    ...     "terms": [{"kind": "BudgetPacer", "budget": 0.01, "costs": {"math": 0.02, "code": 0.01, "chat": 0.001}}],
    ... })
    >>> router.arms, router.resident, [term.name for term in router.terms]
    (('math', 'code', 'chat'), ('math', 'code'), ['budget'])
    """
    name, given = read_config(source)
    config: Any = checked(name, given)
    backend = None if config.backend is None else _made(name, "backend", SERVERS, config.backend)
    router = _assembled(name, config, {} if encoders is None else encoders, backend=backend)
    try:
        if config.recover is not None:
            with _named(name, "recover"):
                router.recover(**_given(config.recover))
        if config.store is not None:
            with _named(name, "store"):
                router.join(
                    _store(config.store),
                    sync_s=config.store.sync_s,
                    share_decisions=config.store.share_decisions,
                    share_residency=config.store.share_residency,
                )
    except BaseException:  # nobody else could stop its threads and free its directory
        router.close()
        raise
    return router


def summary(source: Source) -> str:
    """Return in a line what a configuration makes; no server, directory or store is touched, no encoder called.

    Raises
    ------
    ConfigError
        As `from_config`.

    Examples
    --------
    >>> summary({"policy": {"kind": "LinUCB", "arms": ["a", "b"], "dim": 2}, "recover": {"directory": "state"}})
    'Router(LinUCB, 2 arms, dim=2, recover=state)'
    """
    name, given = read_config(source)
    config: Any = checked(name, given)
    router = _assembled(name, config, None, maintenance="manual")
    policy = router.policy
    told = [type(policy).__name__, f"{len(policy.arms)} arms", f"dim={policy.dim}"]
    if router.features is not None:
        told.append(f"features={type(router.features).__name__}")
    if router.residency is not None:
        told.append(f"residency={type(router.residency).__name__}({router.residency.capacity:g})")
    if router.terms:
        told.append(f"terms={'+'.join(term.name for term in router.terms)}")
    if config.backend is not None:
        _made(name, "backend", SERVERS, config.backend)
        told.append(f"backend={config.backend.kind}")
    if config.recover is not None:
        told.append(f"recover={config.recover.directory}")
    if config.store is not None:
        told.append(f"store={config.store.kind}")
    router.close()
    return f"Router({', '.join(told)})"


def _assembled(
    name: str, config: Any, encoders: Mapping[str, Callable[..., Any]] | None, **others: Any
) -> Router:
    """Return the Router of a checked configuration, without what lasts."""
    policy = _made(name, "policy", POLICIES, config.policy)
    for at, wrapper in enumerate(config.wrappers):
        policy = _made(name, f"wrappers.{at}", WRAPPERS, wrapper, policy)
    residency = None if config.residency is None else _made(name, "residency", CONTROLLERS, config.residency)
    terms = [_term(name, at, one, policy) for at, one in enumerate(config.terms)]
    sources = {key: _limits(name, key, one) for key, one in config.sources.items()}
    paging, features = _paging(name, config.paging, policy), _features(name, config, encoders)
    with _named(name, "(all)"):
        return Router(
            policy, residency, paging, features=features, terms=terms, sizes=config.sizes, sources=sources or None,
            **_given(config.router) | others,
        )  # fmt: skip


@contextmanager
def _named(name: str, key: str) -> Iterator[None]:
    """Say file and key of what a class refuses; what is wrong with a directory or a store says that itself."""
    try:
        yield
    except BanditRouteError:
        raise
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise ConfigError(f"{name}: {key}: {error}") from error


def _given(options: Options) -> dict[str, Any]:
    """Return what the file says, without the kind and without what it leaves to the class."""
    return {key: getattr(options, key) for key in options.model_fields_set if key != "kind"}


def _made(name: str, key: str, kinds: dict[str, type], options: Any, *first: object) -> Any:
    with _named(name, key):
        return kinds[options.kind](*first, **_given(options))


def _term(name: str, at: int, options: Any, policy: Policy) -> Term:
    given = _given(options)
    for key, value in given.items():  # prices and costs may be given by arm
        if isinstance(value, dict) and set(value) & set(policy.arms) and key != "weights":
            given[key] = _by_arm(f"{name}: terms.{at}.{key}", value, policy)
    if options.kind == "CostModels":
        given |= {"arms": policy.arms, "dim": policy.dim}
    with _named(name, f"terms.{at}"):
        term: Term = TERMS[options.kind](**given)
    return term


def _by_arm(place: str, given: dict[str, Any], policy: Policy) -> list[Any]:
    """Return values by name in the order of the arms."""
    for arm in given:
        if arm not in policy.arms:
            raise ConfigError(f"{place}: must be by arm{nearest(arm, list(policy.arms))}, got {arm!r}")
    missing = [arm for arm in policy.arms if arm not in given]
    if missing:
        raise ConfigError(f"{place}: must name every arm, got none for {missing}")
    return [given[arm] for arm in policy.arms]


def _paging(name: str, given: Any, policy: Policy) -> Any:
    if isinstance(given, dict):
        return _by_arm(f"{name}: paging", given, policy)
    return _made(name, "paging", {"PagingModel": PagingModel}, given) if isinstance(given, Options) else given


def _features(name: str, config: Any, encoders: Mapping[str, Callable[..., Any]] | None) -> Features | None:
    if config.features is None:
        if config.features_state is not None:
            raise ConfigError(
                f"{name}: features_state: must come with features, got {config.features_state!r}"
            )
        return None
    with _named(name, "features"):
        features = features_of(config.features, encoders)
    if config.features_state is not None and encoders is not None:
        with _named(name, "features_state"):
            features.load(config.features_state)
    return features


def _limits(name: str, key: str, options: Any) -> RewardLimits:
    with _named(name, f"sources.{key}"):
        return RewardLimits(**_given(options))


def _store(options: Any) -> StateStore:
    if options.kind == "FileStore":
        return FileStore(options.directory)
    from banditroute.durability.redis_store import RedisStore

    store: StateStore = RedisStore(options.url, prefix=options.prefix)
    return store
