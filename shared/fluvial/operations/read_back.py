"""Reading back every stream of a store, through the store, to find what cannot be read."""

from typing import Final

from fluvial.model.errors import StorageDamaged, StreamVanished
from fluvial.model.limits import PAGE_BYTES_MAX
from fluvial.model.names import StreamName
from fluvial.storage.contract import Store
from fluvial.storage.findings import Findings, Place, place_in

_NAMES_PER_PAGE: Final = 1_000
_PROJECTS_PER_PAGE: Final = 1_000


async def read_back(store: Store, table: str, findings: Findings) -> None:
    """Read each project and each byte of each stream, forks from their ancestors' first byte on.

    A page that cannot be read, or that does not begin where the one before ended, is a problem of `table`; the rest of
    its stream is not read. Raises StoreUnavailable.
    """
    await _read_projects(store, table, findings)
    after = ""
    while names := await store.names("", after, _NAMES_PER_PAGE):
        for name in names:
            await _read_stream(store, table, name, findings)
            findings.progress("streams", findings.totals.get("streams", 0), 0)
        after = names[-1]


async def _read_projects(store: Store, table: str, findings: Findings) -> None:
    after = ""
    try:
        while projects := await store.projects.list_after(after, _PROJECTS_PER_PAGE):
            findings.count("projects", len(projects))
            after = projects[-1].name
    except StorageDamaged:
        findings.problem(Place(table), f"the projects after {after!r} cannot be read")


async def _read_stream(store: Store, table: str, name: StreamName, findings: Findings) -> None:
    head, position = await store.head(name), 0
    if head is None:  # deleted meanwhile
        return
    findings.count("streams")
    while position < head.tail:
        try:
            page = await store.read(name, head, position, PAGE_BYTES_MAX)
        except StreamVanished:
            return
        except StorageDamaged as exc:
            what = f"cannot be read from position {position} on: {exc.__cause__ or str(exc) or 'bytes are missing'}"
            findings.problem(place_in(table, name, head, position), what)
            return
        begins = (page.start, *page.ends)
        is_ordered = all(before < after for before, after in zip(begins, page.ends, strict=False))
        if page.start != position or page.end <= position or len(page.data) != page.end - page.start or not is_ordered:
            findings.problem(place_in(table, name, head, position), f"is not contiguous at position {position}")
            return
        findings.count("bytes", len(page.data))
        findings.count("batches", len(page.ends))
        position = page.end
