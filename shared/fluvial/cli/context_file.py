"""The file of contexts: servers and tokens by name, private to the user, and replaced as a whole."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

import msgspec

from fluvial.cli.options import CommandFailed


class ServerContext(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A server and, if it needs one, a token."""

    url: str
    token: str | None = None


class Contexts(msgspec.Struct, frozen=True, omit_defaults=True):
    """The contexts by name, and the name of the current one."""

    contexts: dict[str, ServerContext] = {}
    current: str | None = None


def contexts_path() -> Path:
    """Where the contexts are kept."""
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(folder) if folder.startswith("/") else Path.home() / ".config") / "fluvial" / "contexts.json"


def load_contexts() -> Contexts:
    """The contexts that are kept; none if there is no file. Raises CommandFailed for a file that cannot be read."""
    path = contexts_path()
    try:
        return msgspec.json.decode(path.read_bytes(), type=Contexts)
    except FileNotFoundError:
        return Contexts()
    except OSError as exc:
        raise CommandFailed(f"cannot read {path}: {exc.strerror}") from exc
    except msgspec.DecodeError as exc:
        raise CommandFailed(f"{path} is damaged: {exc}") from exc


def save_contexts(contexts: Contexts) -> None:
    """Replace the file. Only the user can read it and its folder."""
    path = contexts_path()
    text = msgspec.json.format(msgspec.json.encode(contexts)) + b"\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=path.parent)  # 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(draft).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(draft).unlink()
            raise
    except OSError as exc:
        raise CommandFailed(f"cannot write {path}: {exc.strerror}") from exc
