"""watch_gapless, held against what a good server sends and against each way to send it wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import types_pb2 as types
from holdfast_server.checks import Verdict, watch_gapless
from tests.unit.ledgers import Ledger, broken

SNAPSHOT, CHANGES = pb.WATCH_KIND_SNAPSHOT, pb.WATCH_KIND_CHANGES
HEARTBEAT, END = pb.WATCH_KIND_HEARTBEAT, pb.WATCH_KIND_END
LOW, NORMAL = types.PRESSURE_LOW, types.PRESSURE_NORMAL
SKUS = ("mug", "cup", "jug")

Stream = list[pb.WatchResponse]


def ledger() -> Ledger:
    """Seven changes of two items; a jug comes late."""
    books = Ledger()
    books.put("mug", safety_stock=1)
    books.add("ADJUST_STOCK", "in-1", "mug@main on_hand+5")
    books.put("cup")
    books.add("ADJUST_STOCK", "in-2", "cup@main on_hand+7")
    books.add("RESERVE", "a", "mug held+2")
    books.add("RESERVE", "b", "cup held+1")
    books.add("COMMIT", "a", "mug held-2 committed+2")
    books.put("jug")
    return books


def level(sku: str, revision: int, on_hand: int, **fields: Any) -> types.StockLevel:
    safety = 1 if sku == "mug" else 0
    claimed = fields.get("held", 0) + fields.get("committed", 0)
    values = {"pressure": NORMAL, "safety_stock": safety, **fields}
    available = on_hand - claimed - safety
    return types.StockLevel(
        sku=sku, revision=revision, on_hand=on_hand, available=available, **values
    )


def message(
    kind: pb.WatchKind, span: tuple[int, int], *levels: types.StockLevel, **fields: Any
) -> pb.WatchResponse:
    first, through = span
    token = f"at {through}" if through else ""
    response = pb.WatchResponse(
        kind=kind,
        from_sequence=first,
        through_sequence=through,
        levels=levels,
        **{"resume_token": token, **fields},
    )
    if kind == END:
        response.end_reason = pb.WATCH_END_REASON_DRAINING
    return response


def good() -> list[Stream]:
    """What a reader of three items may be told, on a stream and one that resumes it."""
    first = [
        message(SNAPSHOT, (0, 0), level("mug", 2, 5)),
        message(SNAPSHOT, (0, 4), level("cup", 4, 7), missing_skus=["jug"]),
        message(CHANGES, (4, 5), level("mug", 5, 5, held=2, pressure=LOW)),
        message(HEARTBEAT, (5, 5)),
        message(CHANGES, (5, 5), level("mug", 5, 5, held=2)),
        message(END, (5, 5)),
    ]
    second = [
        message(CHANGES, (5, 5), level("cup", 6, 7, held=1)),
        message(CHANGES, (5, 7), level("mug", 7, 5, committed=2), missing_skus=["jug"]),
        message(CHANGES, (7, 8), level("jug", 8, 0), conflated_count=1),
    ]
    return [first, second]


def judged(streams: Sequence[Stream], skus: Sequence[str] = SKUS) -> Verdict:
    return watch_gapless(streams, ledger().entries, skus=skus)


def test_a_reader_that_was_told_everything_once_is_content() -> None:
    assert judged(good()) == ("watch_gapless", True, 9, [])


def test_a_reader_of_all_items_is_told_of_no_missing_ones() -> None:
    streams = good()
    for stream in streams:
        for response in stream:
            del response.missing_skus[:]
    assert judged(streams, ()).holds


def test_a_stream_cut_between_the_parts_of_its_snapshot_begins_anew() -> None:
    first, second = good()
    assert judged([first[:1], first, second]).holds


def test_a_stream_cut_between_the_parts_of_a_change_sends_them_again() -> None:
    first, second = good()
    assert judged([first, second[:1], second]).holds


def test_a_snapshot_after_a_resume_tells_everything_again() -> None:
    again = [
        message(SNAPSHOT, (0, 5), level("cup", 4, 7), level("mug", 5, 5, held=2)),
    ]
    again[0].missing_skus.append("jug")
    first, second = good()
    del second[1].missing_skus[:]
    assert judged([first, again + second]).holds


def test_a_watch_of_an_empty_ledger_says_so() -> None:
    nothing = message(SNAPSHOT, (0, 0), resume_token="at 0", missing_skus=["mug"])
    stream = [nothing, message(HEARTBEAT, (0, 0), resume_token="at 0")]
    assert watch_gapless([stream], [], skus=["mug"]) == ("watch_gapless", True, 2, [])


# ---- Corruptions: what is done to the good streams, and what the check says of it ----

Change = Callable[[Stream, Stream], Any]


def changed(number: int, index: int, **fields: Any) -> Change:
    """Return a corruption that overwrites fields of one message."""

    def change(*streams: Stream) -> None:
        for name, value in fields.items():
            setattr(streams[number][index], name, value)

    return change


def levels(number: int, index: int, *values: types.StockLevel) -> Change:
    """Return a corruption that replaces the levels of one message."""

    def change(*streams: Stream) -> None:
        del streams[number][index].levels[:]
        streams[number][index].levels.extend(values)

    return change


def inserted(number: int, index: int, response: pb.WatchResponse) -> Change:
    return lambda *streams: streams[number].insert(index, response)


def dropped(number: int, index: int) -> Change:
    return lambda *streams: streams[number].pop(index)


def missing(number: int, index: int, *skus: str) -> Change:
    def change(*streams: Stream) -> None:
        del streams[number][index].missing_skus[:]
        streams[number][index].missing_skus.extend(skus)

    return change


CORRUPTIONS: dict[str, tuple[Change, str]] = {
    # Order and chain.
    "through goes back": (changed(0, 3, through_sequence=4), "through 4 lies before 5"),
    "a message is lost": (dropped(0, 2), "from 5, the last through was 4"),
    "a message is lost with a resume": (dropped(1, 1), "from 7, the last through was 5"),
    "a snapshot does not restart the chain": (
        changed(0, 1, from_sequence=2),
        "from 2, the last through was 0",
    ),
    "a part of a snapshot moves the chain": (
        changed(0, 0, through_sequence=4),
        "through #4 without a change: cup changed at #4",
    ),
    "a resumed stream skips": (dropped(1, 0), "without a change: cup changed at #6"),
    "changes come first": (
        lambda *streams: streams[0].__delitem__(slice(0, 2)),
        "it comes before any SNAPSHOT",
    ),
    "something follows the end": (
        inserted(0, 6, message(HEARTBEAT, (5, 5))),
        "it comes after the END",
    ),
    "through is beyond the ledger": (
        inserted(1, 3, message(HEARTBEAT, (8, 9))),
        "the ledger ends at #8, not #9",
    ),
    "a snapshot goes back in history": (
        inserted(1, 3, message(SNAPSHOT, (0, 4), level("mug", 2, 5), level("cup", 4, 7))),
        "#8 was reached before #4",
    ),
    # Completeness.
    "a change is left out": (levels(1, 0), "cup changed at #6, what was told is of #4"),
    "a snapshot leaves an item out": (levels(0, 0), "mug changed at #2, what was told is of #0"),
    "a heartbeat hides a change": (
        changed(0, 3, through_sequence=6),
        "cup changed at #6, what was told is of #4",
    ),
    "a part moves the chain too early": (
        changed(1, 0, through_sequence=7),
        "mug changed at #7, what was told is of #5",
    ),
    "a new item is not told": (
        levels(1, 2, level("mug", 7, 5, committed=2)),
        "jug changed at #8, what was told is of #0",
    ),
    # Uniqueness.
    "a SKU stands in a message twice": (
        levels(1, 2, level("jug", 8, 0), level("jug", 8, 0)),
        "a SKU stands in it twice",
    ),
    "a level is sent twice": (
        levels(0, 4, level("mug", 5, 5, held=2, pressure=LOW)),
        "mug at #5 was sent before",
    ),
    "an older level comes after a newer": (
        levels(0, 4, level("mug", 2, 5)),
        "mug at #2 after #5",
    ),
    # Truth.
    "on_hand is wrong": (levels(0, 1, level("cup", 4, 8)), "on_hand 8, by the ledger 7"),
    "held is wrong": (levels(1, 0, level("cup", 6, 7, held=2)), "held 2, by the ledger 1"),
    "committed is wrong": (
        levels(1, 1, level("mug", 7, 5, committed=1)),
        "committed 1, by the ledger 2",
    ),
    "safety_stock is wrong": (
        levels(0, 0, level("mug", 2, 5, safety_stock=0)),
        "safety_stock 0, by the ledger 1",
    ),
    "available is wrong": (
        lambda *streams: setattr(streams[0][1].levels[0], "available", 6),
        "available 6, by the ledger 7",
    ),
    "a revision that is none": (
        levels(1, 1, level("mug", 6, 5, committed=2)),
        "mug at #6, by the ledger #5",
    ),
    "a level is newer than through": (
        levels(0, 2, level("mug", 7, 5, committed=2)),
        "mug is at #7, beyond through #5",
    ),
    "a level is of no entry": (
        levels(1, 2, level("jug", 9, 0)),
        "jug at #9, which the ledger does not have",
    ),
    "an item that was not asked for": (
        inserted(1, 3, message(CHANGES, (8, 8), level("pot", 8, 0))),
        "pot is not watched",
    ),
    # Form.
    "a heartbeat has levels": (levels(0, 3, level("cup", 4, 7)), "it has levels"),
    "changes have none": (levels(0, 4), "it has no levels"),
    "an end counts levels": (changed(0, 5, conflated_count=1), "it has a conflated_count"),
    "a change gives a reason to end": (
        changed(0, 2, end_reason=pb.WATCH_END_REASON_MAX_AGE),
        "end_reason is for an END",
    ),
    "an end gives none": (
        changed(0, 5, end_reason=pb.WATCH_END_REASON_UNSPECIFIED),
        "end_reason is for an END",
    ),
    "a change has no token": (changed(0, 2, resume_token=""), "it has no token"),
    "a snapshot has no token": (changed(0, 1, resume_token=""), "it has no token"),
    "an end has no token": (changed(0, 5, resume_token=""), "it has no token"),
    "a missing item is not named": (missing(0, 1), "missing_skus [], by the ledger ['jug']"),
    "an item is named that is there": (missing(0, 1, "jug", "cup"), "['cup', 'jug'], by the"),
    "missing items are named again": (missing(0, 3, "jug"), "['jug'], by the ledger []"),
    "a resume does not name what is missing": (missing(1, 1), "[], by the ledger ['jug']"),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_corruption_is_caught(name: str) -> None:
    corrupt, words = CORRUPTIONS[name]
    streams = good()
    corrupt(*streams)
    assert broken(judged(streams), words), judged(streams)
