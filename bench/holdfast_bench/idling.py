"""Hold watches open from a process of its own that costs next to nothing.

    python -m holdfast_bench.idling TARGET STREAMS CONNECTIONS SKU HEARTBEAT_S read|stall

Watchers live on other machines; a gRPC client for ten thousand of them would take the processor
that is measured here.  So this speaks HTTP/2 frames itself: it opens the streams, and drops what
arrives, or stops reading.  It prints the seconds that opening took, and ends with standard input.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from struct import pack, unpack_from
from typing import cast

import uvloop

from holdfast.v1 import stock_pb2 as pb

# RFC 9113: frame types, flags, settings.
DATA, HEADERS, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4
FRAME_HEAD_SIZE = 9
WINDOW_MAX = 2**31 - 1
WINDOW_DEFAULT = 65_535
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """Return one frame."""
    return pack("!I", len(body))[1:] + pack("!BBI", kind, flags, stream) + body


def header(name: str, value: str) -> bytes:
    """Return a header field: literal, not indexed, not compressed (RFC 7541, 6.2.2)."""
    text = (name.encode(), value.encode())
    return b"\0" + b"".join(bytes((len(part),)) + part for part in text)


HEAD = b"".join(
    header(name, value)
    for name, value in (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/holdfast.v1.StockService/Watch"),
        (":authority", "bench"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
)


class Connection(asyncio.Protocol):
    """One connection with its streams; `opened` is done when each has had its first message."""

    def __init__(self, streams: int, request: bytes, *, is_stalled: bool) -> None:
        self._numbers = range(1, 2 * streams, 2)
        self._request = pack("!BI", 0, len(request)) + request
        self._is_stalled = is_stalled
        self._waiting = set(self._numbers)
        self._received = b""
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not of that class
        window = WINDOW_DEFAULT if self._is_stalled else WINDOW_MAX
        settings = pack("!HI", INITIAL_WINDOW_SIZE, window)
        self._transport.write(PREFACE + frame(SETTINGS, 0, 0, settings))
        self._transport.write(frame(WINDOW_UPDATE, 0, 0, pack("!I", WINDOW_MAX - WINDOW_DEFAULT)))
        for number in self._numbers:
            self._transport.write(frame(HEADERS, END_HEADERS, number, HEAD))
            self._transport.write(frame(DATA, END_STREAM, number, self._request))

    def data_received(self, data: bytes) -> None:
        received, at = self._received + data, 0
        while len(received) - at >= FRAME_HEAD_SIZE:
            size = int.from_bytes(received[at : at + 3])
            kind, flags, stream = unpack_from("!BBI", received, at + 3)
            end = at + FRAME_HEAD_SIZE + size
            if end > len(received):
                break
            self._take(kind, flags, stream, received[at + FRAME_HEAD_SIZE : end])
            at = end
        self._received = received[at:]

    def connection_lost(self, _fault: Exception | None) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionError("the server closed the connection"))

    def _take(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == DATA and stream in self._waiting:
            self._waiting.discard(stream)
            if not self._waiting:
                self.opened.set_result(None)
                if self._is_stalled:
                    self._transport.pause_reading()
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self._transport.write(frame(kind, ACK, 0, body if kind == PING else b""))
        elif kind == GOAWAY:
            raise ConnectionError(f"the server sent us away: {body!r}")


async def _main(target: str, streams: int, connections: int, *watch: str) -> None:
    sku, heartbeat_s, how = watch
    request = pb.WatchRequest(skus=[sku] if sku else [])
    request.heartbeat.FromSeconds(int(heartbeat_s))
    data = request.SerializeToString()
    host, _, port = target.rpartition(":")
    loop, began = asyncio.get_running_loop(), time.perf_counter()
    share = streams // connections
    opened = []
    for _ in range(connections):
        connection = Connection(share, data, is_stalled=how == "stall")
        await loop.create_connection(lambda one=connection: one, host, int(port))  # type: ignore[misc]
        opened.append(connection.opened)
    await asyncio.gather(*opened)
    print(time.perf_counter() - began, flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    os._exit(0)


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:]))
