"""UDP sockets as the processes that hold them see them, and what a tracer must tell of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pytracecon import Event, Flow
from traffic.actor import Actor, Address, Step
from traffic.end import MAPPED, unmapped
from traffic.network import Network

ROOM = 65_536
FACTS = (
    "pid",
    "v4_mapped",
    "tx_bytes",
    "tx_packets",
    "rx_bytes",
    "rx_packets",
    "direction",
    "ended",
    "app",
    "partial",
    "pre_existing",
    "nat",
)


@dataclass(eq=False, slots=True)
class Socket:
    """A UDP socket in the hands of a process. Others may hold it, too: see `held_by`."""

    actor: Actor
    fd: int
    address: Address

    def held_by(self, actor: Actor, fd: int | None = None) -> Socket:
        return replace(self, actor=actor, fd=self.fd if fd is None else fd)

    def connect(self, to: Address) -> Socket:
        step = self.actor.do("connect", self.fd, *to)
        assert step.local
        self.address = step.local
        return self

    def tell(self, count: int, to: Address, how: str = "sendto") -> Step:
        """One datagram (with sendmmsg: three) to somebody."""
        step = self.actor.do("tell", self.fd, count, *to, how)
        assert step.local
        self.address = step.local
        return step

    def send(self, count: int, how: str = "send") -> Step:
        """To whom it is connected."""
        return self.actor.do("send", self.fd, count, how)

    def hear(self, how: str = "recvfrom", room: int = ROOM) -> Step:
        """One datagram."""
        return self.actor.do("hear", self.fd, room, how)

    def set(self, option: str, value: int) -> None:
        self.actor.do("set", self.fd, option, value)

    def close(self) -> None:
        self.actor.do("close", self.fd)

    def flow(self, remote: Address | None, *, sent: str = "", received: str = "", **facts: Any) -> Told:
        """What is to be told of it and this remote: `sent` and `received` are the sizes of all datagrams."""
        out, back = ([int(size) for size in each.split()] for each in (sent, received))
        told = {
            "pid": self.actor.pid,
            "local": unmapped(self.address),
            "remote": None if remote is None else unmapped(remote),
            "v4_mapped": True if remote is not None and remote[0].startswith(MAPPED) else None,
            "tx_bytes": sum(out),
            "tx_packets": len(out),
            "rx_bytes": sum(back),
            "rx_packets": len(back),
            "direction": "out" if out else "in",
            "ended": "closed",
            "app": None,
            "partial": None,
            "pre_existing": None,
            "nat": None,
        }
        return tuple(sorted((told | facts).items()))


Told = tuple[tuple[str, Any], ...]
"""The facts of a flow by name, in order."""


def udp(actor: Actor, family: int = 4, *, bound: Address | None = None, to: Address | None = None) -> Socket:
    """A socket that is bound (to a port of the kernel's choice, with 0), connected, or neither."""
    socket = Socket(actor, actor.do("udp", family).fd, ("", 0))
    if bound:
        step = actor.do("bind", socket.fd, *bound)
        assert step.local
        socket.address = step.local
    return socket.connect(to) if to else socket


def flows(events: list[Event], network: Network) -> list[Flow]:
    return [event for event in events if isinstance(event, Flow) and event.netns == network.inode]


def told_of(event: Flow) -> Told:
    """A flow in the words of `Socket.flow`."""
    facts: dict[str, Any] = {name: getattr(event, name) for name in FACTS}
    facts["local"] = event.local_addr, event.local_port
    facts["remote"] = None if event.remote_port is None else (event.remote_addr, event.remote_port)
    return tuple(sorted(facts.items()))
