"""Verify a log from its directory alone, and that it continues what was exported of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from holdfast_server.ledger import merkle
from holdfast_server.ledger.checkpoint import Checkpoint, VerifierKey
from holdfast_server.ledger.log_files import LogFiles
from holdfast_server.ledger.log_reader import LogDamaged, LogReader
from holdfast_server.ledger.log_trust import (
    Problem,
    kept_checkpoint,
    newest_checkpoint,
    trust_of,
)
from holdfast_server.ledger.log_walk import Walk
from holdfast_server.ledger.log_writer import PURGED
from holdfast_server.ledger.tiles import (
    ENTRIES,
    TILE_WIDTH,
    nodes_of,
    path_of,
    read_path,
    width_of,
)

_PURGED = re.compile(rb"1 ([1-9]\d{0,18})\n")


class Report(NamedTuple):
    """What a verification found.  The log is whole if there are no problems.

    `entries` were read and hashed; those up to `purged` are gone by their retention, and their
    hashes verified.  `key` is the newest that was believed.  `strays` are files that belong to no
    checkpoint yet, as a crash leaves them.
    """

    origin: str
    size: int
    root: bytes
    entries: int
    purged: int
    key: str
    problems: Sequence[Problem]
    strays: Sequence[str]


def verify(
    directory: Path, *, key: VerifierKey | None = None, kept: Mapping[str, bytes] | None = None
) -> Report:
    """Check every file of a log, and by name the checkpoints that were kept elsewhere.

    Without a key the log's own first one is believed: that finds damage, and no forger.  Raises
    OSError for what cannot be read.
    """
    files = LogFiles(directory)
    trust = trust_of(files, key)
    newest, problems = newest_checkpoint(files, trust)
    found = [*trust.problems, *problems]
    believed = str(trust.keys[-1]) if trust.keys else ""
    if newest is None:
        return Report("", 0, b"", 0, 0, believed, found, [])
    purged = _purged(files, newest.size, found)
    walk = Walk(files, newest.size, newest.root, purged)
    walk.run()
    found += walk.problems
    older = dict(trust.bridges)
    for name, raw in (kept or {}).items():
        checkpoint, problems = kept_checkpoint(name, raw, trust)
        found += problems
        if checkpoint is not None:
            older[name] = checkpoint
    reader, is_damaged = LogReader(directory), bool(walk.problems)
    for name, checkpoint in older.items():
        found += _not_continued(reader, name, checkpoint, newest, is_damaged=is_damaged)
    strays = _check_others(files, newest.size, found)
    return Report(
        newest.origin, newest.size, newest.root, walk.entries, purged, believed, found, strays
    )


def _purged(files: LogFiles, size: int, problems: list[Problem]) -> int:
    """Return up to which entry the bundles may be gone: whole ones only."""
    raw = files.read(PURGED)
    if raw is None:
        return 0
    match = _PURGED.fullmatch(raw)
    last = int(match[1]) if match else 1
    if last % TILE_WIDTH or last > size:
        problems.append(Problem(PURGED, 0, "does not name entries of whole bundles"))
        return 0
    return last


def _not_continued(
    reader: LogReader, name: str, old: Checkpoint, newest: Checkpoint, *, is_damaged: bool
) -> list[Problem]:
    """Return the problem, if the log is not a continuation of an older checkpoint of it."""
    if old.size > newest.size:
        words = f"is of {old.size} entries, and the log has {newest.size}: its tail was cut"
        return [Problem(name, newest.size + 1, words)]
    try:
        root = merkle.root(old.size, nodes_of(partial(reader.tile, newest.size)))
    except LogDamaged:
        return [Problem(name, 0, f"cannot be compared: tiles of {old.size} entries are missing")]
    if root == old.root and old.origin == newest.origin:
        return []
    words = f"the log is no continuation of its {old.size} entries"
    return [Problem(name, 0, f"{words}, as its files are now" if is_damaged else words)]


def _check_others(files: LogFiles, size: int, problems: list[Problem]) -> list[str]:
    """Check tiles that were partial once, and return the files that no checkpoint covers."""
    strays, wrong = [], {problem.file for problem in problems}
    for file in sorted((files.root / "tile").rglob("*")):
        path = file.relative_to(files.root).as_posix()
        tile = read_path(path)
        if file.is_dir() or file.name.startswith("."):
            continue
        width = width_of(tile.level, tile.number, size) if tile else 0
        if tile is None or tile.width > width:
            strays.append(path)
        elif tile.width < width:
            whole = path_of(tile.level, tile.number, width)
            now = files.read(whole)
            if whole in wrong or (now is None and tile.level == ENTRIES):
                continue
            if not (now or b"").startswith(file.read_bytes()):
                problems.append(Problem(path, 0, "is not the beginning of what the tile is now"))
    return strays
