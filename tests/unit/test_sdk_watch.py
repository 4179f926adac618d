"""Watches of both clients, against a server that does what the test says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from holdfast import (
    ClientClosed,
    HoldfastError,
    InvalidArgument,
    LagCause,
    Lagging,
    OnGap,
    Resumed,
    ResumeTokenExpired,
    Resynced,
    ResyncReason,
    ServerLoad,
    StockChanges,
)
from holdfast.v1 import stock_pb2 as pb
from holdfast_server import errors
from tests.unit.watched import (
    KINDS,
    Script,
    Stream,
    changes,
    client_of,
    cutting,
    end,
    ending,
    failing,
    first,
    giving,
    heartbeat,
    level,
    snapshot,
)

SNAPSHOT = snapshot(5, level("A", 3, 4), level("B", 9, 5))


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_watch_tells_a_snapshot_and_then_what_changes(kind: str) -> None:
    later = changes(5, 8, level("A", 1, 8), conflated_count=2)
    async with client_of(kind, Script(giving(SNAPSHOT, later))) as client:
        told, changed = await first(client.watch(), 2)
        assert [(one.sku, one.available) for one in told.levels] == [("A", 3), ("B", 9)]
        assert (told.is_snapshot, told.through_sequence) == (True, 5)
        assert changed.by_sku["A"].available == 1
        assert (changed.is_snapshot, changed.through_sequence) == (False, 8)
        assert (changed.conflated_count, changed.load) == (2, ServerLoad.NORMAL)


async def test_a_watch_asks_for_what_it_was_told_to(kind: str) -> None:
    script = Script(giving(snapshot(5, level("A", 1, 1))))
    async with client_of(kind, script) as client:
        options = {"on_gap": OnGap.FAIL, "min_interval": 0.5, "heartbeat": 2}
        await first(client.watch("A", resume_token="mine", **options), 1)
    (asked,) = script.requests
    assert (list(asked.skus), asked.resume_token) == (["A"], "mine")
    assert asked.on_gap == pb.ON_GAP_FAIL
    assert (asked.min_interval.nanos, asked.heartbeat.seconds) == (500_000_000, 2)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"on_gap": "PERHAPS"}, ValueError),
        ({"skus": [1]}, TypeError),
        ({"skus": 7}, TypeError),
        ({"resume_token": 7}, TypeError),
        ({"heartbeat": 0}, InvalidArgument),
        ({"heartbeat": -1}, InvalidArgument),
        ({"min_interval": float("nan")}, InvalidArgument),
        ({"patience": 1}, TypeError),
    ],
)
async def test_a_bad_argument_is_told_at_once(
    kind: str, options: dict[str, Any], error: type[Exception]
) -> None:
    script = Script(giving())
    async with client_of(kind, script) as client:
        with pytest.raises(error):
            client.watch(**options)
    assert script.requests == []


@pytest.mark.parametrize(
    "error",
    [
        errors.InvalidArgument("too many SKUs"),
        errors.Unauthenticated("who?"),
        errors.NotOwner("not for you"),
        errors.Unimplemented("no Watch here"),
    ],
)
async def test_what_no_attempt_changes_is_raised_once_and_ends_the_watch(
    kind: str, error: errors.HoldfastError
) -> None:
    script = Script(failing(error))
    async with client_of(kind, script) as client:
        watch = client.watch("A")
        with pytest.raises(HoldfastError) as caught:
            await anext(watch)
        assert caught.value.reason == error.reason
        with pytest.raises(StopAsyncIteration):
            await anext(watch)
    assert len(script.requests) == 1


async def test_a_server_that_knows_no_watch_is_an_error_and_no_endless_loop(kind: str) -> None:
    class Bare(Script):
        async def Watch(self, request: pb.WatchRequest, context: Any) -> None:
            self.requests.append(request)
            await super(Script, self).Watch(request, context)  # type: ignore[misc]

    script = Bare(giving())
    async with client_of(kind, script) as client:
        with pytest.raises((HoldfastError,)):
            await anext(client.watch())
    assert len(script.requests) == 1


async def test_a_broken_stream_goes_on_from_the_last_token_and_says_so(kind: str) -> None:
    script = Script(
        cutting(SNAPSHOT, changes(5, 8, level("A", 1, 8))),
        giving(changes(8, 9, level("B", 7, 9))),
    )
    async with client_of(kind, script) as client:
        watch = client.watch()
        *_, lagging, resumed, changed = await first(watch, 5)
        assert (lagging.cause, lagging.attempt) == (LagCause.DISCONNECTED, 1)
        assert lagging.message == "connection lost"
        assert resumed == Resumed(9)
        assert changed.by_sku["B"].available == 7
        assert watch.resume_token == "t9"
    assert script.tokens == ["", "t8"]


async def test_each_failed_attempt_is_told_until_one_succeeds(kind: str) -> None:
    script = Script(cutting(SNAPSHOT), cutting(), ending(), cutting(), giving(heartbeat(5, 6)))
    async with client_of(kind, script) as client:
        told = await first(client.watch(), 6)
    attempts = [one.attempt for one in told if isinstance(one, Lagging)]
    assert attempts == [1, 2, 3, 4]
    assert len({one.since for one in told if isinstance(one, Lagging)}) == 1
    assert told[-1] == Resumed(6)
    assert script.tokens == ["", *["t5"] * 4]


async def test_a_server_that_is_not_there_is_visible_and_not_an_end(kind: str) -> None:
    script = Script(cutting())
    async with client_of(kind, script) as client:
        told = await first(client.watch(), 3)
    assert [one.attempt for one in told] == [1, 2, 3]


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("DRAINING", None),
        ("MAX_AGE", None),
        ("SLOW_CONSUMER", errors.SlowConsumer("blocked for 30 s")),
        ("STORE_UNAVAILABLE", errors.StoreUnavailable("out of reach", retry_after_ms=5)),
    ],
)
async def test_an_end_is_told_with_its_reason_and_resumed_with_its_token(
    kind: str, reason: str, error: errors.HoldfastError | None
) -> None:
    last = end(5, reason, resume_token="of-the-end")
    behave = failing(error, SNAPSHOT, last) if error else ending(SNAPSHOT, last)
    script = Script(behave, giving(heartbeat(5)))
    async with client_of(kind, script) as client:
        _told, lagging, resumed = await first(client.watch(), 3)
    assert (lagging.cause, lagging.attempt) == (reason, 1)
    assert resumed == Resumed(5)
    assert script.tokens == ["", "of-the-end"]


async def test_a_new_epoch_starts_anew_visibly(kind: str) -> None:
    script = Script(
        ending(SNAPSHOT, end(5, "EPOCH_CHANGED")), giving(snapshot(2, level("A", 8, 1)))
    )
    async with client_of(kind, script) as client:
        watch = client.watch()
        _told, _lagging, resynced, anew = await first(watch, 4)
        assert resynced == Resynced(ResyncReason.EPOCH_CHANGED, 2, ())
        assert anew.by_sku["A"].available == 8
        assert dict(client.levels) == anew.by_sku


async def test_a_new_epoch_within_a_stream_starts_anew_visibly(kind: str) -> None:
    script = Script(giving(SNAPSHOT, snapshot(2, level("A", 8, 1))))
    async with client_of(kind, script) as client:
        _told, resynced, anew = await first(client.watch(), 3)
        assert resynced.reason is ResyncReason.EPOCH_CHANGED
        assert dict(client.levels) == anew.by_sku


async def test_a_gap_starts_anew_visibly(kind: str) -> None:
    script = Script(cutting(SNAPSHOT), giving(snapshot(90, level("A", 8, 80))))
    async with client_of(kind, script) as client:
        _told, _lagging, resynced, anew = await first(client.watch(), 4)
        assert resynced == Resynced(ResyncReason.GAP, 90, ())
        assert anew.is_snapshot


async def test_a_gap_raises_where_it_shall(kind: str) -> None:
    error = errors.ResumeTokenExpired("too old")
    script = Script(cutting(SNAPSHOT), failing(error))
    async with client_of(kind, script) as client:
        watch = client.watch(on_gap="FAIL")
        await first(watch, 2)
        with pytest.raises(ResumeTokenExpired):
            await anext(watch)


async def test_a_silent_server_is_visible_and_left(kind: str) -> None:
    script = Script(giving(SNAPSHOT), giving(heartbeat(5)))
    async with client_of(kind, script) as client:
        watch = client.watch(heartbeat=0.02)
        told, lagging = await first(watch, 2)
        assert isinstance(told, StockChanges)
        assert (lagging.cause, lagging.attempt) == (LagCause.SILENT, 1)
        assert await anext(watch) == Resumed(5)


async def test_a_server_that_is_silent_from_the_beginning_is_visible(kind: str) -> None:
    async with client_of(kind, Script(giving()), connect_timeout=0.05) as client:
        lagging = await anext(client.watch(heartbeat=0.01))
    assert lagging.cause is LagCause.SILENT


async def test_a_server_that_says_end_and_does_not_end_is_left(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.watching.END_GRACE_S", 0.02)
    script = Script(giving(SNAPSHOT, end(5, "DRAINING")), giving(heartbeat(5)))
    async with client_of(kind, script) as client:
        _told, lagging, resumed = await first(client.watch(), 3)
    assert lagging.cause is LagCause.DRAINING
    assert resumed == Resumed(5)


async def test_a_broken_chain_is_visible_counted_and_resumed_from_the_last_good_token(
    kind: str,
) -> None:
    script = Script(
        giving(SNAPSHOT, changes(7, 8, level("A", 1, 8))), giving(changes(5, 8, level("A", 1, 8)))
    )
    async with client_of(kind, script) as client:
        watch = client.watch()
        _told, lagging, resumed, changed = await first(watch, 4)
        assert lagging.cause is LagCause.CHAIN_BROKEN
        assert lagging.message == "from 7, but told through 5"
        assert resumed == Resumed(8)
        assert changed.by_sku["A"].available == 1
        assert watch.violations == 1
    assert script.tokens == ["", "t5"]


async def test_closing_ends_the_iteration_and_the_stream(kind: str) -> None:
    script = Script(giving(SNAPSHOT))
    async with client_of(kind, script) as client:
        watch = client.watch()
        await anext(watch)
        waiting = asyncio.ensure_future(first(watch, 1))
        await watch.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(watch)
        (ended,) = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(ended, StopAsyncIteration | RuntimeError)
        await script.closed.wait()
        assert script.open == 0
        await watch.aclose()


async def test_closing_one_that_was_never_read_opens_nothing(kind: str) -> None:
    script = Script(giving(SNAPSHOT))
    async with client_of(kind, script) as client:
        watch = client.watch()
        await watch.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(watch)
    assert script.requests == []


async def test_closing_the_client_is_told_to_who_waits(kind: str) -> None:
    script = Script(giving(SNAPSHOT))
    async with client_of(kind, script) as client:
        watch = client.watch()
        await anext(watch)
        waiting = asyncio.ensure_future(first(watch, 1))
        await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(ClientClosed):
            await waiting
        with pytest.raises(ClientClosed):
            await anext(client.watch())


async def test_closing_does_not_wait_for_a_pause_to_end(kind: str) -> None:
    error = errors.Overloaded("later", retry_after_ms=3_600_000)
    async with client_of(kind, Script(failing(error))) as client:
        watch = client.watch()
        lagging = await anext(watch)
        assert lagging.cause is LagCause.OVERLOADED
        waiting = asyncio.ensure_future(first(watch, 1))
        await asyncio.sleep(0)
        await client.aclose()
        with pytest.raises(ClientClosed):
            await waiting


# ---- What users of other watch clients were bitten by ----


async def test_etcd_compaction_neither_hangs_nor_loops(kind: str) -> None:
    """python-etcd3#134: after a compaction the watcher hung, or looped for ever."""

    async def behave(stream: Stream) -> None:
        if stream.request.resume_token == "compacted":
            await stream.fail(errors.ResumeTokenExpired("too old"))
        await stream.give(SNAPSHOT)
        await stream.hang()

    script = Script(behave)
    async with client_of(kind, script) as client:
        with pytest.raises(ResumeTokenExpired):
            await anext(client.watch(resume_token="compacted", on_gap="FAIL"))
        assert (await anext(client.watch())).is_snapshot
    assert script.tokens == ["compacted", ""]


