"""Values of InventoryService: items, their policies and their counts.

Intervals are seconds; see `holdfast.model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple, TypedDict

from holdfast.model import Seconds, StockLevel


class LateCommit(StrEnum):
    """What happens to a commit that comes after the expiry."""

    UNSPECIFIED = "UNSPECIFIED"
    REJECT = "REJECT"
    RETRY = "RETRY"
    REVIEW = "REVIEW"


class Policy(TypedDict, total=False):
    """The policy of an item; what is left out keeps its value, or has its default if new."""

    title: str  # name for people
    safety_stock: int  # units never sold; default 0
    oversell_limit: int  # units that may be sold beyond available; default 0
    oversell_share: int  # percentage of on_hand that limits them too; default 0, no such limit
    plenty_at: int  # available from which the pressure is PLENTY; default 100
    low_at: int  # available up to which the pressure is LOW; default 5
    scarce_at: int  # available up to which the pressure is SCARCE; default 3
    sellout_horizon: Seconds  # how early the pressure rises with the rate of sale; default 30 s
    hold_ttl_default: Seconds  # of a hold that asks for none; default 10 s
    hold_ttl_max: Seconds  # the longest that may be asked for; default 15 min
    hold_lifetime_max: Seconds  # with all extensions; default 2 h
    late_commit: LateCommit  # default REJECT
    system_of_record: str  # the principal that alone may set_stock; default: any
    channels: Mapping[str, int | None]  # quotas to set, or with None to remove


class ChannelQuota(NamedTuple):
    """How much of an item one sales channel may claim, and what it has claimed."""

    channel: str
    quota: int
    used: int


class Item(NamedTuple):
    """One SKU and its policy."""

    sku: str
    title: str
    safety_stock: int
    oversell_limit: int
    oversell_share: int
    plenty_at: int
    low_at: int
    scarce_at: int
    hold_ttl_default: float
    hold_ttl_max: float
    hold_lifetime_max: float
    late_commit: LateCommit
    system_of_record: str
    channels: tuple[ChannelQuota, ...]
    sellout_horizon: float


class LocationStock(NamedTuple):
    """Stock of an item at one location."""

    location: str
    on_hand: int
    held: int
    committed: int
    revision: int


class ItemPut(NamedTuple):
    """The answer to a put_item: the whole item."""

    item: Item
    level: StockLevel
    sequence: int
    replayed: bool


class ItemEntry(NamedTuple):
    """One item of a list; `deficit` is how many claimed units are not there."""

    item: Item
    level: StockLevel
    deficit: int


class ItemDetail(NamedTuple):
    """An item with its stock at each location."""

    item: Item
    level: StockLevel
    locations: tuple[LocationStock, ...]
    deficit: int


class Counted(NamedTuple):
    """The answer to an adjust_stock or set_stock."""

    level: StockLevel
    location_stock: LocationStock
    deficit: int
    sequence: int
    replayed: bool


class CountOptions(TypedDict, total=False):
    """What an adjust_stock may be told besides its item and units."""

    location: str  # default: the location "default"
    reason: str  # why, at most 256 bytes
    reference: str  # a document elsewhere, at most 256 bytes
    request_id: str | None  # the idempotency key; by default the client makes one


class SetStockOptions(CountOptions, total=False):
    """What a set_stock may be told besides its item and units."""

    expected_on_hand: int | None  # refuse with StaleQuantity unless this is the count now
    as_of_sequence: int | None  # the ledger sequence that the count is true as of


class Row(NamedTuple):
    """One item of an import: its policy, and how many units are where.

    `number` names the row in errors, such as by its line; 0: its place in the import, from 1.
    """

    sku: str
    stock: Mapping[str, int] = MappingProxyType({})
    policy: Policy = Policy()  # nobody changes it
    number: int = 0


class RowError(NamedTuple):
    """A row that failed; `field` is empty if it is the row as a whole."""

    row: int
    sku: str
    reason: str
    field: str
    message: str


class Imported(NamedTuple):
    """The answer to an import; `errors` are the first 1,000 of the rows that failed."""

    imported: int
    failed: int
    errors: tuple[RowError, ...]
    sequence: int
