"""From events to what a command did, and to what is said of it: destinations, failures, what was not allowed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pytracecon.connections import Joined
from pytracecon.events import Accept, Close, Connect, Established, Event, Existing, Failed, Lookup, Lost
from pytracecon.guard import Guard
from pytracecon.summary import Summary
from pytracecon.views.run import document, notice, text

TO: dict[str, Any] = {"remote_addr": "192.0.2.1", "remote_port": 443, "pid": 7, "comm": "curl"}


def made(conn: str, latency: int = 1_000_000, tx: int = 10, rx: int = 20, **known: Any) -> list[Event]:
    """The events of an outbound connection, from its first to its last."""
    about = TO | known
    return [
        Connect(1, conn, "tcp", "out", **about),
        Established(2, conn, "tcp", "out", **about, latency_ns=latency, syn_retransmits=0),
        Close(3, conn, "tcp", "out", **about, tx_bytes=tx, rx_bytes=rx, ended="local_close"),
    ]


def failed(conn: str, reason: str, **known: Any) -> list[Event]:
    about = TO | known
    return [Connect(1, conn, "tcp", "out", **about), Failed(2, conn, "tcp", "out", **about, error="E", reason=reason)]


def summed(*stories: list[Event], guard: Guard | None = None) -> Summary:
    summary = Summary(guard)
    for story in stories:
        for event in story:
            summary.take(event)
    summary.finish()
    return summary


def test_a_connection_is_joined_from_its_events() -> None:
    joined = Joined()
    told = [joined.take(event) for event in made("1")]
    assert told[0] is told[1] is told[2]
    connection = told[0]
    assert connection is not None
    assert (connection.outcome, connection.over, connection.time_ns) == ("closed", True, 1)
    assert (connection.latency_ns, connection.tx_bytes, connection.rx_bytes) == (1_000_000, 10, 20)
    assert connection.remote == ("192.0.2.1", 443)
    assert (connection.comm, connection.ended, connection.error) == ("curl", "local_close", None)
    assert joined.unfinished == {}


@pytest.mark.parametrize(("events", "outcome"), [(1, "pending"), (2, "open"), (3, "closed")])
def test_it_is_as_its_last_event_left_it(events: int, outcome: str) -> None:
    joined = Joined()
    (told,) = {id(found): found for event in made("1")[:events] if (found := joined.take(event))}.values()
    assert told.outcome == outcome
    assert list(joined.unfinished.values()) == ([] if outcome == "closed" else [told])


def test_a_name_that_becomes_certain_leaves_no_candidates() -> None:
    first, last = made("1", host="a", host_source="dns", host_candidates=["a", "b"])[0::2]
    joined = Joined()
    told = joined.take(first)
    assert told is not None
    assert told.host_candidates == ["a", "b"]
    assert isinstance(last, Close)
    last.host, last.host_candidates = "b", None
    told = joined.take(last)
    assert told is not None
    assert (told.host, told.host_candidates) == ("b", None)


@pytest.mark.parametrize(
    "event",
    [
        Lookup(1, name="a"),
        Lost(1, 1, "ring"),
        Connect(1, "1", "tcp", "out", subflow_of="2"),
        Close(1, "1", "tcp", "out", pre_existing=True),
        Existing(1, "1", "tcp", "out", pre_existing=True),
    ],
)
def test_what_is_no_connection_of_its_own_is_none(event: Event) -> None:
    assert Joined().take(event) is None


def test_destinations_by_name_and_port() -> None:
    named: dict[str, Any] = {"host": "www.example.com", "host_source": "dns"}
    summary = summed(
        made("1", 3_000_000, **named),
        made("2", 1_000_000, **named | {"remote_addr": "192.0.2.2"}),
        made("3", 2_000_000, **named),
        made("4", 9_000_000, **named | {"remote_port": 80}),
        made("5", 8_000_000),
        failed("6", "refused", **named),
        failed("7", "timeout", **named),
        failed("8", "refused", **named),
    )
    first, *others = summary.in_order()
    assert (first.host, first.port, first.connections, first.failed) == ("www.example.com", 443, 3, 3)
    assert list(first.addresses) == ["192.0.2.1", "192.0.2.2"]
    assert first.latency() == (1_000_000, 2_000_000, 3_000_000)
    assert first.failures == {"refused": 2, "timeout": 1}
    assert (first.tx_bytes, first.rx_bytes) == (30, 60)
    assert {(each.host, each.port) for each in others} == {("www.example.com", 80), (None, 443)}
    assert (summary.connections, summary.failed) == (5, 3)


@pytest.mark.parametrize(
    ("latencies", "told"),
    [([5], (5, 5, 5)), ([9, 1], (1, 1, 9)), ([4, 2, 9], (2, 4, 9)), ([4, 3, 2, 1], (1, 2, 4))],
)
def test_the_median_is_one_that_occurred(latencies: list[int], told: tuple[int, int, int]) -> None:
    summary = summed(*(made(str(at), latency) for at, latency in enumerate(latencies)))
    assert summary.in_order()[0].latency() == told


def test_what_is_open_at_the_end_is_a_connection_whose_bytes_are_not_known() -> None:
    summary = summed(made("1"), made("2")[:2])
    (destination,) = summary.in_order()
    assert (destination.connections, destination.still_open, destination.tx_bytes) == (2, 1, 10)


def test_what_others_connected_by_local_port() -> None:
    about: dict[str, Any] = {"local_port": 80, "remote_addr": "192.0.2.9", "remote_port": 5000}
    story: list[Event] = [
        Accept(1, "1", "tcp", "in", **about),
        Close(2, "1", "tcp", "in", **about, tx_bytes=3, rx_bytes=4),
    ]
    summary = summed(story, guard=Guard())
    assert summary.destinations == {}
    assert summary.not_allowed == {}
    assert summary.document()["accepted"] == [{"port": 80, "connections": 1, "tx_bytes": 3, "rx_bytes": 4}]


def test_lookups_are_counted_once_and_those_without_an_answer_named() -> None:
    summary = summed(
        [
            Lookup(1, name="a", result="ok", source="getaddrinfo"),
            Lookup(1, name="a", result="ok", source="dns", within="libc"),
            Lookup(1, name="b", result="NXDOMAIN", source="dns"),
            Lookup(1, name="b", result="NXDOMAIN", source="dns"),
        ]
    )
    assert summary.lookups == 3
    assert summary.document()["lookups_failed"] == [{"name": "b", "result": "NXDOMAIN", "count": 2}]


def test_losses_are_told_by_where_they_were() -> None:
    summary = summed([Lost(1, 3, "ring"), Lost(2, 4, "ring"), Lost(3, 1, "map")])
    assert summary.lost == {"ring": 7, "map": 1}
    assert summary.document()["lost"] == 8


def test_what_is_not_allowed_is_judged_by_all_that_is_known_at_its_end() -> None:
    """A server name comes after the handshake."""
    guard = Guard.parse(None, "good.example")
    late = made("1")
    assert isinstance(late[2], Close)
    late[2].host, late[2].host_source = "good.example", "sni"
    summary = summed(late, made("2"), failed("3", "refused"), made("4")[:1], guard=guard)
    ((reached, count),) = summary.not_allowed.items()
    assert count == 3
    assert (reached.pid, reached.comm, reached.address, reached.port) == (7, "curl", "192.0.2.1", 443)


def test_without_a_guard_nothing_is_said_of_what_is_allowed() -> None:
    assert "not_allowed" not in summed(made("1")).document()
    assert summed(made("1"), guard=Guard.parse("192.0.2.1", None)).document()["not_allowed"] == []


def test_more_destinations_than_anybody_reads_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytracecon.summary._MOST", 3)
    summary = summed(*(made(str(at), remote_port=at) for at in range(1, 6)), guard=Guard())
    assert (len(summary.destinations), summary.others, len(summary.not_allowed)) == (3, 2, 3)
    assert summary.document()["destinations_left_out"] == 2


def test_the_document_leaves_out_what_is_not_known() -> None:
    told = json.loads(json.dumps(summed(failed("1", "refused")).document()))
    assert told["destinations"] == [
        {
            "addresses": ["192.0.2.1"],
            "port": 443,
            "connections": 0,
            "tx_bytes": 0,
            "rx_bytes": 0,
            "failed": 1,
            "failures": {"refused": 1},
        }
    ]


NAMED: dict[str, Any] = {"host": "www.example.com", "host_source": "dns"}


def test_the_summary_in_words() -> None:
    about: dict[str, Any] = {"local_port": 80, "remote_addr": "192.0.2.9", "remote_port": 5000}
    summary = summed(
        made("1", 1_000_000, 100, 2000, **NAMED),
        made("2", 3_000_000, 100, 2000, **NAMED),
        made("3", remote_addr="2001:db8::1")[:2],
        failed("4", "refused", remote_addr="2001:db8::1"),
        failed("5", "timeout", remote_addr="2001:db8::1"),
        [Accept(1, "6", "tcp", "in", **about), Close(2, "6", "tcp", "in", **about, tx_bytes=3, rx_bytes=4)],
        [Lookup(1, name="gone.example.com", result="NXDOMAIN"), Lookup(1, name="www.example.com", result="ok")],
        guard=Guard.parse(None, "*.example.com"),
    )
    assert text(0, 1.5, summary, {42: "sleep"}).splitlines() == [
        "pytracecon: status 0 after 1.50 s: 3 connections, 2 failed; 1 accepted; 2 lookups, 1 failed; none lost",
        "  REMOTE                     MADE  LATENCY min/median/max    OUT      IN  FAILED",
        "  [2001:db8::1]:443    1 (1 open)  1.00 / 1.00 / 1.00 ms                  1 refused, 1 timed out",
        "  www.example.com:443           2  1.00 / 1.00 / 3.00 ms   200 B  4000 B",
        "    192.0.2.1",
        "  accepted 1 on port 80: 3 B out, 4 B in",
        "  lookup of gone.example.com failed: NXDOMAIN (1)",
        "  not allowed: curl (7) to [2001:db8::1]:443 (3)",
        "  left behind, and not traced any further: sleep (42)",
    ]


def test_latencies_of_different_units_have_them_all() -> None:
    summary = summed(made("1", 5_000), made("2", 1_500_000_000))
    assert "  0.005 ms / 0.005 ms / 1.50 s  " in text(0, 1, summary, {})


def test_nothing_done_is_one_line() -> None:
    assert text(-9, 0.5, summed(), {}) == "pytracecon: signal 9 after 500.00 ms: 0 connections; 0 lookups; none lost\n"


def test_a_loss_is_said_and_what_it_means_for_a_guard() -> None:
    lost: list[Any] = [Lost(1, 3, "ring"), Lost(1, 4, "map")]
    assert "3 lost (ring); 4 lost (map)" in text(0, 1, summed(lost), {})
    assert "not known" not in text(0, 1, summed(lost), {})
    assert "not known" in text(0, 1, summed(lost, guard=Guard()), {})


def test_what_is_wrong_is_said_even_where_the_rest_goes_to_a_file() -> None:
    lines = notice(0, 1, summed(made("1"), guard=Guard()), {}).splitlines()
    assert [line.split()[0] for line in lines] == ["pytracecon:", "not"]


def test_foreign_text_stays_on_its_line() -> None:
    evil = "a\x1b[31m\nb"
    summary = summed(
        made("1", comm=evil, host=evil, host_source="dns"),
        [Lookup(1, name=evil, result="NXDOMAIN")],
        guard=Guard(),
    )
    shown = text(0, 1, summary, {1: evil})
    assert all(line.isprintable() for line in shown.splitlines())
    assert len(shown.splitlines()) == 7
    assert document(["x\x1b", "\udcff"], 0, 1, summary, {}).isascii()


def test_more_than_anybody_reads_is_counted() -> None:
    shown = text(0, 1, summed(*(made(str(at), remote_port=at) for at in range(1, 61)), guard=Guard()), {})
    assert shown.count("  192.0.2.1:") == 50
    assert "  and 10 more (--format json lists all)" in shown
    assert "  and 10 more that are not allowed (--format json lists all)" in shown


def test_the_document() -> None:
    told = json.loads(document(["sh", "-c", "x"], -15, 1.5, summed(made("1", **NAMED)), {42: "sleep"}))
    assert (told["command"], told["status"], told["signal"]) == (["sh", "-c", "x"], 143, 15)
    assert told["duration_ns"] == 1_500_000_000
    assert told["left_behind"] == [{"pid": 42, "comm": "sleep"}]
    assert told["destinations"][0]["host"] == "www.example.com"
