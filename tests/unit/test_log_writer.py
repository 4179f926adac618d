"""A log on the disk: what is written, what is found again, what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from holdfast_server.ledger.checkpoint import BadNote
from holdfast_server.ledger.log_verify import verify
from holdfast_server.ledger.log_writer import LogConflict
from tests.unit.kept_logs import KeptLog, leaf

ROOT = Path(__file__).parents[2]


def contents(directory: Path) -> dict[str, bytes]:
    return {
        file.relative_to(directory).as_posix(): file.read_bytes()
        for file in directory.rglob("*")
        if file.is_file()
    }


def test_the_files_are_those_of_the_specification_and_readable_by_no_strangers(
    tmp_path: Path,
) -> None:
    log = KeptLog(tmp_path, 700, step=350)
    assert contents(log.directory).keys() == {
        ".lock",
        "checkpoint",
        "keys",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/188",
        "tile/1/000.p/1",
        "tile/1/000.p/2",
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/188",
    }
    modes = {path.stat().st_mode & 0o777 for path in log.directory.rglob("*")}
    assert all(not mode & 0o027 for mode in modes), list(map(oct, modes))
    assert log.key_file.stat().st_mode & 0o777 == 0o600


def test_whoever_opens_a_log_again_goes_on_with_the_same_tree(tmp_path: Path) -> None:
    at_once, step_by_step = KeptLog(tmp_path / "one", 520, step=520), KeptLog(tmp_path / "two", 0)
    step_by_step.leaves = at_once.leaves
    for start in range(0, 520, 65):
        with step_by_step.writing() as writer:
            assert writer.size == start
            writer.append(at_once.leaves[start : start + 65])
    found, wanted = verify(step_by_step.directory), verify(at_once.directory)
    assert (found.problems, found.root) == ([], wanted.root)


def test_a_writer_killed_at_any_step_or_short_of_space_is_followed_by_the_same_tree(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.unit.crashed_logs", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=100, check=True
    )
    killed, full = map(int, done.stdout.split())
    assert killed > 60
    assert full > 30


@pytest.mark.parametrize("size", [1, 255, 256, 257, 700])
def test_incomplete_tiles_that_are_missing_or_torn_are_made_again(
    tmp_path: Path, size: int
) -> None:
    log = KeptLog(tmp_path, size, step=size)
    was = contents(log.directory)
    last = [path for path in was if ".p/" in path]
    last += [f"tile/{level}/000" for level in ("entries", "0") if size == 256]
    for path in last:
        file = log.directory / path
        for spoil in (file.unlink, lambda f=file: f.write_bytes(b""), lambda f=file: shorten(f)):
            spoil()
            with log.writing() as writer:
                assert writer.size == size
            assert contents(log.directory) == was, path


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def test_an_incomplete_tile_with_other_hashes_is_made_again(tmp_path: Path) -> None:
    log = KeptLog(tmp_path, 700, step=700)
    was = contents(log.directory)
    for path in (path for path in was if ".p/" in path):
        (log.directory / path).write_bytes(bytes(len(was[path])))
        with log.writing():
            assert contents(log.directory) == was, path


@pytest.mark.parametrize(("size", "changed"), [(700, 650), (256, 3), (512, 300), (10, 0)])
def test_an_archive_with_another_entry_is_refused(tmp_path: Path, size: int, changed: int) -> None:
    log = KeptLog(tmp_path, size)
    log.leaves[changed] = b"another"
    with pytest.raises(LogConflict, match=f"entry {changed + 1} of the archive is not the one"):
        log.writing().__enter__()
    assert verify(log.directory).problems == []


def test_an_archive_that_keeps_the_last_leaves_no_more_is_no_conflict(tmp_path: Path) -> None:
    log = KeptLog(tmp_path, 300)
    kept, log.leaves = log.leaves, []
    with log.writing() as writer:
        writer.append([leaf(300)])
    log.leaves = [*kept, leaf(300)]
    with log.writing() as writer:
        assert writer.size == 301
    assert verify(log.directory).problems == []


def test_full_tiles_that_are_gone_are_refused_once_they_are_needed(tmp_path: Path) -> None:
    log = KeptLog(tmp_path, 600, step=600)
    (log.directory / "tile/1/000.p/2").unlink()
    (log.directory / "tile/0/000").unlink()
    with pytest.raises(LogConflict, match="see `holdfast audit verify`"):
        log.writing().__enter__()


def test_a_second_writer_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    log = KeptLog(tmp_path, 3)
    with log.writing(), pytest.raises(LogConflict, match="another process writes"):
        log.writing().__enter__()
    with log.writing() as writer:
        assert writer.size == 3


def test_a_checkpoint_of_another_log_or_none_at_all_is_refused(tmp_path: Path) -> None:
    log, other = KeptLog(tmp_path / "one", 3), KeptLog(tmp_path / "two", 3)
    (log.directory / "checkpoint").write_bytes(other.checkpoints[-1])
    with pytest.raises(LogConflict, match="signed by none of its keys"):
        log.writing().__enter__()
    (log.directory / "checkpoint").write_bytes(b"torn")
    with pytest.raises(BadNote):
        log.writing().__enter__()


def test_partial_tiles_go_when_the_full_one_is_there_and_not_before(tmp_path: Path) -> None:
    log = KeptLog(tmp_path, 250, step=125)
    assert {"tile/0/000.p/125", "tile/0/000.p/250"} <= contents(log.directory).keys()
    log.leaves += [leaf(index) for index in range(250, 300)]
    with log.writing() as writer:
        writer.append(log.leaves[250:])
    assert not (log.directory / "tile/0/000.p").exists()
    assert not (log.directory / "tile/entries/000.p").exists()


def test_a_purge_takes_whole_bundles_only_and_once(tmp_path: Path) -> None:
    log = KeptLog(tmp_path, 700)
    with log.writing() as writer:
        for through in (255, 600, 511, 10_000):
            writer.purge(through)
    left = [path for path in contents(log.directory) if path.startswith("tile/entries/")]
    assert {"tile/entries/000", "tile/entries/001"}.isdisjoint(left)
    assert "tile/entries/002.p/188" in left
    assert (log.directory / "purged").read_text() == "1 512\n"
