"""What can go wrong between a client and a server, by what the caller does next."""

from collections.abc import Mapping
from typing import Final

#: What to do about a refusal, by the code of its body or, from a server without codes, by its status.
_HINTS: Final[Mapping[str | int, str]] = {
    "unauthenticated": "give a token with --token, FLUVIAL_TOKEN or a context",
    "invalid_token": "fluvial token inspect tells what is wrong with it. See --token, FLUVIAL_TOKEN and the context",
    "forbidden": "the token of --token, FLUVIAL_TOKEN or the context does not allow this",
    "stream_exists": "fluvial info shows the stream that is there",
    "not_found": "fluvial ls lists the streams that are there",
    401: "give a token with --token, FLUVIAL_TOKEN or a context",
    403: "the token of --token, FLUVIAL_TOKEN or the context does not allow this",
}


class ClientError(Exception):
    """The base of all errors of this package."""


class ServerUnreachable(ClientError):
    """There is no answer.

    `may_have_arrived`: the request was sent, at least in part, so the server may have carried it out.
    """

    def __init__(self, url: str, reason: str, *, may_have_arrived: bool) -> None:
        """`reason` is the error of the connection."""
        super().__init__(f"no answer from {url}: {reason}")
        self.url = url
        self.reason = reason
        self.may_have_arrived = may_have_arrived


class ServerRefused(ClientError):
    """The server has answered that it does not carry out the request."""

    def __init__(self, status: int, code: str, message: str, fields: Mapping[str, str]) -> None:
        """`code` is that of the body, or empty; `fields` are the header fields of the answer."""
        super().__init__(f"{message} ({code or status})")
        self.status = status
        self.code = code
        self.message = message
        self.fields = fields

    @property
    def hint(self) -> str:
        """What to do about it, or nothing."""
        return _HINTS.get(self.code, "") if self.code else _HINTS.get(self.status, "")

    @property
    def is_closed(self) -> bool:
        """Whether the reason is that the stream is closed."""
        return self.status == 409 and self.fields.get("stream-closed", "").lower() == "true"  # noqa: PLR2004


class UnexpectedAnswer(ClientError):
    """The answer is none that a Durable Streams server gives; perhaps the URL is that of another program."""
