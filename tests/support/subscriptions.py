"""Subscriptions with sensible defaults."""

from fluvial.model.head import Head, Incarnation
from fluvial.model.offset import Offset
from fluvial.model.subscriptions.configuration import Configuration, SubscriptionType
from fluvial.model.subscriptions.moves import Moment
from fluvial.model.subscriptions.pattern import StreamPath
from fluvial.model.subscriptions.state import Link, Subscription
from tests.support.clocks import START_MS
from tests.support.commands import head

BORN_US = 1_000
SECRET = "a secret of thirty-two bytes, at least"
WEBHOOK_URL = "http://127.0.0.1:1/hook"


def path(text: str) -> StreamPath:
    """A stream's path."""
    return StreamPath(text)


def webhook(**fields: object) -> Configuration:
    """A webhook subscription to `events/*`, with some fields changed."""
    defaults: dict[str, object] = {
        "type": SubscriptionType.WEBHOOK,
        "pattern": "events/*",
        "webhook_url": WEBHOOK_URL,
        "lease_ms": 30_000,
    }
    return Configuration(**{**defaults, **fields})  # type: ignore[arg-type]


def pull_wake(**fields: object) -> Configuration:
    """A pull-wake subscription to `events/*`, with some fields changed."""
    defaults: dict[str, object] = {
        "type": SubscriptionType.PULL_WAKE,
        "webhook_url": None,
        "wake_stream": path("wake/pool"),
    }
    return webhook(**{**defaults, **fields})


def subscription(configuration: Configuration | None = None, **fields: object) -> Subscription:
    """A subscription without links that has never had a wake, with some fields changed."""
    defaults: dict[str, object] = {
        "root": "",
        "id": "sub-1",
        "incarnation": 1,
        "owner": 0,
        "secret": SECRET,
        "base_url": "http://localhost",
        "configuration": configuration or webhook(),
        "created_ms": START_MS,
    }
    return Subscription(**{**defaults, **fields})  # type: ignore[arg-type]


def glob_link(position: int = 0) -> Link:
    """A match of the pattern, acked up to a position."""
    return Link(at(position), is_explicit=False, is_glob=True)


def at(position: int, born_us: int = BORN_US) -> Offset:
    """An offset of a stream of `stream_head`; 0 is the beginning of any stream."""
    return Offset(born_us, position) if position else Offset(0, 0)


def stream_head(tail: int, born_us: int = BORN_US) -> Head:
    """A stream with so many bytes."""
    return head(incarnation=Incarnation(born_us), born_us=born_us, tail=tail)


def moment(now_ms: int = START_MS, wake_id: str = "w_1") -> Moment:
    """A time, and the id of the wake that may be issued."""
    return Moment(now_ms, wake_id)
