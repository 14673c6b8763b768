"""The server's signing keys: made once, kept, rotated, and never shown."""

import asyncio
import logging
from base64 import urlsafe_b64encode
from dataclasses import dataclass

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fluvial.client.webhooks import parse_key_set, verify
from fluvial.model.errors import StoreUnavailable
from fluvial.model.limits import WEBHOOK_KEY_AHEAD_S, WEBHOOK_KEY_CACHE_S, WEBHOOK_KEY_KEPT_S, WEBHOOK_KEYS_MAX
from fluvial.model.signing_keys import KeyRing, SigningKey, TooManyKeysError, key_set
from fluvial.storage.memory_signing_keys import MemorySigningKeys
from fluvial.webhooks.keys import WebhookKeys
from fluvial.webhooks.signature import make_key, sign
from tests.support.clocks import START_MS, FixedClock

BODY = b'{"wake_id":"w_1"}'


@dataclass
class Processes:
    """Processes of one store, which see its keys at once or as late as they may."""

    store: MemorySigningKeys
    still: FixedClock

    def process(self) -> WebhookKeys:
        """Another process, whose memory of the keys ends as the time moves."""
        return WebhookKeys(self.store, self.still.clock(), lambda: self.still.time.now_ms / 1_000)

    def advance(self, seconds: float) -> None:
        """Move the time of all."""
        self.still.time.advance(int(seconds * 1_000))

    async def is_accepted(self, signature: str, jwks: object) -> bool:
        """Whether a receiver with this key set accepts a signature of now."""
        verify(BODY, signature, parse_key_set(msgspec.json.encode(jwks)), now_s=self.still.time.now_ms / 1_000)
        return True


@pytest.fixture
def processes() -> Processes:
    """A store without keys."""
    return Processes(MemorySigningKeys(), FixedClock())


async def test_first_use_makes_a_key_that_all_processes_share(processes: Processes) -> None:
    """However many of them are first."""
    all_keys = [processes.process() for _ in range(5)]
    kids = await asyncio.gather(*(keys.active_kid() for keys in all_keys))
    assert len(set(kids)) == 1
    signature = await all_keys[0].sign(BODY, processes.still.time.now_ms)
    assert await processes.is_accepted(signature, await all_keys[1].jwks())


async def test_key_set_has_public_halves_alone(processes: Processes) -> None:
    """In the form of RFC 8037; the id is the thumbprint."""
    keys = processes.process()
    [published] = (await keys.jwks())["keys"]
    ring = await processes.store.get()
    assert ring is not None
    assert published == {
        "kty": "OKP",
        "crv": "Ed25519",
        "kid": await keys.active_kid(),
        "use": "sig",
        "alg": "EdDSA",
        "x": urlsafe_b64encode(ring.keys[0].public).rstrip(b"=").decode(),
    }


def test_id_is_the_thumbprint_of_rfc_8037() -> None:
    """Its appendix A.3 has a key and its thumbprint; A.2 has the public half."""
    public = Ed25519PublicKey.from_public_bytes(
        bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    )
    key = SigningKey(b"", public.public_bytes_raw(), 0, 0)
    assert key.kid == "ds_kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert key_set((key,))["keys"][0]["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"


async def test_new_key_is_published_before_it_signs(processes: Processes) -> None:
    """So a receiver that has just read the key set knows each key in time, also of a process that is late."""
    old, late = processes.process(), processes.process()
    former = await late.active_kid()
    new = await old.rotate()
    assert (await old.active_kid(), new.kid == former) == (former, False)
    processes.advance(WEBHOOK_KEY_CACHE_S)
    assert [key["kid"] for key in (await late.jwks())["keys"]] == [new.kid, former]
    processes.advance(WEBHOOK_KEY_AHEAD_S - WEBHOOK_KEY_CACHE_S - 1)
    assert await late.active_kid() == former
    cached_by_a_receiver = await late.jwks()
    processes.advance(1)
    assert await late.active_kid() == new.kid
    assert await processes.is_accepted(await late.sign(BODY, processes.still.time.now_ms), cached_by_a_receiver)


