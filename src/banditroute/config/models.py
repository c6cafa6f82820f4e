"""What a configuration file may say."""

from functools import cache
from typing import Annotated, Any, Literal, Union

from pydantic import Discriminator, Field, Tag

from banditroute import policies, residency, servers, terms
from banditroute.config.feature_options import FeaturesOptions
from banditroute.config.options import Options, options_of
from banditroute.policies import Policy
from banditroute.residency import Controller
from banditroute.residency.paging import PagingModel
from banditroute.router import RewardLimits

__all__ = ["CONTROLLERS", "POLICIES", "SERVERS", "TERMS", "WRAPPERS", "config_model"]

# What a file can name; a wrapper goes around the policy before it.
WRAPPERS = {
    name: getattr(policies, name)
    for name in ("Restarting", "SlidingWindow", "SquareCB", "StalenessInflation")
}
# Abstract, or made of objects that a file cannot hold.
OBJECTS = ("Policy", "LinearPolicy", "BatchedUpdates", "GraphDiagLinUCB")
POLICIES = {
    name: kind
    for name, kind in vars(policies).items()
    if isinstance(kind, type)
    and issubclass(kind, Policy)
    and name in policies.__all__
    and name not in (*WRAPPERS, *OBJECTS)
}
CONTROLLERS = {
    name: kind
    for name, kind in vars(residency).items()
    if isinstance(kind, type)
    and issubclass(kind, Controller)
    and name in residency.__all__
    and name not in ("Controller", "ResidentOnly")
}
TERMS = {
    name: getattr(terms, name)
    for name in ("ArmHealth", "BudgetPacer", "CostModels", "QualityFloor", "Queues", "Sessions")
}
SERVERS = {name: getattr(servers, name) for name in ("LlamaCppAdapters", "SGLangBackend", "VLLMBackend")}


class RouterOptions(Options):
    """Settings of the Router itself, as its parameters of the same names."""

    maintenance: Literal["inline", "background", "manual"] = "inline"
    switching: float | int = 1.0
    feedback_limit_s: float | int = 3600.0
    pending_limit: int = 100_000
    expired_reward: float | int | None = None
    spread_pending: bool = False


class Recovery(Options):
    """A directory for journal and checkpoints, as the parameters of `Router.recover`."""

    directory: str
    checkpoint_s: float | int = 30.0
    flush_s: float | int = 0.05
    keep: int = 3
    arms: Literal["code", "file"] = "code"


class FileStoreOptions(Options):
    """A directory that all workers see."""

    kind: Literal["FileStore"]
    directory: str
    sync_s: float | int = 1.0
    share_decisions: bool = False
    share_residency: bool | str = True


class RedisStoreOptions(Options):
    """A Redis server that all workers reach; needs the extra ``redis``."""

    kind: Literal["RedisStore"]
    url: str
    prefix: str = "banditroute"
    sync_s: float | int = 1.0
    share_decisions: bool = False
    share_residency: bool | str = True


def _priced_as(given: Any) -> str:
    """Return which of the ways to price a fault was taken."""
    if isinstance(given, dict):
        return "PagingModel" if "kind" in given else "by name"
    return "in order" if isinstance(given, list) else "one for all"


def _paging() -> Any:
    ways = {
        "one for all": float | int,
        "in order": list[float | int],
        "by name": dict[str, float | int],
        "PagingModel": options_of(PagingModel),
    }
    tagged = [Annotated[hint, Tag(way)] for way, hint in ways.items()]
    return Annotated[Union[tuple(tagged)], Discriminator(_priced_as)]  # noqa: UP007


class DoorOptions(Options):
    """Settings of the door to LiteLLM's proxy, as its parameters of the same names; functions are ``module:name``."""

    context: str | None = None
    reward: str | None = None
    failure: float | int | None = None


def _one_of(kinds: dict[str, type], *without: str) -> Any:
    models = [options_of(kind, without=without) for kind in kinds.values()]
    return Annotated[Union[tuple(models)], Field(discriminator="kind")]  # noqa: UP007


@cache
def config_model() -> type[Options]:
    """Return the model of a whole file.

    Examples
    --------
    >>> sorted(config_model().model_fields)[:4]
    ['backend', 'features', 'features_state', 'litellm']
    """

    class Config(Options):
        """A Router as a file says it: policy, residency, terms, limits, and where its state lasts."""

        policy: _one_of(POLICIES)  # type: ignore[valid-type]
        wrappers: list[_one_of(WRAPPERS)] = Field(default_factory=list)  # type: ignore[valid-type]
        residency: _one_of(CONTROLLERS) | None = None  # type: ignore[valid-type]
        paging: _paging() | None = None  # type: ignore[valid-type]
        sizes: list[float | int] | dict[str, float | int] | None = None
        features: FeaturesOptions | None = None
        features_state: str | None = None  # a file that `Features.save` wrote
        terms: list[_one_of(TERMS, "arms", "dim")] = Field(default_factory=list)  # type: ignore[valid-type]
        sources: dict[str, options_of(RewardLimits, tagged=False)] = Field(default_factory=dict)  # type: ignore[valid-type]
        backend: _one_of(SERVERS) | None = None  # type: ignore[valid-type]
        router: RouterOptions = RouterOptions()
        recover: Recovery | None = None
        litellm: DoorOptions | None = None
        store: Annotated[FileStoreOptions | RedisStoreOptions, Field(discriminator="kind")] | None = None

    return Config
