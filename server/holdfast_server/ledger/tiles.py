"""The files of a Merkle log as C2SP tlog-tiles lays them out, as values: no disk is touched here.

A tile is 256 consecutive hashes of a level, 8 levels of the tree apart; the leaves themselves are
in entry bundles of 256.  Full ones never change.  The last of each level is partial, kept under its
width, and only full tiles are hashed into the level above.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from holdfast.proofs import EMPTY_ROOT, leaf_hash
from holdfast_server.ledger.leaf import LEAF_BYTES_MAX
from holdfast_server.ledger.merkle import Nodes, tree_hash

TILE_WIDTH = 256
TILE_HEIGHT = 8
HASH_BYTES = 32
ENTRIES = "entries"  # stands where a level does in the path of an entry bundle

Level = int | str
ReadTile = Callable[[int, int], Sequence[bytes]]

_PATH = re.compile(
    r"tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/((?:x\d{3}/)*\d{3})(?:\.p/([1-9]\d{0,2}))?"
)


class TilePath(NamedTuple):
    """Which tile or entry bundle a file holds."""

    level: Level
    number: int
    width: int


def path_of(level: Level, number: int, width: int = TILE_WIDTH) -> str:
    """Return the path of a tile, or with ENTRIES as its level of an entry bundle."""
    digits = str(number)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    name = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
    return f"tile/{level}/{name}" + (f".p/{width}" if width < TILE_WIDTH else "")


def read_path(path: str) -> TilePath | None:
    """Return what the file at a path holds; None where the path is none of a log."""
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    level: Level = match[1] if match[1] == ENTRIES else int(match[1])
    number = int(match[2].replace("x", "").replace("/", ""))
    width = int(match[3]) if match[3] else TILE_WIDTH
    return TilePath(level, number, width) if path_of(level, number, width) == path else None


def width_of(level: Level, number: int, size: int) -> int:
    """Return how wide a tile or entry bundle is in the tree of `size` leaves; 0: not there yet."""
    hashes = size if isinstance(level, str) else size >> TILE_HEIGHT * level
    return max(0, min(TILE_WIDTH, hashes - number * TILE_WIDTH))


def split_tile(raw: bytes) -> list[bytes]:
    """Return the hashes of a tile."""
    return [raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)]


def bundle_of(leaves: Sequence[bytes]) -> bytes:
    """Return leaves as an entry bundle: each after its length.

    Raises ValueError for a leaf that is longer than a bundle can say.
    """
    parts: list[bytes] = []
    for leaf in leaves:
        if len(leaf) > LEAF_BYTES_MAX:
            raise ValueError(f"a leaf is {len(leaf)} bytes long, at most {LEAF_BYTES_MAX} can be")
        parts += (len(leaf).to_bytes(2, "big"), leaf)
    return b"".join(parts)


def split_bundle(raw: bytes) -> list[bytes]:
    """Return the leaves of an entry bundle; a last one that is cut off is left out."""
    leaves: list[bytes] = []
    at = 0
    while at + 2 <= len(raw):
        end = at + 2 + int.from_bytes(raw[at : at + 2], "big")
        if end > len(raw):
            break
        leaves.append(raw[at + 2 : end])
        at = end
    return leaves


def nodes_of(read: ReadTile) -> Nodes:
    """Return the nodes of a tree whose tiles `read` returns by level and number."""

    def node(level: int, index: int) -> bytes:
        tile_level, height = divmod(level, TILE_HEIGHT)
        number, at = divmod(index << height, TILE_WIDTH)
        return tree_hash(read(tile_level, number)[at : at + (1 << height)])

    return node


class Tree(NamedTuple):
    """A tree as what the next leaf needs of it: the last, incomplete tile of each level.

    `bundle` is the incomplete entry bundle.
    """

    size: int = 0
    edge: tuple[tuple[bytes, ...], ...] = ()
    bundle: bytes = b""

    def root(self) -> bytes:
        """Return the root hash."""
        below: tuple[bytes, ...] = ()
        for hashes in self.edge:
            items = (*hashes, *below)
            below = (tree_hash(items),) if items else ()
        return below[0] if below else EMPTY_ROOT


class Growth(NamedTuple):
    """A tree with more leaves, and by path the files that the tree before did not need.

    `full` are the paths of those that may have been partial before.
    """

    tree: Tree
    files: dict[str, bytes]
    full: list[str]


def grow(tree: Tree, leaves: Sequence[bytes]) -> Growth:
    """Append leaves to a tree.  Raises ValueError for one that is too long."""
    files: dict[str, bytes] = {}
    full: list[str] = []
    edge = [list(hashes) for hashes in tree.edge] or [[]]
    bundle, size = tree.bundle, tree.size
    changed = {0}
    start = 0
    while start < len(leaves):
        part = leaves[start : start + TILE_WIDTH - size % TILE_WIDTH]
        bundle += bundle_of(part)
        edge[0] += map(leaf_hash, part)
        start, size = start + len(part), size + len(part)
        if size % TILE_WIDTH == 0:
            full.append(path_of(ENTRIES, size // TILE_WIDTH - 1))
            files[full[-1]] = bundle
            bundle = b""
            changed |= _raise(edge, size, files, full)
    for level in changed:
        if edge[level]:
            number = size >> TILE_HEIGHT * (level + 1)
            files[path_of(level, number, len(edge[level]))] = b"".join(edge[level])
    if bundle:
        files[path_of(ENTRIES, size // TILE_WIDTH, size % TILE_WIDTH)] = bundle
    return Growth(Tree(size, tuple(map(tuple, edge)), bundle), files, full)


def _raise(
    edge: list[list[bytes]], size: int, files: dict[str, bytes], full: list[str]
) -> set[int]:
    """Hash every tile that is full into the level above; return the levels that changed."""
    level = 0
    while len(edge[level]) == TILE_WIDTH:
        full.append(path_of(level, (size >> TILE_HEIGHT * (level + 1)) - 1))
        files[full[-1]] = b"".join(edge[level])
        if level + 1 == len(edge):
            edge.append([])
        edge[level + 1].append(tree_hash(edge[level]))
        edge[level] = []
        level += 1
    return set(range(level + 1))
