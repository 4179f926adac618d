"""A reader of a Watch: what it was told, and what it knows by now."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Self

import grpc

from holdfast.v1 import inventory_pb2 as inventory
from holdfast.v1 import stock_pb2 as stock
from holdfast.v1 import types_pb2 as types
from holdfast_server.checks import watch_gapless
from tests.serving import Client, Failure, failure_of_error, unique

SNAPSHOT = stock.WATCH_KIND_SNAPSHOT
CHANGES = stock.WATCH_KIND_CHANGES
HEARTBEAT = stock.WATCH_KIND_HEARTBEAT
END = stock.WATCH_KIND_END


class Watching:
    """One stream.  It ends with the block that it is used in."""

    def __init__(self, client: Client, *skus: str, token: str = "", **fields: Any) -> None:
        request = stock.WatchRequest(skus=skus, resume_token=token, **fields)
        self._call = client.stock.Watch(request)
        self.messages: list[stock.WatchResponse] = []
        self.levels: dict[str, types.StockLevel] = {}
        self.failure: Failure | None = None
        self.token = token

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._call.cancel()

    @property
    def kinds(self) -> list[int]:
        return [message.kind for message in self.messages]

    @property
    def through(self) -> int:
        return self.messages[-1].through_sequence if self.messages else 0

    async def read(self) -> stock.WatchResponse | None:
        """Return the next message; None when the stream has ended, `failure` then says how."""
        try:
            message: Any = await self._call.read()
        except grpc.aio.AioRpcError as error:
            self.failure = failure_of_error(error)
            return None
        if message is grpc.aio.EOF:
            return None
        self.messages.append(message)
        self.token = message.resume_token or self.token
        self.levels.update((level.sku, level) for level in message.levels)
        return message  # type: ignore[no-any-return]

    async def next(self) -> stock.WatchResponse:
        message = await self.read()
        assert message is not None, f"it ended: {self.failure}, {self.messages[-1:]}"
        return message

    async def first(self) -> Self:
        """Read the SNAPSHOT, or what comes first after a resume."""
        while not (await self.next()).resume_token:
            pass
        return self

    async def until(self, sequence: int) -> Self:
        """Read until the stream is complete up to a sequence."""
        while self.through < sequence:
            await self.next()
        return self

    async def until_kind(self, kind: stock.WatchKind) -> stock.WatchResponse:
        """Read until a message is of a kind."""
        while (message := await self.next()).kind != kind:
            pass
        return message

    async def ended(self) -> stock.WatchResponse:
        """Read to the end, and return the END."""
        while await self.read() is not None:
            pass
        assert self.messages[-1].kind == END, self.messages[-1]
        return self.messages[-1]


def timeless(level: types.StockLevel) -> types.StockLevel:
    """Return a level without the moment it was looked at."""
    value = types.StockLevel()
    value.CopyFrom(level)
    value.ClearField("as_of")
    return value


async def check_gapless(
    client: Client, *streams: Watching | Sequence[stock.WatchResponse], skus: Collection[str] = ()
) -> None:
    """Check what one reader was told on streams that resume each other."""
    told = [one.messages if isinstance(one, Watching) else one for one in streams]
    verdict = watch_gapless(told, await client.entries(), skus=skus)
    assert verdict.holds, verdict
    assert verdict.looked_at


async def put_many(client: Client, count: int, *, length: int = 0) -> list[str]:
    """Make items without stock, with SKUs of a length, and return their SKUs."""
    skus = [unique("many-").ljust(length, "x") for _ in range(count)]
    for first in range(0, count, 1_000):
        rows = [
            inventory.ImportRow(row=number, item=inventory.Item(sku=sku))
            for number, sku in enumerate(skus[first : first + 1_000])
        ]
        request = inventory.ImportRequest(request_id=unique(), rows=rows)
        await client.inventory.Import(iter([request]))
    return skus