async def test_etcd_overlapping_watches_get_their_own_levels_only(kind: str) -> None:
    """aioetcd3#2: two overlapping watches of one client got each other's events."""

    async def behave(stream: Stream) -> None:
        wanted = list(stream.request.skus)
        await stream.give(snapshot(5, *(level(sku, 1, 1) for sku in wanted)))
        await stream.give(changes(5, 6, *(level(sku, len(wanted), 6) for sku in wanted)))
        await stream.hang()

    async with client_of(kind, Script(behave)) as client:
        narrow, wide = client.watch("A"), client.watch(["A", "B"])
        (_, one), (_, two) = await asyncio.gather(first(narrow, 2), first(wide, 2))
        assert {sku: found.available for sku, found in one.by_sku.items()} == {"A": 1}
        assert {sku: found.available for sku, found in two.by_sku.items()} == {"A": 2, "B": 2}
        await narrow.aclose()
        assert set(client.levels) == {"A", "B"}


async def test_etcd_a_level_that_was_not_asked_for_breaks_the_chain(kind: str) -> None:
    script = Script(giving(snapshot(5, level("B", 1, 1))), giving(snapshot(5, level("A", 1, 1))))
    async with client_of(kind, script) as client:
        lagging, _resumed, told = await first(client.watch("A"), 3)
        assert lagging.message == "B is not watched"
        assert list(told.by_sku) == list(client.levels) == ["A"]


