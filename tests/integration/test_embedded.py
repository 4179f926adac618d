"""The embedded Valkey: real processes, real signals, real files."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from holdfast_server.stores.redis import embedded
from holdfast_server.stores.redis.embedded import (
    DataDirInUse,
    EmbeddedConfig,
    EmbeddedEvent,
    EmbeddedStartFailed,
    EmbeddedValkey,
)

BIG = 8 << 20
Events = asyncio.Queue[EmbeddedEvent]

SERVE_UNTIL_KILLED = """
import asyncio, sys, uvloop
from pathlib import Path
from redis.asyncio import Redis
from holdfast_server.stores.redis.embedded import EmbeddedConfig, EmbeddedValkey

async def main():
    valkey = await EmbeddedValkey.start(EmbeddedConfig(Path(sys.argv[1]), sys.argv[2]))
    await Redis.from_url(valkey.url).set("stock", "7")
    print(valkey.pid, flush=True)
    await asyncio.Event().wait()

uvloop.run(main())
"""


async def until(kind: str, events: Events) -> EmbeddedEvent:
    async with asyncio.timeout(30):
        while (event := await events.get()).kind != kind:
            pass
    return event


@contextlib.asynccontextmanager
async def serving(
    config: EmbeddedConfig, events: Events | None = None
) -> AsyncIterator[tuple[EmbeddedValkey, Redis]]:
    valkey = await EmbeddedValkey.start(config, on_event=events.put_nowait if events else None)
    try:
        async with Redis.from_url(valkey.url, decode_responses=True) as client:
            yield valkey, client
    finally:
        await valkey.aclose()


@contextlib.contextmanager
def stray_valkey(socket_dir: Path, data_dir: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Valkey that no server owns, as one is left where the parent-death signal does not exist."""
    command = [embedded._valkey_server(), "--port", "0", "--dir", str(data_dir)]
    command += ["--unixsocket", str(socket_dir / "valkey.sock"), "--appendonly", "yes"]
    command += ["--pidfile", str(data_dir / "valkey.pid")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert any(b"Ready to accept connections" in line for line in process.stdout)
            yield process
        finally:
            process.kill()


def serve_and_be_killed(data_dir: Path, durability: str) -> int:
    """Run a server, kill it once it has stored something, and return the pid of its Valkey."""
    command = [sys.executable, "-c", SERVE_UNTIL_KILLED, str(data_dir), durability]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        server.kill()
        return pid


def send(valkey: EmbeddedValkey, number: signal.Signals) -> None:
    assert valkey.pid is not None
    os.kill(valkey.pid, number)


def is_alive(pid: int | None) -> bool:
    return Path(f"/proc/{pid}/cwd").exists()  # a zombie has none


def aof_of(data_dir: Path) -> Path:
    return next((data_dir / "appendonlydir").glob("*.incr.aof"))


async def test_a_started_valkey_answers_and_a_closed_one_is_gone(tmp_path: Path) -> None:
    data_dir = tmp_path / "made" / "here 100%"
    async with serving(EmbeddedConfig(data_dir)) as (valkey, client):
        assert await client.ping()
        pid = valkey.pid
        assert data_dir.stat().st_mode & 0o777 == 0o700
        assert (data_dir / "valkey.sock").stat().st_mode & 0o777 == 0o600
        assert aof_of(data_dir).stat().st_mode & 0o077 == 0
    assert valkey.pid is None
    assert not is_alive(pid)
    await valkey.aclose()


@pytest.mark.parametrize(
    ("durability", "appendfsync", "kept"),
    [("memory", "no", None), ("second", "everysec", "7"), ("always", "always", "7")],
)
async def test_durability_decides_the_settings_and_what_survives_a_graceful_restart(
    tmp_path: Path, durability: embedded.Durability, appendfsync: str, kept: str | None
) -> None:
    config = EmbeddedConfig(tmp_path, durability, maxmemory_bytes=BIG)
    async with serving(config) as (_, client):
        settings = await client.config_get("*")
        await client.set("stock", "7")
    assert settings["appendonly"] == ("yes" if kept else "no")
    assert (settings["appendfsync"], settings["save"], settings["port"]) == (appendfsync, "", "0")
    assert (settings["maxmemory"], settings["maxmemory-policy"]) == (str(BIG), "noeviction")
    async with serving(config) as (_, client):
        assert await client.get("stock") == kept


async def test_memory_on_a_durable_directory_is_refused(tmp_path: Path) -> None:
    async with serving(EmbeddedConfig(tmp_path, "second")):
        pass
    with pytest.raises(EmbeddedStartFailed, match="durability memory"):
        await EmbeddedValkey.start(EmbeddedConfig(tmp_path, "memory"))


async def test_a_killed_valkey_comes_back_with_its_data(tmp_path: Path) -> None:
    events = Events()
    async with serving(EmbeddedConfig(tmp_path, "always"), events) as (valkey, client):
        await client.set("stock", "7")
        url, pid = valkey.url, valkey.pid
        send(valkey, signal.SIGKILL)
        assert (await until("died", events)).detail == "SIGKILL"
        revived = await until("restarted", events)
        assert (valkey.restarts, valkey.url) == (1, url)
        assert valkey.pid == revived.pid != pid
        assert await client.get("stock") == "7"


async def test_restarting_goes_on_until_it_succeeds(tmp_path: Path) -> None:
    events = Events()
    async with serving(EmbeddedConfig(tmp_path, "always"), events) as (valkey, client):
        await client.set("stock", "7")
        manifest = next((tmp_path / "appendonlydir").glob("*.manifest"))
        content = manifest.read_bytes()
        manifest.write_bytes(b"no manifest\n")
        send(valkey, signal.SIGKILL)
        for _ in range(2):
            assert "manifest" in (await until("restart_failed", events)).detail
        manifest.write_bytes(content)
        await until("restarted", events)
        assert await client.get("stock") == "7"


async def test_a_second_server_is_refused_and_the_first_unharmed(tmp_path: Path) -> None:
    async with serving(EmbeddedConfig(tmp_path)) as (_, client):
        with pytest.raises(DataDirInUse) as refusal:
            await EmbeddedValkey.start(EmbeddedConfig(tmp_path))
        assert refusal.value.holder_pid == os.getpid()
        assert str(tmp_path) in str(refusal.value)
        assert await client.set("stock", "7")


async def test_a_killed_server_takes_its_valkey_along(tmp_path: Path) -> None:
    orphan = serve_and_be_killed(tmp_path, "second")
    async with asyncio.timeout(30):
        while is_alive(orphan):  # noqa: ASYNC110 - not our child: nothing to await
            await asyncio.sleep(0.01)


async def test_a_killed_servers_directory_opens_at_once_with_its_data(tmp_path: Path) -> None:
    for durability in ("second", "always"):
        orphan = serve_and_be_killed(tmp_path / durability, durability)
        async with serving(EmbeddedConfig(tmp_path / durability)) as (_, client):
            assert await client.get("stock") == "7"
            assert not is_alive(orphan)


async def test_an_orphan_is_shut_down_through_its_socket(tmp_path: Path) -> None:
    events = Events()
    (tmp_path / "temp-rewriteaof-bg-1.aof").write_text("of a Valkey killed in mid-rewrite")
    with stray_valkey(tmp_path, tmp_path) as orphan:
        async with Redis(unix_socket_path=str(tmp_path / "valkey.sock")) as client:
            await client.set("stock", "7")
        async with serving(EmbeddedConfig(tmp_path), events) as (_, client):
            await until("orphan_ended", events)
            assert orphan.wait() == 0
            assert not any(name.startswith("temp") for name in os.listdir(tmp_path))
            assert await client.get("stock") == "7"


async def test_a_silent_orphan_is_named_and_never_signalled(tmp_path: Path) -> None:
    with stray_valkey(tmp_path, tmp_path) as orphan:
        orphan.send_signal(signal.SIGSTOP)
        with pytest.raises(EmbeddedStartFailed, match=f"pid {orphan.pid}"):
            await EmbeddedValkey.start(EmbeddedConfig(tmp_path, stop_timeout_ms=100))
        assert orphan.poll() is None


async def test_a_foreign_valkey_on_the_socket_is_refused_and_unharmed(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    ours.mkdir()
    with stray_valkey(ours, tmp_path):
        with pytest.raises(EmbeddedStartFailed, match="another directory"):
            await EmbeddedValkey.start(EmbeddedConfig(ours))
        async with Redis(unix_socket_path=str(ours / "valkey.sock")) as client:
            assert await client.ping()


async def test_a_directory_too_long_for_a_socket_works(tmp_path: Path) -> None:
    data_dir = tmp_path / ("long" * 40)
    for expected in (None, "7"):
        async with serving(EmbeddedConfig(data_dir)) as (valkey, client):
            socket_dir = Path(valkey.url.removeprefix("unix://")).parent
            assert str(socket_dir) in (data_dir / "valkey.socket").read_text()
            assert socket_dir.stat().st_mode & 0o777 == 0o700
            assert await client.get("stock") == expected
            await client.set("stock", "7")
        assert not socket_dir.exists()


async def test_a_torn_aof_is_cut_and_reported_a_corrupt_one_fails_in_valkeys_words(
    tmp_path: Path,
) -> None:
    config, events = EmbeddedConfig(tmp_path, "always"), Events()
    async with serving(config) as (_, client):
        for number in range(3):
            await client.set(f"stock{number}", number)
    os.truncate(aof_of(tmp_path), aof_of(tmp_path).stat().st_size - 3)
    async with serving(config, events) as (_, client):
        assert "Truncating the AOF" in (await until("aof_truncated", events)).detail
        assert await client.mget("stock0", "stock1", "stock2") == ["0", "1", None]
    aof_of(tmp_path).write_bytes(b"garbage")
    with pytest.raises(EmbeddedStartFailed, match="Bad file format"):
        await EmbeddedValkey.start(config)


async def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    a_file, full = tmp_path / "file", tmp_path / "full"
    a_file.write_text("")
    full.mkdir()
    (full / "write.probe").symlink_to("/dev/full")  # a full disk, as far as the probe can tell
    cases = {
        a_file: "not a directory",
        Path("/sys/kernel"): "cannot be used",  # nobody can make files there, root neither
        full: "No space left",
    }
    for data_dir, words in cases.items():
        with pytest.raises(EmbeddedStartFailed, match=words) as failure:
            await EmbeddedValkey.start(EmbeddedConfig(data_dir))
        assert str(data_dir) in str(failure.value)


async def test_a_valkey_that_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\necho $$ > valkey.started; echo thinking; exec sleep 60\n")
    silent.chmod(0o700)
    monkeypatch.setattr(embedded, "_valkey_server", lambda: str(silent))
    with pytest.raises(EmbeddedStartFailed, match=r"no answer for 500 ms\n.*thinking"):
        await EmbeddedValkey.start(EmbeddedConfig(tmp_path / "data", start_timeout_ms=500))
    assert not is_alive(int((tmp_path / "data" / "valkey.started").read_text()))


async def test_a_valkey_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    events = Events()
    async with serving(EmbeddedConfig(tmp_path, "always", stop_timeout_ms=100), events) as started:
        valkey, client = started
        await client.set("stock", "7")
        send(valkey, signal.SIGSTOP)
    await until("killed", events)
    async with serving(EmbeddedConfig(tmp_path, "always")) as (_, client):
        assert await client.get("stock") == "7"


async def test_a_long_log_is_rotated_at_start(tmp_path: Path) -> None:
    (tmp_path / "valkey.log").write_bytes(bytes(BIG))
    async with serving(EmbeddedConfig(tmp_path)):
        assert (tmp_path / "valkey.log.1").stat().st_size == BIG


def test_a_bad_setting_is_named(tmp_path: Path) -> None:
    bad = {"durability": "no", "maxmemory_bytes": -1, "start_timeout_ms": 0, "stop_timeout_ms": 0}
    for field, value in bad.items():
        with pytest.raises(ValueError, match=field):
            EmbeddedConfig(tmp_path, **{field: value})  # type: ignore[arg-type]
