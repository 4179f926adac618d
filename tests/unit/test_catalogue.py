"""Catalogues as people send them: good, old, and ugly."""

from __future__ import annotations

import json

import pytest

from holdfast import Row
from holdfast_server.catalogue import Catalogue, CatalogueError, items, parse, rows, to_rows

SHOPIFY = (
    "Handle,Title,Option1 Name,Option1 Value,Option2 Name,Option2 Value,Option3 Name,Option3 Value,"
    "SKU,HS Code,COO,Location,Bin name,Incoming (not editable),Unavailable (not editable),"
    "Committed (not editable),Available (not editable),On hand (current),On hand (new)\n"
)
PLAIN = "sku,location,on_hand\n"


def stock(parsed: Catalogue) -> dict[str, dict[str, int]]:
    return {sku: item.stock for sku, item in parsed.items.items()}


def notes(parsed: Catalogue) -> list[tuple[int, str]]:
    return [tuple(note) for note in parsed.bad]


def refused(text: str) -> tuple[int, str]:
    """The line and reason of the only bad row of a file from which nothing is taken."""
    parsed = parse(text.encode())
    assert not parsed.items
    ((line, reason),) = notes(parsed)
    return line, reason


# Shapes


def test_rows_of_a_shopify_export_become_one_item_with_its_locations() -> None:
    text = SHOPIFY + (
        "mug,Stone Mug,Size,0.3 l,Colour,Sand,,,MUG-S,,,Main,,0,0,0,40,40,\n"
        "mug,Stone Mug,Size,0.3 l,Colour,Sand,,,MUG-S,,,Outlet,,0,0,0,2,2,\n"
        "lamp,Lamp,Title,Default Title,,,,,LAMP,,,Main,,0,0,0,7,7,\n"
    )
    parsed = parse(text.encode())
    assert stock(parsed) == {"MUG-S": {"Main": 40, "Outlet": 2}, "LAMP": {"Main": 7}}
    assert parsed.items["MUG-S"].title == "Stone Mug / 0.3 l / Sand"
    assert parsed.items["LAMP"].title == "Lamp"
    assert (parsed.rows, parsed.bad, parsed.ignored) == (3, [], set())


def test_a_new_count_wins_over_the_current_one() -> None:
    text = SHOPIFY + "mug,Mug,,,,,,,MUG,,,Main,,0,0,0,40,40,12\n"
    assert stock(parse(text.encode())) == {"MUG": {"Main": 12}}


def test_units_that_are_on_hand_and_not_available_are_told() -> None:
    text = SHOPIFY + "mug,Mug,,,,,,,MUG,,,Main,,9,2,3,35,40,\n"
    on_hand, available = parse(text.encode()), parse(text.encode(), count="available")
    assert (stock(on_hand), on_hand.kept_back) == ({"MUG": {"Main": 40}}, 5)
    assert (stock(available), available.kept_back) == ({"MUG": {"Main": 35}}, 0)


def test_plain_column_names_of_an_earlier_export_are_known() -> None:
    text = "Handle,Title,SKU,Location,Incoming,Unavailable,Committed,Available,On hand\n"
    parsed = parse((text + "mug,Mug,MUG,Main,0,0,1,4,5\n").encode())
    assert (stock(parsed), parsed.kept_back) == ({"MUG": {"Main": 5}}, 1)


def test_an_old_export_has_a_column_for_each_location() -> None:
    text = 'Handle,Title,SKU,HS Code,COO,"12 Quay St, Main",Outlet\nmug,Mug,MUG,,,5,not stocked\n'
    parsed = parse(text.encode())
    assert stock(parsed) == {"MUG": {"12 Quay St, Main": 5}}
    assert parsed.skipped == [(2, "MUG: not stocked at Outlet")]


def test_one_bad_location_of_an_old_export_leaves_the_others() -> None:
    parsed = parse(b"Handle,SKU,Main,Outlet\nmug,MUG,five,3\n")
    assert stock(parsed) == {"MUG": {"Outlet": 3}}
    assert notes(parsed)[0][0] == 2


def test_a_plain_file_may_order_its_columns_as_it_likes() -> None:
    text = "On_Hand;TITLE;sku;oversell_limit;safety_stock;bin\n5;Mug;MUG;3;;A1\n"
    parsed = parse(text.encode())
    item = parsed.items["MUG"]
    assert (item.stock, item.title) == ({"default": 5}, "Mug")
    assert (item.safety_stock, item.oversell_limit) == (None, 3)
    assert parsed.ignored == {"bin"}


