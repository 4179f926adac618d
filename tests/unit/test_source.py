"""The Lua text: how it is flattened, what it names, and that it says the same numbers as Python.

After a wanted change of the script: `python tests/unit/test_source.py` writes the new names.
"""

from __future__ import annotations

import re
from enum import IntEnum
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from holdfast_server import model
from holdfast_server.kernel import records
from holdfast_server.kernel.source import (
    IncludeError,
    flatten,
    library,
    lua_root,
    script,
    script_sha,
)

GOLDEN = Path(__file__).with_name("script_sha1.txt")
UPDATE = "python tests/unit/test_source.py"


def names_now() -> str:
    """Return the SHA-1 of the script and of the library, as they are sent."""
    return f"{script_sha(script())} script\n{script_sha(library().text)} library\n"


def tree(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.lua").write_text(text, encoding="utf-8")
    return folder


def test_an_include_is_replaced_by_its_file(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        main='local a = 1\n--- @include "part"\nreturn a + b',
        part='-- part\n--- @include "leaf"',
        leaf="local b = 2",
    )
    assert flatten("main", root) == "local a = 1\n-- part\nlocal b = 2\nreturn a + b\n"


def test_an_include_stands_on_a_line_of_its_own(tmp_path: Path) -> None:
    text = 'local a = "--- @include \\"part\\""'
    assert flatten("main", tree(tmp_path, main=text)) == f"{text}\n"


def test_a_missing_include_names_the_chain(tmp_path: Path) -> None:
    root = tree(tmp_path, main='--- @include "part"', part='--- @include "nowhere"')
    with pytest.raises(IncludeError, match="no such file: main -> part -> nowhere"):
        flatten("main", root)


def test_a_circular_include_names_the_chain(tmp_path: Path) -> None:
    root = tree(tmp_path, main='--- @include "part"', part='--- @include "main"')
    with pytest.raises(IncludeError, match="circular include: main -> part -> main"):
        flatten("main", root)


def test_a_file_is_included_once(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        main='--- @include "part"\n--- @include "leaf"',
        part='--- @include "leaf"',
        leaf="",
    )
    with pytest.raises(IncludeError, match="included twice: main -> leaf"):
        flatten("main", root)


def test_the_scripts_are_those_that_were_reviewed() -> None:
    expected = GOLDEN.read_text(encoding="utf-8")
    assert names_now() == expected, f"the Lua text changed; if that is meant: {UPDATE}"


def test_the_library_is_named_by_its_content_and_registers_both_twins() -> None:
    text, plain, allow_oom = library()
    assert re.fullmatch("holdfast_[0-9a-f]{12}", plain)
    assert allow_oom == f"{plain}_allow_oom"
    assert text.startswith(f"#!lua name={plain}\n")
    assert "NAME" not in text
    assert f"register_function('{plain}', call)" in text
    assert f"function_name = '{allow_oom}', callback = call, flags = {{ 'allow-oom' }}" in text


# Every function of the bytecode, and in each the names that it reads or writes as globals.
GLOBALS = b"""
local util, text = require('jit.util'), ...
local function code(run, at) return util.funcbc(run, at) % 256 end
local READ = code(function() return anything end, 1)
local WRITE = code(function() anything = nil end, 2)
local names = {}
local function walk(run)
  local at, word = 1, util.funcbc(run, 1)
  while word do
    if word % 256 == READ or word % 256 == WRITE then
      names[util.funck(run, -math.floor(word / 65536) - 1)] = true
    end
    at = at + 1
    word = util.funcbc(run, at)
  end
  local index, constant = -1, util.funck(run, -1)
  while constant ~= nil do
    if type(constant) == 'proto' then walk(constant) end
    index = index - 1
    constant = util.funck(run, index)
  end
end
walk(assert(loadstring(text)))
return names
"""
LIBRARY = {"error", "ipairs", "math", "pairs", "string", "struct", "table", "tonumber", "type"}
LIBRARY |= {"unpack"}
REDIS = {"ARGV", "KEYS", "cmsgpack", "redis"}


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("inprocess/host", LIBRARY),
        ("redis/execute", LIBRARY | REDIS),
        ("redis/open", LIBRARY | REDIS),
    ],
)
def test_lua_names_no_unknown_global(name: str, known: set[str]) -> None:
    text = re.sub("^#!.*", "", flatten(name))
    luajit: Any = import_module("lupa.luajit21")
    names = luajit.LuaRuntime(encoding=None).execute(GLOBALS, text.encode())
    assert {found.decode() for found in names} <= known


def constants() -> dict[str, int]:
    """Return the numbers that Lua files name at their top level."""
    found: dict[str, int] = {}
    for path in (lua_root() / "kernel").glob("*.lua"):
        text = path.read_text(encoding="utf-8")
        for names, numbers in re.findall(
            r"^local ([A-Z_0-9, ]+) =\s+([0-9, ]+)$", text, re.MULTILINE
        ):
            values = [int(number) for number in numbers.split(",")]
            found |= dict(zip(re.split(r",\s*", names), values, strict=True))
    return found


LUA = constants()


@pytest.mark.parametrize("number", [*model.Kind, *model.Code], ids=lambda number: number.name)
def test_lua_and_python_mean_the_same_by_a_number(number: IntEnum) -> None:
    assert LUA[number.name] == number


def test_lua_knows_no_code_that_python_does_not() -> None:
    text = (lua_root() / "kernel" / "codes.lua").read_text(encoding="utf-8")
    codes = text.partition("local OK")[2].partition("-- Reserve flags")[0]
    known = {code.name for code in model.Code}
    assert set(re.findall(r"\b[A-Z][A-Z_]+\b", f"OK {codes}")) == known


def test_lua_and_python_agree_on_policies_flags_and_limits() -> None:
    assert LUA["LATE_REJECT"] == model.LateCommit.REJECT
    assert LUA["LATE_REVIEW"] == model.LateCommit.REVIEW
    assert (LUA["LATE"], LUA["SUPERSEDED"]) == (records.LATE, records.SUPERSEDED)
    assert (LUA["ALLOW_PARTIAL"], LUA["ALLOW_BACKORDER"]) == (1, 2)
    assert (LUA["UNITS_MAX"], LUA["LINES_MAX"]) == (model.UNITS_MAX, model.LINES_MAX)


def test_lua_and_python_agree_on_the_sizes_of_records() -> None:
    assert records.LEVEL.size == LUA["LEVEL_SIZE"]
    assert records.HOLD.size == LUA["HOLD_SIZE"]


if __name__ == "__main__":
    GOLDEN.write_text(names_now(), encoding="utf-8")
