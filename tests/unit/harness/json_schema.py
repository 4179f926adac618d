"""A validator of the part of JSON Schema that result.schema.json uses; it knows no other words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
ANNOTATIONS = {"$schema", "$defs", "title", "description"}
KNOWN = ANNOTATIONS | {
    "$ref",
    "const",
    "enum",
    "type",
    "minimum",
    "required",
    "properties",
    "additionalProperties",
    "items",
}


def problems(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """Return where a value breaks a schema, by path."""
    return list(_problems(value, schema, schema, "result"))


def _problems(
    value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], path: str
) -> Iterator[str]:
    assert set(schema) <= KNOWN, f"{path}: {set(schema) - KNOWN}"
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    if "const" in schema and value != schema["const"]:
        yield f"{path}: {value!r} is not {schema['const']!r}"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if "type" in schema and not _is_of(value, schema["type"]):
        yield f"{path}: {value!r} is not of type {schema['type']}"
    elif isinstance(value, dict):
        yield from _in_object(value, schema, root, path)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _problems(item, schema.get("items", {}), root, f"{path}[{number}]")
    elif isinstance(value, int | float) and value < schema.get("minimum", value):
        yield f"{path}: {value} is below {schema['minimum']}"


def _in_object(
    value: Mapping[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], path: str
) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{path}.{name} is missing"
    others = schema.get("additionalProperties", {})
    for name, item in value.items():
        rule = schema.get("properties", {}).get(name, others)
        if rule is False:
            yield f"{path}.{name} is unknown"
        else:
            yield from _problems(item, rule, root, f"{path}.{name}")


def _is_of(value: Any, kinds: str | list[str]) -> bool:
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if isinstance(value, TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool)):
            return True
    return False
