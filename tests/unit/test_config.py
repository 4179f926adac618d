"""Settings: where they come from, which one wins, and what is wrong with the others."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from holdfast_server.config import ConfigError, ServerConfig, described, load


def test_every_setting_has_a_default_that_keeps_its_limits() -> None:
    assert load({}, environment={}) == ServerConfig()


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text('lanes = 3\nworkers = 3\nlog_level = "error"\n')
    config = load(
        {"lanes": 5}, environment={"HOLDFAST_LANES": "4", "HOLDFAST_WORKERS": "4"}, file=file
    )
    assert (config.lanes, config.workers, config.log_level) == (5, 4, "error")


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("Yes", True), ("false", False), ("0", False)]
)
def test_the_environment_says_true_and_false_in_words(text: str, value: bool) -> None:
    assert load(environment={"HOLDFAST_REFLECTION": text}).reflection is value


def test_an_unknown_flag_is_an_error() -> None:
    with pytest.raises(ConfigError, match="flags: unknown setting 'lane'"):
        load({"lane": 2}, environment={})


def test_an_unknown_variable_is_an_error() -> None:
    with pytest.raises(ConfigError, match="environment: unknown setting 'lane'"):
        load(environment={"HOLDFAST_LANE": "2"})


def test_an_unknown_key_of_the_file_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text("lane = 2\n")
    with pytest.raises(ConfigError, match=r"holdfast\.toml: unknown setting 'lane'"):
        load(environment={}, file=file)


def test_variables_of_the_client_and_of_other_programs_are_left_alone() -> None:
    environment = {"HOLDFAST_TARGET": "h:1", "HOLDFAST_TOKEN": "t", "PATH": "/bin"}
    assert load(environment=environment) == ServerConfig()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"workers": 0}, "workers must be at least 1, not 0"),
        ({"workers": 65}, "workers must be at most 64, not 65"),
        (
            {"checkpoint_export": "command:"},
            "checkpoint_export must name a program after command:, not 'command:'",
        ),
        (
            {"checkpoint_export": "command:put '"},
            'checkpoint_export must name a program after command:, not "command:put \'"',
        ),
        ({"retention_ms": 999}, "retention_ms must be at least 1000, not 999"),
        (
            {"durability": "never"},
            "durability must be one of memory, second, always, archived, not 'never'",
        ),
        (
            {"durability": "archived", "archive": "off"},
            "durability archived needs an archive, and archive is off",
        ),
        ({"lanes": "two"}, "flags: lanes must be a whole number, not 'two'"),
        ({"lanes": 2.0}, "flags: lanes must be of type int"),
        ({"lanes": True}, "flags: lanes must be of type int"),
        ({"reflection": "maybe"}, "flags: reflection must be true or false, not 'maybe'"),
        ({"listen": 7420}, "flags: listen must be of type str"),
        ({"load_high_ms": 0}, "load_high_ms must be at least 1, not 0"),
        (
            {"load_overloaded_ms": 250},
            "load_overloaded_ms must be above load_high_ms, 250, or 0, not 250",
        ),
        (
            {"load_high_ms": 1_500},
            "load_overloaded_ms must be above load_high_ms, 1500, or 0, not 1000",
        ),
    ],
)
def test_a_bad_value_names_the_setting_and_its_limit(flags: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(flags, environment={})
    assert str(caught.value) == words


def test_a_server_may_be_told_never_to_shed_load() -> None:
    config = load({"load_high_ms": 5_000, "load_overloaded_ms": 0}, environment={})
    assert (config.load_high_ms, config.load_overloaded_ms) == (5_000, 0)


@pytest.mark.parametrize("content", [b"lanes = ", b"lanes = \xff", b"[lanes]\nx = 1\n"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"holdfast\.toml"):
        load(environment={}, file=file)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml"):
        load(environment={}, file=tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:s3cret@host:6380/1", "redis://user:***@host:6380/1"),
        ("redis://:s3cret@host", "redis://:***@host"),
        ("unix://:s3cret@/run/redis.sock", "unix://:***@/run/redis.sock"),
        ("redis://host/0?password=s3cret&db=1", "redis://host/0?password=***&db=1"),
        ("redis://host:6379", "redis://host:6379"),
        ("", ""),
    ],
)
def test_a_password_is_masked_wherever_the_url_has_it(url: str, shown: str) -> None:
    assert ServerConfig(redis_url=url).shown()["redis_url"] == shown


def test_everything_that_is_no_secret_is_shown_as_it_is() -> None:
    config = ServerConfig(lanes=7, data="/srv/holdfast")
    expected = {setting.name: getattr(config, setting.name) for setting in fields(config)}
    assert config.shown() == expected


def test_every_setting_is_described() -> None:
    assert [name for name, _default, _metadata in described()] == [
        setting.name for setting in fields(ServerConfig)
    ]
    assert all(metadata["description"] for _name, _default, metadata in described())
