"""The key that signs a log's checkpoints, and its history.

`log_key` holds the private key alone.  Beside the log stand `keys`, its public keys as one verifier
key a line, the oldest first, and for each change of key a note in `rotations/N`: the checkpoint of
that moment, signed by the old key and the new, that names the new one.  So who trusts any of the
keys can follow to the newest.

The name of a log is made of its first key once, and stays: `holdfast/cCELL/ID`, of another stream
than the ledger with its name behind.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from holdfast.proofs import EMPTY_ROOT
from holdfast_server.ledger.checkpoint import (
    NEXT_KEY,
    BadNote,
    Checkpoint,
    Signer,
    VerifierKey,
    read_note,
    signed,
)
from holdfast_server.ledger.log_files import LogFiles

KEYS = "keys"
CHECKPOINT = "checkpoint"
OTHERS = 0o077  # permissions that nobody but the owner may have


class KeyFault(RuntimeError):
    """Raised when a log cannot be signed with the key there is."""


def load_key(path: Path) -> Ed25519PrivateKey:
    """Return the private key in a file.  Raises KeyFault, naming the file and what is wrong."""
    try:
        mode = path.stat().st_mode
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as fault:
        raise KeyFault(f"log_key {path} cannot be read: {fault}") from fault
    if mode & OTHERS:
        raise KeyFault(f"log_key {path} is open to others, mode {mode & 0o777:04o}: chmod 600")
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFault(f"log_key {path} holds a key of another kind than Ed25519")
    return key


def make_key(path: Path) -> Ed25519PrivateKey:
    """Put a new private key into a file that is not there yet.

    Raises KeyFault when it cannot be written, or another process was first.
    """
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-") as file:  # mode 0600
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
            os.link(file.name, path)  # unlike a rename, never over a key that is there
    except OSError as fault:
        raise KeyFault(f"log_key {path} cannot be written: {fault}") from fault
    return key


def read_keys(files: LogFiles) -> list[VerifierKey]:
    """Return the public keys of a log, the oldest first.  Raises BadNote for a bad line."""
    try:
        *lines, rest = (files.read(KEYS) or b"").decode().split("\n")
    except UnicodeDecodeError:
        raise BadNote(f"{KEYS} is not UTF-8") from None
    if rest:
        raise BadNote(f"{KEYS} is cut off within a line")
    return [VerifierKey.parse(line) for line in lines]


def signer_of(files: LogFiles, key_file: Path, *, cell: int, stream: str) -> Signer:
    """Return who signs a log, making key and name on the first start.

    Raises KeyFault, also for a key that is not the log's newest; BadNote for a damaged `keys`.
    """
    keys = read_keys(files)
    if keys and not key_file.exists():
        raise KeyFault(f"log_key {key_file} is gone, which signs {keys[-1].name}: restore it")
    key = load_key(key_file) if key_file.exists() else make_key(key_file)
    public = key.public_key().public_bytes_raw()
    if not keys:
        name = f"holdfast/c{cell}/{sha256(public).hexdigest()[:16]}"
        keys = [VerifierKey(name if stream == "ledger" else f"{name}/{stream}", public)]
        _write_keys(files, keys)
    if keys[-1].public != public:
        raise KeyFault(
            f"log_key {key_file} is not the newest key of {files.root}, {keys[-1]}: "
            "restore that one, or end a rotation with `holdfast audit rotate-key`"
        )
    return Signer(keys[-1].name, key)


def rotate(logs: Iterable[Path], key_file: Path) -> list[VerifierKey]:
    """Change the key of some logs that are signed with one; return their new public keys.

    Safe to repeat after a crash.  A server that runs signs with the new key from the next second
    on.  The old private key is gone then: nothing needs it any more.  Raises KeyFault, BadNote,
    OSError.
    """
    old, coming = load_key(key_file), key_file.with_name(f"{key_file.name}.next")
    new = load_key(coming) if coming.exists() else make_key(coming)
    found = [_hand_over(LogFiles(log, scratch=".rotating"), old, new) for log in logs]
    coming.replace(key_file)
    return found


def _hand_over(files: LogFiles, old: Ed25519PrivateKey, new: Ed25519PrivateKey) -> VerifierKey:
    keys = read_keys(files)
    if not keys:
        raise KeyFault(f"{files.root} has no keys: it is no log")
    name = keys[0].name
    before, after = Signer(name, old), Signer(name, new)
    if keys[-1] == after.verifier:
        return keys[-1]
    if keys[-1] != before.verifier:
        raise KeyFault(f"log_key is not the newest key of {files.root}, {keys[-1]}")
    raw = files.read(CHECKPOINT)
    size, root = 0, EMPTY_ROOT
    if raw is not None:
        checkpoint, note = read_note(raw)
        if checkpoint.origin != name or not note.signers(keys):
            raise KeyFault(f"the checkpoint of {files.root} is signed by none of its keys")
        size, root = checkpoint.size, checkpoint.root
    bridge = Checkpoint(name, size, root, (f"{NEXT_KEY}{after.verifier}",))
    files.put(f"rotations/{len(keys)}", signed(bridge, [before, after]).encode())
    _write_keys(files, [*keys, after.verifier])
    return after.verifier


def _write_keys(files: LogFiles, keys: Iterable[VerifierKey]) -> None:
    files.put(KEYS, "".join(f"{key}\n" for key in keys).encode())
