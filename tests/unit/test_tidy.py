"""The house is in order: who may import whom, how large a module is, and what it may be called."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast_server

SERVER = Path(holdfast_server.__file__).parent
ROOT = SERVER.parent.parent
SOURCES = {
    "holdfast_server": SERVER,
    "holdfast": ROOT / "clients" / "python" / "holdfast",
    "holdfast_bench": ROOT / "bench" / "holdfast_bench",
}
PREFIX = "holdfast_server."
GENERATED = ("_pb2", "_pb2_grpc")
LINES_MAX = 300
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "misc", "impl"}
BANNED_ENDINGS = ("Impl", "Manager", "Handler", "Helper", "Utils")

# Who may import whom within the server: an arrow points from a room to those below it.
ARROWS: dict[str, set[str]] = {
    "cli": {"app", "catalogue", "checks", "demo", "ledger", "stores", "workers"},
    "demo": {"app", "catalogue", "checks"},
    "workers": {"app"},
    "app": {"keeping", "rpc", "engine", "ledger", "stores", "watch"},
    "keeping": {"ledger", "locks", "stores"},
    "rpc": {"engine", "ledger", "stores", "watch"},
    "ledger": {"kernel"},
    "locks": {"kernel"},
    "watch": set(),
    "engine": set(),
    "stores": {"kernel"},
    "kernel": set(),
    # These know a server by its contract alone, so that what they find is found from outside.
    "catalogue": set(),
    "checks": set(),
    # Values and settings, which every room may know.
    "colours": set(),
    "errors": set(),
    "config": set(),
    "logs": set(),
    "pressure": set(),
    "model": set(),
}
VALUES = {"colours", "errors", "config", "logs", "pressure", "model"}
GRPC_ROOMS = {"rpc", "app", "checks"}
REDIS_ROOMS = ("stores.redis", "locks")


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of ours by its full name, generated stubs left out."""
    for package, folder in SOURCES.items():
        for path in sorted(folder.rglob("*.py")):
            if not path.stem.endswith(GENERATED):
                parts = path.relative_to(folder).with_suffix("").parts
                yield ".".join((package, *(part for part in parts if part != "__init__"))), path


MODULES = dict(modules())
SERVER_MODULES = {
    name.removeprefix(PREFIX): path for name, path in MODULES.items() if name.startswith(PREFIX)
}


def imports(path: Path) -> set[str]:
    """Every module that a file names in an import, wherever the import stands."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imports_any(path: Path, *packages: str) -> bool:
    return any(name.partition(".")[0] in packages for name in imports(path))


@pytest.mark.parametrize("module", sorted(SERVER_MODULES))
def test_imports_within_the_server_point_one_way(module: str) -> None:
    room = room_of(module)
    reached = {
        room_of(name.removeprefix(PREFIX))
        for name in imports(SERVER_MODULES[module])
        if name.startswith(PREFIX)
    }
    assert room in ARROWS, f"{module}: say in ARROWS what {room} may import"
    assert reached <= ARROWS[room] | VALUES | {room}


def test_the_arrows_hold_no_circle() -> None:
    order: list[str] = []
    left = {room: set(below) & ARROWS.keys() for room, below in ARROWS.items()}
    while left:
        free = {room for room, below in left.items() if not below - set(order)}
        assert free, f"a circle among {sorted(left)}"
        order += sorted(free)
        left = {room: below for room, below in left.items() if room not in free}


@pytest.mark.parametrize("module", sorted(SERVER_MODULES))
def test_grpc_is_imported_only_where_calls_are_translated(module: str) -> None:
    if room_of(module) not in GRPC_ROOMS:
        assert not imports_any(SERVER_MODULES[module], "grpc", "grpc_health", "grpc_reflection")


@pytest.mark.parametrize("module", sorted(SERVER_MODULES))
def test_the_redis_client_is_imported_only_by_its_store_and_by_locks(module: str) -> None:
    if not module.startswith(REDIS_ROOMS):
        assert not imports_any(SERVER_MODULES[module], "redis", "valkey")


def test_the_values_need_only_the_standard_library() -> None:
    for module, path in SERVER_MODULES.items():
        if room_of(module) == "model":
            for name in imports(path):
                ours = name.startswith("holdfast_server.model")
                assert ours or name.partition(".")[0] in sys.stdlib_module_names, module


@pytest.mark.parametrize("room", ["checks", "catalogue"])
def test_what_judges_from_outside_shares_no_code_with_what_decides(room: str) -> None:
    for module, path in SERVER_MODULES.items():
        if room_of(module) == room:
            rooms = {room_of(name.removeprefix(PREFIX)) for name in imports(path)}
            assert not rooms & {"kernel", "engine", "stores", "rpc"}, module


def test_the_client_does_not_need_the_server() -> None:
    for name, path in MODULES.items():
        if name.split(".")[0] == "holdfast":
            assert not imports_any(path, "holdfast_server", "holdfast_bench", "redis"), name


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_is_small_and_named_for_what_it_does(module: str) -> None:
    path = MODULES[module]
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES_MAX
    assert not BANNED_NAMES & set(module.split("."))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ClassDef):
            assert not node.name.endswith(BANNED_ENDINGS), node.name


def test_a_folder_holds_more_than_one_module() -> None:
    for folder in {path.parent for path in MODULES.values()}:
        files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        folders = [path for path in folder.iterdir() if (path / "__init__.py").exists()]
        assert files or folders, folder
