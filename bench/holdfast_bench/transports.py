"""Compare grpcio versions, and generic with registered handlers, at an empty echo.

    python transports.py PYTHON...      one interpreter for each grpcio version to compare

Needs grpcio and uvloop, and nothing of Holdfast.  Both ends of a measurement run the same version,
in two processes.  Interpreters take turns within a round, so that noise falls on all of them alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from statistics import median
from typing import Any

import grpc
import uvloop

# As many methods as the server has: the accept loop of some versions pays for each of them.
METHODS = 28
CHANNELS, CALLERS = 4, 64
WARM_S, MEASURED_S = 0.5, 2.5
ROUNDS = 5
# Since 1.80 EventEngine does the input and output of Python too, unless it is told not to.
NO_EVENT_ENGINE = {"GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener"}
MODES: dict[str, dict[str, str]] = {
    "generic": {},
    "registered": {},
    "generic, no EventEngine": NO_EVENT_ENGINE,
}
SERVICE = "holdfast.bench.Echo"
PAYLOAD, FRAME = bytes(100), bytes(8_000)

Call = Callable[[], Awaitable[None]]


async def _echo(request: bytes, _context: Any) -> bytes:
    return request


async def _echo_stream(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def _cpu(_request: bytes, _context: Any) -> bytes:
    return repr(time.process_time()).encode()


async def serve(mode: str) -> None:
    """Serve until standard input ends; print the port first."""
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    unary: Any = grpc.unary_unary_rpc_method_handler
    methods = {f"Echo{number:02d}": unary(_echo) for number in range(METHODS)}
    methods["Stream"] = grpc.stream_stream_rpc_method_handler(_echo_stream)
    methods["Cpu"] = unary(_cpu)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    if mode == "registered":
        server.add_registered_method_handlers(SERVICE, methods)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)


@contextlib.contextmanager
def _served(mode: str) -> Iterator[str]:
    """Run a server of this interpreter's grpcio in a process of its own."""
    command = [sys.executable, __file__, "--serve", mode]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        yield f"127.0.0.1:{server.stdout.readline().strip()}"
        server.communicate()


async def _rate(calls: list[Call], cpu: Callable[[], Awaitable[float]]) -> dict[str, float]:
    """Repeat every call concurrently; return calls a second and CPU of both ends in us a call."""
    count, ends_at = 0, 0.0

    async def repeat(call: Call) -> None:
        nonlocal count
        while time.perf_counter() < ends_at:
            await call()
            count += 1

    for seconds in (WARM_S, MEASURED_S):
        count, began, ends_at = 0, time.perf_counter(), time.perf_counter() + seconds
        server_cpu, client_cpu = await cpu(), time.process_time()
        await asyncio.gather(*(repeat(call) for call in calls))
        elapsed = time.perf_counter() - began
        server_cpu, client_cpu = await cpu() - server_cpu, time.process_time() - client_cpu
    return {
        "per_s": count / elapsed,
        "server_us": server_cpu / count * 1e6,
        "client_us": client_cpu / count * 1e6,
    }


def _unary(channel: Any) -> Call:
    # As generated stubs call: registered at the client, whatever the server does.
    method = channel.unary_unary(f"/{SERVICE}/Echo00", _registered_method=True)

    async def call() -> None:
        await method(PAYLOAD)

    return call


def _frames(stream: Any) -> Call:
    async def call() -> None:
        await stream.write(FRAME)
        await stream.read()

    return call


async def measure(target: str) -> dict[str, dict[str, float]]:
    """Return the rates of unary calls and of frames on streams."""
    async with contextlib.AsyncExitStack() as stack:
        channels: list[Any] = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(CHANNELS)
        ]
        read_cpu = channels[0].unary_unary(f"/{SERVICE}/Cpu")

        async def cpu() -> float:
            return float(await read_cpu(b""))

        streams = [channel.stream_stream(f"/{SERVICE}/Stream")() for channel in channels]
        callers = [_unary(channel) for channel in channels] * (CALLERS // CHANNELS)
        rates = {
            "unary": await _rate(callers, cpu),
            "stream": await _rate([_frames(stream) for stream in streams], cpu),
        }
        for stream in streams:
            await stream.done_writing()
        return rates


def once(mode: str) -> None:
    """Measure this interpreter's grpcio and print the result as JSON."""
    with _served(mode) as target:
        print(json.dumps({"version": grpc.__version__, **uvloop.run(measure(target))}))


def compare(pythons: list[str]) -> None:
    """Measure every interpreter in both modes, in turns, and print the medians."""
    found: dict[tuple[str, str], list[Any]] = {}
    for _round in range(ROUNDS):
        for python in pythons:
            for mode, variables in MODES.items():
                command = [python, __file__, "--once", mode]
                environment = {**os.environ, "GRPC_VERBOSITY": "ERROR", **variables}
                output = subprocess.check_output(command, text=True, env=environment)
                result = json.loads(output)
                found.setdefault((result.pop("version"), mode), []).append(result)
    print(
        "| grpcio | handlers | unary/s (min..max) | server us | client us | "
        "frames/s (min..max) | server us | client us |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for (version, mode), results in found.items():
        cells = [cell for name in ("unary", "stream") for cell in _cells(results, name)]
        print("|", " | ".join((version, mode, *cells)), "|")


def _cells(results: list[Any], name: str) -> list[str]:
    rates = [result[name]["per_s"] for result in results]
    server, client = (
        median(result[name][end] for result in results) for end in ("server_us", "client_us")
    )
    spread = f"{median(rates):,.0f} ({min(rates):,.0f}..{max(rates):,.0f})"
    return [spread, f"{server:.0f}", f"{client:.0f}"]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        uvloop.run(serve(sys.argv[2]))
    elif sys.argv[1:2] == ["--once"]:
        once(sys.argv[2])
    elif sys.argv[1:]:
        compare(sys.argv[1:])
    else:
        sys.exit(__doc__)
