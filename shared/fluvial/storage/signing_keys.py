"""The contract of a store of signing keys, which tests/contract/test_signing_keys.py checks for each implementation."""

from typing import Protocol

from fluvial.model.signing_keys import KeyRing


class SigningKeys(Protocol):
    """The keys of one server, which any number of processes may share.

    Both methods raise StoreUnavailable: nothing was written. `put` raises StoreUncertain: it may have been.
    """

    async def get(self) -> KeyRing | None:
        """The stored version of the keys; None before the first one is made."""
        ...

    async def put(self, ring: KeyRing) -> bool:
        """Store a version of the keys: it replaces the previous version, or is the first.

        False if another version is stored: nothing was changed.
        """
        ...
