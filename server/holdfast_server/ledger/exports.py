"""Hand checkpoints to where the operator cannot change them: a directory, or a command.

A directory gets a file a checkpoint, named by stream and size, which is never written over.  A
command gets the checkpoint on its standard input; it is run without a shell.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import structlog

from holdfast_server.ledger.checkpoint import BadNote, read_note
from holdfast_server.ledger.log_files import LogFiles

log = structlog.get_logger(__name__)

COMMAND = "command:"
COMMAND_TIMEOUT_S = 10.0
REPEAT_S = 3600.0  # a checkpoint that does not change is exported again: the log is alive

Export = Callable[[str, int, bytes], Awaitable[None]]


class ExportFailed(RuntimeError):
    """Raised when a checkpoint could not be exported."""


def export_to(target: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> Export:
    """Return what exports a note of a stream and size.  Raises ValueError for a bad command."""
    if not target.startswith(COMMAND):
        return _Directory(Path(target))
    words = shlex.split(target.removeprefix(COMMAND))
    if not words:
        raise ValueError("names no program")
    return _Command(words, timeout_s)


class _Directory:
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def __call__(self, stream: str, size: int, note: bytes) -> None:
        await asyncio.to_thread(self._put, f"{stream}-{size:016d}", note)

    def _put(self, name: str, note: bytes) -> None:
        files = LogFiles(self._directory, scratch=f".exporting-{name}")
        try:
            before = files.read(name)
            if before is None:
                files.root.mkdir(parents=True, exist_ok=True)
                files.put(name, note)
            elif read_note(before)[0] != read_note(note)[0]:
                raise ExportFailed(f"{self._directory / name} was exported with another root")
        except (OSError, BadNote) as fault:
            raise ExportFailed(f"{self._directory / name}: {fault}") from fault


class _Command:
    def __init__(self, words: list[str], timeout_s: float) -> None:
        self._words, self._timeout_s = words, timeout_s

    async def __call__(self, stream: str, size: int, note: bytes) -> None:
        environment = {**os.environ, "HOLDFAST_LOG": stream, "HOLDFAST_TREE_SIZE": str(size)}
        nowhere = asyncio.subprocess.DEVNULL
        try:
            process = await asyncio.create_subprocess_exec(
                *self._words,
                stdin=asyncio.subprocess.PIPE,
                stdout=nowhere,
                stderr=nowhere,
                env=environment,
            )
        except OSError as fault:
            raise ExportFailed(f"{self._words[0]} cannot be run: {fault}") from fault
        try:
            async with asyncio.timeout(self._timeout_s):
                await process.communicate(note)
        except TimeoutError:
            raise ExportFailed(f"{self._words[0]} took over {self._timeout_s:g} s") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            raise ExportFailed(f"{self._words[0]} ended with status {process.returncode}")


class Exporter:
    """Exports the newest checkpoint of each log: a new one at most each `every_s`.

    One that failed is tried again with the next, and the failure is in `fault` until then.
    """

    def __init__(self, export: Export, every_s: float, *, repeat_s: float = REPEAT_S) -> None:
        self._export, self._every_s, self._repeat_s = export, every_s, repeat_s
        self._newest: dict[str, tuple[int, bytes]] = {}
        self._exported: dict[str, bytes] = {}
        self._offered = asyncio.Event()
        self.fault = ""

    def offer(self, stream: str, size: int, note: bytes) -> None:
        """Take a checkpoint to export when its time comes."""
        self._newest[stream] = (size, note)
        self._offered.set()

    async def run(self) -> None:
        """Export until cancelled, and what is left then."""
        try:
            while True:
                is_new = True
                try:
                    async with asyncio.timeout(self._repeat_s):
                        await self._offered.wait()
                except TimeoutError:
                    is_new = False
                await self._export_all(only_new=is_new)
                await asyncio.sleep(self._every_s)
        finally:
            await self._export_all(only_new=True)

    async def _export_all(self, *, only_new: bool) -> None:
        self._offered.clear()
        for stream, (size, note) in list(self._newest.items()):
            if only_new and self._exported.get(stream) == note:
                continue
            try:
                await self._export(stream, size, note)
                self._exported[stream], self.fault = note, ""
            except ExportFailed as fault:
                if str(fault) != self.fault:
                    log.error("checkpoint not exported", stream=stream, size=size, fault=str(fault))
                self.fault = str(fault)
