"""Commands and commits with sensible defaults."""

from fluvial.model.command import Append, Close, Create
from fluvial.model.commit import CreateCommit, DeleteCommit, UpdateCommit
from fluvial.model.head import Head, Incarnation, ProducerStamp
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_append, plan_close, plan_create, plan_delete
from tests.support.clocks import START_MS

NAME = StreamName("chat/1")
OTHER = StreamName("chat/2")
TEXT = "text/plain"


def head(**fields: object) -> Head:
    """An open, empty text stream, with some fields changed."""
    defaults: dict[str, object] = {"incarnation": Incarnation(1), "content_type": TEXT}
    return Head(**{**defaults, **fields})  # type: ignore[arg-type]


def stamp(epoch: int = 0, seq: int = 0, producer_id: str = "p") -> ProducerStamp:
    """One batch of a producer."""
    return ProducerStamp(producer_id, epoch, seq)


def create_command(**fields: object) -> Create:
    """A PUT of a text stream, with some fields changed."""
    defaults: dict[str, object] = {"name": NAME, "content_type": TEXT}
    return Create(**{**defaults, **fields})  # type: ignore[arg-type]


def create_commit(incarnation: int = 1, now_ms: int = START_MS, **fields: object) -> CreateCommit:
    """A PUT, planned."""
    return plan_create(create_command(**fields), Incarnation(incarnation), now_ms)


def append_commit(data: bytes = b"x", now_ms: int = START_MS, **fields: object) -> UpdateCommit:
    """A POST to a text stream, planned, with some fields changed."""
    defaults: dict[str, object] = {"name": NAME, "content_type": TEXT, "data": data}
    return plan_append(Append(**{**defaults, **fields}), now_ms)  # type: ignore[arg-type]


def close_commit(producer: ProducerStamp | None = None, now_ms: int = START_MS) -> UpdateCommit:
    """A close without data, planned."""
    return plan_close(Close(name=NAME, producer=producer), now_ms)


def delete_commit(now_ms: int = START_MS) -> DeleteCommit:
    """A DELETE, planned."""
    return plan_delete(now_ms)
