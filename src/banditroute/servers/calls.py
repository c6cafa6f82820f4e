"""What doors over HTTP take, answer and refuse: the sidecar, and the routes in LiteLLM's proxy; needs FastAPI."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Annotated, Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

from banditroute._core import validation as check
from banditroute.errors import UnknownArm, UnknownDecision
from banditroute.router import Router
from banditroute.servers.answers import Standing, in_loop, standing
from banditroute.servers.repeats import Ended

__all__ = [
    "Answer",
    "Flag",
    "ListStands",
    "Number",
    "PlainRoute",
    "Reward",
    "Stands",
    "Strict",
    "Withdrawal",
    "list_stands",
    "malformed",
    "refusal",
    "stands",
]


# Neither true nor "0.5" is a number: a client that sends these means something else.
Number = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]


class Strict(BaseModel):
    """Base of what is sent: nothing unknown, and numbers that JSON knows.

    Examples
    --------
    >>> from pydantic import ValidationError
    >>> try:
    ...     Withdrawal(id="7", why="late")
    ... except ValidationError as error:
    ...     error.errors()[0]["msg"]
    'Extra inputs are not permitted'
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Reward(Strict):
    """What came of a decision.

    Examples
    --------
    >>> Reward(id="7", reward=0.5).source is None
    True
    """

    id: str = Field(description="Id of the decision, or the caller's own.")
    reward: Number
    source: str | None = Field(None, description="Who reports the reward.")


def _way(given: Any) -> str:
    return "by name" if isinstance(given, Mapping) else "by place" if isinstance(given, list) else "number"


class Answer(Strict):
    """What came of a decision, and what it took: the parameters of `Router.update`.

    Examples
    --------
    >>> Answer(id="7", reward=0.5).failed, Answer(id="7", reward={"large": 1.0}).reward
    (False, {'large': 1.0})
    """

    id: str = Field(description="Id of the decision, or the caller's own.")
    reward: Annotated[
        Annotated[Number, Tag("number")]
        | Annotated[list[Number | None], Tag("by place")]
        | Annotated[dict[str, Number | None], Tag("by name")],
        Discriminator(_way),
    ] = Field(description="Of a list also one for each place, or by name; null withdraws a place.")
    cost: Number | None = Field(None, description="What the call did cost, >= 0.")
    seconds: Number | None = Field(None, description="How long it took, >= 0.")
    failed: Flag = Field(False, description="The call itself failed.")
    source: str | None = Field(None, description="Who reports the reward.")


class Withdrawal(Strict):
    """A decision that was never served, failed or was rerouted.

    Examples
    --------
    >>> Withdrawal(id="7").id
    '7'
    """

    id: str = Field(description="Id of the decision, or the caller's own.")


class Stands(BaseModel):
    """How a decision stands; a repeated call gets the same.

    Examples
    --------
    >>> Stands(id="7", standing="answered").standing
    'answered'
    """

    id: str
    standing: Standing


class ListStands(Stands):
    """How a list stands whose places were answered: pending while one of them is.

    Examples
    --------
    >>> ListStands(id="7", standing="pending", places=["answered", "pending"]).places[0]
    'answered'
    """

    places: list[Standing]


async def stands(router: Router, key: int, learned: Awaitable[bool]) -> Stands:
    """Wait for an answer to be learned, and return how its decision stands then.

    Raises
    ------
    HTTPException
        429: the answer was not taken, and the decision awaits it still.

    Examples
    --------
    >>> import asyncio
    >>> from banditroute import LinUCB, Router
    >>> from banditroute.servers.answers import aupdate
    >>> router = Router(LinUCB(2, 1, rng=0))
    >>> key = router.select([1.0]).id
    >>> asyncio.run(stands(router, key, aupdate(router, key, 1.0))).standing
    'answered'
    """
    now = "answered" if await learned else await in_loop(router, key, partial(standing, router, key))
    if now == "pending":
        raise HTTPException(429, "not taken: the source is above its rate; the decision awaits its feedback")
    return Stands(id=str(key), standing=now or "answered")


def list_stands(key: int, each: list[Standing], late: bool) -> ListStands:
    """Return how a list stands, from what `learn_list` returned.

    Raises
    ------
    HTTPException
        429: a reward was not taken, and its place awaits it still.

    Examples
    --------
    >>> list_stands(7, ["answered", "pending"], late=False).standing
    'pending'
    """
    if late:
        raise HTTPException(
            429, "not taken in full: the source is above its rate; the other places await their feedback"
        )
    now: Standing = next((how for how in ("pending", "answered") if how in each), each[0])
    return ListStands(id=str(key), standing=now, places=each)


def refusal(error: Exception, own: str = "") -> HTTPException:
    """Return what a caller, who gave this id, is told of an error; what is nobody's mistake is raised again.

    Examples
    --------
    >>> refusal(ValueError("reward must be finite, got nan")).status_code
    422
    """
    if isinstance(error, HTTPException):
        return error
    if isinstance(error, UnknownDecision):
        named = own and not own.isdigit()  # the Router was asked for the number that stands for it
        told = (
            f"id must be one under which a decision was made, got {check.shown(own)}" if named else str(error)
        )
        return HTTPException(404, told)
    if isinstance(error, Ended):
        return HTTPException(409, str(error))
    if isinstance(error, OSError):
        return HTTPException(
            503, f"the store is down: {type(error).__name__}"
        )  # where it is, is nobody's business
    if isinstance(error, ValueError | TypeError | UnknownArm):
        return HTTPException(422, str(error))
    raise error


async def malformed(request: Request, error: Exception) -> Response:
    """Tell what of a body is wrong, without sending it back: it may hold what JSON cannot.

    Examples
    --------
    >>> import asyncio
    >>> from starlette.requests import Request
    >>> fault = {"loc": ("body", "reward"), "msg": "Input should be a finite number", "type": "finite_number"}
    >>> asyncio.run(malformed(Request({"type": "http"}), RequestValidationError([fault]))).body
    b'{"detail":"reward: Input should be a finite number"}'
    """
    faults = error.errors() if isinstance(error, RequestValidationError) else []
    lines = [f"{'.'.join(map(str, fault['loc'][1:])) or 'body'}: {fault['msg']}" for fault in faults]
    return JSONResponse({"detail": "; ".join(lines)}, 422)


class PlainRoute(APIRoute):
    """A route in somebody else's application that tells what is malformed as ours do.

    Examples
    --------
    >>> PlainRoute("/feedback", lambda: None).path
    '/feedback'
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what handles a request."""
        handle = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                return await malformed(request, error)

        return told
