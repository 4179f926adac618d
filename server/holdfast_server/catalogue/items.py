"""Catalogues as people have them, to items with counts.  Nothing is opened or sent here.

Four shapes, told apart by how the file begins:

- a Shopify inventory export: a row for each variant at each location, with `Handle`, `SKU`,
  `Location` and counts; `On hand (new)` wins over `On hand (current)` where it is filled in;
- an older one, with a column of available units for each location in place of `Location`;
- plain: `sku,on_hand[,location,safety_stock,oversell_limit,title]`, columns in any order;
- JSON lines: objects with those keys.

Text is UTF-8, with or without BOM; columns are separated by comma, semicolon or tab.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from holdfast import Policy, Row
from holdfast_server.catalogue.rows import TITLE_LEN_MAX, CatalogueError, Count, CountOf, rows
from holdfast_server.model import DEFAULT_LOCATION, UNITS_MAX

ROWS_MAX = 1_000_000
LOCATIONS_MAX = 100
TEXT_LEN_MAX = {"sku": 128, "location": 64, "title": TITLE_LEN_MAX}


class RowNote(NamedTuple):
    """Why a row was left out; `line` is where it starts, from 1."""

    line: int
    reason: str


@dataclass
class CatalogueItem:
    """One SKU and its count at each location; None keeps what is."""

    line: int
    sku: str
    title: str | None = None
    safety_stock: int | None = None
    oversell_limit: int | None = None
    stock: dict[str, int] = field(default_factory=dict)


@dataclass
class Catalogue:
    """What a file holds.

    `bad` rows are wrong; `skipped` ones say themselves that there is nothing to count.
    `kept_back` are units counted as on hand that the file calls committed or unavailable.
    """

    items: dict[str, CatalogueItem] = field(default_factory=dict)
    bad: list[RowNote] = field(default_factory=list)
    skipped: list[RowNote] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)
    rows: int = 0
    kept_back: int = 0


class _BadRow(ValueError):
    pass


def parse(content: bytes, *, count: CountOf = "on_hand") -> Catalogue:
    """Return the items and the bad rows of a file.

    `count` says what of a Shopify export becomes on_hand: all units on hand, or those available.
    Raises CatalogueError when the file cannot be read as a whole.
    """
    catalogue = Catalogue()
    for line, counts in rows(content, catalogue.ignored, count=count):
        catalogue.rows += 1
        if catalogue.rows > ROWS_MAX:
            raise CatalogueError(f"line {line}: a file may have at most {ROWS_MAX} rows")
        if isinstance(counts, str):
            catalogue.bad.append(RowNote(line, counts))
        else:
            _take(catalogue, line, counts)
    return catalogue


def to_rows(catalogue: Catalogue) -> Iterator[Row]:
    """Yield the items as rows of an import, each numbered by its line."""
    for item in catalogue.items.values():
        policy: Policy = {}
        if item.title is not None:
            policy["title"] = item.title
        if item.safety_stock is not None:
            policy["safety_stock"] = item.safety_stock
        if item.oversell_limit is not None:
            policy["oversell_limit"] = item.oversell_limit
        yield Row(item.sku, item.stock, policy, item.line)


def _take(catalogue: Catalogue, line: int, counts: list[Count]) -> None:
    for count in counts:
        if str(count.get("on_hand", "")).casefold() == "not stocked":
            where = count.get("location") or DEFAULT_LOCATION
            catalogue.skipped.append(RowNote(line, f"{count.get('sku')}: not stocked at {where}"))
            continue
        try:
            _add(catalogue, line, count)
        except _BadRow as fault:
            catalogue.bad.append(RowNote(line, str(fault)))


def _add(catalogue: Catalogue, line: int, count: Count) -> None:
    """Take one count, all of it or nothing."""
    sku, location, title = (_text(count, name) for name in ("sku", "location", "title"))
    if not sku:
        raise _BadRow("sku is empty")
    location = location or DEFAULT_LOCATION
    on_hand = _units(count, "on_hand")
    if on_hand is None:
        raise _BadRow(f"{sku}: on_hand is empty")
    item = catalogue.items.get(sku) or CatalogueItem(line, sku, title or None)
    if location in item.stock:
        raise _BadRow(
            f"{sku}: counted at {location} before, in the item that starts on line {item.line}"
        )
    if len(item.stock) == LOCATIONS_MAX:
        raise _BadRow(f"{sku}: has more than {LOCATIONS_MAX} locations")
    policy = {name: _units(count, name) for name in ("safety_stock", "oversell_limit")}
    for name, units in policy.items():
        if units is not None and getattr(item, name) not in (None, units):
            raise _BadRow(f"{sku}: {name} {units} differs from {getattr(item, name)} before")
    for name, units in policy.items():
        if units is not None:
            setattr(item, name, units)
    item.stock[location] = on_hand
    catalogue.items[sku] = item
    catalogue.kept_back += count.get("kept_back", 0)


def _text(count: Count, name: str) -> str:
    value, len_max = count.get(name) or "", TEXT_LEN_MAX[name]
    if not isinstance(value, str):
        raise _BadRow(f"{name} must be a text, not {value!r}")
    text = " ".join(value.split()) if name == "title" else value.strip()
    if len(text) > len_max or not text.isprintable():
        raise _BadRow(f"{name} must be at most {len_max} printable characters, not {text[:40]!r}")
    return text


def _units(count: Count, name: str) -> int | None:
    value = count.get(name)
    if value is None or value == "":
        return None
    is_digits = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 20
    units = int(value) if is_digits else value
    if type(units) is not int or not 0 <= units <= UNITS_MAX:
        raise _BadRow(f"{name} must be a whole number from 0 to {UNITS_MAX}, not {value!r}")
    return units
