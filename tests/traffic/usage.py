"""What a process uses that could grow: memory, descriptors, and what is in its BPF maps."""

from __future__ import annotations

import ctypes
import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from traffic.leftovers import SYS_BPF, bpf_ids_of

GET_NEXT_KEY, GET_FD_BY_ID, GET_INFO = 4, 14, 15
COUNTED = {1: "hash", 9: "lru", 11: "trie"}
"""Types of maps (BPF_MAP_TYPE_…) whose elements come and go."""


@dataclass(frozen=True, slots=True)
class Usage:
    rss: int
    """Bytes, as are the next two."""
    pss: int
    memlock: int
    descriptors: int
    """Without links: a program that comes with another C library takes some more of those."""
    threads: int
    elements: dict[str, int]
    """Of each map whose elements come and go, how many there are."""

    @classmethod
    def of(cls, pid: int) -> Usage:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        maps = sorted(number for kind, number in bpf_ids_of(pid) if kind == "map")
        return cls(
            rss=_kilobytes(rollup, "Rss"),
            pss=_kilobytes(rollup, "Pss"),
            memlock=sum(dict(_memlock(pid)).values()),
            descriptors=sum(not _is_link(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()),
            threads=len(list(Path(f"/proc/{pid}/task").iterdir())),
            elements=dict(element for number in maps for element in elements(number)),
        )

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def _is_link(entry: Path) -> bool:
    """Of a BPF program to what it is attached to; of older kernels' uprobes, that is a perf event."""
    return any(kind in str(entry.readlink()) for kind in ("bpf_link", "bpf-link", "perf_event"))


def _kilobytes(text: str, key: str) -> int:
    (found,) = re.findall(rf"^{key}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found) * 1024


def _memlock(pid: int) -> Iterator[tuple[str, int]]:
    """What each program and map takes, by its number: several descriptors may be of one."""
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):
            facts = dict(line.split(":\t", 1) for line in entry.read_text().splitlines() if ":\t" in line)
            if "memlock" in facts:
                yield facts.get("map_id") or f"prog {facts['prog_id']}", int(facts["memlock"])


class _Info(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_uint32) for name in ("type", "id", "key_size", "value_size", "max_entries", "map_flags")),
        ("name", ctypes.c_char * 16),
    ]


def elements(map_id: int) -> Iterator[tuple[str, int]]:
    """A map's name and how many elements it has, if these come and go. Nothing of a map that is gone."""
    try:
        fd = _bpf(GET_FD_BY_ID, struct.pack("I", map_id))
    except FileNotFoundError:
        return
    try:
        info = _Info()
        _bpf(GET_INFO, struct.pack("IIQ", fd, ctypes.sizeof(info), ctypes.addressof(info)))
        if info.type in COUNTED:
            yield info.name.decode(), _count(fd, info)
    finally:
        os.close(fd)


def _count(fd: int, info: _Info) -> int:
    """While others delete, an element may be counted twice; never more than fit."""
    key = ctypes.create_string_buffer(info.key_size)
    at = 0
    for count in range(info.max_entries):
        try:
            _bpf(GET_NEXT_KEY, struct.pack("I4xQQ", fd, at, ctypes.addressof(key)))
        except FileNotFoundError:
            return count
        at = ctypes.addressof(key)
    return int(info.max_entries)


def _bpf(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(SYS_BPF, command, attributes, len(attributes)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
