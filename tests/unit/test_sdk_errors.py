"""Errors of the SDK: one for each reason of the server, rebuilt from ErrorInfo alone."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

import holdfast.errors as client
import holdfast_server.errors as server
from holdfast.status import error_of
from holdfast.v1.errors_pb2 import ErrorReason
from holdfast.v1.types_pb2 import RefusalReason
from holdfast_server.rpc.status import status_of

SERVER_ERRORS = {error.reason: error for error in server.leaves()}
CLIENT_ERRORS = {error.reason: error for error in client.leaves(client.HoldfastError)}
ENDED = {"reservation_id": "r", "ended_at_ms": "1500", "sequence": "7"}
MOMENT = datetime.fromtimestamp(1.5, UTC)


def names(enum: Any, prefix: str) -> set[str]:
    return {name.removeprefix(prefix) for name, _number in enum.items()} - {"UNSPECIFIED"}


@pytest.mark.parametrize("reason", sorted(SERVER_ERRORS))
def test_each_error_of_the_server_has_a_twin_of_the_same_name(reason: str) -> None:
    assert CLIENT_ERRORS[reason].__name__ == SERVER_ERRORS[reason].__name__


def test_each_reason_of_the_contract_has_an_error() -> None:
    refusals = {error.reason for error in client.leaves(client.Refused)}
    assert refusals == names(RefusalReason, "REFUSAL_REASON_")
    assert CLIENT_ERRORS.keys() - refusals == names(ErrorReason, "ERROR_REASON_")


@pytest.mark.parametrize("reason", sorted(SERVER_ERRORS))
def test_an_error_of_the_server_arrives_as_its_twin(reason: str) -> None:
    sent = SERVER_ERRORS[reason]("words", metadata={"key": "value"}, retry_after_ms=250)
    error = error_of(status_of(sent), "key of the call")
    assert type(error) is CLIENT_ERRORS[reason]
    assert (error.reason, str(error), error.metadata) == (reason, "words", {"key": "value"})
    assert (error.retry_after, error.idempotency_key) == (0.25, "key of the call")


def test_the_message_decides_nothing() -> None:
    sent = server.NotOwner("RESERVATION_EXPIRED: unknown SKU, out of stock")
    assert type(error_of(status_of(sent))) is client.NotOwner


@pytest.mark.parametrize(
    ("reason", "metadata", "fields"),
    [
        ("UNKNOWN_SKU", {"skus": "A, B"}, {"skus": ("A", "B")}),
        ("UNKNOWN_SKU", {}, {"skus": ()}),
        ("UNKNOWN_RESERVATION", {"reservation_id": "r"}, {"reservation_id": "r"}),
        ("RESERVATION_ID_REUSED", {"id": "r"}, {"id": "r"}),
        ("RESERVATION_EXPIRED", ENDED, {"reservation_id": "r", "ended_at": MOMENT, "sequence": 7}),
        ("RESERVATION_RELEASED", {}, {"reservation_id": "", "ended_at": None, "sequence": 0}),
        ("RESERVATION_COMMITTED", {**ENDED, "order_ref": "o"}, {"order_ref": "o", "sequence": 7}),
        ("RESERVATION_SUPERSEDED", {**ENDED, "replaced_by": "s"}, {"replaced_by": "s"}),
        (
            "EXCEEDS_HOLD",
            {"sku": "A", "location": "L", "requested": "3", "held": "2"},
            {"sku": "A", "location": "L", "requested": 3, "held": 2},
        ),
        ("LIFETIME_EXCEEDED", {"expires_at_most_ms": "1500"}, {"expires_at_most": MOMENT}),
        ("STALE_QUANTITY", {"on_hand": "-4"}, {"on_hand": -4}),
        ("SLOW_CONSUMER", {"resume_token": "t"}, {"resume_token": "t"}),
    ],
)
def test_fields_are_read_from_the_metadata(
    reason: str, metadata: dict[str, str], fields: dict[str, object]
) -> None:
    error = error_of(status_of(SERVER_ERRORS[reason]("words", metadata=metadata)))
    assert {name: getattr(error, name) for name in fields} == fields


def test_a_bad_argument_names_each_field_and_its_limit() -> None:
    sent = server.InvalidArgument.of(("ttl", "must be more"), ("lines", "must be fewer"))
    error = error_of(status_of(sent))
    assert isinstance(error, client.InvalidArgument)
    assert [tuple(bad) for bad in error.violations] == [
        ("ttl", "must be more"),
        ("lines", "must be fewer"),
    ]


@pytest.mark.parametrize(
    ("code", "expected", "builtin"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, client.DeadlineExceeded, TimeoutError),
        (grpc.StatusCode.UNAVAILABLE, client.Unreachable, ConnectionError),
        (grpc.StatusCode.CANCELLED, client.Unreachable, ConnectionError),
        (grpc.StatusCode.NOT_FOUND, client.TransportError, Exception),
    ],
)
def test_a_status_without_a_word_of_the_server_is_of_the_transport(
    code: grpc.StatusCode, expected: type[Exception], builtin: type[Exception]
) -> None:
    error = error_of(Status(code=code.value[0], message="proxy says no"))
    assert type(error) is expected
    assert isinstance(error, builtin)
    assert error.reason == ""


@pytest.mark.parametrize(
    ("domain", "expected", "reason"),
    [("holdfast", client.HoldfastError, "FROM_THE_FUTURE"), ("other", client.TransportError, "")],
)
def test_a_reason_that_is_not_known_is_kept_and_one_of_another_service_is_not(
    domain: str, expected: type[Exception], reason: str
) -> None:
    detail = AnyMessage()
    detail.Pack(ErrorInfo(domain=domain, reason="FROM_THE_FUTURE"))
    error = error_of(Status(code=2, message="?", details=[detail]))
    assert type(error) is expected
    assert error.reason == reason


def drawn_tree() -> dict[str, str]:
    """Return the parent of each error by the drawing at the top of the module."""
    parents: dict[str, str] = {}
    above: list[str] = []
    drawing = (client.__doc__ or "").split("\n\n")[1].splitlines()
    for line in drawing:
        indent, _, entry = line.rpartition("+-- ")
        depth = indent.count("|   ") + line.count("+-- ")
        named = entry.strip().split("  ")[0].split(", ")
        above[depth:] = [named[-1]]
        if depth:
            parents |= dict.fromkeys(named, above[depth - 1])
    return parents


def test_the_tree_is_the_one_that_is_drawn() -> None:
    real = {
        error.__name__: error.__bases__[0].__name__
        for error in vars(client).values()
        if isinstance(error, type) and issubclass(error, client.HoldfastError)
    }
    del real["HoldfastError"]
    assert drawn_tree() == real


@pytest.mark.parametrize("kind", [client.StaleQuantity, client.OutOfStock, client.Unreachable])
def test_an_error_survives_the_way_between_processes(kind: type[client.HoldfastError]) -> None:
    error = kind("words", metadata={"on_hand": "3"}, retry_after=0.5)
    error.idempotency_key = "r"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (kind, "words", vars(error))
