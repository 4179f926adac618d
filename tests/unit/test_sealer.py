"""The task that seals: what is archived gets into the logs, whatever happens on the way."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from holdfast.proofs import verify_consistency, verify_inclusion
from holdfast_server.ledger.checkpoint import VerifierKey, read_note
from holdfast_server.ledger.log_key import rotate
from holdfast_server.ledger.log_reader import LogReader, NotInLog
from holdfast_server.ledger.log_verify import verify
from holdfast_server.ledger.sealer import Sealer, SealerConfig
from tests.unit.kept_logs import POLL_S, MemoryArchive, leaf, until


def config(home: Path, **settings: object) -> SealerConfig:
    quick = {"seal_s": 0.01, "pace_s": 0.0, "retry_s": 0.01, "export_every_s": 0.01}
    return SealerConfig(home / "log", home / "log.key", **{**quick, **settings})  # type: ignore[arg-type]


@asynccontextmanager
async def sealing(archive: MemoryArchive, settings: SealerConfig) -> AsyncIterator[Sealer]:
    sealer = Sealer(archive, settings)
    task = asyncio.create_task(sealer.run())
    try:
        yield sealer
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def archive_of(size: int, queries: int = 0) -> MemoryArchive:
    archive = MemoryArchive([leaf(index) for index in range(size)])
    archive.streams["queries"] = [leaf(index) for index in range(queries)]
    return archive


async def test_both_streams_get_a_log_of_their_own_signed_with_one_key(tmp_path: Path) -> None:
    async with sealing(archive_of(5_000, 30), config(tmp_path)) as sealer:
        await until(lambda: (sealer.sealed("ledger"), sealer.sealed("queries")) == (5_000, 30))
        assert sealer.faults == {}
    ledger, queries = verify(tmp_path / "log"), verify(tmp_path / "log" / "queries")
    assert (ledger.problems, ledger.size) == ([], 5_000)
    assert (queries.problems, queries.size) == ([], 30)
    assert queries.origin == f"{ledger.origin}/queries"
    assert queries.key.rpartition("+")[2] == ledger.key.rpartition("+")[2]


async def test_what_comes_later_continues_what_was_sealed(tmp_path: Path) -> None:
    archive, reader = archive_of(3), LogReader(tmp_path / "log")
    async with sealing(archive, config(tmp_path)) as sealer:
        await until(lambda: sealer.sealed("ledger") == 3)
        before = reader.proof(0, 0, 0)
        archive.streams["ledger"] += [leaf(index) for index in range(3, 700)]
        await until(lambda: sealer.sealed("ledger") == 700)
    assert before is not None
    proof = reader.proof(650, 0, 3)
    assert proof is not None
    assert (proof.size, proof.leaf_index, proof.leaf) == (700, 649, leaf(649))
    verify_inclusion(proof.leaf, 649, 700, root=proof.root, proof=proof.inclusion)
    verify_consistency(3, before.root, 700, root=proof.root, proof=proof.consistency)
    older = reader.proof(3, 5, 0)
    assert older is not None
    assert older.note == b""
    verify_inclusion(leaf(2), 2, 5, root=older.root, proof=older.inclusion)
    for sequence, size, old in ((701, 0, 0), (6, 5, 0), (0, 701, 0), (0, 0, 701)):
        with pytest.raises(NotInLog):
            reader.proof(sequence, size, old)


async def test_many_entries_do_not_wait_for_the_second(tmp_path: Path) -> None:
    archive = archive_of(0)
    async with sealing(archive, config(tmp_path, seal_s=3600.0)) as sealer:
        archive.streams["ledger"] = [leaf(index) for index in range(256)]
        sealer.tell("ledger", 255)
        assert sealer.sealed("ledger") == 0
        sealer.tell("ledger", 256)
        await until(lambda: sealer.sealed("ledger") == 256)


async def test_a_sealer_that_starts_again_goes_on(tmp_path: Path) -> None:
    archive = archive_of(0)
    for size in (1, 256, 257, 600):
        archive.streams["ledger"] = [leaf(index) for index in range(size)]
        async with sealing(archive, config(tmp_path)) as sealer:
            await until(lambda sealer=sealer, size=size: sealer.sealed("ledger") == size)  # type: ignore[misc]
    assert verify(tmp_path / "log").problems == []


async def test_a_directory_that_cannot_be_written_is_told_once_and_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "log").write_bytes(b"in the way")
    async with sealing(archive_of(10), config(tmp_path)) as sealer:
        await until(lambda: "ledger" in sealer.faults)
        for _ in range(5):
            await asyncio.sleep(POLL_S)
        (tmp_path / "log").unlink()
        await until(lambda: sealer.sealed("ledger") == 10)
        await until(lambda: not sealer.faults)
    assert capfd.readouterr().out.count("log not sealed") == 2  # one for each log
    assert verify(tmp_path / "log").problems == []


async def test_an_archive_that_is_out_of_reach_is_tried_again(tmp_path: Path) -> None:
    archive = archive_of(10)
    archive.fault = OSError("out of reach")
    async with sealing(archive, config(tmp_path)) as sealer:
        await until(lambda: sealer.faults.get("ledger") == "out of reach")
        archive.fault = None
        await until(lambda: sealer.sealed("ledger") == 10)


async def test_an_archive_that_lost_entries_is_refused_until_it_has_them_again(
    tmp_path: Path,
) -> None:
    archive = archive_of(300)
    async with sealing(archive, config(tmp_path)) as sealer:
        await until(lambda: sealer.sealed("ledger") == 300)
    lost, archive.streams["ledger"] = archive.streams["ledger"], archive.streams["ledger"][:290]
    async with sealing(archive, config(tmp_path)) as sealer:
        await until(lambda: "the archive 290" in sealer.faults.get("ledger", ""))
        archive.streams["ledger"] = [*lost[:299], b"another", leaf(300)]
        await until(lambda: "entry 300 of the archive" in sealer.faults.get("ledger", ""))
        archive.streams["ledger"] = [*lost, leaf(300)]
        await until(lambda: sealer.sealed("ledger") == 301)
    assert verify(tmp_path / "log").problems == []


async def test_two_sealers_never_write_at_once(tmp_path: Path) -> None:
    archive = archive_of(10)
    async with sealing(archive, config(tmp_path)) as first:
        await until(lambda: first.sealed("ledger") == 10)
        async with sealing(archive, config(tmp_path)) as second:
            await until(lambda: "another process writes" in second.faults.get("ledger", ""))
    async with sealing(archive, config(tmp_path)) as third:
        await until(lambda: third.sealed("ledger") == 10)


async def test_a_changed_key_signs_within_the_second_without_a_new_entry(tmp_path: Path) -> None:
    async with sealing(archive_of(10, 1), config(tmp_path)) as sealer:
        await until(lambda: (sealer.sealed("ledger"), sealer.sealed("queries")) == (10, 1))
        logs = [tmp_path / "log", tmp_path / "log" / "queries"]
        keys = rotate(logs, tmp_path / "log.key")
        for log, key in zip(logs, keys, strict=True):
            await until(partial(is_signed_by, log, key))
            assert verify(log, key=key).problems == []


def is_signed_by(log: Path, key: VerifierKey) -> bool:
    return read_note((log / "checkpoint").read_bytes())[1].signers([key]) == [key]


async def test_a_log_is_whole_at_every_moment_while_it_is_sealed(tmp_path: Path) -> None:
    archive, sizes = archive_of(1), set()
    async with sealing(archive, config(tmp_path, seal_s=0.001)) as sealer:
        await until(lambda: sealer.sealed("ledger") == 1)
        while (size := len(archive.streams["ledger"])) < 1_500:
            archive.streams["ledger"] += [leaf(index) for index in range(size, size + 30)]
            report = await asyncio.to_thread(verify, tmp_path / "log")
            assert report.problems == []
            sizes.add(report.size)
    assert len(sizes) > 5


async def test_a_purge_takes_bundles_of_an_open_log(tmp_path: Path) -> None:
    archive = archive_of(600)
    async with sealing(archive, config(tmp_path)) as sealer:
        await until(lambda: sealer.sealed("ledger") == 600)
        await sealer.purge("ledger", 512)
    reader = LogReader(tmp_path / "log")
    with pytest.raises(NotInLog, match="entry 512 are not kept"):
        reader.proof(512, 0, 0)
    assert reader.proof(513, 0, 0) is not None
    archive.purged = 600
    async with sealing(archive, config(tmp_path)) as sealer:
        await until(lambda: sealer.sealed("ledger") == 600)
        assert sealer.faults == {}


async def test_every_checkpoint_goes_to_a_directory_and_none_is_written_over(
    tmp_path: Path,
) -> None:
    archive = archive_of(10)
    settings = config(tmp_path, export=str(tmp_path / "out"))
    async with sealing(archive, settings) as sealer:
        await until((tmp_path / "out" / "ledger-0000000000000010").exists)
        archive.streams["ledger"] += [leaf(10)]
        await until(lambda: sealer.sealed("ledger") == 11)
    kept = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert kept.keys() == {"ledger-0000000000000010", "ledger-0000000000000011"}
    assert verify(tmp_path / "log", kept=kept).problems == []
    shutil.rmtree(tmp_path / "log")
    archive.streams["ledger"] = [b"another", *archive.streams["ledger"][1:10]]
    async with sealing(archive, settings) as sealer:
        await until(lambda: "with another root" in sealer.faults.get("export", ""))
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == kept
