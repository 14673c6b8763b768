"""The subscriptions in the streams' database: each row, and that links belong to a subscription."""

from typing import Final

import msgspec

from fluvial.model.subscriptions.state import Subscription
from fluvial.storage.findings import Place
from fluvial.storage.sqlite.database import DATABASE
from fluvial.storage.sqlite.verification.databases import DatabaseCheck

_COLUMNS: Final = "key, incarnation, version, due_ms, body"
_LINKS: Final = "key, path, acked_born_us, acked_position, kinds"


def check_subscriptions(database: DatabaseCheck) -> None:
    """Check everything that can be read."""
    keys = set[str]()
    for key, incarnation, version, _, body, _ in database.rows("subscription", _COLUMNS, "key"):
        keys.add(key)
        try:
            stored = msgspec.json.decode(body, type=Subscription)
        except msgspec.DecodeError as exc:
            database.findings.problem(Place(DATABASE), f"the subscription {key} cannot be decoded: {exc}")
            continue
        if (stored.key, stored.incarnation, stored.version) != (key, incarnation, version):
            database.findings.problem(Place(DATABASE), f"the subscription {key} has another one's key")
    for key, path, *_ in database.rows("subscription_link", _LINKS, "key, path"):
        if key not in keys:
            database.findings.problem(Place(DATABASE), f"the link to {path} belongs to no subscription ({key})")
