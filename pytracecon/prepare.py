"""What the maps are to be like before the programs are loaded, and what is in those of the filters then."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytracecon import pinned, settings, wire
from pytracecon._libbpf_btf import KERNEL_BTF

if TYPE_CHECKING:
    from pytracecon.filters import Filters
    from pytracecon.objects import Objects
    from pytracecon.probes import Candidate

__all__ = ["fill", "prepare"]


def prepare(opened: Objects, filters: Filters, chosen: dict[str, Candidate | None]) -> None:
    syn, attempts = chosen.get("first syn"), chosen.get("attempts")
    opened.maps[".rodata.settings"].initial_value = settings.settings(
        filters,
        syn_hook=wire.SYN_UNSEEN if syn is None else syn.syn_hook,
        attempt_hook=wire.ATTEMPT_UNSEEN if attempts is None else attempts.attempt_hook,
        with_error="retransmit" in filters.events and _retransmits_have_errors(filters.btf),
    )
    opened.maps["ring"].max_entries = filters.ring_size
    opened.maps["socks"].max_entries = filters.max_connections
    opened.maps["watched"].max_entries = filters.max_connections if chosen.get("transitions") else 1
    for name in _unused(chosen):
        opened.maps[name].max_entries = 1
    for name in ("conversations", "datagram_sockets"):
        opened.maps[name].max_entries = filters.max_connections if chosen.get("udp sent") else 1
    if not chosen.get("udp sent"):
        for name in ("left_out", "told_addresses", "ended_owners"):
            opened.maps[name].max_entries = 1
    opened.maps["counters"].max_entries = opened.lib.num_possible_cpus()
    if not filters.children:
        opened.maps["filter_values"].max_entries = len(list(settings.members(filters))) or 1
    for name, networks in _networks(filters):
        opened.maps[name].max_entries = len(networks) + 1
    pinned.reuse(opened, filters)


def _retransmits_have_errors(btf: str | None) -> bool:
    """Whether tcp_retransmit_skb has a record of its own, as it has since it tells of failures."""
    try:
        return b"\0trace_event_raw_tcp_retransmit_skb\0" in Path(btf or KERNEL_BTF).read_bytes()
    except OSError:  # without the kernel's types nothing asks for this
        return False


def _unused(chosen: dict[str, Candidate | None]) -> list[str]:
    """Tables of programs that are not loaded: what is in one is allocated when it is made."""
    attempts = chosen.get("attempts")
    by_kprobe = attempts is not None and attempts.rung == "kprobe"
    by_call = attempts is not None and attempts.attempt_hook == wire.ATTEMPT_SYSCALL
    unused = [] if by_kprobe else ["calls"]
    unused += [] if by_call else ["syscall_attempts", "uring_attempts"]
    return unused + ([] if chosen.get("transitions") else ["handshakes"])


def fill(opened: Objects, filters: Filters) -> None:
    one = settings.u32(1)
    for member in settings.members(filters):
        opened.maps["filter_values"].update(member, one)
    for number, ranges in enumerate((filters.remote_ports, filters.local_ports, filters.not_remote_ports)):
        if ranges:
            opened.maps["filter_ports"].update(settings.u32(number), settings.port_set(ranges))
    for name, networks in _networks(filters):
        for key, value in networks:
            opened.maps[name].update(key, value)


def _networks(filters: Filters) -> tuple[tuple[str, list[tuple[bytes, bytes]]], ...]:
    return (
        ("filter_remote", list(settings.prefixes(filters.remote))),
        ("filter_local", list(settings.prefixes(filters.local))),
        ("filter_not_remote", list(settings.prefixes(filters.not_remote))),
    )
