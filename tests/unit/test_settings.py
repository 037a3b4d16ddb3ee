"""What the kernel side is told. tests/kernel shows that it obeys."""

from __future__ import annotations

import struct
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon import settings, wire
from pytracecon.filters import Filters

NAMES = [name for name, form in wire.SETTINGS if not form.endswith("x")]


def told(filters: Filters, **choice: Any) -> dict[str, int]:
    packed = settings.settings(filters, **({"syn_hook": True, "attempt_hook": 1, "with_error": False} | choice))
    return dict(zip(NAMES, wire.layout(wire.SETTINGS).unpack(packed), strict=True))


def test_nothing_asked_means_everything_wanted() -> None:
    said = told(Filters())
    assert (said["filters"], said["family"], said["direction"], said["min_latency"]) == (0, 0, 0, 0)
    kinds = [wire.KINDS[name] for name in Filters().events - {"lookup"}]
    assert said["kinds"] == sum(1 << kind for kind in (*kinds, wire.OWNER_KINDS["process"]))


def test_nothing_is_told_of_processes_where_nobody_wants_to_know() -> None:
    assert not told(Filters(processes=False))["kinds"] >> wire.OWNER_KINDS["process"] & 1


@pytest.mark.parametrize(
    ("wanted", "names", "made"),
    [
        ({"close"}, True, {"close", "connect"}),
        ({"close", "lookup"}, True, {"close", "connect"}),
        ({"close", "established"}, True, {"close", "established"}),
        ({"close"}, False, {"close"}),
        ({"accept", "lookup"}, True, {"accept"}),
        ({"retransmit"}, True, {"retransmit", "connect"}),
        ({"state", "established"}, True, {"state", "established"}),
        ({"state"}, False, {"state"}),
    ],
)
def test_a_name_is_looked_for_when_the_connection_begins(wanted: set[str], names: bool, made: set[str]) -> None:
    assert settings.delivered(Filters(events=frozenset(wanted), names=names)) == made


@pytest.mark.parametrize(
    ("filters", "bit"),
    [
        (Filters(pids=(1,)), wire.BY_PID),
        (Filters(pids=(1,), children=True), wire.BY_PID | wire.BY_CHILDREN),
        (Filters(uids=(0,)), wire.BY_UID),
        (Filters(comms=(b"curl",)), wire.BY_COMM),
        (Filters(netns=(1,)), wire.BY_NETNS),
        (Filters(cgroups=(1,)), wire.BY_CGROUP),
        (Filters(remote_ports=((1, 2),)), wire.BY_REMOTE_PORT),
        (Filters(local_ports=((1, 2),)), wire.BY_LOCAL_PORT),
        (Filters(not_remote_ports=((1, 2),)), wire.BY_NOT_REMOTE_PORT),
        (Filters(remote=(ip_network("::1"),)), wire.BY_REMOTE),
        (Filters(local=(ip_network("::1"),)), wire.BY_LOCAL),
        (Filters(not_remote=(ip_network("::1"),)), wire.BY_NOT_REMOTE),
    ],
)
def test_each_filter_has_its_bit(filters: Filters, bit: int) -> None:
    assert told(filters)["filters"] == bit


def test_a_least_latency_leaves_what_has_none_out() -> None:
    said = told(Filters(min_latency_ns=5))
    assert said["min_latency"] == 5
    assert said["direction"] == settings.DIRECTIONS["out"]
    kinds = {name for name, number in wire.KINDS.items() if said["kinds"] >> number & 1}
    assert kinds == {"established", "failed", "close"}


@given(st.lists(st.tuples(st.integers(1, 65535), st.integers(0, 2000)), max_size=8))
def test_a_port_is_in_the_set_if_a_range_has_it(pairs: list[tuple[int, int]]) -> None:
    ranges = [(low, min(65535, low + more)) for low, more in pairs]
    words = struct.unpack("=1024Q", settings.port_set(ranges))
    members = {port for port in range(65536) if words[port >> 6] >> (port & 63) & 1}
    assert members == {port for low, high in ranges for port in range(low, high + 1)}


def longest_match(entries: list[tuple[bytes, bytes]], address: bytes) -> bool:
    """What the kernel's trie answers."""
    best, answer = -1, False
    for key, value in entries:
        bits, prefix = struct.unpack("=I16s", key)
        shift = 128 - bits
        same = int.from_bytes(prefix, "big") >> shift == int.from_bytes(address, "big") >> shift
        if same and bits > best:
            best, answer = bits, value != bytes(4)
    return answer


@pytest.mark.parametrize(
    "networks", [["::/0"], ["::fffe:0:0/95"], ["0.0.0.0/0"], ["::/0", "0.0.0.0/0"], ["::/64", "10.0.0.0/8"]]
)
@pytest.mark.parametrize("address", ["10.1.2.3", "192.168.0.1", "::1", "2001:db8::1"])
def test_a_prefix_means_its_own_family_only(networks: list[str], address: str) -> None:
    meant = [ip_network(each) for each in networks]
    host = ip_network(address)
    packed = host.network_address.packed
    wire_form = packed if host.version == 6 else bytes(10) + b"\xff\xff" + packed
    expected = any(each.version == host.version and host.network_address in each for each in meant)
    assert longest_match(list(settings.prefixes(meant)), wire_form) is expected


def test_members_are_keys_of_the_kernels_size() -> None:
    filters = Filters(pids=(7,), uids=(0,), comms=(b"a" * 15,), netns=(3,), cgroups=(1 << 40,))
    keys = list(settings.members(filters))
    assert {len(key) for key in keys} == {24}
    assert len(set(keys)) == 5
    assert settings.pid_member(7) in keys
