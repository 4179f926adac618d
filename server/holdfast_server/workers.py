"""Several server processes on one port, over one store.

Workers are started as new programs, never forked: gRPC does not survive a fork once it runs.  The
kernel spreads connections over them (SO_REUSEPORT).  Settings go over standard input, so that no
secret stands in a process list.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sys
from dataclasses import asdict, replace

import structlog
import uvloop

from holdfast_server import logs
from holdfast_server.app import embedded_store, serve
from holdfast_server.config import ServerConfig

log = structlog.get_logger(__name__)

RESTART_PAUSE_S = 0.5
STOP_GRACE_S = 2.0  # what a worker may need beyond the drain timeout


async def serve_with_workers(config: ServerConfig) -> None:
    """Run `config.workers` processes until SIGTERM or SIGINT; restart one that dies.

    Raises OSError when the address is taken.
    """
    with _Reservation(config.listen) as listen:
        async with embedded_store(config) as valkey:
            is_kept = config.archive != "off" and config.on_rollback == "recover"
            is_memory = valkey is not None and config.durability == "memory" and not is_kept
            settings = replace(
                config,
                listen=listen,
                redis_url=valkey.url if valkey else config.redis_url,
                on_rollback="new-epoch" if is_memory else config.on_rollback,
                workers=1,
            )
            stopping = asyncio.Event()
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stopping.set)
            async with asyncio.TaskGroup() as group:
                for index in range(config.workers):
                    group.create_task(_keep_running(index, settings, stopping))


class _Reservation:
    """Holds the port without listening, so that `:0` means one port for all workers."""

    def __init__(self, listen: str) -> None:
        host, _, port = listen.rpartition(":")
        self._host = host.strip("[]")
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._port = int(port)

    def __enter__(self) -> str:
        self._socket.bind((self._host, self._port))
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._socket.getsockname()[1]}"

    def __exit__(self, *_exc: object) -> None:
        self._socket.close()


async def _keep_running(index: int, config: ServerConfig, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "holdfast_server.workers", stdin=asyncio.subprocess.PIPE
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(config)).encode() + b"\n")
        ended = asyncio.create_task(process.wait())
        stopped = asyncio.create_task(stopping.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if stopping.is_set() and not ended.done():
            process.terminate()
            await asyncio.wait({ended}, timeout=config.drain_timeout_ms / 1000 + STOP_GRACE_S)
        if not ended.done():
            log.error("worker does not stop, killing it", worker=index)
            process.kill()
        code = await ended
        if not stopping.is_set():
            log.error("worker died, starting another", worker=index, exit_status=code)
            await asyncio.sleep(RESTART_PAUSE_S)


async def _end_with_parent() -> None:
    """Ask for a drain when standard input ends: the parent has died."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    signal.raise_signal(signal.SIGTERM)


async def _work(config: ServerConfig) -> None:
    orphaned = asyncio.create_task(_end_with_parent())
    try:
        await serve(config, share_port=True)
    finally:
        orphaned.cancel()


def main() -> None:
    """Run one worker with the settings on the first line of standard input."""
    with open(sys.stdin.fileno(), "rb", buffering=0, closefd=False) as settings:
        config = ServerConfig(**json.loads(settings.readline()))
    logs.configure(level=config.log_level, style=config.log_format)
    uvloop.run(_work(config))


if __name__ == "__main__":
    main()
