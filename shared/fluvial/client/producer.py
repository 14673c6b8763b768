"""Appends the lines of an input exactly once, however often the program is killed and given the input again.

The protocol's idempotent producer has an epoch and a sequence number, and the server keeps the last of each. Here each
batch begins an epoch, with the sequence number 0, and the epoch's number says where in the input the batch is:

    epoch = the lines before the batch * LINES_PER_EPOCH + the lines of the batch

So the server's last epoch tells how many lines it has, whatever sizes the batches had, and no file on the client's side
is needed. A later batch has a higher epoch, as the protocol demands. A batch whose answer was lost is sent again with
the same epoch, and is a duplicate if it had arrived.

Before its first append, a process asks for the server's last epoch with an append that cannot be carried out. An epoch
that no batch of this module has is another program's, which is left alone.

The last request of a process that was killed may still be on its way when the next process begins, and may be of
another size. So the first append of a process has one line and the kind OPENING, which is above every size: from then
on, the server refuses every batch of the process before. In turn the opening is sent with If-Match and the stream's tag
from before the server was asked for the epoch, so that it fails if a batch has arrived in between. A server without
preconditions ignores the field.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from fluvial.client import streams
from fluvial.client.connection import Connection
from fluvial.client.errors import ClientError, ServerRefused, UnexpectedAnswer
from fluvial.client.retries import Retries
from fluvial.client.streams import Appended, Stamp
from fluvial.model.content_type import is_json

LINES_PER_EPOCH: Final = 4_096

#: Kinds of a batch besides its number of lines.
CLOSING: Final = LINES_PER_EPOCH - 2
OPENING: Final = LINES_PER_EPOCH - 1
BATCH_LINES_MAX: Final = LINES_PER_EPOCH - 3

#: How often an opening is tried with If-Match on a stream to which others append all the time.
_OPENINGS_MAX: Final = 8

_BAD_REQUEST: Final = 400
_FORBIDDEN: Final = 403
_CONFLICT: Final = 409

#: A sequence number that no batch has, because every number from 0 on would come before it.
_NEVER_SEQ: Final = 2**53 - 1
_PRECONDITION_FAILED: Final = 412


class ProducerTaken(ClientError):
    """Another program, or another process of this one, appends with the same producer id."""


def epoch_of(lines_before: int, kind: int) -> int:
    """The epoch of a batch."""
    return lines_before * LINES_PER_EPOCH + kind


def lines_through(epoch: int) -> int:
    """The lines up to the end of the batch with an epoch. ProducerTaken when no batch of this module has it."""
    lines_before, kind = divmod(epoch, LINES_PER_EPOCH)
    # The first batch of all is an opening or, of an input without lines, a closing; smaller epochs are other programs'.
    if kind == 0 or (lines_before == 0 and kind < CLOSING):
        message = "another program appends with this producer id; choose another one"
        raise ProducerTaken(message)
    return lines_before + {OPENING: 1, CLOSING: 0}.get(kind, kind)


@dataclass
class LineProducer:
    """Appends lines in batches, in their order. `line_count`: the input's lines that the stream has."""

    connection: Connection
    name: str
    producer_id: str
    content_type: str
    retries: Retries = field(default_factory=Retries)
    line_count: int = 0

    def find_epoch(self) -> int | None:
        """The producer's last epoch in the stream; None if the stream does not know it. Nothing is appended.

        An append of epoch 0 with a number that is far ahead is a gap if the stream does not know the producer, or knows
        it with epoch 0, and is fenced if the last epoch is another one.
        """
        stamp, body = Stamp(self.producer_id, 0, _NEVER_SEQ), b"[0]" if is_json(self.content_type) else b"-"
        try:
            self.retries.run(
                lambda: streams.append(self.connection, self.name, body, content_type=self.content_type, stamp=stamp),
                is_repeatable=True,
            )
        except ServerRefused as exc:
            epoch = exc.fields.get("producer-epoch", "")
            if exc.status == _FORBIDDEN and epoch.isdecimal():
                return int(epoch)
            if exc.status in {_BAD_REQUEST, _CONFLICT} and not exc.is_closed:
                return None if exc.fields.get("producer-expected-seq", "0") == "0" else 0
            raise
        message = "the server does not check the sequence numbers of producers"
        raise UnexpectedAnswer(message)

    def open(self, line_at: Callable[[int], bytes | None]) -> int:
        """Find out how many lines the stream has, and take over from the process before.

        `line_at` gives the body for one line of the input, from 0, and is called with rising numbers; None after the
        end. Appends one line if there is one that the stream does not have. Returns how many lines it had.
        """
        epoch = self.find_epoch()
        if epoch is not None:
            self.line_count = lines_through(epoch)
        body, tries = line_at(self.line_count), 0
        while body is not None:
            tag = None
            if tries < _OPENINGS_MAX:
                tag = self.retries.run(lambda: streams.head(self.connection, self.name).etag, is_repeatable=True)
            tries += 1
            known = self.line_count
            try:
                appended = self._append(body, OPENING, if_match=tag)
            except ServerRefused as exc:
                if exc.status == _PRECONDITION_FAILED:
                    continue
                self.line_count = max(known, self._lines_of_refusal(exc))
                if self.line_count == known:
                    raise
            else:
                if appended.is_new:
                    self.line_count = known + 1
                    return known
                self.line_count = known + 1  # the process before has appended this line
            body = line_at(self.line_count)
        return self.line_count

    def append(self, body: bytes, line_count: int) -> Appended:
        """Append a batch after the lines that the stream has."""
        assert 0 < line_count <= BATCH_LINES_MAX
        try:
            appended = self._append(body, line_count)
        except ServerRefused as exc:
            if exc.status == _FORBIDDEN and "producer-epoch" in exc.fields:
                message = "another process has begun to append with this producer id"
                raise ProducerTaken(message) from exc
            raise
        self.line_count += line_count
        return appended

    def close(self) -> None:
        """Close the stream after its last line. If it is closed already, then it must have been after that line."""
        self._append(b"", CLOSING, closes=True)

    def _append(self, body: bytes, kind: int, *, if_match: str | None = None, closes: bool = False) -> Appended:
        stamp = Stamp(self.producer_id, epoch_of(self.line_count, kind), 0)
        return self.retries.run(
            lambda: streams.append(
                self.connection,
                self.name,
                body,
                content_type=self.content_type,
                stamp=stamp,
                closes=closes,
                if_match=if_match,
            ),
            is_repeatable=True,
        )

    def _lines_of_refusal(self, refused: ServerRefused) -> int:
        """The lines that the stream has, from the epoch that fences this one."""
        epoch = refused.fields.get("producer-epoch", "")
        if refused.status != _FORBIDDEN or not epoch.isdecimal():
            raise refused
        return lines_through(int(epoch))
