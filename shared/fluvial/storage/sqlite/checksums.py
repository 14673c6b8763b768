"""Checksums of stored rows: a bit that flips on the disk is found when its row is read, and is never stored again.

A row's checksum covers every other column, its key, too: a row that is read under another row's key is damaged.
CRC-32 finds every error of up to 32 bits in a row, which is what disks and memory make. It is no protection against
a person who may write to the data folder.

A head's row is always saved whole, from the head in memory. Otherwise: a bit of `config` flips on the disk after the
head was loaded; an append saves the tail and a checksum of the row as it is now; and the damage has a valid checksum.
"""

import sqlite3
import zlib
from typing import Any

import msgspec

from fluvial.model.errors import StorageDamaged

_ENCODER = msgspec.msgpack.Encoder()


def row_checksum(*columns: Any) -> int:  # noqa: ANN401  whatever SQLite stores
    """The CRC-32 of a row's other columns, in their order. Numbers, text, bytes and None differ from each other."""
    return zlib.crc32(_ENCODER.encode(columns))


def check_row(columns: tuple[Any, ...], what: str) -> None:
    """Compare the last column with the checksum of the others. Raises StorageDamaged, which names `what`."""
    if columns[-1] != row_checksum(*columns[:-1]):
        raise StorageDamaged(f"the checksum of {what} is wrong")


def add_checksum_function(connection: sqlite3.Connection) -> None:
    """Let a connection's statements call `row_checksum`."""
    connection.create_function("row_checksum", -1, row_checksum, deterministic=True)
