"""The events are what their documentation says, for whoever builds on them."""

from __future__ import annotations

from dataclasses import MISSING, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pytracecon
from pytracecon import clock, events
from pytracecon.events import (
    Accept,
    Close,
    Connect,
    ConnectionEvent,
    Established,
    Event,
    Existing,
    Failed,
    Flow,
    Lookup,
    Lost,
    Process,
    Reset,
    Retransmit,
    State,
)

CONNECTION = (
    "time_ns conn proto direction local_addr local_port remote_addr remote_port v4_mapped netns pid comm uid tid "
    "thread owner cgroup process host host_source host_candidates service nat pre_existing subflow_of partial "
)
OWN = {
    Connect: "fastopen",
    Established: "latency_ns syn_retransmits fastopen",
    Failed: "error reason latency_ns syn_retransmits",
    Accept: "wait_ns",
    Close: "duration_ns tx_bytes tx_acked rx_bytes retransmits rtt_ns ended",
    Existing: "state tx_bytes tx_acked rx_bytes retransmits rtt_ns",
    State: "old new in_old_ns meaning service_scheduler service_weight service_forwarding",
    Retransmit: "state segment segments meaning",
    Reset: "sent state",
    Flow: "tx_bytes rx_bytes tx_packets rx_packets duration_ns ended app",
}
LOOKUP = (
    "time_ns netns pid comm uid tid thread cgroup process name type addresses latency_ns result source server "
    "within partial"
)
KINDS = {**OWN, Lookup: "", Lost: ""}


@pytest.mark.parametrize("kind", OWN)
def test_fields_stand_in_the_order_of_the_documented_keys(kind: type[Event]) -> None:
    assert " ".join(field.name for field in fields(kind)) == CONNECTION + OWN[kind]


def test_a_lookup_belongs_to_a_process_and_to_no_connection() -> None:
    assert " ".join(field.name for field in fields(Lookup)) == LOOKUP
    assert all(getattr(Lookup(0), name) is None for name in LOOKUP.split()[1:])


@pytest.mark.parametrize("kind", [*OWN, Lookup])
def test_what_the_process_tells_is_told_by_its_event(kind: type[ConnectionEvent | Lookup]) -> None:
    known = Process("0" * 64, "web", "uid", "nginx.service", "/usr/sbin/nginx", "exec", ["nginx"], True, [1])
    required: dict[str, Any] = {} if kind is Lookup else {"conn": "0", "proto": "tcp", "direction": "out"}
    event = kind(0, **required, process=known)
    for field in fields(Process):
        assert getattr(event, field.name) == getattr(known, field.name) is not None
        assert getattr(kind(0, **required), field.name) is None


def test_a_loss_tells_how_much_where_and_between_when() -> None:
    assert [field.name for field in fields(Lost)] == ["time_ns", "count", "where", "from_ns", "to_ns"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_is_named_like_its_class(kind: type[Event]) -> None:
    assert kind.event == kind.__name__.lower()
    assert kind.__name__ in events.__all__
    assert getattr(pytracecon, kind.__name__) is kind


@pytest.mark.parametrize("kind", OWN)
def test_what_is_not_known_is_none(kind: type[ConnectionEvent]) -> None:
    event = kind(0, "00003fa2c18e0007", "tcp", "out")
    optional = [field.name for field in fields(kind) if field.default is not MISSING]
    assert optional == (CONNECTION + OWN[kind]).split()[4:]
    assert all(getattr(event, name) is None for name in optional)


@pytest.mark.parametrize("kind", KINDS)
def test_events_have_slots(kind: type[Event]) -> None:
    assert "__dict__" not in dir(kind)


def test_time_is_the_wall_clock_as_rfc3339_in_utc() -> None:
    assert Lost(1_795_161_009_123_456_789, 1, "ring").time == "2026-11-20T07:50:09.123456789Z"
    assert Lost(0, 1, "ring").time == "1970-01-01T00:00:00.000000000Z"


@given(st.integers(0, 4_102_444_800 * clock.SECOND))
def test_time_is_exact_to_the_nanosecond(moment: int) -> None:
    text = clock.rfc3339(moment)
    parsed = datetime.fromisoformat(text[:26] + "Z")
    assert (parsed - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) == moment // 1000
    assert text[26:] == f"{moment % 1000:03d}Z"
