"""Records are packed here by the table that reads them; test_wire.py holds that table against the compiled object."""

from __future__ import annotations

import errno
from dataclasses import fields
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon import decode as decoding
from pytracecon import wire
from pytracecon.decode import decode
from pytracecon.events import (
    Accept,
    Close,
    Connect,
    ConnectionEvent,
    Endpoint,
    Established,
    Existing,
    Failed,
    Reset,
    Retransmit,
    State,
)
from pytracecon.translations import Translations

MAPPED = bytes(10) + b"\xff\xff"

CONN: dict[str, Any] = {
    "id": 0x00003FA2C18E0007,
    "subflow_of": 0,
    "cgroup": 4711,
    "born": 77,
    "process": 0,
    "netns": 4026531840,
    "pid": 1234,
    "tid": 1234,
    "uid": 1000,
    "local_addr": MAPPED + IPv4Address("10.0.0.5").packed,
    "remote_addr": MAPPED + IPv4Address("93.184.216.34").packed,
    "local_port": 41234,
    "remote_port": 443,
    "protocol": 1,
    "direction": 1,
    "owner": 1,
    "flags": 0,
    "comm": b"curl",
    "thread": b"",
}
TAILS: dict[str, dict[str, Any]] = {
    "connect": {},
    "established": {"latency": 12_310_000, "syn_retransmits": 0},
    "failed": {"latency": 410_000, "syn_retransmits": 2, "error": errno.ECONNREFUSED, "syn_left": 1},
    "accept": {"wait": 20_000},
    "close": {
        "duration": 1_100_000_000,
        "handshake": 12_310_000,
        "tx_bytes": 78,
        "tx_acked": 70,
        "rx_bytes": 1206,
        "rtt": 9_000_000,
        "retransmits": 1,
        "state": 8,
        "ended": 2,
    },
    "existing": {
        "tx_bytes": 78,
        "tx_acked": 78,
        "rx_bytes": 1206,
        "rtt": 9_000_000,
        "retransmits": 1,
        "state": 1,
        "ended": 0,
    },
    "state": {"in_old": 803_100_000, "error": 0, "from": 1, "to": 4},
    "retransmit": {"segments": 2, "segment": 1, "state": 1},
    "reset": {"sent": 0, "state": 8},
    "flow": {
        "duration": 5_000_000,
        "idle": 1_000,
        "tx_bytes": 512,
        "rx_bytes": 32_768,
        "tx_packets": 1,
        "rx_packets": 8,
        "ended": 7,
        "app": 1,
    },
}


