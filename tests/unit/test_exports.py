"""Checkpoints on their way out: to commands and directories that work, fail, or hang."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from holdfast_server.ledger.exports import Exporter, ExportFailed, export_to
from tests.unit.kept_logs import until

NOTE = b"a note\n"
KEEP = (
    "import os, sys; size = os.environ['HOLDFAST_TREE_SIZE']; "
    "open(sys.argv[1] + size, 'wb').write(sys.stdin.buffer.read())"
)


def command(code: str, *arguments: str) -> str:
    words = " ".join(f"'{argument}'" for argument in arguments)
    return f'command:{sys.executable} -c "{code}" {words}'


@asynccontextmanager
async def exporting(exporter: Exporter) -> AsyncIterator[None]:
    task = asyncio.create_task(exporter.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_command_gets_the_checkpoint_and_its_size_without_a_shell(tmp_path: Path) -> None:
    await export_to(command(KEEP, f"{tmp_path}/; echo $0 "))("ledger", 7, NOTE)
    assert (tmp_path / "; echo $0 7").read_bytes() == NOTE


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("command:/no/such/program", "cannot be run"),
        (command("raise SystemExit(3)"), "ended with status 3"),
        (command("import os; os.close(0); raise SystemExit(4)"), "ended with status 4"),
    ],
)
async def test_a_command_that_fails_says_how(target: str, words: str) -> None:
    with pytest.raises(ExportFailed, match=words):
        await export_to(target)("ledger", 7, NOTE)


async def test_a_command_that_hangs_is_ended() -> None:
    export = export_to(command("import time; time.sleep(3600)"), timeout_s=0.5)
    with pytest.raises(ExportFailed, match=r"took over 0\.5 s"):
        await export("ledger", 7, NOTE)


@pytest.mark.parametrize("target", ["command:", "command:  ", "command:'"])
def test_a_command_without_a_program_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match=r"names no program|closing quotation"):
        export_to(target)


async def test_a_directory_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportFailed, match="ledger-0000000000000007"):
        await export_to(str(tmp_path / "file" / "out"))("ledger", 7, NOTE)


async def test_only_the_newest_is_exported_and_one_that_failed_goes_with_the_next() -> None:
    gone: list[tuple[str, int]] = []
    is_broken = True

    async def export(stream: str, size: int, _note: bytes) -> None:
        if is_broken:
            raise ExportFailed("broken")
        gone.append((stream, size))

    exporter = Exporter(export, 0.01)
    async with exporting(exporter):
        exporter.offer("ledger", 1, b"1")
        await until(lambda: exporter.fault == "broken")
        is_broken = False
        exporter.offer("queries", 5, b"5")
        exporter.offer("ledger", 2, b"2")
        exporter.offer("ledger", 3, b"3")
        await until(lambda: len(gone) == 2)
        assert sorted(gone) == [("ledger", 3), ("queries", 5)]
        assert exporter.fault == ""


async def test_what_waits_for_its_time_goes_out_at_the_end() -> None:
    gone: list[int] = []

    async def export(_stream: str, size: int, _note: bytes) -> None:
        gone.append(size)

    exporter = Exporter(export, 3600.0)
    async with exporting(exporter):
        exporter.offer("ledger", 1, b"1")
        await until(lambda: gone == [1])
        exporter.offer("ledger", 2, b"2")
        exporter.offer("ledger", 3, b"3")
    assert gone == [1, 3]


async def test_a_checkpoint_that_does_not_change_is_exported_again() -> None:
    gone: list[int] = []

    async def export(_stream: str, size: int, _note: bytes) -> None:
        gone.append(size)

    exporter = Exporter(export, 0.01, repeat_s=0.01)
    async with exporting(exporter):
        exporter.offer("ledger", 1, b"1")
        await until(lambda: gone[:3] == [1, 1, 1])
