"""Why a webhook has not arrived, or not certainly."""

from enum import StrEnum

from fluvial.model.errors import FluvialError


class WebhookErrorKind(StrEnum):
    """What failed, in the order of a request's steps."""

    TARGET = "target"  # the URL, or an address of its host, is none that webhooks may go to: nothing was sent
    LOOKUP = "lookup"  # the host's name was not found: nothing was sent
    BUSY = "busy"  # too many requests are under way: nothing was sent
    CONNECT = "connect"  # no connection: nothing was sent
    TLS = "tls"  # the certificate is not valid for the host, or the handshake failed: nothing was sent
    TIMEOUT = "timeout"  # some step took too long
    ANSWER = "answer"  # the answer is not HTTP, is too large, or ended early


class WebhookError(FluvialError):
    """A webhook has not arrived, or not certainly. The message names no more of the URL than its host."""

    def __init__(self, kind: WebhookErrorKind, message: str) -> None:
        """`message` is for the operator."""
        super().__init__(message)
        self.kind = kind
