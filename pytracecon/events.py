"""The events, as dataclasses. Names and meanings are public: README, "What each event means".

A field that is not known is `None`. Durations are nanoseconds of the monotonic clock; `time_ns` is the wall
clock of the kernel moment in nanoseconds since the epoch, `time` the same as RFC 3339 text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pytracecon.clock import rfc3339
from pytracecon.lazy_dataclass import lazy_dataclass

__all__ = [
    "Accept",
    "Close",
    "Connect",
    "ConnectionEvent",
    "Endpoint",
    "Established",
    "Event",
    "Existing",
    "Failed",
    "Flow",
    "Lookup",
    "Lost",
    "Process",
    "Reset",
    "Retransmit",
    "State",
]


@dataclass(frozen=True, slots=True)
class Process:
    """What the owner is beyond its number and name. Its program is the one that it ran when the connection became its.

    `container` (its id) and `pod` (of Kubernetes its uid) are as the cgroup's path has them, `unit` is systemd's;
    `container_name` comes from the engine, some time after the first event. `exe_source` says when `exe` and `args`
    were taken: `exec`, in the kernel when the program started; `proc`, from /proc, as the process is older than the
    tracer. `args_cut`: there were more. `parents` are the pids of its parent, that one's parent, and so on.
    """

    container: str | None = None
    container_name: str | None = None
    pod: str | None = None
    unit: str | None = None
    exe: str | None = None
    exe_source: str | None = None
    args: list[str] | None = None
    args_cut: bool | None = None
    parents: list[int] | None = None


@lazy_dataclass
class Event:
    """Anything that a tracer delivers. `event` is its type's name in every output."""

    event: ClassVar[str]

    time_ns: int

    @property
    def time(self) -> str:
        """The wall clock of the kernel moment: RFC 3339, UTC, nine decimals."""
        return rfc3339(self.time_ns)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a connection really goes."""

    addr: str
    port: int

    def __str__(self) -> str:
        return f"[{self.addr}]:{self.port}" if ":" in self.addr else f"{self.addr}:{self.port}"


class OfProcess:
    """What `process` tells, as attributes of the event."""

    __slots__ = ()
    process: Process | None

    @property
    def container(self) -> str | None:
        return None if self.process is None else self.process.container

    @property
    def container_name(self) -> str | None:
        return None if self.process is None else self.process.container_name

    @property
    def pod(self) -> str | None:
        return None if self.process is None else self.process.pod

    @property
    def unit(self) -> str | None:
        return None if self.process is None else self.process.unit

    @property
    def exe(self) -> str | None:
        return None if self.process is None else self.process.exe

    @property
    def exe_source(self) -> str | None:
        return None if self.process is None else self.process.exe_source

    @property
    def args(self) -> list[str] | None:
        return None if self.process is None else self.process.args

    @property
    def args_cut(self) -> bool | None:
        return None if self.process is None else self.process.args_cut

    @property
    def parents(self) -> list[int] | None:
        return None if self.process is None else self.process.parents


@lazy_dataclass
class ConnectionEvent(OfProcess, Event):
    """What all events of a connection tell of it. `local` is the end that the traced process holds."""

    conn: str
    proto: str
    direction: str
    local_addr: str | None = None
    local_port: int | None = None
    remote_addr: str | None = None
    remote_port: int | None = None
    v4_mapped: bool | None = None
    netns: int | None = None
    pid: int | None = None
    comm: str | None = None
    uid: int | None = None
    tid: int | None = None
    thread: str | None = None
    owner: str | None = None
    cgroup: int | None = None
    process: Process | None = None
    host: str | None = None
    host_source: str | None = None
    host_candidates: list[str] | None = None
    service: Endpoint | None = None
    nat: Endpoint | None = None
    pre_existing: bool | None = None
    subflow_of: str | None = None
    partial: bool | None = None


@lazy_dataclass
class Connect(ConnectionEvent):
    """A process asked for an outbound connection and the first SYN left."""

    event: ClassVar[str] = "connect"

    fastopen: bool | None = None


@lazy_dataclass
class Established(ConnectionEvent):
    """The handshake of an outbound connection completed. `latency_ns` runs from the first SYN."""

    event: ClassVar[str] = "established"

    latency_ns: int | None = None
    syn_retransmits: int | None = None
    fastopen: bool | None = None


@lazy_dataclass
class Failed(ConnectionEvent):
    """An outbound attempt ended without a connection, at once or later."""

    event: ClassVar[str] = "failed"

    error: str | None = None
    reason: str | None = None
    latency_ns: int | None = None
    syn_retransmits: int | None = None


@lazy_dataclass
class Accept(ConnectionEvent):
    """A process took an inbound connection, `wait_ns` after its handshake."""

    event: ClassVar[str] = "accept"

    wait_ns: int | None = None


@lazy_dataclass
class Close(ConnectionEvent):
    """An established connection is over. Bytes are payload: no SYN, no FIN, no retransmission counts."""

    event: ClassVar[str] = "close"

    duration_ns: int | None = None
    tx_bytes: int | None = None
    tx_acked: int | None = None
    rx_bytes: int | None = None
    retransmits: int | None = None
    rtt_ns: int | None = None
    ended: str | None = None


@lazy_dataclass
class Existing(ConnectionEvent):
    """A connection older than the tracer, as it stands at the start. Only if asked for."""

    event: ClassVar[str] = "existing"

    state: str | None = None
    tx_bytes: int | None = None
    tx_acked: int | None = None
    rx_bytes: int | None = None
    retransmits: int | None = None
    rtt_ns: int | None = None


@lazy_dataclass
class State(ConnectionEvent):
    """TCP went from one state to another. `old` and `new` are the kernel's names; the first has no `in_old_ns`.

    `meaning` is a word for people: `open`, `refused`, `gave_up`, `closed_by_client`, `closed_by_server`. What begins
    with `service_` is a later look at how IPVS is set up, for those who ask for it.
    """

    event: ClassVar[str] = "state"

    old: str | None = None
    new: str | None = None
    in_old_ns: int | None = None
    meaning: str | None = None
    service_scheduler: str | None = None
    service_weight: int | None = None
    service_forwarding: str | None = None


@lazy_dataclass
class Retransmit(ConnectionEvent):
    """A segment was sent again: `segment` is `syn`, `synack`, `data` or `fin`, `segments` what it counts for.

    Of a SYN, `meaning` is `slow_establishing`.
    """

    event: ClassVar[str] = "retransmit"

    state: str | None = None
    segment: str | None = None
    segments: int | None = None
    meaning: str | None = None


@lazy_dataclass
class Reset(ConnectionEvent):
    """A RST was sent, or received, in this state."""

    event: ClassVar[str] = "reset"

    sent: bool | None = None
    state: str | None = None


@lazy_dataclass
class Flow(ConnectionEvent):
    """A UDP conversation is over: what a process and one address sent each other over one socket, by now.

    Sent is what left the socket, received what was handed to the process. `duration_ns` runs from its first datagram to
    its last. `ended`: `idle`, `closed` (the socket was), `owner_gone`, or `stopped` (the tracer was). `app` is `quic`,
    where that was seen.
    """

    event: ClassVar[str] = "flow"

    tx_bytes: int | None = None
    rx_bytes: int | None = None
    tx_packets: int | None = None
    rx_packets: int | None = None
    duration_ns: int | None = None
    ended: str | None = None
    app: str | None = None


@lazy_dataclass
class Lookup(OfProcess, Event):
    """A name resolution ended: in a libc (`source` getaddrinfo, gethostbyname), or by packets (`source` dns).

    `addresses` are those of the answer, in its order. `server` and `type` (A, AAAA…) are known of packets; `within`
    (`libc`): these were sent inside a call of a libc's resolver, which is told by itself. `partial`: there was more
    than is told.
    """

    event: ClassVar[str] = "lookup"

    netns: int | None = None
    pid: int | None = None
    comm: str | None = None
    uid: int | None = None
    tid: int | None = None
    thread: str | None = None
    cgroup: int | None = None
    process: Process | None = None
    name: str | None = None
    type: str | None = None
    addresses: list[str] | None = None
    latency_ns: int | None = None
    result: str | None = None
    source: str | None = None
    server: str | None = None
    within: str | None = None
    partial: bool | None = None


@lazy_dataclass
class Lost(Event):
    """Records are missing here: `count` of them, between `from_ns` and `to_ns` (JSON: `from`, `to`)."""

    event: ClassVar[str] = "lost"

    count: int
    where: str
    from_ns: int | None = None
    to_ns: int | None = None
