"""Roots and proofs of a Merkle tree: RFC 6962 section 2.1, as pure functions over stored nodes.

A node is what a reader returns for (level, index): the hash of the complete subtree over the leaves
from `index << level` on, `1 << level` of them.  Libraries keep the whole tree in memory or in
tables of their own; here a proof of any size costs some tiles read from plain files.

How proofs are checked stands in `holdfast.proofs`, which auditors have without the server.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from holdfast.proofs import EMPTY_ROOT, node_hash

Nodes = Callable[[int, int], bytes]


def tree_hash(hashes: Sequence[bytes]) -> bytes:
    """Return the root over some hashes, of which the last may be an incomplete subtree's."""
    while len(hashes) > 1:
        paired = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes) - 1, 2)]
        hashes = [*paired, hashes[-1]] if len(hashes) % 2 else paired
    return hashes[0] if hashes else EMPTY_ROOT


def root(size: int, nodes: Nodes) -> bytes:
    """Return the root of the first `size` leaves."""
    return _range_hash(0, size, nodes) if size else EMPTY_ROOT


def inclusion(index: int, size: int, nodes: Nodes) -> list[bytes]:
    """Return the proof that a leaf is in the tree of `size` leaves, from the leaf up."""
    proof: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(_range_hash(middle, high, nodes))
            high = middle
        else:
            proof.append(_range_hash(low, middle, nodes))
            low = middle
    return proof[::-1]


def consistency(old_size: int, size: int, nodes: Nodes) -> list[bytes]:
    """Return the proof that the tree of `old_size` leaves is the start of that of `size`."""
    proof: list[bytes] = []
    low, high = 0, size
    while 0 < old_size < high:
        middle = low + _split(high - low)
        if old_size <= middle:
            proof.append(_range_hash(middle, high, nodes))
            high = middle
        else:
            proof.append(_range_hash(low, middle, nodes))
            low = middle
    if low:  # else the old tree is a subtree that who checks the proof has
        proof.append(_range_hash(low, high, nodes))
    return proof[::-1]


def _split(size: int) -> int:
    """Return the largest power of two below a size of 2 or more."""
    return 1 << (size - 1).bit_length() - 1


def _range_hash(low: int, high: int, nodes: Nodes) -> bytes:
    """Return the root over the leaves of a range that the tree has a node for."""
    size = high - low
    if size & (size - 1) == 0:
        level = size.bit_length() - 1
        return nodes(level, low >> level)
    middle = low + _split(size)
    return node_hash(_range_hash(low, middle, nodes), _range_hash(middle, high, nodes))
