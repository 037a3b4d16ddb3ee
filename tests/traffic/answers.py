"""A name server that answers as a test wants: late, never, cut short, in pieces, with any code, or with rubbish."""

from __future__ import annotations

import ctypes
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said of one name: `records` as in a zone file, ("A", "127.0.0.1") or ("CNAME", "other.test.")."""

    records: tuple[tuple[str, str], ...] = ()
    ttl: int = 60
    rcode: str = "NOERROR"
    after: float = 0.0
    """Seconds that the answer takes."""
    silent: bool = False
    short: bool = False
    """By UDP it comes truncated, whatever its size."""
    in_pieces: bool = False
    """By TCP each byte comes alone."""
    rubbish: Callable[[bytes], bytes] | None = None
    """What becomes of the right answer's bytes."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that arrived, and when it was answered, by the monotonic clock."""

    name: str
    type: str
    transport: str
    port: int
    arrived: int
    left: int | None


def addresses(*all_addresses: str, **facts: object) -> Answer:
    """These addresses of both families."""
    records = tuple(("AAAA" if ":" in each else "A", each) for each in all_addresses)
    return Answer(records, **facts)  # type: ignore[arg-type] # facts are fields


class NameServer:
    """Serves on port 53 of these addresses, inside a network namespace. `says` may change at any time."""

    def __init__(self, namespace: str, *where: str) -> None:
        self.says: dict[str, Answer] = {}
        self.asked: list[Asked] = []
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._selector = selectors.DefaultSelector()
        self._ended, ours = socket.socketpair()
        self._selector.register(ours, selectors.EVENT_READ, None)
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(namespace, where))
        self._thread.start()
        self._ready.wait()
        if self._failure:
            self.close()

    def close(self) -> None:
        """Raises what went wrong in the server."""
        self._ended.close()
        self._thread.join()
        if self._failure:
            raise self._failure

    def questions(self, name: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.name == name]

    def _run(self, namespace: str, where: tuple[str, ...]) -> None:
        try:
            _enter(namespace)
            for addr in where:
                self._listen(addr)
            self._ready.set()
            while self._turn():
                pass
        except BaseException as failure:  # noqa: BLE001 - close() raises it in the test's thread
            self._failure = failure
        finally:
            self._ready.set()
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr] # only sockets are registered
            self._selector.close()

    def _listen(self, addr: str) -> None:
        family = socket.AF_INET6 if ":" in addr else socket.AF_INET
        datagrams = socket.socket(family, socket.SOCK_DGRAM)
        datagrams.bind((addr, 53))
        self._selector.register(datagrams, selectors.EVENT_READ, self._take_datagram)
        streams = socket.create_server((addr, 53), family=family)
        self._selector.register(streams, selectors.EVENT_READ, self._take_connection)

    def _turn(self) -> bool:
        now = time.monotonic()
        for entry in [entry for entry in self._due if entry[0] <= now]:
            self._due.remove(entry)
            entry[1]()
        soonest = min((when for when, _ in self._due), default=None)
        for key, _ in self._selector.select(None if soonest is None else max(0.0, soonest - now)):
            if key.data is None:
                return False
            key.data(key.fileobj)
        return True

    def _take_datagram(self, sock: socket.socket) -> None:
        query, peer = sock.recvfrom(65535)
        self._answer(query, "udp", peer[1], lambda wire, _: sock.sendto(wire, peer))

    def _take_connection(self, listener: socket.socket) -> None:
        stream, peer = listener.accept()
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        conversation = _Conversation(stream, partial(self._answer, transport="tcp", port=peer[1]))
        self._selector.register(stream, selectors.EVENT_READ, lambda _: self._listen_on(conversation))

    def _listen_on(self, conversation: _Conversation) -> None:
        if not conversation.read():
            self._selector.unregister(conversation.stream)
            conversation.stream.close()

    def _answer(self, query: bytes, transport: str, port: int, send: Callable[[bytes, bool], object]) -> None:
        arrived = time.monotonic_ns()
        question = dns.message.from_wire(query)
        name = question.question[0].name.to_text(omit_final_dot=True).lower()
        kind = dns.rdatatype.to_text(question.question[0].rdtype)
        says = self.says.get(name, Answer(rcode="NXDOMAIN"))
        wire = _wire(question, says, transport)

        def reply() -> None:
            # Noted before it leaves: whoever has the answer finds it noted.
            self.asked.append(Asked(name, kind, transport, port, arrived, time.monotonic_ns()))
            send(wire, says.in_pieces)

        if says.silent:
            self.asked.append(Asked(name, kind, transport, port, arrived, None))
        elif says.after:
            self._due.append((time.monotonic() + says.after, reply))
        else:
            reply()


@dataclass
class _Conversation:
    """Questions by TCP: each has its length before it."""

    stream: socket.socket
    answer: Callable[..., None]
    left: bytes = field(default=b"")

    def read(self) -> bool:
        """Whether there may be more."""
        got = self.stream.recv(65535)
        self.left += got
        while len(self.left) >= 2 and len(self.left) >= 2 + int.from_bytes(self.left[:2]):
            size = int.from_bytes(self.left[:2])
            query, self.left = self.left[2 : 2 + size], self.left[2 + size :]
            self.answer(query, send=self._send)
        return bool(got)

    def _send(self, wire: bytes, in_pieces: bool) -> None:
        framed = len(wire).to_bytes(2) + wire
        for at in range(0, len(framed), 1 if in_pieces else len(framed)):
            self.stream.send(framed[at : at + 1] if in_pieces else framed)


def _enter(namespace: str) -> None:
    """Only the calling thread moves, and stays there."""
    with open(namespace) as place:
        if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


def _wire(question: dns.message.Message, says: Answer, transport: str) -> bytes:
    answer = dns.message.make_response(question, recursion_available=True)
    answer.set_rcode(dns.rcode.from_text(says.rcode))
    asked = question.question[0]
    owner = asked.name
    sets: dict[tuple[dns.name.Name, str], list[str]] = {}
    for kind, value in says.records:
        if kind == "CNAME" or kind == dns.rdatatype.to_text(asked.rdtype):
            sets.setdefault((owner, kind), []).append(value)
        if kind == "CNAME":
            owner = dns.name.from_text(value)
    answer.answer = [dns.rrset.from_text_list(name, says.ttl, "IN", kind, each) for (name, kind), each in sets.items()]
    room = max(512, question.payload) if transport == "udp" else 65535
    wire = answer.to_wire(max_size=65535)
    if transport == "udp" and (says.short or len(wire) > room):
        answer.answer = []
        answer.flags |= dns.flags.TC
        wire = answer.to_wire()
    return says.rubbish(wire) if says.rubbish else wire
