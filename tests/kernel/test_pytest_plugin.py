"""The pytest plugin, in a pytest of its own: what it tells of the tests there, and which of them it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from traffic.actor import DEADLINE
from traffic.resolver import Place

TOP = Path(__file__).parents[2]

pytestmark = pytest.mark.slow(reason="starts a pytest; what a kernel has a say in, the other tests see")

TALK = """\
import os, socket, subprocess, sys
import pytest

def serve(address="127.0.0.1"):
    return socket.create_server((address, 0))

def talk(listener, to=None):
    near = socket.create_connection((to or listener.getsockname()[0], listener.getsockname()[1]))
    far, _ = listener.accept()
    with near, far:
        near.sendall(b"there")
        assert far.recv(5) == b"there"
        far.sendall(b"too")
        assert near.recv(3) == b"too"
        near.close()
        assert far.recv(1) == b""

REFUSED = "import socket\\ntry: socket.create_connection(('127.0.0.1', 9))\\nexcept OSError: pass"
"""


def pytest_of(place: Place, folder: Path, tests: str, *options: str, before: tuple[str, ...] = ()) -> tuple[int, str]:
    """The exit status and all that it said."""
    (folder / "test_it.py").write_text(TALK + tests)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    own = ["-m", "pytest", "-p", "no:cacheprovider", "-p", "pytracecon.pytest_plugin", "-rA", "--tb=short"]
    environment = os.environ | {"PYTHONPATH": str(TOP), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("PYTEST_ADDOPTS", None)
    process = place.program(
        *before, sys.executable, *own, "--rootdir", folder, folder, *options, env=environment, stderr=subprocess.STDOUT
    )
    try:
        said, _ = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, said


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


CONNECTIONS = """
def test_its_own(connections):
    with serve() as listener:
        assert list(connections) == []
        talk(listener)
        (made,) = connections.wait()
        assert made.remote == listener.getsockname()
        assert (made.pid, made.outcome, made.tx_bytes, made.rx_bytes) == (os.getpid(), "closed", 5, 3)
        (taken,) = connections.accepted
        assert (taken.tx_bytes, taken.rx_bytes, taken.local_port) == (3, 5, made.remote_port)
        talk(listener)
        assert len(connections) == 2
        assert connections[0] is made

def test_while_it_lasts(connections):
    with serve() as listener, socket.create_connection(listener.getsockname()) as near:
        (made,) = connections.wait(1)
        assert made.outcome == "open" and not made.over
        with pytest.raises(TimeoutError, match="after 0.05 s there are .*Connection"):
            connections.wait(timeout=0.05)
        near.close()
        listener.accept()[0].close()
        assert connections.wait(lambda all: all[0].over)[0] is made
        assert made.outcome == "closed"

def test_of_children(connections):
    child = subprocess.Popen([sys.executable, "-c", REFUSED])
    assert child.wait() == 0
    assert [(each.pid, each.outcome, each.reason) for each in connections] == [(child.pid, "failed", "refused")]

kept = []

def test_that_leaves_one_open(connections):
    listener = serve()
    kept[:] = listener, socket.create_connection(listener.getsockname())
    assert len(connections) == 1

def test_of_what_others_left_nothing_is_told(connections):
    for each in kept:
        each.close()
    assert list(connections) == []

def test_names(connections):
    with serve("127.0.0.11") as listener:
        talk(listener, "one.test")
    (made,) = connections
    assert (made.host, made.host_source, made.remote_addr) == ("one.test", "getaddrinfo", "127.0.0.11")

def test_a_fork_does_no_harm(connections):
    if (pid := os.fork()) == 0:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert list(connections) == []
"""


def test_the_fixture_tells_of_a_test_and_of_nothing_else(place: Place, folder: Path) -> None:
    status, said = pytest_of(place, folder, CONNECTIONS)
    assert status == 0, said
    assert "7 passed" in said


REACHING = """
def test_nothing():
    pass

def test_one():
    with serve("127.0.0.11") as listener:
        talk(listener, "one.test")

