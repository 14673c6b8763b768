"""Takes the pictures of docs/console.md anew: `make screenshots`."""

import sys
import tempfile
from pathlib import Path

from tests.console.servers import HERE, console_servers, run_script

with tempfile.TemporaryDirectory() as folder, console_servers(Path(folder)) as environment:
    images = HERE.parents[1] / "docs" / "images"
    images.mkdir(exist_ok=True)
    ran = run_script({"IMAGES": str(images), **environment}, "screenshots.mjs")
    sys.stderr.write(ran.stdout + ran.stderr)
sys.exit(ran.returncode)
