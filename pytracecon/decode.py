"""From the bytes of a batch to events: a table of kinds, and pure functions."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any

from pytracecon import wire
from pytracecon.events import Accept, Close, Connect, ConnectionEvent, Established, Existing, Failed
from pytracecon.text import decode as text

PROTOCOLS = (None, "tcp", "mptcp")
DIRECTIONS = ("unknown", "out", "in")
OWNERS = (None, "connect", "accept", "listen", "existing")
ENDED = (None, "local_close", "remote_close", "local_reset", "remote_reset", "timeout")
STATES = (
    None,
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
)

REASONS = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "reset",
    errno.EPIPE: "reset",
    errno.ETIMEDOUT: "timeout",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETDOWN: "unreachable",
    errno.EHOSTDOWN: "unreachable",
    errno.ENONET: "unreachable",
    errno.ENOPROTOOPT: "unreachable",
    errno.EPERM: "denied",
    errno.EACCES: "denied",
    errno.EADDRNOTAVAIL: "no_address",
    errno.EADDRINUSE: "no_address",
    errno.ECONNABORTED: "cancelled",
}

_ANY = frozenset((bytes(16), bytes(10) + b"\xff\xff" + bytes(4)))
_MAPPED = bytes(10) + b"\xff\xff"


@lru_cache(maxsize=65536)
def address(raw: bytes) -> str | None:
    """An address as text, IPv4 where it is one; None where none is known."""
    if raw in _ANY:
        return None
    if raw.startswith(_MAPPED):
        return f"{raw[12]}.{raw[13]}.{raw[14]}.{raw[15]}"
    return str(IPv6Address(raw))


@lru_cache(maxsize=16384)
def name(raw: bytes) -> str | None:
    """A task's name up to its first NUL; None where there is none."""
    end = raw.find(b"\0")
    return text(raw if end < 0 else raw[:end]) or None


def _conn(fields: tuple[Any, ...], offset_ns: int) -> tuple[Any, ...]:
    """The fields that all events of a connection share, in the order of `ConnectionEvent`."""
    (
        time,
        _lost,
        _cpu,
        _kind,
        _words,
        number,
        subflow_of,
        cgroup,
        netns,
        pid,
        tid,
        uid,
        local_addr,
        remote_addr,
        local_port,
        remote_port,
        protocol,
        direction,
        owner,
        flags,
        comm,
        thread,
        *_rest,
    ) = fields
    elsewhere = tid != pid
    return (
        time + offset_ns,
        f"{number:016x}",
        PROTOCOLS[protocol],
        DIRECTIONS[direction],
        address(local_addr),
        local_port or None,
        address(remote_addr),
        remote_port or None,
        True if flags & wire.V4_MAPPED else None,
        netns or None,
        pid or None,
        name(comm) if pid else None,
        uid if pid else None,
        tid if elsewhere else None,
        name(thread) if elsewhere else None,
        OWNERS[owner],
        cgroup or None,
        None,
        None,
        None,
        None,
        True if flags & wire.PRE_EXISTING else None,
        f"{subflow_of:016x}" if subflow_of else None,
        True if flags & wire.PARTIAL else None,
    )


# What each kind adds, in the order of its dataclass.


def _connect(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    return (_fastopen(fields),)


def _established(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    latency, syn_retransmits = fields[_TAIL:]
    return latency or None, syn_retransmits, _fastopen(fields)


def _failed(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    latency, syn_retransmits, code, _syn_left = fields[_TAIL:]
    if code == wire.ERROR_UNKNOWN:
        error, reason = None, None
    elif code == 0:
        error, reason = None, "cancelled"
    else:
        error, reason = errno.errorcode.get(code, str(code)), REASONS.get(code)
    return error, reason, latency or None, syn_retransmits


def _accept(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    return (fields[_TAIL] or None,)


def _close(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    duration, tx_bytes, tx_acked, rx_bytes, rtt, retransmits, _state, ended = fields[_TAIL:]
    segments = _segments(fields, retransmits)
    return duration or None, tx_bytes, tx_acked, rx_bytes, segments, rtt or None, ENDED[ended]


def _existing(fields: tuple[Any, ...]) -> tuple[Any, ...]:
    tx_bytes, tx_acked, rx_bytes, rtt, retransmits, state, _ended = fields[_TAIL:]
    return STATES[state], tx_bytes, tx_acked, rx_bytes, _segments(fields, retransmits), rtt or None


def _fastopen(fields: tuple[Any, ...]) -> bool | None:
    return True if fields[_FLAGS] & wire.FASTOPEN else None


def _segments(fields: tuple[Any, ...], count: int) -> int | None:
    """An MPTCP connection resends no segments of its own: its subflows' events count them."""
    return None if fields[_PROTOCOL] == _MPTCP else count


_TAIL = len(wire.HEADER) + len(wire.CONN)
_MPTCP = PROTOCOLS.index("mptcp")
_PROTOCOL = len(wire.HEADER) + [field for field, _ in wire.CONN].index("protocol")
_FLAGS = len(wire.HEADER) + [field for field, _ in wire.CONN].index("flags")

_Tail = Callable[[tuple[Any, ...]], tuple[Any, ...]]
_KINDS: dict[str, tuple[type[ConnectionEvent], _Tail]] = {
    "connect": (Connect, _connect),
    "established": (Established, _established),
    "failed": (Failed, _failed),
    "accept": (Accept, _accept),
    "close": (Close, _close),
    "existing": (Existing, _existing),
}
_TABLE = {wire.KINDS[kind]: (wire.RECORD[wire.KINDS[kind]].unpack_from, *own) for kind, own in _KINDS.items()}


def decode(batch: bytes | memoryview, offset_ns: int) -> list[ConnectionEvent]:
    """All events of a batch of whole records, in their order. `offset_ns` leads from the kernel's clock to ours."""
    events: list[ConnectionEvent] = []
    at, end = 0, len(batch)
    while at < end:
        unpack, event, tail = _TABLE[batch[at + wire.KIND_OFFSET]]
        fields = unpack(batch, at)
        events.append(event(*_conn(fields, offset_ns), *tail(fields)))
        at += batch[at + wire.WORDS_OFFSET] << 3
    return events
