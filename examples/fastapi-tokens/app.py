"""Answers of a language model as streams: the model goes on when the client has gone, and no token is lost.

    FLUVIAL_URL=http://127.0.0.1:4437 uvicorn app:app --port 8000
    curl -X POST localhost:8000/answers --json '{"prompt": "Hello"}'

The answer has the URL of a stream that the client reads, now or after a reload.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import httpx
from fastapi import FastAPI
from pydantic import BaseModel

FLUVIAL = os.environ.get("FLUVIAL_URL", "http://127.0.0.1:4437")
TRIES = 10


class Question(BaseModel):
    """What the client asks."""

    prompt: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for all requests, and the answers under way, which are waited for at the end."""
    async with httpx.AsyncClient(timeout=30) as client:
        app.state.client, app.state.answers = client, set()
        yield
        await asyncio.gather(*app.state.answers, return_exceptions=True)


app = FastAPI(lifespan=lifespan)


async def model(prompt: str) -> AsyncIterator[str]:
    """A stand-in for a language model, which streams its answer in the same way."""
    for word in f"You said: {prompt}. A stream is kept, and a reader goes on where it stopped.".split():
        yield f"{word} "
        await asyncio.sleep(0.02)


async def append(client: httpx.AsyncClient, url: str, seq: int, text: str, *, close: bool = False) -> None:
    """Append a token. The producer's number makes a repetition harmless: the server appends it once."""
    headers = {"Content-Type": "text/plain", "Producer-Id": "model", "Producer-Epoch": "0", "Producer-Seq": str(seq)}
    if close:
        headers["Stream-Closed"] = "true"
    for attempt in range(TRIES):
        try:
            response = await client.post(url, content=text, headers=headers)
        except httpx.TransportError:
            pass
        else:
            if response.status_code < 500:  # noqa: PLR2004  an HTTP status
                response.raise_for_status()
                return
        await asyncio.sleep(min(5, 0.1 * 2**attempt))
    raise RuntimeError(f"{url} cannot be written to")


async def write_answer(client: httpx.AsyncClient, url: str, prompt: str) -> None:
    """Write the model's answer to the stream, token by token, and close it."""
    seq = 0
    async for token in model(prompt):
        await append(client, url, seq, token)
        seq += 1
    await append(client, url, seq, "", close=True)


@app.post("/answers", status_code=201)
async def ask(question: Question) -> dict[str, str]:
    """Begin an answer, and say where to read it."""
    url = f"{FLUVIAL}/v1/stream/answers/{uuid4()}"
    created = await app.state.client.put(url, headers={"Content-Type": "text/plain", "Stream-TTL": "86400"})
    created.raise_for_status()
    answer = asyncio.create_task(write_answer(app.state.client, url, question.prompt))
    app.state.answers.add(answer)  # a task that nothing refers to may be collected before its end
    answer.add_done_callback(app.state.answers.discard)
    return {"stream": url}
