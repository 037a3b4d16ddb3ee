"""`pytracecon run`, with the generator as its command: what it made, reached and left is told as it tells it itself."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from traffic.actor import DEADLINE, Actor, TrafficError
from traffic.end import connect, listen, pair
from traffic.naming import visit
from traffic.resolver import Place
from traffic.waiting import readable

pytestmark = pytest.mark.slow(reason="what a command is told of is user space's business, whatever the kernel")

TOP = Path(__file__).parents[2]
NOBODY = 65534


elsewhere = pytest.mark.slow(reason="starts a Python, or more, for what no kernel has a say in")


class Run:
    """A running `pytracecon run`; `actor` is its command."""

    def __init__(self, place: Place, program: Path, *options: str, name: str = "command", **streams: Any) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            command = ["run", *options, "--", str(program), str(there.fileno()), name]
            self.process = start(place, *command, pass_fds=[there.fileno()], **streams)
        try:
            self.actor = Actor(here, [])
        except TrafficError:
            here.close()
            self.process.kill()
            raise TrafficError(f"the command did not begin: {self.process.communicate()}") from None

    def end(self, status: int = 0) -> str:
        """Its standard error, after the command has left by itself and the run ended with that status."""
        self.actor.do("leave")
        return self.ended(status)

    def ended(self, status: int) -> str:
        _, err = self.process.communicate(timeout=DEADLINE)
        assert self.process.returncode == status, err
        assert isinstance(err, str)
        return err

    def told(self, status: int = 0) -> dict[str, Any]:
        """The document."""
        told = json.loads(self.end(status))
        assert isinstance(told, dict)
        return told

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.actor.dismiss()


def start(place: Place, *words: str, **streams: Any) -> subprocess.Popen[str]:
    streams = {"stderr": subprocess.PIPE, "env": environment()} | streams
    return place.program(sys.executable, "-m", "pytracecon", *words, **streams)


def environment(**more: str) -> dict[str, str]:
    """nsenter goes to the root of the mount namespace: the package has to be found from there."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("SUDO_")}
    return own | {"PYTHONPATH": str(TOP)} | more


def finished(place: Place, *words: str, **streams: Any) -> tuple[int, str, str]:
    """A run to its end: exit status, output, standard error."""
    process = start(place, *words, **streams)
    try:
        out, err = process.communicate(timeout=DEADLINE)
    finally:
        process.kill()
        process.communicate()
    return process.returncode, out, err


@pytest.fixture
def run(place: Place, program: Path) -> Iterator[Callable[..., Run]]:
    with ExitStack() as stack:

        def begin(*options: str, **streams: Any) -> Run:
            running = Run(place, program, *options, **streams)
            stack.callback(running.close)
            return running

        yield begin


def by_port(told: dict[str, Any], port: int) -> dict[str, Any]:
    (found,) = [each for each in told["destinations"] if each["port"] == port]
    assert isinstance(found, dict)
    return found


def test_the_summary_tells_of_the_command_and_its_children_and_of_nobody_else(
    run: Callable[..., Run], place: Place
) -> None:
    """From its first system call on: it exists before it is traced, and begins after that."""
    running = run("--format", "json")
    listener = listen(place.actor("server"))
    child = running.actor.fork("child")
    for actor, count in ((running.actor, 100), (child, 20), (place.actor("stranger"), 7)):
        near, far = pair(actor, listener)
        near.send(count)
        far.receive(count)
        near.close()
        far.await_end()
        far.close()
    child.do("lookup", "nobody.test", 4, 1)
    told = running.told()
    made = by_port(told, listener.address[1])
    assert (made["connections"], made["failed"], made["tx_bytes"], made["rx_bytes"]) == (2, 0, 120, 0)
    assert made["addresses"] == ["127.0.0.1"]
    assert 0 < made["latency_ns"]["min"] <= made["latency_ns"]["median"] <= made["latency_ns"]["max"]
    assert told["lookups_failed"] == [{"name": "nobody.test", "result": "EAI_NONAME", "count": 1}]
    assert (told["status"], told["connections"], told["lookups"], told["lost"]) == (0, 2, 1, 0)
    assert told["command"][2:] == ["command"]
    assert "not_allowed" not in told


def test_names_failures_and_what_others_connected_to_it(run: Callable[..., Run], place: Place) -> None:
    running = run("--format", "json")
    actor = running.actor
    for name in ("one.test", "one.test", "two.test"):
        visit(actor, place.web, actor.do("lookup", name, 4, 1).extra["addresses"][0])
    refused = connect(actor, ("127.0.0.1", 9))
    assert refused.error == "ECONNREFUSED"
    listener = listen(actor)
    near, far = pair(place.actor("client"), listener)
    near.send(11)
    far.receive(11)
    near.close()
    far.await_end()
    far.close()
    told = running.told()
    named = {each["host"]: each for each in told["destinations"] if "host" in each}
    assert {name: each["connections"] for name, each in named.items()} == {"one.test": 2, "two.test": 1}
    assert named["one.test"]["addresses"] == ["127.0.0.11"]
    assert named["one.test"]["host_source"] == "getaddrinfo"
    assert by_port(told, 9)["failures"] == {"refused": 1}
    assert told["accepted"] == [{"port": listener.address[1], "connections": 1, "tx_bytes": 0, "rx_bytes": 11}]


