"""A gateway that chooses the adapter: ``uvicorn vllm_gateway:app``, beside vllm_gateway.toml."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from banditroute import UnknownDecision, from_config


class Prompt(BaseModel):
    """A request."""

    prompt: str
    max_tokens: int = 64


class Verdict(BaseModel):
    """What an answer was worth."""

    id: str
    reward: float


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    with from_config("vllm_gateway.toml") as router:  # leaving it writes a last checkpoint
        async with httpx.AsyncClient(base_url=router.backend.url, timeout=60.0) as vllm:
            app.state.router, app.state.vllm = router, vllm
            yield


app = FastAPI(lifespan=lifespan)


@app.post("/complete")
async def complete(asked: Prompt) -> dict[str, str]:
    router, vllm = app.state.router, app.state.vllm
    decision = router.select(asked.prompt)
    body = {"model": decision.arm, **asked.model_dump()}
    try:
        answer = await vllm.post("/v1/completions", json=body)
        if answer.status_code == 404:  # not registered yet, or vLLM was restarted
            await asyncio.to_thread(router.backend.ensure, decision.arm)
            answer = await vllm.post("/v1/completions", json=body)
        answer.raise_for_status()
        text = answer.json()["choices"][0]["text"]
    except (httpx.HTTPError, OSError, RuntimeError, ValueError, LookupError) as error:
        router.cancel(decision.id)  # nothing is learned from it
        raise HTTPException(502, f"vLLM: {error}") from error
    return {"id": str(decision.id), "adapter": decision.arm, "text": text}


@app.post("/feedback")
async def feedback(verdict: Verdict) -> dict[str, bool]:
    try:
        return {"learned": app.state.router.update(verdict.id, verdict.reward)}
    except UnknownDecision as error:
        raise HTTPException(404, "no such decision") from error


@app.get("/stats")
async def stats() -> dict[str, object]:
    return {"resident": app.state.router.resident, **app.state.router.stats()}