def test_json_lines_hold_the_same_keys() -> None:
    rows = [
        {"sku": "MUG", "location": "Main", "on_hand": 5, "safety_stock": 1, "price": 3},
        {"sku": "MUG", "location": "Outlet", "on_hand": "7"},
        {"sku": "LAMP", "on_hand": 0, "title": "Lamp"},
    ]
    parsed = parse("\r\n".join(map(json.dumps, rows)).encode())
    assert stock(parsed) == {"MUG": {"Main": 5, "Outlet": 7}, "LAMP": {"default": 0}}
    assert parsed.items["MUG"].safety_stock == 1
    assert (parsed.ignored, parsed.bad) == ({"price"}, [])


def test_a_row_without_a_location_counts_at_the_default_one() -> None:
    parsed = parse(b"sku,on_hand,location\nMUG,5,\nMUG,6,default\n")
    assert stock(parsed) == {"MUG": {"default": 5}}
    assert [line for line, _reason in notes(parsed)] == [3]


def test_items_become_rows_of_an_import() -> None:
    text = "sku,location,on_hand,safety_stock,title\nMUG,A,5,,\nLAMP,A,1,2,Lamp\nMUG,B,6,,\n"
    assert list(to_rows(parse(text.encode()))) == [
        Row("MUG", {"A": 5, "B": 6}, {}, 2),
        Row("LAMP", {"A": 1}, {"safety_stock": 2, "title": "Lamp"}, 3),
    ]


# Text as spreadsheets write it


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_newlines_bom_and_delimiters_change_nothing(newline: str, bom: str, delimiter: str) -> None:
    rows = [["sku", "location", "on_hand"], ["MÜG", " Main ", " 5 "], ["LAMP", "", "1"]]
    text = bom + newline.join(delimiter.join(row) for row in rows)
    assert stock(parse(text.encode())) == {"MÜG": {"Main": 5}, "LAMP": {"default": 1}}


def test_quoted_newlines_keep_the_line_numbers_right() -> None:
    text = 'sku,on_hand,title\r\nMUG,5,"Stone\r\nMug, ""large"""\r\n\r\nLAMP,x,\r\n'
    parsed = parse(text.encode())
    assert parsed.items["MUG"].title == 'Stone Mug, "large"'
    assert [line for line, _reason in notes(parsed)] == [5]


def test_a_row_after_a_broken_quote_is_read_again() -> None:
    parsed = parse((PLAIN + '"MUG"x,Main,5\nLAMP,Main,1\n').encode())
    assert stock(parsed) == {"LAMP": {"Main": 1}}
    assert notes(parsed)[0][0] == 2


def test_a_quote_that_never_ends_is_reported_where_it_began() -> None:
    line, reason = refused(PLAIN + 'MUG,"Main,5\nLAMP,Main,1\n')
    assert (line, reason) == (2, "unexpected end of data")


# Bad rows


@pytest.mark.parametrize("units", ["-3", "five", "1.5", "1e3", "1,0", "+5", "\u0665", "1000000001"])
def test_a_count_that_is_no_number_of_units_is_a_bad_row(units: str) -> None:
    line, reason = refused(PLAIN + f'MUG,Main,"{units}"\n')
    assert line == 2
    assert "on_hand must be a whole number from 0 to 1000000000" in reason
    assert repr(units) in reason


@pytest.mark.parametrize("units", [-3, 1.5, True, [5], "five", 10**30])
def test_a_json_count_that_is_no_number_of_units_is_a_bad_row(units: object) -> None:
    line, reason = refused(json.dumps({"sku": "MUG", "on_hand": units}))
    assert line == 1
    assert "on_hand must be a whole number" in reason


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",Main,5", "sku is empty"),
        ("MUG,Main,", "MUG: on_hand is empty"),
        ("MUG,Main", "MUG: on_hand is empty"),
        ("MUG,Main,5,6", "has 4 fields, and the header 3"),
        ("M" * 129 + ",Main,5", "sku must be at most 128 printable characters"),
        ("MU\x07G,Main,5", "sku must be at most 128 printable characters"),
        ("MUG," + "L" * 65 + ",5", "location must be at most 64 printable characters"),
    ],
)
def test_a_bad_row_says_what_is_wrong(row: str, reason: str) -> None:
    line, told = refused(PLAIN + row + "\n")
    assert line == 2
    assert told.startswith(reason)


