"""`fluvial append`: arguments, standard input or a file, as lines, as bytes or as a whole."""

import io
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import BinaryIO, Final

import click

from fluvial.cli.line_input import LineInput
from fluvial.cli.options import CommandFailed, UsageError
from fluvial.cli.output import count_of
from fluvial.cli.target import StreamPath, Target, fail_refused, tell, with_target
from fluvial.client import streams
from fluvial.client.connection import Connection
from fluvial.client.errors import ServerRefused, ServerUnreachable
from fluvial.client.producer import BATCH_LINES_MAX, LineProducer
from fluvial.client.retries import Retries
from fluvial.client.streams import StreamState
from fluvial.model.errors import RequestError
from fluvial.model.json_mode import check_message
from fluvial.model.names import StreamName

#: A batch is durable as a whole; a larger one only makes its lines wait.
BATCH_BYTES_MAX: Final = 1_048_576

#: Lines with their numbers in the input.
Lines = list[tuple[int, bytes]]

#: What a header field can hold.
_PRODUCER_ID: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")

_TOO_LARGE: Final = 413
_UNAVAILABLE: Final = 503


@dataclass
class Writer:
    """Appends to one stream, and counts what it has appended."""

    connection: Connection
    name: StreamName
    state: StreamState
    retries: Retries
    is_newline_kept: bool
    line_count: int = 0
    lines_max: int = field(default=BATCH_LINES_MAX)

    def body_of(self, lines: Lines) -> bytes:
        """The body that appends lines. Raises UsageError with the number of a line that is not JSON."""
        if not self.state.is_json:
            end = b"\n" * self.is_newline_kept
            return b"".join(line + end for _, line in lines)
        for number, line in lines:
            try:
                check_message(line)
            except RequestError as exc:
                reason = exc.message.removeprefix("the body")
                raise UsageError(f"line {number:,}{reason}{self._already()}") from exc
        # In an array, because a line that is an array itself is one message.
        return b"[" + b",".join(line for _, line in lines) + b"]"

    def _already(self) -> str:
        return f"; before it, {count_of(self.line_count, 'line')} appended" if self.line_count else ""

    def append(self, body: bytes, what: str) -> None:
        """Append without a producer: never twice, so not again if the answer was lost. `what` is it, for an error."""
        content_type = self.state.content_type
        try:
            self.retries.run(
                lambda: streams.append(self.connection, self.name, body, content_type=content_type),
                is_repeatable=False,
            )
        except ServerUnreachable as exc:
            if not exc.may_have_arrived:
                raise
            raise self._in_doubt(what, str(exc)) from exc
        except ServerRefused as exc:
            if exc.status < 500 or (exc.status == _UNAVAILABLE and exc.code not in {"", "store_uncertain"}):  # noqa: PLR2004
                raise
            raise self._in_doubt(what, str(exc)) from exc

    def _in_doubt(self, what: str, reason: str) -> CommandFailed:
        message = f"{reason}. {what} may have been appended or not, and is not sent again: --producer makes that safe"
        return CommandFailed(
            message + (f" (before, {count_of(self.line_count, 'line')} appended)" if self.line_count else "")
        )

    def append_lines(self, source: LineInput) -> None:
        """Append all lines of the input."""
        for batch in source.batches(self.lines_max, BATCH_BYTES_MAX):
            for part in self._parts(batch):
                self._send(part, self._append_part)

    def _append_part(self, part: Lines) -> None:
        first, last = part[0][0], part[-1][0]
        what = f"Line {first:,}" if first == last else f"Lines {first:,} to {last:,}"
        self.append(self.body_of(part), what)
        self.line_count += len(part)

    def _send(self, part: Lines, send: Callable[[Lines], None]) -> None:
        """Send lines with one request, or with several if the server takes only smaller ones."""
        try:
            send(part)
        except ServerRefused as exc:
            if exc.status != _TOO_LARGE or len(part) == 1:
                raise
            half = len(part) // 2
            self._send(part[:half], send)
            self._send(part[half:], send)

    def _parts(self, batch: Lines) -> Iterator[Lines]:
        """A batch, after the good lines of one that has a line that is not JSON."""
        for index, line in enumerate(batch):
            try:
                self.body_of([line])
            except UsageError:
                if index:
                    yield batch[:index]
                yield batch[index:]
                return
        yield batch

    def append_once(self, source: LineInput, producer_id: str, *, closes: bool) -> None:
        """Append the lines that the stream does not have from this producer."""
        producer = LineProducer(self.connection, self.name, producer_id, self.state.content_type, self.retries)
        try:
            known = producer.open(lambda index: self._body_at(source, index))
        except ServerRefused as exc:
            if not (exc.is_closed and closes):
                raise
            self._check_closed_after(source, producer)
            return
        if source.line_count < known:
            has = f"{self.name} has {count_of(known, 'line')} of the producer {producer_id}"
            raise UsageError(f"{has}, and this input only {source.line_count:,}: another input needs another ID")
        if known:
            tell(f"{self.name} has {count_of(known, 'line')} of the producer {producer_id} already.")

        def append_part(part: Lines) -> None:
            producer.append(self.body_of(part), len(part))
            self.line_count = producer.line_count

        for batch in source.batches(self.lines_max, BATCH_BYTES_MAX):
            for part in self._parts(batch):
                self._send(part, append_part)
        if closes:
            producer.close()

    def _body_at(self, source: LineInput, index: int) -> bytes | None:
        """The body for one line of the input, by the number of lines before it."""
        while (line := source.next_line()) is not None:
            if source.line_count > index:
                return self.body_of([line])
        return None

    def _check_closed_after(self, source: LineInput, producer: LineProducer) -> None:
        """Succeed if this producer has closed the stream after as many lines as the input has."""
        while source.next_line() is not None:
            pass
        producer.line_count = source.line_count
        producer.close()
        tell(f"{self.name} has {count_of(source.line_count, 'line')} of the producer already, and is closed.")

    def append_bytes(self, file: BinaryIO) -> None:
        """Append an input as it comes, in pieces."""
        total = 0
        read = getattr(file, "read1", file.read)
        while piece := read(BATCH_BYTES_MAX):
            self.append(piece, f"A piece of {len(piece):,} bytes after {total:,} bytes")
            total += len(piece)

    def append_whole(self, file: BinaryIO, producer_id: str | None) -> None:
        """Append an input with one request."""
        body = file.read()
        if not body:
            raise UsageError("the input is empty")
        if producer_id is None:
            self.append(body, "The input")
            return
        producer = LineProducer(self.connection, self.name, producer_id, self.state.content_type, self.retries)
        if producer.open(lambda index: None if index else body):
            tell(f"{self.name} has it from the producer {producer_id} already.")


