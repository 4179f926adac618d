"""Every named check against a server that goes on serving: read as an auditor reads, then judge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc

from holdfast import AsyncClient
from holdfast.status import error_of, status_of
from holdfast.v1 import inventory_pb2, ledger_pb2, stock_pb2
from holdfast_server.checks.ends import exactly_one_end
from holdfast_server.checks.invariants import (
    Acknowledged,
    acknowledged_found,
    ledger_gapless,
    never_oversold,
    replay_equals_state,
)
from holdfast_server.checks.spool import Spool
from holdfast_server.checks.verdict import Verdict
from holdfast_server.checks.watching import watch_gapless

PAGE_SIZE = 1_000
PAGE_TIMEOUT_S = 30.0
LEDGER_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Observed:
    """What a server said of itself: the head, its items, a watch of them, then the ledger."""

    head: int
    items: Sequence[inventory_pb2.ItemEntry]
    streams: Sequence[Sequence[stock_pb2.WatchResponse]]
    entries: Spool


async def check_server(
    client: AsyncClient, acknowledged: Sequence[Acknowledged] = ()
) -> list[Verdict]:
    """Read everything from a server and return the verdict of every check.

    The server may be in use meanwhile.  `acknowledged` are operations that a client was told of.
    Raises holdfast.HoldfastError when the server cannot be read.
    """
    async with observed(client) as seen:
        return await asyncio.to_thread(judge, seen, acknowledged)


def judge(seen: Observed, acknowledged: Sequence[Acknowledged] = ()) -> list[Verdict]:
    """Return the verdict of every check over what was read."""
    verdicts = [
        never_oversold(seen.entries),
        exactly_one_end(seen.entries),
        ledger_gapless(seen.entries, head=seen.head),
        replay_equals_state(seen.entries, seen.items, head=seen.head),
        watch_gapless(seen.streams, seen.entries),
    ]
    if acknowledged:
        verdicts.append(acknowledged_found(seen.entries, acknowledged))
    return verdicts


@asynccontextmanager
async def observed(client: AsyncClient) -> AsyncIterator[Observed]:
    """Read a server's head, items, levels and ledger, in this order.

    Raises holdfast.HoldfastError.
    """
    with Spool() as entries:
        try:
            head = await _head(client)
            items = [item async for item in _items(client)]
            snapshot = await _watched(client, "")
            resumed = await _watched(client, snapshot[-1].resume_token if snapshot else "")
            async for entry in _entries(client):
                entries.append(entry)
        except grpc.aio.AioRpcError as error:
            raise error_of(status_of(error)) from error
        yield Observed(head, items, (snapshot, resumed), entries)


async def _head(client: AsyncClient) -> int:
    answer = await client.stubs.ledger.GetHead(
        ledger_pb2.GetHeadRequest(), timeout=PAGE_TIMEOUT_S, metadata=client.metadata
    )
    (cell,) = answer.cells
    return cell.sequence


async def _items(client: AsyncClient) -> AsyncIterator[inventory_pb2.ItemEntry]:
    request = inventory_pb2.ListItemsRequest(page_size=PAGE_SIZE)
    while True:
        page = await client.stubs.inventory.ListItems(
            request, timeout=PAGE_TIMEOUT_S, metadata=client.metadata
        )
        for entry in page.entries:
            yield entry
        request.page_token = page.next_page_token
        if not request.page_token:
            return


async def _watched(client: AsyncClient, token: str) -> list[stock_pb2.WatchResponse]:
    """Return what a watch of all items says first: the SNAPSHOT, or what came after the token."""
    request = stock_pb2.WatchRequest(resume_token=token)
    call = client.stubs.stock.Watch(request, timeout=LEDGER_TIMEOUT_S, metadata=client.metadata)
    messages = []
    async for message in call:
        messages.append(message)
        if message.resume_token:  # a SNAPSHOT has none before its last part
            break
    call.cancel()
    return messages


async def _entries(client: AsyncClient) -> AsyncIterator[ledger_pb2.LedgerEntry]:
    stream = client.stubs.ledger.StreamEntries(
        ledger_pb2.StreamEntriesRequest(), timeout=LEDGER_TIMEOUT_S, metadata=client.metadata
    )
    async for part in stream:
        for entry in part.entries:
            yield entry