async def test_old_key_is_published_until_its_signatures_are_refused(processes: Processes) -> None:
    """And then no more, without any further command."""
    keys = processes.process()
    former = await keys.active_kid()
    last_signature = await keys.sign(BODY, processes.still.time.now_ms + WEBHOOK_KEY_AHEAD_S * 1_000 - 1)
    new = await keys.rotate()
    processes.advance(WEBHOOK_KEY_AHEAD_S)
    assert await processes.is_accepted(last_signature, await keys.jwks())
    processes.advance(WEBHOOK_KEY_KEPT_S - 1)
    assert [key["kid"] for key in (await keys.jwks())["keys"]] == [new.kid, former]
    processes.advance(1)
    assert [key["kid"] for key in (await keys.jwks())["keys"]] == [new.kid]


async def test_number_of_published_keys_is_bounded(processes: Processes) -> None:
    """The next rotation is possible once the first of them is published no more, which it then forgets."""
    keys = processes.process()
    await keys.active_kid()
    for _ in range(WEBHOOK_KEYS_MAX - 1):
        await keys.rotate()
        processes.advance(1)
    with pytest.raises(TooManyKeysError) as refused:
        await keys.rotate()
    assert len(await keys.published()) == WEBHOOK_KEYS_MAX
    processes.advance((refused.value.until_ms - processes.still.time.now_ms) / 1_000)
    await keys.rotate()
    assert len(await keys.published()) == WEBHOOK_KEYS_MAX
    ring = await processes.store.get()
    assert ring is not None
    assert len(ring.keys) == WEBHOOK_KEYS_MAX


async def test_compromised_keys_end_at_once(processes: Processes) -> None:
    """The new key signs from now on, and no other is published or stored."""
    keys = processes.process()
    await keys.rotate()
    new = await keys.replace_all()
    assert await keys.active_kid() == new.kid
    assert [key["kid"] for key in (await keys.jwks())["keys"]] == [new.kid]
    ring = await processes.store.get()
    assert ring is not None
    assert ring.keys == (new,)


async def test_two_rotations_at_the_same_time_are_two(processes: Processes) -> None:
    """Neither overwrites the other's key."""
    first, second = processes.process(), processes.process()
    made = await asyncio.gather(first.rotate(), second.rotate())
    published = {key.kid for key in await processes.process().published()}
    assert {key.kid for key in made} < published
    assert len(published) == 3


class StolenRing:
    """A store in which others are always faster, and whose keys are gone when they are read."""

    async def get(self) -> KeyRing | None:
        """Nothing."""
        return None

    async def put(self, ring: KeyRing) -> bool:  # noqa: ARG002  nothing is stored
        """Others were faster."""
        return False


async def test_keys_that_cannot_be_kept_are_not_used() -> None:
    """A signature of a key that no other process knows could not be verified."""
    keys = WebhookKeys(StolenRing(), FixedClock().clock())
    with pytest.raises(StoreUnavailable):
        await keys.sign(BODY, START_MS)


class BusyRing(MemorySigningKeys):
    """A store that takes the first keys, and no others."""

    async def put(self, ring: KeyRing) -> bool:
        """Others are faster."""
        return ring.version == 1 and await super().put(ring)


async def test_rotation_is_given_up_in_the_end() -> None:
    """The keys stay as they are."""
    store = BusyRing()
    keys = WebhookKeys(store, FixedClock().clock())
    with pytest.raises(StoreUnavailable):
        await keys.rotate()
    ring = await store.get()
    assert ring is not None
    assert ring.version == 1


async def test_private_half_is_in_no_repr_and_no_log_line(
    processes: Processes, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a key, a ring or an error."""
    caplog.set_level(logging.DEBUG)
    keys = processes.process()
    await keys.rotate()
    await keys.sign(BODY, START_MS)
    ring = await processes.store.get()
    assert ring is not None
    shown = f"{ring!r} {ring} {ring.keys[0]!r} {ring.keys!r} {caplog.text} {await keys.jwks()}"
    for key in ring.keys:
        for spelling in (key.seed.hex(), urlsafe_b64encode(key.seed).decode().rstrip("="), repr(key.seed)[2:-1]):
            assert spelling not in shown


def test_signature_is_of_the_time_and_the_body() -> None:
    """Ed25519 is deterministic: the same key signs the same bytes alike."""
    key = make_key(START_MS)
    assert sign(key, BODY, START_MS) == sign(key, BODY, START_MS + 999)
    others = {sign(key, BODY, START_MS + 1_000), sign(key, BODY + b" ", START_MS), sign(make_key(0), BODY, START_MS)}
    assert len(others | {sign(key, BODY, START_MS)}) == 4
