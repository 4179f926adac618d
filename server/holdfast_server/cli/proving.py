"""`audit verify` and `audit rotate-key`: a log checked offline, and the key that signs it."""

from __future__ import annotations

from pathlib import Path

import click

from holdfast_server.cli.terminal import Failure, Output, json_option
from holdfast_server.ledger.checkpoint import BadNote, VerifierKey
from holdfast_server.ledger.log_key import KEYS, KeyFault, rotate
from holdfast_server.ledger.log_verify import Report, verify

directory_argument = click.argument(
    "directory", type=click.Path(exists=True, file_okay=False, path_type=Path)
)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("verify")
@directory_argument
@click.option("--key", "key_line", default="", help="Verifier key to believe, as in DIR/keys.")
@click.option("--key-file", type=FILE, help="File with the verifier key to believe.")
@click.option(
    "--checkpoint",
    "checkpoints",
    type=FILE,
    multiple=True,
    help="An exported checkpoint that the log must continue; repeatable.",
)
@json_option
def verify_command(
    directory: Path,
    key_line: str,
    key_file: Path | None,
    checkpoints: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Check every entry, tile and signature of the log in DIRECTORY; exit 1 if one is wrong.

    Needs nothing but the files.  Without a key it believes the log's own first one, which finds
    damage, but no forger: keep the key and a checkpoint elsewhere.
    """
    try:
        if key_file:
            key_line = key_file.read_text(encoding="utf-8").partition("\n")[0]
        key = VerifierKey.parse(key_line.strip()) if key_line else None
        kept = {str(path): path.read_bytes() for path in checkpoints}
        report = verify(directory, key=key, kept=kept)
    except (BadNote, OSError, UnicodeDecodeError) as fault:
        raise Failure(str(fault), reason="not verified", as_json=as_json) from fault
    _show(Output(as_json), report, is_key_given=key is not None)
    if report.problems:
        raise click.exceptions.Exit(1)


def _show(output: Output, report: Report, *, is_key_given: bool) -> None:
    if output.as_json:
        output.document({"holds": not report.problems, **report._asdict()})
        return
    output.say(f"log        {report.origin or 'unknown'}")
    output.say(f"size       {report.size} entries, root {report.root.hex()}")
    output.say(f"key        {report.key}{'' if is_key_given else '  (its own word for it)'}")
    purged = f", 1 to {report.purged} purged" if report.purged else ""
    output.say(f"verified   {report.entries} entries{purged}")
    for stray in report.strays:
        output.say(f"unsigned   {stray}: beyond the checkpoint, or no file of a log")
    for problem in report.problems:
        output.say(f"WRONG      {problem.file}: {problem.words}")
    output.say("" if report.problems else "whole: nothing was changed, cut or reordered")


@click.command("rotate-key")
@directory_argument
@click.option(
    "--log-key",
    "key_file",
    type=FILE,
    help="File of the private key.  [default: log.key beside DIRECTORY]",
)
@json_option
def rotate_key_command(directory: Path, key_file: Path | None, as_json: bool) -> None:
    """Sign the log in DIRECTORY with a new key from now on; safe to repeat if it was cut short.

    The old key says in a last signature which one comes next, so whoever trusts it can follow.  A
    server that runs takes the new key within a second.  The old private key is gone then.
    """
    logs = [directory, *(path.parent for path in sorted(directory.glob(f"*/{KEYS}")))]
    try:
        keys = rotate(logs, key_file or directory.parent / "log.key")
    except (KeyFault, BadNote, OSError) as fault:
        raise Failure(str(fault), reason="key not rotated", as_json=as_json) from fault
    output = Output(as_json)
    if as_json:
        output.document({"keys": list(map(str, keys))})
    for log, key in zip(logs, keys, strict=True):
        output.say(f"{log}: {key}")
