"""systemd's journal, through its own protocol: an event is an entry, and a datagram to the journal's socket.

Fields are called as tcpstates of bcc calls them, where it has them, and every key of the event is a field
`PYTRACECON_…` as well. A value with a newline is sent with its length in front, so that none can forge a field. An
entry that is too large for a datagram goes in a sealed memfd.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pytracecon.events import Event, Lost, State
from pytracecon.outputs import Piece
from pytracecon.outputs.keys import keys, values
from pytracecon.outputs.sink import OutputFailed, Sink
from pytracecon.text import one_line
from pytracecon.views.sentence import sentence

__all__ = ["COMMON", "OURS", "SOCKET", "Fields", "Journal", "JournalSink", "entry", "fields"]

SOCKET = "/run/systemd/journal/socket"

OURS = "PYTRACECON_"
COMMON = (("PRIORITY", "5"), ("SYSLOG_IDENTIFIER", "pytracecon"))
"""Of every entry but a loss: a notice, as tcpstates has it."""

_WARNING = "4"
# A control character besides the newline would be stored as well, but one way for all that is odd is enough.
_PLAIN = re.compile(rb"[^\x00-\x1f\x7f]*")
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

Fields = Iterable[tuple[str, Any]]


class Journal:
    """Entries as the socket takes them, a piece each. `of` tells an event's fields; a list is a field for each."""

    def __init__(self, of: Callable[[Event], Fields] | None = None) -> None:
        self._fields = fields if of is None else of

    def header(self) -> bytes:
        return b""

    def render(self, events: Iterable[Event]) -> list[Piece]:
        return [(entry(self._fields(event)), 1) for event in events]


class JournalSink(Sink):
    """A datagram for each piece. Raises `OutputFailed` if nobody listens at `path`."""

    def __init__(self, path: str = SOCKET) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
                asking.connect(path)
        except OSError as error:
            self._socket.close()
            why = "the path is too long" if error.errno is None else error.strerror
            raise OutputFailed(
                one_line(f"{path}: no journal takes entries there: {why}; start systemd-journald, or give its socket")
            ) from None
        super().__init__(self._socket.fileno(), path)
        self._path = path

    @property
    def has_reader(self) -> bool:
        """Nobody who could leave: a journal that ends and starts again has the same socket."""
        return False

    @property
    def can_reopen(self) -> bool:
        return False

    def begin(self, header: bytes) -> None:
        """A journal has no beginning."""

    def flush(self) -> None:
        """Raises `OutputFailed` when an entry cannot be sent; then all that is left is counted."""
        while self._pieces:
            data, events = self._pieces[0]
            try:
                if data:
                    self._send(data)
            except OSError as error:
                lost = sum(events for _, events in self._pieces)
                self.unwritten += lost
                self._pieces.clear()
                said = f"{self._path}: the journal takes no more: {error.strerror}; {lost} events lost"
                raise OutputFailed(one_line(f"{said}; look after systemd-journald, then start again")) from None
            self.written += events
            del self._pieces[0]
        self._size = 0

    def close(self) -> None:
        self._socket.close()

    def _send(self, data: bytes) -> None:
        try:
            # To its name, not over a connection: a journal that was started again is another socket.
            self._socket.sendto(data, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_sealed(data)

    def _send_sealed(self, data: bytes) -> None:
        with open(os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "wb", buffering=0) as file:
            left = memoryview(data)
            while left:
                left = left[file.write(left) :]
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, _SEALS)
            # Not `send_fds`, which forgets the address.
            passed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file.fileno()))]
            self._socket.sendmsg([b""], passed, 0, self._path)


def entry(fields: Fields) -> bytes:
    """Fields as the socket takes them. What is not known is left out, and of several values each is a field."""
    return b"".join([_field(name, each) for name, value in fields for each in _each(value)])


def fields(event: Event, message: Callable[[Event], str] = sentence) -> Iterator[tuple[str, Any]]:
    """What an entry tells of an event: for people, as tcpstates does, and all of it."""
    yield "MESSAGE", message(event)
    yield from (dict(COMMON) | ({"PRIORITY": _WARNING} if isinstance(event, Lost) else {})).items()
    yield "OBJECT_PID", getattr(event, "pid", None)
    yield "OBJECT_COMM", getattr(event, "comm", None)
    for end, name in (("local", "SOURCE"), ("remote", "DESTINATION")):
        address = getattr(event, f"{end}_addr", None)
        if address is not None:
            yield f"OBJECT_{'IPV6' if ':' in address else 'IPV4'}_{name}_ADDRESS", address
        yield f"OBJECT_TCP_{name}_PORT", getattr(event, f"{end}_port", None)
    if isinstance(event, State):
        yield "OBJECT_TCP_OLD_STATE", event.old
        yield "OBJECT_TCP_NEW_STATE", event.new
        yield "OBJECT_TCP_SPAN_TIME", None if event.in_old_ns is None else event.in_old_ns // 1000
    yield f"{OURS}EVENT", event.event
    yield f"{OURS}TIME", event.time
    kind = type(event)
    for key, value in zip(keys(kind), values(kind)(event), strict=True):
        yield f"{OURS}{key.upper()}", value


def _each(value: Any) -> Iterable[Any]:
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple)) else (value,)


def _field(name: str, value: Any) -> bytes:
    data = _text(value).encode("utf-8", "backslashreplace")
    if _PLAIN.fullmatch(data):
        return b"%b=%b\n" % (name.encode(), data)
    return b"%b\n%b%b\n" % (name.encode(), struct.pack("<Q", len(data)), data)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
