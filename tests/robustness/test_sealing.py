"""What a server archives is sealed: proved to its clients, and verified from its files alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast import AsyncClient, ResumeTokenExpired
from holdfast_server.ledger.leaf import entry_of
from holdfast_server.ledger.log_verify import Report, verify
from tests.robustness.load import stocked, under_load
from tests.serving import Serving, serving, until


async def sealed(server: Serving) -> int:
    """Wait until all that is decided by now is sealed; return the size of the tree."""
    head = await server.head()

    async def is_sealed() -> bool:
        return (await server.head()).tree_size >= head.sequence

    await until(is_sealed)
    return head.sequence


def verified(log: Path, *checkpoints: Path) -> Report:
    """Verify a log from its files alone."""
    report = verify(log, key=None, kept={str(path): path.read_bytes() for path in checkpoints})
    assert not report.problems
    return report


async def test_every_entry_is_proved_and_the_log_verifies_offline(tmp_path: Path) -> None:
    data, exports = tmp_path / "data", tmp_path / "exports"
    exports.mkdir()
    settings = {"data": str(data), "archive": "sqlite", "checkpoint_export": str(exports)}
    async with serving(**settings, durability="memory") as server:
        skus = await stocked(server)
        early = await sealed(server)
        async with under_load(server, skus=skus) as load:
            await load.after(300)
        size = await sealed(server)
        entries = await server.entries()
        async with AsyncClient(server.target) as client:
            for sequence in (1, early, size // 2, size):
                proof = await client.get_proof(sequence, old_tree_size=early)
                assert proof.tree_size >= size
                assert entry_of(proof.leaf).id == entries[sequence - 1].id
            with pytest.raises(ResumeTokenExpired, match="the tree has"):
                await client.get_proof(size + 1_000_000)
    exported = [file for file in sorted(exports.rglob("*")) if file.is_file()]
    ledgers = [file for file in exported if "queries" not in str(file)]
    report = verified(data / "log", *ledgers)
    assert ledgers
    assert report.entries == report.size >= size
    verified(data / "log" / "queries")


async def test_a_log_goes_on_over_a_restart(tmp_path: Path) -> None:
    settings = {"data": str(tmp_path), "archive": "sqlite", "durability": "always"}
    sizes = []
    for _ in range(2):
        async with serving(**settings) as server:
            await server.put(5)
            sizes.append(await sealed(server))
    assert sizes == [2, 4]
    assert verified(tmp_path / "log").size == 4
