"""The table that IPVS has of its connections, as kernels write it."""

from __future__ import annotations

from ipaddress import ip_address

from pytracecon.decode import address
from pytracecon.events import Close, Endpoint
from pytracecon.ipvs_table import decided, parsed
from pytracecon.translations import Translations

HERE = 4026531840
HEADER = b"Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n"
V6 = b"fd99:0000:0000:0000:0000:0000:0000"
TABLE = [
    HEADER,
    b"TCP 0A000005 A112 0A630009 0050 C0A80201 0016 ESTABLISHED     899\n",
    b"TCP 0A000005 A113 0A630009 0050 C0A80201 0016 TIME_WAIT       119\n",
    b"TCP 0A000005 A114 0A630009 0050 C0A80201 0016 CLOSE             9\n",
    b"UDP 0A000005 A112 0A630009 0050 C0A80201 0035 UDP             299\n",
    b"IP  0A000005 0000 0A630009 0050 C0A80201 0000 NONE            299\n",
    b"TCP %s:0005 A115 %s:0009 0050 %s:0001 1F90 ESTABLISHED     900 sip callid\n" % (V6, V6, V6),
]


def raw(text: str) -> bytes:
    packed = ip_address(text).packed
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


def test_connections_that_are_not_over_are_told_with_all_their_ends() -> None:
    v4, udp, v6 = parsed(TABLE, HERE)
    assert (v4.transport, udp.transport, v6.transport) == (6, 17, 6)
    assert (v4.client, v4.asked) == ((raw("10.0.0.5"), 41234), (raw("10.99.0.9"), 80))
    assert (v4.real, udp.real) == ((raw("192.168.2.1"), 22), (raw("192.168.2.1"), 53))
    assert (v6.client, v6.asked, v6.real) == ((raw("fd99::5"), 41237), (raw("fd99::9"), 80), (raw("fd99::1"), 8080))
    assert {each.netns for each in (v4, udp, v6)} == {HERE}


def test_their_later_events_have_the_service() -> None:
    known = Translations(address)
    known.take_table(parsed(TABLE, HERE))
    event = Close(1, "0", "tcp", "out", "10.0.0.5", 41234, "10.99.0.9", 80, netns=HERE)
    known.complete(event)
    assert event.service == Endpoint("192.168.2.1", 22)


def test_what_stands_behind_the_state_is_of_packets_and_may_be_any_bytes() -> None:
    row = b"TCP 0A000005 A112 0A630009 0050 C0A80201 0016 ESTABLISHED     899 sip "
    forged = b"\xe9@host\rTCP 0A000006 A112 0A630009 0050 0A000007 0016 ESTABLISHED     899\x1c\x85\n"
    (told,) = parsed([HEADER, row + forged, b"\n"], HERE)
    assert told.client == (raw("10.0.0.5"), 41234)


def test_a_namespace_without_a_process_has_nobody_to_tell_of() -> None:
    assert list(decided([1])) == []
