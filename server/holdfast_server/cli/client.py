"""What every command shares that calls a server: where it is, who calls, how it can fail."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, Concatenate, ParamSpec

import click

from holdfast import AsyncClient, Context, HoldfastError, Line, Refused
from holdfast.channel import TARGET_DEFAULT
from holdfast_server.cli.terminal import REFUSED, Failure, Output, clock, json_option

P = ParamSpec("P")

CONNECT_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Call:
    """A connected client, and where its answers go."""

    client: AsyncClient
    output: Output


def calls_server(
    work: Callable[Concatenate[Call, P], Awaitable[None]],
) -> Callable[..., None]:
    """Make an async function a command's: it gets a connected client, and options to find one."""

    @click.option(
        "--target",
        envvar="HOLDFAST_TARGET",
        default=TARGET_DEFAULT,
        show_default=True,
        show_envvar=True,
        help="Address of the server.",
    )
    @click.option(
        "--principal",
        envvar="HOLDFAST_PRINCIPAL",
        default="",
        show_envvar=True,
        help="Who calls, for a server in open mode.",
    )
    @click.option(
        "--token",
        envvar="HOLDFAST_TOKEN",
        default="",
        show_envvar=True,
        help="Token of the principal; the variable keeps it out of process lists.",
    )
    @json_option
    @wraps(work)
    def command(
        target: str, principal: str, token: str, as_json: bool, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        output = Output(as_json)

        async def run() -> None:
            async with AsyncClient(
                target,
                coalesce=False,
                principal=principal,
                token=token,
                connect_timeout=CONNECT_TIMEOUT_S,
            ) as client:
                await work(Call(client, output), *args, **kwargs)

        with _answered(output):
            asyncio.run(run())

    return command


@contextmanager
def _answered(output: Output) -> Iterator[None]:
    """Turn the client's errors into exit statuses."""
    try:
        yield
    except Refused as refused:
        _show_refusal(output, refused)
        raise click.exceptions.Exit(REFUSED) from None
    except HoldfastError as error:
        again = ""
        if error.idempotency_key and not error.reason:
            again = f"; it may have taken effect: repeat it with the id {error.idempotency_key}"
        raise Failure(f"{error}{again}", reason=error.reason, as_json=output.as_json) from error
    except ValueError as error:  # what cannot be sent at all, such as a token that is no ASCII
        raise Failure(str(error), as_json=output.as_json) from error


def _show_refusal(output: Output, refused: Refused) -> None:
    if output.as_json:
        output.document(
            {
                "refusal": {
                    "reason": refused.reason,
                    "message": str(refused),
                    "lines": refused.lines,
                    "levels": refused.levels,
                    "sequence": refused.sequence,
                }
            }
        )
        return
    output.say(f"refused: {refused.reason}: {refused}")
    advice = {level.sku: level.advice for level in refused.levels}
    output.table(
        ("sku", "location", "#requested", "#available", "next expiry", "advice"),
        [
            (
                line.sku,
                line.location or "anywhere",
                line.requested,
                line.available,
                clock(line.next_expiry_at),
                advice.get(line.sku, ""),
            )
            for line in refused.lines
        ],
    )


class LineType(click.ParamType[Line]):
    """`SKU`, `SKU=QUANTITY` or `SKU=QUANTITY@LOCATION`; without a quantity, one unit."""

    name = "line"
    _FORM = re.compile(r"(?P<sku>.+)=(?P<quantity>-?[0-9]+)(?:@(?P<location>.+))?")

    def convert(self, value: Any, param: Any, ctx: Any) -> Line:
        """Return the line; the server checks what it says."""
        if isinstance(value, Line):
            return value
        form = self._FORM.fullmatch(value)
        if form is None:
            return Line(value)
        return Line(form["sku"], int(form["quantity"]), form["location"] or "")


class SecondsType(click.ParamType[float]):
    """An interval: `90`, `90s`, `1.5m`, `2h` or `500ms`; a bare number is seconds."""

    name = "interval"
    _FORM = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)(ms|s|m|h)?")
    _UNITS: ClassVar[dict[str | None, float]] = {None: 1, "ms": 0.001, "s": 1, "m": 60, "h": 3600}

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return seconds."""
        if isinstance(value, float):
            return value
        form = self._FORM.fullmatch(value)
        if form is None:
            self.fail(f"{value!r} is no interval such as 90s, 1.5m, 2h or 500ms", param, ctx)
        return float(form[1]) * self._UNITS[form[2]]


LINE, SECONDS = LineType(), SecondsType()


def context_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what an agent may say about itself, collected into `context`."""

    @wraps(command)
    def collected(*args: Any, **kwargs: Any) -> Any:
        values = {field: kwargs.pop(field) for field in Context._fields}
        return command(*args, context=Context(**values) if any(values.values()) else None, **kwargs)

    for field in reversed(Context._fields):
        flag = "--" + field.removesuffix("_id").replace("_", "-")
        collected = click.option(flag, field, default="", help=f"Recorded: {field}.")(collected)
    return collected
