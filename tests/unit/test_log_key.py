"""The key of a log: made once, guarded, and changed so that verifiers can follow."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from holdfast_server.cli.commands import holdfast
from holdfast_server.ledger.checkpoint import BadNote, read_note
from holdfast_server.ledger.log_files import LogFiles
from holdfast_server.ledger.log_key import KeyFault, make_key, read_keys, rotate, signer_of
from holdfast_server.ledger.log_verify import verify
from tests.unit.kept_logs import KeptLog, leaf


def test_a_log_gets_its_key_and_its_name_once(tmp_path: Path) -> None:
    files, key_file = LogFiles(tmp_path / "log"), tmp_path / "keys" / "log.key"
    first = signer_of(files, key_file, cell=3, stream="ledger")
    assert first.name.startswith("holdfast/c3/")
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert [child.name for child in key_file.parent.iterdir()] == ["log.key"]
    again = signer_of(files, key_file, cell=3, stream="ledger")
    assert again.verifier == first.verifier
    assert read_keys(files) == [first.verifier]
    queries = signer_of(LogFiles(tmp_path / "queries"), key_file, cell=3, stream="queries")
    assert queries.name == f"{first.name}/queries"
    assert queries.verifier.public == first.verifier.public


def test_a_key_that_is_there_is_never_written_over(tmp_path: Path) -> None:
    make_key(tmp_path / "log.key")
    was = (tmp_path / "log.key").read_bytes()
    with pytest.raises(KeyFault, match="cannot be written"):
        make_key(tmp_path / "log.key")
    assert (tmp_path / "log.key").read_bytes() == was


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_key_open_to_others_is_refused_with_its_mode(tmp_path: Path, mode: int) -> None:
    log = KeptLog(tmp_path, 1)
    log.key_file.chmod(mode)
    with pytest.raises(KeyFault, match=f"open to others, mode {mode:04o}"):
        log.writing().__enter__()


def test_a_key_that_is_none_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    log = KeptLog(tmp_path, 1)
    other = generate_private_key(SECP256R1())
    for pem, words in (
        (b"none", "cannot be read"),
        (other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), "another kind"),
    ):
        log.key_file.write_bytes(pem)
        with pytest.raises(KeyFault, match=words):
            log.writing().__enter__()


def test_a_log_whose_key_is_gone_or_another_is_not_signed_by_a_new_one(tmp_path: Path) -> None:
    log = KeptLog(tmp_path, 1)
    log.key_file.unlink()
    with pytest.raises(KeyFault, match="is gone"):
        log.writing().__enter__()
    make_key(log.key_file)
    with pytest.raises(KeyFault, match="is not the newest key"):
        log.writing().__enter__()


def test_damaged_public_keys_are_refused(tmp_path: Path) -> None:
    log = KeptLog(tmp_path, 1)
    keys = (log.directory / "keys").read_text()
    for text in (keys[:-1], keys.replace("+", "-"), "\n"):
        (log.directory / "keys").write_text(text)
        with pytest.raises(BadNote):
            log.writing().__enter__()
    (log.directory / "keys").write_bytes(b"\xff")
    with pytest.raises(BadNote, match="not UTF-8"):
        log.writing().__enter__()


def test_a_writer_that_runs_takes_a_new_key_and_signs_anew(tmp_path: Path) -> None:
    log = KeptLog(tmp_path, 5)
    with log.writing() as writer:
        writer.renew()
        assert writer.note == log.checkpoints[-1]
        (new,) = rotate([log.directory], log.key_file)
        writer.renew()
        checkpoint, note = read_note(writer.note)
        assert (checkpoint.size, note.signers([new])) == (5, [new])
        assert verify(log.directory).problems == []
        writer.append([leaf(5)])
    assert verify(log.directory).problems == []


def test_a_log_is_whole_between_the_change_of_its_key_and_the_next_signature(
    tmp_path: Path,
) -> None:
    log = KeptLog(tmp_path, 5)
    old = read_keys(LogFiles(log.directory))[0]
    for _ in range(3):
        rotate([log.directory], log.key_file)
    report = verify(log.directory, key=old)
    assert (report.problems, len(read_keys(LogFiles(log.directory)))) == ([], 4)


def test_what_an_old_key_signs_after_its_time_is_found(tmp_path: Path) -> None:
    log = KeptLog(tmp_path, 5)
    stolen = log.key_file.read_bytes()
    rotate([log.directory], log.key_file)
    keys = (log.directory / "keys").read_bytes()
    log.key_file.write_bytes(stolen)
    (log.directory / "keys").write_bytes(keys.splitlines(keepends=True)[0])
    with log.writing() as writer:
        writer.append([leaf(5)])
    (log.directory / "keys").write_bytes(keys)
    (problem,) = verify(log.directory).problems
    assert problem.words == "is signed with a key that was replaced at 5 entries"


def test_a_rotation_that_was_cut_short_is_ended_by_the_next(tmp_path: Path) -> None:
    one, two = KeptLog(tmp_path, 5), tmp_path / "log" / "queries"
    signer_of(LogFiles(two), one.key_file, cell=0, stream="queries")
    keys = (two / "keys").read_bytes()
    (two / "keys").write_bytes(b"torn")
    with pytest.raises(BadNote):
        rotate([one.directory, two], one.key_file)
    with pytest.raises(KeyFault, match="end a rotation"):
        one.writing().__enter__()
    (two / "keys").write_bytes(keys)
    done = CliRunner().invoke(holdfast, ["audit", "rotate-key", str(one.directory)])
    assert done.exit_code == 0, done.output
    assert done.output.count("\n") == 2
    assert [len(read_keys(LogFiles(log))) for log in (one.directory, two)] == [2, 2]
    with one.writing() as writer:
        writer.renew()
    assert verify(one.directory).problems == []


def test_only_the_newest_key_of_a_log_can_hand_over(tmp_path: Path) -> None:
    one, other = KeptLog(tmp_path / "one", 1), KeptLog(tmp_path / "two", 1)
    with pytest.raises(KeyFault, match="is not the newest key"):
        rotate([one.directory], other.key_file)
    with pytest.raises(KeyFault, match="it is no log"):
        rotate([tmp_path / "none"], one.key_file)
