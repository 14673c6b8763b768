"""API Gateway's half of a streamed answer: it reads the metadata that a function sends first, and passes the body on.

https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.types import Send

from tests.aws_local.adapter import DELIMITER

#: The delimiter must be within so many bytes.
METADATA_BYTES_MAX = 16_384

#: Header fields of one connection; a streamed answer has no length.
NOT_FORWARDED = {"connection", "content-length", "date", "server", "transfer-encoding"}


class MalformedStreamError(Exception):
    """The function's output is not of the form that API Gateway requires."""


async def send_streamed(pieces: AsyncIterator[bytes], send: Send) -> None:
    """Answer as the pieces say, once the metadata is whole. Raises MalformedStreamError before anything is sent."""
    metadata, body = await _read_metadata(pieces)
    fields = [
        (name.encode("latin-1"), value.encode("latin-1"))
        for name, value in metadata["headers"].items()
        if name not in NOT_FORWARDED
    ]
    fields += [(b"set-cookie", cookie.encode("latin-1")) for cookie in metadata.get("cookies", [])]
    await send({"type": "http.response.start", "status": metadata["statusCode"], "headers": fields})
    if body:
        await send({"type": "http.response.body", "body": body, "more_body": True})
    async for piece in pieces:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _read_metadata(pieces: AsyncIterator[bytes]) -> tuple[dict[str, Any], bytes]:
    """The metadata, and what of the body came with its end."""
    received = b""
    async for piece in pieces:
        received += piece
        head, delimiter, body = received.partition(DELIMITER)
        if delimiter and len(head) <= METADATA_BYTES_MAX:
            return _parse(head), body
        if len(head) > METADATA_BYTES_MAX:
            raise MalformedStreamError("its metadata is too long")
    raise MalformedStreamError("it has no delimiter")


def _parse(head: bytes) -> dict[str, Any]:
    try:
        metadata: dict[str, Any] = json.loads(head)
    except ValueError as exc:
        raise MalformedStreamError("its metadata is not JSON") from exc
    repeated = [name for name, value in metadata["headers"].items() if not isinstance(value, str)]
    if repeated:
        raise MalformedStreamError(f"header fields have more than one value: {repeated}")
    return metadata
