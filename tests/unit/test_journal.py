"""Entries for systemd's journal: what a real datagram socket gets of them, and that no text can forge a field."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon.cli import main
from pytracecon.events import Accept, Close, Established, Event, Lookup, Lost, State
from pytracecon.outputs.journal import Journal, JournalSink, entry
from pytracecon.outputs.sink import OutputFailed

NOW = 1_795_161_009_123_456_789
ENDS: dict[str, Any] = {
    "conn": "00003fa2c18e0007",
    "proto": "tcp",
    "direction": "out",
    "local_addr": "10.0.0.5",
    "local_port": 41234,
    "remote_addr": "93.184.216.34",
    "remote_port": 443,
    "pid": 1234,
    "comm": "curl",
}
ESTABLISHED = Established(NOW, **ENDS, host="www.example.com", host_source="dns", latency_ns=12_310_000)
NAMES = {
    "MESSAGE",
    "PRIORITY",
    "SYSLOG_IDENTIFIER",
    "OBJECT_PID",
    "OBJECT_COMM",
    "OBJECT_TCP_SOURCE_PORT",
    "OBJECT_TCP_DESTINATION_PORT",
    *(f"OBJECT_{ip}_{end}_ADDRESS" for ip in ("IPV4", "IPV6") for end in ("SOURCE", "DESTINATION")),
}


class Receiver:
    """A journal of the test's own: a real datagram socket."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(10)

    def datagram(self) -> tuple[bytes, list[int]]:
        """A datagram's bytes, and the descriptors that came with it."""
        data, ancillary, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        passed = array.array("i")
        for _, _, raw in ancillary:
            passed.frombytes(raw)
        return data, list(passed)

    def fields(self) -> list[tuple[str, str]]:
        data, passed = self.datagram()
        assert passed == []
        return parsed(data)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver(tmp_path / "socket")
    yield receiver
    receiver.socket.close()


def parsed(data: bytes) -> list[tuple[str, str]]:
    """As journald takes a datagram apart: a `=` before the newline, or else a length behind it."""
    fields = []
    while data:
        end = data.index(b"\n")
        name, equals, value = data[:end].partition(b"=")
        data = data[end + 1 :]
        if not equals:
            (length,) = struct.unpack("<Q", data[:8])
            value, newline, data = data[8 : 8 + length], data[8 + length : 9 + length], data[9 + length :]
            assert newline == b"\n"
        fields.append((name.decode("ascii"), value.decode()))
    return fields


def written(receiver: Receiver, *events: Event) -> JournalSink:
    output, sink = Journal(), JournalSink(receiver.path)
    sink.begin(output.header())
    sink.write(output.render(events))
    sink.flush()
    sink.close()
    return sink


def test_a_connection_is_an_entry_with_the_fields_of_tcpstates_and_all_keys(receiver: Receiver) -> None:
    written(receiver, ESTABLISHED)
    assert receiver.fields() == [
        ("MESSAGE", "curl 10.0.0.5:41234 → 93.184.216.34:443 (www.example.com) established: 12.31 ms"),
        ("PRIORITY", "5"),
        ("SYSLOG_IDENTIFIER", "pytracecon"),
        ("OBJECT_PID", "1234"),
        ("OBJECT_COMM", "curl"),
        ("OBJECT_IPV4_SOURCE_ADDRESS", "10.0.0.5"),
        ("OBJECT_TCP_SOURCE_PORT", "41234"),
        ("OBJECT_IPV4_DESTINATION_ADDRESS", "93.184.216.34"),
        ("OBJECT_TCP_DESTINATION_PORT", "443"),
        ("PYTRACECON_EVENT", "established"),
        ("PYTRACECON_TIME", "2026-11-20T07:50:09.123456789Z"),
        ("PYTRACECON_CONN", "00003fa2c18e0007"),
        ("PYTRACECON_PROTO", "tcp"),
        ("PYTRACECON_DIRECTION", "out"),
        ("PYTRACECON_LOCAL_ADDR", "10.0.0.5"),
        ("PYTRACECON_LOCAL_PORT", "41234"),
        ("PYTRACECON_REMOTE_ADDR", "93.184.216.34"),
        ("PYTRACECON_REMOTE_PORT", "443"),
        ("PYTRACECON_PID", "1234"),
        ("PYTRACECON_COMM", "curl"),
        ("PYTRACECON_HOST", "www.example.com"),
        ("PYTRACECON_HOST_SOURCE", "dns"),
        ("PYTRACECON_LATENCY_NS", "12310000"),
    ]


