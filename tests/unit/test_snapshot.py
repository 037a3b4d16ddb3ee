"""From rows to a snapshot: no kernel is needed to say what is whose peer, how fast, and what is told once."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from typing import Any

import pytest

from pytracecon import Snapshot, snapshots, waiting, wire
from pytracecon.clock import SECOND
from pytracecon.connections import Connection
from pytracecon.decode import DIRECTIONS, OWNERS, PROTOCOLS, STATES
from pytracecon.errors import InvalidValue
from pytracecon.events import Close, Connect, Event, Failed, Lost
from pytracecon.rows import Rows
from pytracecon.snapshots import Snapshots
from pytracecon.waiting import Waiting

OFFSET = 10**18
"""Between the kernel's clock and the wall clock."""
HERE, THERE = ("10.0.0.1", 4000), ("10.0.0.2", 80)
_ROW = wire.layout(*wire.ROW)
_NAMES = [name for part in wire.ROW for name, form in part if not form.endswith("x")]


def mapped(address: str) -> bytes:
    return bytes(10) + b"\xff\xff" + bytes(map(int, address.split(".")))


def row(number: int, local: Any = HERE, remote: Any = THERE, **values: Any) -> bytes:
    """One as the kernel side writes it: an established TCP connection, unless said otherwise."""
    filled: dict[str, Any] = dict.fromkeys(_NAMES, 0) | {
        "time": 5 * SECOND,
        "id": number,
        "cgroup": 7,
        "netns": 1,
        "pid": 100,
        "tid": 100,
        "uid": 1000,
        "local_addr": mapped(local[0]),
        "local_port": local[1],
        "remote_addr": mapped(remote[0]),
        "remote_port": remote[1],
        "protocol": PROTOCOLS.index(values.pop("proto", "tcp")),
        "direction": DIRECTIONS.index(values.pop("direction", "out")),
        "owner": OWNERS.index(values.pop("owner", "connect")),
        "state": STATES.index(values.pop("in_state", "ESTABLISHED")),
        "known": wire.ROW_TOTALS | wire.ROW_QUEUES | wire.ROW_HELD,
        "comm": b"curl",
        "thread": b"",
    }
    return _ROW.pack(*(filled | values).values())


def close(number: int, at: int, **values: Any) -> Close:
    return Close(at + OFFSET, f"{number:016x}", "tcp", "out", **values)


def snapshots_of_all() -> Snapshots:
    return Snapshots(Rows())


def take(taken: Snapshots, *rows: bytes, now: int = 5 * SECOND, limit: int | None = None) -> Snapshot:
    return taken.take(b"".join(rows), now, OFFSET, limit)


def test_a_row_is_all_that_is_known() -> None:
    (made,) = take(
        snapshots_of_all(),
        row(
            1, started=SECOND, established=2 * SECOND, tx_bytes=10, tx_acked=8, rx_bytes=20, rtt=30, retransmits=1,
            tx_queue=2, rx_queue=3, fd=9,
        ),
    )  # fmt: skip
    assert made == Connection(
        conn="0000000000000001", proto="tcp", direction="out", time_ns=OFFSET + SECOND, outcome="open",
        local_addr="10.0.0.1", local_port=4000, remote_addr="10.0.0.2", remote_port=80, netns=1, pid=100, comm="curl",
        uid=1000, owner="connect", cgroup=7, latency_ns=SECOND, tx_bytes=10, tx_acked=8, rx_bytes=20, retransmits=1,
        rtt_ns=30, state="ESTABLISHED", fd=9, age_ns=4 * SECOND, tx_queue=2, rx_queue=3,
    )  # fmt: skip


def test_what_is_not_known_is_absent() -> None:
    (made,) = take(snapshots_of_all(), row(1, remote=("0.0.0.0", 0), known=0, pid=0, tid=0, cgroup=0))
    known = {"conn", "proto", "direction", "time_ns", "outcome", "local_addr", "local_port", "netns", "owner", "state"}
    assert {field.name for field in fields(made) if getattr(made, field.name) is not None} == known


def test_a_udp_conversation_has_datagrams_and_nothing_that_only_tcp_counts() -> None:
    taken = snapshots_of_all()
    known = wire.ROW_TOTALS | wire.ROW_PACKETS
    five, six = (
        row(1, proto="udp", known=known, app=1, time=at * SECOND, tx_bytes=100 * at, rx_bytes=at, tx_packets=at)
        for at in (5, 6)
    )
    take(taken, five)
    (made,) = take(taken, six, now=6 * SECOND)
    assert (made.proto, made.app, made.tx_bytes, made.rx_bytes) == ("udp", "quic", 600, 6)
    assert (made.tx_packets, made.rx_packets) == (6, 0)
    assert (made.tx_rate, made.rx_rate) == (100.0, 1.0)
    assert (made.tx_acked, made.retransmits, made.rtt_ns, made.tx_queue, made.fd) == (None,) * 5


