"""What a service tells its manager, and the unit that comes with the package."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytracecon.commands.unit import UNIT, unit
from pytracecon.notify import Notifier

TOP = Path(__file__).parents[2]
PID = 4711


@pytest.fixture(params=["/path", "@abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket that takes messages, and its name as NOTIFY_SOCKET has it."""
    name = str(tmp_path / "notify") if request.param == "/path" else f"@pytracecon-test-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name[1:]}" if name.startswith("@") else name)
        receiver.setblocking(False)
        yield receiver, name


def test_each_message_is_a_datagram_of_lines(manager: tuple[socket.socket, str]) -> None:
    receiver, name = manager
    notifier = Notifier.of({"NOTIFY_SOCKET": name}, PID)
    assert notifier.ready("tracing") is None
    assert receiver.recv(4096) == b"READY=1\nSTATUS=tracing"
    assert notifier.reloading() is None
    word, _, moment = receiver.recv(4096).decode().partition("\nMONOTONIC_USEC=")
    assert word == "RELOADING=1"
    assert 0 <= time.monotonic_ns() // 1000 - int(moment) < 60_000_000
    assert notifier.stopping("5 events") is None
    assert receiver.recv(4096) == b"STOPPING=1\nSTATUS=5 events"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_manager_nothing_is_told_and_nothing_is_due(environment: dict[str, str]) -> None:
    notifier = Notifier.of(environment | {"WATCHDOG_USEC": "1000"}, PID)
    assert notifier.ready("tracing") is None
    assert notifier.turned(1, 1, "") is None
    assert notifier.due is None


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ({"WATCHDOG_USEC": "1500000"}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": str(PID)}, 1.5),
        ({"WATCHDOG_USEC": "1500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_a_watchdog_is_for_the_process_that_it_is_meant_for(given: dict[str, str], seconds: float | None) -> None:
    assert Notifier.of({"NOTIFY_SOCKET": "/run/notify"} | given, PID).watchdog == seconds


def received(receiver: socket.socket) -> list[bytes]:
    messages = []
    try:
        while True:
            messages.append(receiver.recv(4096))
    except BlockingIOError:
        return messages


def turn(notifier: Notifier, made: int, read: int) -> None:
    """As a loop does it that waits no longer than until something is due."""
    assert notifier.due is not None
    time.sleep(max(0.0, notifier.due - time.monotonic()))
    assert notifier.turned(made, read, f"{read} events") is None


def test_the_watchdog_is_told_of_progress_only(manager: tuple[socket.socket, str]) -> None:
    """Of a loop that turns and leaves what comes in the ring, nothing."""
    receiver, name = manager
    notifier = Notifier.of({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "60000"}, PID)
    turn(notifier, 0, 0)
    turn(notifier, 5, 5)
    turn(notifier, 5, 5)
    assert received(receiver) == [
        b"STATUS=0 events\nWATCHDOG=1",
        b"STATUS=5 events\nWATCHDOG=1",
        b"WATCHDOG=1",
    ]
    for _ in range(20):
        turn(notifier, 9, 5)
    assert received(receiver) == []
    turn(notifier, 9, 9)
    assert received(receiver) == [b"STATUS=9 events\nWATCHDOG=1"]


def test_a_turn_before_anything_is_due_tells_nothing(manager: tuple[socket.socket, str]) -> None:
    receiver, name = manager
    notifier = Notifier.of({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "60000000"}, PID)
    notifier.ready("tracing")
    received(receiver)
    assert notifier.turned(1, 1, "1 event") is None
    assert received(receiver) == []


def test_a_manager_that_is_gone_is_said_in_one_line(tmp_path: Path) -> None:
    said = Notifier.of({"NOTIFY_SOCKET": f"{tmp_path}/gone"}, PID).ready("tracing")
    assert said == f"{tmp_path}/gone: the service manager was not told READY=1: No such file or directory"


def test_the_unit_has_the_command_that_printed_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytracecon", "--service-unit"], capture_output=True, text=True, check=True, cwd=TOP
    )
    assert done.stdout == unit(f"{sys.executable} -m pytracecon")
    assert f"ExecStart={sys.executable} -m pytracecon --format json" in done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_the_unit_little_exposed() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(UNIT)], capture_output=True, text=True, check=False
    )
    found = re.search(r"Overall exposure level for pytracecon\.service: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= 2.0, done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_every_line_of_the_unit(tmp_path: Path) -> None:
    """With a command that is there. What else is installed may be wrong as it likes."""
    made = tmp_path / "pytracecon.service"
    made.write_text(unit("/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(made)], capture_output=True, text=True, check=False
    )
    assert [line for line in done.stderr.splitlines() if "pytracecon" in line] == []
