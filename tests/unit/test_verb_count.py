"""`pytracecon count` without a kernel: groups, percentiles, rows in every format, and what each option changes."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
import time
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon import text
from pytracecon.cli import main
from pytracecon.commands import count
from pytracecon.events import Accept, Close, Connect, Established, Event, Existing, Failed, Lookup, Lost
from pytracecon.grouping import Groups, Latencies
from pytracecon.outputs import Summary
from pytracecon.outputs.counting import Counting
from pytracecon.outputs.counts import KEYS, MEASURED
from pytracecon.outputs.keys import all_keys
from pytracecon.outputs.sink import Sink
from pytracecon.outputs.template import value_of
from pytracecon.views import wording

SECOND = 1_000_000_000
NOW = 1_795_161_009 * SECOND
ENDS: dict[str, Any] = {"conn": "1", "proto": "tcp", "direction": "out", "remote_addr": "10.0.0.7", "remote_port": 443}


def established(comm: str | None, latency_ns: int | None = 1000, **known: Any) -> Established:
    return Established(NOW, **ENDS, comm=comm, latency_ns=latency_ns, **known)


def close(comm: str, tx_bytes: int | None, rx_bytes: int | None) -> Close:
    return Close(NOW, **ENDS, comm=comm, tx_bytes=tx_bytes, rx_bytes=rx_bytes)


# Percentiles

LATENCY = st.one_of(st.integers(0, 200), st.integers(0, 1 << 24), st.integers(0, (1 << 48) - 1))


def latencies_of(values: list[int]) -> Latencies:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    return latencies


def nearest_rank(values: list[int], percent: int) -> int:
    return sorted(values)[math.ceil(percent * len(values) / 100) - 1]


@given(st.lists(LATENCY, min_size=1, max_size=300), st.sampled_from([1, 50, 90, 99, 100]))
def test_a_percentile_is_at_most_a_64th_off(values: list[int], percent: int) -> None:
    found, right = latencies_of(values).percentile(percent), nearest_rank(values, percent)
    assert found is not None
    assert abs(found - right) <= right / 64


@given(st.lists(st.integers(0, 63), min_size=1, max_size=300), st.sampled_from([50, 90, 99]))
def test_small_ones_are_exact(values: list[int], percent: int) -> None:
    assert latencies_of(values).percentile(percent) == nearest_rank(values, percent)


@given(st.lists(LATENCY, max_size=100), st.lists(LATENCY, max_size=100))
def test_merged_is_as_if_all_had_been_added_to_one(some: list[int], others: list[int]) -> None:
    merged, both = latencies_of(some), latencies_of(some + others)
    merged.merge(latencies_of(others))
    for percent in (50, 90, 99):
        assert merged.percentile(percent) == both.percentile(percent)
    assert (merged.count, merged.smallest, merged.largest) == (both.count, both.smallest, both.largest)
    assert merged.largest == max(some + others, default=None)


def test_without_latencies_there_is_no_percentile() -> None:
    assert Latencies().percentile(50) is None


def test_whatever_comes_a_group_has_a_bounded_number_of_buckets() -> None:
    spread = [(first << size) // 32 for size in range(80) for first in range(32, 64)]
    latencies = latencies_of(spread)
    assert len(latencies._buckets) < 1500
    assert latencies.largest == max(spread)
    assert latencies.count == len(spread)


# Groups


def groups_of(events: list[Event], *keys: str, most: int = 100, sort: str = "events", top: int | None = None) -> Any:
    groups = Groups(keys, value_of, most=most)
    for event in events:
        groups.add(event)
    return groups.counts(NOW, NOW + SECOND, sort=sort, top=top)


comms = st.sampled_from(["curl", "wget", "ssh", None])
events_of_any_kind = st.one_of(
    st.builds(established, comms, st.none() | LATENCY),
    st.builds(close, comms, st.none() | st.integers(0, 1 << 40), st.none() | st.integers(0, 1 << 40)),
    st.builds(Lookup, st.just(NOW), comm=comms, latency_ns=LATENCY),
    st.builds(Existing, st.just(NOW), *map(st.just, ["1", "tcp", "out"]), comm=comms, tx_bytes=st.integers(0, 9)),
)


@given(st.lists(events_of_any_kind, max_size=60), st.integers(1, 5), st.none() | st.integers(1, 5))
def test_no_event_and_no_byte_is_lost_or_told_twice(events: list[Event], most: int, top: int | None) -> None:
    rows = groups_of(events, "event", "comm", most=most, top=top)
    closed = [event for event in events if isinstance(event, Close)]
    assert sum(row.events for row in rows) == len(events)
    assert sum(row.tx_bytes or 0 for row in rows) == sum(event.tx_bytes or 0 for event in closed)
    assert sum(row.rx_bytes or 0 for row in rows) == sum(event.rx_bytes or 0 for event in closed)
    assert sum(row.latencies for row in rows) == sum(getattr(event, "latency_ns", None) is not None for event in events)


@given(st.lists(events_of_any_kind, min_size=1, max_size=60))
def test_each_group_has_its_own_events(events: list[Event]) -> None:
    expected: dict[tuple[Any, ...], list[Event]] = defaultdict(list)
    for event in events:
        expected[event.event, value_of(event, "comm")].append(event)
    rows = {(row.by["event"], row.by["comm"]): row for row in groups_of(events, "event", "comm")}
    assert rows.keys() == expected.keys()
    for name, row in rows.items():
        latencies = [event.latency_ns for event in expected[name] if getattr(event, "latency_ns", None) is not None]  # type: ignore[attr-defined]
        assert (row.kind, row.events) == ("group", len(expected[name]))
        assert row.max == max(latencies, default=None)


def test_bytes_are_those_of_connections_that_ended() -> None:
    existing = Existing(NOW, **ENDS, comm="a", tx_bytes=100, rx_bytes=100)
    (row,) = groups_of([existing, close("a", 1, 2), close("a", None, 3)], "comm")
    assert (row.tx_bytes, row.rx_bytes) == (1, 5)
    (row,) = groups_of([existing], "comm")
    assert (row.tx_bytes, row.rx_bytes) == (None, None)


FIVE: list[Event] = [
    *[established("often", 10)] * 3,
    *[established("slow", 50)] * 2,
    established(None, None),
    close("large", 9, 1),
    close("large", 9, 1),
    *[close("receives", 0, 99)] * 2,
]


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("events", ["often", "large", "receives", "slow", None]),
        ("tx_bytes", ["large", "receives", "often", "slow", None]),
        ("rx_bytes", ["receives", "large", "often", "slow", None]),
        ("p50", ["slow", "often", "large", "receives", None]),
        ("p90", ["slow", "often", "large", "receives", None]),
        ("p99", ["slow", "often", "large", "receives", None]),
        ("max", ["slow", "often", "large", "receives", None]),
        ("comm", ["large", "often", "receives", "slow", None]),
    ],
)
def test_sorted_by_a_measure_the_most_first_and_by_a_key_from_the_least(sort: str, order: list[str | None]) -> None:
    assert [row.by["comm"] for row in groups_of(FIVE, "comm", sort=sort)] == order


def test_values_of_any_kind_have_an_order() -> None:
    events: list[Event] = [
        Connect(NOW, **ENDS, host_candidates=names, pid=pid, pre_existing=old)
        for names, pid, old in itertools.product((None, ["b", "a"], ["a"]), (None, 10, 9), (None, True))
    ]
    rows = groups_of(events, "host_candidates", "pid", "pre_existing", sort="pid")
    assert [row.by["pid"] for row in rows] == [9] * 6 + [10] * 6 + [None] * 6
    assert rows[0].by["host_candidates"] == ("a",)


def test_behind_the_top_all_are_others() -> None:
    *shown, others = groups_of(FIVE, "comm", top=2)
    assert [row.by["comm"] for row in shown] == ["often", "large"]
    assert (others.kind, others.groups, others.events) == ("others", 3, 5)
    assert (others.tx_bytes, others.rx_bytes, others.latencies, others.max) == (0, 198, 2, 50)


def test_beyond_the_most_groups_all_are_others_and_nobody_knows_how_many() -> None:
    *shown, others = groups_of(FIVE, "comm", most=2)
    assert [row.by["comm"] for row in shown] == ["often", "slow"]
    assert (others.kind, others.groups, others.events) == ("others", None, 5)
    *shown, others = groups_of(FIVE, "comm", most=2, top=1)
    assert (others.groups, others.events) == (None, 7)


def test_the_first_groups_are_kept_whatever_comes_later() -> None:
    flood: list[Event] = [established(f"comm {number}") for number in range(1000)]
    *shown, others = groups_of([*flood, established("comm 3")], "comm", most=10)
    assert len(shown) == 10
    assert {row.by["comm"]: row.events for row in shown}["comm 3"] == 2
    assert others.events == 990


# The verb


@pytest.fixture
def pipe() -> Iterator[int]:
    reading, writing = os.pipe()
    yield writing
    os.close(reading)
    os.close(writing)


@pytest.fixture
def counting(pipe: int) -> Callable[..., Counting]:
    """What the command line makes, with a clock that goes on by a second each time somebody looks."""

    def make(*words: str) -> Counting:
        options = count.parser().parse_args(list(words))
        ticks = itertools.count(NOW, SECOND)
        return count.output(options, count.keywords(options)["events"], lambda: next(ticks))(Sink(pipe, "here"))

    return make


def told(counting: Counting, *, last: bool = True) -> str:
    """What is written, which tells of all the events that were taken in."""
    events = counting.untold
    pieces = counting.sum_up(last=last)
    assert sum(count for _, count in pieces) == events
    assert not any(count for _, count in pieces[:-1]), "a part of it tells of nothing"
    assert counting.untold == 0
    return b"".join(data for data, _ in pieces).decode()


def whole(counting: Counting, *events: Event) -> str:
    """The output of a run of these events."""
    header = counting.header().decode()
    assert counting.render(events) == []
    return header + told(counting)


def objects(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


SEVERAL: list[Event] = [
    established("curl", 12_310_000, host="www.example.com"),
    close("curl", 88, 48_401),
    close("curl", 88, 100_000),
    Failed(NOW, **ENDS, comm="psql", latency_ns=40_000),
]


def test_the_session_asks_it_for_sums(counting: Callable[..., Counting]) -> None:
    assert isinstance(counting(), Summary)


def test_a_table_at_the_end(counting: Callable[..., Counting]) -> None:
    assert whole(counting(), *SEVERAL) == (
        "EVENT        COMM          EVENTS        TX        RX        P50        P90        P99        MAX\n"
        "close        curl               2     176 B    148 kB\n"
        "established  curl               1                       12.31 ms   12.31 ms   12.31 ms   12.31 ms\n"
        "failed       psql               1                        0.04 ms    0.04 ms    0.04 ms    0.04 ms\n"
    )


def test_a_table_of_intervals_has_one_header_and_times(counting: Callable[..., Counting]) -> None:
    each = counting("--interval", "1", "--by", "comm,remote_port", "--top", "1", "--utc")
    header = each.header().decode()
    assert header.split() == ["TIME", "COMM", "REMOTE_PORT", "EVENTS", "TX", "RX", "P50", "P90", "P99", "MAX"]
    each.render([*SEVERAL, Lost(NOW, 3, "ring")])
    lines = told(each, last=False).splitlines()
    assert " ".join(lines[0].split()) == "07:50:10 curl 443 3 176 B 148 kB 12.31 ms 12.31 ms 12.31 ms 12.31 ms"
    assert lines[1].split()[1:4] == ["1", "other", "1"]
    assert lines[2].endswith("lost 3 records (ring full)")
    assert [line.split()[0] for line in lines] == ["07:50:10", "07:50:10", "07:50:09"], "a loss has its own time"
    assert told(each, last=False).split()[1:] == ["no", "events", "0"]


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Five hours before UTC."""
    wording._second.cache_clear()
    monkeypatch.setenv("TZ", "EAST-5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()
    wording._second.cache_clear()


@pytest.mark.usefixtures("far_east")
@pytest.mark.parametrize(("words", "hour"), [([], "12"), (["--utc"], "07")])
def test_its_times_are_those_of_here_or_utc(counting: Callable[..., Counting], words: list[str], hour: str) -> None:
    made = counting("--interval", "1", *words)
    made.header()
    assert told(made, last=False).startswith(f"{hour}:50:10  no events ")


@pytest.mark.parametrize(
    ("events", "columns"),
    [
        ("accept", []),
        ("close", ["TX", "RX"]),
        ("lookup", ["P50", "P90", "P99", "MAX"]),
        ("failed,close", ["TX", "RX", "P50", "P90", "P99", "MAX"]),
    ],
)
def test_a_table_has_columns_for_what_its_events_have(
    counting: Callable[..., Counting], events: str, columns: list[str]
) -> None:
    output = whole(counting("--events", events, "--by", "comm"))
    assert output.splitlines()[0].split() == ["COMM", "EVENTS", *columns]


def test_json_has_the_keys_of_a_group_by_themselves(counting: Callable[..., Counting]) -> None:
    output = whole(counting("--format", "json", "--by", "event,host,remote_port", "--top", "1"), *SEVERAL)
    assert output == (
        '{"event":"count","time":"2026-11-20T07:50:10.000000000Z","from":"2026-11-20T07:50:09.000000000Z",'
        '"by":{"event":"close","remote_port":443},"events":2,"tx_bytes":176,"rx_bytes":148401,"latencies":0}\n'
        '{"event":"count","time":"2026-11-20T07:50:10.000000000Z","from":"2026-11-20T07:50:09.000000000Z",'
        '"others":true,"events":2,"groups":2,"latencies":2,"latency_p50_ns":40447,"latency_p90_ns":12189695,'
        '"latency_p99_ns":12189695,"latency_max_ns":12310000}\n'
    )


def test_what_was_lost_is_told_behind_the_groups(counting: Callable[..., Counting]) -> None:
    rows = objects(whole(counting("--format", "json"), Lost(NOW, 3, "ring"), SEVERAL[0]))
    assert [(row["event"], row.get("where")) for row in rows] == [("count", None), ("lost", "ring")]


def test_csv_has_a_row_for_each_group_and_what_was_lost(counting: Callable[..., Counting]) -> None:
    made = counting("--format", "csv", "--by", "comm,host_candidates", "--top", "1")
    events = [established("=1,2", 64, host_candidates=["a b", "=c"])] * 2
    rows = list(csv.DictReader(io.StringIO(whole(made, *events, established("x"), Lost(NOW, 3, "map")))))
    assert list(rows[0]) == ["time", "from", "row", "comm", "host_candidates", *MEASURED, "lost", "where"]
    assert [(row["row"], row["comm"], row["events"], row["lost"], row["where"]) for row in rows] == [
        ("group", "'=1,2", "2", "", ""),
        ("others", "", "1", "", ""),
        ("lost", "", "", "3", "map"),
    ]
    assert rows[0]["host_candidates"] == r"a\x20b '=c"
    assert (rows[0]["latency_p50_ns"], rows[0]["tx_bytes"], rows[1]["groups"]) == ("64", "", "1")


def test_a_template_is_filled_from_the_groups(counting: Callable[..., Counting]) -> None:
    line = "{comm}|{kind}|{events}|{rx_bytes}|{latency_max_ns}|{from}"
    output = whole(counting("--template", line, "--by", "comm", "--top", "1"), *SEVERAL, Lost(NOW, 3, "ring"))
    assert output == (
        "curl|group|3|148401|12310000|2026-11-20T07:50:09.000000000Z\n"
        "?|others|1|?|40000|2026-11-20T07:50:09.000000000Z\n"
        "?|lost|?|?|?|?\n"
    )


def test_an_entry_of_the_journal_for_each_group(counting: Callable[..., Counting]) -> None:
    made = counting("--format", "journal", "--by", "comm,event")
    made.header()
    made.render(SEVERAL[1:3])
    entry, nothing = [data.decode() for data, _ in made.sum_up(last=True)]
    assert nothing == ""
    assert entry.splitlines() == [
        "MESSAGE=comm curl, event close: 2 events, 176 B out, 148 kB in",
        "PRIORITY=5",
        "SYSLOG_IDENTIFIER=pytracecon",
        "PYTRACECON_EVENT=count",
        "PYTRACECON_TIME=2026-11-20T07:50:10.000000000Z",
        "PYTRACECON_FROM=2026-11-20T07:50:09.000000000Z",
        "PYTRACECON_EVENTS=2",
        "PYTRACECON_TX_BYTES=176",
        "PYTRACECON_RX_BYTES=148401",
        "PYTRACECON_LATENCIES=0",
        "PYTRACECON_BY_COMM=curl",
        "PYTRACECON_BY_EVENT=close",
    ]


hostile = st.text(st.one_of(st.sampled_from('\n\r\x1b\\",=\u2028\u202e\x85\0'), st.characters()), max_size=16)


@given(hostile, hostile, st.lists(hostile, max_size=2))
def test_no_text_breaks_out_of_its_row(comm: str, host: str, others: list[str]) -> None:
    event = established(comm, host=host, host_candidates=others)
    reading, writing = os.pipe()
    try:
        for words in (["json"], ["csv"], ["table"], ["journal"]):
            options = count.parser().parse_args(["--by", "comm,host,host_candidates", "--format", *words])
            made = count.output(options, {"established"}, lambda: NOW)(Sink(writing, "here"))
            output = whole(made, event)
            if words == ["journal"]:
                assert output.count("\nPRIORITY=") >= 1
                assert output.splitlines()[0].startswith("MESSAGE=comm ")
                continue
            lines = output.replace("\r\n", "\n").split("\n")
            # The header of a table is repeated where a name makes it wider.
            rows = [line for line in lines if "EVENTS" not in line]
            assert len(rows) == {"json": 2, "csv": 3, "table": 2}[words[0]]
            assert all(unicodedata.category(each) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in "".join(lines))
            if words == ["csv"]:
                row = next(csv.DictReader(io.StringIO(output, newline="")))
                assert text.restore_cell(row["comm"]) == comm
            if words == ["json"]:
                assert json.loads(output)["by"]["host"] == host.encode("utf-8", "backslashreplace").decode()
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize(("words", "second"), [([], 1), (["--cumulative"], 3)])
def test_each_interval_begins_anew_unless_it_shall_not(
    counting: Callable[..., Counting], words: list[str], second: int
) -> None:
    made = counting("--format", "json", "--by", "comm", "--interval", "1", *words)
    made.header()
    made.render([established("curl"), established("curl")])
    (first,) = objects(told(made, last=False))
    made.render([established("curl")])
    (row,) = objects(told(made, last=False))
    assert (first["events"], row["events"]) == (2, second)
    assert row["from"] == (first["from"] if words else first["time"])


def test_an_interval_without_events_is_told_and_the_rest_of_one_is_not(counting: Callable[..., Counting]) -> None:
    made = counting("--format", "json", "--interval", "1")
    made.header()
    (row,) = objects(told(made, last=False))
    assert (row["events"], "by" in row, "others" in row) == (0, False, False)
    assert made.sum_up(last=True) == []
    made.render([established("curl")])
    assert objects(told(made))[0]["events"] == 1


def test_a_run_without_events_is_told(counting: Callable[..., Counting]) -> None:
    (row,) = objects(whole(counting("--format", "json")))
    assert row["events"] == 0
    assert "no events" in whole(counting())


def test_max_groups_bounds_them(counting: Callable[..., Counting]) -> None:
    rows = objects(whole(counting("--format", "json", "--by", "comm", "--max-groups", "1"), *SEVERAL))
    assert [row.get("by") for row in rows] == [{"comm": "curl"}, None]
    assert "groups" not in rows[1]


def test_sort_orders_the_rows(counting: Callable[..., Counting]) -> None:
    orders = {
        sort: [row["by"]["comm"] for row in objects(whole(counting(*words, "--sort", sort), *SEVERAL[1:]))]
        for sort, words in (("events", ["--format", "json"]), ("p99", ["--format", "json"]))
    }
    assert orders == {"events": ["curl", "psql"], "p99": ["psql", "curl"]}


@pytest.mark.parametrize(
    ("words", "events", "names"),
    [
        ([], {"established", "failed", "accept", "close", "lookup"}, None),
        (["--existing", "--port", "1"], {"established", "failed", "accept", "close", "existing"}, False),
        (["--events", "connect"], {"connect"}, False),
        (["--events", "connect", "--by", "host"], {"connect"}, None),
        (["--events", "connect", "--host", "a"], {"connect"}, None),
        (["--events", "connect", "--reverse"], {"connect"}, None),
        (["--events", "lookup"], {"lookup"}, None),
        (["--failed"], {"failed"}, False),
    ],
)
def test_what_is_traced(words: list[str], events: set[str], names: bool | None) -> None:
    keywords = count.keywords(count.parser().parse_args(words))
    assert set(keywords["events"]) == events
    assert keywords.get("names") is names


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], False),
        (["--by", "cgroup,host"], False),
        (["--by", "comm,exe"], True),
        (["--by", "container"], True),
        (["--unit", "a.service"], True),
        (["--container", "shop*"], True),
        (["--exe", "curl"], True),
        (["--format", "json"], False),
    ],
)
def test_what_an_owner_is_is_asked_where_it_counts(words: list[str], asked: bool) -> None:
    assert count.keywords(count.parser().parse_args(words)).get("processes", True) is asked