@elsewhere
def test_a_connection_that_the_command_leaves_to_the_kernel_is_told_whole(
    run: Callable[..., Run], place: Place
) -> None:
    """It ends without a close: the kernel closes for it, and its bytes are known after its end."""
    running = run("--format", "json")
    listener = listen(place.actor("server"))
    near, far = pair(running.actor, listener)
    near.send(1000)
    far.receive(1000)
    running.actor.do("leave")
    far.await_end()
    far.close()
    made = by_port(json.loads(running.ended(0)), listener.address[1])
    assert made["tx_bytes"] == 1000
    assert "still_open" not in made


@pytest.mark.parametrize(
    ("options", "kept_out"),
    [
        (["--allow-host", "one.test"], {"two.test", None}),
        pytest.param(["--allow-net", "127.0.0.0/28"], set(), marks=elsewhere),
        pytest.param(["--allow-host", "*.TEST"], {None}, marks=elsewhere),
        pytest.param(["--allow-net", "127.0.0.12,127.0.0.1"], {"one.test"}, marks=elsewhere),
        pytest.param(
            ["--allow-net", "127.0.0.1", "--allow-host", "o*", "--allow-host", "two.*"], set(), marks=elsewhere
        ),
        pytest.param(["--allow-net", "loopback"], set(), marks=elsewhere),
        pytest.param(["--allow-net", "none"], {"one.test", "two.test", None}, marks=elsewhere),
    ],
)
def test_whatever_is_not_allowed_is_named_and_fails_the_run(
    run: Callable[..., Run], place: Place, options: list[str], kept_out: set[str | None]
) -> None:
    """Two by name, and one attempt without: to try is enough."""
    running = run("--format", "json", *options)
    for name in ("one.test", "two.test"):
        visit(running.actor, place.web, running.actor.do("lookup", name, 4, 1).extra["addresses"][0])
    connect(running.actor, ("127.0.0.1", 9))
    told = running.told(status=76 if kept_out else 0)
    port = place.web.address[1]
    expected: dict[str | None, Any] = {
        "one.test": {"host": "one.test", "address": "127.0.0.11", "port": port},
        "two.test": {"host": "two.test", "address": "127.0.0.12", "port": port},
        None: {"address": "127.0.0.1", "port": 9},
    }
    owner = {"pid": running.actor.pid, "comm": "command", "count": 1}
    assert told["not_allowed"] == [expected[name] | owner for name in expected if name in kept_out]


@elsewhere
def test_a_name_that_may_be_another_one_is_not_enough(run: Callable[..., Run], place: Place) -> None:
    """Both names lead to this address, and both were asked for: which of them was meant nobody can tell."""
    running = run("--allow-host", "shared-b.test", "--format", "json")
    for name in ("shared-a.test", "shared-b.test"):
        running.actor.do("lookup", name, 4, 1)
    visit(running.actor, place.web, "127.0.0.14")
    (named,) = running.told(status=76)["not_allowed"]
    assert (named["host"], named["address"]) == ("shared-b.test", "127.0.0.14")


@elsewhere
def test_the_commands_own_failure_is_the_status_and_the_guards_is_told_all_the_same(place: Place) -> None:
    script = "import socket\ntry: socket.create_connection(('127.0.0.1', 9))\nexcept OSError: raise SystemExit(5)"
    status, _, err = finished(place, "run", "--allow-net", "none", "--", sys.executable, "-c", script)
    assert status == 5
    assert "not allowed: python" in err
    assert "to 127.0.0.1:9 (1)" in err


@elsewhere
def test_a_loss_makes_a_guard_fail_as_it_cannot_know(run: Callable[..., Run]) -> None:
    running = run("--allow-net", "loopback", "--ring-size", "4K")
    os.kill(tracer_of(running), signal.SIGSTOP)
    running.actor.do("flood", 300, 5)
    running.actor.do("leave")
    os.kill(tracer_of(running), signal.SIGCONT)
    err = running.ended(75)
    assert "lost (ring)" in err
    assert "not known" in err


def tracer_of(running: Run) -> int:
    """nsenter became it, in place."""
    return running.process.pid


@elsewhere
def test_processes_that_are_left_behind_are_named(place: Place) -> None:
    """Also those whose parent has ended: they are children of pytracecon by then."""
    script = "sleep 600 >&- 2>&- & echo $!; sh -c 'setsid sleep 600 >&- 2>&- & echo $!'"
    status, out, err = finished(place, "run", "--format", "json", "--", "sh", "-c", script)
    pids = list(map(int, out.split()))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)  # they are there
    assert status == 0
    assert sorted(each["pid"] for each in json.loads(err)["left_behind"]) == sorted(pids)
    assert {each["comm"] for each in json.loads(err)["left_behind"]} == {"sleep"}


