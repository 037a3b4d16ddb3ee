"""Where connections really go, from the records that tell of it: each has its own, and there is room for so many."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from pytracecon import wire
from pytracecon.builder import Builder
from pytracecon.decode import address, decode
from pytracecon.events import Connect, Endpoint
from pytracecon.json_lines import Json, joined
from pytracecon.outputs.json_lines import JsonLines
from pytracecon.translations import Ends, Translations
from unit.test_decode import record as event_record

SERVICE, NAT = 1, 2
TCP, UDP = 6, 17
HERE, THERE = 4026531840, 4026532000


def raw(text: str) -> bytes:
    packed = ip_address(text).packed
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


CLIENT, VIRTUAL, REAL = raw("10.0.0.5"), raw("10.99.0.9"), raw("192.168.2.1")


def record(
    kind: int = SERVICE,
    *,
    netns: int = HERE,
    port: int = 41234,
    real: tuple[bytes, int] = (REAL, 22),
    transport: int = TCP,
) -> bytes:
    shape = wire.layout(wire.HEADER, wire.TRANSLATION)
    ends = (CLIENT, VIRTUAL, real[0], netns, port, 80, real[1])
    return shape.pack(1, 0, 0, wire.TRANSLATION_KIND, shape.size // 8, *ends, kind, transport)


def ends(*, netns: int = HERE, port: int = 41234) -> Ends:
    return netns, CLIENT, port, VIRTUAL, 80


def told(known: Translations, which: Ends, proto: str = "tcp") -> tuple[Endpoint | None, Endpoint | None]:
    event = Connect(1, "0", proto, "out")
    known.label(event, which)
    return event.service, event.nat


@pytest.fixture
def known() -> Translations:
    return Translations(address)


def test_a_connection_has_its_own_and_no_other(known: Translations) -> None:
    known.take(record(), 0)
    known.take(record(netns=THERE, real=(raw("fd99::1"), 33)), 0)
    assert told(known, ends()) == (Endpoint("192.168.2.1", 22), None)
    assert told(known, ends(netns=THERE)) == (Endpoint("fd99::1", 33), None)
    assert told(known, ends(port=41235)) == (None, None)
    assert known.addresses == {VIRTUAL}


def test_what_ipvs_did_to_the_packet_is_no_rule_of_a_filter(known: Translations) -> None:
    known.take(record(SERVICE), 0)
    known.take(record(NAT), 0)
    assert told(known, ends()) == (Endpoint("192.168.2.1", 22), None)
    known.take(record(NAT, real=(REAL, 23)), 0)
    assert told(known, ends()) == (Endpoint("192.168.2.1", 22), Endpoint("192.168.2.1", 23))


def test_what_is_over_is_forgotten(known: Translations) -> None:
    known.take(record(NAT), 0)
    known.over(ends())
    known.over(ends())
    assert told(known, ends()) == (None, None)


def test_datagrams_have_their_own_between_the_same_ends(known: Translations) -> None:
    known.take(record(transport=UDP, real=(REAL, 53)), 0)
    assert told(known, ends()) == (None, None)
    assert told(known, ends(), "udp") == (Endpoint("192.168.2.1", 53), None)
    known.take(record(transport=TCP), 0)
    known.over(ends(), "udp")
    assert told(known, ends(), "udp") == (None, None)
    assert told(known, ends()) == told(known, ends(), "mptcp") == (Endpoint("192.168.2.1", 22), None)


def test_conversations_too_are_so_many_and_the_latest_choice_counts(
    known: Translations, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IPVS forgets one that is silent for a while, and chooses again."""
    monkeypatch.setattr("pytracecon.translations._MOST", 2)
    known.take(record(transport=UDP, port=1), 0)
    known.take(record(transport=UDP, port=2), 0)
    known.take(record(transport=UDP, port=1, real=(REAL, 54)), 0)
    known.take(record(transport=UDP, port=3), 0)
    assert told(known, ends(port=1), "udp")[0] == Endpoint("192.168.2.1", 54)
    assert told(known, ends(port=2), "udp")[0] is None


def test_other_transports_and_clients_without_a_port_are_nobodys(known: Translations) -> None:
    known.take(record(transport=132), 0)
    known.take(record(port=0), 0)
    assert known.addresses == set()


def test_an_event_is_completed_by_what_is_known_later(known: Translations) -> None:
    event = Connect(1, "0", "tcp", "out", "10.0.0.5", 41234, "10.99.0.9", 80, netns=HERE)
    known.complete(event)
    assert event.service is None
    known.take(record(), 0)
    known.complete(event)
    assert event.service == Endpoint("192.168.2.1", 22)
    known.complete(Connect(1, "0", "tcp", "out"))


def test_those_that_began_first_go_first(known: Translations, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytracecon.translations._MOST", 100)
    for port in range(1, 151):
        known.take(record(port=port), 0)
    assert [port for port in range(1, 151) if told(known, ends(port=port))[0]] == list(range(51, 151))


def test_an_address_is_told_once_to_whoever_watches(known: Translations) -> None:
    seen: list[bytes] = []
    known.watch(seen.append)
    known.take(record(), 0)
    known.take(record(port=2), 0)
    assert seen == [VIRTUAL]


def test_an_endpoint_is_written_as_everywhere() -> None:
    assert (str(Endpoint("192.168.2.1", 22)), str(Endpoint("fd99::1", 33))) == ("192.168.2.1:22", "[fd99::1]:33")


@pytest.mark.parametrize("direction", [0, 1, 2], ids=["unknown", "out", "in"])
@pytest.mark.parametrize("kind", ["existing", "close"])
def test_every_reader_tells_it_of_the_same_connections(kind: str, direction: int) -> None:
    """One that is older than the tracer may have a direction that nobody knows; who was called sees no translation."""
    ends: dict[str, Any] = {"local_addr": CLIENT, "local_port": 41234, "remote_addr": VIRTUAL, "remote_port": 80}
    batch = event_record(kind, direction=direction, netns=HERE, protocol=1, **ends)
    made = []
    for _ in range(3):
        known = Translations(address)
        known.take(record(), 0)
        made.append(known)
    told = decode(batch, 0, None, None, made[0])
    assert [getattr(event, "service", "") for event in told] == [
        None if direction == 2 else Endpoint("192.168.2.1", 22)
    ]
    assert Builder(None, None, made[1]).events(batch, 0) == told
    lines, _ = Json(None, None, None, made[2]).records(memoryview(batch), 0)
    assert joined(lines).data == b"".join(piece for piece, _ in JsonLines().render(told))
