"""Find out what listens at a target, and put what a run sells on sale there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import grpc

from holdfast import AsyncClient, HoldfastError, Row
from holdfast.status import error_of, status_of
from holdfast.v1 import ledger_pb2
from holdfast.v1 import stock_pb2 as pb
from holdfast_bench.harness.faults import TargetUnusable

PROBE_S_MAX = 3.0
CALL_S_MAX = 10.0
LOAD_S_MAX = 300.0
LOCATION = "default"
# RFC 9113, 3.4: what a client says first; an empty SETTINGS frame; the type of the answer's frame.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
FRAME_HEAD_SIZE, SETTINGS = 9, 4
_UNIMPLEMENTED = grpc.StatusCode.UNIMPLEMENTED


def address(target: str) -> tuple[str, int]:
    """Return host and port.  Raises ValueError for what is not HOST:PORT."""
    host, separator, port = target.rpartition(":")
    if not (separator and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"must be HOST:PORT, not {target!r}")
    return host.strip("[]"), int(port)


async def probe(target: str) -> None:
    """Check that HTTP/2 is spoken at a target.  Raises TargetUnusable, saying what is instead."""
    host, port = address(target)
    try:
        async with asyncio.timeout(PROBE_S_MAX):
            reader, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        raise TargetUnusable(f"{target}: no connection in {PROBE_S_MAX:g} s") from None
    except OSError as fault:
        raise TargetUnusable(f"{target}: cannot connect: {fault.strerror or fault}") from fault
    writer.write(PREFACE)
    try:
        problem = await _problem(reader)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    if problem:
        raise TargetUnusable(f"{target}: {problem}")


async def _problem(reader: asyncio.StreamReader) -> str:
    """Return what is wrong with the answer to the preface of HTTP/2; nothing is wrong: empty."""
    try:
        async with asyncio.timeout(PROBE_S_MAX):
            head = await reader.readexactly(FRAME_HEAD_SIZE)
    except TimeoutError:
        return "something listens, but says nothing to HTTP/2: no gRPC server"
    except asyncio.IncompleteReadError as fault:
        return f"the connection was closed after {fault.partial!r}: no gRPC server in plain text"
    except OSError:
        return "the connection was reset: no gRPC server in plain text"
    if head.startswith(b"HTTP/"):
        return f"speaks HTTP/1 ({head!r}...), and gRPC needs HTTP/2"
    return "" if head[3] == SETTINGS else f"answers {head!r}, not HTTP/2: no gRPC server"


async def has_ledger(client: AsyncClient) -> bool:
    """Tell whether a target keeps a ledger that can be audited.

    Raises TargetUnusable for one without a stock service, or one that does not let us in.
    """
    stubs, metadata = client.stubs, client.metadata
    try:
        asked = pb.GetStockRequest(skus=["holdfast-bench-probe"])
        await stubs.stock.GetStock(asked, timeout=CALL_S_MAX, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        if error.code() is _UNIMPLEMENTED:
            what = "speaks gRPC, but has no holdfast.v1.StockService"
            raise TargetUnusable(f"{client.target}: {what}") from error
        said = error_of(status_of(error))
        reason = said.reason or error.code().name
        raise TargetUnusable(f"{client.target}: GetStock failed: {reason}: {said}") from error
    try:
        head = ledger_pb2.GetHeadRequest()
        await stubs.ledger.GetHead(head, timeout=CALL_S_MAX, metadata=metadata)
    except grpc.aio.AioRpcError as error:
        if error.code() is _UNIMPLEMENTED:
            return False
        said = error_of(status_of(error))
        raise TargetUnusable(f"{client.target}: GetHead failed: {said}") from error
    return True


async def put_on_sale(client: AsyncClient, skus: Sequence[str], units: int) -> bool:
    """Make items with so many units each; False where the target makes its own.

    Raises TargetUnusable for items that it did not take.
    """
    rows = (Row(sku, {LOCATION: units}) for sku in skus)
    try:
        done = await client.import_items(rows, timeout=LOAD_S_MAX)
    except HoldfastError as error:
        if getattr(error.__cause__, "code", lambda: None)() is _UNIMPLEMENTED:
            return False
        raise TargetUnusable(f"{client.target}: cannot put items on sale: {error}") from error
    if done.failed:
        first = done.errors[0]
        raise TargetUnusable(
            f"{client.target}: {done.failed} of {len(skus)} items were not taken; {first.sku}: "
            f"{first.message}"
        )
    return True
