"""The projects' database: each row, and that each project is what its key says."""

from typing import Final

import msgspec

from fluvial.model.project import Project
from fluvial.model.signing_keys import KeyRing
from fluvial.storage.findings import Place
from fluvial.storage.sqlite.queries import PROJECT_SCHEMA, PROJECT_SCHEMA_STEPS
from fluvial.storage.sqlite.verification.databases import DatabaseCheck

PROJECTS: Final = "projects.db"

#: The first version whose database has the keys that sign webhooks.
_WITH_SIGNING_KEYS: Final = 2

_VERSIONS: Final = [(0, PROJECT_SCHEMA), *PROJECT_SCHEMA_STEPS]


def check_projects(database: DatabaseCheck) -> None:
    """Check everything that can be read."""
    version = database.begin(_VERSIONS)
    if version == 0:
        database.findings.note(Place(PROJECTS), "not checked: its rows have no checksums; a server adds them")
    if not version:
        return
    for name, life, number, encoded, _ in database.rows("project", "name, life, version, project", "name"):
        database.findings.count("projects", encoded is not None)
        if encoded is None:
            continue
        try:
            project = msgspec.json.decode(encoded, type=Project)
        except msgspec.DecodeError as exc:
            database.findings.problem(Place(PROJECTS), f"the project {name} cannot be decoded: {exc}")
            continue
        if (project.name, project.incarnation, project.version) != (name, life, number):
            database.findings.problem(Place(PROJECTS), f"the project {name} has another one's key")
    for _ in database.rows("usage", "name, day, byte_count", "name"):
        pass
    if version >= _WITH_SIGNING_KEYS:
        _check_signing_keys(database)


def _check_signing_keys(database: DatabaseCheck) -> None:
    for _, number, encoded, _ in database.rows("signing_keys", "id, version, ring", "id"):
        try:
            ring = msgspec.json.decode(encoded, type=KeyRing)
        except msgspec.DecodeError:  # its message may quote a key
            database.findings.problem(Place(PROJECTS), "the signing keys cannot be decoded")
            continue
        if ring.version != number:
            database.findings.problem(Place(PROJECTS), "the signing keys are another version's")