def record(kind: str, *, time: int = 1_000, **changed: Any) -> bytes:
    number = wire.KINDS[kind]
    shape = wire.RECORD[number]
    header = {"time": time, "lost": 0, "cpu": 1, "kind": number, "words": shape.size // 8}
    parts = (*wire.HEADER, *wire.CONN, *wire.RECORDS[f"{kind}_event"])
    values = header | CONN | TAILS[kind] | changed
    return shape.pack(*(values[name] for name, form in parts if not form.endswith("x")))


def only(batch: bytes, offset_ns: int = 0) -> Any:
    (event,) = decode(batch, offset_ns)
    return event


def known(event: Any) -> dict[str, Any]:
    values = {each.name: getattr(event, each.name) for each in fields(event)}
    return {name: value for name, value in values.items() if value is not None}


COMMON = {
    "time_ns": 1_000,
    "conn": "00003fa2c18e0007",
    "proto": "tcp",
    "direction": "out",
    "local_addr": "10.0.0.5",
    "local_port": 41234,
    "remote_addr": "93.184.216.34",
    "remote_port": 443,
    "netns": 4026531840,
    "pid": 1234,
    "comm": "curl",
    "uid": 1000,
    "owner": "connect",
    "cgroup": 4711,
}


@pytest.mark.parametrize(
    ("kind", "expected", "own"),
    [
        ("connect", Connect, {}),
        ("established", Established, {"latency_ns": 12_310_000, "syn_retransmits": 0}),
        (
            "failed",
            Failed,
            {"error": "ECONNREFUSED", "reason": "refused", "latency_ns": 410_000, "syn_retransmits": 2},
        ),
        ("accept", Accept, {"wait_ns": 20_000}),
        (
            "close",
            Close,
            {
                "duration_ns": 1_100_000_000,
                "tx_bytes": 78,
                "tx_acked": 70,
                "rx_bytes": 1206,
                "retransmits": 1,
                "rtt_ns": 9_000_000,
                "ended": "remote_close",
            },
        ),
        (
            "existing",
            Existing,
            {
                "state": "ESTABLISHED",
                "tx_bytes": 78,
                "tx_acked": 78,
                "rx_bytes": 1206,
                "retransmits": 1,
                "rtt_ns": 9_000_000,
            },
        ),
        (
            "state",
            State,
            {"old": "ESTABLISHED", "new": "FIN_WAIT1", "in_old_ns": 803_100_000, "meaning": "closed_by_client"},
        ),
        ("retransmit", Retransmit, {"state": "ESTABLISHED", "segment": "data", "segments": 2}),
        ("reset", Reset, {"sent": False, "state": "CLOSE_WAIT"}),
    ],
)
def test_every_kind_says_what_was_written(kind: str, expected: type[ConnectionEvent], own: dict[str, Any]) -> None:
    event = only(record(kind))
    assert type(event) is expected
    assert event.event == kind
    assert known(event) == COMMON | own


def test_what_the_kernel_did_not_know_is_absent() -> None:
    texts = ("local_addr", "remote_addr", "comm", "thread")
    unknown: dict[str, Any] = {name: b"" if name in texts else 0 for name, _ in wire.CONN}
    unknown |= {"id": 1, "protocol": 1}
    event = only(record("close", **unknown, duration=0, rtt=0, ended=0))
    assert known(event) == {
        "time_ns": 1_000,
        "conn": "0000000000000001",
        "proto": "tcp",
        "direction": "unknown",
        "tx_bytes": 78,
        "tx_acked": 70,
        "rx_bytes": 1206,
        "retransmits": 1,
    }


def test_root_is_a_user_and_no_process_has_none() -> None:
    assert only(record("connect", uid=0)).uid == 0
    assert only(record("connect", uid=0, pid=0, tid=0)).uid is None


def test_the_thread_is_told_only_where_it_is_another() -> None:
    event = only(record("connect", tid=1240, thread=b"resolver"))
    assert (event.pid, event.comm, event.tid, event.thread) == (1234, "curl", 1240, "resolver")
    event = only(record("connect"))
    assert (event.tid, event.thread) == (None, None)


@pytest.mark.parametrize(
    ("flag", "name", "kind"),
    [
        (wire.V4_MAPPED, "v4_mapped", "connect"),
        (wire.PRE_EXISTING, "pre_existing", "close"),
        (wire.PARTIAL, "partial", "close"),
        (wire.FASTOPEN, "fastopen", "connect"),
        (wire.FASTOPEN, "fastopen", "established"),
    ],
)
def test_a_flag_is_true_or_absent(flag: int, name: str, kind: str) -> None:
    assert getattr(only(record(kind, flags=flag)), name) is True
    assert getattr(only(record(kind, flags=0xFF & ~flag)), name) is None


@pytest.mark.parametrize(
    ("code", "error", "reason"),
    [
        (errno.ECONNREFUSED, "ECONNREFUSED", "refused"),
        (errno.ECONNRESET, "ECONNRESET", "reset"),
        (errno.ETIMEDOUT, "ETIMEDOUT", "timeout"),
        (errno.EHOSTUNREACH, "EHOSTUNREACH", "unreachable"),
        (errno.ENETUNREACH, "ENETUNREACH", "unreachable"),
        (errno.EPERM, "EPERM", "denied"),
        (errno.EACCES, "EACCES", "denied"),
        (errno.EADDRNOTAVAIL, "EADDRNOTAVAIL", "no_address"),
        (errno.ENOBUFS, "ENOBUFS", None),
        (530, "530", None),
        (0, None, "cancelled"),
        (wire.ERROR_UNKNOWN, None, None),
    ],
)
def test_every_error_has_its_reason(code: int, error: str | None, reason: str | None) -> None:
    event = only(record("failed", error=code))
    assert (event.error, event.reason) == (error, reason)


def test_a_subflow_points_at_its_connection_whose_segments_are_the_subflows() -> None:
    assert only(record("close", subflow_of=7)).subflow_of == "0000000000000007"
    assert only(record("close", protocol=2)).retransmits is None
    assert only(record("close", protocol=2)).proto == "mptcp"


def test_where_an_earlier_connection_went_says_nothing_of_one_between_the_same_ends() -> None:
    shape = wire.layout(wire.HEADER, wire.TRANSLATION)
    ends = (CONN["local_addr"], CONN["remote_addr"], MAPPED + IPv4Address("10.0.0.7").packed, CONN["netns"])
    translation = shape.pack(1, 0, 0, wire.TRANSLATION_KIND, shape.size // 8, *ends, 41234, 443, 8443, 1, 6)
    first, second = record("state", **{"from": 7, "to": 2}), record("state", **{"from": 2, "to": 1})
    for beginning in (first, record("connect")):
        batch = translation + beginning + second + translation + second
        told = decode(batch, 0, translations=Translations(decoding.address))
        real = Endpoint("10.0.0.7", 8443)
        assert [event.service for event in told if isinstance(event, ConnectionEvent)] == [None, None, real]


def test_time_is_moved_to_the_wall_clock_and_durations_are_not() -> None:
    event = only(record("established", time=5), 1_795_166_000_000_000_000)
    assert event.time_ns == 1_795_166_000_000_000_005
    assert event.latency_ns == 12_310_000


@given(st.ip_addresses(v=6))
def test_an_ipv6_address_is_itself(address: IPv6Address) -> None:
    told = decoding.address(address.packed)
    if address.ipv4_mapped is None:
        assert told == (None if address == IPv6Address("::") else str(address))


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_told_as_ipv4(address: IPv4Address) -> None:
    assert decoding.address(MAPPED + address.packed) == (None if int(address) == 0 else str(address))


@given(st.binary(max_size=16))
def test_a_name_of_any_bytes_is_text_up_to_its_nul(raw: bytes) -> None:
    told = only(record("connect", comm=raw)).comm
    assert told is None or ("\0" not in told and told.encode("utf-8"))
    assert (told is None) == (raw == b"" or raw[0] == 0)


@given(st.lists(st.sampled_from(sorted(wire.KINDS)), max_size=50))
def test_a_batch_keeps_its_order(kinds: list[str]) -> None:
    batch = b"".join(record(kind, time=at + 1) for at, kind in enumerate(kinds))
    events = decode(memoryview(batch), 0)
    assert [(event.event, event.time_ns) for event in events] == [(kind, at + 1) for at, kind in enumerate(kinds)]
