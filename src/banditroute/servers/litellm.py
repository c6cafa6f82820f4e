"""A door to LiteLLM: a Router chooses among the deployments that LiteLLM holds healthy; needs ``litellm``."""

import logging
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from math import isfinite
from typing import TYPE_CHECKING, Any, NamedTuple

from numpy.typing import ArrayLike

from banditroute._core import validation as check
from banditroute.errors import UnknownDecision
from banditroute.router import Router
from banditroute.router.ledger import decision_key
from banditroute.servers.answers import aupdate

if TYPE_CHECKING:

    class CustomLogger:
        """What LiteLLM calls back."""

else:
    try:
        from litellm.integrations.custom_logger import CustomLogger
    except ImportError:  # the hooks can be called without it

        class CustomLogger:
            """Stands for LiteLLM's own where that is missing."""


__all__ = ["HEADER", "MARK", "Attempt", "LiteLLMDoor"]

log = logging.getLogger("banditroute.litellm")

HEADER = "x-banditroute-decision"
MARK = "banditroute_decision"  # in the metadata of a request, and in the model_info of a deployment
CONTEXT = "banditroute_context"  # in the metadata of a request
REMEMBERED = 100_000
COUNTED = ("decisions", "answers", "cancels", "unknown", "unrouted", "refused", "sync")

Deployment = dict[str, Any]  # LiteLLM's own
Call = Mapping[str, Any]


class Attempt(NamedTuple):
    """One try of one request: its decision, and what the call took, once that is known.

    Examples
    --------
    >>> Attempt(7, "large").cost is None
    True
    """

    decision: int
    arm: str
    cost: float | None = None
    seconds: float | None = None


