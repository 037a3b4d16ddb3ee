"""The wheel as a user gets it: built by way of a source distribution, installed alone, the source out of reach."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, TOP], check=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="session")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty virtual environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([folder / "bin/python", "-m", "pip", "install", "--quiet", wheel], check=True)
    return folder


def out_of_reach(*command: object) -> list[str]:
    """The command, with this checkout hidden from it, and no PATH on which to find a compiler."""
    hide = 'mount -t tmpfs none "$1" && shift && exec env -i LANG=C.UTF-8 PATH=/nonexistent "$@"'
    return ["unshare", "--mount", "sh", "-c", hide, "sh", str(TOP), *map(str, command)]


def test_the_wheel_serves_every_later_python_of_this_platform(wheel: Path) -> None:
    machine = os.uname().machine
    assert wheel.name == f"pytracecon-0.1.0-cp311-abi3-linux_{machine}.whl"
    assert wheel.stat().st_size < 1_000_000


def test_the_wheel_holds_what_runs_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "pytracecon/_events.abi3.so",
        "pytracecon/_ring.abi3.so",
        f"pytracecon/bpf/pytracecon-{os.uname().machine}.bpf.o",
        "pytracecon/py.typed",
        "pytracecon/pytracecon.service",
        "pytracecon-0.1.0.dist-info/licenses/LICENSE",
        "pytracecon-0.1.0.dist-info/licenses/LICENSE.GPL-2.0",
    } <= names
    assert sum(name.endswith(".bpf.o") for name in names) == 1, "a wheel is for one kind of machine"
    kinds = {Path(name).suffix for name in names if name.startswith("pytracecon/")}
    assert kinds == {".py", ".o", ".so", ".typed", ".service"}
    assert {name.partition("/")[0] for name in names} == {"pytracecon", "pytracecon-0.1.0.dist-info"}


def test_both_commands_are_installed(environment: Path) -> None:
    for command in ([environment / "bin/pytracecon"], [environment / "bin/python", "-m", "pytracecon"]):
        done = subprocess.run(out_of_reach(*command, "--help"), capture_output=True, text=True, check=True)
        assert done.stdout.startswith("usage: pytracecon")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_installed_wheel_traces_a_connection(environment: Path, tmp_path: Path) -> None:
    command = out_of_reach(environment / "bin/pytracecon", "--format", "json", "--pid", os.getpid(), "--duration", 60)
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stdout is not None
        assert tracer.stderr is not None
        ready = tracer.stderr.readline()
        assert ready.startswith("pytracecon: tracing"), ready + tracer.stderr.read()
        port = talk()
        events: list[dict[str, Any]] = []
        while sum(event["event"] == "close" for event in events) < 2:  # --duration ends this if they never come
            line = tracer.stdout.readline()
            assert line, "the tracer ended first"
            events.append(json.loads(line))
        tracer.send_signal(signal.SIGINT)
        tracer.communicate()
    assert tracer.returncode == 0
    out = [event for event in events if event["direction"] == "out"]
    assert [event["event"] for event in out] == ["connect", "established", "close"]
    assert {event["remote_port"] for event in out} == {port}
    assert {event["pid"] for event in events} == {os.getpid()}
    assert (out[-1]["tx_bytes"], out[-1]["rx_bytes"]) == (5, 3)


def talk() -> int:
    """Five bytes there and three back, in this thread; the port of the listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        near = socket.create_connection(("127.0.0.1", port))
        far, _ = listener.accept()
        with near, far:
            near.sendall(b"there")
            assert far.recv(5, socket.MSG_WAITALL) == b"there"
            far.sendall(b"too")
            assert near.recv(3, socket.MSG_WAITALL) == b"too"
            near.close()
            assert far.recv(1) == b""
    return port
