"""What the kernel side is told before it is loaded: `Filters` as the bytes of bpf/settings.h."""

from __future__ import annotations

import struct
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from pytracecon import wire
from pytracecon.probes import WATCHED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pytracecon.filters import Filters
    from pytracecon.filters.networks import Network
    from pytracecon.filters.ports import PortRange

DIRECTIONS = {None: 0, "out": 1, "in": 2}
WAKE_SHARE = 8
"""A napping reader is woken when this part (one in so many) of the ring is unread."""

_MAPPED = bytes(10) + b"\xff\xff"
_MAPPED_NETWORK = IPv6Network("::ffff:0:0/96")


def settings(filters: Filters, *, syn_hook: int, attempt_hook: int, with_error: bool) -> bytes:
    """struct settings."""
    direction = "out" if filters.min_latency_ns else filters.direction
    return wire.layout(wire.SETTINGS).pack(
        filters.min_latency_ns,
        _bits(filters),
        sum(1 << wire.KINDS[name] for name in delivered(filters))
        | filters.processes << wire.OWNER_KINDS["process"]
        | (filters.names and "flow" in filters.events) << wire.BEGINNING_KIND,
        filters.ring_size // WAKE_SHARE,
        filters.family or 0,
        DIRECTIONS[direction],
        syn_hook,
        attempt_hook,
        with_error,
    )


def delivered(filters: Filters) -> frozenset[str]:
    """The events that the kernel side makes; `lookup` is made of other records."""
    events = filters.events - {"lookup"}
    if filters.min_latency_ns:
        # Only an outbound handshake has a latency; what has none is not slower than anything.
        events -= {"connect", "accept", "existing", "flow", *WATCHED}
    if filters.names and events & {"close", *WATCHED} and not events & {"connect", "established"}:
        # Later a connection's name may be long forgotten, or be a younger one: it is looked up at the beginning.
        events |= {"connect"}
    return events


def _bits(filters: Filters) -> int:
    values = {
        wire.BY_PID: filters.pids,
        wire.BY_UID: filters.uids,
        wire.BY_COMM: filters.comms,
        wire.BY_NETNS: filters.netns,
        wire.BY_CGROUP: filters.cgroups,
        wire.BY_REMOTE_PORT: filters.remote_ports,
        wire.BY_LOCAL_PORT: filters.local_ports,
        wire.BY_NOT_REMOTE_PORT: filters.not_remote_ports,
        wire.BY_REMOTE: filters.remote,
        wire.BY_LOCAL: filters.local,
        wire.BY_NOT_REMOTE: filters.not_remote,
        wire.BY_CHILDREN: filters.children,
        wire.BY_CGROUPMAP: filters.cgroupmap,
        wire.BY_MNTNSMAP: filters.mntnsmap,
    }
    return sum(bit for bit, value in values.items() if value)


def u32(number: int) -> bytes:
    """A __u32 of C, as keys and values of maps have it."""
    return struct.pack("=I", number)


def _member(which: int, value: bytes) -> bytes:
    return struct.pack("=I4x16s", which, value)


def members(filters: Filters) -> Iterator[bytes]:
    """struct filter_key of everything that is compared for equality."""
    for which, form, numbers in (
        (wire.BY_PID, "=I", filters.pids),
        (wire.BY_UID, "=I", filters.uids),
        (wire.BY_NETNS, "=I", filters.netns),
        (wire.BY_CGROUP, "=Q", filters.cgroups),
    ):
        for number in numbers:
            yield _member(which, struct.pack(form, number))
    for comm in filters.comms:
        yield _member(wire.BY_COMM, comm)


def pid_member(pid: int) -> bytes:
    return _member(wire.BY_PID, u32(pid))


def port_set(ranges: Iterable[PortRange]) -> bytes:
    """struct port_set: a bit a port."""
    bits = 0
    for low, high in ranges:
        bits |= (1 << high + 1) - (1 << low)
    return b"".join(struct.pack("=Q", bits >> shift & 0xFFFF_FFFF_FFFF_FFFF) for shift in range(0, 65536, 64))


def prefixes(networks: Iterable[Network]) -> Iterator[tuple[bytes, bytes]]:
    """struct prefix_key and its value: 1 for what is meant, 0 for what an IPv6 prefix covers and does not mean."""
    v4_meant = False
    v6_covers_v4 = False
    for network in networks:
        raw = network.network_address.packed
        if isinstance(network, IPv4Network):
            v4_meant |= network.prefixlen == 0
            yield struct.pack("=I16s", 96 + network.prefixlen, _MAPPED + raw), u32(1)
        else:
            v6_covers_v4 |= _MAPPED_NETWORK.subnet_of(network)
            yield struct.pack("=I16s", network.prefixlen, raw), u32(1)
    if v6_covers_v4 and not v4_meant:
        yield struct.pack("=I16s", 96, _MAPPED), u32(0)
