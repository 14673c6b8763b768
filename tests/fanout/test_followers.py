"""The list of a life's followers, as storage/contract.py promises it."""

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
    """Each page goes on after the last name of the one before; a life has followers of its own."""
    life = (await rig.make_source()).incarnation
    other = (await rig.make_source(StreamName("p/other"))).incarnation
    names = [f"p/{number:02}" for number in range(7)]
    for name in reversed(names):
        await rig.store.add_follower(life, follower(name))
    await rig.store.add_follower(other, follower("p/x"))
    pages = [await rig.store.followers(life, after, 3) for after in ("", "p/02", "p/05", "p/06")]
    assert [[one.estuary for one in page] for page in pages] == [names[:3], names[3:6], names[6:], []]
    assert await rig.store.follower(other, StreamName("p/x")) == follower("p/x")
    assert await rig.store.follower(other, StreamName("p/00")) is None


async def test_only_the_very_subscription_is_removed(rig: FanOutRig) -> None:
    """Whoever found a follower gone must not remove it when it has come back meanwhile."""
    life = (await rig.make_source()).incarnation
    await rig.store.add_follower(life, follower("p/a", b"old"))
    await rig.store.add_follower(life, follower("p/a", b"new"))
    await rig.store.remove_follower(life, follower("p/a", b"old"))
    assert await rig.store.followers(life, "", 9) == [follower("p/a", b"new")]
    for _ in range(2):
        await rig.store.remove_follower(life, follower("p/a", b"new"))
    assert await rig.store.followers(life, "", 9) == []


async def test_followers_go_with_the_life(rig: FanOutRig) -> None:
    """A stream that is deleted leaves no list behind, and its next life begins with nobody."""
    life = (await rig.make_source()).incarnation
    await rig.store.add_follower(life, follower("p/a"))
    await rig.store.apply(SOURCE, delete_commit())
    await eventually(lambda: not kept(rig, life), rig.rig.let_pass)
    again = (await rig.make_source()).incarnation
    assert await rig.store.followers(again, "", 9) == []


def kept(rig: FanOutRig, life: Incarnation) -> object:
    """What a store has of a life's followers, read behind its back."""
    match rig.rig:
        case SqliteRig() as sqlite:
            return sqlite.query("SELECT 1 FROM follower WHERE source = ?", life)
        case DynamoDbRig() as dynamodb:
            return dynamodb.items(f"FOLLOWER#{life:016x}")
        case _:
            return rig.store._followers.get(life)  # type: ignore[attr-defined]