@pytest.mark.parametrize(
    ("state", "outcome"), [("LISTEN", "listening"), ("SYN_SENT", "pending"), ("FIN_WAIT1", "open")]
)
def test_the_state_tells_what_became_of_it(state: str, outcome: str) -> None:
    (made,) = take(snapshots_of_all(), row(1, in_state=state))
    assert (made.state, made.outcome) == (state, outcome)


def test_one_that_several_processes_hold_is_listed_once() -> None:
    """Whoever listens is named before those that only hold the socket."""
    made = take(snapshots_of_all(), row(1, owner="existing", pid=5), row(2), row(1, owner="listen", pid=6))
    assert [(each.conn[-1], each.pid) for each in made] == [("1", 6), ("2", 100)]


@pytest.mark.parametrize(
    ("rows", "peers"),
    [
        ([row(1), row(2, THERE, HERE)], ["2", "1"]),
        ([row(1), row(2, THERE, HERE, netns=2)], ["2", "1"]),
        ([row(1, HERE, HERE)], ["1"]),
        ([row(1), row(2, THERE, HERE, proto="mptcp")], [None, None]),
        ([row(1), row(2, THERE, ("10.0.0.1", 4001))], [None, None]),
        ([row(1), row(2, THERE, HERE, netns=2), row(3, THERE, HERE, netns=3)], [None, None, None]),
        ([row(1), row(2, THERE, HERE, netns=2), row(3, netns=3)], [None, None, None]),
        ([row(1), row(2, THERE, HERE), row(3, THERE, HERE, netns=3)], ["2", "1", None]),
        ([row(1, ("127.0.0.1", 1), ("127.0.0.1", 2)), row(2, ("127.0.0.1", 2), ("127.0.0.1", 1), netns=2)], [None] * 2),
    ],
    ids=[
        "in a namespace", "across two", "itself", "another protocol", "another port", "two that it could be",
        "it could be another's", "the nearer one", "a loopback is a namespace's own",
    ],
)  # fmt: skip
def test_peers_refer_to_each_other_where_no_doubt_is_left(rows: list[bytes], peers: list[str | None]) -> None:
    made = take(snapshots_of_all(), *rows)
    assert [each.peer and each.peer[-1] for each in made] == peers


def test_the_paths_of_a_connection_stand_behind_it() -> None:
    rows = [row(3, subflow_of=2), row(1), row(2, proto="mptcp"), row(4, subflow_of=2), row(5, subflow_of=9), row(6)]
    assert [each.conn[-1] for each in take(snapshots_of_all(), *rows)] == ["1", "2", "3", "4", "5", "6"]


def test_rates_are_what_came_since_the_snapshot_before() -> None:
    taken = snapshots_of_all()
    first = take(taken, row(1, tx_bytes=100, rx_bytes=5), row(2), now=5 * SECOND)
    assert first.elapsed_ns is None
    assert {(each.tx_rate, each.rx_rate) for each in first} == {(None, None)}
    rows = [
        row(1, tx_bytes=400, rx_bytes=5, time=7 * SECOND),
        row(3, tx_bytes=900, time=8 * SECOND, started=6 * SECOND),
        row(4, tx_bytes=900, time=8 * SECOND),
    ]
    second = take(taken, *rows, now=7 * SECOND)
    assert second.elapsed_ns == 2 * SECOND
    assert second.time_ns == 7 * SECOND + OFFSET
    assert [(each.tx_rate, each.rx_rate) for each in second] == [(150.0, 0.0), (300.0, 0.0), (None, None)]