@pytest.mark.parametrize("text", ['{"sku": 7, "on_hand": 1}', '{"sku": ["MUG"], "on_hand": 1}'])
def test_a_json_sku_must_be_a_text(text: str) -> None:
    assert refused(text)[1].startswith("sku must be a text")


@pytest.mark.parametrize("row", ["[1]", '{"sku": "MUG", "on_hand": 1', "nonsense"])
def test_a_line_that_is_no_json_object_is_a_bad_row(row: str) -> None:
    parsed = parse(('{"sku": "LAMP", "on_hand": 1}\n' + row).encode())
    assert stock(parsed) == {"LAMP": {"default": 1}}
    assert [line for line, _reason in notes(parsed)] == [2]


def test_a_second_count_of_the_same_place_is_a_bad_row_and_the_first_one_stays() -> None:
    parsed = parse((PLAIN + "MUG,Main,5\nLAMP,Main,1\nMUG,Main,6\n").encode())
    assert stock(parsed)["MUG"] == {"Main": 5}
    ((line, reason),) = notes(parsed)
    assert line == 4
    assert "counted at Main before, in the item that starts on line 2" in reason


def test_a_policy_that_contradicts_itself_is_a_bad_row() -> None:
    parsed = parse(b"sku,location,on_hand,safety_stock\nMUG,A,5,1\nMUG,B,5,\nMUG,C,5,2\n")
    assert stock(parsed) == {"MUG": {"A": 5, "B": 5}}
    assert notes(parsed) == [(4, "MUG: safety_stock 2 differs from 1 before")]


def test_a_bad_policy_takes_no_count() -> None:
    assert "safety_stock" in refused("sku,on_hand,safety_stock\nMUG,5,-1\n")[1]


def test_too_many_locations_are_bad_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "LOCATIONS_MAX", 2)
    parsed = parse((PLAIN + "MUG,A,1\nMUG,B,1\nMUG,C,1\n").encode())
    assert notes(parsed) == [(4, "MUG: has more than 2 locations")]


@pytest.mark.parametrize("word", ["not stocked", "Not stocked", " NOT STOCKED "])
def test_a_place_that_does_not_stock_the_item_is_skipped_and_not_bad(word: str) -> None:
    parsed = parse((SHOPIFY + f"mug,Mug,,,,,,,MUG,,,Main,,,,,,{word},\n").encode())
    assert (parsed.items, parsed.bad) == ({}, [])
    assert parsed.skipped == [(2, "MUG: not stocked at Main")]


# Files that cannot be read


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "line 1: the header has no column 'sku'"),
        (b"name,count\nMUG,5\n", "line 1: the header has no column 'sku'"),
        (b"sku,count\nMUG,5\n", "line 1: the header has no column 'on_hand'"),
        (b"sku,on_hand,SKU\nMUG,5,MUG\n", "line 1: the column 'sku' occurs twice"),
        (b"Handle,SKU\nmug,MUG\n", "line 1: the header has neither 'Location' nor"),
        (b"Handle,SKU,Location\nmug,MUG,Main\n", "line 1: the header has no column 'on hand'"),
        (b"sku,on_hand\nMUG,5\nM\xdcG,5\n", "line 3: byte 0xdc is not UTF-8"),
        ("sku,on_hand\nMUG,5\n".encode("utf-16"), "line 1: this is UTF-16"),
        (b'"sku,on_hand\nMUG,5\n', "line 1: unexpected end of data"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(content: bytes, reason: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        parse(content)
    assert str(caught.value).startswith(reason)


def test_a_file_has_a_limit_of_bytes_and_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(items, "ROWS_MAX", 2)
    with pytest.raises(CatalogueError, match="line 4: a file may have at most 2 rows"):
        parse((PLAIN + "A,,1\nB,,1\nC,,1\n").encode())
    monkeypatch.setattr(rows, "FILE_BYTES_MAX", 1 << 20)
    with pytest.raises(CatalogueError, match="at most 1 MiB"):
        parse(b"s" * ((1 << 20) + 1))
