"""gRPC statuses to errors: by ErrorInfo.reason, never by the message."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from holdfast.errors import (
    DeadlineExceeded,
    HoldfastError,
    InvalidArgument,
    TransportError,
    Unreachable,
    leaves,
)
from holdfast.model import Violation

DOMAIN = "holdfast"
DETAILS_KEY = "grpc-status-details-bin"

_BY_REASON = {error.reason: error for error in leaves(HoldfastError)}
_BY_CODE: dict[int, type[TransportError]] = {
    StatusCode.DEADLINE_EXCEEDED.value[0]: DeadlineExceeded,
    StatusCode.UNAVAILABLE.value[0]: Unreachable,
    StatusCode.CANCELLED.value[0]: Unreachable,
}


class EndedCall(Protocol):
    """What gRPC's errors of both kinds tell about the call that failed."""

    def code(self) -> StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...


def status_of(call: EndedCall) -> Status:
    """Return the status a call ended with, details included."""
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return Status.FromString(value)
            except DecodeError:
                break  # from something in between that is not our server
    return Status(code=call.code().value[0], message=call.details() or "")


def error_of(status: Status, key: str = "") -> HoldfastError:
    """Return the error a status stands for; `key` is the id of the call that failed."""
    info, bad, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in status.details:
        for kind in (info, bad, retry):
            detail.Unpack(kind)
    message = status.message or "the server gave no message"
    if info.domain != DOMAIN:
        error: HoldfastError = _BY_CODE.get(status.code, TransportError)(message)
    else:
        delay = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        kind_of_error = _BY_REASON.get(info.reason, HoldfastError)
        error = kind_of_error(message, metadata=info.metadata, retry_after=delay)
        error.reason = info.reason
    if isinstance(error, InvalidArgument):
        error.violations = tuple(
            Violation(entry.field, entry.description) for entry in bad.field_violations
        )
    error.idempotency_key = key
    return error
