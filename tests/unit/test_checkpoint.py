"""Checkpoints and their signatures, as C2SP has them."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from holdfast_server.ledger.checkpoint import (
    BadNote,
    Checkpoint,
    Signer,
    VerifierKey,
    read_note,
    signed,
)

SUMDB: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "sumdb.json").read_text(encoding="utf-8")
)
SIGNER = Signer("example.com/log", Ed25519PrivateKey.from_private_bytes(bytes(32)))
OTHER = Signer("example.com/log", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
CHECKPOINT = Checkpoint("example.com/log", 7, bytes(range(32)))
NOTE = signed(CHECKPOINT, [SIGNER])


def test_a_note_is_byte_for_byte_that_of_the_go_code() -> None:
    private = Ed25519PrivateKey.from_private_bytes(base64.b64decode(SUMDB["seed"]))
    signer = Signer("example.com/log", private)
    assert str(signer.verifier) == SUMDB["verifier"]
    root = base64.b64decode(SUMDB["roots"]["70000"])
    checkpoint = Checkpoint("example.com/log", 70_000, root)
    assert signed(checkpoint, [signer]) == SUMDB["note"]
    found, note = read_note(SUMDB["note"].encode())
    assert found == checkpoint
    assert note.signers([VerifierKey.parse(SUMDB["verifier"])]) == [signer.verifier]


def test_the_checkpoint_of_the_specification_is_read() -> None:
    text = (
        "example.com/behind-the-sofa\n20852163\n"
        "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "\u2014 example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeO"
        "oRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    )
    checkpoint, note = read_note(text.encode())
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert [name for name, _id, _signature in note.signatures] == [checkpoint.origin]


def test_extension_lines_and_several_signatures_are_kept() -> None:
    checkpoint = CHECKPOINT._replace(extensions=("one", "and another"))
    found, note = read_note(signed(checkpoint, [SIGNER, OTHER]).encode())
    assert found == checkpoint
    assert note.signers([OTHER.verifier, SIGNER.verifier]) == [SIGNER.verifier, OTHER.verifier]


def test_a_signature_of_an_unknown_key_counts_for_nothing() -> None:
    _checkpoint, note = read_note(signed(CHECKPOINT, [OTHER]).encode())
    assert note.signers([SIGNER.verifier]) == []
    renamed = SIGNER.verifier._replace(name="example.com/another")
    assert read_note(NOTE.encode())[1].signers([renamed]) == []


def test_a_wrong_signature_of_a_known_key_is_an_error() -> None:
    _checkpoint, note = read_note(NOTE.replace("\n7\n", "\n8\n").encode())
    with pytest.raises(BadNote, match=r"signature of example\.com/log.* is wrong"):
        note.signers([SIGNER.verifier])


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"example.com/log\n7\n",
        NOTE.rstrip("\n").encode(),
        NOTE.replace("\n7\n", "\n07\n").encode(),
        NOTE.replace("\n7\n", "\n-7\n").encode(),
        NOTE.replace("\n7\n", "\n\u0667\n").encode(),
        NOTE.replace("\n7\n", "\n" + "7" * 5000 + "\n").encode(),
        NOTE.replace("\n7\n", "\n").encode(),
        NOTE.replace("AAEC", "AAE").encode(),
        NOTE.replace("\u2014", "-").encode(),
        NOTE.replace("\n", "\r\n").encode(),
        NOTE.encode() + b"more\n",
        NOTE.encode() + bytes(1 << 16),
    ],
)
def test_what_is_no_checkpoint_is_refused(raw: bytes) -> None:
    with pytest.raises(BadNote):
        read_note(raw)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "name",
        "a name+00000000+" + "A" * 44,
        str(SIGNER.verifier)[:-4],
        str(SIGNER.verifier).replace("example", "examplf"),
        str(SIGNER.verifier).replace("+AT", "+BT"),
    ],
)
def test_what_is_no_verifier_key_is_refused(line: str) -> None:
    with pytest.raises(BadNote, match="verifier key"):
        VerifierKey.parse(line)


def test_every_flipped_bit_of_a_note_is_noticed() -> None:
    raw = NOTE.encode()
    for bit in range(len(raw) * 8):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            checkpoint, note = read_note(bytes(flipped))
        except BadNote:
            continue
        try:
            assert note.signers([SIGNER.verifier]) == [], (bit, checkpoint)
        except BadNote:
            continue
