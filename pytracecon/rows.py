"""From the rows that a snapshot's iterators wrote to connections, and whose other end is here too.

Pure, and in as few steps as can be: a busy host has tens of thousands of them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, ValuesView
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from pytracecon import wire
from pytracecon.clock import SECOND
from pytracecon.connections import Connection
from pytracecon.decode import APPS, DIRECTIONS, OWNERS, PROTOCOLS, STATES, address, name

if TYPE_CHECKING:
    from pytracecon.events import Process
    from pytracecon.names.joiner import Joiner
    from pytracecon.owners.processes import Owners
    from pytracecon.translations import Translations

__all__ = ["NUMBER", "SUBFLOW_OF", "Before", "Counts", "Row", "Rows"]

Row = tuple[Any, ...]
"""As `_ROW` unpacks it."""

Counts = tuple[int, int, int]
"""Bytes sent and received, and when they were counted, by the kernel's clock."""

Rates = tuple[float | None, float | None]
_NO_RATES: Rates = (None, None)

_AT = [field for field, _ in wire.CONN].index
_PROCESS = wire.layout(wire.CONN[_AT("cgroup") : _AT("netns")])
_TASK = wire.layout(wire.CONN[_AT("pid") : _AT("local_addr")])
_NAMES = wire.layout(wire.CONN[_AT("protocol") :])
_BEGIN, _, _TOTALS, _END = wire.ROW
_ROW = wire.layout(
    _BEGIN,
    wire.CONN[: _AT("cgroup")],
    (("process", f"{_PROCESS.size}s"), ("netns", "I"), ("task", f"{_TASK.size}s")),
    wire.CONN[_AT("local_addr") : _AT("protocol")],
    (("names", f"{_NAMES.size}s"),),
    _TOTALS,
    _END,
)
NUMBER, SUBFLOW_OF = 5, 6
_LISTEN = OWNERS.index("listen")
_LISTENING = STATES.index("LISTEN")
_SYN_SENT = STATES.index("SYN_SENT")
_LOOPBACK = bytes(10) + b"\xff\xff\x7f", bytes(15) + b"\x01"
_BIG_ENDIAN = struct.Struct(">Q").pack


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
            return _NO_RATES
        elapsed = (at - self.time) / SECOND
        return sent / elapsed, received / elapsed


