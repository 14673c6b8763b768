"""Reads a token stream live. Stop it at any moment, even with kill -9, and start it again: it continues where it was.

    python reader.py http://127.0.0.1:4437/v1/stream/answers/1 progress.json

The progress file holds the text so far and the offset where the text ends. Both change in one rename, so neither can
be ahead of the other. The reader ends when the stream is closed, even if it is started after that. If the server cannot
be reached, the reader tries again after longer and longer pauses.
"""

import json
import random
import sys
import time
from pathlib import Path

import httpx
from durable_streams import DurableStreamError, FetchError, stream

PAUSE_S, PAUSE_S_MAX = 0.5, 30.0

#: Statuses that pass with time. Any other 4xx would be the answer to every repetition of the request, too.
PASSING = {408, 425, 429}


def save(progress: Path, offset: str, text: str) -> None:
    """Replace the progress in one step."""
    partial = progress.with_suffix(".partial")
    partial.write_text(json.dumps({"offset": offset, "text": text}))
    partial.rename(progress)


def is_over(url: str, offset: str) -> bool:
    """Whether the stream is closed and has nothing after the offset."""
    with stream(url, offset=offset, live=False) as page:
        return page.headers.get("stream-closed") == "true" and not page.read_json()


def passes(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    status = getattr(error, "status", None)
    if isinstance(error, httpx.UnsupportedProtocol):
        return False  # the URL is not valid
    return status is None or status in PASSING or status >= 500  # noqa: PLR2004  an HTTP status


def pause(failures: int) -> None:
    """Wait, longer after each failure; random, so that readers that failed together do not come back together."""
    time.sleep(random.uniform(0.5, 1) * min(PAUSE_S_MAX, PAUSE_S * 2**failures))  # noqa: S311  no secret


def follow(url: str, progress: Path) -> None:
    """Print tokens as they come, until the stream is closed."""
    offset, text = "-1", ""
    if progress.exists():
        saved = json.loads(progress.read_text())
        offset, text = saved["offset"], saved["text"]
        print(f"goes on after {len(text.split())} tokens", flush=True)
    failures = 0
    while True:  # the server ends a connection after a minute; the next one continues from `offset`
        try:
            with stream(url, offset=offset, live="sse", timeout=httpx.Timeout(10, read=90)) as response:
                for event in response.iter_events(mode="json_batches"):
                    tokens = [message["token"] for message in event.data if "token" in message]
                    print(*tokens, sep=" ", end=" " if tokens else "", flush=True)
                    text += "".join(f"{token} " for token in tokens)
                    offset, failures = event.next_offset, 0
                    save(progress, offset, text)
            if is_over(url, offset):
                print()
                return
            pause(0)
        except (DurableStreamError, FetchError, httpx.TransportError) as error:
            if not passes(error):
                sys.exit(f"cannot read: {error}")
            print(f"[{error}; tries again]", file=sys.stderr, flush=True)
            pause(failures)
            failures += 1


if __name__ == "__main__":
    if len(sys.argv) != 3:  # noqa: PLR2004  the program, a URL and a file
        sys.exit("usage: python reader.py STREAM_URL PROGRESS_FILE")
    try:
        follow(sys.argv[1], Path(sys.argv[2]))
    except KeyboardInterrupt:
        sys.exit(130)
