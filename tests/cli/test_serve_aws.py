"""`make serve-aws`: it prints how to reach its servers, binds them to loopback, and stops them."""

import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.program import fluvial
from tests.support.servers import BANNER

EXPORT = re.compile(r"export (\w+)=(.*)\n")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_aws_prints_its_endpoints_and_stops_them_on_a_signal(number: signal.Signals) -> None:
    """Other commands find the table by the printed variables."""
    command = [sys.executable, "-m", "tests.aws_local", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        variables, found = dict[str, str](), None
        for line in process.stdout:
            if exported := EXPORT.fullmatch(line):
                [variables[exported[1]]] = shlex.split(exported[2])
            elif found := BANNER.search(line):
                break
        assert found is not None
        urls = [found[1], variables["FLUVIAL_ENDPOINT_URL"], variables["FLUVIAL_S3_ENDPOINT_URL"]]
        made = fluvial("project", "create", "shop", **variables)
        assert made.returncode == 0, made.stderr
        assert httpx.get(found[1] + "/v1/streams").status_code in {200, 401}
        verified = fluvial("verify", **variables)
        assert (verified.returncode, verified.stderr) == (0, ""), verified
        assert "1 projects checked" in verified.stdout
        for url in urls:
            assert listeners_at(urlsplit(url).port or 0) <= {"127.0.0.1"}
        process.send_signal(number)
        assert process.wait(30) == 0
    for url in urls:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", urlsplit(url).port or 0))


def listeners_at(port: int) -> set[str]:
    """The local addresses that listen on a port, from /proc (empty where that does not exist)."""
    found = set[str]()
    for file, family in ((Path("/proc/net/tcp"), socket.AF_INET), (Path("/proc/net/tcp6"), socket.AF_INET6)):
        for line in file.read_text().splitlines()[1:] if file.exists() else ():
            _, local, _, state, *_ = line.split()
            address, _, hexadecimal = local.partition(":")
            if state == "0A" and int(hexadecimal, 16) == port:
                words = [bytes.fromhex(address[start : start + 8])[::-1] for start in range(0, len(address), 8)]
                found.add(socket.inet_ntop(family, b"".join(words)).removeprefix("::ffff:"))
    return found
