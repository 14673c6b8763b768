"""One request and its answer, on a connection of its own (HTTP/1.1).

Every step has a time-out, and all that comes back has a bound: interim answers, header fields, a body in chunks, and a
body that trickles. Nothing is decoded, and no connection outlives its request.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import h11

from fluvial.webhooks.addresses import Address
from fluvial.webhooks.errors import WebhookError, WebhookErrorKind
from fluvial.webhooks.limits import WebhookLimits
from fluvial.webhooks.target import Target

#: Small, so that little is read of what is not wanted.
_READ_BYTES: Final = 4_096


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """An answer's status, and its body as far as it was read."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    """How to send a request to addresses that were checked, and to no other."""

    target: Target
    addresses: tuple[Address, ...]
    tls: ssl.SSLContext
    limits: WebhookLimits

    async def run(self, body: bytes, fields: Mapping[str, str]) -> WebhookAnswer:
        """Send a POST request. Raises WebhookError."""
        reader, writer = await self._connect()
        try:
            connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=self.limits.head_bytes)
            await self._write(writer, self._request(connection, body, fields))
            return await self._read(connection, reader)
        except h11.RemoteProtocolError as exc:
            raise WebhookError(WebhookErrorKind.ANSWER, f"{self.target.host} answered with malformed HTTP") from exc
        except OSError as exc:
            message = f"{self.target.host} ended the connection before its answer"
            raise WebhookError(WebhookErrorKind.ANSWER, message) from exc
        finally:
            writer.transport.abort()  # without the end of TLS, for which a receiver could be waited for

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the first address that accepts a connection. The certificate is the host's, not the address's."""
        failure: OSError | None = None
        loop, tried = asyncio.get_running_loop(), self.addresses[: self.limits.addresses_tried]
        until = loop.time() + self.limits.connect_s
        for position, address in enumerate(tried):
            share_s = (until - loop.time()) / (len(tried) - position)
            try:
                async with asyncio.timeout(share_s):
                    return await asyncio.open_connection(
                        str(address),
                        self.target.port,
                        limit=_READ_BYTES,
                        ssl=self.tls if self.target.is_encrypted else None,
                        server_hostname=self.target.host if self.target.is_encrypted else None,
                    )
            except ssl.SSLError as exc:
                reason = getattr(exc, "verify_message", None) or exc.reason or "the handshake failed"
                raise WebhookError(WebhookErrorKind.TLS, f"{self.target.host}: {reason}") from exc
            except OSError as exc:  # and TimeoutError, which is one
                failure = exc
        if isinstance(failure, TimeoutError):
            raise WebhookError(WebhookErrorKind.TIMEOUT, f"{self.target.host} accepts no connection") from failure
        raise WebhookError(WebhookErrorKind.CONNECT, f"{self.target.host} refuses connections") from failure

    def _request(self, connection: h11.Connection, body: bytes, fields: Mapping[str, str]) -> bytes:
        """The bytes of the request. The fields below come after those of the caller, which does not send them."""
        own_fields = {
            "Host": self.target.authority,
            "User-Agent": "fluvial",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "close",
            "Content-Length": str(len(body)),
        }
        request = h11.Request(method="POST", target=self.target.path, headers=[*{**fields, **own_fields}.items()])
        events: tuple[h11.Event, ...] = (request, h11.Data(data=body), h11.EndOfMessage())
        return b"".join(connection.send(event) or b"" for event in events)

    async def _write(self, writer: asyncio.StreamWriter, request: bytes) -> None:
        """Write the request. A receiver that ends the connection meanwhile may have answered before."""
        writer.transport.set_write_buffer_limits(high=0)  # so that `drain` waits for all of it
        with self._time_out(self.limits.write_s, "does not accept the request"):
            async with asyncio.timeout(self.limits.write_s):
                with contextlib.suppress(ConnectionError):
                    writer.write(request)
                    await writer.drain()

    async def _read(self, connection: h11.Connection, reader: asyncio.StreamReader) -> WebhookAnswer:
        """Read the answer after any interim ones, and its body as far as the limit."""
        with self._time_out(self.limits.first_byte_s, "does not answer"):
            async with asyncio.timeout(self.limits.first_byte_s):
                received = await reader.read(_READ_BYTES)
        connection.receive_data(received)
        status, body, byte_count = 0, bytearray(), len(received)
        byte_count_max = self.limits.head_bytes
        for _ in range(self.limits.events_max):
            event = connection.next_event()
            while event is h11.NEED_DATA and byte_count <= byte_count_max:
                received = await reader.read(_READ_BYTES)
                connection.receive_data(received)
                byte_count += len(received)
                event = connection.next_event()
            match event:
                case h11.Response():
                    status = event.status_code
                    # The chunks of a body have lengths, extensions and trailers, which are not data.
                    byte_count_max = byte_count + 2 * self.limits.body_bytes
                case h11.Data():
                    body += event.data
                case h11.InformationalResponse():
                    continue
                case _:
                    break
            if len(body) >= self.limits.body_bytes:
                break
        if not status:
            raise WebhookError(WebhookErrorKind.ANSWER, f"{self.target.host} does not answer, or answers without end")
        return WebhookAnswer(status, bytes(body[: self.limits.body_bytes]))

    @contextlib.contextmanager
    def _time_out(self, seconds: float, failure: str) -> Iterator[None]:
        """Raise a time-out of the block as WebhookError."""
        try:
            yield
        except TimeoutError as exc:
            message = f"{self.target.host} {failure} within {seconds:g} seconds"
            raise WebhookError(WebhookErrorKind.TIMEOUT, message) from exc
