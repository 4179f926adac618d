"""Lost answers: each operation takes effect once, however often its connection is cut."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import grpc

from holdfast.v1 import ledger_pb2 as ledger
from tests.robustness.cutter import wired
from tests.robustness.load import check_promises, stocked, under_load
from tests.serving import COMMITTED, HELD, Serving, failure, serving, unique

BYTES_MAX, CUTS = 50_000, 25


async def kinds_of(server: Serving, name: str) -> list[int]:
    return [entry.kind for entry in await server.entries() if entry.id == name]


async def test_an_answer_lost_once_is_asked_for_again_by_the_server(
    store_url: str, tmp_path: Path
) -> None:
    async with wired(store_url, tmp_path) as (wire, url), serving(redis_url=url) as server:
        sku, name = await server.put(5), unique()
        wire.lose_answers_to(name.encode(), times=1)
        answer = await server.reserve(sku, 2, reservation_id=name)
        assert answer.reservation.state == HELD
        assert wire.cuts == 1
        assert await kinds_of(server, name) == [ledger.ENTRY_KIND_RESERVE]
        assert (await server.level(sku)).held == 2


async def test_an_answer_lost_for_good_is_an_unknown_outcome_until_asked_again(
    store_url: str, tmp_path: Path
) -> None:
    async with wired(store_url, tmp_path) as (wire, url), serving(redis_url=url) as server:
        sku, name = await server.put(5), unique()
        for call in ("reserve", "commit"):
            wire.lose_answers_to(name.encode(), times=2)
            if call == "reserve":
                refused = await failure(server.reserve(sku, 2, reservation_id=name))
                again: Any = await server.reserve(sku, 2, reservation_id=name)
            else:
                refused = await failure(server.commit(name))
                again = await server.commit(name)
            assert refused.kind == (grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN", "holdfast")
            assert refused.retry_after_ms == refused.pushback_ms > 0
            assert again.replayed
        assert wire.cuts == 4
        assert again.reservation.state == COMMITTED
        assert await kinds_of(server, name) == [
            ledger.ENTRY_KIND_RESERVE,
            ledger.ENTRY_KIND_COMMIT,
        ]


async def test_a_lost_answer_to_an_inventory_change_is_found_by_its_request_id(
    store_url: str, tmp_path: Path
) -> None:
    async with wired(store_url, tmp_path) as (wire, url), serving(redis_url=url) as server:
        sku = await server.put(5)
        wire.lose_answers_to(sku.encode(), times=2)
        refused = await failure(server.adjust(sku, 3))
        assert refused.reason == "OUTCOME_UNKNOWN"
        assert (await server.level(sku)).on_hand == 8


async def test_every_operation_takes_effect_once_whatever_is_cut(
    store_url: str, tmp_path: Path
) -> None:
    async with wired(store_url, tmp_path) as (wire, url), serving(redis_url=url) as server:
        skus = await stocked(server)
        wire.cut_at_random(1, bytes_max=BYTES_MAX)
        async with under_load(server, skus=skus) as load:
            while wire.cuts < CUTS:
                await load.after(20)
            wire.mend()
        await check_promises(server, load.acknowledged)
        kinds = Counter((entry.id, entry.kind) for entry in await server.entries())
        assert set(kinds.values()) == {1}