async def test_etcd_a_server_that_dies_is_noticed(kind: str) -> None:
    """python-etcd3#88: the watcher hung when the server died."""
    dying = asyncio.Event()

    async def behave(stream: Stream) -> None:
        await stream.give(SNAPSHOT)
        await dying.wait()
        await stream.cut()

    async with client_of(kind, Script(behave, cutting())) as client:
        watch = client.watch()
        await anext(watch)
        waiting = asyncio.ensure_future(first(watch, 2))
        dying.set()
        one, two = await waiting
        assert (one.cause, one.attempt) == (LagCause.DISCONNECTED, 1)
        assert (two.cause, two.attempt) == (LagCause.DISCONNECTED, 2)


async def test_kubernetes_the_position_of_the_stream_counts_and_not_that_of_an_item(
    kind: str,
) -> None:
    """kubernetes-client/python#819: clients resumed from the last item's version, months ago."""
    script = Script(
        cutting(SNAPSHOT, heartbeat(5, 1_000), heartbeat(1_000, 9_000)), giving(heartbeat(9_000))
    )
    async with client_of(kind, script) as client:
        watch = client.watch()
        _told, _lagging, resumed = await first(watch, 3)
        assert resumed == Resumed(9_000)
        assert watch.resume_token == "t9000"
    assert script.tokens == ["", "t9000"]