def test_local_is_the_source_whoever_opened_the_connection(receiver: Receiver) -> None:
    """As in tcpstates: these are the socket's ends. The arrow tells the direction."""
    ends = ENDS | {"direction": "in", "local_addr": "::1", "remote_addr": "fe80::2"}
    written(receiver, Accept(NOW, **ends, pre_existing=True))
    found = dict(receiver.fields())
    assert found["OBJECT_IPV6_SOURCE_ADDRESS"] == "::1"
    assert found["OBJECT_IPV6_DESTINATION_ADDRESS"] == "fe80::2"
    assert "OBJECT_IPV4_SOURCE_ADDRESS" not in found
    assert found["MESSAGE"] == "curl [::1]:41234 ← [fe80::2]:443 accept: pre-existing"
    assert found["PYTRACECON_PRE_EXISTING"] == "true"


def test_a_change_of_state_has_the_fields_of_tcpstates(receiver: Receiver) -> None:
    written(receiver, State(NOW, **ENDS, old="SYN_SENT", new="ESTABLISHED", in_old_ns=412_900))
    found = dict(receiver.fields())
    told = {name: value for name, value in found.items() if name.startswith("OBJECT_TCP_") and "PORT" not in name}
    assert told == {
        "OBJECT_TCP_OLD_STATE": "SYN_SENT",
        "OBJECT_TCP_NEW_STATE": "ESTABLISHED",
        "OBJECT_TCP_SPAN_TIME": "412",
    }
    assert found["MESSAGE"] == ("curl 10.0.0.5:41234 → 93.184.216.34:443 state: SYN_SENT → ESTABLISHED after 0.41 ms")


def test_several_values_are_several_fields(receiver: Receiver) -> None:
    written(receiver, Lookup(NOW, comm="dig", name="a.test", addresses=["::1", "127.0.0.1"], result="ok", source="dns"))
    fields = receiver.fields()
    assert [value for name, value in fields if name == "PYTRACECON_ADDRESSES"] == ["::1", "127.0.0.1"]
    assert dict(fields)["MESSAGE"] == "dig lookup a.test → ::1, 127.0.0.1: (dns)"


def test_a_loss_is_a_warning(receiver: Receiver) -> None:
    written(receiver, Lost(NOW, 3, "ring", NOW, NOW))
    found = dict(receiver.fields())
    assert (found["PRIORITY"], found["MESSAGE"]) == ("4", "lost 3 records (ring full)")
    assert (found["PYTRACECON_COUNT"], found["PYTRACECON_FROM"]) == ("3", "2026-11-20T07:50:09.123456789Z")


def test_each_event_is_a_datagram_of_its_own_and_counted(receiver: Receiver) -> None:
    sink = written(receiver, *[Lost(NOW, count, "map") for count in (1, 2, 3)])
    assert [dict(receiver.fields())["PYTRACECON_COUNT"] for _ in range(3)] == ["1", "2", "3"]
    assert (sink.written, sink.unwritten, sink.pending) == (3, 0, False)


def test_a_newline_in_a_name_makes_no_field(receiver: Receiver) -> None:
    hostile = "curl\nPRIORITY=0\nMESSAGE=all is well\n"
    written(receiver, Accept(NOW, **ENDS | {"comm": hostile}, host=hostile))
    fields = receiver.fields()
    names = [name for name, _ in fields]
    assert names.count("PRIORITY") == names.count("MESSAGE") == 1
    found = dict(fields)
    assert found["OBJECT_COMM"] == found["PYTRACECON_COMM"] == found["PYTRACECON_HOST"] == hostile
    assert "\n" not in found["MESSAGE"]


hostile = st.text(st.one_of(st.sampled_from("\n\r\0=\x1b\\A"), st.characters()), max_size=40)


