"""A Lua in this process, as strict as the one in Redis, with the kernel's host text loaded."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from struct import Struct
from typing import Any

from holdfast_server.kernel.source import flatten


def _lupa() -> Any:
    """Return lupa's module for LuaJIT, or for plain Lua 5.1, which decides the same more slowly."""
    try:
        return import_module("lupa.luajit21")
    except ImportError:  # a platform that LuaJIT does not run on
        return import_module("lupa.lua51")


_LUA = _lupa()
LuaError: type[Exception] = _LUA.LuaError

# What Redis gives a script.  Reading or writing any other global raises, there and here.
_STRICT = b"""
local text, struct = ...
local known = {
  string = string, math = math, table = table, struct = struct, unpack = unpack, type = type,
  tonumber = tonumber, tostring = tostring, pairs = pairs, ipairs = ipairs, next = next,
  select = select, error = error, assert = assert, pcall = pcall, setmetatable = setmetatable,
}
local function refuse(_, name) error('unknown global ' .. tostring(name), 2) end
local chunk = assert(loadstring(text, '=kernel'))
setfenv(chunk, setmetatable({}, {
  __index = function(_, name) return known[name] or refuse(_, name) end,
  __newindex = refuse,
}))
return chunk()
"""


@cache
def _layout(form: bytes) -> Struct:
    return Struct(form.decode().replace("i4", "i").replace("c1", "c"))


def _pack(form: bytes, *values: Any) -> bytes:
    return _layout(form).pack(*values)


def _unpack(form: bytes, data: bytes, position: int = 1) -> tuple[Any, ...]:
    """Return the values at a position counted from 1, and the position after them."""
    layout = _layout(form)
    return (*layout.unpack_from(data, position - 1), position + layout.size)


def plain(value: Any) -> Any:
    """Return a Lua value as Python's; every table of the kernel is a list."""
    if isinstance(value, bytes | int | float) or value is None:
        return value
    return [plain(value[index]) for index in range(1, len(value) + 1)]


class LuaHost:
    """The functions of a text in lua/inprocess.  Texts are bytes on both sides."""

    def __init__(self, name: str = "inprocess/host") -> None:
        self._runtime = _LUA.LuaRuntime(
            encoding=None,
            unpack_returned_tuples=True,
            register_eval=False,
            register_builtins=False,
        )
        self._functions = self._runtime.execute(_STRICT, flatten(name).encode(), self._struct())

    def _struct(self) -> Any:
        """Return pack and unpack: LuaJIT's own, which cost a tenth, or else this module's."""
        if _LUA.__name__ == "lupa.luajit21":
            return self._runtime.execute(flatten("inprocess/struct").encode())
        return self._runtime.table_from({b"pack": _pack, b"unpack": _unpack})

    def constant(self, name: str) -> int:
        """Return a number of the kernel."""
        return int(self._functions[name.encode()])

    def call(self, name: str, *values: Any) -> Any:
        """Call a function; lists and dicts become tables.  Raises LuaError."""
        return self._functions[name.encode()](*(self._table(value) for value in values))

    def _table(self, value: Any) -> Any:
        return self._runtime.table_from(value) if isinstance(value, list | dict) else value
