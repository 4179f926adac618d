"""Logs that tests make: leaves as an archive would give them, and a directory made of them."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from holdfast_server.ledger.log_writer import LogWriter

POLL_S = 0.005


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110  # what is waited for is on the disk
            await asyncio.sleep(POLL_S)


def leaf(index: int) -> bytes:
    """Return some bytes that no other index has, of lengths from 1 on."""
    return b"%d:" % index + bytes(index * 7 % 41)


class Reached(NamedTuple):
    """How far a stream is archived."""

    sequence: int


class MemoryArchive:
    """The part of an archive that logs are made from, and can be told to fail."""

    def __init__(self, leaves: Sequence[bytes] = ()) -> None:
        self.streams: dict[str, list[bytes]] = {"ledger": list(leaves), "queries": []}
        self.purged = 0
        self.fault: Exception | None = None

    async def archived(self, stream: str) -> Reached:
        return Reached(len(self.streams[stream]))

    async def leaves(self, stream: str, after: int, limit: int) -> list[bytes]:
        if self.fault is not None:
            raise self.fault
        if after < self.purged:
            return []
        return self.streams[stream][after : after + limit]


class KeptLog:
    """A log of the ledger in a directory, with the leaves it was made of."""

    def __init__(self, home: Path, size: int, step: int = 100) -> None:
        self.directory, self.key_file = home / "log", home / "log.key"
        self.leaves = [leaf(index) for index in range(size)]
        self.checkpoints: list[bytes] = []
        with self.writing() as writer:
            for start in range(0, size, step):
                writer.append(self.leaves[start : start + step])
                self.checkpoints.append(writer.note)

    def writing(self) -> Writing:
        """Return the log opened as it is on the disk, to be closed after the block."""
        return Writing(self)

    def copy_to(self, directory: Path) -> Path:
        """Return a copy of the log, without its key."""
        shutil.copytree(self.directory, directory)
        return directory


class Writing:
    """A writer of a log, opened and resumed from the log's own leaves."""

    def __init__(self, log: KeptLog) -> None:
        self._log = log
        self.writer = LogWriter(log.directory, log.key_file, cell=0, stream="ledger")

    def __enter__(self) -> LogWriter:
        try:
            self.writer.open()
            start, size = self.writer.tail_start, self.writer.size
            self.writer.resume(self._log.leaves[start:size])
        except BaseException:
            self.writer.close()
            raise
        return self.writer

    def __exit__(self, *_exception: object) -> None:
        self.writer.close()
