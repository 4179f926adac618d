"""Values that cross the rooms of the house: operations in, outcomes and ledger entries out.

All are immutable and hold only the standard library's types.  Quantities are whole units, times
are milliseconds since the Unix epoch, intervals are milliseconds.
"""

from holdfast_server.model.ledger import (
    Head,
    Kind,
    LedgerEntry,
    Movement,
    Position,
)
from holdfast_server.model.operations import (
    DEFAULT_LOCATION,
    LINES_MAX,
    SKUS_MAX,
    UNITS_MAX,
    AdjustStock,
    Caller,
    Commit,
    Context,
    Extend,
    GetReservation,
    GetStock,
    Line,
    Operation,
    Policy,
    PutItem,
    Release,
    Reserve,
    SetStock,
    weight,
)
from holdfast_server.model.outcomes import (
    BatchResult,
    Code,
    Outcome,
    RefusedLine,
)
from holdfast_server.model.stock import (
    ChannelQuota,
    Item,
    LateCommit,
    Level,
    LocationStock,
    Reservation,
    ReservedLine,
    State,
)

__all__ = [
    "DEFAULT_LOCATION",
    "LINES_MAX",
    "SKUS_MAX",
    "UNITS_MAX",
    "AdjustStock",
    "BatchResult",
    "Caller",
    "ChannelQuota",
    "Code",
    "Commit",
    "Context",
    "Extend",
    "GetReservation",
    "GetStock",
    "Head",
    "Item",
    "Kind",
    "LateCommit",
    "LedgerEntry",
    "Level",
    "Line",
    "LocationStock",
    "Movement",
    "Operation",
    "Outcome",
    "Policy",
    "Position",
    "PutItem",
    "RefusedLine",
    "Release",
    "Reservation",
    "Reserve",
    "ReservedLine",
    "SetStock",
    "State",
    "weight",
]
