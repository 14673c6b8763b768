"""The operations of the protocol's routes: create, show, list, delete, link, claim, ack, callback, release.

Each is called by a request that is authorized. `Place` says whose stream root it is about.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from fluvial.access.wake_tokens import mint_wake_token, token_generation
from fluvial.model.errors import ErrorCode, RequestError
from fluvial.model.limits import LINKS_PER_SUBSCRIPTION_MAX, SUBSCRIPTIONS_PER_PROJECT_MAX
from fluvial.model.names import StreamName
from fluvial.model.subscriptions import moves
from fluvial.model.subscriptions.configuration import Configuration, SubscriptionType
from fluvial.model.subscriptions.moves import Moment, Refusal, WakeProof
from fluvial.model.subscriptions.pattern import Glob, StreamPath, literal_prefix
from fluvial.model.subscriptions.state import (
    Heads,
    Link,
    Subscription,
    existing,
    pending_paths,
    subscription_key,
    tail_of,
)
from fluvial.subscriptions.ledger import Ledger
from fluvial.wire.subscriptions import WakeRequest

#: Checks where a webhook leads before a subscription is created. Raises RequestError.
CheckUrl = Callable[[str], Awaitable[None]]

_CREATIONS_TRIED_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Place:
    """A stream root, its owner, and the URL at which the protocol's routes are found; see Subscription."""

    root: str
    owner: int
    base_url: str = ""


@dataclass(frozen=True, slots=True)
class Creation:
    """A subscription that was created, or confirmed by the same configuration."""

    subscription: Subscription
    is_new: bool


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim's subscription, with the token of its wake."""

    subscription: Subscription
    token: str


@dataclass(frozen=True, slots=True)
class WakeCall:
    """A callback, an ack or a release: its body, its Authorization field, and the type that its route is for."""

    request: WakeRequest
    authorization: bytes | None
    kind: SubscriptionType = SubscriptionType.PULL_WAKE


_WorkersMove = Callable[[Subscription, WakeProof, Heads, Moment], Subscription | Refusal]


