"""Arguments of the SDK to messages: what users write, and what cannot be sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from holdfast import Context, InvalidArgument, LateCommit, Line, Row
from holdfast.inventory_messages import (
    ERRORS_MAX,
    MESSAGE_BYTES_MAX,
    ROWS_MAX,
    Importing,
    item_message,
)
from holdfast.requests import duration, key_of, line_messages, reserve_request
from holdfast.responses import time_of
from holdfast.v1 import inventory_pb2, stock_pb2, types_pb2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("A", [("A", 1, "")]),
        (["A", "B"], [("A", 1, ""), ("B", 1, "")]),
        ([("A", 2)], [("A", 2, "")]),
        ([("A", 2, "L")], [("A", 2, "L")]),
        (Line("A", 3), [("A", 3, "")]),
        ([Line("A", location="L"), "B"], [("A", 1, "L"), ("B", 1, "")]),
        ((line for line in ["A"]), [("A", 1, "")]),
        ([], []),
    ],
)
def test_lines_may_be_written_in_several_ways(given: Any, expected: list[Any]) -> None:
    assert [(line.sku, line.quantity, line.location) for line in line_messages(given)] == expected


@pytest.mark.parametrize(
    ("given", "place"),
    [
        (("A", 2), r"lines\[1\]"),
        ([("A", "2")], r"lines\[0\]"),
        ([("A", 1.5)], r"lines\[0\]"),
        (["A", None], r"lines\[1\]"),
        ([("A", 1, "L", "?")], r"lines\[0\]"),
    ],
)
def test_what_is_no_line_is_named(given: Any, place: str) -> None:
    with pytest.raises(TypeError, match=place):
        line_messages(given)


@pytest.mark.parametrize("quantity", [2**63, -(2**64)])
def test_a_quantity_that_no_message_can_carry_is_a_bad_argument(quantity: int) -> None:
    with pytest.raises(InvalidArgument) as caught:
        line_messages(["A", ("B", quantity)])
    assert caught.value.violations[0].field == "lines[1].quantity"


@pytest.mark.parametrize(
    ("seconds", "milliseconds"),
    [
        (10, 10_000),
        (0.1, 100),
        (1.2345, 1_234),
        (0, 0),
        (-0.5, -500),
        (-1.5, -1_500),
        (timedelta(minutes=1), 60_000),
    ],
)
def test_an_interval_is_sent_to_the_millisecond(seconds: Any, milliseconds: int) -> None:
    message = duration("ttl", seconds)
    assert message is not None
    assert message.ToMilliseconds() == milliseconds


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e12])
def test_an_interval_that_is_none_is_a_bad_argument(seconds: float) -> None:
    with pytest.raises(InvalidArgument) as caught:
        duration("ttl", seconds)
    assert caught.value.violations[0].field == "ttl"


def test_a_reserve_has_an_id_before_it_is_sent() -> None:
    ids = {reserve_request("A").reservation_id for _ in range(100)}
    assert len(ids) == 100
    assert "" not in ids
    assert reserve_request("A", reservation_id="mine").reservation_id == "mine"


def test_what_was_not_given_is_absent() -> None:
    request = reserve_request("A", reservation_id="r")
    assert not request.HasField("ttl")
    assert not request.HasField("context")
    assert reserve_request("A", context=Context("me")).context.agent_id == "me"


def test_the_key_of_a_request_is_its_id() -> None:
    assert key_of(stock_pb2.CommitRequest(reservation_id="r")) == "r"
    assert key_of(inventory_pb2.PutItemRequest(request_id="i")) == "i"
    assert key_of(stock_pb2.GetStockRequest(skus=["A"])) == ""


def test_a_policy_holds_only_what_was_given() -> None:
    message = item_message("A", {"safety_stock": 0, "channels": {"web": 5, "app": None}})
    assert message.HasField("safety_stock")
    assert not message.HasField("title")
    assert not message.HasField("hold_ttl_max")
    assert [(one.channel, one.HasField("quota")) for one in message.channels] == [
        ("web", True),
        ("app", False),
    ]


def test_a_policy_takes_seconds_and_names() -> None:
    message = item_message("A", {"hold_ttl_max": 1.5, "late_commit": LateCommit.RETRY})
    assert message.hold_ttl_max.ToMilliseconds() == 1_500
    assert message.late_commit == types_pb2.LATE_COMMIT_RETRY


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(TypeError, match="safty_stock"):
        item_message("A", {"safty_stock": 1})  # type: ignore[typeddict-unknown-key]


def messages_of(importing: Importing, rows: list[Row]) -> list[Any]:
    messages = [message for row in rows for message in importing.add(row)]
    return [*messages, *importing.rest()]


def test_an_import_is_cut_into_messages_by_number_of_rows() -> None:
    rows = [Row(f"S{number}", {"": number}) for number in range(ROWS_MAX + 1)]
    messages = messages_of(Importing("i"), rows)
    assert [len(message.rows) for message in messages] == [ROWS_MAX, 1]
    assert {message.request_id for message in messages} == {"i"}
    assert [row.row for message in messages for row in message.rows] == [*range(1, ROWS_MAX + 2)]


def test_an_import_is_cut_into_messages_by_size() -> None:
    stock = {f"{number:060}": number for number in range(100)}
    messages = messages_of(Importing("i"), [Row(f"S{n}", stock) for n in range(200)])
    assert sum(len(message.rows) for message in messages) == 200
    assert len(messages) > 1
    assert all(message.ByteSize() <= MESSAGE_BYTES_MAX * 1.1 for message in messages)


def test_the_answers_to_an_import_add_up() -> None:
    importing = Importing("i")
    errors = [inventory_pb2.ImportError(row=number) for number in range(800)]
    for sequence in (7, 9):
        importing.note(
            inventory_pb2.ImportResponse(imported=3, failed=800, errors=errors, sequence=sequence)
        )
    assert importing.so_far[:2] == (6, 1_600)
    assert len(importing.so_far.errors) == ERRORS_MAX
    assert importing.so_far.sequence == 9


def test_a_row_keeps_its_own_number() -> None:
    (message,) = messages_of(Importing("i"), [Row("A", number=17), Row("B")])
    assert [row.row for row in message.rows] == [17, 2]


@pytest.mark.parametrize("ms", [1_795_438_085_123, 1_795_438_085_999, 1_000, 1])
def test_a_time_is_read_to_the_millisecond(ms: int) -> None:
    message = Timestamp(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)
    assert time_of(message) == datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=ms)