def test_what_ended_comes_first_and_once() -> None:
    taken = snapshots_of_all()
    take(taken, row(1, tx_bytes=100), now=5 * SECOND)
    lived = close(2, 6 * SECOND, duration_ns=SECOND // 2, tx_bytes=512, rx_bytes=4, ended="local_close", pid=8)
    failed = Failed(6 * SECOND + OFFSET, f"{3:016x}", "tcp", "out", error="ECONNREFUSED", latency_ns=7)
    events: list[Event] = [close(1, 6 * SECOND, tx_bytes=300, rx_bytes=0), lived, failed]
    taken.note([*events, Connect(OFFSET, "9", "tcp", "out")])
    second = take(taken, row(4), now=7 * SECOND)
    told = [(each.conn[-1], each.outcome, each.state, each.tx_bytes, each.tx_rate, each.rx_rate) for each in second]
    assert told == [
        ("1", "closed", "CLOSE", 300, 100.0, 0.0),
        ("2", "closed", "CLOSE", 512, 256.0, 2.0),
        ("3", "failed", "CLOSE", None, None, None),
        ("4", "open", "ESTABLISHED", 0, None, None),
    ]
    assert second[1].time_ns == 6 * SECOND - SECOND // 2 + OFFSET
    assert (second[1].pid, second[1].ended, second[2].error) == (8, "local_close", "ECONNREFUSED")
    assert [each.conn[-1] for each in take(taken, row(4, time=9 * SECOND), now=8 * SECOND)] == ["4"]


def test_one_that_ends_while_the_list_is_made_is_open_and_in_the_next_one_closed() -> None:
    taken = snapshots_of_all()
    take(taken)
    taken.note([close(1, 6 * SECOND)])
    assert [each.outcome for each in take(taken, row(1), now=6 * SECOND)] == ["open"]
    assert [each.outcome for each in take(taken, now=7 * SECOND)] == ["closed"]
    assert take(taken, now=8 * SECOND) == []


def test_the_first_one_tells_nothing_that_ended() -> None:
    taken = snapshots_of_all()
    taken.note([close(1, 4 * SECOND)])
    assert take(taken) == []
    assert [each.outcome for each in take(taken, now=6 * SECOND)] == ["closed"], "as nothing has told of it yet"


def test_what_does_not_fit_is_counted() -> None:
    taken = snapshots_of_all()
    first = take(taken, *(row(number) for number in range(1, 6)), limit=2)
    assert ([each.conn[-1] for each in first], first.left_out) == (["1", "2"], 3)
    taken.note([close(number, 6 * SECOND) for number in range(1, 4)])
    second = take(taken, row(4, time=7 * SECOND), row(5, time=7 * SECOND), now=6 * SECOND, limit=4)
    assert ([each.conn[-1] for each in second], second.left_out) == (["1", "2", "3", "4"], 1)
    assert second[3].tx_rate == 0.0, "though it was left out before"


def test_the_limit_counts_what_the_filters_let_through() -> None:
    taken = Snapshots(Rows(fits=lambda each: each.local_port != 4000))
    rows = [row(1), row(2, ("10.0.0.1", 1)), row(3), row(4, ("10.0.0.1", 2)), row(5, ("10.0.0.1", 3))]
    made = take(taken, *rows, limit=2)
    assert ([each.conn[-1] for each in made], made.left_out) == (["2", "4"], 1)


def test_of_very_many_that_ended_some_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MOST_ENDED", 3)
    taken = snapshots_of_all()
    take(taken)
    taken.note([close(number, 6 * SECOND) for number in range(1, 6)])
    made = take(taken, now=7 * SECOND)
    assert (len(made), made.left_out) == (3, 2)
    assert (len(take(taken, now=8 * SECOND)), take(taken, now=9 * SECOND).left_out) == (0, 0)


@pytest.mark.parametrize("limit", [0, -1, 1.5, "10", True])
def test_a_limit_that_cannot_be(limit: Any) -> None:
    with pytest.raises(InvalidValue, match=r"limit: .* is no number of connections; give 1 or more, or None for all"):
        snapshots.check(limit)


def event(at: int) -> Connect:
    return Connect(at, "1", "tcp", "out")


def told(queue: Waiting) -> list[Any]:
    return [
        (each.where, each.count, each.from_ns, each.to_ns) if isinstance(each, Lost) else each.time_ns for each in queue
    ]


def test_a_queue_that_nobody_reads_is_full_one_day_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOST", 3)
    queue = Waiting()
    queue.add([event(1), event(2)])
    queue.add([event(3), event(4)])
    queue.add([event(5), Lost(6, 10, "ring", 5, 6), event(7)])
    queue.add([Lost(9, 1, "ring", 8, 9)])
    assert told(queue) == [1, 2, 3, ("queue", 3, 4, 7), ("ring", 11, 5, 9)]
    assert queue.lost == 3
    assert [queue.popleft().time_ns for _ in range(3)] == [1, 2, 3]
    queue.add([event(10), event(11)])
    assert told(queue) == [("queue", 3, 4, 7), ("ring", 11, 5, 9), 10, ("queue", 1, 11, 11)]
    assert all(before.time_ns <= after.time_ns for before, after in pairwise(queue))
    assert queue.lost == 4
