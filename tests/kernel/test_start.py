"""Programs are verified on two CPUs at once, and libbpf gets few types: what comes of it is what always came."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytracecon import loader
from pytracecon.filters import Filters
from pytracecon.kernel_types import FewTypes
from pytracecon.loader import Loaded

FILTERS = Filters.parse(pid=os.getpid())
BOTH = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU loads one object")


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


@BOTH
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
    return [name for name in held if "bpf" in name or "pytracecon" in name]


@pytest.mark.slow(reason="tens of loads; it is about our own threads and objects, not about the kernel")
def test_an_interrupt_while_loading_leaves_nothing_behind() -> None:
    class Interrupted(Exception):
        pass

    def interrupt(_number: int, _frame: object) -> None:
        raise Interrupted

    assert of_bpf() == []
    interrupted = 0
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for milliseconds in range(1, 120, 7):
            try:
                signal.setitimer(signal.ITIMER_REAL, milliseconds / 1000)
                with contextlib.closing(loader.load(FILTERS)):
                    signal.setitimer(signal.ITIMER_REAL, 0)
            except Interrupted:
                interrupted += 1
            assert of_bpf() == []
            assert [each.name for each in threading.enumerate() if each.name.startswith("pytracecon: loads")] == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert interrupted


def test_details_of_libbpf_are_told_to_who_wants_them(caplog: pytest.LogCaptureFixture) -> None:
    def details() -> list[str]:
        return [each.message for each in caplog.records if each.name == "pytracecon.libbpf"]

    code_here()
    assert details() == []
    caplog.set_level(logging.DEBUG, "pytracecon.libbpf")
    code_here()
    assert any("CO-RE relocating" in each for each in details())
