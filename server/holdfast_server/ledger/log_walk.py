"""Go through every entry and tile of a log once, from the leaves up, and find what was changed.

Where what is stored is not what the level below makes of itself, the level above tells which of the
two was changed, and at the right edge the root does.  Memory holds one tile a level.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from holdfast.proofs import leaf_hash
from holdfast_server.ledger.log_files import LogFiles
from holdfast_server.ledger.log_trust import Problem
from holdfast_server.ledger.merkle import tree_hash
from holdfast_server.ledger.tiles import (
    ENTRIES,
    HASH_BYTES,
    TILE_HEIGHT,
    TILE_WIDTH,
    Level,
    Tree,
    path_of,
    split_bundle,
    split_tile,
    width_of,
)

NAMED_MAX = 20  # entries of one bundle that are named one by one

Hashes = Sequence[bytes]


class Walk:
    """Checks the files of a log against each other and the root of its checkpoint."""

    def __init__(self, files: LogFiles, size: int, root: bytes, purged: int) -> None:
        self._files, self._size, self._root, self._purged = files, size, root, purged
        self._made: list[list[bytes | None]] = [[]]
        self._above: dict[int, tuple[int, Hashes | None]] = {}
        self._last: dict[int, list[tuple[list[Problem], Hashes]]] = {}
        self.entries = 0
        self.problems: list[Problem] = []

    def run(self) -> None:
        """Check everything that the checkpoint commits to."""
        for number in range(-(-self._size // TILE_WIDTH)):
            self._made[0] = list(self._entries(number))
            if len(self._made[0]) == TILE_WIDTH:
                self._complete(0, number)
        for level in range(len(self._made)):
            if self._made[level]:
                self._finish(level, self._size >> TILE_HEIGHT * (level + 1))
        self._check_root()

    def _entries(self, number: int) -> Sequence[bytes | None]:
        """Return the hash of each leaf in a bundle; None for all where it cannot be read."""
        width = width_of(ENTRIES, number, self._size)
        first = number * TILE_WIDTH
        raw = self._files.tile(ENTRIES, number, self._size)
        is_purged = first + width <= self._purged
        if raw is None:
            if not is_purged:
                self._blame(ENTRIES, number, 0, f"is missing: {self._range(0, number)}")
            return [None] * width
        if is_purged:
            self._blame(ENTRIES, number, 0, "is there, although it is named as purged")
        leaves = split_bundle(raw)
        self.entries += min(width, len(leaves))
        hashes = [leaf_hash(leaf) for leaf in leaves[:width]]
        is_exact = sum(map(len, leaves)) + 2 * len(leaves) == len(raw)
        if is_exact and len(leaves) in (width, TILE_WIDTH):
            return hashes
        stored = self._stored(0, number) or ()
        same = (ours == theirs for ours, theirs in zip(hashes, stored, strict=False))
        at = next((at for at, is_same in enumerate(same) if not is_same), len(hashes))
        if at < width:
            self._blame(ENTRIES, number, first + at + 1, f"entry {first + at + 1} is cut or torn")
        else:
            self._blame(ENTRIES, number, 0, "has bytes after its last entry")
        return [None] * width

    def _complete(self, level: int, number: int) -> None:
        """Decide what a full tile holds, and hash it into the level above."""
        made, stored = self._both(level, number)
        chosen = made if made is not None else stored
        if made is not None and stored is not None and made != stored:
            above = self._stored(level + 1, number // TILE_WIDTH)
            parent = above[number % TILE_WIDTH] if above else b""
            if parent == tree_hash(stored):
                self.problems += self._changed_below(level, number, made, stored)
                chosen = stored
            elif parent == tree_hash(made):
                self.problems += [self._changed_tile(level, number)]
            else:
                self._blame(level, number, 0, "is not what it is made of, nor is the level above")
        if level + 1 == len(self._made):
            self._made.append([])
        self._made[level] = []
        self._made[level + 1].append(tree_hash(chosen) if chosen is not None else None)
        if len(self._made[level + 1]) == TILE_WIDTH:
            self._complete(level + 1, number // TILE_WIDTH)

    def _finish(self, level: int, number: int) -> None:
        """Note what the last, incomplete tile of a level may hold; the root decides."""
        made, stored = self._both(level, number)
        found: list[tuple[list[Problem], Hashes]] = []
        if made is not None:
            is_other = stored is not None and made != stored
            found.append(([self._changed_tile(level, number)] if is_other else [], made))
        if stored is not None and stored != made:
            below = self._changed_below(level, number, made, stored) if made is not None else []
            found.append((below, stored))
        self._last[level] = found

    def _check_root(self) -> None:
        levels = range(max(self._last, default=-1) + 1)
        for choice in product(*(self._last.get(level, [([], ())]) for level in levels)):
            tree = Tree(self._size, tuple(tuple(hashes) for _problems, hashes in choice))
            if tree.root() == self._root:
                self.problems += [one for problems, _hashes in choice for one in problems]
                return
        for found in self._last.values():
            self.problems += [one for problems, _hashes in found for one in problems]
        words = f"the {self._size} entries have another root than the checkpoint"
        self.problems.append(Problem("checkpoint", 0, words))

    def _both(self, level: int, number: int) -> tuple[Hashes | None, Hashes | None]:
        """Return a tile as the level below makes it, and as it is stored; None: cannot be had."""
        stored = self._stored(level, number)
        width = width_of(level, number, self._size)
        if stored is None:
            raw = self._files.tile(level, number, self._size)
            words = "is missing" if raw is None else f"is {len(raw)} bytes long, not {width * 32}"
            self._blame(level, number, 0, words)
        below = self._made[level]
        if stored is not None:
            below = [ours or theirs for ours, theirs in zip(below, stored, strict=True)]
        known = [one for one in below if one is not None]
        return (known if len(known) == width else None), stored

    def _stored(self, level: int, number: int) -> Hashes | None:
        """Return a tile as it is stored, of each level the last one from memory."""
        if level not in self._above or self._above[level][0] != number:
            raw = self._files.tile(level, number, self._size)
            is_whole = raw is not None and len(raw) == HASH_BYTES * width_of(
                level, number, self._size
            )
            self._above[level] = (number, split_tile(raw) if raw and is_whole else None)
        return self._above[level][1]

    def _changed_tile(self, level: int, number: int) -> Problem:
        words = f"was changed: its hashes are not those of {self._range(level, number)}"
        return self._problem(level, number, 0, words)

    def _changed_below(
        self, level: int, number: int, made: Hashes, stored: Hashes
    ) -> list[Problem]:
        """Say what was changed below a tile that is as the log has committed to it."""
        pairs = enumerate(zip(made, stored, strict=True))
        others = [at for at, (ours, theirs) in pairs if ours != theirs]
        first = number * TILE_WIDTH
        if level:
            return [self._changed_both(level - 1, first + at) for at in others]
        is_order = sorted(made) == sorted(stored)
        words = "is in another's place" if is_order else "is not what the log has committed to"
        found = [
            self._problem(ENTRIES, number, first + at + 1, f"entry {first + at + 1} {words}")
            for at in others[:NAMED_MAX]
        ]
        if len(others) > NAMED_MAX:
            more = f"and {len(others) - NAMED_MAX} more of {self._range(0, number)}"
            found.append(self._problem(ENTRIES, number, 0, more))
        return found

    def _changed_both(self, level: int, number: int) -> Problem:
        words = f"was changed, and all below it, {self._range(level, number)}, to fit"
        return self._problem(level, number, 0, words)

    def _range(self, level: int, number: int) -> str:
        span = TILE_WIDTH ** (level + 1)
        return f"entries {number * span + 1} to {min((number + 1) * span, self._size)}"

    def _problem(self, level: Level, number: int, sequence: int, words: str) -> Problem:
        path = path_of(level, number, width_of(level, number, self._size))
        return Problem(path, sequence, words)

    def _blame(self, level: Level, number: int, sequence: int, words: str) -> None:
        self.problems.append(self._problem(level, number, sequence, words))
