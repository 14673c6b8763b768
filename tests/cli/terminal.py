"""A command on a terminal of its own."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

TIMEOUT_S = 30


@dataclass
class OnTerminal:
    """A process, and what it has written."""

    process: subprocess.Popen[bytes]
    terminal: int
    seen: bytes = b""

    def wait_for(self, text: bytes) -> None:
        """Read until the text is there after what was waited for before."""
        while text not in self.seen:
            self.seen += self._read()
        self.seen = self.seen.partition(text)[2]

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit status."""
        self.process.send_signal(signal.SIGINT)
        with suppress(OSError):  # the terminal is closed at the end
            while self._read():
                pass
        return self.process.wait(TIMEOUT_S)

    def _read(self) -> bytes:
        assert select.select([self.terminal], [], [], TIMEOUT_S)[0], f"nothing more is written after {self.seen!r}"
        return os.read(self.terminal, 65_536)


@contextmanager
def on_terminal(*arguments: str) -> Iterator[OnTerminal]:
    """Run a command whose standard output and error are a terminal of 120 by 40."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    command = [sys.executable, "-m", "fluvial", *arguments]
    environment = {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    try:
        yield OnTerminal(process, ours)
    finally:
        process.kill()
        process.wait(TIMEOUT_S)
        os.close(ours)
