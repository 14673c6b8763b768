"""Lists streams as far as a request may see them, and describes them.

Rules:
1. An operator, and everybody on an open server, sees all streams; a project's token sees those that it may read.
2. A page of names is read first and then the heads of these names, so a page costs the same on every store. A stream
   that has ended in between is left out of the page.
3. Nothing here counts as a use of a stream: no deadline is moved.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fluvial.access.authorizer import Authorization
from fluvial.model.head import Head, StreamStatus, stream_status
from fluvial.model.lifetime import ExpiresAt, SlidingTtl, format_rfc3339_ms
from fluvial.model.names import StreamName
from fluvial.model.offset import offset_token
from fluvial.model.permissions import OPERATOR, Permission
from fluvial.storage.contract import Store

#: The producers and the followers that the description of one stream names; the count says if there are more.
PRODUCERS_SHOWN_MAX: Final = 100
FOLLOWERS_SHOWN_MAX: Final = 100

#: The number of live reads of a stream in this process.
CountLiveReads = Callable[[StreamName], int]


@dataclass(frozen=True, slots=True)
class WantedPage:
    """A page of the streams whose names begin with `prefix` and come after `after`; at most `limit` of them."""

    prefix: str
    after: str
    limit: int


@dataclass(frozen=True, slots=True)
class NamesPage:
    """Names in order; `next_after` is what the next page comes after, None when this page is the last."""

    names: list[StreamName]
    next_after: StreamName | None


async def list_names(store: Store, authorization: Authorization, wanted: WantedPage) -> NamesPage:
    """The wanted names among those of the streams that the request may read. Raises StoreUnavailable."""
    covered, is_one = _covered_names(authorization)
    if is_one:
        # A name sorts before every other one that begins with it.
        is_wanted = covered.startswith(wanted.prefix) and covered > wanted.after
        found = await store.names(covered, wanted.after, 1) if is_wanted else []
        return NamesPage([name for name in found if name == covered], None)
    if not wanted.prefix.startswith(covered) and not covered.startswith(wanted.prefix):
        return NamesPage([], None)
    names = await store.names(max(covered, wanted.prefix, key=len), wanted.after, wanted.limit)
    return NamesPage(names, names[-1] if len(names) == wanted.limit else None)


def _covered_names(authorization: Authorization) -> tuple[str, bool]:
    """The prefix of the names that a request may see, and whether it is the whole name of one stream."""
    token = authorization.token
    if token is None or token.project == OPERATOR:
        return "", False
    return f"{token.project}/{token.stream or ''}", token.stream is not None and not token.stream.endswith("/")


async def describe_streams(
    store: Store, names: list[StreamName], now_ms: int, live_reads: CountLiveReads
) -> list[dict[str, object]]:
    """The descriptions of the streams that exist, in the order of their names. Raises StoreUnavailable."""
    heads = zip(names, await store.heads(names), strict=True)
    return [
        describe_stream(name, head, live_reads(name))
        for name, head in heads
        if head is not None and stream_status(head, now_ms) is StreamStatus.EXISTS
    ]


async def describe_writers_and_followers(store: Store, head: Head) -> dict[str, object]:
    """Who writes to a stream and which estuaries follow it: the first of each. Raises StoreUnavailable."""
    producers = await store.producers(head, PRODUCERS_SHOWN_MAX)
    followers = await store.followers(head.incarnation, "", FOLLOWERS_SHOWN_MAX)
    return {
        "producers": [{"id": stamp.producer_id, "epoch": stamp.epoch, "seq": stamp.seq} for stamp in producers],
        "producerCount": head.producer_count,
        "followers": [{"estuary": follower.estuary, "mode": follower.mode.value} for follower in followers],
    }


def may_see_writers(authorization: Authorization) -> bool:
    """Whether a request may see the ids of a stream's producers, and its followers, which are other streams.

    Everybody may on an open server, else managers.
    """
    if authorization.token is None:
        return authorization.project is None
    return authorization.token.allows(Permission.MANAGE)


def describe_stream(name: StreamName, head: Head, live_reads: int) -> dict[str, object]:
    """A stream as JSON for people and clients."""
    lifetime, origin = head.lifetime, head.forked_from
    return {
        "name": name,
        "contentType": head.content_type,
        "bytes": head.tail,
        "offset": offset_token(head, head.tail),
        "closed": head.closed,
        "createdAt": _format_time(head.born_us // 1_000 or None),
        "expiresAt": lifetime.text if isinstance(lifetime, ExpiresAt) else _format_time(head.live_until_ms),
        "ttlSeconds": lifetime.seconds if isinstance(lifetime, SlidingTtl) else None,
        "lastAppendAt": _format_time(head.appended_ms),
        "forkedFrom": origin and {"stream": origin.source, "offset": offset_token(head, head.own_start)},
        "forks": head.references,
        "estuary": None if head.estuary is None else head.estuary.value,
        "public": head.is_public,
        "liveReads": live_reads,
    }


def _format_time(at_ms: int | None) -> str | None:
    return None if at_ms is None else format_rfc3339_ms(at_ms)
