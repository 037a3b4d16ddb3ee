"""From the bytes of a record that serves names to what `records` calls it: a table, and pure functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from pytracecon import wire
from pytracecon.names.records import Asker, HelloPart, LibcPart, MessagePart, ProcessKey, ProgramStarted
from pytracecon.text import decode as text

__all__ = ["KINDS", "Part", "part"]

Part = LibcPart | MessagePart | HelloPart | ProgramStarted

_ASKER = wire.layout(wire.ASKER)


def _from(name: str) -> tuple[wire.Field, ...]:
    """What lies behind the asker in such a record, the asker in one piece."""
    fields = wire.NAME_RECORDS[name]
    return (("time", "Q"), ("lost to words", "8x"), ("asker", f"{_ASKER.size}s"), *fields[len(wire.ASKER) :])


_LOOKUP = wire.layout(_from("lookup_event"))
_MESSAGE = wire.layout(_from("message_event"))
_RELATIVES = wire.layout((("born", "Q"), ("pid", "I"), ("reserved", "4x")))
_HELLO = wire.layout((("time", "Q"), ("lost to words", "8x")), wire.NAME_RECORDS["hello_event"])
_PROGRAM = wire.layout((("time", "Q"), ("lost to words", "8x")), wire.NAME_RECORDS["program_event"])
_HELLO_AT = [field for field, _ in wire.CONN].index
_UDP = 3
"""In `enum protocol`."""
_PROTOCOLS = {6: "tcp", 17: "udp"}


@lru_cache(maxsize=4096)
def _asker(raw: bytes) -> Asker | None:
    cgroup, born, number, netns, pid, tid, uid, comm, thread = _ASKER.unpack(raw)
    if not pid:
        return None
    elsewhere = tid != pid
    return Asker(
        ProcessKey(pid, born),
        text(comm) or None,
        uid,
        tid if elsewhere else None,
        (text(thread) or None) if elsewhere else None,
        netns,
        cgroup,
        number,
    )


@lru_cache(maxsize=1024)
def _ancestors(raw: bytes) -> tuple[ProcessKey, ...]:
    return tuple(ProcessKey(pid, born) for born, pid in _RELATIVES.iter_unpack(raw) if pid)


def _lookup(batch: memoryview | bytes, at: int) -> LibcPart:
    time, raw, call, latency, code, resolver, count, flags, name, addresses = _LOOKUP.unpack_from(batch, at)
    asker = _asker(raw)
    assert asker is not None, "a libc is called by a process"  # noqa: S101
    return LibcPart(
        time,
        asker,
        bool(flags & wire.NAME_WANTED),
        call,
        wire.RESOLVERS[resolver] or "",
        latency,
        code,
        None if flags & wire.NAME_UNREAD else name.partition(b"\0")[0],
        bool(flags & wire.NAME_CUT),
        tuple(addresses[start : start + 16] for start in range(0, 16 * count, 16)),
        bool(flags & wire.NAME_LEFT_OUT),
        bool(flags & wire.NAME_MORE),
    )


def _message(batch: memoryview | bytes, at: int) -> MessagePart:
    (
        time,
        raw,
        ancestors,
        packet,
        server,
        netns,
        seq,
        size,
        begin,
        server_port,
        local_port,
        length,
        transport,
        flags,
    ) = _MESSAGE.unpack_from(batch, at)
    data = at + _MESSAGE.size
    return MessagePart(
        time,
        packet,
        bool(flags & wire.NAME_SENT),
        _PROTOCOLS[transport],
        netns,
        local_port,
        server,
        server_port,
        size,
        begin,
        seq,
        bytes(batch[data : data + length]),
        _asker(raw),
        _ancestors(ancestors),
        bool(flags & wire.NAME_WANTED),
        bool(flags & wire.NAME_WITHIN),
        bool(flags & wire.NAME_BY_SERVER),
    )


def _hello(batch: memoryview | bytes, at: int) -> HelloPart:
    time, *conn, begin, length = _HELLO.unpack_from(batch, at)
    data = at + _HELLO.size
    return HelloPart(
        time,
        conn[_HELLO_AT("subflow_of")] or conn[_HELLO_AT("id")],
        ProcessKey(conn[_HELLO_AT("pid")], conn[_HELLO_AT("born")]),
        conn[_HELLO_AT("remote_addr")],
        begin,
        bytes(batch[data : data + length]),
        conn[_HELLO_AT("protocol")] == _UDP,
    )


def _program(batch: memoryview | bytes, at: int) -> ProgramStarted:
    time, inode, device, mount_namespace, pid = _PROGRAM.unpack_from(batch, at)
    return ProgramStarted(time, pid, mount_namespace, device, inode)


_PARTS: dict[int, Callable[[memoryview | bytes, int], Part]] = {
    wire.NAME_KINDS["lookup"]: _lookup,
    wire.NAME_KINDS["message"]: _message,
    wire.NAME_KINDS["hello"]: _hello,
    wire.NAME_KINDS["program"]: _program,
}
KINDS = frozenset(_PARTS)


def part(batch: memoryview | bytes, at: int) -> Part:
    """The record that begins there; its kind is one of `KINDS`."""
    return _PARTS[batch[at + wire.KIND_OFFSET]](batch, at)
