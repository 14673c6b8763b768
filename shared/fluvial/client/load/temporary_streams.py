"""Streams that a load has for itself: created before it, and deleted after it however it ends."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from fluvial.client import streams
from fluvial.client.connection import Connection
from fluvial.client.errors import ClientError, ServerRefused, ServerUnreachable
from fluvial.client.retries import Retries
from fluvial.client.streams import NewStream

_NOT_THERE = frozenset({404, 410})
_SERVER_ERROR = 500
_NAMES_SHOWN_MAX = 3


@contextmanager
def temporary_streams(
    connection: Connection, names: Sequence[str], expires_at: str, make_retries: Callable[[], Retries]
) -> Iterator[None]:
    """Streams of text for the time of the block. They expire, too, in case that this process is killed.

    The retries' `tell` gets a message that names the streams that could not be deleted.
    """
    new, made = NewStream("text/plain", expires_at=expires_at), list[str]()
    try:
        for name in names:
            made.append(name)  # before the request, whose answer may be lost
            try:
                make_retries().run(lambda: streams.create(connection, name, new, b""), is_repeatable=True)  # noqa: B023
            except ClientError as exc:
                if _is_undone(exc):
                    made.remove(name)
                raise
        yield
    finally:
        _delete_all(connection, made, make_retries(), expires_at)


def _is_undone(error: ClientError) -> bool:
    """Whether a request with this error has certainly changed nothing."""
    match error:
        case ServerUnreachable(may_have_arrived=False):
            return True
        case ServerRefused(status=status):
            return status < _SERVER_ERROR
        case _:
            return False


def _delete_all(connection: Connection, names: Sequence[str], retries: Retries, expires_at: str) -> None:
    left, reason = list(names), "it was interrupted"
    try:
        for name in names:
            try:
                _delete(connection, name, retries)
            except ServerRefused as exc:
                reason = str(exc)
            else:
                left.remove(name)
    except ClientError as exc:
        reason = str(exc)
    finally:
        if left:
            shown = ", ".join(left[:_NAMES_SHOWN_MAX])
            more = f" and {len(left) - _NAMES_SHOWN_MAX:,} more" if len(left) > _NAMES_SHOWN_MAX else ""
            retries.tell(f"Not deleted: {shown}{more}, because {reason}. They expire at {expires_at}.")


def _delete(connection: Connection, name: str, retries: Retries) -> None:
    def delete() -> None:
        try:
            streams.delete(connection, name)
        except ServerRefused as exc:
            if exc.status not in _NOT_THERE:
                raise

    retries.run(delete, is_repeatable=True)
