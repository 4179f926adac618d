"""Write the files of a log so that a crash leaves the old one or the new one, never a torn one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from holdfast_server.ledger.tiles import (
    ENTRIES,
    HASH_BYTES,
    TILE_WIDTH,
    Level,
    path_of,
    width_of,
)

FILE_MODE, DIRECTORY_MODE = 0o640, 0o750
SCRATCH = ".writing"


class LogFiles:
    """A directory of files, of one writer at a time for one scratch name.

    What is written is complete under its name at once, and on the disk after `sync`.
    """

    def __init__(self, root: Path, *, scratch: str = SCRATCH) -> None:
        self.root = root
        self._scratch = root / scratch
        self._unsynced: list[int] = []
        self._directories: set[Path] = set()

    def read(self, path: str) -> bytes | None:
        """Return the bytes of a file; None where there is none."""
        try:
            return (self.root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def tile(self, level: Level, number: int, size: int) -> bytes | None:
        """Return a tile as of a tree's size, or an entry bundle that holds at least what it must.

        It is read from its partial form, or else from the full one that has replaced that.
        """
        width = width_of(level, number, size)
        raw = self.read(path_of(level, number, width))
        if raw is None and width < TILE_WIDTH:
            raw = self.read(path_of(level, number))
            return raw if raw is None or level == ENTRIES else raw[: width * HASH_BYTES]
        return raw

    def write(self, path: str, data: bytes) -> None:
        """Put a file into its place.  Raises OSError, and the place is as before."""
        target = self.root / path
        self._make_directory(target.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        descriptor = os.open(self._scratch, flags, FILE_MODE)
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
            self._scratch.replace(target)
        except BaseException:
            os.close(descriptor)
            self._scratch.unlink(missing_ok=True)
            raise
        self._unsynced.append(descriptor)
        self._directories.add(target.parent)

    def sync(self) -> None:
        """Bring everything written since the last time to the disk.  Raises OSError."""
        try:
            for descriptor in self._unsynced:
                os.fsync(descriptor)
            for directory in self._directories:
                _sync_directory(directory)
        finally:
            self.close()

    def close(self) -> None:
        """Forget what was written since the last `sync`: it may not be on the disk."""
        for descriptor in self._unsynced:
            os.close(descriptor)
        self._unsynced.clear()
        self._directories.clear()

    def put(self, path: str, data: bytes) -> None:
        """Write one file and bring it to the disk."""
        self.write(path, data)
        self.sync()

    def drop_partials(self, path: str) -> None:
        """Remove the partial forms of a tile that is full."""
        folder = self.root / f"{path}.p"
        with suppress(FileNotFoundError):
            for partial in folder.iterdir():
                partial.unlink()
            folder.rmdir()

    def _make_directory(self, directory: Path) -> None:
        if directory.is_dir():
            return
        self._make_directory(directory.parent)
        directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        self._directories.add(directory.parent)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
