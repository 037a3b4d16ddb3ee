"""From the bytes of a batch to events: a table of kinds, and pure functions."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Container
from functools import lru_cache
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

from pytracecon import wire
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
    Reset,
    Retransmit,
    State,
)
from pytracecon.meaning import of_retransmit, of_state
from pytracecon.names.parts import KINDS as NAME_KINDS
from pytracecon.names.parts import part
from pytracecon.text import decode as text

if TYPE_CHECKING:
    from pytracecon.names.joiner import Joiner
    from pytracecon.owners.processes import Owners
    from pytracecon.translations import Translations

PROTOCOLS = (None, "tcp", "mptcp", "udp")
DIRECTIONS = ("unknown", "out", "in")
OWNERS = (None, "connect", "accept", "listen", "existing", "send", "receive")
ENDED = (
    None,
    "local_close",
    "remote_close",
    "local_reset",
    "remote_reset",
    "timeout",
    "idle",
    "closed",
    "owner_gone",
    "stopped",
)
APPS = (None, "quic")
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
    "NEW_SYN_RECV",
)
SEGMENTS = (None, "data", "syn", "synack", "fin")

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


def end_of(batch: bytes | memoryview, at: int) -> int:
    """Where the record that begins there is over. Of one that is broken there is something, for `decode` to refuse."""
    if len(batch) - at <= wire.WORDS_OFFSET:
        return len(batch)
    return at + max(batch[at + wire.WORDS_OFFSET] << 3, 1)


def failure(code: int) -> tuple[str | None, str | None]:
    """`error` and `reason` of a failed attempt."""
    if code == wire.ERROR_UNKNOWN:
        return None, None
    if code == 0:
        return None, "cancelled"
    return errno.errorcode.get(code, str(code)), REASONS.get(code)


@lru_cache(maxsize=4096)
def who(
    process: bytes, names: bytes
) -> tuple[str | None, str, tuple[Any, ...], bool | None, int, tuple[int, int, int, int]]:
    """What hardly differs between a process's connections: `proto`, `direction`, from `v4_mapped` to `pre_existing`,
    `partial`, the flags, and by what `Owners` know who it is.
    """
    cgroup, born, number, netns, pid, tid, uid = _PROCESS.unpack(process)
    protocol, direction, owner, flags, comm, thread = _NAMES.unpack(names)
    elsewhere = tid != pid
    return (
        PROTOCOLS[protocol],
        DIRECTIONS[direction],
        (
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
            None,
            None,
            True if flags & wire.PRE_EXISTING else None,
        ),
        True if flags & wire.PARTIAL else None,
        flags,
        (number, cgroup, pid, born),
    )


# struct conn in two parts that are the same for many connections, and what lies around them.
_AT = [field for field, _ in wire.CONN].index
_PROCESS = wire.layout(wire.CONN[_AT("cgroup") : _AT("local_addr")])
_NAMES = wire.layout(wire.CONN[_AT("protocol") :])
_PARTS: tuple[wire.Field, ...] = (
    ("time", "Q"),
    ("lost to words", "8x"),
    *wire.CONN[: _AT("cgroup")],
    ("process", f"{_PROCESS.size}s"),
    *wire.CONN[_AT("local_addr") : _AT("protocol")],
    ("names", f"{_NAMES.size}s"),
)


Tail = tuple[Any, ...]
"""What an event has behind the fields of `ConnectionEvent`, made of what its record has behind header and conn."""


def _connect(_tail: list[Any], _proto: str | None, flags: int, _direction: str) -> Tail:
    return (_fastopen(flags),)


def _established(tail: list[Any], _proto: str | None, flags: int, _direction: str) -> Tail:
    latency, syn_retransmits = tail
    return latency or None, syn_retransmits, _fastopen(flags)


def _failed(tail: list[Any], _proto: str | None, _flags: int, _direction: str) -> Tail:
    latency, syn_retransmits, code, _syn_left = tail
    return *failure(code), latency or None, syn_retransmits


def _accept(tail: list[Any], _proto: str | None, _flags: int, _direction: str) -> Tail:
    return (tail[0] or None,)


def _close(tail: list[Any], proto: str | None, _flags: int, _direction: str) -> Tail:
    duration, _handshake, tx_bytes, tx_acked, rx_bytes, rtt, retransmits, _state, ended = tail
    return duration or None, tx_bytes, tx_acked, rx_bytes, _segments(proto, retransmits), rtt or None, ENDED[ended]


def _existing(tail: list[Any], proto: str | None, _flags: int, _direction: str) -> Tail:
    tx_bytes, tx_acked, rx_bytes, rtt, retransmits, state, _ended = tail
    return STATES[state], tx_bytes, tx_acked, rx_bytes, _segments(proto, retransmits), rtt or None


def _state(tail: list[Any], _proto: str | None, _flags: int, direction: str) -> Tail:
    in_old, error, old, new = tail
    return STATES[old], STATES[new], in_old or None, of_state(direction, STATES[old], STATES[new], error)


def _retransmit(tail: list[Any], _proto: str | None, _flags: int, _direction: str) -> Tail:
    segments, segment, state = tail
    return STATES[state], SEGMENTS[segment], segments, of_retransmit(SEGMENTS[segment])


def _reset(tail: list[Any], _proto: str | None, _flags: int, _direction: str) -> Tail:
    sent, state = tail
    return bool(sent), STATES[state]


def _flow(tail: list[Any], _proto: str | None, _flags: int, _direction: str) -> Tail:
    duration, _idle, tx_bytes, rx_bytes, tx_packets, rx_packets, ended, app = tail
    return tx_bytes, rx_bytes, tx_packets, rx_packets, duration, ENDED[ended], APPS[app]


def _fastopen(flags: int) -> bool | None:
    return True if flags & wire.FASTOPEN else None


def _segments(proto: str | None, count: int) -> int | None:
    """An MPTCP connection resends no segments of its own: its subflows' events count them."""
    return None if proto == "mptcp" else count


