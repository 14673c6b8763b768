"""`make build GRADUAL=yes`: write the variant of the template that `sam build` then builds."""

import secrets
import sys
from pathlib import Path

import yaml
from tests.aws_local.template import load_template

from tools.gradual.rendering import render_gradual


def main() -> None:
    """Write it to the path that is the only argument, which must be beside template.yaml: its paths are relative."""
    [path] = sys.argv[1:]
    text = yaml.safe_dump(render_gradual(load_template(), secrets.token_hex(32)), sort_keys=False, width=120)
    Path(path).write_text(f"# Made from template.yaml by make build GRADUAL=yes, for one deployment.\n{text}")


if __name__ == "__main__":
    main()
