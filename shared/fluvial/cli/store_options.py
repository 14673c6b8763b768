"""The store's location as text for messages, and as options for a suggested command."""

import shlex
from typing import Final

import msgspec

from fluvial.app import data_folder
from fluvial.cli.options import STORE_SETTINGS
from fluvial.settings import Settings, StoreKind

_DEFAULTS: Final = Settings()


def store_location(settings: Settings) -> str:
    """Where streams and projects are kept, e.g. `in /srv/fluvial-data`."""
    match settings.store:
        case StoreKind.SQLITE:
            return f"in {data_folder(settings)}"
        case StoreKind.DYNAMODB:
            return f"in the table {settings.table} and the bucket {settings.bucket}"
        case StoreKind.MEMORY:
            return "in memory, until this process ends"


def options_for_store(settings: Settings) -> str:
    """The options by which another command finds the same store from any folder."""
    if settings.store is StoreKind.SQLITE:
        return f"--data-dir {shlex.quote(str(data_folder(settings)))}"
    fields = [field.name for field in msgspec.structs.fields(Settings) if field.name in STORE_SETTINGS - {"data_dir"}]
    values = {name: str(getattr(settings, name)) for name in fields}
    changed = [name for name in fields if values[name] != str(getattr(_DEFAULTS, name))]
    return " ".join(f"--{name.replace('_', '-')} {shlex.quote(values[name])}" for name in changed)
