"""Receives webhooks, checks their signatures, and appends each delivery to a stream once.

    WEBHOOK_SECRET=… FLUVIAL_URL=http://127.0.0.1:4437 uvicorn receiver:app --port 8000

A sender that gets no answer delivers again, with the same delivery id. That id is the producer here, and each producer
appends one batch: the repetition is answered as a duplicate, and nothing is twice in the stream.
"""

import hashlib
import hmac
import os
import re

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

FLUVIAL = os.environ.get("FLUVIAL_URL", "http://127.0.0.1:4437")
SECRET = os.environ["WEBHOOK_SECRET"].encode()
BODY_BYTES_MAX = 1_000_000
JSON = {"Content-Type": "application/json"}


def is_signed(body: bytes, signature: str) -> bool:
    """Whether the sender knows the secret; compared in constant time."""
    expected = "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.encode())


async def receive(request: Request) -> PlainTextResponse:
    """Append a delivery. A status of 500 and more makes the sender try again."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            return PlainTextResponse("too large", 413)
    if not is_signed(body, request.headers.get("x-hub-signature-256", "")):
        return PlainTextResponse("the signature is wrong", 401)
    delivery = request.headers.get("x-github-delivery", "")
    if not re.fullmatch(r"[\w-]{1,100}", delivery, re.ASCII):
        return PlainTextResponse("there is no delivery id", 400)
    source = request.path_params["source"]
    url = f"{FLUVIAL}/v1/stream/webhooks/{source}"
    once = {"Producer-Id": delivery, "Producer-Epoch": "0", "Producer-Seq": "0"}
    try:
        async with httpx.AsyncClient(timeout=8) as client:
            (await client.put(url, headers=JSON)).raise_for_status()  # changes nothing if the stream exists
            appended = await client.post(url, content=body, headers={**JSON, **once})
    except httpx.HTTPError:
        return PlainTextResponse("try again", 503)
    if appended.status_code == 400:  # noqa: PLR2004  an HTTP status
        return PlainTextResponse("the body is not JSON", 400)
    if not appended.is_success:
        return PlainTextResponse("try again", 503)
    return PlainTextResponse("ok")


app = Starlette(routes=[Route("/hooks/{source:str}", receive, methods=["POST"])])
