"""`audit check`: an archive decided again, without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from holdfast_server.checks.verdict import Verdict
from holdfast_server.cli.ledger import show_verdicts
from holdfast_server.cli.terminal import Failure, Output, json_option
from holdfast_server.errors import StoreUnavailable
from holdfast_server.ledger.archive import Archive
from holdfast_server.ledger.comparing import Compared, compare
from holdfast_server.ledger.database import archive_url
from holdfast_server.ledger.faults import ArchiveFault
from holdfast_server.ledger.rechecking import Rechecked, decide_again


@click.command("check")
@click.option(
    "--data", default="holdfast-data", show_default=True, help="Data directory with the archive."
)
@click.option("--archive", default="", help="URL of the archive instead.")
@click.option("--cell", type=click.IntRange(0, 16_383), default=0, help="Number of the cell.")
@json_option
def check_command(data: str, archive: str, cell: int, as_json: bool) -> None:
    """Decide every entry of an archive again, and add them up; exit 1 if anything is otherwise.

    It may belong to a server that runs.  It prints the digest of the state, which names it.
    """
    output = Output(as_json)
    file = Path(data) / "archive.db"
    if not archive and not file.is_file():
        raise Failure(f"there is no archive at {file}", as_json=as_json)
    try:
        found, compared = asyncio.run(_check(archive or archive_url("sqlite", Path(data)), cell))
    except (ArchiveFault, StoreUnavailable) as fault:
        raise Failure(str(fault), as_json=as_json) from fault
    verdicts = _verdicts(found, compared)
    show_verdicts(output, verdicts)
    output.say(f"state after #{found.entries}: {found.digest.hex()}")
    if not all(verdict.holds for verdict in verdicts):
        raise click.exceptions.Exit(1)


async def _check(url: str, cell: int) -> tuple[Rechecked, Compared]:
    async with Archive.open(url, cell) as archive:
        return await decide_again(archive), await compare(archive)


def _verdicts(found: Rechecked, compared: Compared) -> list[Verdict]:
    differences = [f"#{sequence}: {message}" for sequence, message in found.differences]
    is_same = found.digest == found.kept
    words = f"the archive's state is {found.kept.hex()}, decided again {found.digest.hex()}"
    return [
        Verdict("replay_decides_alike", not differences, found.entries, differences),
        Verdict("replay_equals_archive", is_same, found.entries, [] if is_same else [words]),
        Verdict(
            "archive_equals_ledger",
            not compared.differences,
            compared.entries,
            compared.differences,
        ),
    ]
