"""LedgerService: its values, and its messages to values; shared by both clients."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, TypedDict

from holdfast.inventory import Item
from holdfast.inventory_messages import item_of
from holdfast.model import Context, Reservation
from holdfast.proofs import verify_consistency, verify_inclusion
from holdfast.responses import NO_CONTEXT, context_of, numbered, reservation_of, time_of
from holdfast.v1 import ledger_pb2 as pb


class EntryKind(StrEnum):
    """What an entry records."""

    UNSPECIFIED = "UNSPECIFIED"
    RESERVE = "RESERVE"
    COMMIT = "COMMIT"
    RELEASE = "RELEASE"
    EXTEND = "EXTEND"
    EXPIRE = "EXPIRE"
    SUPERSEDE = "SUPERSEDE"
    PUT_ITEM = "PUT_ITEM"
    ADJUST_STOCK = "ADJUST_STOCK"
    SET_STOCK = "SET_STOCK"
    RECORD_SALE = "RECORD_SALE"
    SHIP = "SHIP"
    ASSIGN_LOCATION = "ASSIGN_LOCATION"
    RESOLVE_REVIEW = "RESOLVE_REVIEW"


ENTRY_KINDS = numbered(EntryKind, pb.EntryKind, "ENTRY_KIND")


class CellHead(NamedTuple):
    """The end of one cell's ledger, and the oldest entry that can still be read."""

    cell: int
    epoch: int
    sequence: int
    first_sequence: int
    tree_size: int
    root_hash: bytes


class Movement(NamedTuple):
    """Signed changes of an item's counters, in units."""

    sku: str
    location: str
    on_hand: int
    held: int
    committed: int
    backordered: int


class LedgerEntry(NamedTuple):
    """One accepted operation; `reservation` and `item` are as it left them."""

    sequence: int
    epoch: int
    cell: int
    time: datetime
    kind: EntryKind
    id: str
    principal: str
    movements: tuple[Movement, ...]
    reservation: Reservation | None
    item: Item | None
    context: Context
    order_ref: str
    reason: str
    reference: str


class Proof(NamedTuple):
    """What the server proves of its ledger; `checkpoint` is signed, and empty for an older tree.

    A leaf's index is its sequence less one.  `leaf` is the entry as it was recorded.
    """

    tree_size: int
    root_hash: bytes
    leaf_index: int
    leaf: bytes
    inclusion: tuple[bytes, ...]
    consistency: tuple[bytes, ...]
    checkpoint: str

    def verify(self) -> None:
        """Check that the leaf is in the tree.  Raises InvalidProof.

        That the root is the log's says the signature of `checkpoint`, or one kept from before.
        """
        verify_inclusion(
            self.leaf,
            self.leaf_index,
            self.tree_size,
            root=self.root_hash,
            proof=self.inclusion,
        )

    def verify_since(self, old_tree_size: int, old_root_hash: bytes) -> None:
        """Check that the tree continues an older one.  Raises InvalidProof."""
        verify_consistency(
            old_tree_size,
            old_root_hash,
            self.tree_size,
            root=self.root_hash,
            proof=self.consistency,
        )


class EntryFilter(TypedDict, total=False):
    """Which entries of the ledger a list is to have."""

    from_sequence: int  # the first; default: the oldest that can still be read
    through_sequence: int  # the last; default: the end of the ledger
    sku: str  # only those that move or put this item
    reservation_id: str  # only those of this reservation
    page_size: int  # entries fetched at once, 1 to 1,000; default 100


def head_of(message: pb.CellHead) -> CellHead:
    """Return the end of one cell's ledger."""
    return CellHead(
        message.cell,
        message.epoch,
        message.sequence,
        message.first_sequence,
        message.tree_size,
        message.root_hash,
    )


def proof_of(message: pb.GetProofResponse) -> Proof:
    """Return a proof."""
    return Proof(
        message.tree_size,
        message.root_hash,
        message.leaf_index,
        message.leaf,
        tuple(message.inclusion),
        tuple(message.consistency),
        message.checkpoint,
    )


def entry_of(message: pb.LedgerEntry) -> LedgerEntry:
    """Return one entry."""
    return LedgerEntry(
        message.sequence,
        message.epoch,
        message.cell,
        time_of(message.time),
        ENTRY_KINDS.get(message.kind, EntryKind.UNSPECIFIED),
        message.id,
        message.principal,
        tuple(
            Movement(
                move.sku,
                move.location,
                move.on_hand,
                move.held,
                move.committed,
                move.backordered,
            )
            for move in message.movements
        ),
        reservation_of(message.reservation) if message.HasField("reservation") else None,
        item_of(message.item) if message.HasField("item") else None,
        context_of(message.context) if message.HasField("context") else NO_CONTEXT,
        message.order_ref,
        message.reason,
        message.reference,
    )