def test_two_and_by_number():
    with serve("127.0.0.12") as listener:
        talk(listener, "two.test")
        talk(listener)

def test_a_child():
    assert subprocess.run([sys.executable, "-c", REFUSED]).returncode == 0

@pytest.fixture
def late():
    yield
    with serve("127.0.0.13") as listener:
        talk(listener)

def test_its_teardown(late):
    pass

def test_that_fails_by_itself():
    with serve("127.0.0.12") as listener:
        talk(listener)
    assert 1 + 1 == 3
"""


def outcomes(said: str) -> dict[str, str]:
    """What the summary lines call each test; of one with several lines, all, the last first."""
    found: dict[str, str] = {}
    for line in said.splitlines():
        kind, _, rest = line.partition(" ")
        if kind in ("PASSED", "FAILED", "ERROR", "SKIPPED") and "::" in rest:
            name = rest.partition("::")[2].split()[0]
            found[name] = f"{kind} {found[name]}" if name in found else kind
    return found


def test_a_test_that_reaches_what_is_not_allowed_fails_and_it_is_named(place: Place, folder: Path) -> None:
    status, said = pytest_of(place, folder, REACHING, "--allow-host", "one.*")
    assert status == 1, said
    assert outcomes(said) == {
        "test_nothing": "PASSED",
        "test_one": "PASSED",
        "test_two_and_by_number": "FAILED",
        "test_a_child": "FAILED",
        "test_its_teardown": "ERROR PASSED",
        "test_that_fails_by_itself": "FAILED ERROR",
    }
    assert "to two.test, 127.0.0.12:" in said
    assert "to 127.0.0.1:9 (1)" in said
    assert "to 127.0.0.13:" in said
    assert "assert (1 + 1) == 3" in said


def test_what_is_allowed_fails_nothing(place: Place, folder: Path) -> None:
    status, said = pytest_of(place, folder, REACHING, "--allow-net", "127.0.0.0/28")
    assert "5 passed" in said
    assert "1 failed" in said  # by itself
    assert "not allowed" not in said
    assert status == 1


POWERLESS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")


def test_without_privilege_the_fixture_skips_with_the_reason(place: Place, folder: Path) -> None:
    status, said = pytest_of(
        place, folder, "def test_it(connections): pass\ndef test_other(): pass\n", before=POWERLESS
    )
    assert status == 0, said
    assert "1 passed, 1 skipped" in said
    assert "connections cannot be traced" in said
    assert "CAP_BPF" in said


def test_without_privilege_what_was_to_be_guarded_fails(place: Place, folder: Path) -> None:
    tests = "def test_it(connections): pass\ndef test_other(): pass\n"
    status, said = pytest_of(place, folder, tests, "--allow-net", "none", before=POWERLESS)
    assert status == 1, said
    assert "2 errors" in said
    assert "cannot be guarded: " in said


def test_a_wrong_value_is_wrong_usage(place: Place, folder: Path) -> None:
    status, said = pytest_of(place, folder, "def test_it(): pass\n", "--allow-net", "10.0.0.1/8")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --allow-net: 10.0.0.1/8 has bits set behind its prefix" in said


def test_who_does_not_use_it_loads_nothing(place: Place, folder: Path) -> None:
    heavy = {"pytracecon.tracer", "pytracecon.filters", "pytracecon.events", "cffi", "msgspec"}
    tests = f"def test_it():\n    assert not {heavy} & set(sys.modules)\n"
    status, said = pytest_of(place, folder, tests)
    assert status == 0, said


LOSING = """
def test_a_flood(connections, monkeypatch):
    with serve() as listener:
        for _ in range(200):
            talk(listener)
"""


def test_a_loss_fails_the_test(place: Place, folder: Path) -> None:
    """A ring of one page, which nobody reads while the test runs."""
    small = (
        "import functools, pytracecon.tracer as tracer\n"
        "tracer.Tracer = functools.partial(tracer.Tracer, ring_size='4K')\n"
    )
    (folder / "conftest.py").write_text(small)
    status, said = pytest_of(place, folder, LOSING)
    assert status == 1, said
    assert "records were lost" in said
