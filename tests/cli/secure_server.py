"""A server below a path of an HTTPS server, with a project."""

import asyncio
import contextlib
import ipaddress
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import httpx
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from fluvial.embed import Fluvial
from tests.access.clients import operator
from tests.support.access import OPERATOR_SECRET, SECRET

BASE_PATH = "/some/where"


@dataclass
class SecureServer:
    """Its URL, its certificate's file, and the paths of the requests that it got."""

    url: str
    certificate: str
    paths: list[str] = field(default_factory=list)


@contextlib.contextmanager
def secure_server(folder: Path, project: str) -> Iterator[SecureServer]:
    """The server, with a certificate of its own for 127.0.0.1."""
    certificate, key = make_certificate(folder)
    (folder / "operator").write_text(OPERATOR_SECRET.value)
    embedded = Fluvial(listen=False, operator_secret_file=str(folder / "operator"))
    found = SecureServer("", certificate)
    app = Starlette(routes=[Mount(BASE_PATH, app=noted(embedded.app, found.paths))], lifespan=embedded.lifespan)
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, lifespan="on", log_config=None, ssl_certfile=certificate, ssl_keyfile=key)
    )
    thread = Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        port = server.servers[0].sockets[0].getsockname()[1]
        found.url = f"https://127.0.0.1:{port}{BASE_PATH}"
        body = {"name": project, "secret": SECRET.value}
        created = httpx.post(
            f"{found.url}/v1/projects",
            json=body,
            headers=operator(),
            verify=ssl.create_default_context(cafile=certificate),
        )
        assert created.status_code == 201
        found.paths.clear()
        yield found
    finally:
        server.should_exit = True
        thread.join()


def noted(app: ASGIApp, paths: list[str]) -> ASGIApp:
    """The application, with a note of each request's path."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        paths.append(scope["path"])
        await app(scope, receive, send)

    return call


def make_certificate(folder: Path) -> tuple[str, str]:
    """The files of a certificate, which is its own authority, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now, address = datetime.now(UTC), ipaddress.ip_address("127.0.0.1")
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(address)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encoding, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, no_password))
    return str(folder / "certificate.pem"), str(folder / "key.pem")
