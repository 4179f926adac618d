"""Numbers and names that two places must agree on, and what this version does not serve."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import _cython

from holdfast.v1 import errors_pb2, inventory_pb2, ledger_pb2, stock_pb2, types_pb2
from holdfast_server import errors, model, pressure
from holdfast_server.config import ServerConfig
from holdfast_server.engine.load import ServerLoad
from holdfast_server.rpc import server as rpc_server
from holdfast_server.rpc import status
from tests.serving import Serving, failure, raw

READS = {model.Kind.GET_RESERVATION, model.Kind.GET_STOCK}  # they make no entry


@pytest.mark.parametrize(
    ("ours", "theirs", "prefix"),
    [
        (model.State, types_pb2.ReservationState, "RESERVATION_STATE_"),
        (model.LateCommit, types_pb2.LateCommit, "LATE_COMMIT_"),
        (pressure.Pressure, types_pb2.Pressure, "PRESSURE_"),
        (pressure.Advice, types_pb2.Advice, "ADVICE_"),
        (ServerLoad, stock_pb2.ServerLoad, "SERVER_LOAD_"),
    ],
    ids=["State", "LateCommit", "Pressure", "Advice", "ServerLoad"],
)
def test_an_enum_of_the_server_has_the_numbers_of_the_contract(
    ours: type[IntEnum], theirs: Any, prefix: str
) -> None:
    numbers = {name.removeprefix(prefix): number for name, number in theirs.items()}
    del numbers["UNSPECIFIED"]
    assert {member.name: member.value for member in ours} == numbers


def test_an_operation_that_makes_an_entry_has_the_number_of_its_entry_kind() -> None:
    numbers = dict(ledger_pb2.EntryKind.items())
    for kind in set(model.Kind) - READS:
        assert int(numbers[f"ENTRY_KIND_{kind.name}"]) == kind.value
    assert not READS & set(numbers.values())


def test_every_error_has_a_status_and_a_reason_of_the_contract() -> None:
    assert {error.reason for error in errors.leaves()} <= status.CODES.keys()
    named = {name.removeprefix("ERROR_REASON_") for name in dict(errors_pb2.ErrorReason.items())}
    assert status.CODES.keys() == named - {"UNSPECIFIED"}


def test_every_error_code_of_the_kernel_has_an_error() -> None:
    reasons = {error.reason for error in errors.leaves()} | {"INVALID"}
    for code in model.Code:
        if code >= model.Code.INVALID:
            assert code.name in reasons


def test_grpc_knows_every_channel_argument_that_is_set() -> None:
    # gRPC ignores an unknown name in silence, so each must stand in its binary.
    (binary,) = (path.read_bytes() for path in Path(_cython.__file__).parent.glob("cygrpc*.so"))
    config = ServerConfig(connection_age_s=60)
    for name, _value in rpc_server.options(config, share_port=True):
        assert name.encode() + b"\0" in binary, name


LATER = [
    ("inventory", "RecordSale", inventory_pb2.RecordSaleRequest()),
    ("inventory", "Ship", inventory_pb2.ShipRequest()),
    ("inventory", "AssignLocation", inventory_pb2.AssignLocationRequest()),
    ("inventory", "ListReviews", inventory_pb2.ListReviewsRequest()),
    ("inventory", "ResolveReview", inventory_pb2.ResolveReviewRequest()),
]
# The server of this module keeps none.
NEEDS_ARCHIVE = {"ExplainStock", "ReplayStock", "ReplayDecision", "GetProof"}


@pytest.mark.asyncio(loop_scope="module")
async def test_what_later_versions_serve_is_said_to_be_unimplemented(embedded: Serving) -> None:
    for service, method, request in LATER:
        call = getattr(getattr(embedded, service), method)(request)
        refused = await failure(call)
        assert refused.kind == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED", "holdfast")
        assert method in refused.message


@pytest.mark.asyncio(loop_scope="module")
async def test_every_other_method_of_the_contract_is_served(embedded: Serving) -> None:
    later = {method for _service, method, _request in LATER}
    for module, name in (
        (stock_pb2, "StockService"),
        (inventory_pb2, "InventoryService"),
        (ledger_pb2, "LedgerService"),
    ):
        service = module.DESCRIPTOR.services_by_name[name]
        for method in service.methods:
            if (
                method.name in later | NEEDS_ARCHIVE
                or method.client_streaming
                or method.server_streaming
            ):
                continue
            call = raw(embedded, f"/{service.full_name}/{method.name}")(b"")
            assert await call.code() is not grpc.StatusCode.UNIMPLEMENTED, method.full_name
