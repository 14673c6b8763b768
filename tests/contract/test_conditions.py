"""DynamoDB judges every requirement as the core does, and keeps every head as it was."""

from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from typing import Any, get_args

import boto3
import msgspec
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from fluvial.model.command import Append
from fluvial.model.commit import CommitId, Requirement, SeqAfter, UpdateCommit
from fluvial.model.effect import RenewTtl
from fluvial.model.entity_tag import Preconditions, TagList, stream_etag
from fluvial.model.head import Head, Incarnation, ProducerStamp
from fluvial.model.lifetime import SlidingTtl
from fluvial.model.limits import POSITION_MAX, PRODUCER_ID_BYTES_MAX, STREAM_SEQ_BYTES_MAX, STREAM_STATES_MAX
from fluvial.model.names import StreamName
from fluvial.model.plan import plan_append
from fluvial.model.transition import renewed_deadline_ms
from fluvial.storage.dynamodb.table import attributes as a
from fluvial.storage.dynamodb.table.expression import Expression
from fluvial.storage.dynamodb.table.item_size import item_bytes
from fluvial.storage.dynamodb.table.items import (
    HeadItem,
    HotSegment,
    Placement,
    StoredBatch,
    decode_head_item,
    decode_segment,
    encode_head_item,
    encode_hot_segment,
)
from fluvial.storage.dynamodb.table.keys import head_key
from fluvial.storage.dynamodb.writes.conditions import CLAUSES, conditions_of
from fluvial.storage.dynamodb.writes.lifecycle import first_item
from fluvial.storage.dynamodb.writes.updates import Guesses, commit_update
from tests.aws_local.template import create_table
from tests.support.budget import examples
from tests.support.clocks import START_MS
from tests.support.heads import NOW_MS, heads, requirements
from tests.support.rigs import REGION, dynamodb_local_url

pytestmark = pytest.mark.medium

NAME = StreamName("a/b")
TABLE = "clauses"
#: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Constraints.html
EXPRESSION_BYTES_MAX = 4_096

ids = st.binary(min_size=8, max_size=8).map(CommitId)
inline = st.builds(lambda commit_id, data: StoredBatch(commit_id, len(data), Placement.INLINE, data), ids, st.binary())
elsewhere = st.builds(StoredBatch, ids, st.integers(1, 2**28), st.sampled_from([Placement.ITEM, Placement.OBJECT]))
groups = st.builds(
    StoredBatch, ids, st.integers(1, 2**28), st.just(Placement.GROUP), st.just(b""), batch_count=st.integers(2, 2**20)
)
batches = st.lists(inline | elsewhere | groups, max_size=5).map(tuple)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """AWS's own engine."""
    credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    client = boto3.client("dynamodb", endpoint_url=dynamodb_local_url(), region_name=REGION, **credentials)  # type: ignore[call-overload]
    create_table(client, TABLE)
    yield client
    client.delete_table(TableName=TABLE)
    client.close()


def test_every_requirement_has_a_condition() -> None:
    """And no clause is without a requirement."""
    assert set(get_args(Requirement)) == set(CLAUSES)


@examples(100)
@given(head=st.none() | heads(), requirement=requirements)
@example(head=Head(incarnation=Incarnation(1), content_type="a/b", stream_seq="\x7f"), requirement=SeqAfter("\xff"))
def test_condition_agrees_with_its_requirement(client: Any, head: Head | None, requirement: Requirement) -> None:  # noqa: ANN401
    """The engine's verdict on the stored head is `holds(head)`."""
    if head is None:
        client.delete_item(TableName=TABLE, Key=head_key(NAME))
    else:
        client.put_item(TableName=TABLE, Item=encode_head_item(NAME, HeadItem(head, 0)))
    e = Expression()
    clauses = conditions_of([requirement], e)
    if not clauses:
        assert requirement.holds(head)
        return
    check = {"TableName": TABLE, "Key": head_key(NAME), "ConditionExpression": " AND ".join(clauses)}
    try:
        client.transact_write_items(TransactItems=[{"ConditionCheck": {**check, **e.parameters()}}])
        verdict = True
    except client.exceptions.TransactionCanceledException:
        verdict = False
    assert verdict is requirement.holds(head)


