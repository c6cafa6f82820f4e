"""A checked configuration becomes a Router."""

from typing import Any

from banditroute.config.files import ConfigError, Source, check_config, read_config
from banditroute.config.models import CONTROLLERS, POLICIES, SERVERS, TERMS, WRAPPERS
from banditroute.config.options import Options
from banditroute.durability import FileStore, StateStore
from banditroute.policies import Policy
from banditroute.records import AdapterBackend, Term
from banditroute.residency.paging import PagingModel
from banditroute.router import RewardLimits, Router

__all__ = ["from_config"]


def from_config(source: Source) -> Router:
    """Return the Router that a file describes; it has recovered its directory and joined its store.

    Parameters
    ----------
    source : path or mapping
        A .toml, .json, .yaml or .yml file, or what it would hold: tables ``policy``, ``wrappers``, ``residency``,
        ``paging``, ``sizes``, ``terms``, ``sources``, ``backend``, ``router``, ``recover`` and ``store``. ``kind``
        names a class, everything else is a parameter of it.

    Raises
    ------
    ConfigError
        Names file, key, rule and value.
    OSError
        The file, the directory or the store cannot be reached.

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
    config: Any = check_config(given if isinstance(source, dict) else source)
    policy = _made(name, "policy", POLICIES, config.policy)
    for at, wrapper in enumerate(config.wrappers):
        policy = _made(name, f"wrappers.{at}", WRAPPERS, wrapper, policy)
    terms = [_term(name, at, one, policy) for at, one in enumerate(config.terms)]
    options = {key: getattr(config.router, key) for key in type(config.router).model_fields}
    try:
        router = Router(
            policy,
            None if config.residency is None else _made(name, "residency", CONTROLLERS, config.residency),
            _paging(name, config.paging, policy),
            terms=terms,
            sizes=config.sizes,
            sources={key: _limits(name, key, one) for key, one in config.sources.items()} or None,
            backend=None if config.backend is None else _server(name, config.backend),
            **options,
        )
    except (ValueError, TypeError) as error:
        raise error if isinstance(error, ConfigError) else ConfigError(f"{name}: {error}") from error
    if config.recover is not None:
        router.recover(**config.recover.model_dump())
    if config.store is not None:
        router.join(
            _store(config.store), sync_s=config.store.sync_s, share_decisions=config.store.share_decisions
        )
    return router


def _given(options: Options) -> dict[str, Any]:
    """Return what the file says, without the kind and without what it leaves to the class."""
    return {key: getattr(options, key) for key in options.model_fields_set if key != "kind"}


def _made(name: str, key: str, kinds: dict[str, type], options: Any, *first: object) -> Any:
    try:
        return kinds[options.kind](*first, **_given(options))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{name}: {key}: {error}") from error


def _term(name: str, at: int, options: Any, policy: Policy) -> Term:
    given = _given(options)
    kind = TERMS[options.kind]
    for key, value in given.items():  # prices and costs may be given by arm
        if isinstance(value, dict) and set(value) <= set(policy.arms) and key != "weights":
            missing = [arm for arm in policy.arms if arm not in value]
            if missing:
                raise ConfigError(f"{name}: terms.{at}.{key}: must name every arm, got none for {missing}")
            given[key] = [value[arm] for arm in policy.arms]
    if options.kind == "CostModels":
        given = {"arms": policy.arms, "dim": policy.dim} | given
    try:
        term: Term = kind(**given)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{name}: terms.{at}: {error}") from error
    return term


def _paging(name: str, given: Any, policy: Policy) -> Any:
    if isinstance(given, dict):
        missing = [arm for arm in policy.arms if arm not in given]
        if missing:
            raise ConfigError(f"{name}: paging: must price every arm, got none for {missing}")
        return [given[arm] for arm in policy.arms]
    return _made(name, "paging", {"PagingModel": PagingModel}, given) if isinstance(given, Options) else given


def _limits(name: str, key: str, options: Any) -> RewardLimits:
    limits: RewardLimits = _made(name, f"sources.{key}", {"RewardLimits": RewardLimits}, options)
    return limits


def _server(name: str, options: Any) -> AdapterBackend:
    backend: AdapterBackend = _made(name, "backend", SERVERS, options)
    return backend


def _store(options: Any) -> StateStore:
    if options.kind == "FileStore":
        return FileStore(options.directory)
    from banditroute.durability.redis_store import RedisStore

    store: StateStore = RedisStore(options.url, prefix=options.prefix)
    return store
