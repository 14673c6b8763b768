"""What a verification finds: problems, notes and totals."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fluvial.model.head import Head
from fluvial.model.offset import offset_token

#: `progress(what, done, total)`: how far a long step is, in bytes, or in steps where the bytes are not known.
Progress = Callable[[str, int, int], None]


def no_progress(_what: str, _done: int, _total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is wrong: a file, and the stream and the offset if they are known."""

    file: str
    stream: str | None = None
    offset: str | None = None


def place_in(file: str, name: str, head: Head | None, position: int | None = None) -> Place:
    """A place in a file, and in a stream."""
    return Place(file, name, None if head is None or position is None else offset_token(head, position))


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    is_problem: bool
    place: Place
    what: str

    def __str__(self) -> str:
        """`problem: FILE: WHAT; stream NAME; offset OFFSET`, without what is not known."""
        place = self.place
        parts = [f"{'problem' if self.is_problem else 'note'}: {place.file}: {self.what}"]
        parts += [] if place.stream is None else [f"stream {place.stream}"]
        parts += [] if place.offset is None else [f"offset {place.offset}"]
        return "".join(one if one.isprintable() else "?" for one in "; ".join(parts))


@dataclass(slots=True)
class Findings:
    """Reports each finding when it is found, and counts. A note is unusual, but nothing is wrong."""

    on_finding: Callable[[Finding], None]
    progress: Progress = no_progress
    problem_count: int = 0
    note_count: int = 0
    totals: dict[str, int] = field(default_factory=dict)

    def problem(self, place: Place, what: str) -> None:
        """Report that something is wrong."""
        self._report(Finding(True, place, what))  # noqa: FBT003  a field of a value

    def note(self, place: Place, what: str) -> None:
        """Report something unusual."""
        self._report(Finding(False, place, what))  # noqa: FBT003  likewise

    def add(self, found: Iterable[Finding], totals: Mapping[str, int]) -> None:
        """Report what was found and counted apart."""
        for finding in found:
            self._report(finding)
        for what, added in totals.items():
            self.count(what, added)

    def count(self, what: str, added: int = 1) -> None:
        """Count something that was checked."""
        self.totals[what] = self.totals.get(what, 0) + added

    def _report(self, finding: Finding) -> None:
        self.problem_count += finding.is_problem
        self.note_count += not finding.is_problem
        self.on_finding(finding)
