"""Reads a token stream live. Stop it at any moment, even with kill -9, and start it again: it goes on where it was.

    python reader.py http://127.0.0.1:4437/v1/stream/answers/1 progress.json

The progress file holds the text so far and the offset that it reaches to. Both change in one rename, so neither can
be ahead of the other.
"""

import json
import sys
from pathlib import Path

from durable_streams import stream


def save(progress: Path, offset: str, text: str) -> None:
    """Replace the progress in one step."""
    partial = progress.with_suffix(".partial")
    partial.write_text(json.dumps({"offset": offset, "text": text}))
    partial.rename(progress)


def follow(url: str, progress: Path) -> None:
    """Print tokens as they come, until the writer says that it is done."""
    offset, text = "-1", ""
    if progress.exists():
        saved = json.loads(progress.read_text())
        offset, text = saved["offset"], saved["text"]
        print(f"goes on after {len(text.split())} tokens", flush=True)
    while True:  # the server ends a connection after a minute; the next one begins where it ended
        with stream(url, offset=offset, live="sse") as response:
            for event in response.iter_events(mode="json_batches"):
                tokens = [message["token"] for message in event.data if "token" in message]
                print(*tokens, sep=" ", end=" " if tokens else "", flush=True)
                text += "".join(f"{token} " for token in tokens)
                offset = event.next_offset
                save(progress, offset, text)
                if any("end" in message for message in event.data):
                    print()
                    return


if __name__ == "__main__":
    if len(sys.argv) != 3:  # noqa: PLR2004  the program, a URL and a file
        sys.exit("usage: python reader.py STREAM_URL PROGRESS_FILE")
    follow(sys.argv[1], Path(sys.argv[2]))
