"""Guard the data directory of an embedded Valkey: claimed by one server, free of orphans.

What guards it:

- `holdfast.lock`: flock held by the serving process for its whole life, so two never share it.
- PR_SET_PDEATHSIG (Linux): Valkey gets SIGTERM when its server dies, by SIGKILL too.
- `valkey.sock`, `valkey.pid`: how the next server finds and ends a Valkey that outlived its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Sequence
from io import BufferedWriter, FileIO
from pathlib import Path

POLL_MS = 20
REPLY_TIMEOUT_MS = 1_000
LOG_BYTES_MAX = 4 << 20
PROBE_BYTES = 64 << 10
SOCKET_PATH_BYTES_MAX = 103  # sun_path less its NUL on macOS; Linux has 107


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


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def claim(path: Path) -> FileIO:
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


def open_log(data_dir: Path) -> BufferedWriter:
    log = data_dir / "valkey.log"
    if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
        log.replace(data_dir / "valkey.log.1")
    return open(log, "ab", opener=_private)


def check_writable(data_dir: Path) -> None:
    """Raise OSError if the disk is full or read-only, which a log on it could not tell."""
    probe = data_dir / "write.probe"
    try:
        probe.write_bytes(bytes(PROBE_BYTES))
    finally:
        probe.unlink(missing_ok=True)


def recorded_socket(data_dir: Path) -> Path:
    """Return where an earlier Valkey of the directory listened, or would have by default."""
    with contextlib.suppress(OSError):
        recorded = Path(os.fsdecode((data_dir / "valkey.socket").read_bytes()))
        if recorded.is_absolute() and recorded.name == "valkey.sock":
            return recorded
    return data_dir / "valkey.sock"


def place_socket(data_dir: Path, stale: Path) -> Path:
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


async def ask(socket_path: Path, command: bytes) -> bytes | None:
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


async def end_orphan(data_dir: Path, socket_path: Path, *, timeout_ms: int) -> bool:
    """Shut down a Valkey that outlived its server; tell whether there was one.

    Only one whose own `dir` is this directory is asked to stop, and none is ever signalled.
    """
    deadline, found = time.monotonic() + timeout_ms / 1000, False
    while True:
        answer, pid = await ask(socket_path, b"CONFIG GET dir"), _pid_living_in(data_dir)
        if answer is None and pid is None:
            return found
        if answer and os.fsencode(data_dir) not in answer.split(b"\r\n"):
            raise EmbeddedStartFailed(data_dir, f"{socket_path} serves another directory")
        if time.monotonic() > deadline:
            reason = f"an earlier valkey-server (pid {pid or 'unknown'}) is in it and does not stop"
            raise EmbeddedStartFailed(data_dir, reason)
        if answer:
            await ask(socket_path, b"SHUTDOWN NOSAVE")
        found = True
        await asyncio.sleep(POLL_MS / 1000)


def _pid_living_in(data_dir: Path) -> int | None:
    """Return the pid in the pidfile if that process still has the directory as its own."""
    try:
        pid = int((data_dir / "valkey.pid").read_text())
        return pid if Path(f"/proc/{pid}/cwd").samefile(data_dir) else None
    except (OSError, ValueError):  # ended, another user's, or no /proc: the socket decides
        return None
