"""The ends of connections, as the processes that hold them see them: every fact a tracer may tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from traffic.actor import DEADLINE, Actor, Address, Step

MAPPED = "::ffff:"
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


def unmapped(address: Address) -> Address:
    return address[0].removeprefix(MAPPED), address[1]


@dataclass(eq=False, slots=True)
class End:
    """One end of a connection.

    `opened` is the connect or accept that made it, `settled` the step that learnt the outcome, `syn` the one in
    which the first SYN left: one and the same for a plain blocking connect.
    """

    actor: Actor
    socket: int
    opened: Step
    settled: Step
    syn: Step
    direction: str
    owner: str
    local: Address | None
    remote: Address
    v4_mapped: bool
    cgroup: int | None
    sent: int = 0
    received: int = 0
    resent: int = 0
    rtt_ns: int = 0
    """Segments sent again and the round trip time, as the kernel had them just before the close."""
    peer: End | None = None
    proto: str = "tcp"
    by_worker: bool = False
    """io_uring let a worker thread of the process do it."""

    @classmethod
    def of(cls, actor: Actor, socket: int, opened: Step, remote: Address, *, direction: str, settled: Step) -> End:
        local = settled.local or opened.local
        return cls(
            actor=actor,
            socket=socket,
            opened=opened,
            settled=settled,
            syn=opened,
            direction=direction,
            owner="connect" if direction == "out" else "accept",
            local=unmapped(local) if local else None,
            remote=unmapped(settled.remote or remote),
            v4_mapped=remote[0].startswith(MAPPED),
            cgroup=actor.cgroup,
        )

    @property
    def error(self) -> str:
        return self.settled.errno

    def send(self, count: int, how: str = "send", *, by: Actor | None = None) -> Step:
        """Hand over `count` bytes; what the kernel took is added to `sent`."""
        step = (by or self.actor).attempt("send", self.socket, count, how)
        self.sent += step.result
        return step

    def receive(self, count: int, how: str = "recv") -> Step:
        """Read `count` bytes, or fewer at the end of the stream."""
        step = self.actor.attempt("recv", self.socket, count, how)
        self.received += step.result
        return step

    def receive_all(self, how: str = "recv") -> None:
        """Read all that the peer has sent so far."""
        assert self.peer
        step = self.receive(self.peer.sent - self.received, how)
        assert self.received == self.peer.sent, step

    def shutdown(self, how: str) -> None:
        self.actor.do("shutdown", self.socket, how)

    def await_end(self) -> None:
        """Until the peer's FIN or RST is here."""
        self.actor.do("await", self.socket, "end")

    def await_info(self, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Until this holds of what the kernel counts: nothing tells of it, so look again."""
        deadline = time.monotonic() + DEADLINE
        while not condition(info := self.info().extra):
            assert time.monotonic() < deadline, info
            time.sleep(0.005)

    def info(self) -> Step:
        return self.actor.do("info", self.socket)

    def close(self, *, by: Actor | None = None) -> Step:
        actor = by or self.actor
        last = actor.attempt("info", self.socket)
        self.resent, self.rtt_ns = last.extra.get("total_retrans", 0), last.extra.get("rtt", 0) * 1000
        return actor.do("close", self.socket)

    def reset(self) -> Step:
        """Close with a RST."""
        self.set("SO_LINGER", 0)
        return self.close()

    def set(self, option: str, value: int) -> None:
        self.actor.do("set", self.socket, option, value)


@dataclass(eq=False, slots=True)
class Listener:
    """A listening socket and where it is reached."""

    actor: Actor
    socket: int
    address: Address
    proto: str
    opened: Step

    def accept(self, how: str = "", *, by: Actor | None = None) -> End:
        """Take the next connection, in whichever process or thread shall do it."""
        actor = by or self.actor
        end = self.accepted(actor, actor.do("accept", self.socket, how))
        end.by_worker = how == "uring-async"
        return end

    def accepted(self, actor: Actor, step: Step) -> End:
        """The end that an accept gave."""
        assert step.remote
        end = End.of(actor, step.fd, step, step.remote, direction="in", settled=step)
        end.proto = self.proto
        return end

    def accept_waiting(self) -> list[End]:
        """All that waits now, of a nonblocking listener."""
        ends = []
        while not (step := self.actor.attempt("accept", self.socket)).errno:
            ends.append(self.accepted(self.actor, step))
        assert step.errno == "EAGAIN", step
        return ends

    def pending(self, peer: End) -> End:
        """The end that waits to be accepted: the listener's, as nobody else has it."""
        assert peer.local
        end = End.of(self.actor, -1, self.opened, peer.local, direction="in", settled=peer.settled)
        end.local, end.remote, end.owner = peer.remote, peer.local, "listen"
        end.syn, end.peer, end.proto = peer.syn, peer, self.proto
        peer.peer = end
        return end

    def close(self, *, by: Actor | None = None) -> None:
        (by or self.actor).do("close", self.socket)


def listen(
    actor: Actor,
    addr: str = "127.0.0.1",
    port: int = 0,
    *,
    backlog: int = 64,
    how: str = "",
    mptcp: bool = False,
    options: dict[str, int] | None = None,
) -> Listener:
    """A listener; port 0 takes any that is free. `how`: nonblock, or nothing."""
    family = 6 if ":" in addr else 4
    socket = actor.do("socket", family, how, "mptcp" if mptcp else "").fd
    for name, value in {"SO_REUSEADDR": 1, **(options or {})}.items():
        actor.do("set", socket, name, value)
    actor.do("bind", socket, addr, port)
    opened = actor.do("listen", socket, backlog)
    assert opened.local
    return Listener(actor, socket, opened.local, "mptcp" if mptcp else "tcp", opened)


@dataclass(eq=False, slots=True)
class Attempt:
    """An outbound attempt on its way; `finish` waits for its outcome."""

    actor: Actor
    socket: int
    to: Address
    source: Address | None
    proto: str
    opened: Step
    by_worker: bool = False

    def finish(self, *, by: str = "outcome") -> End:
        """The end, when the outcome is known; `by` an outcome step, or a second connect() that asks for it."""
        settled = self.opened
        if settled.errno == "EINPROGRESS":
            settled = self.actor.attempt(by, self.socket, *(self.to if by == "connect" else ()))
        return self._end(settled)

    def give_up(self, how: Callable[[End], object]) -> End:
        """The end of an attempt that its process ended before there was an outcome."""
        end = self._end(self.opened)
        how(end)
        mono, wall = self.opened.mono[0], self.opened.wall[0]
        end.settled = replace(self.opened, mono=(mono, time.monotonic_ns()), wall=(wall, time.time_ns()))
        return end

    def _end(self, settled: Step) -> End:
        end = End.of(self.actor, self.socket, self.opened, self.to, direction="out", settled=settled)
        if settled.errno:
            end.local = unmapped(self.source) if self.source else None
        end.proto, end.by_worker = self.proto, self.by_worker
        return end

    def await_resent(self) -> None:
        """Until the SYN was sent again."""
        self.actor.do("await", self.socket, "resent")


def begin_connect(
    actor: Actor,
    to: Address,
    *,
    how: str = "nonblock",
    source: Address | None = None,
    mptcp: bool = False,
    options: dict[str, int] | None = None,
    socket: int | None = None,
) -> Attempt:
    """Ask for a connection. `how`: nonblock, uring, uring-async, or nothing for a plain blocking connect."""
    if socket is None:
        nonblock = "nonblock" if how == "nonblock" else ""
        socket = actor.do("socket", 6 if ":" in to[0] else 4, nonblock, "mptcp" if mptcp else "").fd
    for name, value in (options or {}).items():
        actor.do("set", socket, name, value)
    if source:
        actor.do("set", socket, "SO_REUSEADDR", 1)
        actor.do("bind", socket, *source)
    opened = actor.attempt("connect", socket, *to, how)
    return Attempt(actor, socket, to, source, "mptcp" if mptcp else "tcp", opened, how == "uring-async")


def blocked_connect(actor: Actor, to: Address, source: Address) -> Attempt:
    """A blocking connect that is not waited for; when this returns, its SYN has left."""
    socket = actor.do("socket", 4 if ":" not in to[0] else 6).fd
    bound = actor.do("bind", socket, *source)
    actor.begin("connect", socket, *to)
    while " 02 " not in Path(f"/proc/{actor.pid}/net/tcp").read_text():  # SYN_SENT; nothing tells of it
        time.sleep(0.001)
    opened = replace(bound, mono=(bound.mono[0], time.monotonic_ns()), wall=(bound.wall[0], time.time_ns()))
    return Attempt(actor, socket, to, source, "tcp", opened)


def connect(actor: Actor, to: Address, *, how: str = "", **options: Any) -> End:
    """An outbound attempt, seen through to its outcome, whatever it is."""
    return begin_connect(actor, to, how=how, **options).finish()


def pair(
    client: Actor,
    listener: Listener,
    *,
    to: str = "",
    how: str = "",
    accept: str = "",
    by: Actor | None = None,
    source: Address | None = None,
) -> tuple[End, End]:
    """An accepted connection: the client's end and the server's."""
    address = (to or listener.address[0], listener.address[1])
    near = connect(client, address, how=how, source=source, mptcp=listener.proto == "mptcp")
    assert not near.error, near.error
    far = listener.accept(accept, by=by)
    assert far.remote == near.local, "accepted somebody else"
    near.peer, far.peer = far, near
    return near, far


def close(first: End, second: End) -> None:
    """The first closes, the second learns of it and closes too."""
    first.close()
    second.await_end()
    second.close()


def join(nears: list[End], fars: list[End]) -> list[tuple[End, End]]:
    """Both ends of each connection, by their ports."""
    by_port = {far.remote: far for far in fars}
    pairs = [(near, by_port[near.local]) for near in nears if near.local]
    for near, far in pairs:
        near.peer, far.peer = far, near
    return pairs


def fast_open(client: Actor, listener: Listener, count: int) -> End:
    """sendto(MSG_FASTOPEN): there is no connect(), the data ask for the connection."""
    socket = client.do("socket", 4).fd
    step = client.attempt("fastopen", socket, count, *listener.address)
    end = End.of(client, socket, step, listener.address, direction="out", settled=step)
    end.sent = step.result
    return end
