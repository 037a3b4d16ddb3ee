"""All that a tracer has been told up to a moment, without ending it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytracecon.events import Event
    from pytracecon.tracer import Tracer

__all__ = ["told_so_far"]

_WITHIN = 1.0
_AGAIN = 0.01


def told_so_far(tracer: Tracer) -> Iterator[list[Event]]:
    """Batches, until everything that had happened when this was called was read.

    What a process did is in the ring before its system call returns. Records that are being written at this very
    moment, or are lost and not yet counted as such, are waited for, one second at most.
    """
    wanted = tracer.stats.wanted
    deadline = time.monotonic() + _WITHIN
    patience = 0.0
    behind = True
    while behind:
        batch = tracer.read(patience)
        if batch:
            yield batch
        stats = tracer.stats
        behind = stats.delivered + stats.lost_ring < wanted and time.monotonic() < deadline
        patience = _AGAIN
