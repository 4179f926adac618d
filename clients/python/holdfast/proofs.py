"""Proofs of a Merkle log, checked with the standard library alone.

Hashes are those of RFC 6962 section 2.1: SHA-256 with a first byte that tells leaves from nodes.
The checks are the algorithms of RFC 9162, sections 2.1.3.2 and 2.1.4.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()


class InvalidProof(ValueError):
    """Raised for a proof that does not prove what it is said to."""


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of a node from those of its two children."""
    return sha256(b"\x01" + left + right).digest()


def verify_inclusion(
    leaf: bytes, index: int, size: int, *, root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that a leaf is the one at an index, from 0, of a tree.  Raises InvalidProof."""
    if not 0 <= index < size:
        raise InvalidProof(f"a tree of {size} leaves has none at index {index}")
    found = leaf_hash(leaf)
    for step, is_left in _climb(index, size - 1, proof):
        found = node_hash(step, found) if is_left else node_hash(found, step)
    if found != root:
        raise InvalidProof(f"the leaf at index {index} is not in the tree of this root")


def verify_consistency(
    old_size: int, old_root: bytes, size: int, *, root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that a tree is the start of another.  Raises InvalidProof."""
    if not 0 <= old_size <= size:
        raise InvalidProof(f"a tree of {size} leaves does not begin with {old_size}")
    if old_size in (0, size):
        if proof or old_root != (root if old_size else EMPTY_ROOT):
            raise InvalidProof("the roots differ, or the proof of consistency is too long")
        return
    steps = list(proof) if old_size & (old_size - 1) else [old_root, *proof]
    if not steps:
        raise InvalidProof("the proof of consistency is too short")
    at, last = old_size - 1, size - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old_found = found = steps[0]
    for step, is_left in _climb(at, last, steps[1:]):
        if is_left:
            old_found, found = node_hash(step, old_found), node_hash(step, found)
        else:
            found = node_hash(found, step)
    if old_found != old_root or found != root:
        raise InvalidProof(f"the tree of {size} leaves is no continuation of that of {old_size}")


def _climb(at: int, last: int, proof: Sequence[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Yield the steps from a node to the root, and whether each stands on the left.

    `at` is the index of the node at its level, `last` that of the level's last.  Raises
    InvalidProof when the proof does not end at the root.
    """
    for step in proof:
        if not last:
            raise InvalidProof("the proof is too long")
        is_left = at & 1 == 1 or at == last
        yield step, is_left
        while is_left and not at & 1 and at:
            at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    if last:
        raise InvalidProof("the proof is too short")
