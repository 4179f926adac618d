"""Seal what is archived: hash new leaves into the Merkle logs, sign, write, export.

Runs where the archiver runs, in the process that leads it, and never holds it up: it reads the
archive from its own position.  After any fault it forgets what it knows and opens the log anew
from its last checkpoint.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from holdfast_server.ledger.exports import Exporter, export_to
from holdfast_server.ledger.faults import ArchivePurged
from holdfast_server.ledger.leaf import logged
from holdfast_server.ledger.log_writer import LogConflict, LogWriter
from holdfast_server.ledger.threads import in_thread

log = structlog.get_logger(__name__)

LEDGER, QUERIES = "ledger", "queries"
SEAL_ENTRIES = 256
LEAVES_MAX = 4096  # sealed at once: bounds memory, and how long a checkpoint takes


class Reached(Protocol):
    """How far a stream is archived."""

    @property
    def sequence(self) -> int:
        """Return the last sequence, or number of a query."""


class Leaves(Protocol):
    """What the logs are made from: the archive."""

    async def archived(self, stream: str) -> Reached:
        """Return how far a stream is archived."""

    async def leaves(self, stream: str, after: int, limit: int) -> Sequence[bytes]:
        """Return the leaves that follow one, in order.

        Raises ArchivePurged where the next one is not kept any more.
        """


@dataclass(frozen=True)
class SealerConfig:
    """Where the logs are, who signs them, and where their checkpoints go besides.

    A checkpoint brings a dozen files to the disk, where the archive's transactions go too; so there
    is one each `seal_s`, or as soon as there are 256 new leaves, but at most one each `pace_s`.
    """

    directory: Path
    key_file: Path
    cell: int = 0
    export: str = ""
    export_every_s: float = 60.0
    seal_s: float = 1.0
    pace_s: float = 0.1
    retry_s: float = 5.0


def directory_of(logs: Path, stream: str) -> Path:
    """Return where the log of a stream is; the ledger's is the first, the others within it."""
    return logs if stream == LEDGER else logs / stream


class Sealer:
    """Keeps the logs of the ledger and of the queries."""

    def __init__(self, archive: Leaves, config: SealerConfig) -> None:
        self._exporter = (
            Exporter(export_to(config.export), config.export_every_s) if config.export else None
        )
        self._logs = {
            stream: _Log(archive, config, stream, self._exporter) for stream in (LEDGER, QUERIES)
        }
        self._busy = asyncio.Lock()  # one log at a time: the first makes the key for both

    @property
    def faults(self) -> dict[str, str]:
        """Return what keeps a log from being sealed or exported, by its name; empty: nothing."""
        found = {stream: one.fault for stream, one in self._logs.items() if one.fault}
        if self._exporter and self._exporter.fault:
            found["export"] = self._exporter.fault
        return found

    def sealed(self, stream: str) -> int:
        """Return the sequence or number up to which a stream is sealed."""
        return self._logs[stream].size

    def tell(self, stream: str, sequence: int) -> None:
        """Say how far a stream is archived, so that many entries need not wait for the second."""
        self._logs[stream].tell(sequence)

    async def purge(self, stream: str, through: int) -> None:
        """Remove the entries up to a sequence from the log, whole bundles only.

        Raises OSError; LogConflict while the log is not open.
        """
        async with self._busy:
            await self._logs[stream].purge(through)

    async def run(self) -> None:
        """Seal until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._exporter:
                tasks.create_task(self._exporter.run())
            for one in self._logs.values():
                tasks.create_task(one.run(self._busy))


class _Log:
    def __init__(
        self, archive: Leaves, config: SealerConfig, stream: str, exporter: Exporter | None
    ) -> None:
        self._archive, self._config, self._stream = archive, config, stream
        self._exporter = exporter
        self._writer: LogWriter | None = None
        self._many = asyncio.Event()
        self.size = 0
        self.fault = ""

    def tell(self, sequence: int) -> None:
        if sequence - self.size >= SEAL_ENTRIES:
            self._many.set()

    async def run(self, busy: asyncio.Lock) -> None:
        try:
            while True:
                await self._wait()
                await self._seal_noting_faults(busy)
        finally:
            self._close()

    async def _wait(self) -> None:
        if self.fault:
            await asyncio.sleep(self._config.retry_s)
            return
        await asyncio.sleep(self._config.pace_s)
        with suppress(TimeoutError):
            async with asyncio.timeout(self._config.seal_s):
                await self._many.wait()

    async def _seal_noting_faults(self, busy: asyncio.Lock) -> None:
        self._many.clear()
        try:
            async with busy:
                await self._seal()
            if self.fault:
                log.info("log sealed again", stream=self._stream, size=self.size)
            self.fault = ""
        except Exception as fault:  # whatever it is, stock is served on, and the log retried
            self._close()
            if str(fault) != self.fault:
                log.error("log not sealed", stream=self._stream, fault=str(fault) or repr(fault))
            self.fault = str(fault) or repr(fault)

    async def _seal(self) -> None:
        writer = self._writer or await self._open()
        before = writer.note
        has_more = True
        while has_more and (leaves := await self._leaves(writer.size, LEAVES_MAX)):
            await in_thread(writer.append, leaves)
            self._sealed(writer)
            has_more = len(leaves) == LEAVES_MAX
        await in_thread(writer.renew)
        if writer.note != before:
            self._sealed(writer)

    async def _leaves(self, after: int, limit: int) -> list[bytes]:
        return [logged(leaf) for leaf in await self._archive.leaves(self._stream, after, limit)]

    async def _kept_leaves(self, after: int, limit: int) -> list[bytes]:
        """Return leaves that are in the log already; none where the archive keeps them no more."""
        try:
            return await self._leaves(after, limit) if limit else []
        except ArchivePurged:
            return []

    def _sealed(self, writer: LogWriter) -> None:
        self.size = writer.size
        if self._exporter and writer.note:
            self._exporter.offer(self._stream, writer.size, writer.note)

    async def _open(self) -> LogWriter:
        config, stream = self._config, self._stream
        directory = directory_of(config.directory, stream)
        writer = LogWriter(directory, config.key_file, cell=config.cell, stream=stream)
        try:
            await in_thread(writer.open)
            archived = (await self._archive.archived(stream)).sequence
            if archived < writer.size:
                raise LogConflict(
                    f"the log has {writer.size} entries, the archive {archived}: it lost some"
                )
            start, size = writer.tail_start, writer.size
            tail = await self._kept_leaves(start, size - start)
            await in_thread(writer.resume, tail)
        except BaseException:
            writer.close()
            raise
        self._writer = writer
        self._sealed(writer)
        return writer

    async def purge(self, through: int) -> None:
        if self._writer is None:
            raise LogConflict(f"the log of {self._stream} is not open")
        await in_thread(self._writer.purge, through)

    def _close(self) -> None:
        if self._writer:
            self._writer.close()
            self._writer = None
