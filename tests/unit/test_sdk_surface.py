"""What users of the SDK see: two clients with one surface, whose options are the contract's."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import holdfast
from holdfast import inventory, inventory_messages, ledger, model, past, requests
from holdfast.v1 import inventory_pb2, ledger_pb2, stock_pb2, types_pb2

OWN_NAMES = {"aclose": "close"}


def surface(kind: type) -> dict[str, Any]:
    return {
        OWN_NAMES.get(name, name): member
        for name, member in inspect.getmembers(kind)
        if not name.startswith("_")
    }


def shape(method: Callable[..., Any]) -> list[tuple[str, Any, Any, Any]]:
    """Return name, kind, default and type of each parameter, types without their Async."""
    parameters = inspect.signature(method).parameters.values()
    return [
        (
            one.name,
            one.kind,
            one.default,
            str(one.annotation).replace(" | AsyncIterable[Row]", ""),
        )
        for one in parameters
    ]


ASYNC, SYNC = surface(holdfast.AsyncClient), surface(holdfast.Client)
METHODS = sorted(name for name, member in SYNC.items() if callable(member))


def test_both_clients_have_the_same_names() -> None:
    assert ASYNC.keys() == SYNC.keys()


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_the_same_in_both_clients(name: str) -> None:
    assert shape(ASYNC[name]) == shape(SYNC[name])


@pytest.mark.parametrize("name", [name for name in METHODS if name not in {"connect", "close"}])
def test_a_method_is_documented_alike_in_both_clients(name: str) -> None:
    assert ASYNC[name].__doc__ == SYNC[name].__doc__


def test_both_holds_have_the_same_names() -> None:
    assert surface(holdfast.AsyncHold).keys() == surface(holdfast.Hold).keys()


def test_the_public_names_are_there_and_in_order() -> None:
    assert all(hasattr(holdfast, name) for name in holdfast.__all__)
    assert len(set(holdfast.__all__)) == len(holdfast.__all__)


FIELDS_OF: dict[
    Any, tuple[Any, set[str]]
] = {  # options: the message they fill, and what of it has a parameter of its own
    model.ReserveOptions: (stock_pb2.ReserveRequest, {"lines"}),
    model.CommitOptions: (stock_pb2.CommitRequest, {"reservation_id", "lines"}),
    inventory.Policy: (inventory_pb2.Item, {"sku"}),
    inventory.CountOptions: (inventory_pb2.AdjustStockRequest, {"sku", "delta"}),
    inventory.SetStockOptions: (inventory_pb2.SetStockRequest, {"sku", "on_hand"}),
    ledger.EntryFilter: (ledger_pb2.ListEntriesRequest, {"page_token"}),
}


@pytest.mark.parametrize("options", FIELDS_OF, ids=lambda options: options.__name__)
def test_options_are_the_fields_of_the_request(options: Any) -> None:
    message, others = FIELDS_OF[options]
    assert set(get_type_hints(options)) == set(message.DESCRIPTOR.fields_by_name) - others


@pytest.mark.parametrize(
    ("options", "builder"),
    [
        (model.ReserveOptions, requests.reserve_request),
        (model.CommitOptions, requests.commit_request),
        (inventory.SetStockOptions, inventory_messages.set_stock_request),
    ],
)
def test_options_are_what_the_request_is_built_of(options: Any, builder: Any) -> None:
    parameters = inspect.signature(builder).parameters.values()
    keywords = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY}
    assert set(get_type_hints(options)) == keywords


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (model.Reservation, types_pb2.Reservation),
        (model.ReservationLine, types_pb2.ReservationLine),
        (model.RefusedLine, types_pb2.RefusalLine),
        (model.StockLevel, types_pb2.StockLevel),
        (model.Line, types_pb2.Line),
        (model.Context, types_pb2.Context),
        (model.Stock, stock_pb2.GetStockResponse),
        (inventory.Item, inventory_pb2.Item),
        (inventory.LocationStock, inventory_pb2.LocationStock),
        (inventory.RowError, inventory_pb2.ImportError),
        (inventory.Counted, inventory_pb2.SetStockResponse),
        (ledger.LedgerEntry, ledger_pb2.LedgerEntry),
        (ledger.Movement, ledger_pb2.Movement),
        (ledger.CellHead, ledger_pb2.CellHead),
        (past.TermChange, ledger_pb2.TermChange),
        (past.TermExplanation, ledger_pb2.TermExplanation),
        (past.StockExplanation, ledger_pb2.ExplainStockResponse),
        (past.PastStock, ledger_pb2.ReplayStockResponse),
        (past.Refusal, types_pb2.Refusal),
        (past.Decision, ledger_pb2.Decision),
        (ledger.Proof, ledger_pb2.GetProofResponse),
    ],
)
def test_a_value_has_the_fields_of_its_message(value: Any, message: Any) -> None:
    assert set(value._fields) == set(message.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize(
    ("kind", "proto", "prefix"),
    [
        (model.ReservationState, types_pb2.ReservationState, "RESERVATION_STATE_"),
        (model.EndedReason, types_pb2.EndedReason, "ENDED_REASON_"),
        (model.Pressure, types_pb2.Pressure, "PRESSURE_"),
        (model.Advice, types_pb2.Advice, "ADVICE_"),
        (model.Source, types_pb2.Source, "SOURCE_"),
        (inventory.LateCommit, types_pb2.LateCommit, "LATE_COMMIT_"),
        (ledger.EntryKind, ledger_pb2.EntryKind, "ENTRY_KIND_"),
        (past.StockTerm, ledger_pb2.StockTerm, "STOCK_TERM_"),
    ],
)
def test_an_enumeration_has_the_members_of_the_contract(kind: Any, proto: Any, prefix: str) -> None:
    assert [prefix + member for member in kind] == list(proto.keys())


BARE_INSTALL = """
import sys
from importlib.metadata import packages_distributions

sys.path.insert(0, sys.argv[1])
NEEDED = {"holdfast", "google", "grpc", "typing_extensions"}
OTHERS = {*packages_distributions(), "holdfast_server", "holdfast_bench"} - NEEDED

class NotInstalled:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in OTHERS:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled)
import holdfast
print(holdfast.AsyncClient.__name__, len(OTHERS))
"""


def test_the_sdk_needs_grpc_and_protobuf_only() -> None:
    root = str(Path(holdfast.__file__).parent.parent)
    command = [sys.executable, "-I", "-c", BARE_INSTALL, root]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    name, others = done.stdout.split()
    assert name == "AsyncClient"
    assert int(others) > 10
