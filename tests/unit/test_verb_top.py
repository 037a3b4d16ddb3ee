"""The options of `pytracecon top`: what is asked of the tracer, and what is refused before there is one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytracecon.cli import main
from pytracecon.commands.top import keywords, parser
from pytracecon.top.columns import Glyphs
from pytracecon.top.rows import Board
from pytracecon.top.screen import glyphs_of, is_monochrome
from pytracecon.top.view import View
from unit.snapshots import connection, snapshot

TOP = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def python_handles_sigint() -> Iterator[None]:
    """`main` gives SIGINT back to the kernel, for a process of its own."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "standard output is no terminal: pytracecon flows --watch 1"),
        ("--sort size", "--sort: size is not one of rate, pid, comm, connections, tx_rate, rx_rate, tx_bytes"),
        ("--by host --sort pid", "--sort: pid is not one of rate, host, connections"),
        ("--by connection --sort new", "--sort: new is not one of rate, comm, pid, local, remote, state"),
        ("--by user", "argument --by: invalid choice: 'user'"),
        ("--interval 0", "--interval: 0 is not a number of seconds"),
        ("--interval fast", "--interval: fast is not a number of seconds"),
        ("--limit 0", "--limit: 0 is not a number from 1"),
        ("--limit all", "--limit: all is not a number from 1"),
        ("--port 70000", "--port: 70000"),
        ("--failed", "unrecognized arguments: --failed"),
        ("--no-names --host a.test", "--host: --no-names leaves every connection without a name"),
        ("10.0.0.1", "unrecognized arguments: 10.0.0.1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(line: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["top", *line.split()]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert said in err


def test_keys_come_from_a_terminal_too() -> None:
    """Standard output is one here, standard input is none."""
    master, slave = os.openpty()
    try:
        command = [sys.executable, "-m", "pytracecon", "top"]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": slave, "stderr": subprocess.PIPE}
        done = subprocess.run(command, **pipes, text=True, check=False, cwd=TOP)  # type: ignore[call-overload]
    finally:
        os.close(master)
        os.close(slave)
    assert done.returncode == 2
    assert done.stderr.startswith("pytracecon: top: standard input is no terminal: ")
    assert done.stderr.count("\n") == 1


def test_the_tracer_tells_what_counts_as_new_failed_and_sent_again() -> None:
    given = keywords(parser().parse_args(["--port", "443", "--pid", "1"]))
    assert given["port"] == ["443"]
    assert {"established", "accept", "failed", "close", "retransmit", "flow", "lookup"} <= set(given["events"])
    assert "lookup" not in keywords(parser().parse_args(["--no-names"]))["events"]


@pytest.mark.parametrize(
    ("term", "encoding", "plain", "monochrome"),
    [
        ("xterm-256color", "utf-8", False, False),
        ("screen", "UTF-8", False, False),
        ("xterm-256color", "latin-1", True, False),
        ("linux", "utf-8", True, False),
        ("vt100", "utf-8", True, True),
        ("vt220", "utf-8", True, True),
        ("ansi", "utf-8", True, False),
    ],
)
def test_a_terminal_gets_what_it_can_show(term: str, encoding: str, plain: bool, monochrome: bool) -> None:
    environment = {"TERM": term}
    assert glyphs_of(environment, encoding) == (Glyphs.plain() if plain else Glyphs())
    assert is_monochrome(environment) is monochrome


def test_ten_thousand_connections_are_put_in_order_by_any_column() -> None:
    board, view = Board(), View(by="connection")
    many = [connection(at, tx_rate=float(at * 7 % 10_000), comm=None if at % 3 else "curl") for at in range(10_000)]
    view.take(board.take(snapshot(*many), []))
    assert [row.tx_rate for row in view.rows[:3]] == [9999.0, 9998.0, 9997.0]
    view.sort_by_next(1)
    assert [row for row in view.rows if row.comm is None] == view.rows[3334:]  # type: ignore[union-attr]
