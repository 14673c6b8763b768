"""The list of a source's followers, as storage/contract.py promises it."""

from fluvial.model.followers import Follower, SubscriptionId
from fluvial.model.head import EstuaryMode, Incarnation
from fluvial.model.names import StreamName
from tests.support.commands import delete_commit
from tests.support.estuaries import SOURCE, FanOutRig
from tests.support.rigs import DynamoDbRig, SqliteRig, eventually


def follower(name: str, subscription: bytes = b"1") -> Follower:
    """A follower by name."""
    return Follower(StreamName(name), EstuaryMode.RAW, SubscriptionId(subscription))


async def test_followers_are_listed_in_order_and_by_pages(rig: FanOutRig) -> None:
    """Each page goes on after the last name of the one before; each incarnation has its own followers."""
    incarnation = (await rig.make_source()).incarnation
    other = (await rig.make_source(StreamName("p/other"))).incarnation
    names = [f"p/{number:02}" for number in range(7)]
    for name in reversed(names):
        await rig.store.add_follower(incarnation, follower(name))
    await rig.store.add_follower(other, follower("p/x"))
    pages = [await rig.store.followers(incarnation, after, 3) for after in ("", "p/02", "p/05", "p/06")]
    assert [[one.estuary for one in page] for page in pages] == [names[:3], names[3:6], names[6:], []]
    assert await rig.store.follower(other, StreamName("p/x")) == follower("p/x")
    assert await rig.store.follower(other, StreamName("p/00")) is None


async def test_removal_leaves_a_later_subscription(rig: FanOutRig) -> None:
    """A delivery that found a follower gone must not remove it when it has subscribed again since."""
    incarnation = (await rig.make_source()).incarnation
    await rig.store.add_follower(incarnation, follower("p/a", b"old"))
    await rig.store.add_follower(incarnation, follower("p/a", b"new"))
    await rig.store.remove_follower(incarnation, follower("p/a", b"old"))
    assert await rig.store.followers(incarnation, "", 9) == [follower("p/a", b"new")]
    for _ in range(2):
        await rig.store.remove_follower(incarnation, follower("p/a", b"new"))
    assert await rig.store.followers(incarnation, "", 9) == []


async def test_deleted_source_leaves_no_followers(rig: FanOutRig) -> None:
    """The list is deleted with the stream, and the next incarnation begins without followers."""
    incarnation = (await rig.make_source()).incarnation
    await rig.store.add_follower(incarnation, follower("p/a"))
    await rig.store.apply(SOURCE, delete_commit())
    await eventually(lambda: not stored_followers(rig, incarnation), rig.rig.let_pass)
    again = (await rig.make_source()).incarnation
    assert await rig.store.followers(again, "", 9) == []


def stored_followers(rig: FanOutRig, incarnation: Incarnation) -> object:
    """The followers that are stored for an incarnation, read without the store."""
    match rig.rig:
        case SqliteRig() as sqlite:
            return sqlite.query("SELECT 1 FROM follower WHERE source = ?", incarnation)
        case DynamoDbRig() as dynamodb:
            return dynamodb.items(f"FOLLOWER#{incarnation:016x}")
        case _:
            return rig.store._followers.get(incarnation)  # type: ignore[attr-defined]
