"""The model's table and network: what DynamoDB does, and what a network does to requests."""

import random
from collections import Counter
from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum, auto
from typing import Any


class Rule(StrEnum):
    """A rule of the protocol."""

    FENCE = auto()  # an update names the fence, and a lost answer raises it
    PUT_ABSENT = auto()  # a hot segment is put only where nothing is
    DELETE_HOT = auto()  # only hot segments are deleted
    CUT_AT_BASE = auto()  # batches are cut off the head only where it begins as it was seen
    READER_OVERLAP = auto()  # a reader takes a segment that starts at or before its position
    PRODUCER_STATE = auto()  # a group's condition names the state of each producer that it moves
    PAYLOAD_FIRST = auto()  # a group's bytes are stored before the update that points to them
    FRESH_REFUSAL = auto()  # a refusal is judged on a head that is not older than the request
    LAST_ID = auto()  # a group stored apart is known by the commit id of its last batch


class Answer(Enum):
    """What a request comes back with; UNKNOWN when nothing comes back."""

    APPLIED = auto()
    REFUSED = auto()
    UNKNOWN = auto()


CommitId = tuple[str, int]


@dataclass(frozen=True)
class Batch:
    """A batch of one append. `numbered` is its producer and seq, `commit_id` its server's id of the present try."""

    append: tuple[str, int]
    size: int
    numbered: tuple[str, int] | None = None
    commit_id: CommitId = ("", 0)


@dataclass(frozen=True)
class Element:
    """What the head holds of a group: its batches, or only how many bytes they are when they are stored apart."""

    commit_id: CommitId
    size: int
    batches: tuple[Batch, ...] | None


@dataclass(frozen=True)
class Head:
    """The head item."""

    tail: int = 0
    base: int = 0
    fence: int = 0
    buffer: tuple[Element, ...] = ()
    seqs: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Segment:
    """A hot or a cold segment."""

    start: int
    elements: tuple[Element, ...]
    is_cold: bool = False


@dataclass(frozen=True)
class Group:
    """A group's update: its element, the fence, and the producers' seqs before it and after it."""

    element: Element
    fence: int
    expected: tuple[tuple[str, int], ...]
    moved: tuple[tuple[str, int], ...]


@dataclass
class Table:
    """What DynamoDB does: each method is one request, atomic, with its condition."""

    without: Rule | None
    head: Head = field(default_factory=Head)
    segments: dict[int, Segment] = field(default_factory=dict)
    payloads: dict[CommitId, tuple[Batch, ...]] = field(default_factory=dict)

    def append(self, group: Group) -> tuple[Answer, Head]:
        """Add a group's element to the head."""
        seqs = dict(self.head.seqs)
        if self.head.fence != group.fence and self.without is not Rule.FENCE:
            return Answer.REFUSED, self.head
        if self.without is not Rule.PRODUCER_STATE and any(seqs.get(one, -1) != seq for one, seq in group.expected):
            return Answer.REFUSED, self.head
        self.head = replace(
            self.head,
            tail=self.head.tail + group.element.size,
            buffer=(*self.head.buffer, group.element),
            seqs=tuple((seqs | dict(group.moved)).items()),
        )
        return Answer.APPLIED, self.head

    def raise_fence(self) -> tuple[Answer, Head]:
        """From the answer on, no earlier update can be carried out."""
        self.head = replace(self.head, fence=self.head.fence + 1)
        return Answer.APPLIED, self.head

    def put_payload(self, commit_id: CommitId, batches: tuple[Batch, ...]) -> tuple[Answer, None]:
        """Store a group's batches apart."""
        self.payloads[commit_id] = batches
        return Answer.APPLIED, None

    def put_hot(self, end: int, segment: Segment) -> tuple[Answer, None]:
        """Put a hot segment."""
        if end in self.segments and self.without is not Rule.PUT_ABSENT:
            return Answer.REFUSED, None
        self.segments[end] = segment
        return Answer.APPLIED, None

    def point_cold(self, end: int, segment: Segment) -> tuple[Answer, None]:
        """Put a pointer to a cold segment over a hot one: this keeps garbage out, no history fails without it."""
        if end not in self.segments or self.segments[end].is_cold:
            return Answer.REFUSED, None
        self.segments[end] = replace(segment, is_cold=True)
        return Answer.APPLIED, None

    def delete_hot(self, end: int) -> tuple[Answer, None]:
        """Delete a hot segment."""
        if end in self.segments and (not self.segments[end].is_cold or self.without is Rule.DELETE_HOT):
            del self.segments[end]
        return Answer.APPLIED, None

    def delete_payload(self, commit_id: CommitId) -> tuple[Answer, None]:
        """Delete a payload that only hot segments point to that a cold one has replaced."""
        self.payloads.pop(commit_id, None)
        return Answer.APPLIED, None

    def cut(self, base: int, count: int) -> tuple[Answer, None]:
        """Cut the first elements off the head, which a hot segment has."""
        head = self.head
        if (head.base != base and self.without is not Rule.CUT_AT_BASE) or len(head.buffer) < count:
            return Answer.REFUSED, None
        base = head.base + sum(element.size for element in head.buffer[:count])
        self.head = replace(head, base=base, buffer=head.buffer[count:])
        return Answer.APPLIED, None


