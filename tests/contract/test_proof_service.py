"""GetProof and the tree in GetHead, as their contract promises them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from holdfast import AsyncClient, Client, InvalidProof, ResumeTokenExpired, Unimplemented
from holdfast.proofs import EMPTY_ROOT
from holdfast.v1 import ledger_pb2 as pb
from holdfast_server.ledger.checkpoint import read_note
from holdfast_server.ledger.log_files import LogFiles
from holdfast_server.ledger.log_key import read_keys
from tests.serving import Serving, failure, serving
from tests.unit.kept_logs import KeptLog

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = 700
LOST = (grpc.StatusCode.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED", "holdfast")
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT", "holdfast")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> KeptLog:
    """A log where a server looks for one."""
    return KeptLog(tmp_path_factory.mktemp("data"), SIZE)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proving(log: KeptLog) -> AsyncIterator[Serving]:
    """A server with that log in its data directory."""
    async with serving(data=str(log.directory.parent), durability="memory") as server:
        yield server


async def prove(server: Serving, **fields: int) -> pb.GetProofResponse:
    return await server.ledger.GetProof(pb.GetProofRequest(**fields))


async def test_the_head_tells_the_newest_tree(proving: Serving, log: KeptLog) -> None:
    head, (newest, _note) = await proving.head(), read_note(log.checkpoints[-1])
    assert (head.tree_size, head.root_hash) == (SIZE, newest.root)


async def test_an_entry_is_proved_in_the_newest_tree_with_its_signed_checkpoint(
    proving: Serving, log: KeptLog
) -> None:
    answer = await prove(proving, sequence=300)
    assert (answer.tree_size, answer.leaf_index, answer.leaf) == (SIZE, 299, log.leaves[299])
    assert answer.checkpoint.encode() == log.checkpoints[-1]
    checkpoint, note = read_note(answer.checkpoint.encode())
    assert note.signers(read_keys(LogFiles(log.directory)))
    assert (checkpoint.size, checkpoint.root) == (answer.tree_size, answer.root_hash)


async def test_no_proof_is_made_that_was_not_asked_for(proving: Serving) -> None:
    answer = await prove(proving)
    assert (answer.tree_size, answer.leaf, answer.leaf_index) == (SIZE, b"", 0)
    assert not answer.inclusion
    assert not answer.consistency


async def test_both_clients_check_what_they_are_told(proving: Serving, log: KeptLog) -> None:
    def ask() -> Any:
        with Client(proving.target) as client:
            return client.get_proof(650, tree_size=680, old_tree_size=300)

    async with AsyncClient(proving.target) as client:
        proof = await client.get_proof(650, tree_size=680, old_tree_size=300)
        old = await client.get_proof(tree_size=300)
    assert proof == await asyncio.to_thread(ask)
    assert (proof.leaf, proof.checkpoint) == (log.leaves[649], "")
    proof.verify()
    proof.verify_since(300, old.root_hash)
    with pytest.raises(InvalidProof):
        proof._replace(leaf=b"another").verify()
    with pytest.raises(InvalidProof):
        proof.verify_since(300, proof.root_hash)


async def test_every_kept_root_is_continued(proving: Serving, log: KeptLog) -> None:
    async with AsyncClient(proving.target) as client:
        for raw in log.checkpoints:
            old, _note = read_note(raw)
            proof = await client.get_proof(old_tree_size=old.size)
            proof.verify_since(old.size, old.root)


@pytest.mark.parametrize(
    "fields",
    [
        {"tree_size": SIZE + 1},
        {"old_tree_size": SIZE + 1},
        {"sequence": SIZE + 1},
        {"sequence": 11, "tree_size": 10},
    ],
)
async def test_a_tree_that_is_not_there_yet_is_told(
    proving: Serving, fields: dict[str, int]
) -> None:
    assert (await failure(prove(proving, **fields))).kind == LOST
    async with AsyncClient(proving.target) as client:
        with pytest.raises(ResumeTokenExpired):
            await client.get_proof(SIZE + 1)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"cell": 1}, "cell"),
        ({"cell": -1}, "cell"),
        ({"sequence": -1}, "sequence"),
        ({"sequence": 2**53 + 1}, "sequence"),
        ({"tree_size": -1}, "tree_size"),
        ({"old_tree_size": 2**60}, "old_tree_size"),
        ({"tree_size": 5, "old_tree_size": 6}, "old_tree_size"),
    ],
)
async def test_a_bad_argument_is_named(
    proving: Serving, fields: dict[str, int], field: str
) -> None:
    refused = await failure(prove(proving, **fields))
    assert refused.kind == INVALID
    assert refused.violations.keys() == {field}


async def test_a_log_with_nothing_in_it_is_an_empty_tree(tmp_path: Path) -> None:
    KeptLog(tmp_path, 0)
    async with serving(data=str(tmp_path), durability="memory") as server:
        answer = await prove(server)
        assert (answer.tree_size, answer.root_hash, answer.checkpoint) == (0, EMPTY_ROOT, "")
        assert (await failure(prove(server, sequence=1))).kind == LOST
        assert (await server.head()).root_hash == b""


async def test_a_server_without_a_log_says_so(embedded: Serving) -> None:
    async with AsyncClient(embedded.target) as client:
        with pytest.raises(Unimplemented, match="keeps no Merkle log"):
            await client.get_proof(1)


async def test_a_damaged_log_proves_nothing_and_stock_goes_on(tmp_path: Path) -> None:
    log = KeptLog(tmp_path, 10)
    async with serving(data=str(tmp_path), durability="memory") as server:
        entries = log.directory / "tile/entries/000.p/10"
        entries.write_bytes(entries.read_bytes().replace(b"3:", b"4:"))
        refused = await failure(prove(server, sequence=4))
        assert refused.reason == "STORE_UNAVAILABLE"
        assert "entry 4 is not the one" in refused.message
        (log.directory / "checkpoint").write_bytes(b"torn")
        assert (await failure(prove(server))).reason == "STORE_UNAVAILABLE"
        assert (await server.head()).tree_size == 0
        await server.put(1)
