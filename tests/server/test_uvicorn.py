"""uvicorn's inside, on which ours is built: a change there must be looked at before it is let in."""

import hashlib
import inspect
import tomllib
from importlib.metadata import version
from pathlib import Path

from uvicorn.protocols.http import flow_control
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from fluvial.server.http1.cycle import HttpCycle
from fluvial.server.http1.protocol import BoundedHttpProtocol, SocketProtocol

#: What was read when the overriding methods were written, by the start of its source's SHA-256.
READ = {
    "HttpToolsProtocol.connection_made": "6efb565ff3d3",
    "HttpToolsProtocol.connection_lost": "c91a4c9bf2e2",
    "HttpToolsProtocol.eof_received": "5652627579a0",
    "HttpToolsProtocol.data_received": "010a7ae59a5d",
    "HttpToolsProtocol.on_message_begin": "96d377fdc7c2",
    "HttpToolsProtocol.on_url": "37be44e962b0",
    "HttpToolsProtocol.on_header": "65d62c044f61",
    "HttpToolsProtocol.on_headers_complete": "1ea8589acfad",
    "HttpToolsProtocol.on_body": "dba9c32aeba3",
    "HttpToolsProtocol.on_message_complete": "1fbad42dc31f",
    "HttpToolsProtocol._should_upgrade": "8fcad1ab8e09",
    "HttpToolsProtocol._start_asgi_task": "9c08c2571ae9",
    "HttpToolsProtocol.on_response_complete": "64e254f28e38",
    "RequestResponseCycle.receive": "8124ae006be7",
    "RequestResponseCycle.send": "abdd8601b326",
    "WebSocketsSansIOProtocol.send": "d4919ed760ce",
    "HttpToolsProtocol.__init__": "4f0899941034",
    "HttpToolsProtocol.handle_websocket_upgrade": "179c4f769386",
    "HttpToolsProtocol.shutdown": "d7351fa33f00",
    "HttpToolsProtocol._get_upgrade": "7b1305aac7b8",
    "RequestResponseCycle.__init__": "4d2f220910c3",
    "RequestResponseCycle.run_asgi": "0f33f2449a44",
    "WebSocketsSansIOProtocol.handle_connect": "fc648c2161ff",
    "WebSocketsSansIOProtocol.run_asgi": "662375aa38d9",
    "FlowControl": "126debcdaa89",
}


def overridden(child: type, parent: type) -> list[str]:
    """The parent's own methods that the child has written anew."""
    return [name for name in vars(child) if inspect.isfunction(vars(parent).get(name)) and not name.startswith("__")]


def fingerprint(source: object) -> str:
    """Tells one text from another."""
    return hashlib.sha256(inspect.getsource(source).encode()).hexdigest()[:12]  # type: ignore[arg-type]


def fingerprints() -> dict[str, str]:
    """Of every method that is overridden, and of what the others are used for."""
    pairs = [
        (BoundedHttpProtocol, HttpToolsProtocol),
        (HttpCycle, RequestResponseCycle),
        (SocketProtocol, WebSocketsSansIOProtocol),
    ]
    methods = [getattr(parent, name) for child, parent in pairs for name in overridden(child, parent)]
    used = [
        HttpToolsProtocol.__init__,
        HttpToolsProtocol.handle_websocket_upgrade,
        HttpToolsProtocol.shutdown,
        HttpToolsProtocol._get_upgrade,
        RequestResponseCycle.__init__,
        RequestResponseCycle.run_asgi,
        WebSocketsSansIOProtocol.handle_connect,
        WebSocketsSansIOProtocol.run_asgi,
        flow_control.FlowControl,
    ]
    return {one.__qualname__: fingerprint(one) for one in [*methods, *used]}


def test_uvicorn_is_as_it_was_read() -> None:
    """Read what has changed, see whether ours still fits, and then note its new fingerprint."""
    assert fingerprints() == READ


def test_uvicorn_is_pinned_to_what_was_read() -> None:
    """Whoever installs the wheel gets no other one."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    [pin] = [one for one in project["dependencies"] if one.startswith("uvicorn")]
    major, minor, _ = version("uvicorn").split(".")
    assert f"<{major}.{int(minor) + 1}" in pin
