"""ReplayDecision of what made no entry: queries, refusals and errors from the audit trail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc.status_pb2 import Status
from sqlalchemy import insert

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import ledger_pb2 as ledger
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from holdfast_server.ledger import schema
from holdfast_server.ledger.audit import AuditKind, AuditRecord, leaves_of_record
from tests.serving import Serving, failure, lines, seconds, serving, unique

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHO = types.Context(agent_id="agent 7", session_id="s-1", rationale="cheapest")
_numbers = count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kept(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A server with an archive and a hold budget."""
    data = str(tmp_path_factory.mktemp("data"))
    settings: dict[str, Any] = {"durability": "memory", "archive": "sqlite", "hold_budget": 50}
    async with serving(data=data, **settings) as server:
        yield server


async def audit(
    server: Serving, kind: AuditKind, asked: Any, answer: Any, **changes: Any
) -> AuditRecord:
    """Put a record into the trail, as if the server had made it of its answer."""
    head = await server.head()
    seen = [level.as_of.ToMilliseconds() for level in getattr(answer, "levels", ())]
    record = AuditRecord(
        kind=kind,
        id=unique("a"),
        part=0,
        parts=1,
        cell=0,
        epoch=head.epoch,
        sequence=getattr(answer, "sequence", head.sequence),
        time_ms=seen[0] if seen else 0,
        principal="anonymous",
        session="s-1",
        subject=getattr(asked, "reservation_id", ""),
        call=type(asked).__name__.removesuffix("Request"),
        levels=len(seen),
        asked=asked.SerializeToString(),
        answer=answer.SerializeToString(),
    )._replace(**changes)
    assert server.server.kept is not None
    async with server.server.kept.archive._database.writing() as connection:
        for leaf in leaves_of_record(record):
            row = {
                **{name: getattr(record, name) for name in ("time_ms", "kind", "principal")},
                "number": next(_numbers),
                "id": record.key,
                "session": record.session,
                "sequence": record.sequence,
                "leaf": leaf,
            }
            await connection.execute(insert(schema.queries), row)
    return record


async def decided(server: Serving, **subject: str) -> list[ledger.Decision]:
    answer = await server.ledger.ReplayDecision(ledger.ReplayDecisionRequest(**subject))
    return list(answer.decisions)


async def test_a_query_is_shown_with_what_it_answered_and_answered_again(kept: Serving) -> None:
    skus = [await kept.put(3, title="A thing"), await kept.put(4)]
    asked = stock.GetStockRequest(skus=[*skus, "no such"], context=WHO)
    answer = await kept.stock.GetStock(asked)
    record = await audit(kept, AuditKind.QUERY, asked, answer)
    await kept.adjust(skus[0], 5)
    (decision,) = await decided(kept, query_id=record.id)
    assert (decision.query_id, decision.context) == (record.id, WHO)
    assert list(decision.seen) == list(answer.levels)
    assert [item.title for item in decision.items] == ["A thing", ""]
    assert decision.reproduced
    assert not decision.HasField("entry")


async def test_a_large_query_is_put_together_from_its_parts(kept: Serving) -> None:
    skus = [await kept.put(sku=f"{unique('sku-')}-{'x' * 100}") for _ in range(3)]
    asked = stock.GetStockRequest(skus=skus)
    answer = await kept.stock.GetStock(asked)
    answer.missing_skus.extend(["m" * 128] * 700)
    record = await audit(kept, AuditKind.QUERY, asked, answer)
    assert len(leaves_of_record(record)) > 1
    (decision,) = await decided(kept, query_id=record.id)
    assert list(decision.seen) == list(answer.levels)


async def test_what_was_not_answered_so_is_found(kept: Serving) -> None:
    sku = await kept.put(3)
    asked = stock.GetStockRequest(skus=[sku])
    answer = await kept.stock.GetStock(asked)
    answer.levels[0].available += 1
    record = await audit(kept, AuditKind.QUERY, asked, answer)
    (decision,) = await decided(kept, query_id=record.id)
    assert not decision.reproduced