@dataclass
class Network:
    """Loses requests, loses answers, and delivers some requests late."""

    table: Table
    rng: random.Random
    late: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)

    def call(self, name: str, *arguments: object) -> tuple[Answer, Any]:
        """Send a request."""
        fate = self.rng.random()
        if fate < 0.07:
            self.seen["request lost"] += 1
            return Answer.UNKNOWN, None
        if fate < 0.17:
            self.seen["request late"] += 1
            self.late.append((name, arguments))
            return Answer.UNKNOWN, None
        answer, content = getattr(self.table, name)(*arguments)
        self.seen[f"{name} {answer.name.lower()}"] += 1
        if fate < 0.24:
            self.seen["answer lost"] += 1
            return Answer.UNKNOWN, None
        return answer, content

    def deliver_one_late(self) -> None:
        """Deliver a request whose sender has given up."""
        if self.late:
            name, arguments = self.late.pop(self.rng.randrange(len(self.late)))
            getattr(self.table, name)(*arguments)


class MissingPayloadError(AssertionError):
    """A rotation has deleted the payload, and the cold segment has its bytes."""


def batches_of(table: Table, element: Element) -> tuple[Batch, ...]:
    """An element's batches, wherever they are."""
    if element.batches is not None:
        return element.batches
    if element.commit_id not in table.payloads:
        raise MissingPayloadError
    return table.payloads[element.commit_id]


def chain(table: Table, position: int, upto: int) -> list[tuple[int, Batch]]:
    """Every batch of [position, upto) with its end, as a reader gathers them from segments."""
    found = list[tuple[int, Batch]]()
    while position < upto:
        for end in sorted(table.segments):
            segment = table.segments[end]
            if end <= position or (segment.start > position and table.without is not Rule.READER_OVERLAP):
                continue
            try:
                inside, at = list[tuple[int, Batch]](), segment.start
                for element in segment.elements:
                    if at + element.size <= position:
                        at += element.size
                        continue
                    for batch in batches_of(table, element):
                        at += batch.size
                        if at > position:
                            inside.append((at, batch))
            except MissingPayloadError:
                continue  # a late put of a hot segment; a later segment has its bytes
            assert inside, f"a gap at {position}"
            assert inside[0][0] - inside[0][1].size == position, f"a gap at {position}"
            found += inside
            position = at
            break
        else:
            raise AssertionError(f"a gap at {position}")
    return found


def read_all(table: Table, head: Head) -> list[tuple[int, Batch]]:
    """Every batch up to a head's tail."""
    found = chain(table, 0, head.base)
    at = head.base
    assert (found[-1][0] if found else 0) >= at
    for element in head.buffer:
        for batch in batches_of(table, element):
            at += batch.size
            if at > (found[-1][0] if found else 0):
                found.append((at, batch))
    return found