@pytest.mark.parametrize(
    ("event", "counted"),
    [
        (established("a"), True),
        (established("a", subflow_of="2"), False),
        (Lookup(NOW, within="getaddrinfo"), False),
        (Lookup(NOW), True),
        (Lost(NOW, 1, "ring"), True),
        (Accept(NOW, **ENDS), True),
    ],
)
def test_what_another_event_tells_is_not_counted_twice(event: Event, counted: bool) -> None:
    shows = count.shows(count.parser().parse_args([]))
    assert shows is not None
    assert shows(event) == counted
    assert count.shows(count.parser().parse_args(["--all"])) is None


def test_every_key_of_an_event_can_group() -> None:
    assert set(all_keys()) - set(KEYS) == {"tx_bytes", "rx_bytes", "count", "where", "from", "to"}
    for key in KEYS:
        assert sum(row.events for row in groups_of(SEVERAL, key)) == len(SEVERAL)


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("--by nothing", "--by: nothing is no key to group by; there are event, conn, proto,"),
        ("--by comm,", "--by: an empty value is no key"),
        ("--by comm,comm", "--by: comm is named twice"),
        ("--by time", "--by: time is no key"),
        ("--by tx_bytes", "--by: tx_bytes is no key"),
        ("--by comm.__class__", "--by: comm.__class__ is no key"),
        ("--by host --no-names", "--by: --no-names"),
        ("--by comm,unit --no-processes", "--by: --no-processes leaves every owner without unit"),
        ("--sort nothing", "--sort: nothing is not one of events, tx_bytes, rx_bytes, p50, p90, p99, max, event, comm"),
        ("--by pid --sort comm", "--sort: comm is not one of"),
        ("--top 0", "--top"),
        ("--top all", "--top"),
        ("--max-groups 0", "--max-groups"),
        ("--max-groups 9999999", "--max-groups"),
        ("--interval 0", "--interval"),
        ("--interval soon", "--interval"),
        ("--cumulative", "--cumulative: without --interval"),
        ("--events nothing", "--events"),
        ("--template {event}{pid}", "--template: {pid} is no key; there are time, from, kind, event, comm, events,"),
        ("--template {comm} --format json", "--format"),
        ("--format xml", "--format"),
        ("-a", "-a"),
        ("--format journal -o file", "-o"),
        ("--port 0", "--port"),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_option(
    line: str, named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["count", *line.split()]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("pytracecon: ")
    assert err.count("\n") == 1
    assert named in err


def test_its_table_has_colours_when_asked_for(counting: Callable[..., Counting]) -> None:
    assert "\x1b" in whole(counting("--color", "always"), *SEVERAL)
    assert "\x1b" not in whole(counting(), *SEVERAL)
