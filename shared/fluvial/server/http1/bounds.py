"""The waits and sizes that one HTTP/1.1 connection is held to.

Each bounds something that a client could otherwise keep up forever. The sizes of a request are in
fluvial/model/limits.py.
"""

from typing import Final

from fluvial.model.limits import HEADER_BYTES_MAX, PATH_BYTES_MAX, QUERY_BYTES_MAX

#: How long a connection may stay without a request; longer than the usual 60 s of proxies, so that they close first.
IDLE_S: Final = 75

#: How long a request's head may take in all, and its body between two parts.
ARRIVAL_S: Final = 30

#: How long a lingering connection waits for more of the client's input.
LINGER_S: Final = 2

#: How much input a lingering connection discards after a request whose length is unknown.
LINGERING_BYTES_MAX: Final = 1_048_576

#: How much may come in without a request getting any further: a head, or the trailers of a chunked body.
STALLED_BYTES_MAX: Final = HEADER_BYTES_MAX + PATH_BYTES_MAX + QUERY_BYTES_MAX
