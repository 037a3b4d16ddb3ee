"""What is made of measured numbers: rates that are searched, tables, the plot, and the figures in the documents."""

from __future__ import annotations

import json
import os
import re
import shutil
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import burst, plot, publish, report, size, sustained
from bench.__main__ import ONLY_IF_NAMED, PARTS
from bench.figures import Table, tables
from bench.load import Generator
from pytracecon.filters import Filters

Raw = dict[str, Any]

KEPT: Raw = json.loads((publish.RESULTS / f"{publish.NAME}.json").read_text(encoding="utf-8"))


def trial(asked: int, *, found: int, lost: dict[str, int], seconds: float = 1.0) -> Raw:
    return {
        "asked": asked,
        "generator": {"pid": 1, "connections": asked, "seconds": seconds},
        "expected": 5 * asked,
        "found": found,
        "lost": lost,
    }


def side(rate: int, cpu_ns: int) -> Raw:
    generator = {"pid": 1, "connections": rate, "seconds": 1.0}
    rows = {"rows": 5 * rate, "rows of the generator": 5 * rate}
    return {"generator": generator, "cpu_ns": cpu_ns, "bpf_ns": rate * 4000, "bpf_runs": rate * 40, **rows, "lost": 0}


COST = {
    "nothing": {"generator": {"pid": 1, "connections": 20_000, "seconds": 1.0}},
    "tcplife": side(12_000, 48_000_000),
    "tcpstates": side(8_000, 160_000_000),
    "pytracecon": side(18_000, 90_000_000),
}


def bpf_time(empty_ns: int) -> Raw:
    return COST | {"empty program": {"run_ns": empty_ns}}


def test_what_measuring_adds_to_the_bpf_time_is_shown_beside_it() -> None:
    raw = [bpf_time(run_ns) for run_ns in (20, 25, 60)]
    rows = {row[0]: row[1:] for row in tables({"bpf_time": raw})["bpf_time"].rows}
    assert rows["BPF time a connection"][:3] == ("4.00 µs",) * 3
    assert rows["programs run for one"][:3] == ("40",) * 3
    assert rows["of it, to measure them"] == (*("1.00 µs",) * 3, "a program that does nothing is 25 ns a run")


@given(limit=st.integers(0, 70_000), step=st.sampled_from([500, 1_000, 2_000]))
def test_the_highest_rate_that_holds_is_found_by_halves(limit: int, step: int) -> None:
    asked: list[int] = []

    def holds(rate: int) -> bool:
        asked.append(rate)
        return rate <= limit

    found = sustained.highest(holds, step, 60_000, step)
    assert found == min(limit, 60_000) // step * step
    assert all(step <= rate <= 60_000 for rate in asked)
    assert len(asked) <= 7


@pytest.mark.parametrize(
    ("tried", "passes"),
    [
        pytest.param(trial(1000, found=5000, lost={}), True, id="all is there"),
        pytest.param(trial(1000, found=5002, lost={}), True, id="and rows of others"),
        pytest.param(trial(1000, found=4999, lost={}), False, id="one is missing, and nobody says so"),
        pytest.param(trial(1000, found=5000, lost={"names": 1}), False, id="a loss is told"),
        pytest.param(trial(1000, found=5000, lost={}, seconds=1.1), False, id="it was not made at that rate"),
    ],
)
def test_a_rate_holds_if_it_was_made_and_nothing_is_missing(tried: Raw, passes: bool) -> None:
    assert sustained.passed(tried) is passes


@pytest.mark.parametrize(("rate", "next_one"), [(60_000, 54_000), (38_000, 36_000), (4_000, 2_000), (2_000, 0)])
def test_a_rate_that_fails_for_long_is_lowered_by_a_tenth_and_at_least_a_step(rate: int, next_one: int) -> None:
    assert sustained.lower(rate) == next_one


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs cc")
def test_the_generator_keeps_to_its_rate_and_shares_the_work_among_threads(tmp_path: Path) -> None:
    cpus = tuple(sorted(os.sched_getaffinity(0))[:2])
    load = Generator(tmp_path).run(301, "server", cpus=cpus, rate=1000)
    assert load.connections == 301
    assert load.seconds >= 0.29, "the last one is due then"


def test_a_connection_takes_of_the_ring_what_its_five_records_and_their_headers_do() -> None:
    assert burst.bytes_a_connection() % 8 == 0
    assert burst.RING // burst.bytes_a_connection() < burst.CONNECTIONS, "more are made than fit"
    assert Filters.parse().ring_size == burst.RING, "of the default ring"


def test_rates_are_compared_within_their_own_repetition() -> None:
    slow = {name: raw | {"generator": raw["generator"] | {"seconds": 2.0}} for name, raw in COST.items()}
    table = tables({"cost": [COST, slow]})["cost"]
    assert table.columns == ("", "pytracecon", "tcplife", "tcpstates", "")
    assert dict(zip(table.columns[1:4], table.rows[0][1:4], strict=True)) == {
        "pytracecon": "0.90",
        "tcplife": "0.60",
        "tcpstates": "0.40",
    }
    assert "of 15,000 connections a second untraced" in table.rows[0][4]


