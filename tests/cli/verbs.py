"""Commands against a server, as a user of a shell calls them."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.program import fluvial


@dataclass(frozen=True)
class Shell:
    """Runs commands with a server in the environment, and a folder of settings of its own."""

    url: str
    folder: Path

    def run(self, *arguments: str, piped: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        empty = dict.fromkeys(("FLUVIAL_TOKEN", "FLUVIAL_CONTEXT", "STREAM_URL", "STREAM_AUTH"), "")
        values = {**empty, "FLUVIAL_URL": self.url, "XDG_CONFIG_HOME": str(self.folder), **environment}
        return fluvial(*arguments, piped=piped, **values)

    def output(self, *arguments: str, piped: str | None = None, **environment: str) -> str:
        """The standard output of a command that succeeds."""
        ran = self.run(*arguments, piped=piped, **environment)
        assert ran.returncode == 0, ran
        return ran.stdout