async def test_the_story_of_a_reservation_has_all_of_it_in_order(kept: Serving) -> None:
    sku, other, name = await kept.put(3), await kept.put(1), unique()
    for skus in ([sku, other], [other]):
        query = stock.GetStockRequest(skus=skus, context=WHO)
        await audit(kept, AuditKind.QUERY, query, await kept.stock.GetStock(query))
    asked = stock.ReserveRequest(reservation_id=name, lines=lines((sku, 4)), context=WHO)
    refused = await kept.stock.Reserve(asked)
    assert refused.HasField("refusal")
    await audit(kept, AuditKind.REFUSAL, asked, refused)
    asked.lines[0].quantity, asked.ttl.seconds = 2, 60
    held = await kept.stock.Reserve(asked)
    await kept.commit(name)
    saw, no, reserved, committed = await decided(kept, reservation_id=name)
    assert [level.sku for level in saw.seen] == [sku, other]
    assert no.refusal == refused.refusal
    assert (no.context, list(no.seen)) == (WHO, list(refused.levels))
    assert reserved.entry.reservation == held.reservation
    assert committed.entry.kind == ledger.ENTRY_KIND_COMMIT
    assert [each.reproduced for each in (saw, no, reserved, committed)] == [True] * 4


async def refusal_of(server: Serving, reason: types.RefusalReason) -> tuple[Any, Any]:
    """Return a request and the refusal of this reason that it answered."""
    sku = await server.put(100)
    request = stock.ReserveRequest(reservation_id=unique(), lines=lines((sku, 1)))
    if reason == types.REFUSAL_REASON_OUT_OF_STOCK:
        await server.reserve(sku, 2, ttl=seconds(60))
        request.lines.add(sku=sku, quantity=1, location="nowhere")
    elif reason == types.REFUSAL_REASON_STOCK_CHANGED:
        request.if_sequence = 1
    elif reason == types.REFUSAL_REASON_HOLD_BUDGET:
        request.lines[0].quantity = 51
    elif reason == types.REFUSAL_REASON_CHANNEL_QUOTA:
        none = [inventory.ChannelQuota(channel="web", quota=0)]
        await server.put(sku=sku, channels=none)
        request.context.channel = "web"
    return request, await server.stock.Reserve(request)


@pytest.mark.parametrize(
    "reason",
    [
        types.REFUSAL_REASON_OUT_OF_STOCK,
        types.REFUSAL_REASON_STOCK_CHANGED,
        types.REFUSAL_REASON_CHANNEL_QUOTA,
        types.REFUSAL_REASON_HOLD_BUDGET,
    ],
)
async def test_a_refusal_is_refused_again(kept: Serving, reason: types.RefusalReason) -> None:
    asked, answer = await refusal_of(kept, reason)
    assert answer.refusal.reason == reason
    await audit(kept, AuditKind.REFUSAL, asked, answer)
    await kept.put(1)
    (decision,) = await decided(kept, reservation_id=asked.reservation_id)
    assert decision.reproduced
    answer.refusal.lines[0].available += 1
    asked.reservation_id = unique()
    await audit(kept, AuditKind.REFUSAL, asked, answer)
    (decision,) = await decided(kept, reservation_id=asked.reservation_id)
    assert not decision.reproduced


async def test_an_error_is_answered_again(kept: Serving) -> None:
    sku = await kept.put(1)
    name = (await kept.reserve(sku)).reservation.reservation_id
    await kept.stock.Release(stock.ReleaseRequest(reservation_id=name))
    asked = stock.CommitRequest(reservation_id=name)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await kept.stock.Commit(asked)
    trailers: dict[str, Any] = dict(caught.value.trailing_metadata() or ())
    status = Status.FromString(trailers["grpc-status-details-bin"])
    await audit(kept, AuditKind.ERROR, asked, status, time_ms=1)
    _reserved, _released, answered = await decided(kept, reservation_id=name)
    assert (answered.error, answered.reproduced) == (status, True)


async def test_a_query_that_never_was_is_unknown(kept: Serving) -> None:
    unknown = await failure(decided(kept, query_id=unique()))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_RESERVATION")
