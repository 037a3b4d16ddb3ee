"""`Joiner`: from what the kernel side tells of names to `lookup` events, and to the host of each connection.

Everything comes in the ring's order, so what a process was told before it connected is known here before it connects.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Container
from typing import TYPE_CHECKING

from pytracecon.clock import SECOND
from pytracecon.events import ConnectionEvent, Event, Lookup
from pytracecon.names.claims import Claims
from pytracecon.names.libc_results import code_name, host_of, is_numeric, text_of
from pytracecon.names.records import HelloPart, LibcPart, MessagePart, ProcessKey, ProgramStarted

if TYPE_CHECKING:
    from pytracecon.connections import Connection
    from pytracecon.filters import Filters
    from pytracecon.names.dns.exchange import Answered, Exchanges
    from pytracecon.names.hello import ServerNames
    from pytracecon.names.parts import Part
    from pytracecon.names.records import Asker
    from pytracecon.names.reverse import Reverse
    from pytracecon.owners.processes import Owners

__all__ = ["Host", "Joiner"]

LIFETIME = 600 * SECOND
"""How long a name is believed that came without one of its own, as libcs' answers do."""
_SWEEP_EVERY = SECOND
_ROOT_CGROUP = 1
_CALLS = 4096
_ADDRESSES = 1024
_FEW = 16384

Host = tuple[str, str, list[str] | None]
"""`host`, `host_source`, and all candidates where there are several."""


class _Everything:
    """Contains whatever is asked for."""

    def __contains__(self, _: object) -> bool:
        return True


