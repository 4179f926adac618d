"""What the Merkle log costs: an entry sealed, proved and verified, against one plain hash of it.

Entries of 300 bytes, about what a Reserve of one line has.  Sealing includes every write, fsync and
signature; the files are in a temporary directory, so it is that disk which is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import perf_counter

from holdfast.proofs import verify_inclusion
from holdfast_bench.measure import Measurement, Plan, Row, take_turns
from holdfast_bench.stores import StoreAddress
from holdfast_server.ledger.log_reader import LogReader
from holdfast_server.ledger.log_verify import verify
from holdfast_server.ledger.log_writer import LogWriter
from holdfast_server.ledger.tiles import Tree, grow

LEAF_BYTES = 300
ENTRIES = 65_536
BATCHES = (256, 4_096)
HASH, TREE, VERIFY, PROVE, CHECK = "SHA-256", "tree", "verify", "prove", "check"


async def run(plan: Plan, _address: StoreAddress) -> list[Row]:
    """Measure microseconds an entry; no store has a part in it."""
    random = Random(1)
    leaves = [random.randbytes(LEAF_BYTES) for _ in range(ENTRIES)]
    with TemporaryDirectory() as home, writing(Path(home) / "kept") as kept:
        for start in range(0, ENTRIES, BATCHES[-1]):
            kept.append(leaves[start : start + BATCHES[-1]])
        works = _works(Path(home) / "kept", leaves)
        contestants = {name: _us_each(work, plan.seconds / 2) for name, work in works.items()}
        numbers = count()
        for size in BATCHES:
            contestants[f"seal {size}"] = _us_sealed(
                Path(home), leaves[:size], numbers, plan.seconds / 2
            )
        found = await take_turns(contestants, plan)
    names = {
        TREE: "entry hashed into the tree",
        **{f"seal {size}": f"entry sealed on disk, {size} a checkpoint" for size in BATCHES},
        VERIFY: f"entry of {ENTRIES} verified offline",
        PROVE: f"inclusion in {ENTRIES} proved from files",
        CHECK: "inclusion checked by the client",
    }
    return [
        Row(name, "", "us", found[key], found[HASH], "one SHA-256") for key, name in names.items()
    ]


def _works(log: Path, leaves: list[bytes]) -> dict[str, Callable[[], int]]:
    """Return what is measured on a log that stays as it is; each returns how much it did."""
    reader, indexes = LogReader(log), Random(2)
    known = reader.proof(ENTRIES // 3, 0, 0)
    assert known is not None

    def hash_all() -> int:
        for leaf in leaves:
            sha256(leaf).digest()
        return ENTRIES

    def verify_all() -> int:
        report = verify(log)
        assert not report.problems, report.problems
        return report.entries

    def prove() -> int:
        assert reader.proof(indexes.randint(1, ENTRIES), 0, 0)
        return 1

    def check() -> int:
        root, proof = known.root, known.inclusion
        verify_inclusion(known.leaf, known.leaf_index, known.size, root=root, proof=proof)
        return 1

    return {
        HASH: hash_all,
        TREE: lambda: grow(Tree(), leaves).tree.size,
        VERIFY: verify_all,
        PROVE: prove,
        CHECK: check,
    }


def _us_each(work: Callable[[], int], seconds: float) -> Measurement:
    async def measure() -> float:
        done, began = 0, perf_counter()
        while perf_counter() - began < seconds:
            done += work()
        return (perf_counter() - began) / done * 1e6

    return measure


def _us_sealed(
    home: Path, leaves: list[bytes], numbers: Iterator[int], seconds: float
) -> Measurement:
    async def measure() -> float:
        with writing(home / f"sealed {next(numbers)}") as log:
            began = perf_counter()
            while perf_counter() - began < seconds:
                log.append(leaves)
            return (perf_counter() - began) / log.size * 1e6

    return measure


@contextmanager
def writing(directory: Path) -> Iterator[LogWriter]:
    """Open a new log."""
    log = LogWriter(directory, directory.with_suffix(".key"), cell=0, stream="ledger")
    log.open()
    try:
        log.resume([])
        yield log
    finally:
        log.close()
