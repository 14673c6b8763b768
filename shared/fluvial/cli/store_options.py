"""Where data is: as messages tell it, and as options that lead another command to it."""

import shlex
from typing import Final

import msgspec

from fluvial.app import data_folder
from fluvial.cli.options import OF_STORE
from fluvial.settings import Settings, StoreKind

_DEFAULTS: Final = Settings()


def place_of(settings: Settings) -> str:
    """Where streams and projects are kept."""
    match settings.store:
        case StoreKind.SQLITE:
            return f"in {data_folder(settings)}"
        case StoreKind.DYNAMODB:
            return f"in the table {settings.table} and the bucket {settings.bucket}"
        case StoreKind.MEMORY:
            return "in memory: they go with this process"


def options_to(settings: Settings) -> str:
    """The options by which another command finds the same store, from any folder."""
    if settings.store is StoreKind.SQLITE:
        return f"--data-dir {shlex.quote(str(data_folder(settings)))}"
    fields = [field.name for field in msgspec.structs.fields(Settings) if field.name in OF_STORE - {"data_dir"}]
    given = {name: str(getattr(settings, name)) for name in fields}
    named = [name for name in fields if given[name] != str(getattr(_DEFAULTS, name))]
    return " ".join(f"--{name.replace('_', '-')} {shlex.quote(given[name])}" for name in named)
