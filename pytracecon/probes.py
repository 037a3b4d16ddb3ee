"""What must be known of a connection, and the ways to know it, best first.

A *need* is something that events stand on; a *candidate* is one way to meet it, on one of three rungs. Which one is
taken is found by trying (`pytracecon.loader`), never by comparing version numbers. A need that cannot be met takes
with it what `costs` says, and nothing else, unless it is `essential`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytracecon import wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytracecon.filters import Filters

RUNGS = ("fentry", "kprobe", "tracepoint")


def _always(_filters: Filters) -> bool:
    return True


class Candidate(NamedTuple):
    """Programs that together meet a need, of filters that it is `wanted` for. `extras` are attached where that is
    possible; one of `either` is.

    `loaded` are for whoever runs them later, or another need's, which attaches them. `worker` is loaded only: two of
    the programs call it, so that one works when the kernel skips the other. The hooks are what the kernel side is told.
    """

    rung: str
    programs: tuple[str, ...]
    extras: tuple[str, ...] = ()
    either: tuple[str, ...] = ()
    syn_hook: int = wire.SYN_UNSEEN
    attempt_hook: int = wire.ATTEMPT_UNSEEN
    worker: str | None = None
    loaded: tuple[str, ...] = ()
    wanted: Callable[[Filters], bool] = _always

    @property
    def required(self) -> tuple[str, ...]:
        """What must load."""
        worker = () if self.worker is None else (self.worker,)
        return (*self.programs, *self.loaded, *worker)


class Need(NamedTuple):
    name: str
    candidates: tuple[Candidate, ...]
    costs: str
    essential: bool = False
    wanted: Callable[[Filters], bool] = _always
    module: str | None = None
    """The kernel module whose functions the programs are on. While it is not loaded, they wait for it."""

    @property
    def waits(self) -> str | None:
        """What for; None if for nothing."""
        if self.module is None or is_loaded(self.module):
            return None
        return f"{self.module} is not loaded (modprobe {self.module}): a tracer attaches this as soon as it is"


class Probe(NamedTuple):
    """One program of one candidate, and what became of it. `detail` says why it is not attached."""

    need: str
    rung: str
    name: str
    attached: bool
    detail: str = ""


def is_loaded(module: str) -> bool:
    """And ready, or built in."""
    folder = Path("/sys/module", module)
    try:
        return (folder / "initstate").read_text() == "live\n"
    except FileNotFoundError:
        return folder.exists()


def has_kprobes() -> bool:
    return Path("/sys/bus/event_source/devices/kprobe").exists()


def _of_events(filters: Filters) -> bool:
    """What was open is found without them."""
    return bool(filters.events)


def _of_processes(filters: Filters) -> bool:
    return bool(filters.pids)


def _of_names(filters: Filters) -> bool:
    return filters.names


def _of_owners(filters: Filters) -> bool:
    return filters.processes and _of_events(filters)


def _of_states(filters: Filters) -> bool:
    return not filters.events.isdisjoint(WATCHED)


def _later(_filters: Filters) -> bool:
    """Loaded when somebody asks for it: see `pytracecon.listing`."""
    return False


def _of_flows(filters: Filters) -> bool:
    return "flow" in filters.events


PAIRS = (("first_syn_fentry", "first_syn_again_fentry"),)
"""Programs of one hook, of which the second does what it finds undone: the kernel may have skipped the first."""

REPEATED = frozenset({"syn_dropped_btf", "syn_dropped_raw"})
"""What the kernel keeps these from comes again: the next SYN is dropped as well. Mostly they run for other packets, of
which nothing is told."""

WATCHED = frozenset({"state", "retransmit", "reset"})
"""Events for which sockets are watched from their first state on."""

NEEDS = (
    # Ahead of "states": programs of one tracepoint run in the order in which they are attached.
    Need(
        "transitions",
        tuple(
            Candidate(
                "tracepoint",
                (f"transition_{kind}",),
                (f"retransmit_{kind}", f"synack_{kind}", f"reset_sent_{kind}", f"reset_received_{kind}"),
            )
            for kind in ("btf", "raw")
        ),
        "no state, retransmit and reset events",
        wanted=_of_states,
    ),
    Need(
        "states",
        (
            Candidate(
                "tracepoint",
                ("state_btf", "state_skipped_btf", "destroy_btf"),
                worker="state_worker_btf",
            ),
            Candidate(
                "tracepoint",
                ("state_raw", "state_skipped_raw", "destroy_raw"),
                worker="state_worker_raw",
            ),
        ),
        "TCP connections cannot be traced at all",
        essential=True,
        wanted=_of_events,
    ),
    Need(
        "first syn",
        (
            Candidate("fentry", ("first_syn_fentry",), ("first_syn_again_fentry",), syn_hook=wire.SYN_CONNECT),
            Candidate("kprobe", ("first_syn_kprobe",), syn_hook=wire.SYN_CONNECT),
            # Where packets are looked at for names; "dns messages" attaches what sees those that leave.
            *(
                Candidate(
                    "tracepoint",
                    (f"syn_dropped_{kind}",),
                    loaded=("packet_out",),
                    syn_hook=wire.SYN_PACKET,
                    wanted=_of_names,
                )
                for kind in ("btf", "raw")
            ),
            Candidate("tracepoint", ("first_syn_sockops",), syn_hook=wire.SYN_CONNECT),
        ),
        "latency is measured from connect(), connect events have no local port, deferred fast opens no latency",
        wanted=_of_events,
    ),
    Need(
        "attempts",
        (
            Candidate(
                "fentry",
                ("connect_v4_fexit",),
                ("connect_v6_fexit", "pre_connect_v4_fexit", "pre_connect_v6_fexit", "denied_fexit"),
                attempt_hook=wire.ATTEMPT_FUNCTION,
            ),
            Candidate(
                "kprobe",
                ("connect_v4_kprobe", "connect_v4_kretprobe"),
                (
                    "connect_v6_kprobe",
                    "connect_v6_kretprobe",
                    "pre_connect_v4_kprobe",
                    "pre_connect_v4_kretprobe",
                    "pre_connect_v6_kprobe",
                    "pre_connect_v6_kretprobe",
                    "denied_kprobe",
                    "denied_kretprobe",
                ),
                attempt_hook=wire.ATTEMPT_FUNCTION,
            ),
            Candidate(
                "tracepoint",
                ("connect_enter", "connect_exit"),
                ("connect_cgroup4", "connect_cgroup6"),
                attempt_hook=wire.ATTEMPT_SYSCALL,
            ),
        ),
        "attempts that end before a SYN leaves (no route, no free port, denied) are not reported",
        wanted=_of_events,
    ),
    Need(
        "accepts",
        (
            Candidate("fentry", ("graft_fentry",)),
            Candidate("kprobe", ("graft_kprobe",)),
            Candidate("kprobe", ("accept_kretprobe",)),
            Candidate(
                "tracepoint",
                ("accept_syscall",),
                either=("uring_entry", "uring_result", "uring_result_early"),
            ),
        ),
        "no accept events; inbound connections carry the process that listens",
        wanted=_of_events,
    ),
    Need(
        "existing",
        (Candidate("iterator", ("existing",), loaded=("audit",)),),
        "connections older than the tracer have no owner",
    ),
    Need(
        "snapshot",
        (Candidate("iterator", ("snapshot_files", "snapshot_socks", "snapshot_conversations")),),
        "Tracer.snapshot() raises this error: what is open right now is not known",
        wanted=_later,
    ),
    Need(
        "processes",
        (Candidate("tracepoint", ("fork_btf", "exit_btf")), Candidate("tracepoint", ("fork_raw", "exit_raw"))),
        "--children follows nobody, and a process id that is given to another process passes the filter",
        wanted=_of_processes,
    ),
    Need(
        "udp sent",
        (
            Candidate(
                "tracepoint",
                ("datagram_sent", "datagram_socket_released"),
                ("datagram_to_v4", "datagram_to_v6"),
                either=("datagram_owner_btf", "datagram_owner_raw"),
                loaded=("sweep",),
            ),
        ),
        "no flow events: UDP has no counters of its own",
        wanted=_of_flows,
    ),
    Need(
        "udp received",
        (
            Candidate("fentry", ("datagram_taken_fentry",)),
            Candidate("kprobe", ("datagram_taken_kprobe",)),
            *(
                Candidate("tracepoint", (f"datagram_received_{kind}",), ("datagram_from_v4", "datagram_from_v6"))
                for kind in ("btf", "raw")
            ),
        ),
        "flow events tell what was sent, and nothing of what was received",
        wanted=_of_flows,
    ),
    Need(
        "services",
        (Candidate("kprobe", ("service_chosen",)),),
        "no real servers behind the virtual addresses of IPVS",
        module="ip_vs",
    ),
    Need(
        "programs",
        (
            Candidate("tracepoint", ("image_btf", "inherit_btf"), ("group_made",)),
            Candidate("tracepoint", ("image_raw", "inherit_raw"), ("group_made",)),
        ),
        "what owners run is read from /proc: of a process that is gone by then it is not known",
        wanted=_of_owners,
    ),
    Need(
        "libc lookups",
        (
            Candidate("uprobe", ("resolver_enter_multi", "resolver_return_multi")),
            Candidate(
                "uprobe",
                ("getaddrinfo_enter", "resolver_return"),
                ("gethostbyname_enter", "gethostbyname_r_enter", "gethostbyname2_r_enter"),
            ),
        ),
        "what is asked of a libc has no lookup events; its DNS packets still name connections",
        wanted=_of_names,
    ),
    Need(
        "new programs",
        (Candidate("tracepoint", ("program_btf",)), Candidate("tracepoint", ("program_raw",))),
        "a libc that nobody used when tracing began is not noticed",
        wanted=_of_names,
    ),
    Need(
        "dns messages",
        (Candidate("tracepoint", ("packet_out", "packet_in"), ("unconnected_v4", "unconnected_v6")),),
        "programs that do not ask a libc have no names, and no connection is named by its TLS server name",
        wanted=_of_names,
    ),
)


def candidates(need: Need, filters: Filters) -> tuple[Candidate, ...]:
    """Those that `filters` allow: what has no rungs to choose from is taken as it is."""
    rung = filters.probes
    found = tuple(each for each in need.candidates if each.wanted(filters))
    if rung == "auto" or not any(each.rung == rung for each in found):
        return found
    return tuple(each for each in found if each.rung == rung)
