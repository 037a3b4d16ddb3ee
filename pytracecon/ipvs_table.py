"""What IPVS had decided before anybody looked: its table of connections, which /proc has for each network namespace.

Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP 7F000001 DE3A 7F000001 0021 7F000001 9C4F ESTABLISHED     898
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple

__all__ = ["Decided", "decided", "namespaces", "parsed"]

_TRANSPORTS = {b"TCP": 6, b"UDP": 17}
_OVER = frozenset({b"TIME_WAIT", b"CLOSE"})
"""Kept for stragglers; the ends are free for another connection."""

_END = re.compile(rb"([0-9A-F]{8}|(?:[0-9a-fA-F]{4}:){7}[0-9a-fA-F]{4}) ([0-9A-F]{4})")
_ROW = re.compile(rb"(?P<protocol>TCP|UDP) +(?P<ends>(?:" + _END.pattern + rb" ){3})(?P<state>\S+) ")
_MAPPED = bytes(10) + b"\xff\xff"
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
_PATIENCE = 0.25
"""Seconds. For each namespace the kernel walks through its whole table."""


class Decided(NamedTuple):
    transport: int
    netns: int
    client: tuple[bytes, int]
    asked: tuple[bytes, int]
    real: tuple[bytes, int]


def decided(netns: Collection[int], clock: Callable[[], float] = time.monotonic) -> Iterator[Decided]:
    """Of these network namespaces, of all if none is given, where there is a process in them; as far as time allows."""
    until = clock() + _PATIENCE
    for inode, pid in namespaces().items():
        if netns and inode not in netns:
            continue
        with suppress(*_GONE), open(f"/proc/{pid}/net/ip_vs_conn", "rb") as table:
            for each in parsed(table, inode):
                yield each
                if clock() > until:
                    return
        if clock() > until:
            return


def namespaces() -> dict[int, int]:
    """Each network namespace, with a process in it."""
    found: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(*_GONE):
                found.setdefault(os.stat(f"/proc/{name}/ns/net").st_ino, int(name))
    return found


def parsed(lines: Iterable[bytes], netns: int) -> Iterator[Decided]:
    """Of the lines of a table those that tell of connections that are not over.

    Bytes: behind the state stands what a persistence engine took from packets, and no codec may stumble over that.
    """
    for line in lines:
        found = _ROW.match(line)
        if found is None or found["state"] in _OVER:
            continue
        ends = [(_address(address), int(port, 16)) for address, port in _END.findall(found["ends"])]
        yield Decided(_TRANSPORTS[found["protocol"]], netns, *ends)


def _address(text: bytes) -> bytes:
    raw = bytes.fromhex(text.replace(b":", b"").decode("ascii"))
    return raw if len(raw) == len(_MAPPED) + 4 else _MAPPED + raw
