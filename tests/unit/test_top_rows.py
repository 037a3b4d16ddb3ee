"""From snapshots and events to the rows of `top`: what is added up, and what is remembered."""

from __future__ import annotations

from typing import Any

import pytest

from pytracecon.connections import Connection
from pytracecon.events import Lost
from pytracecon.snapshots import Snapshot
from pytracecon.top.rows import HISTORY, Board, Group, Picture
from unit.snapshots import BEGAN, accepted, conn, connection, established, failed, snapshot


def process(picture: Picture, pid: int | None) -> Group:
    (found,) = [group for group in picture.processes if group.pid == pid]
    return found


def host(picture: Picture, name: str) -> Group:
    (found,) = [group for group in picture.hosts if group.name == name]
    return found


def after_a_first_one() -> Board:
    board = Board()
    board.take(snapshot(at=0, elapsed=None), [])
    return board


def picture_of(*connections: Connection, **more: Any) -> Picture:
    return after_a_first_one().take(snapshot(*connections, **more), [])


def test_a_process_is_the_sum_of_its_connections() -> None:
    picture = picture_of(
        connection(1, tx_rate=10.0, rx_rate=1.0, tx_bytes=100, rx_bytes=7, retransmits=1, rtt_ns=1000),
        connection(2, tx_rate=5.0, rx_rate=0.5, tx_bytes=50, rx_bytes=3, rtt_ns=3000),
        connection(3, tx_bytes=1, rtt_ns=9000),
        connection(4, pid=200, comm="nginx", tx_bytes=999, tx_rate=999.0),
    )
    curl = process(picture, 100)
    assert (curl.name, curl.connections, curl.tx_rate, curl.rx_rate) == ("curl", 3, 15.0, 1.5)
    assert (curl.tx_bytes, curl.rx_bytes, curl.retransmits) == (151, 10, 1)
    assert curl.rtt_ns == 3000  # the median
    assert curl.busiest is not None
    assert curl.busiest.conn == conn(1)
    assert (picture.open, picture.tx_rate, picture.rx_rate) == (4, 1014.0, 1.5)


def test_a_host_is_its_name_or_else_its_address() -> None:
    picture = picture_of(
        connection(1, host="a.test", tx_bytes=1),
        connection(2, host="a.test", remote_addr="10.0.0.8", pid=200, tx_bytes=2),
        connection(3, host="b.test", tx_bytes=4),
        connection(4, tx_bytes=8),
    )
    assert {group.name: group.tx_bytes for group in picture.hosts} == {"a.test": 3, "b.test": 4, "10.0.0.7": 8}


def test_owners_that_are_not_known_are_told_apart_by_their_commands() -> None:
    picture = picture_of(connection(1, pid=None, comm=None), connection(2, pid=None, comm="curl"))
    assert [(group.name, group.pid) for group in picture.processes] == [(None, None), ("curl", None)]


def test_a_first_snapshot_has_no_rates() -> None:
    picture = Board().take(snapshot(connection(1, tx_rate=None, rx_rate=None), elapsed=None), [established(1)])
    assert (picture.tx_rate, picture.rx_rate, picture.new, picture.failed) == (None, None, None, None)
    curl = process(picture, 100)
    assert (curl.tx_rate, curl.new, curl.failed) == (None, None, None)


def test_listeners_are_no_connections() -> None:
    listener = connection(1, outcome="listening", state="LISTEN", remote_addr=None, remote_port=None, backlog=2)
    picture = picture_of(listener, connection(2))
    assert (picture.open, picture.listeners) == (1, 1)
    curl = process(picture, 100)
    assert (curl.connections, curl.listeners) == (1, 1)
    assert [group.name for group in picture.hosts] == ["10.0.0.7"]


def test_a_socket_for_datagrams_without_another_end_waits_for_others() -> None:
    alone = {"proto": "udp", "remote_addr": None, "remote_port": None}
    picture = picture_of(connection(1, **alone, tx_bytes=None, rx_bytes=None), connection(2, **alone, rx_bytes=9))
    assert (picture.open, picture.listeners, picture.new) == (1, 1, 1.0)
    assert picture.hosts == []
    assert process(picture, 100).rx_bytes == 9


def test_paths_of_mptcp_stand_apart_and_count_once() -> None:
    whole = connection(1, proto="mptcp", tx_rate=30.0, tx_bytes=300)
    paths = [connection(at, subflow_of=conn(1), tx_rate=15.0, tx_bytes=150) for at in (2, 3)]
    picture = picture_of(whole, *paths)
    assert [each.conn for each in picture.connections] == [conn(1)]
    assert [each.conn for each in picture.paths[conn(1)]] == [conn(2), conn(3)]
    assert (picture.open, picture.tx_rate) == (1, 30.0)
    curl = process(picture, 100)
    assert (curl.connections, curl.tx_rate, curl.tx_bytes) == (1, 30.0, 300)
    assert picture.find(conn(3)) is paths[1]
    assert picture.rates(conn(3))[-1] == (15.0, 0.0)


def test_a_path_whose_connection_is_not_there_is_one_by_itself() -> None:
    """A limit may have left the connection out."""
    picture = picture_of(connection(2, subflow_of=conn(1), tx_bytes=150))
    assert process(picture, 100).tx_bytes == 150


