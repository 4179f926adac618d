"""Roots and proofs: as RFC 6962 has them, and as two other implementations make them."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from holdfast.proofs import (
    EMPTY_ROOT,
    InvalidProof,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from holdfast_server.ledger import merkle

SUMDB: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "sumdb.json").read_text(encoding="utf-8")
)
SUMDB_SIZE = 70_000

# Leaves and roots of the tests of Certificate Transparency's reference implementation.
CT_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CT_INCLUSION = [  # index, size, proof
    (0, 1, []),
    (
        0,
        8,
        [
            "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
            "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
            "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        ],
    ),
    (
        2,
        3,
        ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    ),
]


def nodes_of(leaves: list[bytes]) -> merkle.Nodes:
    hashes = [leaf_hash(leaf) for leaf in leaves]
    return lambda level, index: merkle.tree_hash(hashes[index << level : (index + 1) << level])


def of_text(proof: list[str]) -> list[bytes]:
    return [base64.b64decode(step) for step in proof]


@pytest.fixture(scope="module")
def sumdb_nodes() -> merkle.Nodes:
    """Nodes of the tree that the vectors are about, each level kept."""
    levels = [[leaf_hash(b"entry %d" % index) for index in range(SUMDB_SIZE)]]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([merkle.tree_hash(below[at : at + 2]) for at in range(0, len(below) - 1, 2)])
    return lambda level, index: levels[level][index]


def test_the_hashes_of_nothing_and_of_an_empty_leaf_are_those_of_the_rfc() -> None:
    assert EMPTY_ROOT == sha256(b"").digest() == merkle.root(0, nodes_of([]))
    assert leaf_hash(b"").hex() == CT_ROOTS[0]


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_are_those_of_certificate_transparency(size: int) -> None:
    assert merkle.root(size, nodes_of(CT_LEAVES)).hex() == CT_ROOTS[size - 1]
    assert (
        merkle.tree_hash([leaf_hash(leaf) for leaf in CT_LEAVES[:size]]).hex()
        == (CT_ROOTS[size - 1])
    )


@pytest.mark.parametrize(("index", "size", "proof"), CT_INCLUSION)
def test_inclusion_is_that_of_certificate_transparency(
    index: int, size: int, proof: list[str]
) -> None:
    assert [step.hex() for step in merkle.inclusion(index, size, nodes_of(CT_LEAVES))] == proof


def test_roots_and_proofs_are_those_of_the_go_checksum_database(
    sumdb_nodes: merkle.Nodes,
) -> None:
    roots = {int(size): base64.b64decode(text) for size, text in SUMDB["roots"].items()}
    for size, root in roots.items():
        assert merkle.root(size, sumdb_nodes) == root
    for index, size, proof in SUMDB["inclusion"]:
        assert merkle.inclusion(index, size, sumdb_nodes) == of_text(proof)
        root, leaf = merkle.root(size, sumdb_nodes), b"entry %d" % index
        verify_inclusion(leaf, index, size, root=root, proof=of_text(proof))
    for old, size, proof in SUMDB["consistency"]:
        assert merkle.consistency(old, size, sumdb_nodes) == of_text(proof)
        before, root = merkle.root(old, sumdb_nodes), merkle.root(size, sumdb_nodes)
        verify_consistency(old, before, size, root=root, proof=of_text(proof))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=80), st.data())
def test_random_trees_are_those_of_pymerkle(leaves: list[bytes], data: st.DataObject) -> None:
    other = InmemoryTree()
    for leaf in leaves:
        other.append_entry(leaf)
    nodes = nodes_of(leaves)
    size = data.draw(st.integers(1, len(leaves)))
    old, index = data.draw(st.integers(1, size)), data.draw(st.integers(0, size - 1))
    root = merkle.root(size, nodes)
    assert root == other.get_root(size)
    path = [leaf_hash(leaves[index]), *merkle.inclusion(index, size, nodes)]
    theirs = other.prove_inclusion(index + 1, size).serialize()["path"]
    assert sorted(step.hex() for step in path) == sorted(theirs)
    # Its proofs of consistency have other steps than RFC 6962's, so only its roots serve.
    grown = merkle.consistency(old, size, nodes)
    verify_consistency(old, other.get_root(old), size, root=root, proof=grown)
    verify_inclusion(leaves[index], index, size, root=root, proof=path[1:])


SIZE_MAX = 20
SMALL = [b"leaf %d" % index for index in range(SIZE_MAX)]


@pytest.mark.parametrize("size", range(1, SIZE_MAX + 1))
def test_every_proof_of_a_small_tree_proves_that_and_nothing_else(size: int) -> None:
    nodes = nodes_of(SMALL)
    root = merkle.root(size, nodes)
    for index in range(size):
        proof = merkle.inclusion(index, size, nodes)
        verify_inclusion(SMALL[index], index, size, root=root, proof=proof)
        for leaf, at, steps in [
            (b"another", index, proof),
            (SMALL[index], index + 1, proof),
            (SMALL[index], index, [*proof, root]),
            *((SMALL[index], index, proof[:cut]) for cut in range(len(proof))),
            *((SMALL[index], index, spoiled(proof, at)) for at in range(len(proof))),
        ]:
            with pytest.raises(InvalidProof):
                verify_inclusion(leaf, at, size, root=root, proof=steps)


@pytest.mark.parametrize("size", range(1, SIZE_MAX + 1))
def test_every_small_tree_continues_the_smaller_ones_and_no_others(size: int) -> None:
    nodes = nodes_of(SMALL)
    root = merkle.root(size, nodes)
    for old in range(size + 1):
        proof, before = merkle.consistency(old, size, nodes), merkle.root(old, nodes)
        verify_consistency(old, before, size, root=root, proof=proof)
        for first, steps in [
            (bytes(32), proof),
            (before, [*proof, root]),
            *((before, proof[:cut]) for cut in range(len(proof))),
            *((before, spoiled(proof, at)) for at in range(len(proof))),
        ]:
            with pytest.raises(InvalidProof):
                verify_consistency(old, first, size, root=root, proof=steps)


def test_sizes_that_no_tree_has_are_refused() -> None:
    for old, size in ((-1, 3), (4, 3)):
        with pytest.raises(InvalidProof, match="does not begin with"):
            verify_consistency(old, EMPTY_ROOT, size, root=EMPTY_ROOT, proof=[])
    with pytest.raises(InvalidProof, match="has none at index 3"):
        verify_inclusion(b"", 3, 3, root=EMPTY_ROOT, proof=[])


def spoiled(proof: list[bytes], at: int) -> list[bytes]:
    return [*proof[:at], bytes(32), *proof[at + 1 :]]
