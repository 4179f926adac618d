"""Who calls: by token with a principals file, by word without one."""

from hashlib import sha256
from pathlib import Path

import pytest

from holdfast_server.config import ConfigError
from holdfast_server.errors import InvalidArgument, NotOwner, Unauthenticated
from holdfast_server.model import Caller
from holdfast_server.rpc.identity import Identities, Principal, Role, load_principals

AGENTS = frozenset({Role.AGENT})


def hashed(token: str) -> str:
    return sha256(token.encode()).hexdigest()


CLOSED = Identities(
    [
        Principal("checkout", Role.AGENT, hashed("agent-token")),
        Principal("warehouse", Role.CONNECTOR, hashed("connector-token")),
        Principal("ops", Role.OPERATOR, hashed("operator-token")),
    ]
)


def bearer(token: str) -> list[tuple[str, str | bytes]]:
    return [("authorization", f"Bearer {token}")]


def test_open_mode_takes_the_caller_at_its_word() -> None:
    caller = Identities().caller([("holdfast-principal", "agent-7")], AGENTS)

    assert Caller("agent-7") == caller


def test_open_mode_without_a_word_is_anonymous_and_no_operator() -> None:
    assert Caller("anonymous", is_operator=False) == Identities().caller(None, AGENTS)


def test_open_mode_refuses_a_name_it_could_not_store() -> None:
    with pytest.raises(InvalidArgument, match="holdfast-principal"):
        Identities().caller([("holdfast-principal", "a\x1db")], AGENTS)


def test_known_token_names_its_principal() -> None:
    assert Caller("checkout") == CLOSED.caller(bearer("agent-token"), AGENTS)


def test_operator_may_call_everything() -> None:
    assert Caller("ops", is_operator=True) == CLOSED.caller(bearer("operator-token"), AGENTS)


def test_role_that_does_not_reach_is_refused() -> None:
    with pytest.raises(NotOwner, match="connector"):
        CLOSED.caller(bearer("connector-token"), AGENTS)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [("holdfast-principal", "checkout")],
        [("authorization", "agent-token")],
        bearer("other"),
    ],
)
def test_without_a_good_token_nobody_passes(
    metadata: list[tuple[str, str | bytes]] | None,
) -> None:
    with pytest.raises(Unauthenticated):
        CLOSED.caller(metadata, AGENTS)


def test_principals_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "principals.toml"
    file.write_text(f'[principals.ops]\ntoken_sha256 = "{hashed("t")}"\nrole = "operator"\n')

    assert [Principal("ops", Role.OPERATOR, hashed("t"))] == load_principals(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "principals.NAME"),
        ("[other]\nx = 1", "nothing else"),
        ("[principals.ops]\nrole = 'operator'", "token_sha256"),
        ("[principals.ops]\nrole = 'operator'\ntoken_sha256 = 'abc'", "64 lower-case"),
        (f"[principals.ops]\nrole = 'king'\ntoken_sha256 = '{hashed('t')}'", "one of agent"),
        ("[principals", "principals.toml"),
    ],
)
def test_bad_principals_file_is_refused_by_name(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "principals.toml"
    file.write_text(text)

    with pytest.raises(ConfigError, match=words):
        load_principals(file)