EVENTS: dict[str, tuple[type[ConnectionEvent], Callable[[list[Any], str | None, int, str], Tail]]] = {
    "connect": (Connect, _connect),
    "established": (Established, _established),
    "failed": (Failed, _failed),
    "accept": (Accept, _accept),
    "close": (Close, _close),
    "existing": (Existing, _existing),
    "state": (State, _state),
    "retransmit": (Retransmit, _retransmit),
    "reset": (Reset, _reset),
    "flow": (Flow, _flow),
}
_TABLE: dict[int, tuple[int, Callable[..., Any], Callable[..., ConnectionEvent], Callable[..., Tail]]] = {
    wire.KINDS[name]: (shape.size, shape.unpack_from, event, rest)
    for name, (event, rest) in EVENTS.items()
    for shape in [wire.layout(_PARTS, wire.RECORDS[f"{name}_event"])]
}

_BEGINNING = wire.layout(_PARTS).unpack_from
_HEADER = wire.layout(wire.HEADER).unpack_from


OWNER_KINDS = frozenset(wire.OWNER_KINDS.values())

_BIG_ENDIAN = struct.Struct(">Q").pack
"""A number in sixteen hexadecimal digits is the hex() of that: a third of the time that formatting takes."""


def _began(kind: int, time: int, tail: list[Any]) -> int | None:
    """The first SYN of an outbound connection; None where this record of it does not tell."""
    if kind in _WATCHED:
        return time if kind == _STATE and tail[-1] == _SYN_SENT else None
    if kind == _CLOSE:
        duration, handshake, *_ = tail
        return time - duration - handshake if duration else None
    if kind == _FLOW:
        duration, idle, *_ = tail
        return int(time - duration - idle)
    return time - tail[0] if kind in _WITH_LATENCY else time


