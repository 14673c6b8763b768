"""`fluvial backup`, `restore` and `verify`."""

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from fluvial import __version__
from fluvial.app import check_data_exists, data_folder, open_dynamodb_store
from fluvial.cli.options import STORE_SETTINGS, CommandFailed, UsageError, cli_errors, with_settings
from fluvial.cli.output import count_of
from fluvial.cli.progress import progress_bar
from fluvial.cli.store_options import store_location
from fluvial.clock import Clock
from fluvial.model.errors import SettingsError
from fluvial.model.lifetime import format_rfc3339
from fluvial.settings import Settings, StoreKind, settings_from

if TYPE_CHECKING:
    from fluvial.storage.findings import Finding, Findings, Progress

_POINT_IN_TIME: Final = (
    "a table has point-in-time recovery, and its bucket has versions: see docs/operations/restore-aws.md"
)


def _sqlite_settings(values: dict[str, str], verb: str) -> Settings:
    """The settings of a command for data folders. Raises SettingsError."""
    settings = settings_from(values)
    match settings.store:
        case StoreKind.SQLITE:
            return settings
        case StoreKind.MEMORY:
            raise SettingsError("--store memory keeps nothing on disk")
        case StoreKind.DYNAMODB:
            raise SettingsError(f"fluvial {verb} is for --store sqlite: {_POINT_IN_TIME}")


def _refuse_on_windows() -> None:
    """Raises CommandFailed, before an import fails."""
    if sys.platform == "win32":
        from fluvial.storage.sqlite.database import NOT_ON_WINDOWS  # noqa: PLC0415  imported only where it is used

        raise CommandFailed(NOT_ON_WINDOWS)


@click.command("backup")
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--copy", is_flag=True, help="Copy segments that could be hard links to the data folder's own.")
@with_settings(STORE_SETTINGS)
def backup_command(dest: Path, *, copy: bool, **values: str) -> None:
    """Back up a data folder, also while a server uses it.

    DEST is a new folder. It appears when the backup is complete, and has all that was stored when the command began.
    Check it with fluvial verify DEST, and use it with fluvial restore DEST.

    Segments never change, so on the data folder's own file system they become hard links, which take no space. A disk
    that fails takes both: --copy, or a DEST on another disk, makes copies.
    """
    _refuse_on_windows()
    from fluvial.storage.sqlite.backup.files import Segments  # noqa: PLC0415  imported only where it is used
    from fluvial.storage.sqlite.backup.making import Backup  # noqa: PLC0415
    from fluvial.storage.sqlite.backup.manifest import BackupDescription  # noqa: PLC0415

    with cli_errors():
        settings = _sqlite_settings(values, "backup")
        check_data_exists(settings)
        description = BackupDescription(version=__version__, made_at=format_rfc3339(Clock().now_ms()))
        how = Segments.COPIED if copy else Segments.LINKED
        with progress_bar() as progress:
            files = Backup(data_folder(settings), description, how, progress).make(dest.absolute())
    byte_count = sum(file.byte_count for file in files)
    click.echo(f"backed up {data_folder(settings)} to {dest}: {len(files):,} files, {byte_count:,} bytes")


@click.command("restore")
@click.argument("backup", type=click.Path(path_type=Path, readable=False))
@with_settings(frozenset({"data_dir"}))
def restore_command(backup: Path, **values: str) -> None:
    """Restore a backup into a new data folder.

    BACKUP is a folder that fluvial backup has made. The data folder must be empty, or not exist. Each file is copied
    and compared with the backup's manifest.
    """
    _refuse_on_windows()
    from fluvial.storage.sqlite.backup.restoring import restore  # noqa: PLC0415  imported only where it is used

    with cli_errors():
        settings = settings_from(values)
        with progress_bar() as progress:
            description, byte_count = restore(backup.absolute(), data_folder(settings), progress)
    made_at = f"made {description.made_at} by fluvial {description.version}"
    click.echo(f"restored {backup} ({made_at}) into {data_folder(settings)}: {byte_count:,} bytes")


@click.command("verify")
@click.argument("folder", metavar="[DIR]", required=False, type=click.Path(path_type=Path, readable=False))
@with_settings(STORE_SETTINGS)
def verify_command(folder: Path | None, **values: str) -> None:
    """Check stored data: each byte, checksum and offset.

    DIR is a data folder, also one that a server uses, or a backup; without it, --data-dir is checked. Nothing is
    changed. Prints one line for each problem, with its file, stream and offset, and then what was checked. The exit
    status is 1 if there is a problem.

    With --store dynamodb, each stream is read from its beginning to its tail.
    """
    with cli_errors():
        settings = settings_from(values)
        if settings.store is StoreKind.MEMORY:
            raise SettingsError("--store memory keeps nothing on disk")
        if settings.store is StoreKind.DYNAMODB and folder is not None:
            raise UsageError("DIR is for --store sqlite")
        with progress_bar() as progress:
            findings = _make_findings(progress)
            if settings.store is StoreKind.DYNAMODB:
                location = store_location(settings)
                asyncio.run(_verify_table(settings, findings))
            else:
                location = _verify_folder(settings, folder, findings)
    totals = ", ".join(f"{count:,} {what}" for what, count in findings.totals.items())
    click.echo(f"{'damaged' if findings.problem_count else 'ok'}: {location}: {totals or 'nothing'} checked")
    click.echo(f"{count_of(findings.problem_count, 'problem')}, {count_of(findings.note_count, 'note')}")
    if findings.problem_count:
        sys.exit(1)


def _make_findings(progress: "Progress") -> "Findings":
    from fluvial.storage.findings import Findings  # noqa: PLC0415  imported only where it is used

    return Findings(_print_finding, progress)


def _print_finding(finding: "Finding") -> None:
    click.echo(str(finding))


def _verify_folder(settings: Settings, folder: Path | None, findings: "Findings") -> str:
    """Verify a data folder or a backup; which of the two, and where. Raises StartupError."""
    _refuse_on_windows()
    from fluvial.storage.sqlite.backup.manifest import is_backup  # noqa: PLC0415  imported only where it is used
    from fluvial.storage.sqlite.verification.folder import check_folder  # noqa: PLC0415

    chosen = data_folder(settings) if folder is None else folder.absolute()
    check_data_exists(msgspec.structs.replace(settings, data_dir=str(chosen)))
    try:
        check_folder(chosen, findings)
    except OSError as exc:
        raise CommandFailed(f"cannot read {chosen}: {exc.strerror}") from exc
    return f"{'backup' if is_backup(chosen) else 'data folder'} {chosen}"


async def _verify_table(settings: Settings, findings: "Findings") -> None:
    from fluvial.operations.read_back import read_back  # noqa: PLC0415  imported only where it is used

    # Read-only, so that no background task changes what is checked.
    store = await open_dynamodb_store(msgspec.structs.replace(settings, read_only=True), Clock())
    try:
        await read_back(store, f"table {settings.table}", findings)
    finally:
        await store.close()
