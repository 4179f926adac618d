"""One log's directory: opened as it was left, grown, and signed.

What counts is the checkpoint.  Tiles go to the disk before it, so whatever a crash leaves beyond it
is written again from the archive, and what is missing of the incomplete tiles is made again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from holdfast.proofs import EMPTY_ROOT, leaf_hash
from holdfast_server.ledger.checkpoint import Checkpoint, Signer, read_note, signed
from holdfast_server.ledger.log_files import LogFiles
from holdfast_server.ledger.log_key import CHECKPOINT, read_keys, signer_of
from holdfast_server.ledger.merkle import tree_hash
from holdfast_server.ledger.tiles import (
    ENTRIES,
    HASH_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Level,
    Tree,
    bundle_of,
    grow,
    path_of,
    split_bundle,
    split_tile,
    width_of,
)

PURGED = "purged"
LOCK = ".lock"


class LogConflict(RuntimeError):
    """Raised when a log is not that of the archive, or another process writes it."""


class LogWriter:
    """Writes one log.  Blocking; to be called by one thread at a time.

    After any error it is to be closed, and another one opened: memory may be ahead of the disk.
    """

    def __init__(self, directory: Path, key_file: Path, *, cell: int, stream: str) -> None:
        self._files = LogFiles(directory)
        self._key_file, self._cell, self._stream = key_file, cell, stream
        self._lock = -1
        self._tree = Tree()
        self._committed = Checkpoint("", 0, EMPTY_ROOT)
        self._signer: Signer
        self._key_seen: tuple[int, int] = (0, 0)
        self.note = b""  # the signed checkpoint; empty before the first

    @property
    def size(self) -> int:
        """Return the number of leaves that the log has committed to."""
        return self._committed.size

    @property
    def tail_start(self) -> int:
        """Return the first leaf of the last entry bundle: `resume` needs those from there on."""
        return max(0, self.size - 1) // TILE_WIDTH * TILE_WIDTH

    def open(self) -> None:
        """Claim the directory and read its checkpoint.

        Raises LogConflict, KeyFault, BadNote for a damaged checkpoint, OSError.
        """
        self._files.root.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._lock = os.open(self._files.root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LogConflict(f"another process writes {self._files.root}") from None
        self._take_key()
        raw = self._files.read(CHECKPOINT)
        if raw is None:
            return
        checkpoint, note = read_note(raw)
        if checkpoint.origin != self._signer.name or not note.signers(read_keys(self._files)):
            raise LogConflict(f"the checkpoint of {self._files.root} is signed by none of its keys")
        self._committed, self.note = checkpoint, raw
        self._remove_bundles(self._purged_through())

    def close(self) -> None:
        """Let the directory go."""
        self._files.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def resume(self, leaves: Sequence[bytes]) -> None:
        """Go on from the last checkpoint, mending the incomplete tiles.

        `leaves` are the archive's from `tail_start` to `size`, or none where it keeps them no more.
        Raises LogConflict when the archive has others, or the tiles are not those of the
        checkpoint.
        """
        stored = self._stored_tail()
        tail = list(leaves) or stored
        for is_trusting in (True, False):
            tree = self._tree_of(tail, is_trusting=is_trusting)
            if tree.root() == self._committed.root and self._is_last_tile(tail, tree):
                self._tree = tree
                self._mend(tree, tail)
                return
        raise self._conflict(stored, tail)

    def _conflict(self, stored: Sequence[bytes], tail: Sequence[bytes]) -> LogConflict:
        pairs = zip(stored, tail, strict=False)
        for sequence, (ours, theirs) in enumerate(pairs, self.tail_start + 1):
            if ours != theirs:
                return LogConflict(f"entry {sequence} of the archive is not the one in the log")
        return LogConflict(
            f"the last of {self.size} entries in the archive, or the tiles in {self._files.root}, "
            "are not those of the checkpoint: see `holdfast audit verify`"
        )

    def append(self, leaves: Sequence[bytes]) -> None:
        """Add leaves, and sign.  Raises ValueError for a leaf too long, OSError, KeyFault."""
        self._take_key()
        growth = grow(self._tree, leaves)
        for path, data in growth.files.items():
            self._files.write(path, data)
        self._files.sync()
        self._commit(Checkpoint(self._signer.name, growth.tree.size, growth.tree.root()))
        self._tree = growth.tree
        for path in growth.full:
            self._files.drop_partials(path)

    def renew(self) -> None:
        """Sign the last checkpoint again if the key has changed since.  Raises as `append`."""
        if self._take_key() and self.size:
            _checkpoint, note = read_note(self.note)
            if not note.signers([self._signer.verifier]):
                self._commit(self._committed)

    def purge(self, through: int) -> None:
        """Remove the bundles of entries up to a sequence, whole ones only; their hashes stay."""
        last = min(through, self.size) // TILE_WIDTH * TILE_WIDTH
        if last > self._purged_through():
            self._files.put(PURGED, f"1 {last}\n".encode())
            self._remove_bundles(last)

    def _take_key(self) -> bool:
        """Read the key if its file is new; tell whether it was."""
        try:
            found = self._key_file.stat()
            seen = (found.st_mtime_ns, found.st_ino)
        except OSError:  # it is made, or its loss is named, below
            seen = (0, 0)
        if seen == self._key_seen and seen != (0, 0):
            return False
        self._signer = signer_of(self._files, self._key_file, cell=self._cell, stream=self._stream)
        self._key_seen = seen
        return True

    def _commit(self, checkpoint: Checkpoint) -> None:
        note = signed(checkpoint, [self._signer]).encode()
        self._files.put(CHECKPOINT, note)
        self._committed, self.note = checkpoint, note

    def _purged_through(self) -> int:
        words = (self._files.read(PURGED) or b"1 0").split()
        return int(words[1]) if len(words) == 2 and words[1].isdigit() else 0

    def _remove_bundles(self, through: int) -> None:
        """Remove purged bundles, the oldest first: so those that a crash left are the newest."""
        numbers = []
        for number in range(through // TILE_WIDTH - 1, -1, -1):
            if not (self._files.root / path_of(ENTRIES, number)).exists():
                break
            numbers.append(number)
        for number in reversed(numbers):
            (self._files.root / path_of(ENTRIES, number)).unlink()

    def _stored_tail(self) -> list[bytes]:
        raw = self._read(ENTRIES, self._last_tile)
        return split_bundle(raw)[: self.size - self.tail_start] if raw else []

    def _read(self, level: Level, number: int) -> bytes | None:
        """Return a tile as of the committed size."""
        return self._files.tile(level, number, self.size)

    def _tree_of(self, tail: Sequence[bytes], *, is_trusting: bool) -> Tree:
        """Return the tree of the committed size; what cannot be had of it makes its root another.

        A level's incomplete tile is read, or unless trusting made from the tiles below.
        """
        if not self.size:
            return Tree()
        hashes = list(map(leaf_hash, tail))
        is_whole = self.size % TILE_WIDTH == 0
        edge = [() if is_whole else tuple(hashes)]
        for level in count(1):
            width = (self.size >> TILE_HEIGHT * level) % TILE_WIDTH
            if not self.size >> TILE_HEIGHT * level:
                break
            number = self.size >> TILE_HEIGHT * (level + 1)
            raw = self._read(level, number) if is_trusting and width else None
            if raw is not None and len(raw) == width * HASH_BYTES:
                edge.append(tuple(split_tile(raw)))
            else:
                first = number * TILE_WIDTH
                edge.append(tuple(self._full_hash(level - 1, first + at) for at in range(width)))
        return Tree(self.size, tuple(edge), b"" if is_whole else bundle_of(tail))

    def _is_last_tile(self, tail: Sequence[bytes], tree: Tree) -> bool:
        """Tell whether leaves are those of the last tile, where that is full and in no edge."""
        if not tail or tree.edge[0]:
            return True
        above = tree.edge[1] or split_tile(self._read(1, self._last_tile // TILE_WIDTH) or b"")
        return tree_hash(list(map(leaf_hash, tail))) == above[-1]

    @property
    def _last_tile(self) -> int:
        return self.tail_start // TILE_WIDTH

    def _full_hash(self, level: int, number: int) -> bytes:
        return tree_hash(split_tile(self._files.read(path_of(level, number)) or b""))

    def _mend(self, tree: Tree, tail: Sequence[bytes]) -> None:
        """Write the incomplete tiles that are not as the tree has them."""
        for height, hashes in enumerate(tree.edge[1:], 1):
            data = b"".join(hashes)
            number = tree.size >> TILE_HEIGHT * (height + 1)
            if data and self._read(height, number) != data:
                self._files.write(path_of(height, number, len(hashes)), data)
        last: dict[Level, bytes] = {}
        if tail:
            last = {ENTRIES: bundle_of(tail), 0: b"".join(map(leaf_hash, tail))}
        for level, data in last.items():
            if self._read(level, self._last_tile) != data:
                width = width_of(level, self._last_tile, tree.size)
                self._files.write(path_of(level, self._last_tile, width), data)
        self._files.sync()
