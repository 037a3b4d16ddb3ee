"""`pytracecon top` on a terminal: what it shows held against what the ends did, and what it leaves behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from traffic.actor import DEADLINE, Actor
from traffic.end import End, connect, listen, pair
from traffic.leftovers import await_gone, bpf_ids_of
from traffic.network import Network
from traffic.peers import TOP
from traffic.window import ENTERS, LEAVES, Window

pytestmark = pytest.mark.slow(
    reason="a Python on a terminal; what a snapshot tells, test_snapshot.py holds in each kernel"
)

COMMAND = (sys.executable, "-m", "pytracecon", "top")
XTERM = {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
COLOUR = re.compile(rb"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")

Opens = Callable[..., Window]


@pytest.fixture
def opens() -> Iterator[Opens]:
    """Windows with `pytracecon top` in them, none of which outlives the test."""
    with ExitStack() as stack:

        def start(*options: str, wide: int = 80, high: int = 24, **environment: str) -> Window:
            window = Window(*COMMAND, *options, wide=wide, high=high, **(XTERM | environment))
            stack.callback(window.close)
            return window

        yield start


def of(network: Network) -> tuple[str, ...]:
    """Of this namespace alone, and nothing that takes time and is not looked at."""
    return "--netns", network.path, "--no-names", "--no-processes", "--interval", "0.25"


def is_as_before(window: Window) -> bool:
    """The terminal is set as it was, and shows what it showed."""
    return window.settings() == window.settings_before and window.said.rfind(LEAVES) > window.said.rfind(ENTERS) >= 0


def exchange(near: End, far: End) -> None:
    near.send(512)
    far.receive_all()
    far.send(32_768)
    near.receive_all()


def test_it_shows_what_the_ends_do_and_leaves_the_terminal_clean(
    network: Network, client: Actor, server: Actor, opens: Opens
) -> None:
    listener = listen(server)
    near, far = pair(client, listener)
    window = opens(*of(network), "--by", "connection")
    window.until_shown("client", "server", "Enter open")
    exchange(near, far)
    lines = window.until(lambda lines: any(re.search(r"client .* 512 32\.8k ", line) for line in lines))
    assert any(re.search(r"server .* 32\.8k   512 ", line) for line in lines)

    second, other = pair(client, listener)
    window.until(lambda lines: " 4 connections " in lines[0])
    exchange(second, other)
    assert second.local
    port = second.local[1]
    window.press(f"/client :{port}\r")
    window.until(lambda lines: " 1 of " in lines[0])
    window.press("\r")
    lines = window.until_shown(" established ", "32768 B")
    text = "\n".join(lines)
    assert f"client ({client.pid}) → 127.0.0.1:{listener.address[1]}" in lines[0]
    assert "out          512 B" in text and "in           32768 B" in text
    assert f"server ({server.pid}): on this host" in text

    second.close()
    other.close()
    window.until_shown("closed by this side (the client)")
    window.press("\x1b")
    window.until(lambda lines: " 1 of " in lines[0] and any("closed" in line for line in lines))
    window.press("\x1b")
    window.until(lambda lines: " of " not in lines[0])
    window.press("p")
    window.until(lambda lines: " 2 processes " in lines[0])

    refused = connect(client, ("127.0.0.1", 9))
    assert refused.error == "ECONNREFUSED"
    window.until(
        lambda lines: any(line.split()[:2] == [str(client.pid), "client"] and not line.endswith(" 0") for line in lines)
    )

    held = bpf_ids_of(window.process.pid)
    assert held
    window.press("q")
    assert window.status() == 0
    assert is_as_before(window)
    assert await_gone(held) == set()


def test_whatever_ends_it_leaves_nothing_behind(network: Network, opens: Opens) -> None:
    """Ctrl-C, SIGTERM, SIGHUP and SIGINT from elsewhere, all of them at once, and each in its own window."""
    signals = (None, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    windows = [opens(*of(network)) for _ in signals]
    held = set()
    for window in windows:
        window.until_shown("nothing is open")
        held |= bpf_ids_of(window.process.pid)
    for window, number in zip(windows, signals, strict=True):
        if number is None:
            window.press("\x03")
        else:
            window.process.send_signal(number)
    assert [window.status() for window in windows] == [0, 0, 0, 0]
    assert [is_as_before(window) for window in windows] == [True] * 4
    assert await_gone(held) == set()


def test_a_window_closed_in_the_middle_of_a_frame_ends_it(
    network: Network, client: Actor, server: Actor, opens: Opens
) -> None:
    """With the SIGHUP that comes with it, and without, as under nohup."""
    listener = listen(server)
    ends = [pair(client, listener) for _ in range(20)]
    windows = [opens(*of(network), "--by", "connection") for _ in range(2)]
    ignoring = Window("env", "--ignore-signal=HUP", *COMMAND, *of(network), TERM="xterm", LC_ALL="C.UTF-8")
    try:
        windows.append(ignoring)
        held = set()
        for window in windows:
            window.until_shown("B/s")
            held |= bpf_ids_of(window.process.pid)
        for near, far in ends:
            exchange(near, far)
        for window in windows:
            window.hang_up()
        assert [window.process.wait(DEADLINE) for window in windows] == [0, 0, 0]
        assert await_gone(held) == set()
    finally:
        ignoring.close()


def test_a_terminal_that_takes_nothing_keeps_it_from_nothing(network: Network, opens: Opens) -> None:
    window = opens(*of(network))
    window.until_shown("nothing is open")
    held = bpf_ids_of(window.process.pid)
    window.stall()
    window.press("?")
    window.process.terminate()
    assert window.process.wait(DEADLINE) == 0
    assert await_gone(held) == set()
    assert window.settings() == window.settings_before
    window.resume()


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(network: Network, opens: Opens) -> None:
    window = opens(*of(network), COLUMNS="10", LINES="2")  # a shell may have exported those of another window
    window.until_shown("nothing is open")
    window.press("\x1a")
    stat = Path(f"/proc/{window.process.pid}/stat")
    window.until(lambda _: stat.read_text().rpartition(")")[2].split()[0] == "T" and is_as_before(window))
    window.process.send_signal(signal.SIGCONT)
    window.until(lambda _: window.said.rfind(ENTERS) > window.said.rfind(LEAVES))
    window.press("/x")
    window.until_shown("/x_", "nothing matches x")
    window.press("\x03")
    assert window.status() == 0
    assert is_as_before(window)


def test_it_fits_any_terminal_and_follows_its_size(
    network: Network, client: Actor, server: Actor, opens: Opens
) -> None:
    near, far = pair(client, listen(server))
    small = opens(*of(network), wide=20, high=5)
    plain = opens(*of(network), TERM="vt100", NO_COLOR="1")
    tiny = opens(*of(network), wide=12, high=3)
    exchange(near, far)
    lines = small.until_shown("client", "server")
    assert [line.split()[0] for line in lines[1:]] == ["PROCESS", lines[2].split()[0], lines[3].split()[0], "?"]
    assert all(line.isascii() for line in plain.until_shown("client", "server"))
    assert not COLOUR.search(plain.said)
    assert tiny.until_shown("12x3 is too")[1:] == ["", ""]
    small.resize(100, 30)
    small.until(lambda lines: len(lines) == 30 and lines[29].startswith("? help") and "CONN" in lines[1])
    small.resize(20, 5)
    small.until(lambda lines: len(lines) == 5 and "PROCESS" in lines[1] and lines[4].startswith("? help"))
    for window in (small, plain, tiny):
        window.press("q")
    assert [window.status() for window in (small, plain, tiny)] == [0, 0, 0]
    assert [is_as_before(window) for window in (small, plain, tiny)] == [True] * 3


@pytest.mark.parametrize(
    ("options", "environment", "said"),
    [
        ((), {"TERM": "dumb"}, "TERM is dumb"),
        ((), {"TERM": ""}, "TERM is not set"),
        (("--sort", "size"), {}, "--sort: size is not one of rate, pid, comm"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    options: tuple[str, ...], environment: dict[str, str], said: str, opens: Opens
) -> None:
    window = opens(*options, wide=200, **environment)
    assert window.status() == 2
    (line,) = [line for line in window.lines() if line]
    assert line.startswith(f"pytracecon: {said}" if options else f"pytracecon: top: {said}")
    assert ENTERS not in window.said
    assert window.settings() == window.settings_before


def test_once_says_what_keeps_it_from_writing(network: Network) -> None:
    command = [*COMMAND, *of(network), "--once"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, cwd=TOP)
    assert done.returncode == 74
    assert done.stderr.startswith("pytracecon: standard output cannot be written: No space left on device")
    closed = ["sh", "-c", 'exec "$@" >&-', "sh", *command]
    done = subprocess.run(closed, capture_output=True, text=True, check=False, cwd=TOP)
    assert (done.returncode, done.stderr.count("\n")) == (74, 1)


def test_once_is_a_screen_of_text(network: Network, client: Actor, server: Actor) -> None:
    listener = listen(server)
    near, far = pair(client, listener)
    exchange(near, far)
    command = [*COMMAND, *of(network), "--once", "--by", "connection"]
    environment = {"PATH": "/usr/bin:/bin", "COLUMNS": "120", "LINES": "10", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=TOP, env=environment)
    head, names, *rows = done.stdout.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d  2 connections  out 0B/s  in 0B/s  new 0/s  failed 0/s  1 listen", head)
    assert names.split()[:5] == ["PROCESS", "PID", "LOCAL", "REMOTE", "STATE"]
    assert near.local
    ours, theirs = f"127.0.0.1:{near.local[1]}", f"127.0.0.1:{listener.address[1]}"
    assert {tuple(row.split()[:6]) for row in rows} == {
        ("client", str(client.pid), ours, "→", theirs, "estab"),
        ("server", str(server.pid), theirs, "←", ours, "estab"),
    }
    assert {tuple(row.split()[8:10]) for row in rows} == {("512", "32.8k"), ("32.8k", "512")}
    assert max(map(len, done.stdout.splitlines())) <= 120
    assert done.stderr == ""