class Joiner:
    """One per tracer. `address` renders sixteen bytes; `started` is told of programs that may bring a new libc."""

    def __init__(
        self,
        filters: Filters,
        address: Callable[[bytes], str | None],
        started: Callable[[ProgramStarted], None],
        owners: Owners | None = None,
    ) -> None:
        self._tells = "lookup" in filters.events
        self._most = filters.max_connections
        self._address = address
        self._started = started
        self._owners = owners
        self._on_address: list[Callable[[bytes], None]] = []
        self._on_reset: list[Callable[[], None]] = []
        self._named: set[bytes] = set()
        self._claims = Claims(on_address=self._claimed)
        self._calls: OrderedDict[int, LibcPart] = OrderedDict()
        self._exchanges: Exchanges | None = None
        self._hellos: ServerNames | None = None
        self._server_names: OrderedDict[int, tuple[str, bytes]] = OrderedDict()
        self._hosts: OrderedDict[int, tuple[Host, bytes]] = OrderedDict()
        self._reverse: Reverse | None = None
        self._told = 0
        self._swept = 0
        self._enough = _FEW
        if filters.reverse:
            from pytracecon.names.reverse import Reverse  # noqa: PLC0415 - threads are for those who ask for them

            self._reverse = Reverse()

    @property
    def addresses(self) -> Container[bytes]:
        """Remotes whose connections may have a name: of others, nobody has to ask."""
        return self._named if self._reverse is None else _Everything()

    @property
    def asks_back(self) -> bool:
        """Any event may get a name."""
        return self._reverse is not None

    def watch(self, on_address: Callable[[bytes], None], on_reset: Callable[[], None]) -> None:
        """`on_address` is called with each address that may have a name from now on; `on_reset` when none may."""
        self._on_address.append(on_address)
        self._on_reset.append(on_reset)
        for address in self._named:
            on_address(address)

    @property
    def evicted(self) -> int:
        """Names, questions and beginnings of connections that had to go for others before their time."""
        others = (self._exchanges, self._hellos)
        return self._claims.evicted + sum(each.evicted for each in others if each is not None)

    def _claimed(self, address: bytes) -> None:
        self._named.add(address)
        for note in self._on_address:
            note(address)

    def take(self, part: Part, offset_ns: int) -> list[Event]:
        """The events that this record completes: at most a few, mostly none."""
        events = self._taken(part, offset_ns)
        self._told += len(events)
        return events

    def counted(self) -> int:
        """How many lookups `take` gave since this was asked last."""
        count, self._told = self._told, 0
        return count

    def _taken(self, part: Part, offset_ns: int) -> list[Event]:
        if part.time - self._swept > _SWEEP_EVERY:
            self._sweep(part.time)
        match part:
            case LibcPart():
                return self._returned(part, offset_ns)
            case MessagePart():
                return self._answered(self._dns().take(part), offset_ns)
            case HelloPart():
                self._greeted(part)
            case ProgramStarted():
                self._started(part)
        return []

    @property
    def deadline(self) -> int | None:
        """When a query that is still unanswered will have waited long enough, by the kernel's clock."""
        return None if self._exchanges is None else self._exchanges.deadline

    def expired(self, now: int, offset_ns: int) -> list[Event]:
        """The lookups that ended without an answer by `now`."""
        return [] if self._exchanges is None else self._answered(self._exchanges.expired(now), offset_ns)

    def _sweep(self, now: int) -> None:
        self._swept = now
        self._claims.sweep(now)
        if len(self._named) > self._enough:
            self._forget_addresses()

    def _forget_addresses(self) -> None:
        """Of those that had a name once, keep what may still be asked for."""
        self._named.clear()  # and not another set: whoever decodes holds this one
        self._named.update(self._claims.addresses())
        self._named.update(remote for _, remote in self._server_names.values())
        self._named.update(remote for _, remote in self._hosts.values())
        self._enough = max(_FEW, 2 * len(self._named))
        for reset, note in zip(self._on_reset, self._on_address, strict=True):
            reset()
            for address in self._named:
                note(address)

    def _returned(self, part: LibcPart, offset_ns: int) -> list[Event]:
        """A libc's resolver returned; long answers come in parts."""
        begun = self._calls.pop(part.call, None)
        if begun is not None:
            begun.addresses = (begun.addresses + part.addresses)[:_ADDRESSES]
            begun.addresses_cut |= part.addresses_cut
            begun.more = part.more
            part = begun
        if part.more:
            self._calls[part.call] = part
            if len(self._calls) <= _CALLS:
                return []
            _, part = self._calls.popitem(last=False)  # its last part was lost
            part.addresses_cut = True
        return self._looked_up(part, offset_ns)

    def _looked_up(self, part: LibcPart, offset_ns: int) -> list[Event]:
        if part.name is None:
            return []
        name = text_of(part.name)
        if is_numeric(name):
            return []
        host = None if part.name_cut else host_of(name)
        asker = part.asker
        if host is not None and part.addresses and part.code == 0:
            self._claims.learn(
                asker.process, asker.uid, part.addresses, host, part.function, part.time, part.time + LIFETIME
            )
        if not (self._tells and part.wanted):
            return []
        lookup = self._lookup(asker, part.time + offset_ns)
        lookup.name = name
        lookup.addresses = self._rendered(part.addresses)
        lookup.latency_ns = part.latency_ns
        lookup.result = code_name(part.function, part.code)
        lookup.source = part.function
        lookup.partial = True if part.name_cut or part.addresses_cut else None
        return [lookup]

    def _dns(self) -> Exchanges:
        if self._exchanges is None:
            from pytracecon.names.dns.exchange import Exchanges  # noqa: PLC0415 - for those who meet such packets

            self._exchanges = Exchanges()
        return self._exchanges

    def _answered(self, answers: list[Answered], offset_ns: int) -> list[Event]:
        events: list[Event] = []
        for answer in answers:
            if answer.result == "ok" and answer.addresses:
                self._learn(answer, answer.asker)
            if self._tells and answer.wanted and not self._is_ours(answer):
                events.append(self._lookup_of(answer, offset_ns))
        return events

    def _is_ours(self, answer: Answered) -> bool:
        """Asked for --reverse, by ourselves."""
        return self._reverse is not None and answer.type == "PTR" and answer.asker.process.pid == os.getpid()

    def _learn(self, answer: Answered, asker: Asker) -> None:
        host = host_of(answer.name)
        if host is None:
            return
        until = answer.time + max(1, answer.ttl or 0) * SECOND
        what = (asker.uid, answer.addresses, host, "dns", answer.time, until)
        if not answer.within:  # else the libc's own answer comes in a moment, under the name that it was asked for
            self._claims.learn(asker.process, *what)
            self._claims.learn_for_relatives(answer.ancestors, *what)
        if answer.by_server and not answer.behalf and asker.cgroup > _ROOT_CGROUP:
            self._claims.learn_for_cgroup(asker.cgroup, *what)

    def _lookup_of(self, answer: Answered, offset_ns: int) -> Lookup:
        lookup = self._lookup(answer.asker, answer.time + offset_ns)
        lookup.name = answer.name
        lookup.type = answer.type
        lookup.addresses = self._rendered(answer.addresses)
        lookup.latency_ns = answer.latency_ns
        lookup.result = answer.result
        lookup.source = "dns"
        lookup.server = self._address(answer.server)
        lookup.within = "libc" if answer.within else None
        lookup.partial = True if answer.partial and answer.addresses else None
        return lookup

    def _lookup(self, asker: Asker, time_ns: int) -> Lookup:
        owner = (asker.number, asker.cgroup, asker.process.pid, asker.process.born)
        return Lookup(
            time_ns,
            netns=asker.netns or None,
            pid=asker.process.pid,
            comm=asker.comm,
            uid=asker.uid,
            tid=asker.tid,
            thread=asker.thread,
            cgroup=asker.cgroup or None,
            process=self._owners.of(owner) if self._owners is not None and asker.number else None,
        )

    def _rendered(self, addresses: tuple[bytes, ...]) -> list[str] | None:
        return [text for address in dict.fromkeys(addresses) if (text := self._address(address)) is not None] or None

    def _greeted(self, part: HelloPart) -> None:
        if self._hellos is None:
            from pytracecon.names.hello import ServerNames  # noqa: PLC0415 - for those who meet TLS

            self._hellos = ServerNames()
        name = self._hellos.take(part)
        if name is None:
            return
        self._server_names[part.conn] = name, part.remote_addr
        if len(self._server_names) > self._most:
            self._server_names.popitem(last=False)
        self._claimed(part.remote_addr)

    def label(
        self,
        event: ConnectionEvent | Connection,
        conn: int,
        process: tuple[int, int],
        cgroup: int,
        remote: bytes,
        began: int | None,
    ) -> None:
        """Give `event` the name of its remote, if one belongs to this connection.

        `began` is its first SYN. Without that nothing is decided: a name may be younger than the connection.
        """
        host = self.begin(conn, process, cgroup, remote, began)
        if host is None:
            self.label_by_address(event, remote)
        else:
            event.host, event.host_source, event.host_candidates = host

    def begin(self, conn: int, process: tuple[int, int], cgroup: int, remote: bytes, began: int | None) -> Host | None:
        """What is known of the name, remembered until the connection is over."""
        host, _ = self._hosts.get(conn, (None, remote))
        if host is None or host[2] is not None:
            host = host or (None if began is None else self._decided(process, cgroup, remote, began))
            server_name, _ = self._server_names.pop(conn, (None, remote))
            if server_name is not None:
                host = _with(server_name, host)
            if host is not None:
                self._hosts[conn] = host, remote
                if len(self._hosts) > self._most:
                    self._hosts.popitem(last=False)
        return host

    def label_by_address(self, event: ConnectionEvent | Connection, remote: bytes) -> None:
        """With --reverse: the name that the address has, once that is known. It is asked for, and not waited for."""
        if self._reverse is None:
            return
        name = self._reverse.name_of(remote)
        if name is None:
            self._reverse.ask(remote)
        else:
            event.host, event.host_source = name, "ptr"

    def _decided(self, process: tuple[int, int], cgroup: int, remote: bytes, began: int) -> Host | None:
        claims = self._claims.claims_of(ProcessKey(*process), cgroup, remote, began)
        if not claims:
            return None
        latest = claims[0]
        return latest.name, latest.source, [claim.name for claim in claims] if len(claims) > 1 else None

    def over(self, conn: int) -> None:
        """The connection has ended: what was decided for it is of no more use."""
        self._hosts.pop(conn, None)
        self._server_names.pop(conn, None)

    def close(self) -> None:
        if self._reverse is not None:
            self._reverse.close()


def _with(server_name: str, host: Host | None) -> Host:
    """What the connection itself says decides between several names, and is one where there is none."""
    if host is None:
        return server_name, "sni", None
    name, source, candidates = host
    fitting = [each for each in candidates or () if each.lower() == server_name]
    return (fitting[0], source, None) if fitting else (name, source, candidates)
