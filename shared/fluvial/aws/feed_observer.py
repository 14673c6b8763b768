"""What the changes function tells about the steps that it takes. An observer must be quick, and must not raise."""

from typing import Final, Protocol


class FeedObserver(Protocol):
    """Takes note of what follows commits."""

    def on_spill(self) -> None:
        """A writer has moved batches from a head into a hot segment."""
        ...

    def on_rotation(self, byte_count: int) -> None:
        """So many bytes moved from hot segments into S3."""
        ...

    def on_lag(self, byte_count: int) -> None:
        """A stream's followers lacked so many bytes of it when the feed came to deliver them."""
        ...

    def on_broadcast(self, connection_count: int, seconds: float) -> None:
        """A stream's WebSocket connections, so many, were sent what they lacked."""
        ...

    def on_sockets(self, opened_count: int, closed_count: int) -> None:
        """So many WebSocket connections were added, and so many removed; a record that comes again counts again."""
        ...


class _UnobservedFeed:
    """Takes note of nothing."""

    def on_spill(self) -> None:
        """Do nothing."""

    def on_rotation(self, byte_count: int) -> None:
        """Do nothing."""

    def on_lag(self, byte_count: int) -> None:
        """Do nothing."""

    def on_broadcast(self, connection_count: int, seconds: float) -> None:
        """Do nothing."""

    def on_sockets(self, opened_count: int, closed_count: int) -> None:
        """Do nothing."""


#: The observer of a feed whose steps are not measured.
UNOBSERVED_FEED: Final[FeedObserver] = _UnobservedFeed()
