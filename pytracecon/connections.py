"""Connections as wholes: what their events told, one after the other, joined.

joined = Joined()
for event in tracer:
    connection = joined.take(event)      # the same object for all events of a connection
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from pytracecon.events import (
    Accept,
    Close,
    Connect,
    ConnectionEvent,
    Endpoint,
    Established,
    Event,
    Failed,
    OfProcess,
    Process,
)

__all__ = ["Connection", "Joined"]


@dataclass(slots=True, kw_only=True)
class Connection(OfProcess, Event):
    """One connection of the traced processes, as far as it is known by now. What is not known is `None`.

    `outcome` is `pending` (the first SYN left), `open`, `closed`, `failed` or, of a socket that waits for others,
    `listening`. The other fields mean what they mean in the events (README, "What each event means"); `time_ns` is when
    the first of them happened.

    Only `Tracer.snapshot()` tells what a connection is just now: `state`; `fd`, the owner's number for the socket;
    `age_ns` since its first moment, if the tracer saw that; `tx_rate` and `rx_rate`, bytes a second since the snapshot
    before; `tx_queue` and `rx_queue`, bytes that wait to be acknowledged or read; of a listener `backlog`, connections
    that wait to be accepted, of at most `backlog_limit`; `peer`, the `conn` of its other end where that is on this host
    too; of a UDP conversation `tx_packets`, `rx_packets` and `app`.
    """

    event: ClassVar[str] = "connection"

    conn: str
    proto: str
    direction: str
    time_ns: int
    outcome: str = "pending"
    local_addr: str | None = None
    local_port: int | None = None
    remote_addr: str | None = None
    remote_port: int | None = None
    host: str | None = None
    host_source: str | None = None
    host_candidates: list[str] | None = None
    netns: int | None = None
    pid: int | None = None
    comm: str | None = None
    uid: int | None = None
    owner: str | None = None
    cgroup: int | None = None
    process: Process | None = None
    v4_mapped: bool | None = None
    pre_existing: bool | None = None
    subflow_of: str | None = None
    service: Endpoint | None = None
    nat: Endpoint | None = None
    latency_ns: int | None = None
    syn_retransmits: int | None = None
    wait_ns: int | None = None
    duration_ns: int | None = None
    error: str | None = None
    reason: str | None = None
    tx_bytes: int | None = None
    tx_acked: int | None = None
    rx_bytes: int | None = None
    retransmits: int | None = None
    rtt_ns: int | None = None
    ended: str | None = None
    partial: bool | None = None
    state: str | None = None
    fd: int | None = None
    age_ns: int | None = None
    tx_rate: float | None = None
    rx_rate: float | None = None
    tx_queue: int | None = None
    rx_queue: int | None = None
    backlog: int | None = None
    backlog_limit: int | None = None
    peer: str | None = None
    tx_packets: int | None = None
    rx_packets: int | None = None
    app: str | None = None

    @property
    def closed(self) -> bool:
        """It was established, and is over."""
        return self.outcome == "closed"

    @property
    def over(self) -> bool:
        """Nothing more will be told of it."""
        return self.outcome in ("closed", "failed")

    @property
    def remote(self) -> tuple[str | None, int | None]:
        """Address and port of the other end, as a socket has them."""
        return self.remote_addr, self.remote_port


_OUTCOMES = {Connect: "pending", Established: "open", Accept: "open", Close: "closed", Failed: "failed"}


class Joined:
    """Puts events together. It remembers the connections that are not over."""

    def __init__(self) -> None:
        self.unfinished: dict[str, Connection] = {}

    def take(self, event: Event) -> Connection | None:
        """The connection that this event tells of, brought up to date.

        None for what is no connection of its own (a lookup, a loss, a path of an MPTCP connection), and for what is
        older than the tracer: nobody saw it made.
        """
        if not isinstance(event, ConnectionEvent) or event.subflow_of is not None or event.pre_existing:
            return None
        found = self.unfinished.get(event.conn)
        if found is None:
            found = Connection(conn=event.conn, proto=event.proto, direction=event.direction, time_ns=event.time_ns)
            self.unfinished[event.conn] = found
        for name in _SHARED.get(type(event), ()):
            value = getattr(event, name)
            if value is not None:
                setattr(found, name, value)
        if event.host is not None:  # the candidates are those of this very name
            found.host_candidates = event.host_candidates
        found.outcome = _OUTCOMES.get(type(event), found.outcome)
        if found.over:
            del self.unfinished[event.conn]
        return found


_MINE = {field.name for field in fields(Connection)} - {"conn", "time_ns", "host_candidates"}
_SHARED = {kind: tuple(field.name for field in fields(kind) if field.name in _MINE) for kind in _OUTCOMES}
"""The fields that such an event and a connection have both."""
