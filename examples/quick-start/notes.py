"""Create, append, read, and resume."""

import sys

from durable_streams import DurableStream, stream

url = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:4437/v1/stream/notes/python"
notes = DurableStream.create(url, content_type="application/json")
notes.append({"text": "first"})

with stream(url, live=False) as first:
    print(first.read_json())  # [{'text': 'first'}]
    offset = first.offset

notes.append({"text": "second"})
with stream(url, offset=offset, live=False) as rest:  # resume: only what is new
    print(rest.read_json())  # [{'text': 'second'}]
