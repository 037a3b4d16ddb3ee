"""From the kernel's monotonic clock to the wall clock, and from there to text."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from functools import lru_cache

SECOND = 1_000_000_000


def wall_offset() -> int:
    """Nanoseconds to add to CLOCK_MONOTONIC for wall time, as of now.

    The clock may be stepped and the host suspended: ask again for every batch. The wall clock is read between
    two readings of the monotonic one, and the tightest of three such pairs is taken.
    """
    return min(_reading() for _ in range(3))[1]


def _reading() -> tuple[int, int]:
    before = time.monotonic_ns()
    wall = time.time_ns()
    after = time.monotonic_ns()
    return after - before, wall - (before + after) // 2


@lru_cache(maxsize=64)
def _utc_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(time_ns: int) -> str:
    """RFC 3339, UTC, always nine decimals: sorts as text."""
    second, rest = divmod(time_ns, SECOND)
    return f"{_utc_second(second)}.{rest:09d}Z"
