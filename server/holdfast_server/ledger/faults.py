"""Why the archive cannot take what the store says, or cannot be used at all.

None of these reaches a caller: whoever archives logs it, stops, and tries again.  An archive that
is only out of reach raises StoreUnavailable, as a store does.
"""

from __future__ import annotations


class ArchiveFault(Exception):
    """Root of what keeps the archive from going on."""


class ArchiveUnusable(ArchiveFault):
    """It is no archive, of a newer schema, or not where the setting says."""


class EntryDamaged(ArchiveFault):
    """An entry of the store's ledger cannot be read."""


class ArchiveGap(ArchiveFault):
    """Entries are missing between what is archived and what the store still has."""


class ArchiveConflict(ArchiveFault):
    """The store's history is another one than the archived."""


class ArchivePurged(ArchiveFault):
    """What is asked for is gone by its retention; `first` is the oldest sequence that is left."""

    def __init__(self, first: int) -> None:
        super().__init__(f"entries before {first} are gone by their retention")
        self.first = first
