"""What keeps a run from being made, as one tree; none of it is a measurement.

HarnessFault
+-- LimitTooLow         the system allows fewer descriptors or ports than the run needs
+-- TargetUnusable      nobody listens there, or not a stock service
+-- WorkerFault         a process of the generator or the embedded server failed
"""

from __future__ import annotations


class HarnessFault(Exception):
    """The harness could not do its work; exit status 1."""


class LimitTooLow(HarnessFault):
    """Names the limit, what it is, what the run needs, and how to raise it."""


class TargetUnusable(HarnessFault):
    """Names the target and what it did instead of answering."""


class WorkerFault(HarnessFault):
    """Names the process and its last words."""
