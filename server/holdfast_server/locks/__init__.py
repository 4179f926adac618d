"""Leadership for what must run once.  Nothing here guards stock: the kernel's one script does.

    lock = Redlock(["redis://a", "redis://b", "redis://c"], "nightly-report", ttl_s=10.0)
    await Leadership("nightly-report", lock, claim).run(work)

`claim` fetches a fencing token, a number above every earlier one, from the very store that `work`
writes to, and that store refuses a lower token than the highest it has seen.  Without that fence
the lock makes two workers at once unlikely, and no more: a process may sleep past its lease.
"""

from holdfast_server.locks.leadership import Leadership, Work
from holdfast_server.locks.redlock import (
    Ended,
    LockMisconfigured,
    LockTaken,
    LockUnreachable,
    Redlock,
    Validity,
)

__all__ = [
    "Ended",
    "Leadership",
    "LockMisconfigured",
    "LockTaken",
    "LockUnreachable",
    "Redlock",
    "Validity",
    "Work",
]
