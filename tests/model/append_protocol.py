"""A model of the append protocol on DynamoDB (docs/decisions/0005 and 0017), as a program that shares no code with it.

One stream. Servers that commit groups, a rotator and readers interleave at every request, and the network loses
requests, loses answers, and delivers requests late, even after their sender has tried again. Clients give up on a
server and send the same numbered batch to another one. Each history ends with these checks: no acknowledged batch is
lost, none is there twice, each is at the offset that its client was told, no producer was refused wrongly, and no
reader met a gap.

Each rule of the protocol can be left out (`without`): then some history must fail, or the rule would not be needed.
"""

import random
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import Final

from tests.model.table import (
    Answer,
    Batch,
    Element,
    Group,
    Head,
    MissingPayloadError,
    Network,
    Rule,
    Segment,
    Table,
    chain,
    read_all,
)


@dataclass
class Request:
    """A client's append, and the answer: where it ends, or None for a duplicate. `is_abandoned`: nobody listens."""

    batch: Batch
    is_answered: bool = False
    end: int | None = None
    is_gap: bool = False
    is_abandoned: bool = False

    def answer(self, end: int | None, *, is_gap: bool = False) -> None:
        """Tell the client."""
        self.is_answered, self.end, self.is_gap = True, end, is_gap


def _verdict(seqs: dict[str, int], batch: Batch) -> str:
    if batch.numbered is None:
        return "fits"
    producer, seq = batch.numbered
    known = seqs.get(producer, -1)
    return "fits" if seq == known + 1 else "duplicate" if seq <= known else "gap"


Steps = Generator[None]

#: More batches than this are stored apart from the head.
INLINE_MAX: Final = 2


