"""What shall be traced, validated and normalised before anything is loaded.

`Filters.parse` takes the keywords of `Tracer`; the command line gives it the text of its options, unchanged. All
conditions must hold (AND); several values of one are alternatives (OR). A value that cannot be, and conditions that
together can never be met, raise `InvalidValue` with the option's name on the command line and what would be right.
"""

from __future__ import annotations

from typing import NamedTuple, TypedDict

from pytracecon.clock import SECOND
from pytracecon.errors import InvalidValue
from pytracecon.filters import files, hosts, networks, owners, places, ports, values
from pytracecon.filters.files import PathLike
from pytracecon.filters.hosts import PatternsLike
from pytracecon.filters.networks import Network, NetworksLike
from pytracecon.filters.ports import ALL_PORTS, PortRange, PortsLike
from pytracecon.filters.values import EVENTS, CommandsLike, EventsLike, NumberLike, NumbersLike, PlacesLike

__all__ = ["Filters", "Keywords"]

_PROBES = ("auto", "fentry", "kprobe", "tracepoint")
_OUTBOUND = frozenset({"connect", "established", "failed"})
_NAMELESS = frozenset({"accept", "existing", "lookup"})
_WITH_LATENCY = frozenset({"established", "failed", "close"})
_MAX_CONNECTIONS = 1 << 24


class Keywords(TypedDict, total=False):
    """What `Tracer(...)` and `Filters.parse(...)` take, as type checkers see it."""

    events: EventsLike | None
    pid: NumbersLike | None
    children: bool
    uid: NumbersLike | None
    comm: CommandsLike | None
    family: NumberLike | None
    port: PortsLike | None
    local_port: PortsLike | None
    remote: NetworksLike | None
    local: NetworksLike | None
    netns: PlacesLike | None
    cgroup: PlacesLike | None
    cgroupmap: PathLike | None
    mntnsmap: PathLike | None
    direction: str | None
    failed: bool
    min_latency: float | str | None
    not_port: PortsLike | None
    not_remote: NetworksLike | None
    existing: bool
    udp_idle: float | str
    names: bool
    reverse: bool
    processes: bool
    host: PatternsLike | None
    container: PatternsLike | None
    unit: PatternsLike | None
    exe: PatternsLike | None
    ring_size: NumberLike
    max_connections: NumberLike
    probes: str
    btf: PathLike | None
    libbpf: PathLike | None


