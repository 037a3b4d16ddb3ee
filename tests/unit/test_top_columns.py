"""The columns of `top`: what stands in them, and which fit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytracecon.text import width
from pytracecon.top.columns import COLUMNS, SORTS, Glyphs, Look, count, fit, layout, quantity, sparkline
from pytracecon.top.rows import BY, Board
from unit.snapshots import SECOND, connection, snapshot

BARS = Glyphs().bars


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (None, ""),
        (0.0, "0"),
        (999.4, "999"),
        (999.6, "1.00k"),
        (12_345.0, "12.3k"),
        (999_499.0, "999k"),
        (999_500.0, "1.00M"),
        (1.5e9, "1.50G"),
        (2e18, "2.00E"),
    ],
)
def test_a_quantity_has_three_digits(number: float | None, shown: str) -> None:
    assert quantity(number) == shown


@given(st.floats(min_value=0, max_value=2**64))
def test_no_quantity_is_wider_than_its_column(number: float) -> None:
    assert len(quantity(number)) <= 5


@given(st.integers(min_value=0, max_value=2**63))
def test_no_count_is_wider_than_its_column(number: int) -> None:
    assert len(count(number)) <= 4


@pytest.mark.parametrize(("number", "shown"), [(9999, "9999"), (10_000, "10k"), (999_499, "999k"), (1_500_000, "1.5M")])
def test_a_count_is_exact_as_far_as_there_is_room(number: int, shown: str) -> None:
    assert count(number) == shown


@pytest.mark.parametrize(
    ("values", "wide", "shown"),
    [
        ([], 4, "    "),
        ([0.0, 0.0], 4, "    "),
        ([1.0, 2.0, 4.0, 8.0], 4, "▂▃▅█"),
        ([5.0], 4, "   █"),
        ([900.0, 1.0, 0.0, 2.0], 3, "▅ █"),
        ([1.0, 1000.0], 2, "▁█"),
        ([1.0], 0, ""),
    ],
)
def test_a_sparkline_ends_with_the_latest_and_what_is_nothing_is_blank(
    values: list[float], wide: int, shown: str
) -> None:
    assert sparkline(values, wide, BARS) == shown


@given(st.lists(st.floats(min_value=0, max_value=1e18), max_size=30), st.integers(0, 30))
def test_a_sparkline_fits_and_marks_whatever_is_not_nothing(values: list[float], wide: int) -> None:
    marks = sparkline(values, wide, BARS)
    assert len(marks) == wide
    shown = values[-wide:] if wide else []
    assert [mark != " " for mark in marks[wide - len(shown) :]] == [value > 0 for value in shown]


def test_plain_glyphs_are_ascii() -> None:
    plain = Glyphs.plain()
    assert all(getattr(plain, name).isascii() for name in Glyphs.__slots__)
    assert len(plain.bars) == len(BARS)


@pytest.mark.parametrize(
    ("text", "wide", "keep", "shown"),
    [
        ("nginx", 8, None, "nginx   "),
        ("containerd-shim", 8, None, "contain…"),
        ("www.example.com", 8, 0, "…ple.com"),
        ("→ www.example.com", 10, 2, "→ …ple.com"),
        ("日本語のホスト", 8, None, "日本語… "),
        ("abc", 1, None, "…"),
        ("abc", 0, None, ""),
    ],
)
def test_text_is_cut_so_that_it_fits(text: str, wide: int, keep: int | None, shown: str) -> None:
    assert fit(text, wide, "…", keep=keep) == shown


@given(st.text(st.characters(categories=["L", "N", "P"])), st.integers(0, 40), st.sampled_from([None, 0, 2]))
def test_what_fits_is_exactly_as_wide_as_asked(text: str, wide: int, keep: int | None) -> None:
    assert width(fit(text, wide, "…", keep=keep)) == wide


@pytest.mark.parametrize("by", BY)
@given(wide=st.integers(20, 300))
def test_columns_fill_a_line_and_never_more(by: str, wide: int) -> None:
    chosen = layout(COLUMNS[by], wide)
    taken = sum(given for _, given in chosen) + len(chosen) - 1
    most = sum(column.widest for column in COLUMNS[by]) + len(COLUMNS[by]) - 1
    assert taken <= wide
    assert len(chosen) < len(COLUMNS[by]) or taken == min(wide, most)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        ("process", "comm tx_rate rx_rate"),
        ("connection", "remote tx_rate"),
        ("host", "host tx_rate rx_rate"),
    ],
)
def test_in_the_smallest_terminal_who_and_how_fast_are_left(by: str, names: str) -> None:
    assert {column.key for column, _ in layout(COLUMNS[by], 20)} >= set(names.split()[:2])


@pytest.mark.parametrize("by", ["process", "host"])
def test_80_columns_hold_all_that_is_a_number(by: str) -> None:
    shown = {column.key for column, _ in layout(COLUMNS[by], 80)}
    numbers = {"connections", "tx_rate", "rx_rate", "tx_bytes", "rx_bytes", "rtt", "retransmits", "new", "failed"}
    assert shown >= numbers


@pytest.mark.parametrize("by", BY)
def test_whatever_is_a_column_can_be_sorted_by(by: str) -> None:
    assert set(SORTS[by]) == {"rate", *(column.key for column in COLUMNS[by] if column.key)}


def cells(by: str, **known: object) -> dict[str, str]:
    board = Board()
    picture = board.take(snapshot(connection(1, **known), elapsed=1), [])
    look = Look(picture, Glyphs())
    (item,) = (picture.processes, picture.connections, picture.hosts)[BY.index(by)]
    return {column.title or f"bars {column.history}": column.cell(item, look, 24).strip() for column in COLUMNS[by]}


def test_cells_of_a_connection() -> None:
    found = cells(
        "connection",
        host="www.example.com",
        tx_rate=1234.0,
        tx_bytes=70_000,
        retransmits=3,
        rtt_ns=123_456_789,
        age_ns=125 * SECOND,
        state="CLOSE_WAIT",
    )
    assert found == {
        "PROCESS": "curl",
        "PID": "100",
        "LOCAL": "10.0.0.5:40001",
        "REMOTE": "→ www.example.com:443",
        "STATE": "close-w",
        "OUT/s": "1.23k",
        "IN/s": "0",
        "bars 0": "█",
        "bars 1": "",
        "OUT": "70.0k",
        "IN": "0",
        "RTTms": "123",
        "RTX": "3",
        "AGE": "2m",
    }


def test_what_is_not_known_is_left_empty() -> None:
    unknown = dict.fromkeys(("pid", "comm", "rtt_ns", "tx_rate", "tx_bytes", "retransmits", "age_ns"))
    found = cells("connection", **unknown)
    assert (found["PID"], found["PROCESS"]) == ("?", "?")
    assert [found[title] for title in ("RTTms", "OUT/s", "OUT", "RTX", "AGE")] == [""] * 5


@pytest.mark.parametrize(
    ("known", "state", "remote"),
    [
        ({"direction": "in"}, "estab", "← 10.0.0.7:443"),
        ({"outcome": "listening", "backlog": 1, "backlog_limit": 128}, "listen", "* 10.0.0.5:40001 (1/128)"),
        ({"outcome": "failed", "state": "CLOSE"}, "failed", "→ 10.0.0.7:443"),
        ({"outcome": "closed", "state": "CLOSE"}, "closed", "→ 10.0.0.7:443"),
        ({"proto": "udp", "state": None}, "udp", "→ 10.0.0.7:443"),
        ({"proto": "udp", "state": None, "app": "quic"}, "quic", "→ 10.0.0.7:443"),
        ({"remote_addr": "2001:db8::1"}, "estab", "→ [2001:db8::1]:443"),
        ({"state": None, "outcome": "pending"}, "pending", "→ 10.0.0.7:443"),
    ],
)  # fmt: skip
def test_states_and_directions(known: dict[str, object], state: str, remote: str) -> None:
    found = cells("connection", **known)
    assert (found["STATE"], found["REMOTE"]) == (state, remote)


def test_text_of_others_does_nothing_to_a_terminal() -> None:
    found = cells("connection", comm="\x1b[31mred", host="a\nb\x9b")
    assert found["PROCESS"] == "\\x1b[31mred"
    assert found["REMOTE"] == "→ a\\x0ab\\x9b:443"