class Server:
    """A process that commits its clients' appends in groups, one update at a time."""

    def __init__(self, net: Network, name: str) -> None:
        """Nothing waits."""
        self._net, self._name, self._number = net, name, 0
        self.queue: list[Request] = []
        self._head = Head()

    def run(self, is_over: list[bool]) -> Steps:
        """Commit groups until the clients have ended."""
        while self.queue or not is_over:
            if not self.queue:
                yield
                continue
            count = self._net.rng.randint(1, 6)
            group, self.queue = self.queue[:count], self.queue[count:]
            left = yield from self._commit(group)
            self.queue = [*left, *self.queue]
            if len(self._head.buffer) >= 3:
                yield from self._spill()

    def _commit(self, requests: list[Request]) -> Generator[None, None, list[Request]]:
        """Commit a group; the requests that have to come again."""
        is_fresh = False
        while True:
            admitted, group = self._plan(requests)
            if not admitted:
                if not is_fresh and self._net.table.without is not Rule.FRESH_REFUSAL:
                    self._head, is_fresh = self._net.table.head, True
                    yield
                    continue
                return self._refuse(requests, self._head)
            if group.element.batches is None:
                stored = self._net.call("put_payload", group.element.commit_id, tuple(one.batch for one in admitted))
                yield
                if stored[0] is Answer.UNKNOWN and self._net.table.without is not Rule.PAYLOAD_FIRST:
                    continue  # under other commit ids
            refused_on = self._head
            end, head = yield from self._send(group)
            self._head, is_fresh = head, True
            if end is None:
                continue
            at = end - group.element.size
            for request in admitted:
                at += request.batch.size
                request.answer(at)
            others = [one for one in requests if not one.is_answered]
            return self._refuse(others, refused_on if self._net.table.without is Rule.FRESH_REFUSAL else head)

    def _send(self, group: Group) -> Generator[None, None, tuple[int | None, Head]]:
        """Send a group's update, and find out what became of it: where it ends, None if it is not there; the head."""
        answer, head = self._net.call("append", group)
        yield
        if answer is not Answer.UNKNOWN:
            return (head.tail if answer is Answer.APPLIED else None), head
        while answer is Answer.UNKNOWN:
            answer, head = self._net.call("raise_fence")
            yield
        end = self._find(head, group.element)
        yield
        return end, head

    def _plan(self, requests: list[Request]) -> tuple[list[Request], Group]:
        """The requests that fit one after the other, and their update.

        Once one of a producer does not fit, its later ones wait, so that it is judged before them.
        """
        seqs, admitted, waiting = dict(self._head.seqs), list[Request](), set[str]()
        for request in requests:
            numbered = request.batch.numbered
            if numbered is not None and numbered[0] in waiting:
                continue
            if _verdict(seqs, request.batch) == "fits":
                self._number += 1
                request.batch = replace(request.batch, commit_id=(self._name, self._number))
                admitted.append(request)
                seqs |= {} if numbered is None else {numbered[0]: numbered[1]}
            elif numbered is not None:
                waiting.add(numbered[0])
        batches = tuple(one.batch for one in admitted)
        names = {batch.numbered[0] for batch in batches if batch.numbered is not None}
        before = dict(self._head.seqs)
        known_by = 0 if self._net.table.without is Rule.LAST_ID else -1
        element = Element(
            batches[known_by].commit_id if batches else ("", 0),
            sum(batch.size for batch in batches),
            batches if len(batches) <= INLINE_MAX else None,
        )
        expected = tuple((one, before.get(one, -1)) for one in names)
        return admitted, Group(element, self._head.fence, expected, tuple((one, seqs[one]) for one in names))

    def _refuse(self, requests: list[Request], head: Head) -> list[Request]:
        """Answer what does not fit on a head; the others come again, and so do those of a producer after one."""
        left, seqs = list[Request](), dict(head.seqs)
        coming = set[str]()
        for request in requests:
            assert request.batch.numbered is not None, "a plain append always fits"
            verdict = _verdict(seqs, request.batch)
            if verdict == "fits" or request.batch.numbered[0] in coming:
                coming.add(request.batch.numbered[0])
                left.append(request)
            else:
                request.answer(None, is_gap=verdict == "gap")
        return left

    def _find(self, head: Head, element: Element) -> int | None:
        """Where a group ends that has landed: its commit id is looked for in the head, then in the segments."""
        segments = [(segment.start, segment.elements) for segment in self._net.table.segments.values()]
        for start, elements in ((head.base, head.buffer), *segments):
            at = start
            for one in elements:
                at += one.size
                if one.commit_id == element.commit_id:
                    return at
        return None

    def _spill(self) -> Steps:
        head = self._head
        count = self._net.rng.randint(1, len(head.buffer))
        leaving = head.buffer[:count]
        end = head.base + sum(element.size for element in leaving)
        answer, _ = self._net.call("put_hot", end, Segment(head.base, leaving))
        yield
        if answer is not Answer.UNKNOWN:  # refused: another server has put the same committed bytes there
            self._net.call("cut", head.base, count)
            yield


def plain_client(net: Network, servers: list[Server], name: str, acknowledged: list[Request]) -> Steps:
    """Append unnumbered batches, each once."""
    for number in range(net.rng.randint(3, 12)):
        request = Request(Batch((name, number), net.rng.randint(1, 5)))
        net.rng.choice(servers).queue.append(request)
        while not request.is_answered:
            yield
        acknowledged.append(request)


def producer(net: Network, servers: list[Server], name: str, acknowledged: list[Request]) -> Steps:
    """Append numbered batches, several at once; what a server does not answer in time goes to another one."""
    count, done = net.rng.randint(3, 12), 0
    while done < count:
        seqs = range(done, min(count, done + net.rng.randint(1, 5)))
        sizes = {seq: 1 + seq % 5 for seq in seqs}
        requests = [Request(Batch((name, seq), sizes[seq], (name, seq))) for seq in seqs]
        net.rng.choice(servers).queue += requests
        patience = net.rng.randint(1, 60)
        while patience and not all(request.is_answered for request in requests):
            patience -= 1
            yield
        for request in requests:
            if not request.is_answered:
                request.is_abandoned = True
                net.seen["abandoned"] += 1
                continue
            assert not request.is_gap, "a batch was refused although the ones before it are stored"
            if done == (request.batch.numbered or ("", -1))[1]:
                done += 1
                if request.end is not None:
                    acknowledged.append(request)


