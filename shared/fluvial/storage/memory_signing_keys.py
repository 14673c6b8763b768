"""The in-memory store of signing keys, for tests and for `--store memory`."""

from fluvial.model.signing_keys import KeyRing


class MemorySigningKeys:
    """The keys of one process, which end with it."""

    def __init__(self) -> None:
        """Start without keys."""
        self._ring: KeyRing | None = None

    async def get(self) -> KeyRing | None:
        """See SigningKeys.get."""
        return self._ring

    async def put(self, ring: KeyRing) -> bool:
        """See SigningKeys.put."""
        if ring.version != (0 if self._ring is None else self._ring.version) + 1:
            return False
        self._ring = ring
        return True
