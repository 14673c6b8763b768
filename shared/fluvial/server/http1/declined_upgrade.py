"""Going on behind a request whose upgrade is not on offer.

curl's --http2 and Java's client offer an upgrade with every request, and send its body all the same. httptools has no
way to decline an upgrade: beside `feed_data` it only answers questions about the last head. Without this module:

1. `POST /a` comes with `Connection: Upgrade`, `Upgrade: h2c`, `Content-Length: 3` and the body `abc`.
2. At the end of the head the parser reports a complete message, raises HttpParserUpgrade with the place of the bytes
   behind the head, and expects a new request there.
3. The append runs with an empty body, and `abc` is refused as a request line. A body that looks like a request would be
   carried out as one.

So a new parser must stand behind the head, before the body that the head announces. A parser gets there only by parsing
a head, and it must not see this one's upgrade again: it is fed another head that has the same framing fields, and the
callbacks for that head are muted.
"""

from typing import Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_FRAMING_FIELDS: Final = (b"content-length", b"transfer-encoding")


class _Callbacks:
    """A protocol's parser callbacks; those for a head do nothing until `is_behind_head`."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        """A message that ends within the head, because it has no body, does end."""
        self._protocol = protocol
        self.is_behind_head = False
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        """A request begins."""
        if self.is_behind_head:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Take a part of the request's target."""
        if self.is_behind_head:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field."""
        if self.is_behind_head:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        """A head is complete."""
        if self.is_behind_head:
            self._protocol.on_headers_complete()


def decline_upgrade(protocol: HttpToolsProtocol) -> None:
    """Give the protocol a parser that expects the body of the protocol's last request.

    The protocol has the parser before it is fed: `on_message_complete` asks it whether it stopped at an upgrade.
    """
    framing = [b"%s: %s\r\n" % field for field in protocol.headers if field[0] in _FRAMING_FIELDS]
    callbacks = _Callbacks(protocol)
    protocol.parser = httptools.HttpRequestParser(callbacks)
    protocol.parser.feed_data(b"POST / HTTP/1.1\r\n%s\r\n" % b"".join(framing))
    callbacks.is_behind_head = True