class _Who(NamedTuple):
    """What hardly differs between a process's connections."""

    proto: str
    direction: str
    v4_mapped: bool | None
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
    """Those of one snapshot."""

    def __init__(
        self,
        data: bytes,
        names: Joiner | None = None,
        owners: Owners | None = None,
        translations: Translations | None = None,
    ) -> None:
        self._names = names
        self._owners = owners
        self._translations = translations
        self._rows: dict[int, Row] = {}
        self.counts: dict[int, Counts] = {}
        """Of those whose totals are known, by identity."""
        self.has_paths = False
        self._ends: dict[tuple[int, int, bytes, int, bytes, int], int] = {}
        self._everywhere: dict[tuple[int, bytes, int, bytes, int], int] | None = None
        self._read(data)

    def _read(self, data: bytes) -> None:
        rows, counts, ends = self._rows, self.counts, self._ends
        for row in _ROW.iter_unpack(data):
            (
                time, _, _, _, _, number, subflow_of, _, netns, _,
                local, remote, local_port, remote_port, names,
                tx_bytes, _, rx_bytes, _, _, _, _, _, _, _, _, _, _, known,
            ) = row  # fmt: skip
            if number in rows:
                # Held by several processes: who listens is one of them, and otherwise the first is as good as any.
                if names[2] == _LISTEN:
                    rows[number] = row
                continue
            rows[number] = row
            if known & wire.ROW_TOTALS:
                counts[number] = tx_bytes, rx_bytes, time
            if remote_port:
                ends[netns, names[0], local, local_port, remote, remote_port] = number
            if subflow_of:
                self.has_paths = True

    def __contains__(self, number: int) -> bool:
        return number in self._rows

    def all(self) -> ValuesView[Row]:
        """In the kernel's order."""
        return self._rows.values()

    def maker(self, offset_ns: int, before: Before | None) -> Callable[[Row], Connection]:
        """What makes a connection of a row. `offset_ns` leads from the kernel's clock to ours."""
        known_who: dict[tuple[bytes, bytes, bytes], _Who] = {}
        ends, words, new = self._ends.get, _BIG_ENDIAN, Connection.__new__
        named: Container[bytes] = () if self._names is None else self._names.addresses
        translated: Container[bytes] = () if self._translations is None else self._translations.addresses

        def make(row: Row) -> Connection:
            (
                time, started, established, tx_packets, rx_packets, number, subflow_of, process, netns, task,
                local, remote, local_port, remote_port, names,
                tx_bytes, tx_acked, rx_bytes, rtt, retransmits, state, _,
                tx_queue, rx_queue, backlog, backlog_limit, fd, app, known,
            ) = row  # fmt: skip
            who = known_who.get((process, task, names))
            if who is None:
                who = known_who[process, task, names] = self._describe(process, task, names)
            made = new(Connection)  # and field by field, all of them: __init__() takes three times as long
            (
                made.proto, made.direction, made.v4_mapped, made.pid, made.comm, made.uid, made.owner, made.cgroup,
                made.pre_existing, made.partial, made.process, key,
            ) = who  # fmt: skip
            began = 0 if made.pre_existing else started or established
            peer = ends((netns, names[0], remote, remote_port, local, local_port))
            if peer is None and remote_port:
                peer = self._peer_elsewhere(row)
            made.conn = words(number).hex()
            made.time_ns = (began or time) + offset_ns
            made.outcome = "listening" if state == _LISTENING else "pending" if state == _SYN_SENT else "open"
            made.local_addr, made.local_port = address(local), local_port or None
            made.remote_addr, made.remote_port = address(remote), remote_port or None
            made.netns = netns or None
            made.subflow_of = words(subflow_of).hex() if subflow_of else None
            made.latency_ns = established - started if began and started and established else None
            made.age_ns = time - began if began else None
            made.state = STATES[state]
            made.fd = fd if known & wire.ROW_HELD else None
            made.peer = None if peer is None else words(peer).hex()
            made.app = APPS[app]
            made.rtt_ns = rtt or None
            if known & wire.ROW_TOTALS:
                made.tx_bytes, made.tx_acked, made.rx_bytes = tx_bytes, tx_acked, rx_bytes
                made.retransmits = retransmits if made.proto == "tcp" else None
                made.tx_rate, made.rx_rate = (
                    _NO_RATES if before is None else before.rates(number, tx_bytes, rx_bytes, time, began)
                )
            else:
                made.tx_bytes = made.tx_acked = made.rx_bytes = made.retransmits = made.tx_rate = made.rx_rate = None
            made.tx_queue, made.rx_queue = (tx_queue, rx_queue) if known & wire.ROW_QUEUES else (None, None)
            if known & wire.ROW_BACKLOG:
                made.backlog, made.backlog_limit = backlog, backlog_limit
            else:
                made.backlog = made.backlog_limit = None
            made.tx_packets, made.rx_packets = (tx_packets, rx_packets) if known & wire.ROW_PACKETS else (None, None)
            made.host = made.host_source = made.host_candidates = made.service = made.nat = None
            made.syn_retransmits = made.wait_ns = made.duration_ns = made.error = made.reason = made.ended = None
            if remote in named and self._names is not None:
                if made.direction == "out":
                    self._names.label(made, subflow_of or number, key, made.cgroup or 0, remote, began or None)
                else:
                    self._names.label_by_address(made, remote)
            if remote in translated and self._translations is not None:
                self._translations.label(made, (netns, local, local_port, remote, remote_port))
            return made

        return make

    def _describe(self, process: bytes, task: bytes, names: bytes) -> _Who:
        cgroup, born, number = _PROCESS.unpack(process)
        pid, _tid, uid = _TASK.unpack(task)
        protocol, direction, owner, flags, comm, _thread = _NAMES.unpack(names)
        return _Who(
            PROTOCOLS[protocol] or "",
            DIRECTIONS[direction],
            True if flags & wire.V4_MAPPED else None,
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

    def _peer_elsewhere(self, row: Row) -> int | None:
        """The other end in another namespace, if it can be no other one."""
        number, local, remote, local_port, remote_port = row[5], *row[10:14]
        if local.startswith(_LOOPBACK):
            return None
        if self._everywhere is None:
            self._everywhere = {}
            for (_, *ends), each in self._ends.items():
                key = tuple(ends)
                self._everywhere[key] = 0 if key in self._everywhere else each  # type: ignore[index]
        protocol = row[14][0]
        if self._everywhere[protocol, local, local_port, remote, remote_port] != number:
            return None
        return self._everywhere.get((protocol, remote, remote_port, local, local_port)) or None
