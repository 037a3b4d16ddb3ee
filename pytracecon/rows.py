"""From the rows that a snapshot's iterators wrote to connections, and whose other end is here too.

Pure, and in one pass without a call that can be spared: a busy host has tens of thousands of them, and some look at all
of them every second.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pytracecon import wire
from pytracecon.clock import SECOND
from pytracecon.connections import Connection
from pytracecon.decode import APPS, DIRECTIONS, OWNERS, PROTOCOLS, STATES, address, name
from pytracecon.translations import raw

if TYPE_CHECKING:
    from pytracecon.events import Process
    from pytracecon.names.joiner import Joiner
    from pytracecon.owners.processes import Owners
    from pytracecon.translations import Translations

__all__ = ["Before", "Counts", "Listed", "Rows"]

Counts = tuple[int, int, int]
"""Bytes sent and received, and when they were counted, by the kernel's clock."""

Rates = tuple[float | None, float | None]

_AT = [name for name, _ in wire.CONN].index
_PROCESS = wire.layout(wire.CONN[_AT("cgroup") : _AT("local_addr")])
_NAMES = wire.layout(wire.CONN[_AT("protocol") :])
_FIRST, _, _COUNTS, _LAST = wire.ROW
_ROW = wire.layout(
    _FIRST,
    wire.CONN[: _AT("cgroup")],
    (("process", f"{_PROCESS.size}s"),),
    wire.CONN[_AT("local_addr") : _AT("protocol")],
    (("names", f"{_NAMES.size}s"),),
    _COUNTS,
    _LAST,
)
_TOTALS, _QUEUES, _BACKLOG, _HELD, _PACKETS = (
    wire.ROW_TOTALS,
    wire.ROW_QUEUES,
    wire.ROW_BACKLOG,
    wire.ROW_HELD,
    wire.ROW_PACKETS,
)
_OWNER = _AT("owner") - _AT("protocol")
_LISTEN = OWNERS.index("listen")
_LISTENING = STATES.index("LISTEN")
_SYN_SENT = STATES.index("SYN_SENT")
_LOOPBACK = bytes(10) + b"\xff\xff\x7f", bytes(15) + b"\x01"
_BIG_ENDIAN = struct.Struct(">Q").pack

Ends = tuple[int | None, str, bytes, int, bytes, int]
"""Network namespace, protocol, local address and port, remote address and port."""


@dataclass(frozen=True, slots=True)
class Before:
    """The snapshot before."""

    time: int
    counts: dict[int, Counts]

    def rates(self, number: int, sent: int, received: int, at: int, began: int) -> Rates:
        """Bytes a second since then. `began`: 0 if nobody knows."""
        known = self.counts.get(number)
        if known is not None:
            sent_before, received_before, before = known
            elapsed = (at - before) / SECOND
            return (sent - sent_before) / elapsed, (received - received_before) / elapsed
        if began <= self.time:
            return None, None
        elapsed = (at - self.time) / SECOND
        return sent / elapsed, received / elapsed


@dataclass(slots=True)
class Listed:
    """What was made of the rows of one snapshot."""

    connections: list[Connection] = field(default_factory=list)
    """In the kernel's order."""
    left_out: int = 0
    counts: dict[int, Counts] = field(default_factory=dict)
    """Of all whose totals are known, by identity."""
    places: dict[int, int] = field(default_factory=dict)
    """Of all identities: where in the list, or -1."""
    has_paths: bool = False


class _Who(NamedTuple):
    """What hardly differs between a process's connections."""

    proto: str
    direction: str
    v4_mapped: bool | None
    netns: int | None
    pid: int | None
    comm: str | None
    uid: int | None
    owner: str | None
    cgroup: int | None
    pre_existing: bool | None
    partial: bool | None
    process: Process | None
    key: tuple[int, int]
    """By which claims on names know it."""


