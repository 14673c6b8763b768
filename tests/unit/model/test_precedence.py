"""Which error is reported when several requirements are unmet (spec 5.2, Error Precedence; 5.2.1)."""

import pytest

from fluvial.model.command import Append
from fluvial.model.commit import Unmet, UpdateCommit, first_unmet
from fluvial.model.entity_tag import Preconditions, TagList, stream_etag
from fluvial.model.errors import ErrorCode
from fluvial.model.head import Head, Incarnation, ProducerState
from fluvial.model.limits import POSITION_MAX, PRODUCERS_PER_STREAM_MAX
from fluvial.model.plan import plan_append
from fluvial.wire.response import append_response
from tests.support.clocks import START_MS
from tests.support.commands import NAME, TEXT, head, stamp

#: The errors in the order in which they must be reported: the code, the head that causes it, and the status.
SPOILERS: list[tuple[str, dict[str, object], int]] = [
    ("gone", {"soft_deleted": True}, 410),
    (ErrorCode.STREAM_CLOSED, {"closed": True}, 409),
    (ErrorCode.CONTENT_TYPE_MISMATCH, {"content_type": "image/png"}, 409),
    (ErrorCode.PRODUCER_FENCED, {"producers": {"p": ProducerState(5, 0)}}, 403),
    (ErrorCode.STREAM_SEQ_REGRESSION, {"stream_seq": "z"}, 409),
    (ErrorCode.STREAM_FULL, {"tail": POSITION_MAX}, 413),
    (ErrorCode.PRECONDITION_FAILED, {"incarnation": Incarnation(2)}, 412),
]


def unmet(commit: UpdateCommit, judged: Head | None) -> Unmet:
    """The outcome of a commit that is rejected because of a head."""
    requirement = first_unmet(commit.requires, judged)
    assert requirement is not None
    return Unmet(requirement, judged)


@pytest.mark.parametrize("first", range(len(SPOILERS)))
def test_first_of_several_unmet_requirements_is_reported(first: int) -> None:
    """All errors from `first` on are caused at once, and `first` is reported."""
    spoilt: dict[str, object] = {}
    for _, fields, _ in SPOILERS[first:]:
        spoilt |= fields
    command = Append(
        name=NAME,
        content_type=TEXT,
        data=b"x",
        stream_seq="a",
        producer=stamp(epoch=1, seq=0),
        preconditions=Preconditions(if_match=TagList(frozenset([stream_etag(head())]))),
    )
    assert first_unmet(plan_append(command, START_MS).requires, head()) is None
    response = append_response(command, unmet(plan_append(command, START_MS), head(**spoilt)))
    assert response.status == SPOILERS[first][2]
    assert SPOILERS[first][0].encode() in response.body


@pytest.mark.parametrize(
    ("known", "epoch", "seq", "status"),
    [
        (None, 0, 0, None),
        (None, 7, 0, None),
        (None, 0, 1, 409),
        (ProducerState(1, 4), 1, 5, None),
        (ProducerState(1, 4), 2, 0, None),
        (ProducerState(1, 4), 0, 5, 403),
        (ProducerState(1, 4), 2, 1, 400),
        (ProducerState(1, 4), 1, 4, 204),
        (ProducerState(1, 4), 1, 0, 204),
        (ProducerState(1, 4), 1, 6, 409),
    ],
)
def test_producer_is_validated_as_the_protocol_says(
    known: ProducerState | None, epoch: int, seq: int, status: int | None
) -> None:
    """Each line of the validation logic in spec 5.2.1."""
    command = Append(name=NAME, content_type=TEXT, data=b"x", producer=stamp(epoch, seq))
    judged = head(producers={"p": known} if known else {}, producer_count=1)
    commit = plan_append(command, START_MS)
    if status is None:
        assert first_unmet(commit.requires, judged) is None
    else:
        assert append_response(command, unmet(commit, judged)).status == status


def test_duplicate_with_a_stale_stream_seq_succeeds() -> None:
    """A retry has both, and must be answered as a success."""
    command = Append(name=NAME, content_type=TEXT, data=b"x", stream_seq="a", producer=stamp(0, 3))
    judged = head(producers={"p": ProducerState(0, 7)}, stream_seq="b", producer_count=1)
    response = append_response(command, unmet(plan_append(command, START_MS), judged))
    assert (response.status, dict(response.headers)[b"producer-seq"]) == (204, b"7")


def test_append_of_one_producer_too_many_is_rejected() -> None:
    """A known producer may go on."""
    command = Append(name=NAME, content_type=TEXT, data=b"x", producer=stamp())
    commit = plan_append(command, START_MS)
    full = head(producer_count=PRODUCERS_PER_STREAM_MAX)
    response = append_response(command, unmet(commit, full))
    assert (response.status, b"too_many_producers" in response.body) == (409, True)
    known = head(producer_count=PRODUCERS_PER_STREAM_MAX, producers={"p": ProducerState(0, 0)})
    next_one = Append(name=NAME, content_type=TEXT, data=b"x", producer=stamp(seq=1))
    assert first_unmet(plan_append(next_one, START_MS).requires, known) is None