class SubscriptionService:
    """Operations on the subscriptions of one store. All raise RequestError and StoreError."""

    def __init__(self, ledger: Ledger, check_url: CheckUrl) -> None:
        """`check_url` is the webhook client's."""
        self._ledger, self._check_url = ledger, check_url

    async def create(self, place: Place, subscription_id: str, configuration: Configuration) -> Creation:
        """Create a subscription, or confirm it: its streams are linked at their tails (spec 6.2)."""
        key = subscription_key(place.root, subscription_id)
        for _ in range(_CREATIONS_TRIED_MAX):
            known = await self._ledger.load(key)
            if known is not None and known.owner == place.owner:
                return Creation(await self._confirm(place, known, configuration), is_new=False)
            if known is not None:  # of a project that has ended, and whose name another one has now
                await self._ledger.remove(known)
            created = await self._create(place, subscription_id, configuration)
            if created is not None:
                return Creation(created, is_new=True)
        message = "others create and delete the subscription at the same time"
        raise RequestError(ErrorCode.SUBSCRIPTION_ALREADY_EXISTS, message, 409)

    async def _confirm(self, place: Place, known: Subscription, configuration: Configuration) -> Subscription:
        """The subscription with this configuration; its callbacks are from now on sent to the URL of this request."""
        if known.configuration.hash != configuration.hash:
            message = "the subscription exists with another configuration"
            raise RequestError(ErrorCode.SUBSCRIPTION_ALREADY_EXISTS, message, 409)
        if place.base_url in {"", known.base_url}:
            return known

        def move(subscription: Subscription, _heads: Heads, _moment: Moment) -> Subscription | Refusal:
            return replace(subscription, base_url=place.base_url)

        moved = await self._ledger.change(known.key, place.owner, move)
        return moved if isinstance(moved, Subscription) else known

    async def _create(self, place: Place, subscription_id: str, configuration: Configuration) -> Subscription | None:
        """The new subscription; None if its key was taken meanwhile."""
        if configuration.webhook_url is not None:
            await self._check_url(configuration.webhook_url)
        catalog, clock, key = self._ledger.catalog, self._ledger.clock, subscription_key(place.root, subscription_id)
        if catalog.count(place.root) >= SUBSCRIPTIONS_PER_PROJECT_MAX:
            message = f"there are {SUBSCRIPTIONS_PER_PROJECT_MAX} subscriptions already"
            raise RequestError(ErrorCode.TOO_MANY_SUBSCRIPTIONS, message, 409)
        # Before the streams are listed: a stream that is created from here on is noted, and linked before its first
        # append; an older one is in the list.
        patterns = [configuration.pattern] if configuration.pattern is not None else []
        catalog.watch(key, place.root, [*patterns, *configuration.streams])
        is_stored = False
        try:
            subscription = Subscription(
                root=place.root,
                id=subscription_id,
                incarnation=clock.new_incarnation(),
                owner=place.owner,
                secret=clock.new_secret(),
                base_url=place.base_url,
                configuration=configuration,
                created_ms=clock.now_ms(),
                links=await self._first_links(place.root, configuration),
            )
            is_stored = await self._ledger.add(subscription)
        finally:
            if not is_stored and key not in catalog.entries:
                catalog.drop(key)
        return subscription if is_stored else None

    async def _first_links(self, root: str, configuration: Configuration) -> dict[StreamPath, Link]:
        """The links of a new subscription, at the tails of their streams."""
        # "Existing streams are linked at their current tail offset so subscription creation does not replay historical
        # data by default." -- spec 6.2
        matching, explicit = set[StreamPath](), frozenset(configuration.streams)
        if configuration.pattern is not None:
            glob, is_wake_stream = Glob(configuration.pattern), self._ledger.catalog.is_wake_stream
            async for name in self._ledger.names(root + literal_prefix(configuration.pattern)):
                path = StreamPath(name.removeprefix(root))
                if path == configuration.wake_stream or is_wake_stream(name):
                    continue
                if glob.matches(path):
                    matching.add(path)
                    _require_room(len(matching))
        _require_room(len(matching | explicit))
        paths = sorted(matching | explicit)
        heads = await self._heads_at(root, paths)
        return {
            path: Link(tail_of(heads.get(path)), path in explicit, path in matching)
            for path in paths
            if path in heads or path in explicit
        }

    async def _heads_at(self, root: str, paths: Sequence[StreamPath]) -> Heads:
        heads = await self._ledger.store.heads([StreamName(root + path) for path in paths])
        return existing(zip(paths, heads, strict=True), self._ledger.clock.now_ms())

    async def show(self, place: Place, subscription_id: str) -> Subscription:
        """One subscription."""
        found = await self._ledger.load(subscription_key(place.root, subscription_id))
        if found is None or found.owner != place.owner:
            raise _not_found()
        return found

    async def list_after(self, place: Place, after: str, count_max: int) -> list[Subscription]:
        """Subscriptions whose ids come after an id, in their order."""
        first = subscription_key(place.root, "")
        last, found = first + after, list[Subscription]()
        while page := await self._ledger.store.subscriptions.list_after(first, last, count_max):
            # Those of a project that has ended, and had the same name, are not among them.
            found += [subscription for subscription in page if subscription.owner == place.owner]
            if len(found) >= count_max or len(page) < count_max:
                break
            last = page[-1].key
        return found[:count_max]

    async def delete(self, place: Place, subscription_id: str) -> None:
        """Delete a subscription; a repeat changes nothing."""
        # "In-flight callback, ack, or release requests for a deleted subscription MUST fail" -- spec 6.3
        found = await self._ledger.load(subscription_key(place.root, subscription_id))
        if found is not None:
            await self._ledger.remove(found)

    async def add_streams(self, place: Place, subscription_id: str, paths: Sequence[StreamPath]) -> None:
        """Link streams explicitly, at their tails; a stream that is linked already keeps its acked offset."""
        heads = await self._heads_at(place.root, paths)
        added = {path: Link(tail_of(heads.get(path)), is_explicit=True, is_glob=False) for path in paths}

        def add(subscription: Subscription, _heads: Heads, _moment: Moment) -> Subscription | Refusal:
            if subscription.configuration.wake_stream in added:
                message = "a subscription cannot be woken by its own wake_stream"
                return Refusal(ErrorCode.INVALID_SUBSCRIPTION_REQUEST, message)
            linked = moves.link(subscription, added)
            if len(linked.links) > LINKS_PER_SUBSCRIPTION_MAX:
                return Refusal(ErrorCode.TOO_MANY_LINKS, _TOO_MANY_LINKS)
            return linked

        self._settle(await self._ledger.change(subscription_key(place.root, subscription_id), place.owner, add))

    async def remove_stream(self, place: Place, subscription_id: str, path: StreamPath) -> None:
        """Remove an explicit link; a repeat changes nothing."""

        def remove(known: Subscription, heads: Heads, _moment: Moment) -> Subscription | Refusal:
            return moves.end_without_work(moves.unlink(known, path), heads)

        self._settle(await self._ledger.change(subscription_key(place.root, subscription_id), place.owner, remove))

    async def claim(self, place: Place, subscription_id: str, worker: str) -> Claimed | Refusal:
        """Give the lease of a pull-wake subscription to a worker."""
        key = subscription_key(place.root, subscription_id)
        _require_pull_wake(await self.show(place, subscription_id))
        moved = await self._ledger.change(
            key, place.owner, lambda known, heads, moment: moves.claim(known, worker, heads, moment)
        )
        if moved is None:
            raise _not_found()
        if isinstance(moved, Refusal):
            if moved.code is ErrorCode.NO_PENDING_WORK:
                # The worker will not claim this wake again, so the next work needs another one.
                await self._ledger.change(
                    key, place.owner, lambda known, heads, _moment: moves.end_without_work(known, heads)
                )
            return moved
        return Claimed(moved, mint_wake_token(moved, self._ledger.clock.now_ms()))

    async def check_token(self, place: Place, subscription_id: str, authorization: bytes | None) -> None:
        """Check the token of an ack, a callback or a release, at the cost of one lookup; the call checks it again.

        So without a token nothing is read, parsed or loaded, however many streams the subscription has.
        """
        key = subscription_key(place.root, subscription_id)
        known = self._ledger.catalog.entries.get(key) or await self._ledger.load(key)
        if known is None or known.owner != place.owner:
            raise _not_found()
        token_generation(known, authorization, self._ledger.clock.now_ms())

    async def acknowledge(self, place: Place, subscription_id: str, call: WakeCall) -> bool | Refusal:
        """Apply an ack or a callback; whether there is work for a next wake."""
        refusal = await self._refusal_of(place, subscription_id, call)
        if refusal is not None:
            return refusal
        progress, has_work = call.request.progress(), False

        def acknowledge(known: Subscription, proof: WakeProof, heads: Heads, moment: Moment) -> Subscription | Refusal:
            nonlocal has_work
            moved = moves.acknowledge(known, proof, progress, heads, moment)
            has_work = isinstance(moved, Subscription) and bool(pending_paths(moved, heads))
            return moved

        moved = await self._move_of_worker(place, subscription_id, call, acknowledge)
        return moved if isinstance(moved, Refusal) else progress.is_done and has_work

    async def release(self, place: Place, subscription_id: str, call: WakeCall) -> Refusal | None:
        """Give the lease of a pull-wake subscription back."""
        refusal = await self._refusal_of(place, subscription_id, call)
        if refusal is not None:
            return refusal
        moved = await self._move_of_worker(place, subscription_id, call, moves.release)
        return moved if isinstance(moved, Refusal) else None

    async def _refusal_of(self, place: Place, subscription_id: str, call: WakeCall) -> Refusal | None:
        """Why a worker's call is stale, or on the wrong route, before its acks are parsed and any head is loaded."""
        known, now_ms = await self.show(place, subscription_id), self._ledger.clock.now_ms()
        proof = _proof(known, call, now_ms)
        if isinstance(proof, Refusal):
            return proof
        return None if moves.is_current(known, proof, now_ms) else moves.FENCED

    async def _move_of_worker(
        self, place: Place, subscription_id: str, call: WakeCall, move: _WorkersMove
    ) -> Subscription | Refusal:
        """Make a move for the worker that has the wake's token."""

        def checked(known: Subscription, heads: Heads, moment: Moment) -> Subscription | Refusal:
            proof = _proof(known, call, moment.now_ms)
            return proof if isinstance(proof, Refusal) else move(known, proof, heads, moment)

        moved = await self._ledger.change(subscription_key(place.root, subscription_id), place.owner, checked)
        if moved is None:
            raise _not_found()
        return moved

    def _settle(self, moved: Subscription | Refusal | None) -> None:
        if moved is None:
            raise _not_found()
        if isinstance(moved, Refusal):
            raise RequestError(moved.code, moved.message, REFUSAL_STATUS.get(moved.code, 409))