def test_new_and_failed_are_counted_per_second_of_what_the_events_tell() -> None:
    told = [established(1), established(2), accepted(3), failed(4), established(5, subflow_of=conn(1))]
    picture = after_a_first_one().take(snapshot(connection(1), elapsed=2), told)
    assert (picture.new, picture.failed) == (1.5, 0.5)
    assert (process(picture, 100).new, process(picture, 100).failed) == (1.0, 0.5)
    assert (process(picture, 200).new, process(picture, 200).failed) == (0.5, 0.0)
    assert (host(picture, "10.0.0.7").new, host(picture, "10.0.0.7").failed) == (1.5, 0.5)


def test_a_udp_conversation_is_new_when_it_was_not_there_before() -> None:
    board = after_a_first_one()
    first = board.take(snapshot(connection(1, proto="udp", rtt_ns=None)), [])
    second = board.take(snapshot(connection(1, proto="udp"), connection(2, proto="udp")), [])
    third = board.take(snapshot(connection(1, proto="udp"), connection(2, proto="udp")), [])
    assert (first.new, second.new, third.new) == (1.0, 1.0, 0.0)
    assert Board().take(snapshot(connection(1, proto="udp"), elapsed=None), []).new is None


def test_what_ended_stays_in_the_totals() -> None:
    board = after_a_first_one()
    over = connection(1, outcome="closed", tx_bytes=100, rx_bytes=10, retransmits=2, tx_rate=100.0)
    first = board.take(snapshot(over, connection(2, tx_bytes=1)), [])
    second = board.take(snapshot(connection(2, tx_bytes=5)), [])
    for picture, total in ((first, 101), (second, 105)):
        curl = process(picture, 100)
        assert (curl.connections, curl.tx_bytes, curl.rx_bytes, curl.retransmits) == (1, total, 10, 2)
    assert process(first, 100).tx_rate == 100.0
    assert process(second, 100).tx_rate == 0.0


def test_what_ended_is_shown_for_a_while_without_rates() -> None:
    board = after_a_first_one()
    shown = [board.take(snapshot(connection(1, outcome="closed", tx_rate=9.0)), [])]
    shown += [board.take(snapshot(), []) for _ in range(8)]
    rates = [[each.tx_rate for each in picture.connections] for picture in shown]
    assert rates == [[9.0], [0.0], [0.0], [0.0], [0.0], [0.0], [], [], []]
    assert [len(picture.processes) for picture in shown] == [1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert [group.gone for picture in shown[:6] for group in picture.processes] == [0, 1, 2, 3, 4, 5]


def test_a_process_of_which_only_failures_are_told_has_a_row() -> None:
    picture = after_a_first_one().take(snapshot(), [failed(1, pid=300, comm="wget")])
    wget = process(picture, 300)
    assert (wget.name, wget.connections, wget.failed) == ("wget", 0, 1.0)


def test_rates_are_remembered_for_connections_processes_and_hosts() -> None:
    board = after_a_first_one()
    for rate in (1.0, 0.0):
        board.take(snapshot(connection(1, tx_rate=rate, rx_rate=2 * rate)), [])
    picture = board.take(snapshot(connection(1, tx_rate=3.0, rx_rate=6.0)), [])
    for key in (conn(1), ("process", 100), ("host", "10.0.0.7")):
        assert picture.rates(key) == [(0.0, 0.0), (1.0, 2.0), (0.0, 0.0), (3.0, 6.0)]
    assert len(board.take(snapshot(), []).history) == 5
    lengths = {len(board.take(snapshot(), []).history) for _ in range(HISTORY)}
    assert max(lengths) == HISTORY


def test_an_earlier_picture_stays_as_it_was() -> None:
    board = after_a_first_one()
    before = board.take(snapshot(connection(1, tx_rate=1.0, tx_bytes=1)), [])
    board.take(snapshot(connection(1, tx_rate=7.0, tx_bytes=8)), [failed(2)])
    assert (before.tx_rate, before.failed, process(before, 100).tx_bytes) == (1.0, 0.0, 1)
    assert before.rates(conn(1)) == [(0.0, 0.0), (1.0, 0.0)]


def test_what_was_lost_and_left_out_is_said() -> None:
    board = after_a_first_one()
    lost = Lost(time_ns=BEGAN, count=3, where="ring")
    assert board.take(snapshot(left_out=7), [lost]).left_out == 7
    assert board.take(snapshot(), [lost]).lost == 6


def test_lives_are_kept_for_who_opens_a_row() -> None:
    board = after_a_first_one()
    board.take(snapshot(connection(1)), [established(1)])
    assert [event.event for event in board.lives.all[conn(1)].events] == ["established"]
    assert [event.event for event in board.events] == ["established"]


@pytest.mark.parametrize("count", [1, 30_000])
def test_totals_of_what_ended_are_bounded(count: int) -> None:
    board = Board()
    ended = [connection(at, outcome="closed", pid=at, remote_addr=f"host{at}", tx_bytes=1) for at in range(count)]
    picture = board.take(Snapshot(ended, time_ns=BEGAN, elapsed_ns=10**9), [])
    assert len(picture.processes) == count
    assert len(board._totals) == min(2 * count, 10_000)
