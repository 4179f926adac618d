"""Import: a stream of rows, each an item and its counts; a bad row fails alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from hashlib import blake2b

from holdfast.v1 import inventory_pb2 as pb
from holdfast_server.engine.batcher import Answer, Batcher
from holdfast_server.errors import HoldfastError, InvalidArgument, error_of
from holdfast_server.model import Caller, Code, Operation, Outcome
from holdfast_server.rpc import items
from holdfast_server.rpc.arguments import Arguments
from holdfast_server.rpc.call import check_message

ROWS_MAX, ERRORS_MAX, STOCK_MAX = 1_000, 1_000, 100


def _request_id(request: pb.ImportRequest, row: pb.ImportRow, part: str) -> str:
    """Return an id that is the same when the same import is sent again."""
    name = f"{request.request_id}/{row.row}/{row.item.sku}/{part}"
    return f"import:{blake2b(name.encode(), digest_size=20).hexdigest()}"


def _operations(request: pb.ImportRequest, row: pb.ImportRow, caller: Caller) -> list[Operation]:
    if len(row.stock) > STOCK_MAX:
        raise InvalidArgument.of(("stock", f"must number at most {STOCK_MAX}"))
    put = items.put_item(_request_id(request, row, "item"), row.item, caller)
    operations: list[Operation] = [put]
    for index, entry in enumerate(row.stock):
        count = pb.SetStockRequest(
            request_id=_request_id(request, row, f"stock/{entry.location}"),
            sku=row.item.sku,
            location=entry.location,
            on_hand=entry.on_hand,
            reason="import",
            reference=request.request_id,
        )
        operations.append(_counted(index, count, caller))
    return operations


def _counted(index: int, count: pb.SetStockRequest, caller: Caller) -> Operation:
    """Return the operation of one count, its bad fields named as they stand in the row."""
    try:
        return items.set_stock(count, caller)
    except InvalidArgument as error:
        named = [(f"stock[{index}].{field}", limit) for field, limit in error.violations]
        raise InvalidArgument.of(*named) from None


def _failure(answer: Answer) -> HoldfastError | None:
    if isinstance(answer, Outcome):
        return error_of(answer) if answer.code >= Code.INVALID else None
    return answer if isinstance(answer, HoldfastError) else HoldfastError(str(answer))


def _note(response: pb.ImportResponse, row: pb.ImportRow, error: HoldfastError) -> None:
    response.failed += 1
    if len(response.errors) < ERRORS_MAX:
        field = error.violations[0].field if error.violations else ""
        response.errors.add(
            row=row.row, sku=row.item.sku, reason=error.reason, field=field, message=str(error)
        )


async def import_rows(
    batcher: Batcher, requests: AsyncIterator[pb.ImportRequest], caller: Caller
) -> pb.ImportResponse:
    """Load every row of a stream and return how many loaded and what was wrong with the others.

    Each row is put, then counted, in order.  Repeating an import with the same request_id changes
    nothing.  Raises InvalidArgument for a message of more than 1,000 rows.
    """
    response = pb.ImportResponse()
    async for request in requests:
        check_message(request)
        check = Arguments()
        check.identifier("request_id", request.request_id)
        if len(request.rows) > ROWS_MAX:
            check.bad("rows", f"must number at most {ROWS_MAX} a message, not {len(request.rows)}")
        check.done()
        await _import_message(batcher, request, caller, response)
    return response


async def _import_message(
    batcher: Batcher, request: pb.ImportRequest, caller: Caller, response: pb.ImportResponse
) -> None:
    operations: list[Operation] = []
    parsed: list[tuple[pb.ImportRow, int]] = []
    for row in request.rows:
        try:
            some = _operations(request, row, caller)
        except InvalidArgument as error:
            _note(response, row, error)
            continue
        parsed.append((row, len(some)))
        operations += some
    answers = iter(await batcher.execute_many(operations))
    for row, count in parsed:
        mine = [next(answers) for _ in range(count)]
        failures = [failure for failure in map(_failure, mine) if failure]
        if failures:
            _note(response, row, failures[0])
        else:
            response.imported += 1
        response.sequence = max(
            [response.sequence, *(one.sequence for one in mine if isinstance(one, Outcome))]
        )
