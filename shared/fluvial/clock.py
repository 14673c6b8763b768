"""The source of time, random ids and jitter, passed in so that tests control all three.

Other modules at most measure durations, with a monotonic clock.
"""

import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from fluvial.model.commit import COMMIT_ID_BYTES, CommitId
from fluvial.model.followers import SUBSCRIPTION_ID_BYTES, SubscriptionId
from fluvial.model.head import INCARNATION_BITS, READER_KEY_BYTES, Incarnation, ReaderKey
from fluvial.model.limits import SECRET_BYTES_MIN

#: A wake id cannot be guessed.
WAKE_ID_BYTES: Final = 12


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def _random_incarnation() -> Incarnation:
    return Incarnation(secrets.randbits(INCARNATION_BITS))


def _random_commit_id() -> CommitId:
    return CommitId(secrets.token_bytes(COMMIT_ID_BYTES))


def _random_subscription_id() -> SubscriptionId:
    return SubscriptionId(secrets.token_bytes(SUBSCRIPTION_ID_BYTES))


def _random_reader_key() -> ReaderKey:
    return ReaderKey(secrets.token_urlsafe(READER_KEY_BYTES))


def _random_wake_id() -> str:
    return f"w_{secrets.token_urlsafe(WAKE_ID_BYTES)}"


def _random_request_id() -> str:
    return f"{random.getrandbits(64):016x}"


def _random_secret() -> str:
    return secrets.token_urlsafe(SECRET_BYTES_MIN)


@dataclass(frozen=True, slots=True)
class Clock:
    """Functions for the time, random ids and jitter. The defaults are real; tests replace them."""

    now_ms: Callable[[], int] = _wall_clock_ms  # wall-clock time since 1970
    new_incarnation: Callable[[], Incarnation] = _random_incarnation
    new_commit_id: Callable[[], CommitId] = _random_commit_id
    new_subscription_id: Callable[[], SubscriptionId] = _random_subscription_id
    new_reader_key: Callable[[], ReaderKey] = _random_reader_key
    new_secret: Callable[[], str] = _random_secret  # for signing a project's tokens
    new_wake_id: Callable[[], str] = _random_wake_id
    new_request_id: Callable[[], str] = _random_request_id  # for log lines; not secret
    jitter: Callable[[], float] = random.random  # 0 <= x < 1; spreads reconnects and cursors over time
