"""What a child tells of uretprobes is what came of it, whatever else this process forks, waits for or ignores."""

from __future__ import annotations

import os
import platform
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytracecon._ring import lib as child_of

from pytracecon import _libbpf, sandbox
from pytracecon.errors import UnsupportedKernel

KILLED = "a uretprobe kills processes .* ended with status"
NOT_KNOWN = "whether a uretprobe kills .* is not known"
NOBODY = 65534
OUT_OF_REACH = {signal.SIGKILL, signal.SIGSTOP, 32, 33}  # the last two are the C library's own

# getpid(), and back.
A_SYSTEM_CALL = {
    "x86_64": bytes.fromhex("b827000000 0f05 c3"),
    "aarch64": bytes.fromhex("881580d2 010000d4 c0035fd6"),
}

TRY = """
import os
from pytracecon import sandbox
from pytracecon._ring import lib as child_of

class Link:
    def close(self):
        pass

"""


class Link:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def nothing(_path: str, _offset: int, _pid: int) -> Link:
    return Link()


def put_a_system_call(pid: int) -> None:
    """Where a uretprobe would: in what the child calls."""
    with Path(f"/proc/{pid}/mem").open("r+b", buffering=0) as memory:
        memory.seek(child_of.confined_target())
        memory.write(A_SYSTEM_CALL[platform.machine()])


def wait_elsewhere(pid: int) -> None:
    """Another thread waits for the child before this one does."""
    thread = threading.Thread(target=os.waitpid, args=(pid, 0))
    thread.start()
    thread.join()


def held() -> tuple[list[str], int]:
    """Descriptors, and mappings that are shared with children."""
    mappings = Path("/proc/self/maps").read_text(encoding="utf-8", errors="surrogateescape")
    return sorted(os.listdir("/proc/self/fd")), mappings.count("/dev/zero (deleted)")


def ended(script: str, *wrapped: str) -> int:
    """What it ended with. Its standard input is open until then."""
    with subprocess.Popen([*wrapped, sys.executable, "-c", TRY + script], stdin=subprocess.PIPE) as process:
        try:
            return process.wait(timeout=60)
        except BaseException:
            process.kill()
            raise


@pytest.fixture
def ignored_children() -> Iterator[None]:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.fixture
def broken_pipes_kill() -> Iterator[None]:
    """As in a program that is not Python's."""
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGPIPE, before)


def test_a_child_that_nothing_happens_to_leaves_nothing_behind() -> None:
    before = held()
    assert not sandbox.try_one(nothing).closed
    assert held() == before


def test_a_trial_that_nobody_begins_may_be_closed_again() -> None:
    lib = _libbpf.open_library()
    before = held()
    attempt = sandbox.Attempt(lib)
    attempt.close()
    attempt.close()
    assert held() == before


def test_a_child_that_a_system_call_kills_tells_so() -> None:
    link = Link()

    def attach(_path: str, _offset: int, pid: int) -> Link:
        put_a_system_call(pid)
        return link

    before = held()
    with pytest.raises(UnsupportedKernel, match=f"{KILLED} {int(signal.SIGSYS)}"):
        sandbox.try_one(attach)
    assert link.closed
    assert held() == before


def test_a_program_that_was_started_with_its_children_ignored_is_told_the_same() -> None:
    """As after `trap '' CHLD` in bash."""
    script = """
import signal
assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
sandbox.try_one(lambda *_: Link())
"""
    assert ended(script, "env", "--ignore-signal=CHLD") == 0


@pytest.mark.usefixtures("ignored_children")
def test_a_child_that_is_killed_while_children_are_ignored_is_no_diagnosis() -> None:
    def attach(_path: str, _offset: int, pid: int) -> Link:
        put_a_system_call(pid)
        return Link()

    with pytest.raises(UnsupportedKernel, match=NOT_KNOWN):
        sandbox.try_one(attach)


@pytest.mark.usefixtures("broken_pipes_kill")
def test_a_child_that_another_thread_waited_for_has_told_what_came_of_it() -> None:
    before = held()
    child = child_of.confined_start()

    def attach(_path: str, _offset: int, pid: int) -> Link:
        os.write(child.go, b"\0")
        wait_elsewhere(pid)
        return Link()

    assert not sandbox.try_one(attach, child).closed
    assert held() == before


@pytest.mark.parametrize("reaped", [True, False], ids=["waited for elsewhere", "left to be waited for"])
@pytest.mark.usefixtures("broken_pipes_kill")
def test_a_child_that_somebody_kills_says_nothing_of_uretprobes(*, reaped: bool) -> None:
    link = Link()

    def attach(_path: str, _offset: int, pid: int) -> Link:
        os.kill(pid, signal.SIGKILL)
        if reaped:
            wait_elsewhere(pid)
        return link

    with pytest.raises(UnsupportedKernel, match=NOT_KNOWN):
        sandbox.try_one(attach)
    assert link.closed


def test_a_process_that_keeps_all_descriptors_is_not_waited_for() -> None:
    script = """
def attach(*_):
    global keeps
    keeps = os.fork()
    if not keeps:
        os.read(0, 1)
        os._exit(0)
    return Link()

sandbox.try_one(attach)
assert os.waitpid(keeps, os.WNOHANG) == (0, 0)
"""
    assert ended(script) == 0


def test_two_at_once_do_not_wait_for_each_other() -> None:
    script = """
first, second = child_of.confined_start(), child_of.confined_start()
assert child_of.confined_end(first) == 0
assert os.waitpid(second.pid, os.WNOHANG) == (0, 0)
assert child_of.confined_end(second) == 0
"""
    assert ended(script) == 0


def test_no_handler_of_this_process_runs_in_the_child() -> None:
    def attach(_path: str, _offset: int, pid: int) -> Link:
        for number in (signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
        return Link()

    wakes, woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    wakeup = signal.set_wakeup_fd(woken)
    try:
        sandbox.try_one(attach)
        with pytest.raises(BlockingIOError):
            os.read(wakes, 1)
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGUSR1, before)
        os.close(wakes)
        os.close(woken)


def test_only_the_child_has_its_signals_blocked() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])

    def attach(_path: str, _offset: int, pid: int) -> Link:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="surrogateescape")
        blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
        assert {number for number in range(1, 65) if not blocked >> (number - 1) & 1} == OUT_OF_REACH
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
        return Link()

    sandbox.try_one(attach)


def test_where_no_child_can_be_made_nothing_is_left_of_it() -> None:
    """The kernel does not limit how many processes root has."""
    script = f"""
import resource, signal
from pathlib import Path
from pytracecon.errors import UnsupportedKernel
if os.getuid() == 0:
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))

def held():
    return os.listdir("/proc/self/fd"), Path("/proc/self/maps").read_text().count("/dev/zero (deleted)")

before = held()
try:
    sandbox.try_one(lambda *_: Link())
except UnsupportedKernel as error:
    assert "could not be made: Resource temporarily unavailable" in str(error)
else:
    raise AssertionError("a child was made")
assert held() == before
assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""
    assert ended(script) == 0


def test_where_no_descriptor_is_left_nothing_is_left_of_it_either() -> None:
    before = held()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        child = child_of.confined_start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert child.pid < 0
    assert held() == before
