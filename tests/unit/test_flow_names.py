"""A UDP conversation is told when it is over; the name it has is that of its beginning, which a record tells."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from pytracecon import wire
from pytracecon.clock import SECOND
from pytracecon.decode import address, decode
from pytracecon.events import Flow
from pytracecon.filters import Filters
from pytracecon.names.joiner import Joiner
from pytracecon.names.records import Asker, LibcPart, ProcessKey, ProgramStarted

PID, BORN = 1234, 77
REMOTE = bytes(10) + b"\xff\xff" + IPv4Address("192.0.2.7").packed
LONG = 1000 * SECOND

CONN: dict[str, Any] = {
    "id": 0x00003FA2C18E0007,
    "subflow_of": 0,
    "cgroup": 4711,
    "born": BORN,
    "process": 0,
    "netns": 4026531840,
    "pid": PID,
    "tid": PID,
    "uid": 1000,
    "local_addr": REMOTE[:12] + bytes([10, 0, 0, 5]),
    "remote_addr": REMOTE,
    "local_port": 41234,
    "remote_port": 443,
    "protocol": 3,
    "direction": 1,
    "owner": 5,
    "flags": 0,
    "comm": b"curl",
    "thread": b"",
}
FLOW = {
    "duration": LONG,
    "idle": 30 * SECOND,
    "tx_bytes": 1,
    "rx_bytes": 0,
    "tx_packets": 1,
    "rx_packets": 0,
    "ended": 6,
    "app": 0,
}


def packed(kind: int, time: int, tail: tuple[wire.Field, ...], values: dict[str, Any]) -> bytes:
    parts = (*wire.HEADER, *wire.CONN, *tail)
    shape = wire.layout(parts)
    header = {"time": time, "lost": 0, "cpu": 0, "kind": kind, "words": shape.size // 8}
    return shape.pack(*((CONN | header | values)[name] for name, form in parts if not form.endswith("x")))


def beginning(time: int, **changed: Any) -> bytes:
    return packed(wire.BEGINNING_KIND, time, (), changed)


def flow(time: int, **changed: Any) -> bytes:
    return packed(wire.KINDS["flow"], time, wire.RECORDS["flow_event"], FLOW | changed)


def asked(joiner: Joiner, name: str, time: int) -> None:
    asker = Asker(ProcessKey(PID, BORN), "curl", 1000, None, None, 4026531840, 4711)
    joiner.take(
        LibcPart(
            time=time,
            asker=asker,
            wanted=True,
            call=time,
            function="getaddrinfo",
            latency_ns=1,
            code=0,
            name=name.encode(),
            name_cut=False,
            addresses=(REMOTE,),
            addresses_cut=False,
            more=False,
        ),
        0,
    )


def new_joiner() -> Joiner:
    def no_libc(program: ProgramStarted) -> None:
        raise AssertionError(program)

    return Joiner(Filters.parse(events="flow"), address, no_libc)


def hosts(joiner: Joiner, *records: bytes) -> list[str | None]:
    events = decode(b"".join(records), 0, joiner)
    assert all(isinstance(event, Flow) for event in events), "a beginning is no event"
    return [event.host for event in events if isinstance(event, Flow)]


def test_the_name_of_the_beginning_lasts_however_long_it_takes() -> None:
    joiner = new_joiner()
    asked(joiner, "old.test", SECOND)
    assert hosts(joiner, beginning(2 * SECOND)) == []
    asked(joiner, "young.test", LONG)
    assert hosts(joiner, flow(LONG + 32 * SECOND)) == ["old.test"]


def test_it_is_forgotten_when_the_conversation_is_over() -> None:
    joiner = new_joiner()
    asked(joiner, "old.test", SECOND)
    hosts(joiner, beginning(2 * SECOND), flow(3 * SECOND, duration=0, idle=SECOND))
    asked(joiner, "young.test", LONG)
    assert hosts(joiner, flow(LONG + SECOND, duration=0, idle=0)) == ["young.test"]


def test_who_is_spoken_to_has_asked_for_no_name() -> None:
    joiner = new_joiner()
    asked(joiner, "old.test", SECOND)
    spoken_to = {"direction": 2, "owner": 6}
    assert hosts(joiner, beginning(2 * SECOND, **spoken_to), flow(LONG, **spoken_to)) == [None]


def test_a_name_that_is_younger_than_the_beginning_is_another_one_s() -> None:
    joiner = new_joiner()
    assert hosts(joiner, beginning(2 * SECOND)) == []
    asked(joiner, "young.test", 3 * SECOND)
    assert hosts(joiner, flow(12 * SECOND, duration=SECOND, idle=9 * SECOND)) == [None]


def test_without_names_a_beginning_is_passed_over() -> None:
    (event,) = decode(beginning(SECOND) + flow(2 * SECOND), 0)
    assert isinstance(event, Flow)
    assert event.host is None
