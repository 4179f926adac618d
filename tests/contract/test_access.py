"""Who may call what, over the wire; and what a server says about itself."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import ledger_pb2 as ledger
from holdfast.v1 import stock_pb2 as stock
from tests.serving import COMMITTED, Serving, failure, lines, serving, unique

pytestmark = pytest.mark.asyncio(loop_scope="module")

Metadata = tuple[tuple[str, str], ...]
ROLES = ("agent", "connector", "auditor", "operator")
SKU = "guarded"
UNAUTHENTICATED = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", "holdfast")
DENIED = (grpc.StatusCode.PERMISSION_DENIED, "NOT_OWNER", "holdfast")


def bearer(token: str) -> Metadata:
    return (("authorization", f"Bearer {token}"),)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Serving]:
    """A server that knows a principal of each role by its token, `<role>-token`, and one item."""
    folder: Path = tmp_path_factory.mktemp("guarded")
    entries = [
        f'[principals.{name}]\ntoken_sha256 = "{sha256(f"{name}-token".encode()).hexdigest()}"\n'
        f'role = "{role}"\n'
        for name, role in (*zip(ROLES, ROLES, strict=True), ("other", "agent"))
    ]
    (folder / "principals.toml").write_text("".join(entries))
    settings = {"data": str(folder / "data"), "durability": "memory", "reflection": True}
    async with serving(**settings, principals=str(folder / "principals.toml")) as server:
        put = inventory.PutItemRequest(item=inventory.Item(sku=SKU))
        await server.inventory.PutItem(put, metadata=bearer("connector-token"))
        adjust = inventory.AdjustStockRequest(sku=SKU, delta=100)
        await server.inventory.AdjustStock(adjust, metadata=bearer("connector-token"))
        yield server


@pytest.mark.parametrize(
    "metadata",
    [(), bearer("wrong"), bearer(""), (("authorization", "Basic agent-token"),)],
    ids=["none", "unknown", "empty", "another scheme"],
)
async def test_without_a_good_token_nothing_is_answered(
    guarded: Serving, metadata: Metadata
) -> None:
    for call in CALLS.values():
        assert (await failure(call(guarded, metadata))).kind == UNAUTHENTICATED


async def test_the_word_of_a_caller_counts_for_nothing_where_tokens_do(guarded: Serving) -> None:
    metadata = (*bearer("agent-token"), ("holdfast-principal", "operator"))
    request = stock.ReserveRequest(lines=lines((SKU, 1)))
    answer = await guarded.stock.Reserve(request, metadata=metadata)
    assert answer.reservation.principal == "agent"


async def read(stream: AsyncIterable[Any]) -> list[Any]:
    return [message async for message in stream]


CLAIM = stock.ReserveRequest(lines=lines((SKU, 1)))
ADJUSTMENT = inventory.AdjustStockRequest(sku=SKU, delta=1)
CALLS: dict[str, Callable[[Serving, Metadata], Awaitable[Any]]] = {
    "Reserve": lambda to, who: to.stock.Reserve(CLAIM, metadata=who),
    "Pipeline": lambda to, who: read(to.stock.Pipeline(iter([]), metadata=who)),
    "AdjustStock": lambda to, who: to.inventory.AdjustStock(ADJUSTMENT, metadata=who),
    "Import": lambda to, who: to.inventory.Import(iter([]), metadata=who),
    "GetHead": lambda to, who: to.ledger.GetHead(ledger.GetHeadRequest(), metadata=who),
    "StreamEntries": lambda to, who: read(
        to.ledger.StreamEntries(ledger.StreamEntriesRequest(), metadata=who)
    ),
    "GetStock": lambda to, who: to.stock.GetStock(stock.GetStockRequest(skus=[SKU]), metadata=who),
}


@pytest.mark.parametrize(
    ("method", "allowed"),
    [
        ("Reserve", {"agent", "operator"}),
        ("Pipeline", {"agent", "operator"}),
        ("AdjustStock", {"connector", "operator"}),
        ("Import", {"connector", "operator"}),
        ("GetHead", {"auditor", "operator"}),
        ("StreamEntries", {"auditor", "operator"}),
        ("GetStock", set(ROLES)),
    ],
)
async def test_a_role_reaches_its_calls_and_no_others(
    guarded: Serving, method: str, allowed: set[str]
) -> None:
    for role in ROLES:
        call = CALLS[method](guarded, bearer(f"{role}-token"))
        if role in allowed:
            await call
        else:
            refused = await failure(call)
            assert (refused.kind, refused.metadata) == (DENIED, {"role": role})


async def test_an_operator_may_end_what_an_agent_reserved_and_another_agent_may_not(
    guarded: Serving,
) -> None:
    request = stock.ReserveRequest(reservation_id=unique(), lines=lines((SKU, 1)))
    await guarded.stock.Reserve(request, metadata=bearer("agent-token"))
    commit = stock.CommitRequest(reservation_id=request.reservation_id)
    refused = await failure(guarded.stock.Commit(commit, metadata=bearer("other-token")))
    assert refused.kind == DENIED
    answer = await guarded.stock.Commit(commit, metadata=bearer("operator-token"))
    assert answer.reservation.state == COMMITTED
    assert answer.reservation.principal == "agent"


# ---- Health and reflection ----


async def test_health_is_told_for_each_service_to_anybody(guarded: Serving) -> None:
    check = guarded.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    names = ("StockService", "InventoryService", "LedgerService")
    for service in ("", *(f"holdfast.v1.{name}" for name in names)):
        answer = await check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    unknown = health_pb2.HealthCheckRequest(service="holdfast.v1.NoService")
    assert (await failure(check(unknown))).code is grpc.StatusCode.NOT_FOUND


async def services_told(server: Serving) -> set[str]:
    channel: Any = server.channel  # its stubs are typed for channels of the other kind
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    answers = [answer async for answer in stub.ServerReflectionInfo(iter([request]))]
    return {service.name for service in answers[0].list_services_response.service}


async def test_reflection_is_served_only_where_it_is_asked_for(
    guarded: Serving, embedded: Serving
) -> None:
    assert {"holdfast.v1.StockService", "grpc.health.v1.Health"} <= await services_told(guarded)
    assert (await failure(services_told(embedded))).code is grpc.StatusCode.UNIMPLEMENTED
