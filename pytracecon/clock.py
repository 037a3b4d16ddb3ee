"""From the kernel's monotonic clock to the wall clock, and from there to text."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

SECOND = 1_000_000_000
_AT_FIRST = 10

Bounds = tuple[int, int]


def between_two_readings() -> Bounds:
    """The least and the most that the offset can be: the wall clock is read between two readings of the other."""
    before = time.monotonic_ns()
    wall = time.time_ns()
    after = time.monotonic_ns()
    return wall - after, wall - before


class WallOffset:
    """Nanoseconds to add to CLOCK_MONOTONIC for wall time, as of the latest call.

    It is one number until the clock is stepped or the host suspended, since NTP slews both clocks alike: ask again for
    every batch. Each answer is the latest one, moved only as far as a new reading proves it wrong. So a reading that
    was interrupted changes nothing, and without a step no answer differs from another by more than the tightest of the
    first readings was wide.
    """

    def __init__(self, measure: Callable[[], Bounds] = between_two_readings) -> None:
        self._measure = measure
        least, most = min((measure() for _ in range(_AT_FIRST)), key=lambda bounds: bounds[1] - bounds[0])
        self._latest = (least + most) // 2

    def __call__(self) -> int:
        least, most = self._measure()
        self._latest = min(max(self._latest, least), most)
        return self._latest


wall_offset = WallOffset()
"""One for all tracers of this process: they agree about when something happened."""


@lru_cache(maxsize=64)
def _utc_second(second: int) -> str:
    from datetime import UTC, datetime  # noqa: PLC0415 - no start waits for it

    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def rfc3339(time_ns: int) -> str:
    """RFC 3339, UTC, always nine decimals: sorts as text."""
    second, rest = divmod(time_ns, SECOND)
    return f"{_utc_second(second)}.{rest:09d}Z"
