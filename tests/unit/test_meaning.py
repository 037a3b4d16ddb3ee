"""One word of what happened: as an observer of both ends would put it."""

from __future__ import annotations

import errno

import pytest

from pytracecon.decode import STATES
from pytracecon.meaning import of_retransmit, of_state


@pytest.mark.parametrize(
    ("direction", "change", "error", "meaning"),
    [
        ("out", "CLOSE SYN_SENT", 0, "open"),
        ("in", "LISTEN SYN_RECV", 0, "open"),
        ("out", "SYN_SENT CLOSE", errno.ECONNREFUSED, "refused"),
        ("out", "SYN_SENT CLOSE", 0, "gave_up"),
        ("out", "SYN_SENT CLOSE", errno.ETIMEDOUT, "gave_up"),
        ("out", "ESTABLISHED FIN_WAIT1", 0, "closed_by_client"),
        ("in", "ESTABLISHED FIN_WAIT1", 0, "closed_by_server"),
        ("out", "ESTABLISHED CLOSE_WAIT", 0, "closed_by_server"),
        ("in", "ESTABLISHED CLOSE_WAIT", 0, "closed_by_client"),
        ("out", "ESTABLISHED CLOSE", errno.ECONNRESET, "closed_by_server"),
        ("in", "ESTABLISHED CLOSE", errno.ECONNRESET, "closed_by_client"),
        ("out", "ESTABLISHED CLOSE", 0, "closed_by_client"),
        ("in", "ESTABLISHED CLOSE", errno.ECONNABORTED, "closed_by_server"),
        ("out", "ESTABLISHED CLOSE", errno.ETIMEDOUT, None),
        ("unknown", "ESTABLISHED FIN_WAIT1", 0, None),
        ("out", "SYN_SENT ESTABLISHED", 0, None),
        ("out", "CLOSE_WAIT LAST_ACK", 0, None),
    ],
)
def test_a_change_of_state_means_something(direction: str, change: str, error: int, meaning: str | None) -> None:
    old, new = change.split()
    assert {old, new} <= set(STATES)
    assert of_state(direction, old, new, error) == meaning


def test_a_syn_that_is_sent_again_is_slow() -> None:
    assert of_retransmit("syn") == "slow_establishing"
    assert [of_retransmit(segment) for segment in ("synack", "data", "fin", None)] == [None] * 4
