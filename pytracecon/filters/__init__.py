"""What shall be traced, validated and normalised before anything is loaded.

`Filters.parse` takes the keywords of `Tracer`; the command line gives it the text of its options, unchanged. All
conditions must hold (AND); several values of one are alternatives (OR). A value that cannot be, and conditions that
together can never be met, raise `InvalidValue` with the option's name on the command line and what would be right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from pytracecon.errors import InvalidValue
from pytracecon.filters import files, networks, places, ports, values
from pytracecon.filters.files import PathLike
from pytracecon.filters.networks import Network, NetworksLike
from pytracecon.filters.ports import ALL_PORTS, PortRange, PortsLike
from pytracecon.filters.values import EVENTS, CommandsLike, EventsLike, NumberLike, NumbersLike, PlacesLike

__all__ = ["Filters", "Keywords"]

_PROBES = ("auto", "fentry", "kprobe", "tracepoint")
_OUTBOUND = frozenset({"connect", "established", "failed"})
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
    direction: str | None
    failed: bool
    min_latency: float | str | None
    not_port: PortsLike | None
    not_remote: NetworksLike | None
    existing: bool
    ring_size: NumberLike
    max_connections: NumberLike
    probes: str
    btf: PathLike | None
    libbpf: PathLike | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
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
    direction: str | None = None
    min_latency_ns: int = 0
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
        direction: str | None = None,
        failed: bool = False,
        min_latency: float | str | None = None,
        not_port: PortsLike | None = None,
        not_remote: NetworksLike | None = None,
        existing: bool = False,
        ring_size: NumberLike = "8M",
        max_connections: NumberLike = 65536,
        probes: str = "auto",
        btf: PathLike | None = None,
        libbpf: PathLike | None = None,
    ) -> Filters:
        filters = cls(
            events=_events(events, failed=failed, existing=existing),
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
            direction=None if direction is None else values.choice("--direction", direction, ("out", "in")),
            min_latency_ns=values.milliseconds("--min-latency", min_latency),
            ring_size=values.ring_size("--ring-size", ring_size),
            max_connections=values.number("--max-connections", max_connections, 1, _MAX_CONNECTIONS),
            probes=values.choice("--probes", probes, _PROBES),
            btf=files.btf("--btf", btf),
            libbpf=files.library("--libbpf", libbpf),
        )
        filters._refuse_the_impossible()
        return filters

    def _refuse_the_impossible(self) -> None:
        """A run that can never report anything is a mistake: better said now than found out after an hour."""
        if self.children and not self.pids:
            raise InvalidValue("--children: of which process? Give it with --pid")
        if self.direction == "in" and self.events <= _OUTBOUND:
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
        self._refuse_families_apart()
        wanted = self.remote_ports or (ALL_PORTS,)
        if all(ports.covers(self.not_remote_ports, one) for one in wanted):
            raise InvalidValue("--not-port: excludes every port that --port lets through; leave one of them out")

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


def _events(wanted: EventsLike | None, *, failed: bool, existing: bool) -> frozenset[str]:
    names = values.events("--events", wanted)
    existing = values.flag("--existing", existing) or "existing" in names
    if values.flag("--failed", failed):
        if "failed" not in names:
            raise InvalidValue(f"--failed: --events asks for {_list(names)} only; leave one of them out")
        if existing:
            raise InvalidValue("--failed: what --existing lists has not failed; leave one of them out")
        return frozenset({"failed"})
    return names | {"existing"} if existing else names


def _list(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