#: The statuses of refusals that are not 409 (spec 7).
REFUSAL_STATUS: Final = {ErrorCode.INVALID_SUBSCRIPTION_REQUEST: 400}

_TOO_MANY_LINKS: Final = f"a subscription has up to {LINKS_PER_SUBSCRIPTION_MAX} streams"


def _proof(known: Subscription, call: WakeCall, now_ms: int) -> WakeProof | Refusal:
    """What a call proves. Raises RequestError for a token that is not the subscription's."""
    generation = token_generation(known, call.authorization, now_ms)
    if known.configuration.type is not call.kind:
        what = f"this route is for {call.kind.value} subscriptions"
        return Refusal(ErrorCode.INVALID_SUBSCRIPTION_REQUEST, what)
    return WakeProof(generation, call.request.generation, call.request.wake_id)


def _require_room(link_count: int) -> None:
    if link_count > LINKS_PER_SUBSCRIPTION_MAX:
        raise RequestError(ErrorCode.TOO_MANY_LINKS, _TOO_MANY_LINKS, 409)


def _require_pull_wake(subscription: Subscription) -> None:
    if subscription.configuration.type is not SubscriptionType.PULL_WAKE:
        message = "only a pull-wake subscription can be claimed"
        raise RequestError(ErrorCode.INVALID_SUBSCRIPTION_REQUEST, message)


def _not_found() -> RequestError:
    return RequestError(ErrorCode.SUBSCRIPTION_NOT_FOUND, "there is no subscription with this id", 404)
