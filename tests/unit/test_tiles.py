"""Tiles and entry bundles, as C2SP tlog-tiles lays them out."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.proofs import EMPTY_ROOT, leaf_hash
from holdfast_server.ledger import merkle
from holdfast_server.ledger.leaf import LEAF_BYTES_MAX
from holdfast_server.ledger.tiles import (
    ENTRIES,
    Tree,
    bundle_of,
    grow,
    nodes_of,
    path_of,
    read_path,
    split_bundle,
    split_tile,
    width_of,
)
from tests.unit.kept_logs import leaf

SUMDB: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "sumdb.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        ((0, 0, 256), "tile/0/000"),
        ((0, 1234067, 256), "tile/0/x001/x234/067"),
        ((2, 999, 1), "tile/2/999.p/1"),
        ((1, 1000, 17), "tile/1/x001/000.p/17"),
        ((ENTRIES, 5, 255), "tile/entries/005.p/255"),
    ],
)
def test_a_tile_has_the_path_of_the_specification(tile: Any, path: str) -> None:
    assert path_of(*tile) == path
    assert read_path(path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/0",
        "tile/00/000",
        "tile/64/000",
        "tile/0/x000/001",
        "tile/0/000.p/0",
        "tile/0/000.p/256",
        "tile/0/000.p/01",
        "tile/entries/000.tmp",
        "checkpoint",
        "tile/0/\u0660\u0660\u0660",
    ],
)
def test_what_is_no_path_of_a_tile_is_not_taken_for_one(path: str) -> None:
    assert read_path(path) is None


def test_widths_are_those_of_the_specifications_example() -> None:
    assert [width_of(0, number, 70_000) for number in (0, 272, 273, 274)] == [256, 256, 112, 0]
    assert [width_of(1, number, 70_000) for number in (0, 1, 2)] == [256, 17, 0]
    assert (width_of(2, 0, 70_000), width_of(3, 0, 70_000)) == (1, 0)
    assert (width_of(0, 0, 256), width_of(1, 0, 256)) == (256, 1)
    assert width_of(ENTRIES, 273, 70_000) == 112


def test_tiles_and_root_are_those_of_the_go_checksum_database() -> None:
    growth = grow(Tree(), [b"entry %d" % index for index in range(70_000)])
    for path, digest in SUMDB["tile_leaf_hashes"].items():
        assert leaf_hash(growth.files[path]) == base64.b64decode(digest), path
    assert growth.tree.root() == base64.b64decode(SUMDB["roots"]["70000"])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, 200, 255, 256, 257, 700]), max_size=6))
def test_however_a_tree_grows_its_files_and_root_are_the_same(steps: list[int]) -> None:
    leaves = [leaf(index) for index in range(sum(steps))]
    tree, files = Tree(), {}
    for step in steps:
        growth = grow(tree, leaves[tree.size : tree.size + step])
        tree = growth.tree
        files |= growth.files
    at_once = grow(Tree(), leaves)
    assert tree.size == at_once.tree.size == len(leaves)
    assert tree.root() == at_once.tree.root() == merkle.tree_hash(list(map(leaf_hash, leaves)))
    assert at_once.files.items() <= files.items()

    def read(level: int, number: int) -> list[bytes]:
        return split_tile(files[path_of(level, number, width_of(level, number, tree.size))])

    assert merkle.root(tree.size, nodes_of(read)) == tree.root()


def test_a_tree_without_leaves_needs_no_file() -> None:
    assert grow(Tree(), []) == (Tree(0, ((),)), {}, [])
    assert Tree().root() == EMPTY_ROOT


def test_a_bundle_holds_each_leaf_after_its_length() -> None:
    leaves = [b"", b"one", bytes(LEAF_BYTES_MAX)]
    raw = bundle_of(leaves)
    assert raw[:7] == b"\0\0\0\3one"
    assert split_bundle(raw) == leaves
    assert split_bundle(raw[:-1]) == leaves[:2]


def test_a_leaf_too_long_for_a_bundle_is_refused_with_the_limit() -> None:
    with pytest.raises(ValueError, match="65536 bytes long, at most 65535"):
        grow(Tree(), [bytes(LEAF_BYTES_MAX + 1)])
