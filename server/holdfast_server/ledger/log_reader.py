"""Read a log: its head, and proofs.  Any process may, while another one writes it.

What a checkpoint commits to never changes, so a reader needs no lock: a tile that was partial is
also the beginning of the full one that replaces it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from holdfast.proofs import EMPTY_ROOT, leaf_hash
from holdfast_server.ledger import merkle
from holdfast_server.ledger.checkpoint import Checkpoint, read_note
from holdfast_server.ledger.log_files import LogFiles
from holdfast_server.ledger.log_key import CHECKPOINT, KEYS
from holdfast_server.ledger.tiles import (
    ENTRIES,
    HASH_BYTES,
    TILE_WIDTH,
    nodes_of,
    path_of,
    split_bundle,
    split_tile,
    width_of,
)


class NotInLog(LookupError):
    """Raised when the log has no such tree or entry, or no more the entry's bytes."""


class LogDamaged(RuntimeError):
    """Raised when a file of the log is missing or not what it should be."""


class Proof(NamedTuple):
    """What GetProof answers; `leaf` and proofs are empty where they were not asked for."""

    size: int
    root: bytes
    leaf_index: int
    leaf: bytes
    inclusion: Sequence[bytes]
    consistency: Sequence[bytes]
    note: bytes  # the signed checkpoint of the tree, if it is the newest


class LogReader:
    """Reads one log.  Its methods block for some small files."""

    def __init__(self, directory: Path) -> None:
        self._files = LogFiles(directory)

    def head(self) -> tuple[Checkpoint, bytes] | None:
        """Return the newest checkpoint and its note, none before the first; None without a log.

        Raises BadNote, OSError.
        """
        raw = self._files.read(CHECKPOINT)
        if raw is None:
            is_kept = self._files.read(KEYS) is not None
            return (Checkpoint("", 0, EMPTY_ROOT), b"") if is_kept else None
        return read_note(raw)[0], raw

    def proof(self, sequence: int, size: int, old_size: int) -> Proof | None:
        """Prove an entry in a tree of a size, and that a tree of an older size is its start.

        0 is no entry, the newest size, no older one.  None where no log is kept.  Raises NotInLog,
        LogDamaged, BadNote, OSError.
        """
        head = self.head()
        if head is None:
            return None
        newest, note = head
        size = size or newest.size
        if max(size, old_size) > newest.size:
            raise NotInLog(f"the log has {newest.size} entries")
        if sequence > size:
            raise NotInLog(f"the tree has {size} entries")
        nodes = nodes_of(partial(self.tile, newest.size))
        leaf = self._leaf(newest.size, sequence - 1) if sequence else b""
        if sequence and leaf_hash(leaf) != nodes(0, sequence - 1):
            raise LogDamaged(f"entry {sequence} is not the one that the log has hashed")
        return Proof(
            size,
            newest.root if size == newest.size else merkle.root(size, nodes),
            max(0, sequence - 1),
            leaf,
            merkle.inclusion(sequence - 1, size, nodes) if sequence else (),
            merkle.consistency(old_size, size, nodes) if old_size else (),
            note if size == newest.size else b"",
        )

    def tile(self, size: int, level: int, number: int) -> list[bytes]:
        """Return the hashes of a tile in the tree of a size.  Raises LogDamaged."""
        raw = self._files.tile(level, number, size)
        width = width_of(level, number, size)
        if raw is None or len(raw) != width * HASH_BYTES:
            raise LogDamaged(f"{path_of(level, number, width)} is missing or cut")
        return split_tile(raw)

    def _leaf(self, size: int, index: int) -> bytes:
        number, at = divmod(index, TILE_WIDTH)
        raw = self._files.tile(ENTRIES, number, size)
        leaves = split_bundle(raw) if raw is not None else []
        if at >= len(leaves):
            raise NotInLog(f"the bytes of entry {index + 1} are not kept any more")
        return leaves[at]
