"""Generate the Python stubs of the contract, and lint it.

Without arguments it writes clients/python/holdfast/v1/; `--check` fails if what is there differs;
`--lint` runs buf on the compiled contract and needs no network.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from importlib.resources import files
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
STUBS = ROOT / "clients" / "python"
PACKAGE = Path("holdfast", "v1")
BUF = "@bufbuild/buf@1.75.0"

INIT = '''"""Messages and stubs of the contract, generated from proto/holdfast/v1; do not edit.

`types_pb2`, `stock_pb2`, `inventory_pb2`, `ledger_pb2` and `errors_pb2` hold the messages, each
`*_pb2_grpc` the stub and the servicer of its service.
"""
'''


def protoc(*outputs: str) -> None:
    """Compile the contract.  Raises CalledProcessError, protoc having said why."""
    includes = [PROTO, files("grpc_tools") / "_proto", sysconfig.get_path("purelib")]
    sources = [str(path.relative_to(PROTO)) for path in sorted(PROTO.glob("holdfast/v1/*.proto"))]
    command = [sys.executable, "-m", "grpc_tools.protoc"]
    command += [f"-I{include}" for include in includes]
    # protoc finds its plugins on the PATH, which a virtual environment need not be on.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    subprocess.run([*command, *outputs, *sources], check=True, env={**os.environ, "PATH": path})


def generate(target: Path) -> None:
    """Write the stubs under `target`, in place of any that are there."""
    package = target / PACKAGE
    package.mkdir(parents=True, exist_ok=True)
    for old in package.glob("*_pb2*.py*"):
        old.unlink()
    protoc(
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_out=quiet:{target}",
        f"--mypy_grpc_out=quiet:{target}",
    )
    for service_free in ("types", "errors"):
        for stub in package.glob(f"{service_free}_pb2_grpc.py*"):
            stub.unlink()
    (package / "__init__.py").write_text(INIT, encoding="utf-8")


def contents(package: Path) -> dict[str, str]:
    """Return the text of every module in a package, by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in package.glob("*.py*")}


def check() -> int:
    """Return 1, and name the files, if the committed stubs differ from generated ones."""
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        fresh = contents(Path(scratch) / PACKAGE)
    committed = contents(STUBS / PACKAGE)
    names = sorted(fresh.keys() | committed.keys())
    stale = [name for name in names if fresh.get(name) != committed.get(name)]
    for name in stale:
        print(f"{STUBS.relative_to(ROOT) / PACKAGE / name} is out of date: run `make gen`")
    return 1 if stale else 0


def buf() -> list[str] | None:
    """Return the command that runs buf: the one installed, else by npx, else nothing."""
    if found := shutil.which("buf"):
        return [found]
    return ["npx", "--yes", BUF] if shutil.which("npx") else None


def lint() -> int:
    """Return buf's verdict, or without buf only whether the contract compiles.

    buf reads the compiled contract, not the sources: then imports are already resolved.
    """
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch, "contract.binpb")
        protoc(f"--descriptor_set_out={image}", "--include_imports", "--include_source_info")
        command = buf()
        if command is None:
            print("buf was not run: neither buf nor npx is installed; protoc compiles the contract")
            return 0
        command += ["lint", str(image), "--config", "buf.yaml", "--path", PACKAGE.as_posix()]
        return subprocess.run(command, check=False, cwd=ROOT).returncode


def main() -> int:
    """Run what the arguments ask for; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--check", action="store_true", help="fail if the committed stubs differ")
    task.add_argument("--lint", action="store_true", help="run buf on the compiled contract")
    chosen = parser.parse_args()
    try:
        if chosen.check:
            return check()
        if chosen.lint:
            return lint()
        generate(STUBS)
    except subprocess.CalledProcessError as failure:
        return int(failure.returncode)
    return 0


if __name__ == "__main__":
    sys.exit(main())
