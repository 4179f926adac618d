"""Errors as gRPC statuses with rich details: the one table, and the forms it is sent in."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from holdfast_server.errors import HoldfastError

DOMAIN = "holdfast"
MESSAGE_MAX = 1_000  # characters: metadata is limited to 8 KiB, and details repeat the message

CODES: dict[str, StatusCode] = {
    "INVALID_ARGUMENT": StatusCode.INVALID_ARGUMENT,
    "UNKNOWN_SKU": StatusCode.NOT_FOUND,
    "UNKNOWN_RESERVATION": StatusCode.NOT_FOUND,
    "RESERVATION_ID_REUSED": StatusCode.ALREADY_EXISTS,
    "RESERVATION_EXPIRED": StatusCode.FAILED_PRECONDITION,
    "RESERVATION_COMMITTED": StatusCode.FAILED_PRECONDITION,
    "RESERVATION_RELEASED": StatusCode.FAILED_PRECONDITION,
    "RESERVATION_SUPERSEDED": StatusCode.FAILED_PRECONDITION,
    "EXCEEDS_HOLD": StatusCode.FAILED_PRECONDITION,
    "LIFETIME_EXCEEDED": StatusCode.FAILED_PRECONDITION,
    "STALE_QUANTITY": StatusCode.ABORTED,
    "NOT_OWNER": StatusCode.PERMISSION_DENIED,
    "UNAUTHENTICATED": StatusCode.UNAUTHENTICATED,
    "RESUME_TOKEN_EXPIRED": StatusCode.OUT_OF_RANGE,
    "UNIMPLEMENTED": StatusCode.UNIMPLEMENTED,
    "THROTTLED": StatusCode.RESOURCE_EXHAUSTED,
    "OVERLOADED": StatusCode.UNAVAILABLE,
    "DRAINING": StatusCode.UNAVAILABLE,
    "SLOW_CONSUMER": StatusCode.RESOURCE_EXHAUSTED,
    "STORE_UNAVAILABLE": StatusCode.UNAVAILABLE,
    "OUTCOME_UNKNOWN": StatusCode.UNAVAILABLE,
    "INTERNAL": StatusCode.INTERNAL,
}


def code_of(error: HoldfastError) -> StatusCode:
    """Return the gRPC code of an error."""
    return CODES[error.reason]


def _details(error: HoldfastError) -> list[Message]:
    metadata = {key: value[:MESSAGE_MAX] for key, value in error.metadata.items()}
    details: list[Message] = [ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if error.violations:
        details.append(
            BadRequest(
                field_violations=[
                    BadRequest.FieldViolation(field=field, description=description)
                    for field, description in error.violations[:20]
                ]
            )
        )
    if error.retry_after_ms:
        delay = Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        details.append(RetryInfo(retry_delay=delay))
    return details


def status_of(error: HoldfastError) -> Status:
    """Return an error as google.rpc.Status."""
    status = Status(code=code_of(error).value[0], message=str(error)[:MESSAGE_MAX])
    for detail in _details(error):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def trailers_of(error: HoldfastError) -> tuple[tuple[str, str | bytes], ...]:
    """Return the trailing metadata that carries the details, and when to retry."""
    trailers: tuple[tuple[str, str | bytes], ...] = (
        ("grpc-status-details-bin", status_of(error).SerializeToString()),
    )
    if error.retry_after_ms:
        trailers += (("grpc-retry-pushback-ms", str(error.retry_after_ms)),)
    return trailers
