"""ReplayDecision of what made no entry: queries, refusals and errors from the audit trail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import ledger_pb2 as ledger
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.decisions import decisions_of, queries_of
from holdfast_server.ledger.past import Past
from tests.serving import Serving, failure, lines, outcome, seconds, serving, unique, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHO = types.Context(agent_id="agent 7", session_id="s-1", rationale="cheapest")
BUDGET = 50


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kept(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A server with an archive and a hold budget."""
    data = str(tmp_path_factory.mktemp("data"))
    settings: dict[str, Any] = {"durability": "memory", "archive": "sqlite", "hold_budget": BUDGET}
    async with serving(data=data, **settings) as server:
        yield server


async def decided(server: Serving, count: int, **subject: str) -> list[ledger.Decision]:
    """Return the decisions about a subject, once there are so many."""
    found: list[ledger.Decision] = []

    async def is_there() -> bool:
        request = ledger.ReplayDecisionRequest(**subject)
        answer = await outcome(server.ledger.ReplayDecision(request))
        found[:] = getattr(answer, "decisions", [])
        return len(found) >= count

    await until(is_there)
    assert len(found) == count
    return found


async def test_a_query_is_shown_with_what_it_answered_and_answered_again(kept: Serving) -> None:
    skus = [await kept.put(3, title="A thing"), await kept.put(4)]
    asked = stock.GetStockRequest(skus=[*skus, "no such"], context=WHO)
    answer = await kept.stock.GetStock(asked)
    await kept.adjust(skus[0], 5)
    (decision,) = await decided(kept, 1, query_id=answer.query_id)
    assert (decision.query_id, decision.context) == (answer.query_id, WHO)
    assert list(decision.seen) == list(answer.levels)
    assert [item.title for item in decision.items] == ["A thing", ""]
    assert decision.reproduced
    assert not decision.HasField("entry")


async def test_a_large_query_is_put_together_from_its_parts(kept: Serving) -> None:
    skus = [await kept.put() for _ in range(3)]
    skus[1:1] = [f"no {number}" for number in range(200)]
    answer = await kept.stock.GetStock(stock.GetStockRequest(skus=skus))
    (decision,) = await decided(kept, 1, query_id=answer.query_id)
    assert list(decision.seen) == list(answer.levels)
    assert decision.reproduced


async def test_the_story_of_a_reservation_has_all_of_it_in_order(kept: Serving) -> None:
    sku, other, name = await kept.put(3), await kept.put(1), unique()
    for skus in ([sku, other], [other]):
        await kept.stock.GetStock(stock.GetStockRequest(skus=skus, context=WHO))
    asked = stock.ReserveRequest(reservation_id=name, lines=lines((sku, 4)), context=WHO)
    refused = await kept.stock.Reserve(asked)
    assert refused.HasField("refusal")
    asked.lines[0].quantity, asked.ttl.seconds = 2, 60
    held = await kept.stock.Reserve(asked)
    await kept.commit(name)
    saw, no, reserved, committed = await decided(kept, 4, reservation_id=name)
    assert [level.sku for level in saw.seen] == [sku, other]
    assert no.refusal == refused.refusal
    assert (no.context, list(no.seen)) == (WHO, list(refused.levels))
    assert reserved.entry.reservation == held.reservation
    assert committed.entry.kind == ledger.ENTRY_KIND_COMMIT
    assert [each.reproduced for each in (saw, no, reserved, committed)] == [True] * 4


async def refused_for(server: Serving, reason: types.RefusalReason) -> stock.ReserveRequest:
    """Return a request that is refused for a reason."""
    sku = await server.put(100)
    request = stock.ReserveRequest(reservation_id=unique(), lines=lines((sku, 1)))
    if reason == types.REFUSAL_REASON_OUT_OF_STOCK:
        await server.reserve(sku, 2, ttl=seconds(60))
        request.lines.add(sku=sku, quantity=1, location="nowhere")
    elif reason == types.REFUSAL_REASON_STOCK_CHANGED:
        request.if_sequence = 1
    elif reason == types.REFUSAL_REASON_HOLD_BUDGET:
        request.lines[0].quantity = BUDGET + 1
    else:
        none = [inventory.ChannelQuota(channel="web", quota=0)]
        await server.put(sku=sku, channels=none)
        request.context.channel = "web"
    return request


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
    asked = await refused_for(kept, reason)
    answer = await kept.stock.Reserve(asked)
    assert answer.refusal.reason == reason
    await kept.put(1)
    (decision,) = await decided(kept, 1, reservation_id=asked.reservation_id)
    assert decision.refusal == answer.refusal
    assert decision.reproduced


async def test_errors_are_answered_again(kept: Serving) -> None:
    sku = await kept.put(5)
    name = (await kept.reserve(sku, 2)).reservation.reservation_id
    calls = (
        kept.commit(name, lines=lines((sku, 3))),
        kept.stock.Extend(stock.ExtendRequest(reservation_id=name, ttl=seconds(80_000))),
        kept.reserve(sku, 1, reservation_id=name),
    )
    told = [(await failure(call)).reason for call in calls]
    await kept.stock.Release(stock.ReleaseRequest(reservation_id=name))
    told.append((await failure(kept.commit(name))).reason)
    found = await decided(kept, 6, reservation_id=name)
    answered = [each.error for each in found if each.HasField("error")]
    assert told == ["EXCEEDS_HOLD", "INVALID_ARGUMENT", *told[2:]]
    assert len(answered) == len(told)
    assert all(each.reproduced for each in found)


async def test_a_query_that_never_was_is_unknown(kept: Serving) -> None:
    request = ledger.ReplayDecisionRequest(query_id=unique())
    unknown = await failure(kept.ledger.ReplayDecision(request))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_RESERVATION")


class Altered(Archive):
    """An archive whose records of queries say one unit more than was answered."""

    async def queries_of(self, name: str) -> list[Any]:
        """Return the records of a query or of refusals, altered."""
        return [_more(record) for record in await super().queries_of(name)]


def _more(record: Any) -> Any:
    *head, skus, rows = record.answered
    (row,) = rows
    changed = [bytes([row[0] + 1]) + row[1:]]
    if head:
        code, (line,) = head
        line = [*line[:3], line[3] + 1, line[4]]
        return record._replace(answered=(code, (line,), skus, changed))
    return record._replace(answered=(skus, changed))


async def test_what_was_not_answered_so_is_found(kept: Serving) -> None:
    sku = await kept.put(3)
    query_id = (await kept.stock.GetStock(stock.GetStockRequest(skus=[sku]))).query_id
    asked = stock.ReserveRequest(reservation_id=unique(), lines=lines((sku, 4)))
    await kept.stock.Reserve(asked)
    await decided(kept, 2, reservation_id=asked.reservation_id)
    assert kept.server.kept is not None
    past = Past(Altered(kept.server.kept.archive._database))
    _asked, refused = await decisions_of(past, asked.reservation_id)
    (told,) = await queries_of(past, query_id)
    assert not refused.is_reproduced
    assert not told.is_reproduced
