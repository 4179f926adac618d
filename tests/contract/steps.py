"""Steps of the text tables: words to operations, and outcomes back to words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from holdfast_server.model import (
    AdjustStock,
    Caller,
    Code,
    Commit,
    Context,
    Extend,
    GetReservation,
    GetStock,
    LateCommit,
    Level,
    Line,
    Operation,
    Outcome,
    Policy,
    PutItem,
    Release,
    Reservation,
    Reserve,
    SetStock,
)

_POLICY = {
    "safety": "safety_stock",
    "oversell": "oversell_limit",
    "share": "oversell_share",
    "plenty": "plenty_at",
    "low": "low_at",
    "scarce": "scarce_at",
    "ttl": "hold_ttl_default_ms",
    "ttl_max": "hold_ttl_max_ms",
    "lifetime": "hold_lifetime_max_ms",
    "horizon": "sellout_horizon_ms",
}
_FLAGS = {"partial": "allow_partial", "backorder": "allow_backorder"}


class Arguments:
    """The words of a step: plain ones in order, `name=value` ones by name, flags, and lines."""

    def __init__(self, words: list[str]) -> None:
        self.plain = [word for word in words[1:] if "=" not in word and ":" not in word]
        self.named = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        self.lines = tuple(_line(word) for word in words[1:] if ":" in word and "=" not in word)

    def number(self, name: str) -> int:
        return int(self.named.get(name, 0))

    def maybe(self, name: str) -> int | None:
        return int(self.named[name]) if name in self.named else None

    @property
    def caller(self) -> Caller:
        name = self.named.get("by", "p")
        return Caller(name, name == "ops")

    @property
    def context(self) -> Context:
        return Context(channel=self.named.get("channel", ""))


def _line(word: str) -> Line:
    sku, _, rest = word.partition(":")
    quantity, _, location = rest.partition("@")
    return Line(sku, int(quantity), location)


def operation(words: list[str], number: int) -> Operation:
    """Return the operation of a step; `number` makes the request id of one that names none."""
    made = Arguments(words)
    request_id = made.named.get("id", f"line-{number}")
    match words[0]:
        case "item":
            return _item(made, request_id)
        case "stock":
            sku, delta = made.plain
            where = made.named.get("at", "default")
            return AdjustStock(request_id, made.caller, sku, int(delta), where)
        case "count":
            return _count(made, request_id)
        case "levels":
            return GetStock(tuple(made.plain))
    return _on_reservation(words[0], made)


def _item(made: Arguments, request_id: str) -> PutItem:
    values: dict[str, Any] = {full: made.maybe(short) for short, full in _POLICY.items()}
    if "late" in made.named:
        values["late_commit"] = LateCommit[made.named["late"]].value
    values["system_of_record"] = made.named.get("owner")
    channels = tuple(
        (name.removeprefix("quota."), None if quota == "-" else int(quota))
        for name, quota in made.named.items()
        if name.startswith("quota.")
    )
    return PutItem(request_id, made.caller, made.plain[0], Policy(**values), channels)


def _count(made: Arguments, request_id: str) -> SetStock:
    sku, on_hand = made.plain
    return SetStock(
        request_id,
        made.caller,
        sku,
        int(on_hand),
        made.named.get("at", "default"),
        made.maybe("expected"),
        made.maybe("as_of"),
        made.number("moved"),
        made.number("if"),
    )


def _on_reservation(verb: str, made: Arguments) -> Operation:
    id_, caller, context = made.plain[0], made.caller, made.context
    match verb:
        case "reserve":
            flags = {name: word in made.plain for word, name in _FLAGS.items()}
            return Reserve(
                id_,
                caller,
                made.lines,
                made.number("ttl"),
                context,
                if_sequence=made.number("if"),
                replaces=made.named.get("replaces", ""),
                **flags,
            )
        case "commit":
            order_ref = made.named.get("order", "")
            return Commit(id_, caller, made.lines, order_ref, context, made.number("if"))
        case "release":
            return Release(id_, caller, made.lines, context)
        case "extend":
            return Extend(id_, caller, int(made.plain[1]), context)
        case "get":
            return GetReservation(id_, caller)
    raise AssertionError(f"no such step: {verb}")


def words_of(operation: Operation, outcome: Outcome) -> str:
    """Return what a table says of an outcome."""
    code = Code(outcome.code)
    if code >= Code.INVALID or code is Code.AGAIN or code >= Code.OUT_OF_STOCK:
        return _join(code.name, *_why_not(outcome))
    if outcome.reservation:
        shows_expiry = isinstance(operation, Extend | GetReservation)
        return _join(code.name, *_reservation(outcome.reservation, outcome, shows_expiry))
    return _join(code.name, *(_level(level) for level in outcome.levels))


def _why_not(outcome: Outcome) -> Iterable[str]:
    code, detail = outcome.code, outcome.detail
    if outcome.reservation:
        return (outcome.reservation.reservation_id,)
    if code == Code.LIFETIME_EXCEEDED:
        return (f"left={int(detail) - outcome.now_ms}",)
    if code == Code.EXCEEDS_HOLD:
        sku, where, wanted, held = detail
        return (f"{_at(sku, wanted, where)}/{held}",)
    if code < Code.INVALID:
        return [
            _join(
                f"{_at(line.sku, line.requested, line.location)}/{line.available}",
                f"next={line.next_expiry_ms - outcome.now_ms}" if line.next_expiry_ms else "",
            )
            for line in detail or ()
        ]
    return detail if isinstance(detail, tuple) else (str(detail),)


def _reservation(record: Reservation, outcome: Outcome, shows_expiry: bool) -> Iterable[str]:
    yield record.state.name
    for line in record.lines:
        beyond = f"+{line.backordered}" if line.backordered else ""
        where = f"@{line.location}" if line.location else ""
        yield f"{line.sku}:{line.quantity}{beyond}{where}"
    if shows_expiry and record.state.name == "HELD":
        yield f"left={record.expires_ms - outcome.now_ms}"
    if record.order_ref:
        yield f"order={record.order_ref}"
    if record.late:
        yield "late"
    if record.replaced_by:
        yield f"by={record.replaced_by}"


def _level(level: Level | None) -> str:
    if level is None:
        return "none"
    more = "".join(
        f" {name}={value}"
        for name, value in (("beyond", level.backordered), ("owed", level.owed))
        if value
    )
    return f"{level.sku}={level.on_hand}/{level.held}/{level.committed}{more}"


def _at(sku: str, quantity: int, location: str) -> str:
    return f"{sku}:{quantity}@{location}" if location else f"{sku}:{quantity}"


def _join(*words: str) -> str:
    return " ".join(word for word in words if word)
