"""The package's measured.json, as `make cost` and `make cost-page` write it."""

from pathlib import Path
from typing import Final

import msgspec

import fluvial.pricing
from fluvial.pricing.measured import FILE_NAME, Measured

PATH: Final = Path(fluvial.pricing.__file__).with_name(FILE_NAME)


def save(measured: Measured) -> None:
    """Replace the file."""
    PATH.write_bytes(msgspec.json.format(msgspec.json.encode(measured)) + b"\n")