@click.command("append")
@click.argument("name", type=StreamPath())
@click.argument("texts", metavar="[TEXT]...", nargs=-1)
@click.option("--file", "path", type=click.Path(), metavar="FILE", help="Append a file; - is standard input.")
@click.option("--lines", "unit", flag_value="lines", help="Append by lines: the default for text and JSON.")
@click.option("--bytes", "unit", flag_value="bytes", help="Append bytes as they come: the default for other types.")
@click.option("--whole", "unit", flag_value="whole", help="Append the whole input with one request.")
@click.option("-n", "--no-newline", is_flag=True, help="Append lines of text without the newline at their end.")
@click.option("--producer", metavar="ID", help="Append each line once, also if the same input is given again.")
@click.option("--close", "closes", is_flag=True, help="Close the stream at the end of the input.")
@with_target
def append_command(  # noqa: PLR0913  one parameter for each option
    *,
    target: Target,
    name: StreamName,
    texts: tuple[str, ...],
    path: str | None,
    unit: str | None,
    no_newline: bool,
    producer: str | None,
    closes: bool,
) -> None:
    """Append texts, a file or standard input to a stream.

    Each TEXT is a line. Without TEXT and --file, lines come from standard input: each is appended as soon as it is
    there, and those that come meanwhile are appended together. In a stream of JSON, a line is a message.

    With --producer, a pipe that is killed and started again with the same input from its beginning appends only the
    lines that the stream does not have. Without it, an append whose answer is lost is not sent again.
    """
    if texts and path is not None:
        raise UsageError("TEXT and --file exclude each other")
    with ExitStack() as stack:
        connection = stack.enter_context(target.connect())
        retries = target.retries()
        state = retries.run(lambda: streams.head(connection, name), is_repeatable=True)
        file = _open(stack, texts, path)
        unit = unit or ("lines" if texts or state.is_json or state.is_text else "bytes")
        if producer is not None and not _PRODUCER_ID.fullmatch(producer):
            raise UsageError("the ID of --producer has to be of printable ASCII characters")
        if producer is not None and unit == "bytes":
            raise UsageError("--producer needs --lines or --whole")
        writer = Writer(connection, name, state, retries, not no_newline)
        try:
            _append(writer, file, unit, producer, closes=closes)
        except ServerRefused as exc:
            if exc.status == _TOO_LARGE:
                raise UsageError(f"{name}: {exc}; before it, {count_of(writer.line_count, 'line')} appended") from exc
            fail_refused(exc, name)
        except ServerUnreachable as exc:
            raise CommandFailed(f"{exc}; {count_of(writer.line_count, 'line')} appended") from exc


def _append(writer: Writer, file: BinaryIO, unit: str, producer: str | None, *, closes: bool) -> None:
    match unit:
        case "lines":
            source = LineInput(file, skip_blank=writer.state.is_json)
            if producer is not None:
                writer.append_once(source, producer, closes=closes)
                return
            writer.append_lines(source)
        case "bytes":
            writer.append_bytes(file)
        case _:
            writer.append_whole(file, producer)
    if closes:
        writer.retries.run(
            lambda: streams.append(writer.connection, writer.name, b"", content_type="", closes=True),
            is_repeatable=True,
        )


def _open(stack: ExitStack, texts: tuple[str, ...], path: str | None) -> BinaryIO:
    if texts and texts != ("-",):
        return io.BytesIO(b"".join(text.encode(errors="surrogateescape") + b"\n" for text in texts))
    if path in {None, "-"}:
        if sys.stdin.isatty():
            tell("Lines are appended as you type them; Ctrl-D ends the input.")
        return sys.stdin.buffer
    try:
        return stack.enter_context(open(str(path), "rb"))  # noqa: PTH123
    except OSError as exc:
        raise UsageError(f"cannot read {path}: {exc.strerror}") from exc
