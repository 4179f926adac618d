"""The Lua text of the kernel: found in a wheel or a checkout, and flattened into one script.

`--- @include "path"` on a line of its own is replaced by that file, once; the path is relative to
the Lua root.  The flattened text is what its SHA-1 names on the store, so any change shows.
"""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import NamedTuple

INCLUDE = re.compile(r'^--- @include "([^"]+)"\s*$')


class IncludeError(ValueError):
    """An include that cannot be resolved: missing, repeated or circular."""


def lua_root() -> Path:
    """Return the folder of the Lua sources: packaged if it is there, else the checkout's."""
    package = Path(__file__).resolve().parent.parent
    for candidate in (package / "lua", package.parent.parent / "lua"):
        if (candidate / "kernel").is_dir():
            return candidate
    raise IncludeError(f"no Lua sources beside {package}")


def flatten(name: str, root: Path | None = None) -> str:
    """Return the text of `name` (a path without `.lua`) with every include in its place.

    Raises IncludeError, with the chain of files, for a missing, repeated or circular include.
    """
    return "\n".join(_expand(name, root or lua_root(), (), set())) + "\n"


def _expand(name: str, root: Path, chain: tuple[str, ...], done: set[str]) -> list[str]:
    where = " -> ".join((*chain, name))
    if name in chain:
        raise IncludeError(f"circular include: {where}")
    if name in done:
        raise IncludeError(f"included twice: {where}")
    done.add(name)
    path = root / f"{name}.lua"
    if not path.is_file():
        raise IncludeError(f"no such file: {where}")
    lines: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        match = INCLUDE.match(line)
        lines += _expand(match[1], root, (*chain, name), done) if match else [line]
    return lines


class Library(NamedTuple):
    """A FUNCTION library: its text, and the names of its function and of the twin.

    The twin also runs when the store's memory is full.  For both, Redis and Valkey check memory,
    disk and replica state before the first write, so a refusal by the store is all or nothing.
    """

    text: str
    plain: str
    allow_oom: str


@cache
def library() -> Library:
    """Return the library that decides a batch, named by its content."""
    body = flatten("redis/library")
    name = f"holdfast_{sha1(body.encode(), usedforsecurity=False).hexdigest()[:12]}"
    text = f"#!lua name={name}\n{body.replace('NAME', name)}"
    return Library(text, name, f"{name}_allow_oom")


@cache
def script() -> str:
    """Return the same as a script, for EVAL and EVALSHA."""
    return f"#!lua\n{flatten('redis/execute')}"


def script_sha(text: str) -> str:
    """Return the name by which the store knows a script."""
    return sha1(text.encode(), usedforsecurity=False).hexdigest()
