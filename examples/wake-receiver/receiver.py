"""Receives the webhooks of subscriptions, verifies them, and prints the new messages of the streams.

FLUVIAL_URL=http://127.0.0.1:4437 uvicorn receiver:app --port 8000
"""

import json
import os

import httpx
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fluvial.client.webhooks import KeysUnavailableError, NotVerifiedError, WebhookVerifier

STREAMS = os.environ.get("FLUVIAL_URL", "http://127.0.0.1:4437") + "/v1/stream"
BODY_BYTES_MAX = 1_000_000

verifier = WebhookVerifier(f"{STREAMS}/__ds/jwks.json")


async def receive(request: Request) -> Response:
    """Process a wake. Any status but 2xx makes the server send it again."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES_MAX:
            return Response(status_code=413)
    try:
        # On a thread, because it fetches the keys now and then.
        await run_in_threadpool(verifier.verify, body, request.headers.get("webhook-signature", ""))
    except NotVerifiedError:
        return Response(status_code=401)
    except KeysUnavailableError:
        return Response(status_code=503)
    wake = json.loads(body)  # only now: before, anybody may have sent it
    async with httpx.AsyncClient(timeout=10) as client:
        for stream in wake["streams"]:
            # This server's own streams, by their paths: a URL in a request is none to follow.
            page = await client.get(f"{STREAMS}/{stream['path']}", params={"offset": stream["acked_offset"]})
            page.raise_for_status()
            print(stream["path"], page.text)
    return JSONResponse({"done": True})  # acks the tails that the wake had


app = Starlette(routes=[Route("/hook", receive, methods=["POST"])])
