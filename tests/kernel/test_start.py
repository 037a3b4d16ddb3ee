"""Programs are verified on two CPUs at once, and libbpf gets few types: what comes of it is what always came."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pytracecon import _libbpf, loader, sandbox, tasks
from pytracecon.errors import UnsupportedKernel
from pytracecon.filters import Filters
from pytracecon.kernel_types import FewTypes, chosen_ahead
from pytracecon.loader import Loaded
from pytracecon.meanwhile import Meanwhile
from pytracecon.sandbox import Attempt
from pytracecon.tasks import Task
from pytracecon.uprobe_multi import MultiLink
from pytracecon.uprobes import LibcUprobes

FILTERS = Filters.parse(pid=os.getpid())
TWO_CPUS = pytest.mark.slow(reason="in guests, tests have one CPU, and that loads one object")


def codes(loaded: Loaded) -> dict[str, bytes]:
    """A hash of the instructions that each program was relocated to."""
    return {name: bytes(program.info().tag) for name, program in loaded.object.programs.items() if program.autoload}


@pytest.fixture
def one_cpu() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    yield
    os.sched_setaffinity(0, before)


def code_here() -> dict[str, bytes]:
    with contextlib.closing(loader.load(FILTERS)) as loaded:
        return codes(loaded)


def test_by_few_types_programs_become_what_they_become_by_all(monkeypatch: pytest.MonkeyPatch) -> None:
    by_few = code_here()
    monkeypatch.setattr(FewTypes, "path", lambda _: None)
    assert by_few == code_here()
    assert "state_worker_btf" in by_few or "state_worker_raw" in by_few


@TWO_CPUS
def test_one_cpu_loads_the_same(request: pytest.FixtureRequest) -> None:
    at_once = code_here()
    request.getfixturevalue("one_cpu")
    assert at_once == code_here()


def of_bpf() -> list[str]:
    """What this process holds of it."""
    held = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            held.append(str(each.readlink()))
    return sorted(name for name in held if "bpf" in name or "pytracecon" in name)


@pytest.mark.slow(reason="types are chosen before the kernel is asked for anything")
def test_types_that_are_chosen_ahead_are_for_who_loads_meanwhile() -> None:
    before = of_bpf()
    with chosen_ahead():
        assert len(of_bpf()) == len(before) + 1
        by_these = code_here()
        assert of_bpf() == before
        assert by_these == code_here()
    with chosen_ahead():
        pass
    assert of_bpf() == before


@TWO_CPUS
def test_a_uretprobe_is_tried_while_python_imports_and_not_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[bool] = []
    result = Attempt.result

    def noted(attempt: Attempt) -> MultiLink:
        begun.append(attempt.begun)
        return result(attempt)

    monkeypatch.setattr(sandbox, "needed", lambda: True)
    monkeypatch.setattr(Attempt, "result", noted)
    code_here()
    assert begun == [True]


def test_a_uretprobe_is_tried_unless_the_kernel_says_that_it_would_pass() -> None:
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    assert found is not None
    assert sandbox.needed() == (os.uname().machine != "x86_64" or (int(found[1]), int(found[2])) < (6, 18))
    try:
        Attempt(_libbpf.open_library()).result().close()
    except UnsupportedKernel:
        assert sandbox.needed()


def test_who_is_filtered_makes_no_system_call_that_a_filter_may_kill_for() -> None:
    asks = "import ctypes; ctypes.CDLL(None).syscall(336)"
    assert filtered(asks).returncode == (-signal.SIGSYS if sandbox.needed() else 0)
    assert filtered("from pytracecon.sandbox import needed; print(needed())").stdout == "True\n"


def filtered(program: str) -> subprocess.CompletedProcess[str]:
    """Run by a Python that may make no system call that is newer than it."""
    load_number, jump_if_less, allow, kill = 0x20, 0x35, 0x7FFF0000, 0x80000000
    code = struct.pack("=HBBI", load_number, 0, 0, 0) + struct.pack("=HBBI", jump_if_less, 1, 0, 336)
    code += struct.pack("=HBBI", 6, 0, 0, allow) + struct.pack("=HBBI", 6, 0, 0, kill)
    confine = (
        f"import ctypes; code = ctypes.create_string_buffer({code!r}, {len(code)}); libc = ctypes.CDLL(None)\n"
        "class Program(ctypes.Structure): _fields_ = [('length', ctypes.c_ushort), ('code', ctypes.c_void_p)]\n"
        f"program = Program({len(code) // 8}, ctypes.addressof(code))\n"
        "assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(program)) == 0\n"
    )
    return subprocess.run([sys.executable, "-c", confine + program], check=False, text=True, stdout=subprocess.PIPE)


@TWO_CPUS
def test_libcs_are_attached_to_while_the_kernel_verifies_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who registers the first uprobe waits for RCU: nobody waits for that alone."""
    there: list[bool] = []
    attach = LibcUprobes.attach

    def noted(libcs: LibcUprobes) -> None:
        there.append("pytracecon: loads programs" in [each.name for each in threading.enumerate()])
        attach(libcs)

    monkeypatch.setattr(LibcUprobes, "attach", noted)
    code_here()
    assert there == [True]


def test_a_trial_that_nobody_begins_leaves_no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    children: list[Any] = []
    start = sandbox._start

    def noted() -> Any:
        children.append(start())
        return children[-1]

    monkeypatch.setattr(sandbox, "_start", noted)
    Attempt(_libbpf.open_library()).close()
    (child,) = children
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)


@TWO_CPUS
def test_an_interrupt_while_programs_load_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    running: set[str] = set()

    def interrupt(*_: object, **__: object) -> None:
        running.update(each.name for each in threading.enumerate())
        raise KeyboardInterrupt

    before = of_bpf()
    with monkeypatch.context() as patched:
        patched.setattr(Meanwhile, "run", interrupt)
        with pytest.raises(KeyboardInterrupt):
            loader.load(FILTERS)
    assert "pytracecon: loads programs" in running
    assert of_bpf() == before
    assert "state_worker_btf" in code_here() or "state_worker_raw" in code_here()


@pytest.mark.parametrize("starts", [True, False])
def test_an_interrupt_while_a_thread_starts_does_not_lose_it(monkeypatch: pytest.MonkeyPatch, *, starts: bool) -> None:
    monkeypatch.setattr(tasks, "_BEGINS_WITHIN", 0.1)
    go, done = threading.Event(), []
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        if starts:
            start(thread)
        raise KeyboardInterrupt

    def work() -> None:
        go.wait()
        done.append(True)

    task = Task("waits", work)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            task.begin()
    go.set()
    task.wait()
    assert done == [True] * starts


def test_what_a_thread_raises_is_told_to_who_waits() -> None:
    def fail() -> None:
        raise LookupError("in the thread")

    task = Task("fails", fail)
    task.begin()
    for _ in range(2):
        with pytest.raises(LookupError, match="in the thread"):
            task.result()


@pytest.mark.slow(reason="what it tells of is user space's, whatever the kernel")
def test_details_of_libbpf_are_told_to_who_wants_them(caplog: pytest.LogCaptureFixture) -> None:
    def details() -> list[str]:
        return [each.message for each in caplog.records if each.name == "pytracecon.libbpf"]

    code_here()
    assert details() == []
    caplog.set_level(logging.DEBUG, "pytracecon.libbpf")
    code_here()
    assert any("CO-RE relocating" in each for each in details())
