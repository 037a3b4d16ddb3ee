"""The kernel's table of IPVS, whose last columns hold bytes of packets: the Call-ID of SIP."""

from __future__ import annotations

from fuzz.source import Source
from pytracecon.ipvs_table import parsed
from unit.test_ipvs_table import HERE, TABLE

_LINE = b"TCP 0A000005 A112 0A630009 0050 C0A80201 0016 ESTABLISHED     899 sip "


def seeds() -> list[bytes]:
    return [b"\0" + b"".join(TABLE), b"\1callid@10.0.0.5", b"\1\xe9t\xe9@host"]


def run(data: bytes) -> None:
    source = Source(data)
    if source.number(1) & 1:
        line = _LINE + source.rest().replace(b"\n", b"") + b"\n"
        (found,) = parsed([TABLE[0], line], HERE)
        assert (found.transport, found.client[1], found.real[1]) == (6, 0xA112, 0x16)
        return
    for each in parsed([line + b"\n" for line in source.rest().split(b"\n")], HERE):
        assert {len(address) for address, _ in (each.client, each.asked, each.real)} == {16}
        assert all(0 <= port <= 0xFFFF for _, port in (each.client, each.asked, each.real))