_CLOSE, _FAILED = wire.KINDS["close"], wire.KINDS["failed"]
_WITH_LATENCY = (wire.KINDS["established"], _FAILED)
_CONNECT, _FLOW = wire.KINDS["connect"], wire.KINDS["flow"]
_OVER = (_CLOSE, _FAILED, _FLOW)
_STATE, _SYN_SENT = wire.KINDS["state"], STATES.index("SYN_SENT")
_FIRST_STATES = [STATES.index("CLOSE"), _SYN_SENT]
_WATCHED = (_STATE, wire.KINDS["retransmit"], wire.KINDS["reset"])


def _begin(names: Joiner, batch: bytes | memoryview, at: int) -> None:
    """The name that a UDP conversation has is the one that its remote has now."""
    time, number, _, process, _, remote, _, _, names_of = _BEGINNING(batch, at)
    if remote in names.addresses:
        _, direction, _, _, _, (_, cgroup, pid, born) = who(process, names_of)
        if direction == "out":
            names.begin(number, (pid, born), cgroup, remote, time)


def decode(
    batch: bytes | memoryview,
    offset_ns: int,
    names: Joiner | None = None,
    owners: Owners | None = None,
    translations: Translations | None = None,
) -> list[Event]:
    """All events of a batch of whole records, in their order. `offset_ns` leads from the kernel's clock to ours.

    `names` takes the records that serve names, and gives what they make; and tells connections' hosts. `owners` takes
    those that tell what processes are, and knows it; `translations` those that tell where a connection really goes.
    A record that is not whole, or of a kind or with a word that is not known, raises struct.error or LookupError.
    """
    events: list[Event] = []
    named: Container[bytes] = () if names is None else names.addresses
    at, end = 0, len(batch)
    while at < end:
        *_, kind, words = _HEADER(batch, at)
        behind = at + (words << 3)
        if behind > end or words < 2:
            raise struct.error(f"{end - at} bytes are left of a record of {words << 3}")
        if kind in NAME_KINDS:
            if names is not None:
                events += names.take(part(batch, at), offset_ns)
            at = behind
            continue
        if kind in OWNER_KINDS:
            if owners is not None:
                owners.take(batch, at)
            at = behind
            continue
        if kind == wire.TRANSLATION_KIND:
            if translations is not None:
                translations.take(batch, at)
            at = behind
            continue
        if kind == wire.BEGINNING_KIND:
            if names is not None:
                _begin(names, batch, at)
            at = behind
            continue
        size, unpack, event, rest = _TABLE[kind]
        if behind - at < size:
            raise struct.error(f"a record of {behind - at} bytes, where {size} are needed")
        (time, number, subflow_of, process, local, remote, local_port, remote_port, names_of, *tail) = unpack(batch, at)
        proto, direction, of_owner, partial, flags, owner = who(process, names_of)
        made = event(
            time + offset_ns,
            _BIG_ENDIAN(number).hex(),
            proto,
            direction,
            address(local),
            local_port or None,
            address(remote),
            remote_port or None,
            *of_owner,
            _BIG_ENDIAN(subflow_of).hex() if subflow_of else None,
            partial,
            *rest(tail, proto, flags, direction),
        )
        if owners is not None and owner[0]:
            made.process = owners.of(owner)
        if names is not None and remote in named:
            began = _began(kind, time, tail)
            if direction == "out" and (began or kind in _WATCHED):
                _, cgroup, pid, born = owner
                names.label(made, subflow_of or number, (pid, born), cgroup, remote, began)
                if kind in _OVER and not subflow_of:
                    names.over(number)
            else:
                names.label_by_address(made, remote)
        if (
            translations is not None
            and direction != "in"
            and remote in translations.addresses
            and made.netns is not None
        ):
            ends = (made.netns, local, local_port, remote, remote_port)
            if kind == _CONNECT or (kind == _STATE and tail[-2:] == _FIRST_STATES):
                translations.over(ends)  # what is known is of an earlier one: of this one no packet has left yet
            translations.label(made, ends)
            # Of datagrams that go on after a pause IPVS says nothing: they go where those before went.
            if kind in _OVER and not (isinstance(made, Flow) and made.ended == "idle"):
                translations.over(ends, made.proto)
        events.append(made)
        at = behind
    return events
