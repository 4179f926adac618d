"""Resuming a Watch, and asking for what cannot be: tokens and arguments, on each store."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from redis.asyncio import Redis

from holdfast.v1 import stock_pb2 as stock
from holdfast_server.rpc.tokens import make
from tests.serving import Serving, metadata, seconds, serving
from tests.watching import CHANGES, HEARTBEAT, SNAPSHOT, Watching, check_gapless, timeless

pytestmark = pytest.mark.asyncio(loop_scope="module")

EXPIRED = (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", "holdfast")
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")
FAIL = stock.ON_GAP_FAIL


async def history(server: Serving) -> tuple[list[str], Watching]:
    """Make three items and change them; return them and what a watch was told of it."""
    skus = [await server.put(20) for _ in range(3)]
    async with Watching(server, *skus) as watch:
        await watch.first()
        for number in range(9):
            sku = skus[number * 2 % 3]
            if number % 2:
                name = (await server.reserve(sku, 2)).reservation.reservation_id
                last = (await server.commit(name)).reservation.sequence
            else:
                last = (await server.adjust(sku, 1)).level.revision
            await watch.until(last)
        return skus, watch


async def test_a_resume_at_any_message_tells_exactly_what_is_missing(server: Serving) -> None:
    skus, watch = await history(server)
    for index, message in enumerate(watch.messages, 1):
        async with Watching(server, *skus, token=message.resume_token, on_gap=FAIL) as resumed:
            told = await resumed.next()
            missed = {level.sku for later in watch.messages[index:] for level in later.levels}
            assert {level.sku for level in told.levels} == missed
            assert told.kind == (CHANGES if missed else HEARTBEAT)
            await check_gapless(server, watch.messages[:index], resumed, skus=skus)


async def test_a_resume_with_nothing_new_says_so_at_once(server: Serving) -> None:
    sku = await server.put(1)
    async with Watching(server, sku) as watch:
        token = (await watch.next()).resume_token
    async with Watching(server, sku, "none", token=token, heartbeat=seconds(60)) as resumed:
        said = await resumed.next()
        assert (said.kind, list(said.missing_skus)) == (HEARTBEAT, ["none"])


async def test_another_filter_may_resume_and_hears_of_its_own(server: Serving) -> None:
    skus, watch = await history(server)
    token = watch.messages[0].resume_token
    async with Watching(server, skus[1], token=token) as resumed:
        (level,) = (await resumed.next()).levels
        assert level == watch.levels[skus[1]]


# ---- Tokens of elsewhere ----


async def token_at(server: Serving, *, cell: int = 0, epoch: int = 0, sequence: int = 0) -> str:
    """Return a token that differs by so much from one of the ledger's present end."""
    head = await server.head()
    numbers = (head.cell + cell, head.epoch + epoch, head.sequence + sequence)
    return make("w." + ".".join(map(str, numbers)))


ELSEWHERE: dict[str, dict[str, int]] = {
    "another cell": {"cell": 1},
    "an older epoch": {"epoch": -1},
    "a later epoch": {"epoch": 1},
    "the future": {"sequence": 1},
}


@pytest.mark.parametrize("where", ELSEWHERE)
async def test_a_token_of_elsewhere_leads_to_a_snapshot_or_an_error(
    server: Serving, where: str
) -> None:
    sku = await server.put(3)
    token = await token_at(server, **ELSEWHERE[where])
    gaps = (stock.ON_GAP_UNSPECIFIED, stock.ON_GAP_RESYNC, FAIL)
    async with AsyncExitStack() as stack:
        *tolerant, strict = [
            await stack.enter_async_context(Watching(server, sku, token=token, on_gap=on_gap))
            for on_gap in gaps
        ]
        for watch in tolerant:
            snapshot = await watch.next()
            assert (snapshot.kind, snapshot.from_sequence) == (SNAPSHOT, 0)
            await check_gapless(server, watch, skus=[sku])
        assert await strict.read() is None
        assert strict.failure is not None
        assert strict.failure.kind == EXPIRED
        head = await server.head()
        here = {"epoch": str(head.epoch), "sequence": str(head.sequence)}
        assert strict.failure.metadata == here


