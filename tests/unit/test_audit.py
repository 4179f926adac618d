"""An audit record: the exact bytes of what was asked and answered, in leaves of bounded size."""

from __future__ import annotations

import msgpack
import pytest
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from holdfast.v1 import stock_pb2 as pb
from holdfast.v1 import types_pb2
from holdfast_server.ledger.audit import (
    AuditKind,
    AuditRecord,
    answer_of,
    asked_of,
    context_of,
    joined,
    leaves_of_record,
    read_record,
)
from holdfast_server.ledger.leaf import LEAF_BYTES_MAX
from holdfast_server.model import Context

CONTEXT = Context("agent-7", "session-1", "web", "cart-9", "it is red")


def record(asked: bytes = b"", answer: bytes = b"", **fields: object) -> AuditRecord:
    whole = AuditRecord(
        AuditKind.QUERY, "q-1", 0, 1, 0, 5, 17, 1_700_000_000_000, "shop", "session-1", "",
        "GetStock", 1, asked, answer,
    )  # fmt: skip
    return whole._replace(**fields)


def test_a_record_is_read_back_from_its_leaf() -> None:
    whole = record(b"\x00asked", b"answer\xff")
    (leaf,) = leaves_of_record(whole)
    assert read_record(leaf) == whole
    assert leaves_of_record(read_record(leaf)) == [leaf]


def test_a_leaf_has_these_very_bytes() -> None:
    (leaf,) = leaves_of_record(record(b"a", b"b"))
    assert leaf.hex() == (
        "dc00100101a3712d31000100"  # 16 fields: format 1, QUERY, its id, part 0 of 1, cell 0
        "0511cf0000018bcfe56800"  # epoch, sequence, time
        "a473686f70a973657373696f6e2d31a0"  # principal, session, no subject
        "a847657453746f636b01c40161c40162"  # call, levels, asked, answer
    )


@given(st.binary(max_size=150_000), st.binary(max_size=150_000))
def test_a_long_record_is_cut_into_leaves_and_joined_again(asked: bytes, answer: bytes) -> None:
    whole = record(asked, answer)
    leaves = leaves_of_record(whole)
    assert joined([read_record(leaf) for leaf in leaves]) == whole


def test_the_longest_fields_fit_a_leaf() -> None:
    longest = record(
        b"a" * 60_000, b"b" * 1_000_000, id="f" * 36, principal="p" * 128, session="\u1234" * 341,
        subject="r" * 64, sequence=2**53, epoch=2**53, time_ms=2**53, cell=16_383, levels=10_000,
    )  # fmt: skip
    leaves = leaves_of_record(longest)
    assert len(leaves) == 18
    assert max(map(len, leaves)) <= LEAF_BYTES_MAX
    assert joined([read_record(leaf) for leaf in leaves]) == longest


def test_parts_that_are_not_the_whole_are_refused() -> None:
    parts = [read_record(leaf) for leaf in leaves_of_record(record(b"a" * 200_000))]
    for wrong in (parts[1:], parts[:-1], parts[::-1], [parts[0], *parts[:-1]]):
        with pytest.raises(ValueError, match="not all parts of record q-1"):
            joined(wrong)


@pytest.mark.parametrize("leaf", [b"\x01", msgpack.packb([1, 2]), msgpack.packb({"a": 1})])
def test_what_is_no_record_is_refused(leaf: bytes) -> None:
    with pytest.raises(ValueError, match="not an audit record"):
        read_record(leaf)


def test_a_format_of_a_later_version_is_refused() -> None:
    leaf = msgpack.packb([2, *record()])
    with pytest.raises(ValueError, match="format 2, known is 1"):
        read_record(leaf)


def test_a_query_is_told_in_the_words_of_the_contract() -> None:
    asked = pb.GetStockRequest(skus=["apple"], context=types_pb2.Context(**CONTEXT._asdict()))
    level = types_pb2.StockLevel(sku="apple", available=3, revision=17)
    answer = pb.GetStockResponse(levels=[level], sequence=17, query_id="q-1")
    told = record(asked.SerializeToString(), answer.SerializeToString())
    assert asked_of(told) == asked
    assert answer_of(told) == answer
    assert context_of(told) == CONTEXT
    assert told.key == "q-1"


def test_an_error_is_told_as_its_status() -> None:
    asked = pb.CommitRequest(reservation_id="r-1")
    status = Status(code=9, message="expired")
    told = record(
        asked.SerializeToString(), status.SerializeToString(),
        kind=AuditKind.ERROR, call="Commit", subject="r-1",
    )  # fmt: skip
    assert answer_of(told) == status
    assert context_of(told) == Context()
    assert told.key == "r-1"


def test_settings_have_no_context() -> None:
    assert context_of(record(answer=b"{}", kind=AuditKind.CONFIG, call="")) == Context()
    watch = record(pb.WatchRequest(skus=["apple"]).SerializeToString(), call="Watch")
    assert context_of(watch) == Context()
