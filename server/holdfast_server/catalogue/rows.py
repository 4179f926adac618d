"""Files to rows, and rows to counts, whatever the shape; nothing is judged here."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any, Literal

FILE_BYTES_MAX = 256 << 20
TITLE_LEN_MAX = 256

CountOf = Literal["on_hand", "available"]

_SMALL = re.compile(r"[0-9]{1,10}")
_PLAIN = ("sku", "location", "on_hand", "safety_stock", "oversell_limit", "title")
_COUNTS = {
    "on_hand": ("on hand (new)", "on hand (current)", "on hand"),
    "available": ("available (not editable)", "available"),
}
_KEPT_BACK = ("committed", "unavailable")
_SHOPIFY = frozenset(
    {"handle", "title", "sku", "barcode", "hs code", "coo", "location", "bin name"}
    | {name for names in _COUNTS.values() for name in names}
    | {"incoming", *_KEPT_BACK}
    | {f"{name} (not editable)" for name in ("incoming", *_KEPT_BACK)}
    | {f"option{number} {part}" for number in (1, 2, 3) for part in ("name", "value")}
)

Count = dict[str, Any]  # what one row says of one SKU at one location: keys of _PLAIN, kept_back
Row = tuple[int, list[Count] | str]  # where it starts, and its counts or what is wrong with it
_Reading = Callable[[dict[str, str]], list[Count]]


class CatalogueError(ValueError):
    """Raised when a file cannot be read as a whole: its encoding, its size or its header."""


def rows(content: bytes, ignored: set[str], *, count: CountOf) -> Iterator[Row]:
    """Yield the rows of a file, empty ones left out; columns of no use are added to `ignored`.

    Raises CatalogueError.
    """
    text = _decode(content)
    if text.lstrip()[:1] == "{":
        return _json_rows(text, ignored)
    return _csv_rows(text, ignored, count)


def _decode(content: bytes) -> str:
    if len(content) > FILE_BYTES_MAX:
        raise CatalogueError(f"a file may have at most {FILE_BYTES_MAX >> 20} MiB")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise CatalogueError("line 1: this is UTF-16; save the file as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        what = f"byte 0x{content[fault.start]:02x} is not UTF-8; save the file as UTF-8"
        raise CatalogueError(f"line {line}: {what}") from None


def _json_rows(text: str, ignored: set[str]) -> Iterator[Row]:
    for line, row in enumerate(text.split("\n"), start=1):
        if not row.strip():
            continue
        try:
            values = json.loads(row)
        except (ValueError, RecursionError) as fault:
            yield line, f"not JSON: {fault}"
            continue
        if isinstance(values, dict):
            ignored |= values.keys() - set(_PLAIN)
            yield line, [{name: values.get(name) for name in _PLAIN}]
        else:
            yield line, "not a JSON object"


def _csv_rows(text: str, ignored: set[str], count: CountOf) -> Iterator[Row]:
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
    except csv.Error as fault:
        raise CatalogueError(f"line 1: {fault}") from None
    columns, reading = _shape(header, ignored, count)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as fault:  # the reader goes on with the next line
            yield line, str(fault)
            continue
        if row is None:
            return
        cells = [cell.strip() for cell in row]
        if len(cells) > len(columns):
            yield line, f"has {len(cells)} fields, and the header {len(columns)}"
        elif any(cells):
            cells += [""] * (len(columns) - len(cells))
            yield line, reading(dict(zip(columns, cells, strict=True)))


# ---- Shapes: a row's cells to counts ----


def _shape(header: list[str], ignored: set[str], count: CountOf) -> tuple[list[str], _Reading]:
    columns = [name.casefold() for name in header]
    for name in columns:
        if name and columns.count(name) > 1:
            raise CatalogueError(f"line 1: the column {name!r} occurs twice")
    if "sku" not in columns:
        raise CatalogueError("line 1: the header has no column 'sku'")
    if "handle" in columns:
        return columns, _shopify(header, ignored, count)
    if "on_hand" not in columns:
        raise CatalogueError("line 1: the header has no column 'on_hand'")
    ignored |= set(columns) - set(_PLAIN) - {""}
    return columns, lambda cells: [cells]


def _shopify(header: list[str], ignored: set[str], count: CountOf) -> _Reading:
    columns = {name.casefold() for name in header}
    others = [name for name in header if name and name.casefold() not in _SHOPIFY]
    if "location" not in columns:
        if not others:
            raise CatalogueError("line 1: the header has neither 'Location' nor a location's name")
        return lambda cells: [
            _shopify_count(cells, place, cells[place.casefold()]) for place in others
        ]
    ignored |= set(others)
    units = [name for name in _COUNTS[count] if name in columns]
    if not units:
        raise CatalogueError(f"line 1: the header has no column {_COUNTS[count][-1]!r}")
    kept = _KEPT_BACK if count == "on_hand" else ()

    def reading(cells: dict[str, str]) -> list[Count]:
        filled = next((cells[name] for name in units if cells[name]), "")
        one = _shopify_count(cells, cells["location"], filled)
        numbers = (cells.get(f"{name} (not editable)") or cells.get(name, "") for name in kept)
        one["kept_back"] = sum(int(number) for number in numbers if _SMALL.fullmatch(number))
        return [one]

    return reading


def _shopify_count(cells: dict[str, str], location: str, units: str) -> Count:
    options = [cells.get(f"option{number} value", "") for number in (1, 2, 3)]
    chosen = [option for option in options if option and option != "Default Title"]
    title = " / ".join([cells.get("title", ""), *chosen])[:TITLE_LEN_MAX].strip()
    return {"sku": cells["sku"], "location": location, "on_hand": units, "title": title}
