"""Offset tokens of streams that a server has."""

import httpx


def offset_in(http: httpx.Client, stream: str, position: int) -> str:
    """The token of a position of a stream that is no fork: its tail's, with another second half."""
    birth, _, _ = http.head(stream).headers["stream-next-offset"].partition("_")
    return f"{birth}_{position:016d}"
