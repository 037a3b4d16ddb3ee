"""What is open right now: the list that `Tracer.snapshot()` gives."""

from __future__ import annotations

from pytracecon.connections import Connection

__all__ = ["Snapshot"]


class Snapshot(list[Connection]):
    """Connections, listeners and UDP conversations as they stood at `time_ns`, and what ended since the one before.

    `left_out` more did not fit into the limit. `elapsed_ns` is the time since the snapshot before, over which the
    rates are taken; of the first there are none.
    """

    def __init__(
        self, rows: list[Connection], *, time_ns: int, elapsed_ns: int | None = None, left_out: int = 0
    ) -> None:
        super().__init__(rows)
        self.time_ns = time_ns
        self.elapsed_ns = elapsed_ns
        self.left_out = left_out