class Filters(NamedTuple):
    """Values that are right. An empty tuple or `None` means: no such filter."""

    events: frozenset[str] = frozenset(EVENTS)
    pids: tuple[int, ...] = ()
    children: bool = False
    uids: tuple[int, ...] = ()
    comms: tuple[bytes, ...] = ()
    family: int | None = None
    remote_ports: tuple[PortRange, ...] = ()
    local_ports: tuple[PortRange, ...] = ()
    not_remote_ports: tuple[PortRange, ...] = ()
    remote: tuple[Network, ...] = ()
    local: tuple[Network, ...] = ()
    not_remote: tuple[Network, ...] = ()
    netns: tuple[int, ...] = ()
    cgroups: tuple[int, ...] = ()
    cgroupmap: str | None = None
    mntnsmap: str | None = None
    direction: str | None = None
    min_latency_ns: int = 0
    udp_idle_ns: int = 30 * SECOND
    names: bool = True
    reverse: bool = False
    processes: bool = True
    hosts: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    exes: tuple[str, ...] = ()
    ring_size: int = 8 << 20
    max_connections: int = 65536
    probes: str = "auto"
    btf: str | None = None
    libbpf: str | None = None

    @classmethod
    def parse(
        cls,
        *,
        events: EventsLike | None = None,
        pid: NumbersLike | None = None,
        children: bool = False,
        uid: NumbersLike | None = None,
        comm: CommandsLike | None = None,
        family: NumberLike | None = None,
        port: PortsLike | None = None,
        local_port: PortsLike | None = None,
        remote: NetworksLike | None = None,
        local: NetworksLike | None = None,
        netns: PlacesLike | None = None,
        cgroup: PlacesLike | None = None,
        cgroupmap: PathLike | None = None,
        mntnsmap: PathLike | None = None,
        direction: str | None = None,
        failed: bool = False,
        min_latency: float | str | None = None,
        not_port: PortsLike | None = None,
        not_remote: NetworksLike | None = None,
        existing: bool = False,
        udp_idle: float | str = 30,
        names: bool = True,
        reverse: bool = False,
        processes: bool = True,
        host: PatternsLike | None = None,
        container: PatternsLike | None = None,
        unit: PatternsLike | None = None,
        exe: PatternsLike | None = None,
        ring_size: NumberLike = "8M",
        max_connections: NumberLike = 65536,
        probes: str = "auto",
        btf: PathLike | None = None,
        libbpf: PathLike | None = None,
    ) -> Filters:
        names = values.flag("--no-names", names)
        filters = cls(
            events=_events(events, failed=failed, existing=existing, names=names),
            pids=places.pids("--pid", pid),
            children=values.flag("--children", children),
            uids=places.uids("--uid", uid),
            comms=values.comms("--comm", comm),
            family=None if family is None else int(values.choice("-4/-6", str(family), ("4", "6"))),
            remote_ports=ports.parse("--port", port),
            local_ports=ports.parse("--local-port", local_port),
            not_remote_ports=ports.parse("--not-port", not_port),
            remote=networks.parse("--remote", remote),
            local=networks.parse("--local", local),
            not_remote=networks.parse("--not-remote", not_remote),
            netns=places.network_namespaces("--netns", netns),
            cgroups=places.cgroups("--cgroup", cgroup),
            cgroupmap=files.pinned("--cgroupmap", cgroupmap),
            mntnsmap=files.pinned("--mntnsmap", mntnsmap),
            direction=None if direction is None else values.choice("--direction", direction, ("out", "in")),
            min_latency_ns=values.milliseconds("--min-latency", min_latency),
            udp_idle_ns=round(values.seconds("--udp-idle", udp_idle) * SECOND),
            names=names,
            reverse=values.flag("--reverse", reverse),
            processes=values.flag("--no-processes", processes),
            hosts=hosts.parse("--host", host),
            containers=owners.parse("--container", container),
            units=owners.parse("--unit", unit),
            exes=owners.parse("--exe", exe),
            ring_size=values.ring_size("--ring-size", ring_size),
            max_connections=values.number("--max-connections", max_connections, 1, _MAX_CONNECTIONS),
            probes=values.choice("--probes", probes, _PROBES),
            btf=files.btf("--btf", btf),
            libbpf=files.library("--libbpf", libbpf),
        )
        filters._refuse_the_impossible()
        if events is None and filters.of_connections:
            return filters._replace(events=filters.events - {"lookup"})
        return filters

    @property
    def of_connections(self) -> bool:
        """A condition is set that only a connection can meet: a lookup has no port. Then it must be asked for."""
        return bool(
            self.family
            or self.remote_ports
            or self.local_ports
            or self.not_remote_ports
            or self.remote
            or self.local
            or self.not_remote
            or self.direction
            or self.min_latency_ns
            or self.hosts
        )

    def _refuse_the_impossible(self) -> None:
        """A run that can never report anything is a mistake: better said now than found out after an hour."""
        if self.children and not self.pids:
            raise InvalidValue("--children: of which process? Give it with --pid")
        if self.direction == "in" and self.events and self.events <= _OUTBOUND:
            raise InvalidValue(
                f"--direction in: {_list(self.events)} events are of outbound connections only; "
                "leave it out, or ask for accept or close"
            )
        if self.direction == "out" and self.events == {"accept"}:
            raise InvalidValue("--direction out: accept events are of inbound connections only; leave it out")
        if self.min_latency_ns and (self.direction == "in" or not self.events & _WITH_LATENCY):
            raise InvalidValue(
                "--min-latency: only outbound connections have a latency, told by established, failed and close; "
                "leave it out, or ask for these"
            )
        self._refuse_without_names()
        self._refuse_without_processes()
        self._refuse_families_apart()
        wanted = self.remote_ports or (ALL_PORTS,)
        if all(ports.covers(self.not_remote_ports, one) for one in wanted):
            raise InvalidValue("--not-port: excludes every port that --port lets through; leave one of them out")

    def _refuse_without_names(self) -> None:
        if not self.names:
            for option, given in (("--reverse", self.reverse), ("--host", bool(self.hosts))):
                if given:
                    raise InvalidValue(
                        f"{option}: --no-names leaves every connection without a name; leave one of them out"
                    )
        if self.hosts and self.events and self.events <= {"lookup"}:
            raise InvalidValue(
                "--host: chooses connections, and only lookups are asked for; use pytracecon lookups --name"
            )
        if self.hosts and not self.reverse and (self.direction == "in" or self.events <= _NAMELESS):
            raise InvalidValue(
                "--host: only outbound connections have a name that was asked for; add --reverse, or leave it out"
            )

    def _refuse_without_processes(self) -> None:
        given = {"--container": self.containers, "--unit": self.units, "--exe": self.exes}
        for option, patterns in given.items():
            if patterns and not self.processes:
                raise InvalidValue(
                    f"{option}: --no-processes leaves nothing known of what owners are; leave one of them out"
                )

    def _refuse_families_apart(self) -> None:
        families = {4, 6} if self.family is None else {self.family}
        said = "" if self.family is None else f" and -{self.family}"
        for option, wanted in (("--remote", self.remote), ("--local", self.local)):
            if not wanted:
                continue
            found = {network.version for network in wanted}
            if not found & families:
                raise InvalidValue(
                    f"{option}: only IPv{min(found)} addresses{said}: no connection is both; leave one of them out"
                )
            families &= found
            said = f" and {option}" if said == "" else f"{said}, {option}"
        if not self.not_remote:
            return
        left = [one for one in (self.remote or networks.EVERYTHING) if one.version in families]
        if all(networks.covers(self.not_remote, one) for one in left):
            raise InvalidValue("--not-remote: excludes every address that is let through; leave it out or narrow it")


def _events(wanted: EventsLike | None, *, failed: bool, existing: bool, names: bool) -> frozenset[str]:
    every = frozenset(EVENTS) if names else frozenset(EVENTS) - {"lookup"}
    told = values.events("--events", wanted, every)
    if "lookup" in told and not names:
        raise InvalidValue("--no-names: without names there are no lookup events; leave one of them out")
    existing = values.flag("--existing", existing) or "existing" in told
    if values.flag("--failed", failed):
        if "failed" not in told:
            raise InvalidValue(f"--failed: --events asks for {_list(told)} only; leave one of them out")
        if existing:
            raise InvalidValue("--failed: what --existing lists has not failed; leave one of them out")
        return frozenset({"failed"})
    return told | {"existing"} if existing else told


def _list(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
