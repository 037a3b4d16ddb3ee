"""The way from the monotonic clock to the wall clock: steady while nobody sets it, and followed when somebody does."""

from __future__ import annotations

import itertools
import time

from hypothesis import given
from hypothesis import strategies as st

from pytracecon.clock import SECOND, Bounds, WallOffset, between_two_readings

OFFSETS = st.integers(-(10**10) * SECOND, 10**10 * SECOND)
PAUSES = st.tuples(st.integers(0, SECOND), st.integers(0, SECOND))
"""How long a reading was held up on either side of the wall clock's: interrupts, a virtual processor that waits."""


def reading(offset: int, pauses: tuple[int, int]) -> Bounds:
    return offset - pauses[1], offset + pauses[0]


@given(OFFSETS, st.lists(PAUSES, min_size=10, max_size=10), st.lists(PAUSES))
def test_readings_that_were_held_up_move_nothing_while_the_clock_is_not_set(
    offset: int, first: list[tuple[int, int]], later: list[tuple[int, int]]
) -> None:
    readings = iter([reading(offset, pauses) for pauses in first + later])
    wall_offset = WallOffset(lambda: next(readings))
    answers = [wall_offset() for _ in later]
    tightest = min(map(sum, first))
    assert all(abs(one - other) <= tightest for one, other in itertools.combinations(answers, 2))
    assert all(abs(answer - offset) <= tightest for answer in answers)
    errors = [abs(answer - offset) for answer in answers]
    assert errors == sorted(errors, reverse=True), "every answer is at least as good as the one before"


@given(OFFSETS, OFFSETS, PAUSES)
def test_a_clock_that_was_set_is_followed_at_once(before: int, after: int, pauses: tuple[int, int]) -> None:
    readings = itertools.chain([reading(before, (50, 50))] * 10, [reading(after, pauses)])
    wall_offset = WallOffset(lambda: next(readings))
    assert abs(wall_offset() - after) <= sum(pauses) + 50


def test_it_leads_from_one_real_clock_to_the_other() -> None:
    wall_offset = WallOffset()
    for _ in range(100):
        least, most = between_two_readings()
        assert least - SECOND // 1000 <= wall_offset() <= most + SECOND // 1000
    assert abs(time.monotonic_ns() + wall_offset() - time.time_ns()) < SECOND
