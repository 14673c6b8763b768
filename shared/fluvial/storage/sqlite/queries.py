"""The SQL statements of queries.sql, adoption.sql and projects.sql, as typed fields.

1. The .sql files are the one place of the SQL text. A class here lists the names of one file's statements.
2. The fields are declared, so the type checker finds a misspelt name.
3. A class and its file have the same names; otherwise the import of this module fails.
"""

import re
from collections import Counter
from importlib.resources import files
from typing import Final, TypeVar

import msgspec

_NAME: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_Queries = TypeVar("_Queries", bound=msgspec.Struct)


class StreamQueries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """queries.sql: the database of the streams."""

    load_head: str
    load_head_of: str
    load_heads: str
    names_after: str
    load_producer: str
    producers_of: str
    save_new_head: str
    save_head: str
    remove_head: str
    newest_birth: str
    save_newest_birth: str
    save_producer: str
    undelivered_names: str
    add_follower: str
    remove_follower: str
    followers_after: str
    load_follower: str
    add_hot_range: str
    add_ended_incarnation: str
    hot_ranges_after: str
    hot_log_sizes: str
    segment_after: str
    add_segment: str
    remove_hot_ranges: str
    has_segment: str
    has_incarnation: str
    expired_names: str
    ended_incarnations: str
    segments_of: str
    remove_some_hot_ranges: str
    remove_some_producers: str
    remove_some_followers: str
    remove_segment: str
    remove_ended_incarnation: str
    stream_count: str
    segment_bytes: str
    load_subscription: str
    load_links: str
    add_subscription: str
    save_subscription: str
    remove_subscription: str
    save_link: str
    remove_link: str
    remove_links: str
    subscription_keys_after: str
    due_subscriptions: str


class AdoptionQueries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """adoption.sql: the same database while a project adopts streams."""

    begin_adoption: str
    adopt_names: str
    spare_project: str
    adopted_names: str
    taken_name: str
    long_name: str
    rename_streams: str
    rename_followers: str
    references_by_name: str
    new_name: str
    save_references: str
    damaged_row: str
    save_stream_checksums: str
    save_follower_checksums: str


class ProjectQueries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """projects.sql: the database of the projects."""

    project: str
    put_project: str
    end_project: str
    projects_after: str
    any_project: str
    add_usage: str
    signing_keys: str
    put_signing_keys: str


def parse_queries(text: str, kind: type[_Queries]) -> _Queries:
    """The statements of a .sql text, each below a line `-- name: ...`. The comment below that line stays with it.

    Raises ValueError when the text lacks a name of `kind`, has another name, or has a name twice.
    """
    _, *parts = _NAME.split(text)
    names, statements = parts[::2], parts[1::2]
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ValueError(f"statements of the same name: {', '.join(repeated)}")
    return msgspec.convert(dict(zip(names, map(str.strip, statements), strict=True)), kind)


def _read(file: str) -> str:
    return (files("fluvial.storage.sqlite") / file).read_text("utf-8")


SQL: Final = parse_queries(_read("queries.sql"), StreamQueries)

ADOPTION_SQL: Final = parse_queries(_read("adoption.sql"), AdoptionQueries)

PROJECT_SQL: Final = parse_queries(_read("projects.sql"), ProjectQueries)
PROJECT_SCHEMA: Final = _read("projects_schema.sql")

#: The versions of the projects' database after the first, each with the script that leads to it.
PROJECT_SCHEMA_STEPS: Final = [(1, _read("projects_checksums.sql")), (2, _read("projects_signing_keys.sql"))]
