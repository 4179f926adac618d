"""What a verification finds, and that it says where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_server.cli.commands import holdfast
from holdfast_server.ledger.checkpoint import VerifierKey
from holdfast_server.ledger.log_files import LogFiles
from holdfast_server.ledger.log_key import read_keys, rotate
from holdfast_server.ledger.log_verify import Report, verify
from holdfast_server.ledger.tiles import ENTRIES, bundle_of, read_path, split_bundle
from tests.unit.kept_logs import KeptLog, leaf

SIZE, ROTATED_AT = 700, 600


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> KeptLog:
    """A log of two full bundles and a partial one, whose key was changed once."""
    log = KeptLog(tmp_path_factory.mktemp("kept"), ROTATED_AT)
    rotate([log.directory], log.key_file)
    log.leaves += [leaf(index) for index in range(ROTATED_AT, SIZE)]
    with log.writing() as writer:
        writer.append(log.leaves[ROTATED_AT:])
    return log


@pytest.fixture
def log(kept: KeptLog, tmp_path: Path) -> Path:
    """A copy of that log, to be spoiled."""
    return kept.copy_to(tmp_path / "log")


def files_of(directory: Path) -> list[Path]:
    return sorted(file for file in directory.rglob("*") if file.is_file() and file.name != ".lock")


def named(report: Report) -> set[str]:
    return {problem.file for problem in report.problems}


def test_a_log_as_it_was_written_is_whole(log: Path) -> None:
    report = verify(log)
    assert (report.problems, report.strays) == ([], [])
    assert (report.size, report.entries, report.purged) == (SIZE, SIZE, 0)


def test_a_log_of_three_levels_is_whole_and_a_change_in_each_is_named(tmp_path: Path) -> None:
    log = KeptLog(tmp_path, 66_000, step=33_000).directory
    assert verify(log).problems == []
    for path in ("tile/2/000.p/1", "tile/1/001.p/1", "tile/1/000", "tile/0/255", "tile/0/256"):
        with flipped(log / path, 80):
            assert named(verify(log)) == {path}
    with flipped(log / "tile/entries/200", 3000):
        (problem,) = verify(log).problems
        assert problem.file == "tile/entries/200"
        assert 200 * 256 < problem.sequence <= 201 * 256


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flipped_bit_is_found_in_whatever_file_and_the_file_named(
    kept: KeptLog, data: st.DataObject
) -> None:
    file = data.draw(st.sampled_from(files_of(kept.directory)))
    bit = data.draw(st.integers(0, file.stat().st_size * 8 - 1))
    with flipped(file, bit):
        report = verify(kept.directory)
    path = file.relative_to(kept.directory).as_posix()
    assert path in named(report), (path, bit, report.problems)
    tile = read_path(path)
    current = {"tile/entries/000", "tile/entries/001", "tile/entries/002.p/188"}
    if tile and tile.level == ENTRIES and path in current:
        sequence = entry_at(file.read_bytes(), bit // 8) + tile.number * 256
        assert sequence in {problem.sequence for problem in report.problems}


def entry_at(raw: bytes, byte: int) -> int:
    """Return which entry of a bundle a byte belongs to, from 1."""
    end = 0
    for number, entry in enumerate(split_bundle(raw), 1):
        end += 2 + len(entry)
        if byte < end:
            return number
    raise AssertionError(byte)


def flipped(file: Path, bit: int) -> AbstractContextManager[None]:
    """Flip a bit of a file within the block."""
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    return holding(file, data)


@contextmanager
def holding(file: Path, data: bytes) -> Iterator[None]:
    """Let a file hold other bytes within the block."""
    was = file.read_bytes()
    file.write_bytes(data)
    try:
        yield
    finally:
        file.write_bytes(was)


def test_a_missing_file_is_named_whichever_it_is(kept: KeptLog, tmp_path: Path) -> None:
    current = [file for file in files_of(kept.directory) if is_current(kept.directory, file)]
    assert len(current) == 10
    for file in current:
        aside = file.rename(tmp_path / "aside")
        path = file.relative_to(kept.directory).as_posix()
        assert path in named(verify(kept.directory)), path
        aside.rename(file)


def test_a_file_that_is_cut_is_named_whichever_it_is(kept: KeptLog) -> None:
    for file in files_of(kept.directory):
        was = file.read_bytes()
        is_old_partial = not is_current(kept.directory, file)
        path = file.relative_to(kept.directory).as_posix()
        for length in {0, 1, len(was) // 2, len(was) - 1}:
            with holding(file, was[:length]):
                # An older partial tile that is shorter is still the beginning of what it was.
                assert is_old_partial or path in named(verify(kept.directory)), (path, length)


def is_current(directory: Path, file: Path) -> bool:
    """Tell whether a file is one that the newest checkpoint needs."""
    tile = read_path(file.relative_to(directory).as_posix())
    return tile is None or tile.width in (256, SIZE % 256, SIZE // 256)


def rewrite(log: Path, path: str, change: Callable[[list[bytes]], list[bytes]]) -> None:
    file = log / path
    file.write_bytes(bundle_of(change(split_bundle(file.read_bytes()))))


def test_reordered_entries_are_named(log: Path) -> None:
    rewrite(log, "tile/entries/001", lambda leaves: [leaves[1], leaves[0], *leaves[2:]])
    assert [(one.sequence, one.words) for one in verify(log).problems] == [
        (257, "entry 257 is in another's place"),
        (258, "entry 258 is in another's place"),
    ]


def test_a_changed_entry_of_the_last_bundle_is_named(log: Path) -> None:
    rewrite(log, "tile/entries/002.p/188", lambda leaves: [*leaves[:-1], b"another"])
    (problem,) = verify(log).problems
    assert (problem.file, problem.sequence) == ("tile/entries/002.p/188", SIZE)


def test_an_entry_too_few_or_too_many_is_named(log: Path) -> None:
    rewrite(log, "tile/entries/000", lambda leaves: [*leaves[:99], *leaves[100:]])
    (problem,) = verify(log).problems
    assert (problem.file, problem.sequence) == ("tile/entries/000", 100)
    rewrite(log, "tile/entries/000", lambda leaves: [*leaves[:99], leaf(99), *leaves[99:], b"+"])
    (problem,) = verify(log).problems
    assert (problem.file, problem.words) == (
        "tile/entries/000",
        "has bytes after its last entry",
    )


@pytest.mark.parametrize("level", ["entries", "0"])
def test_swapped_files_are_both_named(log: Path, level: str) -> None:
    first, second = log / f"tile/{level}/000", log / f"tile/{level}/001"
    was = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(was)
    report = verify(log)
    assert named(report) == {f"tile/{level}/000", f"tile/{level}/001"}


def test_an_entry_changed_together_with_its_hash_is_found_above_it(
    kept: KeptLog, log: Path, tmp_path: Path
) -> None:
    forged = KeptLog.__new__(KeptLog)
    forged.directory, forged.key_file = tmp_path / "forged", tmp_path / "forged.key"
    forged.leaves = [*kept.leaves[:300], b"forged", *kept.leaves[301:]]
    with forged.writing() as writer:
        writer.append(forged.leaves)
    for path in ("tile/entries/001", "tile/0/001"):
        shutil.copyfile(forged.directory / path, log / path)
    (problem,) = verify(log).problems
    assert problem.file == "tile/0/001"
    assert "entries 257 to 512" in problem.words
    shutil.copyfile(forged.directory / "tile/1/000.p/2", log / "tile/1/000.p/2")
    assert "another root than the checkpoint" in str(verify(log).problems)


def test_a_log_signed_by_a_foreign_key_is_refused(kept: KeptLog, tmp_path: Path) -> None:
    forged = KeptLog(tmp_path, SIZE)
    assert verify(forged.directory).problems == []
    for key in read_keys(LogFiles(kept.directory)):
        report = verify(forged.directory, key=key)
        assert named(report) == {"keys", "checkpoint"}


def test_each_key_of_a_log_leads_to_its_newest(kept: KeptLog) -> None:
    keys = read_keys(LogFiles(kept.directory))
    assert len(keys) == 2
    for key in keys:
        report = verify(kept.directory, key=key)
        assert (report.problems, report.key) == ([], str(keys[-1]))


def test_a_key_that_the_old_one_did_not_name_is_not_followed(log: Path, tmp_path: Path) -> None:
    other = KeptLog(tmp_path / "other", 1)
    (stranger,) = read_keys(LogFiles(other.directory))
    first, _second = read_keys(LogFiles(log))
    adopted = VerifierKey(first.name, stranger.public)
    (log / "keys").write_text(f"{first}\n{adopted}\n")
    assert named(verify(log)) == {"rotations/1", "checkpoint"}


def test_every_older_checkpoint_is_continued(kept: KeptLog) -> None:
    older = {str(number): note for number, note in enumerate(kept.checkpoints)}
    assert verify(kept.directory, kept=older).problems == []


def test_a_tail_that_was_cut_is_found_by_what_was_exported(tmp_path: Path, kept: KeptLog) -> None:
    log = KeptLog(tmp_path, 500)
    early = log.copy_to(tmp_path / "early")
    log.leaves += [leaf(index) for index in range(500, 520)]
    with log.writing() as writer:
        writer.append(log.leaves[500:])
        exported = writer.note
    (problem,) = verify(early, kept={"witness": exported}).problems
    assert (problem.file, problem.sequence) == ("witness", 501)
    assert "its tail was cut" in problem.words
    (problem,) = verify(log.directory, kept={"foreign": kept.checkpoints[0]}).problems
    assert (problem.file, problem.words) == ("foreign", "is signed by no trusted key")


def test_a_history_written_anew_with_the_right_key_is_no_continuation(
    tmp_path: Path,
) -> None:
    log = KeptLog(tmp_path, 300)
    exported = log.checkpoints[-1]
    shutil.rmtree(log.directory / "tile")
    (log.directory / "checkpoint").unlink()
    log.leaves = [b"forged", *log.leaves[1:], b"more"]
    with log.writing() as writer:
        writer.append(log.leaves)
    assert verify(log.directory).problems == []
    (problem,) = verify(log.directory, kept={"witness": exported}).problems
    assert problem.words == "the log is no continuation of its 300 entries"


def test_purged_entries_are_reported_and_their_hashes_still_verified(
    tmp_path: Path, kept: KeptLog
) -> None:
    log = KeptLog(tmp_path, SIZE)
    with log.writing() as writer:
        writer.purge(511)
    report = verify(log.directory)
    assert (report.problems, report.purged, report.entries) == ([], 256, SIZE - 256)
    with flipped(log.directory / "tile/0/000", 5):
        assert named(verify(log.directory)) == {"tile/0/000"}
    (log.directory / "purged").write_text("1 512\n")
    assert named(verify(log.directory)) == {"tile/entries/001"}
    for text in ("1 300\n", "1 1024\n", "", "1 256"):
        (log.directory / "purged").write_text(text)
        assert "purged" in named(verify(log.directory))
    (log.directory / "purged").unlink()
    assert named(verify(log.directory)) == {"tile/entries/000"}


def test_files_beyond_the_checkpoint_are_told_but_no_fault(log: Path) -> None:
    (log / "tile/0/003.p").mkdir()
    (log / "tile/0/003.p/7").write_bytes(bytes(7 * 32))
    report = verify(log)
    assert (report.problems, report.strays) == ([], ["tile/0/003.p/7"])


def test_the_command_says_what_is_wrong_and_ends_with_1(log: Path) -> None:
    cli = CliRunner()
    whole = cli.invoke(holdfast, ["audit", "verify", str(log)])
    assert (whole.exit_code, "nothing was changed" in whole.output) == (0, True)
    rewrite(log, "tile/entries/000", lambda leaves: [*leaves[:6], b"another", *leaves[7:]])
    broken = cli.invoke(holdfast, ["audit", "verify", str(log)])
    assert broken.exit_code == 1
    assert "WRONG      tile/entries/000: entry 7 is not what the log has committed to" in (
        broken.output
    )
    document = json.loads(cli.invoke(holdfast, ["audit", "verify", str(log), "--json"]).output)
    assert document["holds"] is False
    assert document["problems"][0]["sequence"] == 7


def test_the_command_takes_keys_and_checkpoints(kept: KeptLog, tmp_path: Path) -> None:
    cli = CliRunner()
    (tmp_path / "key").write_bytes((kept.directory / "keys").read_bytes())
    (tmp_path / "exported").write_bytes(kept.checkpoints[2])
    words = ["--key-file", str(tmp_path / "key"), "--checkpoint", str(tmp_path / "exported")]
    done = cli.invoke(holdfast, ["audit", "verify", str(kept.directory), *words])
    assert (done.exit_code, "its own word" in done.output) == (0, False)
    bad = cli.invoke(holdfast, ["audit", "verify", str(kept.directory), "--key", "none"])
    assert (bad.exit_code, "not a verifier key" in bad.output) == (1, True)