@elsewhere
@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["sh", "-c", "kill -KILL $$"], 128 + signal.SIGKILL),
        (["no-such-command"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_the_exit_status_is_the_commands(place: Place, command: list[str], status: int) -> None:
    got, out, err = finished(place, "run", "--", *command)
    assert (got, out) == (status, "")
    assert err.count("\n") == 1, err


@elsewhere
def test_its_standard_streams_are_its_own(place: Place) -> None:
    process = start(place, "run", "--", "sh", "-c", "cat; echo beside >&2", stdin=subprocess.PIPE)
    out, err = process.communicate("through\n", timeout=DEADLINE)
    assert out == "through\n"
    assert err.startswith("beside\npytracecon: status 0 after ")
    assert process.returncode == 0


@elsewhere
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_is_passed_on_and_the_summary_is_still_told(
    run: Callable[..., Run], place: Place, number: signal.Signals
) -> None:
    running = run()
    visit(running.actor, place.web, "127.0.0.1")
    os.kill(tracer_of(running), number)
    err = running.ended(128 + number)
    assert f"pytracecon: signal {number.value} after " in err
    assert f"127.0.0.1:{place.web.address[1]}" in err


@elsewhere
def test_ctrl_c_reaches_the_command_once_and_it_decides(place: Place) -> None:
    """Of a terminal both are told by the kernel; were it passed on, the command would count two."""
    leader, terminal = os.openpty()
    script = "trap 'echo caught' INT; echo ready; while ! read line; do :; done; exit 4"
    process = place.program(
        "setsid", "--ctty", "--wait", sys.executable, "-m", "pytracecon", "run", "--", "sh", "-c", script,
        stdin=terminal, stdout=terminal, stderr=terminal, env=environment(),
    )  # fmt: skip
    os.close(terminal)
    said = read_until(leader, b"", b"ready")
    os.write(leader, b"\x03")
    said = read_until(leader, said, b"caught")
    os.write(leader, b"go on\n")
    said = read_until(leader, said, b"none lost")
    assert process.wait(timeout=DEADLINE) == 4
    os.close(leader)
    assert said.count(b"caught") == 1


def read_until(terminal: int, said: bytes, words: bytes) -> bytes:
    deadline = time.monotonic() + DEADLINE
    while words not in said:
        assert readable(terminal, max(0, deadline - time.monotonic())), said
        said += os.read(terminal, 4096)
    return said


@elsewhere
def test_through_sudo_it_runs_as_the_user_who_called(place: Place) -> None:
    called = environment(SUDO_UID=str(NOBODY), SUDO_GID=str(NOBODY), SUDO_USER="nobody", HOME="/root")
    script = "id -u; id -G; echo $HOME $USER $SUDO_UID; grep CapEff /proc/self/status"
    status, out, err = finished(place, "run", "--", "sh", "-c", script, env=called)
    assert status == 0, err
    assert out.splitlines() == [str(NOBODY), str(NOBODY), "/nonexistent nobody", "CapEff:\t0000000000000000"]


@elsewhere
def test_root_can_choose_the_user(place: Place) -> None:
    called = environment(SUDO_UID=str(NOBODY), SUDO_GID=str(NOBODY))
    for user, uid in (("nobody", NOBODY), ("root", 0), (str(NOBODY), NOBODY)):
        status, out, err = finished(place, "run", "--user", user, "--", "id", "-u", env=called)
        assert (status, out) == (0, f"{uid}\n"), err


@elsewhere
def test_what_another_user_does_is_traced_too(run: Callable[..., Run], place: Place) -> None:
    running = run("--format", "json")
    running.actor.set_user(NOBODY)
    visit(running.actor, place.web, "127.0.0.1")
    assert running.told()["connections"] == 1


@elsewhere
def test_the_summary_goes_to_a_file_and_what_is_wrong_is_said_all_the_same(
    run: Callable[..., Run], place: Place, tmp_path: Path
) -> None:
    running = run("--format", "json", "-o", str(tmp_path / "told.json"), "--allow-net", "none")
    visit(running.actor, place.web, "127.0.0.1")
    err = running.end(76)
    assert json.loads((tmp_path / "told.json").read_text())["connections"] == 1
    assert [line.split()[0] for line in err.splitlines()] == ["pytracecon:", "not"]


@elsewhere
def test_nothing_is_run_where_it_cannot_be_traced(place: Place, tmp_path: Path) -> None:
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
    run = [sys.executable, "-m", "pytracecon", "run", "--", "touch", str(tmp_path / "touched")]
    process = place.program(*powerless, *run, stderr=subprocess.PIPE, env=environment())
    _, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 77, err
    assert err.count("\n") == 1
    assert not (tmp_path / "touched").exists()
