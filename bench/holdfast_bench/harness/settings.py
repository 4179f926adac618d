"""How a scenario's tables are declared, read and checked: a key, its default, its limits.

A dataclass declares its keys with `setting` and its tables with `table`.  `build` reads one from
what TOML or a command line gave; `check_limits` is its `__post_init__`, so that a scenario made
in Python obeys the same limits as one read from a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import Field, field, fields
from typing import Any, TypeVar

T = TypeVar("T")


class ScenarioError(ValueError):
    """A key that is unknown, of the wrong type, or beyond its limits; `key` is its full name."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key} {problem}")
        self.key = key
        self.problem = problem

    def within(self, table: str) -> ScenarioError:
        """Return the same error, of a key that stands in a table."""
        return ScenarioError(f"{table}.{self.key}" if table else self.key, self.problem)


def setting(default: Any, description: str, **limits: Any) -> Any:
    """Return a field; limits are low, above (low itself is refused), high and choices.

    Parts of a list may be tables too, of the kind that `part` names.
    """
    none = {"low": None, "above": None, "high": None, "choices": (), "table": None, "part": None}
    return field(default=default, metadata={"description": description, **none, **limits})


def table(kind: type, description: str) -> dict[str, Any]:
    """Return the metadata of a field that is a table of its own."""
    return {"description": description, "table": kind}


def build(kind: type[T], given: Mapping[str, Any], where: str = "") -> T:
    """Return a dataclass of what was given.  Raises ScenarioError with the full name of the key."""
    known = {each.name: each for each in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    values = {}
    for name, value in given.items():
        if name not in known:
            problem = f"is not a key; known here: {', '.join(known)}"
            raise ScenarioError(name, problem).within(where)
        full_name = f"{where}.{name}" if where else name
        values[name] = _converted(known[name], value, full_name)
    try:
        return kind(**values)
    except ScenarioError as error:
        raise error.within(where) from None


def _converted(key: Field[Any], value: Any, full_name: str) -> Any:
    kind = key.metadata["table"]
    if kind is not None:
        if value is None and key.default is None:
            return None
        if isinstance(value, Mapping):
            return build(kind, value, full_name)
        raise ScenarioError(full_name, f"must be a table, not {value!r}")
    try:
        if isinstance(key.default, tuple):
            return _sequence(key, value, full_name)
        return _scalar(type(key.default), value)
    except ScenarioError:
        raise
    except ValueError as wrong:
        raise ScenarioError(full_name, str(wrong)) from None


def _sequence(key: Field[Any], value: Any, full_name: str) -> tuple[Any, ...]:
    """Return a tuple of one type; text of a command line is divided at commas."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise ValueError(f"must be a list, not {value!r}")
    default: Sequence[Any] = key.default  # type: ignore[assignment]  # a tuple, or it is not called
    kind, part_table = type(default[0]) if default else str, key.metadata["part"]
    return tuple(
        build(part_table, part, f"{full_name}[{number}]")
        if part_table is not None and isinstance(part, Mapping)
        else _scalar(kind, part)
        for number, part in enumerate(parts)
    )


NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _scalar(kind: type, value: Any) -> Any:
    """Return the value as this type; numbers may come as text, from a command line."""
    problem = ValueError(f"must be {NAMES[kind]}, not {value!r}")
    if kind is bool or isinstance(value, bool):
        if isinstance(value, bool) and kind is bool:
            return value
        raise problem
    if isinstance(value, kind) or (kind is float and isinstance(value, int)):
        return kind(value)
    if not isinstance(value, str):
        raise problem
    try:
        return kind(value)
    except ValueError:
        raise problem from None


def check_limits(instance: Any) -> None:
    """Raise ScenarioError for the first key that is beyond its limits."""
    for key in fields(instance):
        if key.metadata["table"] is not None:
            continue
        value = getattr(instance, key.name)
        for each in value if isinstance(value, tuple) else (value,):
            problem = _beyond(key.metadata, each)
            if problem:
                raise ScenarioError(key.name, f"{problem}, not {each!r}")


def _beyond(limits: Mapping[str, Any], value: Any) -> str:
    low, above, high, choices = (limits[name] for name in ("low", "above", "high", "choices"))
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if choices and value not in choices:
        return f"must be one of {', '.join(choices)}"
    if low is not None and value < low:
        return f"must be at least {low:,}"
    if above is not None and value <= above:
        return f"must be above {above:,}"
    if high is not None and value > high:
        return f"must be at most {high:,}"
    return ""