class Rows:
    """Makes connections of rows, with what else is known of them. `fits`: which of them are wanted; None: all."""

    def __init__(
        self,
        names: Joiner | None = None,
        owners: Owners | None = None,
        translations: Translations | None = None,
        fits: Callable[[Connection], bool] | None = None,
    ) -> None:
        self._names = names
        self._owners = owners
        self._translations = translations
        self._fits = fits

    def read(self, data: bytes, offset_ns: int, before: Before | None, limit: int | None) -> Listed:
        """`offset_ns` leads from the kernel's clock to ours."""
        listed = Listed()
        connections, counts, places = listed.connections, listed.counts, listed.places
        known_who: dict[tuple[bytes, bytes], _Who] = {}
        ends: dict[Ends, Connection | str] = {}
        end_of, words, new, fits = ends.get, _BIG_ENDIAN, Connection.__new__, self._fits
        named: Container[bytes] = () if self._names is None else self._names.addresses
        translated: Container[bytes] = () if self._translations is None else self._translations.addresses
        for (
            time, started, established, tx_packets, rx_packets, number, subflow_of, process,
            local, remote, local_port, remote_port, names,
            tx_bytes, tx_acked, rx_bytes, rtt, retransmits, state, _,
            tx_queue, rx_queue, backlog, backlog_limit, fd, app, known,
        ) in _ROW.iter_unpack(data):  # fmt: skip
            place = places.get(number)
            # Held by several processes: who listens is one of them, and otherwise the first is as good as any.
            if place is not None and (place < 0 or names[_OWNER] != _LISTEN):
                continue
            who = known_who.get((process, names))
            if who is None:
                who = known_who[process, names] = self._describe(process, names)
            conn = words(number).hex()
            if known & _TOTALS:
                counts[number] = tx_bytes, rx_bytes, time
            if fits is None and place is None and limit is not None and len(connections) >= limit:
                places[number] = -1
                listed.left_out += 1
                if remote_port:
                    _meet(ends, (who.netns, who.proto, local, local_port, remote, remote_port), conn)
                continue
            made = new(Connection)  # and field by field, all of them: __init__() takes three times as long
            made.conn = conn
            (
                proto, made.direction, made.v4_mapped, netns, made.pid, made.comm, made.uid, made.owner, made.cgroup,
                made.pre_existing, made.partial, made.process, key,
            ) = who  # fmt: skip
            made.proto, made.netns = proto, netns
            began = 0 if made.pre_existing else started or established
            made.time_ns = (began or time) + offset_ns
            made.outcome = "listening" if state == _LISTENING else "pending" if state == _SYN_SENT else "open"
            made.local_addr, made.local_port = address(local), local_port or None
            made.remote_addr, made.remote_port = address(remote), remote_port or None
            made.latency_ns = established - started if began and started and established else None
            made.age_ns = time - began if began else None
            made.state = STATES[state]
            made.fd = fd if known & _HELD else None
            made.app = APPS[app]
            made.rtt_ns = rtt or None
            if known & _TOTALS:
                made.tx_bytes, made.rx_bytes = tx_bytes, rx_bytes
                made.tx_acked = None if proto == "udp" else tx_acked
                made.retransmits = retransmits if proto == "tcp" else None
                if before is not None:
                    made.tx_rate, made.rx_rate = before.rates(number, tx_bytes, rx_bytes, time, began)
                else:
                    made.tx_rate = made.rx_rate = None
            else:
                made.tx_bytes = made.tx_acked = made.rx_bytes = made.retransmits = made.tx_rate = made.rx_rate = None
            made.tx_queue, made.rx_queue = (tx_queue, rx_queue) if known & _QUEUES else (None, None)
            if known & _BACKLOG:
                made.backlog, made.backlog_limit = backlog, backlog_limit
            else:
                made.backlog = made.backlog_limit = None
            made.tx_packets, made.rx_packets = (tx_packets, rx_packets) if known & _PACKETS else (None, None)
            made.subflow_of = made.peer = made.host = made.host_source = made.host_candidates = None
            made.service = made.nat = made.syn_retransmits = made.wait_ns = made.duration_ns = None
            made.error = made.reason = made.ended = None
            if subflow_of:
                made.subflow_of = words(subflow_of).hex()
                listed.has_paths = True
            if remote in named and self._names is not None:
                if made.direction == "out":
                    self._names.label(made, subflow_of or number, key, made.cgroup or 0, remote, began or None)
                else:
                    self._names.label_by_address(made, remote)
            there, there_port = remote, remote_port
            if remote in translated and self._translations is not None:
                self._translations.label(made, (netns or 0, local, local_port, remote, remote_port))
                there, there_port = _really(made, there, there_port)
            if there_port:
                ends[netns, proto, local, local_port, there, there_port] = made
                other = end_of((netns, proto, there, there_port, local, local_port))
                if other is not None:
                    if isinstance(other, str):
                        made.peer = other
                    else:
                        made.peer, other.peer = other.conn, conn
            if fits is not None:
                if not fits(made):
                    places[number] = -1
                    continue
                if limit is not None and len(connections) >= limit:
                    places[number] = -1
                    listed.left_out += 1
                    continue
            if place is not None:
                connections[place] = made
            else:
                places[number] = len(connections)
                connections.append(made)
        if len({who.netns for who in known_who.values()}) > 1:
            _meet_elsewhere(ends)
        return listed

    def _describe(self, process: bytes, names: bytes) -> _Who:
        cgroup, born, number, netns, pid, _tid, uid = _PROCESS.unpack(process)
        protocol, direction, owner, flags, comm, _thread = _NAMES.unpack(names)
        return _Who(
            PROTOCOLS[protocol] or "",
            DIRECTIONS[direction],
            True if flags & wire.V4_MAPPED else None,
            netns or None,
            pid or None,
            name(comm) if pid else None,
            uid if pid else None,
            OWNERS[owner],
            cgroup or None,
            True if flags & wire.PRE_EXISTING else None,
            True if flags & wire.PARTIAL else None,
            self._owners.of((number, cgroup, pid, born)) if self._owners is not None and number else None,
            (pid, born),
        )


def _really(made: Connection, remote: bytes, port: int) -> tuple[bytes, int]:
    """Who has the other end of what a rule sends elsewhere."""
    real = made.service or made.nat
    return (remote, port) if real is None else (raw(real.addr), real.port)


def _meet(ends: dict[Ends, Connection | str], mine: Ends, conn: str) -> None:
    """One that is left out is somebody's peer all the same."""
    ends[mine] = conn
    netns, proto, local, local_port, remote, remote_port = mine
    other = ends.get((netns, proto, remote, remote_port, local, local_port))
    if isinstance(other, Connection):
        other.peer = conn


def _meet_elsewhere(ends: dict[Ends, Connection | str]) -> None:
    """The other end in another namespace, if it can be no other one."""
    everywhere: dict[tuple[str, bytes, int, bytes, int], Connection | str | None] = {}
    for (_, proto, local, local_port, remote, remote_port), each in ends.items():
        if not local.startswith(_LOOPBACK):
            key = proto, local, local_port, remote, remote_port
            everywhere[key] = None if key in everywhere else each
    for (proto, local, local_port, remote, remote_port), found in everywhere.items():
        if isinstance(found, Connection) and found.peer is None:
            other = everywhere.get((proto, remote, remote_port, local, local_port))
            if other is not None:
                found.peer = other if isinstance(other, str) else other.conn