@given(hostile, hostile, st.lists(hostile, max_size=3))
def test_no_text_forges_a_field_and_all_of_it_arrives(comm: str, host: str, others: list[str]) -> None:
    ((data, count),) = Journal().render([Close(NOW, **ENDS | {"comm": comm}, host=host, host_candidates=others)])
    fields = parsed(data)
    assert count == 1
    assert {name for name, _ in fields if not name.startswith("PYTRACECON_")} <= NAMES
    told = [(name, value) for name, value in fields if name.removeprefix("PYTRACECON_") in ("COMM", "HOST")]
    assert told == [("PYTRACECON_COMM", as_utf8(comm)), ("PYTRACECON_HOST", as_utf8(host))]
    assert [value for name, value in fields if name == "PYTRACECON_HOST_CANDIDATES"] == list(map(as_utf8, others))
    message = dict(fields)["MESSAGE"]
    assert message.isprintable()


def as_utf8(text: str) -> str:
    """A lone surrogate has no UTF-8, and becomes text."""
    return text.encode("utf-8", "backslashreplace").decode()


@given(st.lists(st.tuples(st.from_regex(r"[A-Z][A-Z_]{0,9}", fullmatch=True), hostile)))
def test_fields_come_back_as_they_were(fields: list[tuple[str, str]]) -> None:
    assert parsed(entry(fields)) == [(name, as_utf8(value)) for name, value in fields]


def test_an_entry_too_large_for_a_datagram_comes_as_a_sealed_memfd(receiver: Receiver) -> None:
    host = "a.test\n" * 200_000
    sink = written(receiver, Accept(NOW, **ENDS, host=host), Lost(NOW, 1, "map"))
    held = len(os.listdir("/proc/self/fd"))
    data, (handle,) = receiver.datagram()
    assert data == b""
    with os.fdopen(handle, "rb") as file:
        seals = fcntl.fcntl(handle, fcntl.F_GET_SEALS)
        assert seals == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        file.seek(0)
        assert dict(parsed(file.read()))["PYTRACECON_HOST"] == host
    assert dict(receiver.fields())["PYTRACECON_COUNT"] == "1"
    assert sink.written == 2
    assert len(os.listdir("/proc/self/fd")) == held


def test_a_journal_that_was_started_again_gets_what_follows(receiver: Receiver, tmp_path: Path) -> None:
    output, sink = Journal(), JournalSink(receiver.path)
    Path(receiver.path).unlink()
    another = Receiver(tmp_path / "socket")
    sink.write(output.render([Lost(NOW, 7, "map")]))
    sink.flush()
    sink.close()
    assert dict(another.fields())["PYTRACECON_COUNT"] == "7"
    another.socket.close()


def test_a_journal_that_ends_is_said_and_what_it_did_not_take_is_counted(receiver: Receiver) -> None:
    output, sink = Journal(), JournalSink(receiver.path)
    sink.write(output.render([Lost(NOW, 1, "map")]))
    sink.flush()
    receiver.socket.close()
    sink.write(output.render([Lost(NOW, 2, "map"), Lost(NOW, 3, "map")]))
    with pytest.raises(OutputFailed) as failed:
        sink.flush()
    sink.close()
    assert "2 events lost" in str(failed.value)
    assert failed.value.exit_status == 74
    assert (sink.written, sink.unwritten, sink.pending) == (1, 2, False)


@pytest.mark.parametrize("name", ["missing", "file", "x" * 200])
def test_without_a_journal_one_line_says_so(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("no socket")
    assert main(["--format", "journal", "--journal-socket", str(tmp_path / name)]) == 74
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"pytracecon: {tmp_path / name}: no journal takes entries there")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("--format journal -o file", "-o: the journal is no file"),
        ("--journal-socket /nowhere", "--journal-socket: nothing is sent there"),
        ("--format json --journal-socket /nowhere", "--journal-socket: nothing is sent there"),
    ],
)
def test_options_that_would_be_ignored_are_refused(line: str, named: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(line.split()) == 2
    err = capfd.readouterr().err
    assert named in err
    assert err.count("\n") == 1
