"""Messages of a watch as bytes: a head and levels, made once for all who share them."""

from __future__ import annotations

from typing import Any

from holdfast.v1 import stock_pb2 as pb
from holdfast_server.engine.load import LoadGauge, ServerLoad
from holdfast_server.rpc.call import Calls
from holdfast_server.rpc.identity import Identities
from holdfast_server.rpc.watch import HEADS_MAX, Watch, level_field
from holdfast_server.watch.watcher import Ending, Update, UpdateKind, Watcher
from tests.contract.oracle.books import Stock
from tests.unit.shelves import NOW_MS, empty_levels

NO_HUB: Any = None


def watch(load: ServerLoad = ServerLoad.NORMAL) -> Watch:
    return Watch(Calls(Identities([]), LoadGauge(load=load)), NO_HUB, 3)


def change(through: int, *, missing: tuple[str, ...] = ()) -> Update:
    return Update(UpdateKind.CHANGES, through - 1, through, through, missing=missing)


async def test_a_head_and_levels_joined_are_one_message() -> None:
    levels = [level_field(Stock(sku, on_hand=5).level(), NOW_MS) for sku in ("a", "b")]
    update = Update(UpdateKind.SNAPSHOT, 0, 4, 4, levels, 2, Ending.MAX_AGE, ("c",))
    head = watch()._head(Watcher(empty_levels(), ()), update)
    message = pb.WatchResponse.FromString(b"".join((head, *levels)))
    assert [level.sku for level in message.levels] == ["a", "b"]
    assert (message.kind, message.through_sequence) == (pb.WATCH_KIND_SNAPSHOT, 4)
    assert message.end_reason == pb.WATCH_END_REASON_MAX_AGE
    assert (message.conflated_count, list(message.missing_skus)) == (2, ["c"])
    assert message.resume_token


async def test_a_loaded_server_says_so_in_every_message() -> None:
    watcher = Watcher(empty_levels(), ())
    busy, calm = (
        pb.WatchResponse.FromString(watch(load)._head(watcher, change(1)))
        for load in (ServerLoad.HIGH, ServerLoad.NORMAL)
    )
    assert busy.server_pressure.load == pb.SERVER_LOAD_HIGH
    assert busy.server_pressure.suggested_min_interval.ToMilliseconds() == 100
    assert not calm.HasField("server_pressure")


async def test_streams_that_stand_alike_share_a_head_and_few_are_kept() -> None:
    watching, watcher = watch(), Watcher(empty_levels(), ())
    assert watching._head(watcher, change(1)) is watching._head(watcher, change(1))
    assert watching._head(watcher, change(1)) != watching._head(watcher, change(2))
    for through in range(1, 3 * HEADS_MAX):
        watching._head(watcher, change(through))
        assert len(watching._heads) <= HEADS_MAX


async def test_a_head_that_names_missing_items_is_not_kept() -> None:
    watching, watcher = watch(), Watcher(empty_levels(), ())
    watching._head(watcher, change(1, missing=("none",) * 10_000))
    assert not watching._heads
