"""What a program asks its C library for."""

from __future__ import annotations

from pytracecon.names.libc_results import host_of, is_numeric, text_of
from pytracecon.text import safe


def seeds() -> list[bytes]:
    return [b"www.example.com.", b"127.1", b"fe80::1%eth0", b"0x7f000001", b"\xff\x1b[2J", "bücher.example".encode()]


def run(data: bytes) -> None:
    name = text_of(data)
    name.encode()
    is_numeric(name)
    host = host_of(name)
    assert host is None or (host and not is_numeric(host))
    assert safe(name).isprintable()
