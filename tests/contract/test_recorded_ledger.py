"""A ledger that was recorded once is decided again the same by every kernel to come.

It has all kinds of entries, in batches of a few.  A kernel that decides old entries otherwise must
keep the old way beside the new one; this file is then recorded anew beside the old one, never in
its place: `python tests/contract/test_recorded_ledger.py FILE`.
"""

from __future__ import annotations

import sys
import zlib
from base64 import decodebytes, encodebytes
from collections import Counter
from pathlib import Path
from random import Random

import msgpack
import pytest

from holdfast_server.ledger.leaf import read_batch
from holdfast_server.ledger.origins import events_of
from holdfast_server.ledger.redeciding import Redecider
from holdfast_server.ledger.state import Fold, state_digest
from holdfast_server.model import Kind
from tests.contract.histories import Batch, History, opening, operation
from tests.recorded import recorded

FOLDER = Path(__file__).with_name("recorded_ledgers")
BATCHES = 1_500
KINDS = [kind for kind in Kind if kind <= Kind.SET_STOCK]


def record(file: Path) -> None:
    """Record a ledger with the kernel as it is now."""
    dice = Random(20)
    batches = [Batch(0, opening(units=60))]
    for _ in range(BATCHES):
        numbers = [dice.getrandbits(24) for _ in range(dice.randint(1, 9))]
        asked = tuple(operation(number, ids=40, units=60) for number in numbers)
        batches.append(Batch(dice.choice((0, 1, 20, 50)), asked))
    cell = recorded(History(60, 300, batches))
    digest = state_digest(cell.tables.items, cell.tables.holds)
    packed = msgpack.packb({"digest": digest, "batches": cell.tables.bodies})
    file.write_bytes(encodebytes(zlib.compress(packed, 9)))  # text, as all that is kept here


@pytest.mark.parametrize("file", sorted(FOLDER.iterdir()), ids=lambda file: file.stem)
def test_a_recorded_ledger_is_decided_again_the_same(file: Path) -> None:
    kept = msgpack.unpackb(zlib.decompress(decodebytes(file.read_bytes())))
    redecider, fold, kinds = Redecider(), Fold(), Counter[int]()
    for body in kept["batches"]:
        stored = read_batch(body)
        assert redecider.follow(stored) is None
        fold.take(stored)
        kinds.update(event.kind for event in events_of(stored))
    assert state_digest(*redecider.state()) == kept["digest"]
    assert state_digest(fold.rows, fold.holds) == kept["digest"]
    assert min(kinds[kind] for kind in KINDS) >= 5


if __name__ == "__main__":
    record(Path(sys.argv[1]))