async def test_kubernetes_what_vanished_is_forgotten(kind: str) -> None:
    """A client that resyncs must not remember what the snapshot no longer has."""
    script = Script(cutting(SNAPSHOT), giving(snapshot(90, level("A", 8, 80))))
    async with client_of(kind, script) as client:
        watch = client.watch()
        await first(watch, 4)
        assert list(client.levels) == ["A"]
        assert "B" not in client.levels


async def test_kubernetes_a_stale_token_is_not_tried_for_ever(kind: str) -> None:
    """dotnet-operator-sdk#724: a client looped on a version that was too old."""
    stale = errors.ResumeTokenExpired("too old")
    script = Script(failing(stale))
    async with client_of(kind, script) as client:
        watch = client.watch(resume_token="stale", on_gap="FAIL")
        with pytest.raises(ResumeTokenExpired):
            await anext(watch)
    assert len(script.requests) == 1


async def test_nats_a_stall_is_visible_at_every_turn(kind: str) -> None:
    """A consumer of JetStream stalled with no error on either side."""
    seen = asyncio.Event()

    async def behave(stream: Stream) -> None:
        if not seen.is_set():
            await stream.give(SNAPSHOT)
        await stream.hang()

    async with client_of(kind, Script(behave), connect_timeout=0.05) as client:
        watch = client.watch(heartbeat=0.01)
        while not isinstance(await anext(watch), StockChanges):
            pass
        seen.set()
        stalls: list[Lagging] = []
        while len(stalls) < 3:  # what was under way when the server fell silent may still come
            told = await anext(watch)
            stalls = [*stalls, told] if isinstance(told, Lagging) else []
        assert [one.attempt for one in stalls] == [1, 2, 3]
        assert {one.cause for one in stalls} == {LagCause.SILENT}
        assert not client.levels.known("A").is_live


# ---- Nothing is buffered without bound, nothing is lost, nothing is left behind ----


async def test_a_slow_reader_blocks_the_stream(kind: str) -> None:
    given = 0

    async def behave(stream: Stream) -> None:
        nonlocal given
        await stream.give(snapshot(1, level("A", 1, 1)))
        while True:
            text = "x" * 100_000
            await stream.give(changes(given + 1, given + 2, level("A", 1, 1), resume_token=text))
            given += 1

    async with client_of(kind, Script(behave)) as client:
        watch = client.watch()
        await anext(watch)
        # It is blocked when it gives no more although the event loop is idle.
        before = -1
        while before != given:
            before = given
            await asyncio.sleep(0.1)
        assert given < 200
        told = await first(watch, 50)
        assert [one.through_sequence for one in told] == list(range(2, 52))


async def test_the_token_never_covers_what_was_not_taken(kind: str) -> None:
    messages = [changes(n, n + 1, level("A", n, n + 1)) for n in range(5, 12)]
    async with client_of(kind, Script(giving(SNAPSHOT, *messages))) as client:
        watch = client.watch(resume_token="before")
        assert watch.resume_token == "before"
        tokens = []
        async for _change in watch:
            tokens.append(watch.resume_token)
            if len(tokens) == 9:
                break
        # Resynced comes first, and only the snapshot after it is progress.
        assert tokens == ["before", *(f"t{n}" for n in range(5, 13))]
