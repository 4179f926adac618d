"""Checkpoints: what a log commits to, as C2SP tlog-checkpoint in a C2SP signed-note.

The text has no time: the specification has no line for it, and who keeps checkpoints notes when
each came.  The one extension line that is ever signed names the log's next key (`NEXT_KEY`): it
stands in the note of a key rotation, so that the old key itself says whom to trust from then on.  A
mere second signature could not, since whoever holds a note can add one.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

NEXT_KEY = "holdfast-next-key "
NOTE_BYTES_MAX = 1 << 16
SIZE_DIGITS_MAX = 20
_ED25519 = b"\x01"
_DASH = "\u2014 "


class BadNote(ValueError):
    """Raised for what is no checkpoint, or is signed by no trusted key."""


class VerifierKey(NamedTuple):
    """Name and public key of who signs: `name+id+key`, as C2SP signed-note writes it."""

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """Return the four bytes that a signature names the key by."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_encode(_ED25519 + self.public)}"

    @classmethod
    def parse(cls, line: str) -> VerifierKey:
        """Return the key of a line.  Raises BadNote for what is none, or none of Ed25519."""
        name, _, rest = line.partition("+")
        key_id, _, key = rest.partition("+")
        raw = _decode(key)
        found = cls(name, raw[1:])
        if not _is_name(name) or raw[:1] != _ED25519 or len(raw) != 33:
            raise BadNote(f"not a verifier key: {line[:200]!r}")
        if key_id != found.key_id.hex():
            raise BadNote(f"verifier key {name} has another id than it says: {key_id[:16]!r}")
        return found


class Signer(NamedTuple):
    """Who signs."""

    name: str
    private: Ed25519PrivateKey

    @property
    def verifier(self) -> VerifierKey:
        """Return the key that checks its signatures."""
        return VerifierKey(self.name, self.private.public_key().public_bytes_raw())


class Checkpoint(NamedTuple):
    """The text of a checkpoint."""

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the text that is signed."""
        lines = (self.origin, str(self.size), _encode(self.root), *self.extensions)
        return "".join(f"{line}\n" for line in lines)


class Note(NamedTuple):
    """A signed text; a signature is the name and id of its key, and the signature itself."""

    text: str
    signatures: tuple[tuple[str, bytes, bytes], ...]

    def signers(self, keys: Iterable[VerifierKey]) -> list[VerifierKey]:
        """Return which of the keys signed it.  Raises BadNote for a signature that is wrong."""
        by_id = {(key.name, key.key_id): key for key in keys}
        found = []
        for name, key_id, signature in self.signatures:
            key = by_id.get((name, key_id))
            if key is None:
                continue
            try:
                Ed25519PublicKey.from_public_bytes(key.public).verify(signature, self.text.encode())
            except (InvalidSignature, ValueError):
                raise BadNote(f"the signature of {name}+{key_id.hex()} is wrong") from None
            found.append(key)
        return found


def signed(checkpoint: Checkpoint, signers: Sequence[Signer]) -> str:
    """Return a checkpoint as a note with a signature of each signer."""
    text = checkpoint.text()
    lines = [
        f"{_DASH}{signer.name} "
        f"{_encode(signer.verifier.key_id + signer.private.sign(text.encode()))}\n"
        for signer in signers
    ]
    return f"{text}\n{''.join(lines)}"


def read_note(raw: bytes) -> tuple[Checkpoint, Note]:
    """Return a checkpoint and its note, no signature checked yet.  Raises BadNote."""
    try:
        note = raw.decode()
    except UnicodeDecodeError:
        raise BadNote("is not UTF-8") from None
    if len(raw) > NOTE_BYTES_MAX or any(char < " " and char != "\n" for char in note):
        raise BadNote(f"is longer than {NOTE_BYTES_MAX} bytes, or has control characters")
    text, blank, rest = note.rpartition("\n\n")
    if not blank or not rest.endswith("\n"):
        raise BadNote("has no signatures, or is cut off")
    signatures = tuple(map(_signature, rest.removesuffix("\n").split("\n")))
    return _checkpoint(text), Note(text + "\n", signatures)


def _checkpoint(text: str) -> Checkpoint:
    origin, size, root, *extensions = [*text.split("\n"), "", ""]
    found = Checkpoint(
        origin,
        int(size) if size.isascii() and size.isdigit() and len(size) < SIZE_DIGITS_MAX else -1,
        _decode(root),
        tuple(extensions[:-2]),
    )
    if not origin or found.text() != f"{text}\n" or len(found.root) != 32 or not all(found[3]):
        raise BadNote("is no checkpoint: origin, size and root hash are not on its first lines")
    return found


def _signature(line: str) -> tuple[str, bytes, bytes]:
    name, _, signature = line.removeprefix(_DASH).partition(" ")
    raw = _decode(signature)
    if not line.startswith(_DASH) or not _is_name(name) or len(raw) < 5:
        raise BadNote(f"has a signature line that is none: {line[:80]!r}")
    return name, raw[:4], raw[4:]


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(map(str.isspace, name))


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decode(text: str) -> bytes:
    """Return the bytes of a base64 text; none for what is not, or not the only way to write it."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return b""
    return raw if _encode(raw) == text else b""