class LiteLLMDoor(CustomLogger):
    """Has a Router choose the deployment for every attempt of LiteLLM's Router, in process or in the proxy.

    Parameters
    ----------
    router : Router
        Its arms are the deployments' ``model_info["arm"]`` or, without that, their ``litellm_params["model"]``. Several
        deployments of one arm are left to LiteLLM's own strategy. Groups without an arm are left alone.
    context : callable, optional
        Given the messages and LiteLLM's keyword arguments of the request, returns the context, shape (dim,). Left out:
        ``metadata["banditroute_context"]``, or [1.0] where the policy has dimension 1.
    reward : callable, optional
        Given the keyword arguments of the success event and the answer, returns the reward, or None where it will come
        later through `feedback`. Left out, every reward comes through `feedback`.
    failure : float, optional
        Reward learned of an attempt that failed. Left out, it is cancelled: it teaches nothing.
    remembered : int
        Attempts that are remembered, for ids and costs; the oldest goes when one more comes.

    Attributes
    ----------
    key : str
        Tells two doors in one process apart.
    counts : Counter
        ``decisions``, ``answers`` (learned, or left to `feedback`), ``cancels``, ``unknown`` (events of attempts that
        were not decided here), ``unrouted`` (requests served without a decision), ``refused`` (rewards and failures
        that the Router did not take), ``sync`` (calls that run no hooks).

    Notes
    -----
    Each attempt is a decision of its own: LiteLLM asks again at every retry, without the deployments that cool down.
    What fails here fails no request: it is logged and counted, and LiteLLM chooses. LiteLLM's synchronous calls run no
    hooks: the door sees them only when they are over, counts them and says so once. A stream that its reader leaves
    has no event: its decision expires.

    Hooks answer in the event loop and wait for the Router's lock only; an attempt is always this worker's own.

    Tried with LiteLLM 1.108 and 1.110. The Rust core of the latter hands on no copy of a deployment, so an attempt is
    known by LiteLLM's id of the call.

    Examples
    --------
    >>> import asyncio
    >>> from banditroute import LinUCB, Router
    >>> door = LiteLLMDoor(Router(LinUCB(["small", "large"], 1, rng=0)))
    >>> healthy = [{"litellm_params": {"model": "large"}, "model_info": {"id": "7"}}]
    >>> request = {"metadata": {}, "litellm_trace_id": "t"}
    >>> chosen = asyncio.run(door.async_filter_deployments("chat", healthy, [], request))
    >>> chosen[0]["litellm_params"]["model"], door.counts["decisions"]
    ('large', 1)
    """

    def __init__(
        self,
        router: Router,
        *,
        context: Callable[[Sequence[Any], Call], ArrayLike] | None = None,
        reward: Callable[[Call, Any], float | None] | None = None,
        failure: float | None = None,
        remembered: int = REMEMBERED,
    ) -> None:
        if not isinstance(router, Router):
            raise TypeError(f"router must be a Router, got {router!r}")
        for name, given in (("context", context), ("reward", reward)):
            if given is not None and not callable(given):
                raise TypeError(f"{name} must be callable, got {check.shown(given)}")
        super().__init__()
        self.router = router
        # LiteLLM takes two callbacks of one class for the same one, unless a public string or number differs.
        self.key = secrets.token_hex(8)
        self.failure = None if failure is None else check.finite("failure", failure)
        if self.failure is not None:
            router.policy.check_reward(self.failure, 1.0)
        self.remembered = check.integer("remembered", remembered, low=1)
        self.counts: Counter[str] = Counter()
        self._context, self._reward = context, reward
        self._lock = threading.Lock()
        # Decided, and not called yet, by the trace: the attempt and the deployments that may serve it.
        self._waiting: OrderedDict[str, list[tuple[Attempt, frozenset[str]]]] = OrderedDict()
        self._called: OrderedDict[str, Attempt] = OrderedDict()  # by LiteLLM's id of the call
        self._ids: OrderedDict[str, int] = OrderedDict()  # decisions by id of the call, for whoever asks
        self._served: OrderedDict[int, Attempt] = OrderedDict()  # await their feedback

    def __repr__(self) -> str:
        counted = ", ".join(f"{name}={number}" for name, number in sorted(self.counts.items()))
        return f"LiteLLMDoor({self.router!r}{', ' if counted else ''}{counted})"

    def stats(self) -> dict[str, Any]:
        """Return the numbers of the Router, and the door's own as ``door_...``; so `export` takes a door as well.

        Examples
        --------
        >>> from banditroute import LinUCB, Router
        >>> LiteLLMDoor(Router(LinUCB(["a", "b"], 1, rng=0))).stats()["door_unrouted"]
        0
        """
        with self._lock:
            own = {f"door_{name}": self.counts[name] for name in COUNTED}
        return {**self.router.stats(), **own}

    # Before the call.

    async def async_filter_deployments(
        self,
        model: str,
        healthy_deployments: list[Deployment],
        messages: list[Any] | None,
        request_kwargs: dict[str, Any] | None = None,
        parent_otel_span: Any = None,
    ) -> list[Deployment]:
        """Return the deployments of the arm that the Router chose, out of those given."""
        by_arm: dict[str, list[Deployment]] = {}
        for deployment in healthy_deployments:
            by_arm.setdefault(_arm(deployment), []).append(deployment)
        arms = [arm for arm in by_arm if arm in self.router.arms]
        if not arms:
            return healthy_deployments
        request = {} if request_kwargs is None else request_kwargs
        metadata = _metadata(request)
        try:
            if metadata is None and "litellm_trace_id" not in request:
                raise ValueError("request_kwargs must hold metadata or litellm_trace_id, got neither")
            x = self._context_of(messages or [], request, metadata or {})
            decision = self.router.select(x, eligible=set(arms))
        except Exception as error:  # a request is not lost for want of a good choice
            self._count("unrouted")
            if self.counts["unrouted"] == 1:
                log.warning("LiteLLM chooses by itself: %s", error)
            return healthy_deployments
        mark, chosen = str(decision.id), by_arm[decision.arm]
        trace = str(request.get("litellm_trace_id"))
        with self._lock:
            self.counts["decisions"] += 1
            open_ones = self._waiting.setdefault(trace, [])
            open_ones.append((Attempt(decision.id, decision.arm), frozenset(map(_id, chosen))))
            self._waiting.move_to_end(trace)
            _cut(self._waiting, self.remembered)
        if metadata is not None:
            metadata[MARK] = mark
        return [{**one, "model_info": {**(one.get("model_info") or {}), MARK: mark}} for one in chosen]

    def _context_of(self, messages: Sequence[Any], request: Call, metadata: Call) -> ArrayLike:
        if self._context is not None:
            return self._context(messages, request)
        if CONTEXT in metadata:
            given: ArrayLike = metadata[CONTEXT]
            return given
        if self.router.policy.dim == 1:
            return [1.0]
        raise ValueError(f'context must be given, or metadata["{CONTEXT}"], got neither')

    async def async_pre_call_deployment_hook(self, kwargs: dict[str, Any], call_type: Any = None) -> None:
        """Tie the attempt that is about to be made to LiteLLM's id of the call."""
        call = kwargs.get("litellm_call_id")
        if not isinstance(call, str):
            return
        attempt = self._claimed(kwargs, kwargs.get("model_info"), _metadata(kwargs))
        if attempt is not None:
            with self._lock:
                self._called[call] = attempt
                self._ids[call] = attempt.decision
                _cut(self._called, self.remembered)
                _cut(self._ids, self.remembered)

    def _claimed(self, call: Call, info: Any, metadata: Call | None) -> Attempt | None:
        """Return the decision behind a call, and let nobody else have it.

        Its mark tells it. Where that was lost, or callers share one dictionary of metadata, it is the oldest one of
        the same trace and deployment that was not called yet.
        """
        info = info if isinstance(info, Mapping) else {}
        marks = [given.get(MARK) for given in (info, metadata or {})]
        trace, deployment = str(call.get("litellm_trace_id")), str(info.get("id"))
        with self._lock:
            open_ones = self._waiting.get(trace, [])
            fitting = [one for one in open_ones if deployment in one[1]]
            if not fitting:
                return None
            found = next((o for mark in marks for o in fitting if str(o[0].decision) == mark), fitting[0])
            open_ones.remove(found)
            if not open_ones:
                del self._waiting[trace]
        return found[0]

    # After it.

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Learn what an attempt earned, or remember what it took until `feedback` comes."""
        attempt = self._ended(kwargs)
        if attempt is None:
            return
        cost, seconds = _amount(kwargs.get("response_cost")), _seconds(start_time, end_time)
        attempt = attempt._replace(cost=cost, seconds=seconds)
        self._count("answers")
        try:
            reward = None if self._reward is None else self._reward(kwargs, response_obj)
            if reward is not None:
                self.router.update(attempt.decision, reward, cost, seconds)
                return
        except UnknownDecision:
            self._count("unknown")
            return
        except Exception as error:  # the decision still awaits its feedback
            self._count("refused")
            log.warning("reward of decision %d not learned: %s", attempt.decision, error)
        with self._lock:
            self._served[attempt.decision] = attempt
            _cut(self._served, self.remembered)

    async def async_log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """Cancel an attempt that failed, or learn the reward that is stated for that."""
        attempt = self._ended(kwargs)
        if attempt is None:
            return
        self._count("cancels" if self.failure is None else "answers")
        try:
            if self.failure is None:
                self.router.cancel(attempt.decision)
            else:
                seconds = _seconds(start_time, end_time)
                self.router.update(attempt.decision, self.failure, None, seconds, failed=True)
        except UnknownDecision:
            self._count("unknown")
        except Exception as error:
            self._count("refused")
            log.warning("failure of decision %d not told: %s", attempt.decision, error)

    def _ended(self, kwargs: Call) -> Attempt | None:
        """Return the attempt that an event is about, once."""
        with self._lock:
            attempt = self._called.pop(str(kwargs.get("litellm_call_id")), None)
        if attempt is None:  # another release of LiteLLM, without the hook before the call
            parameters = kwargs.get("litellm_params") or {}
            metadata = _metadata(parameters)
            info = parameters.get("model_info") or (metadata or {}).get("model_info")
            attempt = self._claimed(kwargs, info, metadata)
        if attempt is None:
            self._count("unknown")
        return attempt

    def log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """See a synchronous call end: no hook ran, so nothing was decided."""
        self._unasked(kwargs)

    def log_failure_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        """See a synchronous call fail."""
        self._unasked(kwargs)

    def _unasked(self, kwargs: Call) -> None:
        group = (_metadata(kwargs.get("litellm_params") or {}) or {}).get("model_group")
        if group is None or str(kwargs.get("litellm_call_id")) in self._ids:
            return  # not through LiteLLM's Router, or an asynchronous call after all
        self._count("sync")
        if self.counts["sync"] == 1:
            log.warning(
                "group %r: LiteLLM's synchronous calls run no hooks, so nothing is decided or learned; "
                "use acompletion",
                group,
            )

    # For whoever serves the answer.

    def decision_id(self, response: Any) -> int | None:
        """Return the decision behind an answer or a stream of LiteLLM's Router; None where there is none.

        Examples
        --------
        >>> from banditroute import LinUCB, Router
        >>> LiteLLMDoor(Router(LinUCB(["a", "b"], 1, rng=0))).decision_id(object()) is None
        True
        """
        hidden = getattr(response, "_hidden_params", None)
        if not isinstance(hidden, Mapping):
            return None
        with self._lock:
            return self._ids.get(str(hidden.get("litellm_call_id")))

    async def async_post_call_response_headers_hook(
        self,
        data: Call,
        user_api_key_dict: Any,
        response: Any,
        request_headers: dict[str, str] | None = None,
        litellm_call_info: Call | None = None,
    ) -> dict[str, str] | None:
        """Return the header that tells the client the decision: ``x-banditroute-decision``; of the proxy alone."""
        found = self.decision_id(response)
        mark = (_metadata(data) or {}).get(MARK) if found is None and response is not None else found
        return None if mark is None else {HEADER: str(mark)}

    def feedback(self, decision_id: int | str, reward: float, *, source: str | None = None) -> bool:
        """Learn a reward with what the call did cost and how long it took; answer and errors of `Router.update`."""
        attempt = self._attempt(decision_id)
        learned = self.router.update(decision_id, reward, attempt.cost, attempt.seconds, source=source)
        self._forget(attempt)
        return learned

    async def afeedback(self, decision_id: int | str, reward: float, *, source: str | None = None) -> bool:
        """Do as `feedback` from an event loop: in a thread where the store must be asked."""
        attempt = self._attempt(decision_id)
        learned = await aupdate(
            self.router, decision_id, reward, attempt.cost, attempt.seconds, source=source
        )
        self._forget(attempt)
        return learned

    def _attempt(self, decision_id: int | str) -> Attempt:
        key = decision_key(decision_id)
        with self._lock:
            return self._served.get(key, Attempt(key, ""))

    def _forget(self, attempt: Attempt) -> None:
        with self._lock:
            self._served.pop(attempt.decision, None)

    def _count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1


def _arm(deployment: Call) -> str:
    info = deployment.get("model_info") or {}
    return str(info.get("arm") or (deployment.get("litellm_params") or {}).get("model"))


def _id(deployment: Call) -> str:
    return str((deployment.get("model_info") or {}).get("id"))


def _metadata(request: Call) -> dict[str, Any] | None:
    """Return what is carried along with a request; some endpoints give it another name."""
    for name in ("litellm_metadata", "metadata"):
        given = request.get(name)
        if isinstance(given, dict):
            return given
    return None


def _amount(given: Any) -> float | None:
    good = isinstance(given, int | float) and isfinite(given) and given >= 0.0
    return float(given) if good else None


def _seconds(start: Any, end: Any) -> float | None:
    if isinstance(start, datetime) and isinstance(end, datetime):
        return max(0.0, (end - start) / timedelta(seconds=1))
    return _amount(end - start) if isinstance(start, float) and isinstance(end, float) else None


def _cut(table: "OrderedDict[Any, Any]", most: int) -> None:
    while len(table) > most:
        table.popitem(last=False)
