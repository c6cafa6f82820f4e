"""A service that routes for gateways in other languages; needs the extra ``serving``. It forwards nothing."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Discriminator, Field, Tag

from banditroute.router import Router
from banditroute.servers.answers import aupdate, in_loop, learn_list, withdraw
from banditroute.servers.calls import (
    Answer,
    Flag,
    ListStands,
    Number,
    Stands,
    Strict,
    Withdrawal,
    list_stands,
    malformed,
    refusal,
    stands,
)
from banditroute.servers.repeats import Chosen, Repeats

if TYPE_CHECKING:
    from banditroute.servers.prometheus import Counted

__all__ = ["LARGEST_BODY", "page", "sidecar"]

LARGEST_BODY = 1 << 20  # bytes: a context of 50,000 numbers


def _listed(given: Any) -> str:
    return "names and matrix" if isinstance(given, list) else "by name"


def _written(given: Any) -> str:
    return "text" if isinstance(given, str) else "fields" if isinstance(given, dict) else "numbers"


def _counted(given: Any) -> str:
    return "chances" if isinstance(given, list) else "number"


Given = Annotated[
    Annotated[list[Number], Tag("numbers")]
    | Annotated[str, Tag("text")]
    | Annotated[dict[str, Any], Tag("fields")],
    Discriminator(_written),
]
Offered = Annotated[
    Annotated[dict[str, list[Number]], Tag("by name")]
    | Annotated[tuple[list[str], list[list[Number]]], Tag("names and matrix")],
    Discriminator(_listed),
]
Places = Annotated[
    Annotated[int, Field(strict=True), Tag("number")] | Annotated[list[Number], Tag("chances")],
    Discriminator(_counted),
]


class Ask(Strict):
    """A request to route: the parameters of `Router.select`."""

    context: Given = Field(
        description="As many numbers as the policy's dimension; with features, the raw request: a text or fields."
    )
    eligible: list[str] | None = Field(None, description="Arms allowed for this request; all when left out.")
    prices: dict[str, Number] | None = Field(None, description="Known extra cost by arm, reward units.")
    protected: Flag = Field(False, description="Never force exploration on this request.")
    weights: dict[str, Number] | None = Field(None, description="Prices of the measures of cost models.")
    session: str | None = Field(None, description="Conversation that the request belongs to.")
    id: str | None = Field(
        None,
        description="The caller's own id, not of digits alone: a repeated call gets the first answer again.",
    )
    candidates: Offered | None = Field(
        None,
        description="What may serve this request: features by name, or names and a matrix with a row for each.",
    )
    k: Places | None = Field(
        None, description="A list of so many places, or of as many as chances that each is looked at."
    )


class Wonder(Strict):
    """A request to explain, as for ``/select``, or the id of a decision."""

    context: Given | None = Field(None, description="As for /select.")
    id: str | None = Field(None, description="In the place of a context: a decision, or the caller's own id.")
    eligible: list[str] | None = Field(None, description="As for /select.")
    prices: dict[str, Number] | None = Field(None, description="As for /select.")
    protected: Flag = Field(False, description="As for /select.")
    weights: dict[str, Number] | None = Field(None, description="As for /select.")
    session: str | None = Field(None, description="As for /select.")
    candidates: Offered | None = Field(None, description="As for /select.")


class Place(BaseModel):
    """One place of a list, which its own id answers; of a decision from before a restart the prefix is not known."""

    id: str
    arm: str
    propensity: float = Field(description="With which the arm stood here.")
    prefix: float | None = Field(description="Probability of the list down to here.")


class Choice(BaseModel):
    """The arm that serves the request; the id is a string because JSON numbers have 53 bits."""

    id: str
    arm: str
    propensity: float
    hit: bool
    places: list[Place] | None = Field(None, description="Where `k` was given, best first.")


class Arm(BaseModel):
    """An arm, and what this worker counted of it."""

    name: str
    resident: bool
    quarantined: bool
    decisions: int
    learned: int
    mean_reward: float | None


class Arms(BaseModel):
    """All arms, in the order of positions."""

    arms: list[Arm]


Scrape = Callable[[], bytes]


def sidecar(
    make: Callable[[], Router],
    *,
    token: str | None = None,
    metrics: Callable[[Router], tuple[Scrape, Callable[[], None]]] | None = None,
) -> FastAPI:
    """Return the service: ``/select``, ``/feedback``, ``/cancel``, ``/explain``, ``/arms``, ``/healthz``, ``/metrics``.

    Parameters
    ----------
    make : callable
        Makes the Router of this worker, in it and after any fork. The service closes it when it stops.
    token : str, optional
        Every call but ``/healthz`` and the description of the service must carry it as a bearer token. Visible ASCII.
    metrics : callable, optional
        Given the Router, returns what makes the page of ``/metrics``, and what ends it; `page` when left out.

    Notes
    -----
    ``/select`` and answers to own decisions take microseconds and run in the event loop. What asks the store runs in
    a thread: feedback on another worker's decision, and every ``/select`` with an id where decisions are shared.

    Status 401 without the token, 404 for what nobody decided, 409 for an id whose decision has ended and is forgotten,
    413 for a body above 1 MiB, 400 and 422 for what is malformed or the Router refuses, 429 for a source above its rate
    or an arm in quarantine (the decision still awaits its feedback), 503 while the store is down or the service stops.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> app = sidecar(lambda: Router(LinUCB(["small", "large"], 2)))
    >>> sorted(app.openapi()["paths"])
    ['/arms', '/cancel', '/explain', '/feedback', '/healthz', '/metrics', '/select']
    """
    if token is not None and not (token and all("!" <= letter <= "~" for letter in token)):
        raise ValueError(f"token must be of visible ASCII characters, got {len(token)} others or none")
    service = _Service(make, metrics or page)
    app = FastAPI(
        title="banditroute",
        summary="Which arm serves a request, learned from rewards that come later.",
        lifespan=service.lifespan,
        max_body_size=LARGEST_BODY,
    )
    app.add_exception_handler(RequestValidationError, malformed)
    guarded: list[Any] = [] if token is None else [Depends(_guard(token))]
    app.post("/select", dependencies=guarded, response_model=Choice)(service.select)
    app.post("/feedback", dependencies=guarded)(service.feedback)
    app.post("/cancel", dependencies=guarded)(service.cancel)
    app.post("/explain", dependencies=guarded)(service.explain)
    app.get("/explain", dependencies=guarded)(service.explain_decision)
    app.get("/arms", dependencies=guarded)(service.arms)
    app.get("/metrics", dependencies=guarded, response_class=Response)(service.metrics)
    app.get("/healthz")(service.healthz)
    return app


def page(
    router: "Counted", *, directory: str | os.PathLike[str] | None = None
) -> tuple[Scrape, Callable[[], None]]:
    """Return what makes the page of metrics of a Router, and what ends it; for the directory see `export`.

    Examples
    --------
    >>> from banditroute import LinUCB, Router
    >>> scrape, end = page(Router(LinUCB(2, 1, rng=0)))
    >>> b"banditroute_decisions_total 0.0" in scrape()
    True
    >>> end()
    """
    from prometheus_client import CollectorRegistry, generate_latest

    from banditroute.servers.prometheus import export

    registry = CollectorRegistry()
    collector = export(router, registry, directory=directory)
    return partial(generate_latest, registry), collector.close


class _Service:
    """The calls of the service on one Router."""

    def __init__(
        self, make: Callable[[], Router], metrics: Callable[[Router], tuple[Scrape, Callable[[], None]]]
    ) -> None:
        self._make, self._metrics = make, metrics
        self._router: Router | None = None
        self._repeats: Repeats | None = None
        self._scrape: Scrape = bytes

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Hold a Router while the service runs; at the end it publishes and writes what it holds."""
        router = await asyncio.to_thread(self._make)
        self._scrape, end = self._metrics(router)
        self._router, self._repeats = router, Repeats(router)
        try:
            yield
        finally:
            self._router = None
            end()
            await asyncio.to_thread(router.close)

    def _open(self) -> tuple[Router, Repeats]:
        if self._router is None or self._repeats is None:
            raise HTTPException(503, "the service stops")
        return self._router, self._repeats

    async def select(self, ask: Ask) -> Response:
        """Choose the arm that serves a request."""
        router, repeats = self._open()
        context: Any = ask.context  # numbers, or what the features of the Router take
        decide = partial(
            router.select,
            context,
            set(ask.eligible) if ask.eligible is not None else None,
            ask.prices,
            ask.protected,
            ask.weights,
            ask.session,
            candidates=ask.candidates,
            k=ask.k,
        )
        try:
            if ask.id is None:
                chosen = Chosen.of(decide())
            elif repeats.store is None:
                chosen = repeats.select(ask.id, decide)
            else:
                chosen = await asyncio.to_thread(repeats.select, ask.id, decide)
        except Exception as error:
            raise refusal(error) from error
        return JSONResponse(chosen.told())  # made here, so not checked once more

    async def feedback(self, answer: Answer) -> ListStands | Stands:
        """Learn what came of a decision; whoever repeats it gets the same answer, and nothing is learned twice."""
        router, repeats = self._open()
        try:
            key, reward = await repeats.key(answer.id), answer.reward
            rest = (answer.cost, answer.seconds, answer.failed, answer.source)
            if isinstance(reward, float):
                return await stands(router, key, aupdate(router, key, reward, *rest))
            return list_stands(
                key, *await in_loop(router, key, partial(learn_list, router, key, reward, *rest))
            )
        except Exception as error:
            raise refusal(error, answer.id) from error

    async def cancel(self, gone: Withdrawal) -> Stands:
        """Withdraw a decision: it teaches nothing."""
        router, repeats = self._open()
        try:
            key = await repeats.key(gone.id)
            now = await in_loop(router, key, partial(withdraw, router, key))
        except Exception as error:
            raise refusal(error, gone.id) from error
        return Stands(id=str(key), standing=now)

    async def explain(self, wonder: Wonder) -> dict[str, Any]:
        """Say why an arm would be played for a request, or was for a decision of this worker; changes nothing."""
        router, repeats = self._open()
        if (wonder.context is None) == (wonder.id is None):
            raise HTTPException(422, "context or id must be given, one of the two")
        if wonder.id is not None and wonder.candidates is not None:
            raise HTTPException(422, "candidates must come with a context, got an id")
        said = (wonder.prices, wonder.protected, wonder.weights, wonder.session)
        context: Any = wonder.context
        eligible = None if wonder.eligible is None else set(wonder.eligible)
        try:
            key = None if wonder.id is None else await repeats.key(wonder.id)
            why = router.explain(context, eligible, *said, id=key, candidates=wonder.candidates)
            return why.to_dict()
        except Exception as error:
            raise refusal(error, wonder.id or "") from error

    async def explain_decision(self, id: str) -> dict[str, Any]:
        """Say why a decision of this worker was made, as of now: ``/explain?id=``."""
        return await self.explain(Wonder.model_validate({"id": id}))

    async def arms(self) -> Arms:
        """List the arms, and what this worker counted of them."""
        router, _ = self._open()
        stats, resident = router.stats()["arms"], set(router.resident)
        return Arms(
            arms=[
                Arm(
                    name=name,
                    resident=name in resident,
                    quarantined=bool(of["quarantined"]),
                    decisions=int(of["decisions"]),
                    learned=int(of["learned"]),
                    mean_reward=of["mean_reward"] if of["learned"] else None,
                )
                for name, of in stats.items()
            ]
        )

    async def healthz(self) -> dict[str, str]:
        """Tell whether the service takes calls: 200, or 503."""
        self._open()
        return {"status": "ok"}

    def metrics(self) -> Response:
        """Show the numbers of all workers to Prometheus; reads files, so in a thread."""
        self._open()
        return Response(self._scrape(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _guard(token: str) -> Callable[..., None]:
    """Return what lets calls with the token in."""
    bearer = HTTPBearer(auto_error=False, description="The token of the service.")

    def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        sent = b"" if given is None else given.credentials.encode(errors="replace")
        if not secrets.compare_digest(sent, token.encode()):
            raise HTTPException(401, "the token is missing or wrong", headers={"WWW-Authenticate": "Bearer"})

    return check
