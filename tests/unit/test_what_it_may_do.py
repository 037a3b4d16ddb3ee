"""The kernel side only looks: which of the kernel's helpers the compiled programs call, instruction by instruction."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

OBJECTS = sorted((Path(__file__).parents[2] / "pytracecon/bpf").glob("*.bpf.o"))

LOOKS = {
    5: "ktime_get_ns",
    8: "get_smp_processor_id",
    14: "get_current_pid_tgid",
    15: "get_current_uid_gid",
    16: "get_current_comm",
    26: "skb_load_bytes",
    35: "get_current_task",
    46: "get_socket_cookie",
    80: "get_current_cgroup_id",
    95: "sk_fullsock",
    96: "tcp_sock",
    112: "probe_read_user",
    113: "probe_read_kernel",
    114: "probe_read_user_str",
    115: "probe_read_kernel_str",
    122: "get_netns_cookie",
    125: "ktime_get_boot_ns",
    136: "skc_to_tcp6_sock",
    137: "skc_to_tcp_sock",
    162: "sock_from_file",
    173: "get_func_ip",
    174: "get_attach_cookie",
}
KEEPS = {
    1: "map_lookup_elem",
    2: "map_update_elem",
    3: "map_delete_elem",
    12: "tail_call",
    127: "seq_write",
    130: "ringbuf_output",
    131: "ringbuf_reserve",
    132: "ringbuf_submit",
    133: "ringbuf_discard",
    134: "ringbuf_query",
}
"""These write, to its own maps and rings and to whoever reads an iterator."""

_PROGBITS, _EXECUTABLE = 1, 4
_CALL, _OF_A_HELPER, _TWO_WORDS = 0x85, 0, 0x18


def code(elf: bytes) -> Iterator[bytes]:
    """The sections of a 64-bit little-endian ELF file that hold instructions."""
    (headers,) = struct.unpack_from("<Q", elf, 0x28)
    (count,) = struct.unpack_from("<H", elf, 0x3C)
    for at in range(headers, headers + 64 * count, 64):
        _, kind, flags, _, offset, size = struct.unpack_from("<IIQQQQ", elf, at)
        if kind == _PROGBITS and flags & _EXECUTABLE:
            yield elf[offset : offset + size]


def helpers(program: bytes) -> Iterator[int]:
    at = 0
    while at < len(program):
        operation, registers, _, immediate = struct.unpack_from("<BBhi", program, at)
        if operation == _CALL and registers >> 4 == _OF_A_HELPER:
            yield immediate
        at += 16 if operation == _TWO_WORDS else 8


@pytest.mark.parametrize("path", OBJECTS, ids=lambda path: path.name)
def test_no_program_can_do_more_than_look_and_write_to_its_own_maps(path: Path) -> None:
    called = {helper for section in code(path.read_bytes()) for helper in helpers(section)}
    assert {1, 2, 3, 113, 131, 132} <= called, "so they are found"
    assert not called - LOOKS.keys() - KEEPS.keys()
