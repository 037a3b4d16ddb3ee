"""Snapshots, and the events between them, added up: a picture of connections, and of their processes and hosts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from pytracecon.clock import SECOND
from pytracecon.connections import Connection
from pytracecon.events import Accept, ConnectionEvent, Established, Event, Failed, Lookup, Lost
from pytracecon.lives import Lives
from pytracecon.snapshots import Snapshot

__all__ = ["BY", "HISTORY", "Board", "Group", "Item", "Key", "Picture", "key_of", "waits"]

BY = ("process", "connection", "host")
"""What a row can be."""

HISTORY = 20
"""Refreshes whose rates are remembered."""

_LINGERS = 5
"""Refreshes for which a row stays that has ended: what lives shorter than the eye takes would never be seen."""
_MOST_ENDED = 1000
_MOST_TOTALS = 10_000
_MOST_LIVES = 8192
_MOST_EVENTS = 8192

GroupKey: TypeAlias = tuple[str, int | str | None]
"""`process` or `host`, and which: the pid, or without one the command; the name or address."""

Key: TypeAlias = str | GroupKey | None
"""Of a connection it is its identity."""

Rates: TypeAlias = Mapping[Key, tuple[float, float]]


@dataclass(slots=True, eq=False)
class Group:
    """The connections of a process, or those with a host. `name` is its command, or the host's name or address.

    Rates and counts per second are None as long as there is nothing to compare with. Bytes and retransmits count what
    ended while this was watched, too. `gone` is how many refreshes ago there was something of it.
    """

    key: GroupKey
    name: str | None
    pid: int | None
    tx_rate: float | None
    rx_rate: float | None
    new: float | None
    failed: float | None
    connections: int = 0
    listeners: int = 0
    tx_bytes: int = 0
    rx_bytes: int = 0
    retransmits: int = 0
    gone: int = 0
    rtts: list[int] = field(default_factory=list)
    busiest: Connection | ConnectionEvent | None = None
    """Its connection with most bytes a second, or just one of them."""
    highest: float = -1.0

    @property
    def rtt_ns(self) -> int | None:
        """The median of its connections'."""
        return sorted(self.rtts)[len(self.rtts) // 2] if self.rtts else None


Item: TypeAlias = Connection | Group
"""What a row shows."""


def key_of(item: Item) -> Key:
    return item.conn if isinstance(item, Connection) else item.key


def waits(item: Connection) -> bool:
    """For others: it listens, or is a socket for datagrams that has no other end, and no totals of its own."""
    return item.outcome == "listening" or (item.remote_addr is None and item.proto == "udp" and item.tx_bytes is None)


@dataclass(slots=True, eq=False)
class Picture:
    """How things stood at `time_ns`. Of MPTCP connections the paths are in `paths`, by the connection's identity.

    Sums count no listener and no path: the connection that it is a path of counts.
    """

    time_ns: int
    left_out: int
    lost: int
    connections: list[Connection]
    paths: Mapping[str, list[Connection]]
    processes: list[Group]
    hosts: list[Group]
    tx_rate: float | None
    rx_rate: float | None
    new: float | None
    failed: float | None
    open: int
    listeners: int
    history: Sequence[Rates]
    """Of this refresh and those before it: bytes a second, out and in, of those that had any."""

    def rates(self, key: Key) -> list[tuple[float, float]]:
        """The latest last."""
        return [rates.get(key, (0.0, 0.0)) for rates in self.history]

    def find(self, conn: str) -> Connection | None:
        everything = (self.connections, *self.paths.values())
        return next((each for some in everything for each in some if each.conn == conn), None)


class Board:
    """Takes snapshots and the events between them, and remembers what the next picture needs of them.

    `lives` and `events` are what was told of late, for who wants to know more of a row.
    """

    def __init__(self) -> None:
        self.lives = Lives(most=_MOST_LIVES)
        self.events: deque[ConnectionEvent | Lookup] = deque(maxlen=_MOST_EVENTS)
        self._lost = 0
        self._history: deque[Rates] = deque(maxlen=HISTORY)
        self._ended: deque[tuple[int, Connection]] = deque(maxlen=_MOST_ENDED)
        self._totals: dict[Key, tuple[int, int, int]] = {}
        self._before: _Sums | None = None
        self._datagrams: frozenset[str] = frozenset()
        self._refreshes = 0

    def take(self, snapshot: Snapshot, events: Iterable[Event]) -> Picture:
        self._refreshes += 1
        sums = _Sums(None if not snapshot.elapsed_ns else snapshot.elapsed_ns / SECOND, self._totals)
        whole, paths, ended = _parted(snapshot)
        for connection in whole:
            sums.add(connection)
        for connection in ended:
            sums.add_ended(connection)
        self._count_conversations(whole, sums)
        for event in events:
            self._told(event, sums)
        self._forget_totals()
        if self._before is not None:
            sums.linger(self._before)
        self._before = sums
        sums.note_rates(paths.values())
        self._history.append(sums.rates)
        rows = whole + ended + self._still_shown()
        self._ended.extend((self._refreshes, each) for each in ended)
        return sums.picture(snapshot, rows, paths, history=tuple(self._history), lost=self._lost)

    def _told(self, event: Event, sums: _Sums) -> None:
        self.lives.take(event)
        if isinstance(event, Lost):
            self._lost += event.count
        elif isinstance(event, ConnectionEvent):
            self.events.append(event)
            if event.subflow_of is None and isinstance(event, (Established, Accept, Failed)):
                sums.count(event, failed=isinstance(event, Failed))
        elif isinstance(event, Lookup):
            self.events.append(event)

    def _count_conversations(self, whole: list[Connection], sums: _Sums) -> None:
        """No event tells of the beginning of a UDP conversation."""
        there = [each for each in whole if each.proto == "udp" and not waits(each)]
        if self._refreshes > 1:
            for each in there:
                if each.conn not in self._datagrams:
                    sums.count(each, failed=False)
        self._datagrams = frozenset(each.conn for each in there)

    def _still_shown(self) -> list[Connection]:
        while self._ended and self._ended[0][0] + _LINGERS < self._refreshes:
            self._ended.popleft()
        return [replace(each, tx_rate=0.0, rx_rate=0.0) for _, each in self._ended]

    def _forget_totals(self) -> None:
        while len(self._totals) > _MOST_TOTALS:
            del self._totals[next(iter(self._totals))]


def _parted(snapshot: Snapshot) -> tuple[list[Connection], dict[str, list[Connection]], list[Connection]]:
    """Those that are open, with listeners; the paths of MPTCP connections that are among them; those that ended."""
    parents = {each.conn for each in snapshot if each.proto == "mptcp"}
    whole: list[Connection] = []
    ended: list[Connection] = []
    paths: dict[str, list[Connection]] = {}
    for each in snapshot:
        if each.subflow_of is not None and each.subflow_of in parents:
            paths.setdefault(each.subflow_of, []).append(each)
        elif each.outcome in ("closed", "failed"):
            ended.append(each)
        else:
            whole.append(each)
    return whole, paths, ended


class _Sums:
    """Of one refresh. `seconds` is the time since the one before."""

    def __init__(self, seconds: float | None, totals: dict[Key, tuple[int, int, int]]) -> None:
        self.processes: dict[int | str | None, Group] = {}
        self.hosts: dict[str, Group] = {}
        self.rates: dict[Key, tuple[float, float]] = {}
        self._a_second = None if seconds is None else 1 / seconds
        self._none = None if seconds is None else 0.0
        self._totals = totals

    def _group(self, key: GroupKey, name: str | None, pid: int | None) -> Group:
        """With what ended of it before."""
        none = self._none
        group = Group(key, name, pid, tx_rate=none, rx_rate=none, new=none, failed=none)
        group.tx_bytes, group.rx_bytes, group.retransmits = self._totals.get(key, (0, 0, 0))
        return group

    def groups_of(self, item: Connection | ConnectionEvent) -> tuple[Group, ...]:
        """Its process and, where there is another end, its host."""
        who = item.comm if item.pid is None else item.pid
        process = self.processes.get(who)
        if process is None:
            process = self.processes[who] = self._group(("process", who), item.comm, item.pid)
        name = item.host or item.remote_addr
        if name is None or (type(item) is Connection and waits(item)):
            return (process,)
        host = self.hosts.get(name)
        if host is None:
            host = self.hosts[name] = self._group(("host", name), name, None)
        return process, host

    def add(self, item: Connection) -> None:
        groups = self.groups_of(item)
        if waits(item):
            groups[0].listeners += 1
            groups[0].busiest = groups[0].busiest or item
            return
        tx_bytes, rx_bytes, resent, rtt = item.tx_bytes, item.rx_bytes, item.retransmits, item.rtt_ns
        rate = 0.0
        if item.tx_rate or item.rx_rate:
            rate = self._add_rates(item, groups)
        for group in groups:
            group.connections += 1
            if tx_bytes:
                group.tx_bytes += tx_bytes
            if rx_bytes:
                group.rx_bytes += rx_bytes
            if resent:
                group.retransmits += resent
            if rtt:
                group.rtts.append(rtt)
            if rate > group.highest:
                group.highest, group.busiest = rate, item

    def add_ended(self, item: Connection) -> None:
        groups = self.groups_of(item)
        self._add_rates(item, groups)
        tx_bytes, rx_bytes, resent = item.tx_bytes or 0, item.rx_bytes or 0, item.retransmits or 0
        for group in groups:
            group.tx_bytes += tx_bytes
            group.rx_bytes += rx_bytes
            group.retransmits += resent
            group.busiest = group.busiest or item
            before = self._totals.pop(group.key, (0, 0, 0))
            self._totals[group.key] = before[0] + tx_bytes, before[1] + rx_bytes, before[2] + resent

    def _add_rates(self, item: Connection, groups: tuple[Group, ...]) -> float:
        tx_rate, rx_rate = item.tx_rate or 0.0, item.rx_rate or 0.0
        if not tx_rate and not rx_rate:
            return 0.0
        self.rates[item.conn] = tx_rate, rx_rate
        for group in groups:
            group.tx_rate = (group.tx_rate or 0.0) + tx_rate
            group.rx_rate = (group.rx_rate or 0.0) + rx_rate
        return tx_rate + rx_rate

    def count(self, item: Connection | ConnectionEvent, *, failed: bool) -> None:
        """A new one, or an attempt that failed."""
        if self._a_second is None:
            return
        for group in self.groups_of(item):
            group.busiest = group.busiest or item
            if failed:
                group.failed = (group.failed or 0.0) + self._a_second
            else:
                group.new = (group.new or 0.0) + self._a_second

    def linger(self, before: _Sums) -> None:
        """What was there a while ago, and has nothing any more."""
        for who, group in before.processes.items():
            if who not in self.processes and group.gone < _LINGERS:
                self.processes[who] = self._without_anything(group)
        for name, group in before.hosts.items():
            if name not in self.hosts and group.gone < _LINGERS:
                self.hosts[name] = self._without_anything(group)

    def _without_anything(self, before: Group) -> Group:
        group = self._group(before.key, before.name, before.pid)
        group.gone, group.busiest = before.gone + 1, before.busiest
        return group

    def note_rates(self, paths: Iterable[list[Connection]]) -> None:
        """Those of the groups and of paths, beside those of the connections."""
        for path in (path for some in paths for path in some):
            if path.tx_rate or path.rx_rate:
                self.rates[path.conn] = path.tx_rate or 0.0, path.rx_rate or 0.0
        for groups in (self.processes, self.hosts):
            for group in groups.values():
                if group.tx_rate or group.rx_rate:
                    self.rates[group.key] = group.tx_rate or 0.0, group.rx_rate or 0.0

    def _over_all(self, name: str) -> float | None:
        if self._none is None:
            return None
        return sum(getattr(group, name) or 0.0 for group in self.processes.values())

    def picture(
        self, snapshot: Snapshot, rows: list[Connection], paths: Mapping[str, list[Connection]], **more: Any
    ) -> Picture:
        return Picture(
            time_ns=snapshot.time_ns,
            left_out=snapshot.left_out,
            connections=rows,
            paths=paths,
            processes=list(self.processes.values()),
            hosts=list(self.hosts.values()),
            tx_rate=self._over_all("tx_rate"),
            rx_rate=self._over_all("rx_rate"),
            new=self._over_all("new"),
            failed=self._over_all("failed"),
            open=sum(group.connections for group in self.processes.values()),
            listeners=sum(group.listeners for group in self.processes.values()),
            **more,
        )