def test_a_column_in_which_nothing_stands_is_left_out() -> None:
    table = tables({"snapshot": {"connections": 5, "seconds": [0.1], "cpu_seconds": [0.1], "first_seconds": 0.2}})
    assert table["snapshot"].columns == ("", "pytracecon", "")


def test_the_first_loss_above_the_rate_that_holds_is_told() -> None:
    trials = [
        trial(40_000, found=0, lost={"ring": 9}),
        trial(30_000, found=149_999, lost={"probe": 1}),
        trial(20_000, found=100_000, lost={}),
    ]
    sides = {
        "untraced": {"pid": 1, "connections": 50_000, "seconds": 1.0},
        "pytracecon": {"rate": 20_000, "seconds": 10.0, "trials": trials},
    }
    rows = tables({"loss_free": {"sustained": sides, "burst": []}})["loss_free"].rows
    assert rows[0][1] == "20,000"
    assert rows[1][1] == "lost: probe 1"


def test_text_is_aligned_and_has_no_trailing_blanks() -> None:
    lines = report.text({"cost": [COST]}).splitlines()
    assert lines[0] == "cost"
    assert all(line == line.rstrip() for line in lines)
    ends = {re.search(r"tcpstates|0\.40", line) for line in lines}
    assert len({found.end() for found in ends if found}) == 1


def test_markdown_has_a_cell_for_each_column() -> None:
    lines = report.markdown(Table(("", "a", ""), [("x", "1", "why")])).splitlines()
    assert lines == ["|  | a |  |", "| :-- | --: | :-- |", "| x | 1 | why |"]


def test_the_longest_bar_fills_its_panel_and_ours_has_a_colour_of_its_own() -> None:
    drawn = ET.fromstring(plot.svg(list(plot.panels({"cost": [COST], "bpf_time": [bpf_time(25)]}))))  # noqa: S314 - our own
    bars = drawn.findall("{http://www.w3.org/2000/svg}rect")
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert widths[0] == plot.ROOM, "nothing traces: the whole rate"
    assert widths[1:4] == pytest.approx([plot.ROOM * share for share in (0.6, 0.4, 0.9)], abs=0.1)
    assert [bar.attrib["fill"] for bar in bars].count(plot.OURS) == 2
    assert max(widths) <= plot.ROOM


def test_names_in_the_plot_are_text() -> None:
    assert "a &lt; b" in plot.svg([plot.Panel("a < b", [plot.Bar("x", 1, "1", ours=True)])])


def test_figures_replace_what_stood_between_the_marks_and_nothing_else() -> None:
    document = "before\n<!-- figures cost -->\nold\n<!-- end -->\nafter\n"
    found = publish.filled(document, {"cost": [COST], "taken": {}})
    assert found.startswith("before\n<!-- figures cost -->\n|  | pytracecon | tcplife | tcpstates |  |\n")
    assert found.endswith("|\n<!-- end -->\nafter\n")
    assert "old" not in found
    assert publish.filled(found, {"cost": [COST], "taken": {}}) == found


def test_of_a_part_that_was_not_measured_the_document_says_so() -> None:
    found = publish.filled("<!-- figures growth -->\n<!-- end -->", {"cost": [COST], "taken": {}})
    assert found == f"<!-- figures growth -->\n{publish.MISSING}\n<!-- end -->"


@pytest.mark.parametrize("path", [*publish.DOCUMENTS, publish.PLOT], ids=lambda path: path.name)
def test_the_documents_have_the_figures_that_were_kept(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == publish.published(KEPT)[path], "run python -m bench.publish"


def test_every_part_has_a_table_was_kept_and_stands_in_the_document() -> None:
    assert tables(KEPT).keys() == KEPT["taken"].keys() >= PARTS.keys() - ONLY_IF_NAMED
    document = publish.DOCUMENTS[0].read_text(encoding="utf-8")
    assert set(re.findall(r"<!-- figures (\w+) -->", document)) == PARTS.keys() | {"taken"}


def test_what_is_packed_is_smaller_and_has_every_file(tmp_path: Path) -> None:
    files = [tmp_path / "one.py", tmp_path / "two.py"]
    for path in files:
        path.write_text("x = 1\n" * 1000)
    packed = size.packed(files, tmp_path)
    assert packed < 1000
    with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.relative_to(tmp_path))
    assert packed == (tmp_path / "all.zip").stat().st_size


def test_a_program_is_as_large_as_itself_and_what_it_alone_loads() -> None:
    found = size.of([Path("/usr/bin/env")], {})
    assert found["own"] == Path("/usr/bin/env").stat().st_size
    assert found["libraries"] >= 0