def test_condition_fits_the_most_entity_tags_allowed(client: Any) -> None:  # noqa: ANN401
    """With a producer and a sequence besides, and with the longest numbers, it is one condition that DynamoDB takes."""
    incarnation, first = Incarnation(2**63 - 1), POSITION_MAX - STREAM_STATES_MAX
    tags = [
        stream_etag(Head(incarnation=incarnation, content_type="a/b", tail=first + number, closed=number % 2 == 0))
        for number in range(STREAM_STATES_MAX)
    ]
    every = TagList(frozenset(tags))
    append = Append(
        name=NAME,
        content_type="a/b",
        data=b"x",
        stream_seq="s" * STREAM_SEQ_BYTES_MAX,
        producer=ProducerStamp("p" * PRODUCER_ID_BYTES_MAX, 1, 0),
        preconditions=Preconditions(every, every),
    )
    batch = StoredBatch(CommitId(b"12345678"), 1, Placement.INLINE, b"x")
    request = commit_update(NAME, plan_append(append, 1), batch, Guesses(fence=7))
    with pytest.raises(client.exceptions.ConditionalCheckFailedException):
        client.update_item(TableName=TABLE, **request)
    assert len(request["ConditionExpression"]) < EXPRESSION_BYTES_MAX


@examples(50)
@given(head=heads(), buffer=batches, counts=st.tuples(*[st.integers(0, 5)] * 5))
def test_head_item_round_trips(
    client: Any,  # noqa: ANN401  boto3 makes its clients' classes at run time
    head: Head,
    buffer: tuple[StoredBatch, ...],
    counts: tuple[int, int, int, int, int],
) -> None:
    """Through the engine, at the price that its size predicts."""
    fence, base, cold_end, spilled, evictions = counts
    used_s = dict.fromkeys(head.producers, START_MS // 1_000)
    stored = HeadItem(head, fence, base, buffer, cold_end, spilled, evictions, used_s=used_s)
    item = encode_head_item(NAME, stored)
    answer = client.put_item(TableName=TABLE, Item=item, ReturnConsumedCapacity="TOTAL")
    assert answer["ConsumedCapacity"]["CapacityUnits"] == pytest.approx(ceil(item_bytes(item) / 1_024), abs=1)
    found = decode_head_item(client.get_item(TableName=TABLE, Key=head_key(NAME), ConsistentRead=True)["Item"])
    assert found == replace(stored, item_bytes=item_bytes(item))


@given(head=heads(), counts=st.tuples(*[st.integers(0, 5)] * 5))
def test_every_attribute_of_a_head_item_is_listed(head: Head, counts: tuple[int, int, int, int, int]) -> None:
    """A tombstone is made by removing those: one that is missing from the list would outlive its stream."""
    fence, base, cold_end, spilled, evictions = counts
    item = first_item(NAME, HeadItem(head, fence, base, (), cold_end, spilled, evictions, began=fence))
    assert set(item) - {a.PK, a.SK} <= a.OF_HEAD


@examples(50)
@given(head=heads(), seen=st.none() | heads(), moved_ms=st.integers(0, 5_000), used_ms=st.integers(-4_000, 4_000))
def test_renewal_condition_agrees_with_the_model(
    client: Any,  # noqa: ANN401  boto3 makes its clients' classes at run time
    head: Head,
    seen: Head | None,
    moved_ms: int,
    used_ms: int,
) -> None:
    """Whatever was seen of the stream before; what is refused for that is sent again on what is there."""
    assume(isinstance(head.lifetime, SlidingTtl) or head.lifetime is None)
    now_ms = NOW_MS + used_ms
    if (
        seen is not None and seen.incarnation == head.incarnation
    ):  # the window of an incarnation stays, and its deadlines only grow
        earlier_ms = None if head.live_until_ms is None else head.live_until_ms - moved_ms
        seen = msgspec.structs.replace(head, live_until_ms=earlier_ms)
    client.put_item(TableName=TABLE, Item=encode_head_item(NAME, HeadItem(head, 0)))
    commit = UpdateCommit((), (RenewTtl(now_ms),))
    for guessed in (seen, head):
        request = commit_update(NAME, commit, None, Guesses(0, guessed))
        try:
            item = client.update_item(TableName=TABLE, **request)["Attributes"]
            break
        except client.exceptions.ConditionalCheckFailedException:
            assert guessed is seen
    assert decode_head_item(item).head == msgspec.structs.replace(head, live_until_ms=renewed_deadline_ms(head, now_ms))


@given(start=st.integers(0, 10**15), batches=batches.filter(bool))
def test_hot_segment_round_trips(start: int, batches: tuple[StoredBatch, ...]) -> None:
    """With the stream that it is of."""
    segment = HotSegment(start, batches, NAME, 7)
    assert decode_segment(encode_hot_segment(Incarnation(1), segment)) == segment
