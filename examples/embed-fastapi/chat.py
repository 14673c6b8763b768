"""A FastAPI application with its streams in itself: a chat whose clients read below /streams.

    uvicorn chat:app --timeout-graceful-shutdown 5

`curl -N 'localhost:8000/streams/v1/stream/rooms/lobby?offset=-1&live=sse'` listens, and
`curl localhost:8000/rooms/lobby -H 'Content-Type: application/json' -d '{"who":"ada","says":"hello"}'` speaks.
"""

import contextlib
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from fluvial.embed import Fluvial, RequestError

streams = Fluvial(store="sqlite", data_dir=os.environ.get("CHAT_DATA", "chat-data"), listen=False)


class Message(BaseModel):
    """What a client says."""

    who: str
    says: str


@contextlib.asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """The streams are open while the application runs."""
    async with streams:
        await streams.stream("rooms/lobby").create(content_type="application/json")
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/streams", streams.app)


@app.post("/rooms/{room}")
async def say(room: str, message: Message) -> dict[str, str]:
    """Append what is said to the room's stream; its readers get it at once."""
    try:
        appended = await streams.stream(f"rooms/{room}").append_json(message.model_dump())
    except RequestError as exc:
        raise HTTPException(exc.status, exc.message) from exc
    return {"offset": appended.offset}


@app.get("/rooms/{room}/last")
async def last(room: str) -> list[Message]:
    """What has been said, read without HTTP."""
    page = await streams.stream(f"rooms/{room}").read()
    return [Message(**message.json()) for message in page.messages]
