"""What the kernel side tells for the sake of names: records that are no events yet.

Times are nanoseconds of the kernel's monotonic clock. An address is sixteen bytes in network order, IPv4 as
::ffff:a.b.c.d.
"""

from __future__ import annotations

from typing import NamedTuple

from pytracecon.lazy_dataclass import lazy_dataclass

__all__ = ["Asker", "HelloPart", "LibcPart", "MessagePart", "ProcessKey", "ProgramStarted"]


class ProcessKey(NamedTuple):
    """A process for good: its number may go to another one later, which is born later."""

    pid: int
    born: int


class Asker(NamedTuple):
    """The process that asks for a name, and the thread of it that does if that is not the main one."""

    process: ProcessKey
    comm: str | None
    uid: int
    tid: int | None
    thread: str | None
    netns: int
    cgroup: int
    number: int = 0
    """By which `Owners` know the process, if they do."""


@lazy_dataclass
class LibcPart:
    """A call to the resolver of a libc that has returned. One with many addresses comes in several parts."""

    time: int
    asker: Asker
    wanted: bool
    """The filters let the asker through: the lookup is told, not only used."""
    call: int
    """The same in all parts of one call."""
    function: str
    """`getaddrinfo`, or `gethostbyname` for that whole family."""
    latency_ns: int
    code: int
    """What getaddrinfo returned; of the others h_errno; 0 is success."""
    name: bytes | None
    """As it was asked for, without the NUL; None for a NULL pointer or one that cannot be read."""
    name_cut: bool
    """The name is longer than what is here."""
    addresses: tuple[bytes, ...]
    addresses_cut: bool
    """There were more than are ever told."""
    more: bool
    """Another part follows."""


@lazy_dataclass
class MessagePart:
    """Payload of a packet from or to the DNS port of some host, at the socket that asks.

    A datagram's payload comes in parts of the same `packet`; `at` is where this one begins in the `size` bytes of all.
    Of TCP, `seq` is the sequence number of the payload's first byte (`at` 0), modulo 2**32.
    """

    time: int
    packet: int
    sent: bool
    """A query; else an answer."""
    protocol: str
    """`udp` or `tcp`"""
    netns: int
    local_port: int
    server: bytes
    server_port: int
    size: int
    at: int
    seq: int
    data: bytes
    asker: Asker | None
    """Known of what is sent."""
    ancestors: tuple[ProcessKey, ...]
    """Of the asker, nearest first, as far as they are of its cgroup."""
    wanted: bool
    within: bool
    """Sent inside a libc's resolver, whose lookup is told by itself."""
    by_server: bool
    """The asker answers others on its own DNS port: it is a resolver."""


@lazy_dataclass
class HelloPart:
    """Some of the first bytes that an outbound connection sent, in order unless a segment was sent again."""

    time: int
    conn: int
    process: ProcessKey
    remote_addr: bytes
    at: int
    """Where in the stream; of datagrams: which."""
    data: bytes
    is_datagram: bool = False
    """The first packets of a QUIC client."""


@lazy_dataclass
class ProgramStarted:
    """A program that was not seen before in its mount namespace, or one second after the last one there."""

    time: int
    pid: int
    mount_namespace: int
    device: int
    """Of the program's file, as the kernel has it: major << 20 | minor."""
    inode: int
