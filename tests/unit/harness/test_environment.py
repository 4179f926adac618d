"""env.json says what a run ran on, whatever the system will not tell, and gives no secret away."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from shutil import copy

import pytest

from holdfast_bench.harness import environment
from holdfast_bench.harness.environment import checkout, gather, masked
from holdfast_bench.harness.scenario import Scenario
from holdfast_bench.harness.store_settings import SETTINGS, store_settings
from holdfast_server.stores.redis.embedded import EmbeddedConfig, EmbeddedValkey


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=Someone", "-c", "user.email=someone@example.com")
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def test_environment_tells_what_figures_depend_on() -> None:
    told = gather(
        Scenario(seed=5),
        ["holdfast", "bench", "run", "smoke"],
        is_colocated=True,
        server={"workers": 1},
    )

    assert json.loads(json.dumps(told)) == told
    assert told["hardware"]["cpus"] >= 1
    assert told["hardware"]["memory_bytes"] > 0
    assert told["limits"]["open_files"] is None or told["limits"]["open_files"] > 0
    assert told["versions"]["python"].endswith(sys.version.split()[0])
    assert all(told["versions"][package] for package in ("holdfast", "grpcio", "hdrhistogram"))
    assert told["seed"] == 5
    assert told["command"] == ["holdfast", "bench", "run", "smoke"]
    assert told["colocated"] is True
    assert told["server"] == {"workers": 1}
    assert {"kernel", "os", "commit", "dirty"} <= set(told)


def test_server_that_tells_nothing_is_null() -> None:
    assert gather(Scenario(), [], is_colocated=None)["server"] is None


def test_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "PACKAGES", ("no-such-package",))

    assert environment.versions()["no-such-package"] is None


def test_commit_is_told_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    copy(environment.__file__, tmp_path)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "First")

    clean = checkout(tmp_path)
    (tmp_path / "new").touch()

    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    assert checkout(tmp_path) == {**clean, "dirty": True}


def test_outside_of_a_checkout_there_is_no_commit(tmp_path: Path) -> None:
    assert checkout(tmp_path) == {"commit": None, "dirty": None}


def test_checkout_of_something_else_is_not_ours(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "First")

    assert checkout(tmp_path) == {"commit": None, "dirty": None}


def test_without_git_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert checkout(Path(environment.__file__).parent) == {"commit": None, "dirty": None}


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("run --token s3cret --seed 1", "run --token *** --seed 1"),
        ("run --token=s3cret", "run --token=***"),
        ("--redis-url redis://me:s3cret@host/0", "--redis-url redis://***@host/0"),
        ("unix:///run/store.sock?password=s3cret&db=1", "unix:///run/store.sock?password=***&db=1"),
        ("--out runs/a@b", "--out runs/a@b"),
    ],
)
def test_command_is_shown_without_secrets(command: str, shown: str) -> None:
    assert masked(command.split()) == shown.split()


# ---- The store ----


async def test_store_tells_its_kind_version_and_durability(tmp_path: Path) -> None:
    embedded = await EmbeddedValkey.start(EmbeddedConfig(tmp_path, durability="always"))
    try:
        told = await store_settings(embedded.url)
    finally:
        await embedded.aclose()

    assert told is not None
    assert told["kind"] == "valkey"
    assert told["version"][0].isdigit()
    assert told["config"].keys() == set(SETTINGS)
    assert (told["config"]["appendonly"], told["config"]["appendfsync"]) == ("yes", "always")


async def test_store_that_cannot_be_asked_is_null(tmp_path: Path) -> None:
    assert await store_settings(f"unix://{tmp_path}/no.sock") is None
