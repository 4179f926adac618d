"""Arguments to messages of InventoryService, and messages to values; shared by both clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from holdfast.inventory import (
    ChannelQuota,
    Counted,
    Imported,
    Item,
    ItemDetail,
    ItemEntry,
    ItemPut,
    LateCommit,
    LocationStock,
    Policy,
    Row,
    RowError,
)
from holdfast.requests import duration, new_id, units
from holdfast.responses import level_of, numbered, seconds_of
from holdfast.v1 import inventory_pb2 as pb
from holdfast.v1 import types_pb2 as types

# Limits of one message of an import.  gRPC repeats a call whose messages fit into 256 KiB.
ROWS_MAX, MESSAGE_BYTES_MAX = 500, 192 << 10
ERRORS_MAX = 1_000

_LATE_COMMITS = numbered(LateCommit, types.LateCommit, "LATE_COMMIT")
_LATE_COMMIT_NUMBERS = {member: number for number, member in _LATE_COMMITS.items()}
_INTERVALS = frozenset({"hold_ttl_default", "hold_ttl_max", "hold_lifetime_max", "sellout_horizon"})


# ---- Arguments to messages ----


def item_message(sku: str, policy: Policy) -> pb.Item:
    """Return an item as a message.  Raises TypeError for what is not in a policy."""
    if unknown := policy.keys() - Policy.__annotations__.keys():
        raise TypeError(f"a policy has no {', '.join(sorted(unknown))}")
    fields: dict[str, Any] = {
        name: duration(name, value) if name in _INTERVALS else value  # type: ignore[arg-type]
        for name, value in policy.items()
    }
    if "late_commit" in policy:
        fields["late_commit"] = _LATE_COMMIT_NUMBERS[LateCommit(policy["late_commit"])]
    fields["channels"] = [
        pb.ChannelQuota(channel=channel, quota=quota)
        for channel, quota in policy.get("channels", {}).items()
    ]
    return pb.Item(sku=sku, **fields)


def put_item_request(sku: str, policy: Policy, request_id: str | None) -> pb.PutItemRequest:
    """Return the request of a PutItem."""
    return pb.PutItemRequest(request_id=request_id or new_id(), item=item_message(sku, policy))


def adjust_stock_request(
    sku: str,
    delta: int,
    *,
    request_id: str | None = None,
    **notes: str,
) -> pb.AdjustStockRequest:
    """Return the request of an AdjustStock."""
    return pb.AdjustStockRequest(
        request_id=request_id or new_id(), sku=sku, delta=units("delta", delta), **notes
    )


def set_stock_request(  # noqa: PLR0913  # one parameter for each of SetStockOptions
    sku: str,
    on_hand: int,
    *,
    request_id: str | None = None,
    expected_on_hand: int | None = None,
    as_of_sequence: int | None = None,
    location: str = "",
    reason: str = "",
    reference: str = "",
) -> pb.SetStockRequest:
    """Return the request of a SetStock."""
    return pb.SetStockRequest(
        request_id=request_id or new_id(),
        sku=sku,
        location=location,
        on_hand=units("on_hand", on_hand),
        expected_on_hand=expected_on_hand,
        as_of_sequence=as_of_sequence,
        reason=reason,
        reference=reference,
    )


class Importing:
    """One import: rows are collected into messages, and the answers to these into one."""

    def __init__(self, request_id: str | None) -> None:
        self._request_id = request_id or new_id()
        self._count = 0
        self._rows: list[pb.ImportRow] = []
        self._size = 0
        self.so_far = Imported(0, 0, (), 0)

    def add(self, row: Row) -> Iterator[pb.ImportRequest]:
        """Take a row; yield the message that is full without it, if one is."""
        self._count += 1
        message = pb.ImportRow(
            item=item_message(row.sku, row.policy),
            stock=[
                pb.ImportStock(location=location, on_hand=units(f"stock[{location}]", on_hand))
                for location, on_hand in row.stock.items()
            ],
            row=row.number or self._count,
        )
        size = message.ByteSize()
        if len(self._rows) == ROWS_MAX or self._size + size > MESSAGE_BYTES_MAX:
            yield from self.rest()
        self._rows.append(message)
        self._size += size

    def rest(self) -> Iterator[pb.ImportRequest]:
        """Yield the last message, unless there is nothing left to say."""
        if self._rows:
            yield pb.ImportRequest(request_id=self._request_id, rows=self._rows)
        self._rows, self._size = [], 0

    def note(self, answer: pb.ImportResponse) -> None:
        """Take the answer to a message."""
        before = self.so_far
        errors = tuple(map(_row_error_of, answer.errors))
        self.so_far = Imported(
            before.imported + answer.imported,
            before.failed + answer.failed,
            (*before.errors, *errors)[:ERRORS_MAX],
            max(before.sequence, answer.sequence),
        )


# ---- Messages to values ----


def item_of(message: pb.Item) -> Item:
    """Return an item."""
    return Item(
        message.sku,
        message.title,
        message.safety_stock,
        message.oversell_limit,
        message.oversell_share,
        message.plenty_at,
        message.low_at,
        message.scarce_at,
        seconds_of(message.hold_ttl_default),
        seconds_of(message.hold_ttl_max),
        seconds_of(message.hold_lifetime_max),
        _LATE_COMMITS.get(message.late_commit, LateCommit.UNSPECIFIED),
        message.system_of_record,
        tuple(ChannelQuota(entry.channel, entry.quota, entry.used) for entry in message.channels),
        seconds_of(message.sellout_horizon),
    )


def _location_of(message: pb.LocationStock) -> LocationStock:
    return LocationStock(
        message.location, message.on_hand, message.held, message.committed, message.revision
    )


def item_put_of(message: pb.PutItemResponse) -> ItemPut:
    """Return the answer to a put_item."""
    return ItemPut(
        item_of(message.item), level_of(message.level), message.sequence, message.replayed
    )


def item_detail_of(message: pb.GetItemResponse) -> ItemDetail:
    """Return the answer to a get_item."""
    return ItemDetail(
        item_of(message.item),
        level_of(message.level),
        tuple(map(_location_of, message.locations)),
        message.deficit,
    )


def item_entry_of(message: pb.ItemEntry) -> ItemEntry:
    """Return one item of a list."""
    return ItemEntry(item_of(message.item), level_of(message.level), message.deficit)


def counted_of(message: pb.AdjustStockResponse | pb.SetStockResponse) -> Counted:
    """Return the answer to an adjust_stock or set_stock."""
    return Counted(
        level_of(message.level),
        _location_of(message.location_stock),
        message.deficit,
        message.sequence,
        message.replayed,
    )


def _row_error_of(message: pb.ImportError) -> RowError:
    return RowError(message.row, message.sku, message.reason, message.field, message.message)