def rotator(net: Network, rounds: int) -> Steps:
    """Move hot segments into cold ones."""
    for _ in range(rounds):
        head, segments = net.table.head, dict(net.table.segments)
        yield
        start = 0  # where the cold part ends
        while cold := [end for end, one in segments.items() if one.is_cold and one.start <= start < end]:
            start = max(cold)
        hot = [end for end, one in segments.items() if not one.is_cold and start < end <= head.base]
        if len(hot) < 2:
            continue
        end = max(hot)
        try:
            batches = [batch for _, batch in chain(net.table, start, end)]
        except AssertionError:
            if net.table.without is not None:
                raise
            continue  # another rotation has deleted payloads meanwhile
        whole = Segment(start, tuple(Element(batch.commit_id, batch.size, (batch,)) for batch in batches))
        answer, _ = net.call("point_cold", end, whole)
        yield
        if answer is Answer.APPLIED:
            yield from _delete_replaced(net, end, {one: segments[one] for one in hot})


def _delete_replaced(net: Network, cold_end: int, hot: dict[int, Segment]) -> Steps:
    for end, segment in hot.items():
        if end != cold_end:
            answer, _ = net.call("delete_hot", end)
            yield
            if answer is not Answer.APPLIED:
                continue
        for element in segment.elements:
            if element.batches is None:
                net.call("delete_payload", element.commit_id)
                yield


def reader(net: Network, rounds: int) -> Steps:
    """Read everything up to a head that was read before; rotations may move the bytes meanwhile."""
    for _ in range(rounds):
        head = net.table.head
        yield
        try:
            found = read_all(net.table, head)
        except MissingPayloadError:
            head = net.table.head
            found = read_all(net.table, head)
        assert len({batch.append for _, batch in found}) == len(found), "a reader saw a batch twice"
        assert (found[-1][0] if found else 0) >= head.tail, "a reader missed the end"
        yield


def check(table: Table, acknowledged: list[Request]) -> None:
    """Hold the end of a history to what the clients were told."""
    found = read_all(table, table.head)
    ends = {batch.commit_id: end for end, batch in found}
    assert len({batch.append for _, batch in found}) == len(found), "an append is there twice"
    for request in acknowledged:
        assert ends.get(request.batch.commit_id) == request.end, "an acknowledged append is lost or elsewhere"
    seqs = dict[str, int]()
    for _, batch in found:
        if batch.numbered is not None:
            name, seq = batch.numbered
            assert seq == seqs.get(name, -1) + 1, "a producer's batches are not in order, each once"
            seqs[name] = seq


def history(seed: int, without: Rule | None = None) -> Counter[str]:
    """One random history; AssertionError when it breaks a promise. Returns what has happened."""
    rng = random.Random(seed)
    net, acknowledged, is_over = Network(Table(without), rng), list[Request](), list[bool]()
    servers = [Server(net, f"server {number}") for number in range(rng.randint(1, 3))]
    clients = [plain_client(net, servers, f"client {number}", acknowledged) for number in range(rng.randint(1, 4))]
    clients += [producer(net, servers, f"producer {number}", acknowledged) for number in range(rng.randint(1, 4))]
    others = [rotator(net, 40), rotator(net, 40), reader(net, 20), reader(net, 20)]
    running: list[Iterator[None]] = [*clients, *others, *(server.run(is_over) for server in servers)]
    waiting = set(map(id, clients))
    while running:
        one = rng.choice(running)
        if next(one, StopIteration) is StopIteration:
            running.remove(one)
            waiting.discard(id(one))
            if not waiting and not is_over:
                is_over.append(True)
        if rng.random() < 0.3:
            net.deliver_one_late()
    while net.late:
        net.deliver_one_late()
    check(net.table, acknowledged)
    return net.seen
