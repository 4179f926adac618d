"""Whom to believe about a log: its keys, their rotations, its checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from holdfast_server.ledger.checkpoint import (
    NEXT_KEY,
    BadNote,
    Checkpoint,
    Note,
    VerifierKey,
    read_note,
)
from holdfast_server.ledger.log_files import LogFiles
from holdfast_server.ledger.log_key import CHECKPOINT, KEYS, read_keys


class Problem(NamedTuple):
    """What is wrong with a log: in which file, and with which entry (0: none, or several)."""

    file: str
    sequence: int
    words: str


class Trust(NamedTuple):
    """The keys that may be believed, and what the log committed to at each change of key."""

    keys: Sequence[VerifierKey]
    is_newest_known: bool
    bridges: dict[str, Checkpoint]
    problems: list[Problem]


def trust_of(files: LogFiles, given: VerifierKey | None) -> Trust:
    """Return the keys to believe: those that the given one, by default the first, leads to."""
    try:
        keys = read_keys(files)
    except BadNote as fault:
        return Trust([given] if given else [], True, {}, [Problem(KEYS, 0, str(fault))])
    start = given or (keys[0] if keys else None)
    if start is None:
        return Trust([], True, {}, [Problem(KEYS, 0, "is missing or empty")])
    if start not in keys:
        return Trust([start], True, {}, [Problem(KEYS, 0, f"has not the trusted key {start}")])
    first = last = keys.index(start)
    bridges: dict[str, Checkpoint] = {}
    problems: list[Problem] = []
    broken: set[int] = set()
    for number in range(1, len(keys)):
        path = f"rotations/{number}"
        try:
            bridges[path] = _bridge(files.read(path), keys[number - 1], keys[number])
        except BadNote as fault:
            broken.add(number)
            problems.append(Problem(path, 0, str(fault)))
    if files.read(f"rotations/{len(keys)}") is not None:
        words = f"is cut: it has not the key that rotations/{len(keys)} names"
        problems.append(Problem(KEYS, 0, words))
    while first and first not in broken:
        first -= 1
    while last + 1 < len(keys) and last + 1 not in broken:
        last += 1
    return Trust(keys[first : last + 1], last + 1 == len(keys), bridges, problems)


def _bridge(raw: bytes | None, before: VerifierKey, after: VerifierKey) -> Checkpoint:
    """Return the checkpoint by which a key hands over to the next.  Raises BadNote."""
    if raw is None:
        raise BadNote("is missing: nothing says that the next key is the log's")
    checkpoint, note = read_note(raw)
    signers = note.signers((before, after))
    if before not in signers or after not in signers:
        raise BadNote("is not signed by both the key before and the one after")
    if checkpoint.origin != before.name or checkpoint.extensions != (f"{NEXT_KEY}{after}",):
        raise BadNote("does not name the next key")
    return checkpoint


def newest_checkpoint(files: LogFiles, trust: Trust) -> tuple[Checkpoint | None, list[Problem]]:
    """Return what the log commits to, if it can be read, and what is wrong with it."""
    raw = files.read(CHECKPOINT)
    if raw is None:
        return None, [Problem(CHECKPOINT, 0, "is missing")]
    try:
        checkpoint, note = read_note(raw)
    except BadNote as fault:
        return None, [Problem(CHECKPOINT, 0, str(fault))]
    try:
        words = _who_signed(checkpoint, note, trust)
    except BadNote as fault:
        words = str(fault)
    return checkpoint, [Problem(CHECKPOINT, 0, words)] if words else []


def _who_signed(checkpoint: Checkpoint, note: Note, trust: Trust) -> str:
    """Return what is wrong with the signatures, if anything.  Raises BadNote."""
    signers = note.signers(trust.keys)
    if not signers or checkpoint.origin != signers[0].name:
        return "is signed by no trusted key"
    handed_over = max((bridge.size for bridge in trust.bridges.values()), default=0)
    if trust.is_newest_known and trust.keys[-1] not in signers and checkpoint.size > handed_over:
        return f"is signed with a key that was replaced at {handed_over} entries"
    return ""


def kept_checkpoint(name: str, raw: bytes, trust: Trust) -> tuple[Checkpoint | None, list[Problem]]:
    """Return a checkpoint that was kept elsewhere, if a trusted key signed it."""
    try:
        checkpoint, note = read_note(raw)
        signers = note.signers(trust.keys)
    except BadNote as fault:
        return None, [Problem(name, 0, str(fault))]
    if not signers or checkpoint.origin != signers[0].name:
        return None, [Problem(name, 0, "is signed by no trusted key")]
    return checkpoint, []
