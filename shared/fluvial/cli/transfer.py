"""`fluvial export` and `fluvial import`: streams as lines of JSON."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final, NoReturn

import click

from fluvial.cli.options import CommandFailed, UsageError, cli_errors
from fluvial.cli.output import count_of, page_line
from fluvial.cli.progress import progress_bar
from fluvial.cli.target import NamePrefix, Target, tell, with_target
from fluvial.client import streams
from fluvial.client.connection import Connection
from fluvial.client.errors import ServerRefused
from fluvial.client.export_file import ExportWriter, Header, Section, bodies_of, check_sections
from fluvial.client.producer import LineProducer
from fluvial.client.reading import read_pages
from fluvial.client.retries import Retries
from fluvial.client.streams import BEGINNING, StreamState
from fluvial.model.names import parse_name
from fluvial.storage.findings import Progress

#: The characters of a checksum that tell one export from another in a producer's id.
_CHECKSUM_CHARACTERS: Final = 32

_NOT_FOUND: Final = 404
_STANDARD_OUTPUT: Final = (None, "-")
_NAMES_MAX: Final = 2


@click.command("export")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="Export all streams that the token may read.")
@click.option("--prefix", type=NamePrefix(), help="Export all streams whose names begin with PREFIX.")
@click.option("-o", "--output", "path", type=click.Path(), metavar="FILE", help="File; standard output without it.")
@with_target
def export_command(
    *, target: Target, names: tuple[str, ...], is_all: bool, prefix: str | None, path: str | None
) -> None:
    """Print streams as lines of JSON, with offsets and a checksum.

    Producers and forks are not in it: a fork is exported as a stream of its own. A stream that grows meanwhile is
    exported up to its tail at the time.
    """
    if [bool(names), is_all, prefix is not None].count(True) != 1:
        raise UsageError("give names, --prefix or --all")
    with _written_file(path), ExitStack() as stack:
        connection = stack.enter_context(target.connect())
        retries = target.retries()
        with cli_errors():
            found = [str(name) for name in dict.fromkeys(map(parse_name, names))]
        if not names:
            listed = retries.run(lambda: list(streams.list_streams(connection, prefix or "")), is_repeatable=True)
            found = [str(stream["name"]) for stream in listed]
            if not found and prefix is not None:
                raise CommandFailed(f"there is no stream whose name begins with {prefix}")
        states = [_state(connection, name, retries) for name in found]  # before a file is made
        file = _open_output(stack, path)
        show = stack.enter_context(progress_bar())
        for name, state in zip(found, states, strict=True):
            _export(connection, name, state, retries, Output(file, name, show))
    tell(f"Exported {found[0] if len(found) == 1 else count_of(len(found), 'stream')}.")


@contextmanager
def _written_file(path: str | None) -> Iterator[None]:
    """CommandFailed when the disk does not take what is written to a file. For standard output, the group says it."""
    try:
        yield
    except OSError as exc:
        if path in _STANDARD_OUTPUT:
            raise
        raise CommandFailed(f"cannot write {path}: {exc.strerror}") from exc


def _state(connection: Connection, name: str, retries: Retries) -> StreamState:
    return retries.run(lambda: streams.head(connection, name), is_repeatable=True)


@dataclass
class Output:
    """Where the lines of a stream go."""

    file: BinaryIO
    name: str
    show: Progress
    bytes_done: int = 0

    def write(self, line: bytes) -> None:
        """Write a line, and show how much there is."""
        self.file.write(line)
        self.bytes_done += len(line)
        self.show(self.name, self.bytes_done, 0)


def _export(connection: Connection, name: str, state: StreamState, retries: Retries, output: Output) -> None:
    writer = ExportWriter(name, state)
    output.write(writer.first)
    for page in read_pages(connection, name, BEGINNING, retries, follow=False):
        if page.body and page.body != b"[]":
            output.write(writer.add(page_line(state, page)))
    output.write(writer.last)


def _open_output(stack: ExitStack, path: str | None) -> BinaryIO:
    if path in _STANDARD_OUTPUT:
        return sys.stdout.buffer
    try:
        return stack.enter_context(open(str(path), "wb"))  # noqa: PTH123
    except OSError as exc:
        raise UsageError(f"cannot write {path}: {exc.strerror}") from exc


@click.command("import")
@click.argument("arguments", metavar="[NAME] FILE", nargs=-1)
@with_target
def import_command(*, target: Target, arguments: tuple[str, ...]) -> None:
    """Create the streams of an export, and append their contents.

    FILE - is standard input. NAME is the stream to import into if there is one in the file; without it, each stream
    gets the name that it had. The file is checked before anything is created. An import that was interrupted can be
    repeated, and doubles nothing. A stream that exists with other contents is not changed.
    """
    if not 1 <= len(arguments) <= _NAMES_MAX:
        raise UsageError("give the file of an export and, if you like, a name before it")
    with ExitStack() as stack:
        file = _open_input(stack, arguments[-1])
        sections = check_sections(file)
        names = [section.header.stream for section in sections]
        if len(arguments) == _NAMES_MAX:
            if len(sections) != 1:
                raise UsageError(f"the file has {count_of(len(sections), 'stream')}: leave the name out")
            names = [arguments[0]]
        with cli_errors():
            names = [str(parse_name(name)) for name in names]
        connection = stack.enter_context(target.connect())
        retries = target.retries()
        show = stack.enter_context(progress_bar())
        for name, section in zip(names, sections, strict=True):
            _import(connection, name, Parts(bodies_of(file, section), file, section, show), retries)


def _open_input(stack: ExitStack, path: str) -> BinaryIO:
    """A file that can be read twice."""
    if path == "-":
        spool = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  on the stack
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.seek(0)
        return spool
    try:
        return stack.enter_context(open(path, "rb"))  # noqa: PTH123
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}") from exc


@dataclass
class Parts:
    """The parts of a section in order, with a count of those that were taken, and a view of it."""

    bodies: Iterator[bytes]
    file: BinaryIO
    section: Section
    show: Progress
    taken: int = 0

    def next(self) -> bytes | None:
        """The next part; None after the last one."""
        body = next(self.bodies, None)
        self.taken += body is not None
        section = self.section
        self.show(section.header.stream, self.file.tell() - section.start, section.end - section.start)
        return body

    def at(self, index: int) -> bytes | None:
        """A part that is not taken yet, by the number of those before it."""
        while (body := self.next()) is not None:
            if self.taken > index:
                return body
        return None


def _import(connection: Connection, name: str, parts: Parts, retries: Retries) -> None:
    header = parts.section.header
    producer_id = f"import-{parts.section.sha256[:_CHECKSUM_CHARACTERS]}"
    producer = LineProducer(connection, name, producer_id, header.content_type, retries)
    is_there = _is_there(producer, header)
    if not is_there:
        retries.run(lambda: streams.create(connection, name, header.new_stream), is_repeatable=True)
    try:
        known = producer.open(parts.at)
        while (body := parts.next()) is not None:
            producer.append(body, 1)
        if header.closed:
            producer.close()
    except ServerRefused as exc:
        if not exc.is_closed:
            raise
        known = _close_again(producer, parts) if header.closed else _refuse(name)
    if known == parts.taken and is_there:
        tell(f"{name} was imported before.")
    else:
        again = f", {known:,} of its {count_of(parts.taken, 'part')} before" if known else ""
        tell(f"Imported {name}{again}.")


def _close_again(producer: LineProducer, parts: Parts) -> int:
    """Close a stream that is closed, which succeeds if this import has closed it; how many parts it has."""
    while parts.next() is not None:
        pass
    producer.line_count = parts.taken
    try:
        producer.close()
    except ServerRefused as exc:
        if not exc.is_closed:
            raise
        _refuse(producer.name)
    return parts.taken


def _refuse(name: str) -> NoReturn:
    raise CommandFailed(f"{name} exists, and is not of this import: delete it, or import into another name")


def _is_there(producer: LineProducer, header: Header) -> bool:
    """Whether the stream exists. CommandFailed when it has contents that no earlier try of this import has appended."""
    connection, name, retries = producer.connection, producer.name, producer.retries
    try:
        state = _state(connection, name, retries)
    except ServerRefused as exc:
        if exc.status != _NOT_FOUND:
            raise
        return False
    if state.content_type != header.content_type:
        raise CommandFailed(f"{name} exists, and is {state.content_type}, not {header.content_type}")
    if not state.closed:  # otherwise, it is only checked
        first = retries.run(lambda: streams.read_page(connection, name, BEGINNING), is_repeatable=True)
        if first.body not in {b"", b"[]"} and producer.find_epoch() is None:
            _refuse(name)
    return True