async def test_a_token_older_than_the_ledger_still_resumes_without_a_gap(
    store: dict[str, Any],
) -> None:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(**store))
        servers = [server]
        skus, watch = await history(server)
        async with Redis.from_url(server.url) as redis:
            ledger = f"{{c{store.get('cell', 0)}}}:ledger"
            await redis.xtrim(ledger, maxlen=1, approximate=False)
        first = watch.messages[0]
        assert (await server.head()).first_sequence > first.through_sequence + 1
        if "redis_url" in store:  # another server, which never saw what was trimmed
            servers.append(await stack.enter_async_context(serving(**store)))
        for one in servers:
            async with Watching(one, *skus, token=first.resume_token, on_gap=FAIL) as resumed:
                told = await resumed.next()
                span = (first.through_sequence, watch.through)
                assert (told.kind, told.from_sequence, told.through_sequence) == (CHANGES, *span)
                for sku in skus:
                    assert timeless(resumed.levels[sku]) == timeless(watch.levels[sku])


MALFORMED = {
    "no base64": "?",
    "no token": "x" * 7,
    "of a page": make("17"),
    "of another kind": make("x.0.1.2"),
    "too few numbers": make("w.0.1"),
    "a negative number": make("w.0.1.-2"),
    "other digits": make("w.0.1.²"),
    "not UTF-8": "_____w",
    "too long": "x" * 1_025,
    "as long as it may be": "x" * 1_024,
}


@pytest.mark.parametrize("kind", MALFORMED)
async def test_a_malformed_token_is_named(embedded: Serving, kind: str) -> None:
    async with Watching(embedded, token=MALFORMED[kind]) as watch:
        assert await watch.read() is None
        assert watch.failure is not None
        assert watch.failure.kind == INVALID
        assert set(watch.failure.violations) == {"resume_token"}
        assert "must be a token" in watch.failure.violations["resume_token"]


# ---- Arguments ----

BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "min_interval below 0": ({"min_interval": seconds(-0.001)}, "min_interval", "0 s to 60 s"),
    "min_interval above 60 s": ({"min_interval": seconds(60.001)}, "min_interval", "0 s to 60 s"),
    "heartbeat of 0": ({"heartbeat": seconds(0)}, "heartbeat", "1 s to 60 s"),
    "heartbeat below 1 s": ({"heartbeat": seconds(0.999)}, "heartbeat", "1 s to 60 s"),
    "heartbeat above 60 s": ({"heartbeat": seconds(60.001)}, "heartbeat", "1 s to 60 s"),
    "too many SKUs": ({"skus": [f"s{n}" for n in range(10_001)]}, "skus", "at most 10000"),
    "an empty SKU": ({"skus": ["good", ""]}, "skus[1]", "1 to 128"),
    "a SKU that is too long": ({"skus": ["x" * 129]}, "skus[0]", "1 to 128"),
    "a control character": ({"skus": ["a\x1fb"]}, "skus[0]", "printable"),
    "an unknown on_gap": ({"on_gap": 3}, "on_gap", "RESYNC or FAIL"),
}


@pytest.mark.parametrize("fault", BAD)
async def test_a_bad_argument_is_named_with_its_limit(embedded: Serving, fault: str) -> None:
    fields, field, limit = BAD[fault]
    pace = {name: value for name, value in fields.items() if name != "skus"}
    async with Watching(embedded, *fields.get("skus", ()), **pace) as watch:
        assert await watch.read() is None
        assert watch.failure is not None
        assert watch.failure.kind == INVALID
        assert set(watch.failure.violations) == {field}
        assert limit in watch.failure.violations[field]


async def test_every_bad_argument_is_named_at_once(embedded: Serving) -> None:
    bad: dict[str, Any] = {"min_interval": seconds(61), "heartbeat": seconds(61), "on_gap": 9}
    async with Watching(embedded, "", token="?", **bad) as watch:
        assert await watch.read() is None
        assert watch.failure is not None
        expected = {"skus[0]", "resume_token", "on_gap", "min_interval", "heartbeat"}
        assert set(watch.failure.violations) == expected


async def test_limits_themselves_are_taken(embedded: Serving) -> None:
    low: dict[str, Any] = {"min_interval": seconds(0), "heartbeat": seconds(1)}
    high: dict[str, Any] = {"min_interval": seconds(60), "heartbeat": seconds(60)}
    for fields in (low, high):
        async with Watching(embedded, "x" * 128, **fields) as watch:
            assert (await watch.next()).kind == SNAPSHOT


async def test_a_caller_without_a_good_name_is_refused(embedded: Serving) -> None:
    call = embedded.stock.Watch(stock.WatchRequest(), metadata=metadata("a b"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_bytes_that_are_no_message_are_refused(embedded: Serving) -> None:
    open_stream: Any = embedded.channel.unary_stream("/holdfast.v1.StockService/Watch")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await open_stream(b"\xff").read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
