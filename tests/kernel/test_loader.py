"""What this kernel has not costs the program that is for it, and nothing else."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
from collections.abc import Callable, Iterator

import pytest
from pytracecon._ring import ffi, lib

from pytracecon import existing, loader
from pytracecon._libbpf_api import ProgInfo
from pytracecon.errors import MissingPrivilege, TracerClosed, UnsupportedKernel
from pytracecon.filters import Filters
from pytracecon.loader import Loaded
from pytracecon.privileges import CAPABILITIES
from pytracecon.probes import REPEATED, Probe

EXIT, ABSENT = b"tp_btf/sched_process_exit", b"tp_btf/sched_process_quit"


@pytest.fixture
def load() -> Iterator[Callable[[], Loaded]]:
    """Loads what follows this process."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(loader.load(Filters.parse(pid=os.getpid()))))


@pytest.fixture
def exit_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """One program of the object is for a tracepoint that no kernel has."""
    image = loader.object_image()
    assert EXIT in image
    monkeypatch.setattr(loader, "object_image", lambda: image.replace(EXIT, ABSENT))


def attached(probes: list[Probe]) -> set[str]:
    return {probe.name for probe in probes if probe.attached}


@pytest.mark.usefixtures("exit_absent")
def test_an_absent_function_costs_its_own_program_and_no_other_of_its_kind(load: Callable[[], Loaded]) -> None:
    probes = load().probes
    assert {"state_btf", "exit_raw"} <= attached(probes)
    refused = {probe.name: probe.detail for probe in probes if not probe.attached and "_btf" in probe.name}
    assert refused.keys() == {"exit_btf"}
    assert ABSENT.decode().partition("/")[2] in refused["exit_btf"]


@pytest.mark.slow(reason="a whole survey; what the loader does then, the test above tells of each kernel")
@pytest.mark.usefixtures("exit_absent")
def test_a_survey_finds_those_programs_alone_refused() -> None:
    refused = {name for name, error in loader.survey(Filters.parse()).items() if error is not None}
    assert {name for name in refused if name.endswith("_btf")} == {"exit_btf", "datagram_owner_btf"}


@contextlib.contextmanager
def effective(bits: int) -> Iterator[None]:
    """Of its capabilities, this thread may use these only."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    before, now = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then bits 32 up
    assert libc.capget(header, before) == libc.capget(header, now) == 0
    now[0], now[3] = before[0] & bits, before[3] & (bits >> 32)
    assert libc.capset(header, now) == 0
    try:
        yield
    finally:
        assert libc.capset(header, before) == 0


def test_a_survey_needs_no_essential_program_to_load() -> None:
    # Not CAP_PERFMON, which programs need; maps can be made, also where they count against the limit of locked memory.
    with effective(1 << CAPABILITIES["CAP_BPF"] | 1 << CAPABILITIES["CAP_SYS_RESOURCE"]):
        outcome = loader.survey(Filters.parse())
    for name in ("state_btf", "state_worker_btf", "state_raw", "state_worker_raw"):
        assert isinstance(outcome[name], MissingPrivilege)


def test_an_iterator_that_does_not_attach_costs_its_own_need(load: Callable[[], Loaded]) -> None:
    loaded = load()
    before = attached(loaded.probes)
    loaded.object.programs["existing"] = loaded.object.programs["state_btf"]  # no iterator: the kernel refuses
    refused = existing.read_existing(loaded)
    assert isinstance(refused, UnsupportedKernel)
    assert attached(loaded.probes) == before - {"existing"}
    assert [probe.detail for probe in loaded.probes if probe.name == "existing"] == [str(refused)]


def test_an_iterator_that_runs_stays_attached(load: Callable[[], Loaded]) -> None:
    loaded = load()
    before = list(loaded.probes)
    assert existing.read_existing(loaded) is None
    assert loaded.probes == before


def test_programs_are_asked_in_one_call_as_one_by_one(load: Callable[[], Loaded]) -> None:
    loaded = load()
    infos = [program.info() for program in loaded.alone]
    fds = ffi.new("int[]", [program.fd for program in loaded.alone])
    # None was skipped here, so that all of them say 0: another number shows that it is the right place.
    assert lib.sum_of_infos(fds, len(fds), ProgInfo.load_time.offset // 8) == sum(info.load_time for info in infos) > 0
    of_pairs = [min(program.info().recursion_misses for program in pair) for pair in loaded.pairs]
    skipped = sum(info.recursion_misses for info in infos) + sum(of_pairs)
    assert loaded.misses() == (skipped, loaded.stand_ins[0].info().recursion_misses)


@pytest.mark.slow(reason="which programs are counted is the same on every kernel that has this rung")
def test_that_other_packets_are_dropped_unseen_is_nobodys_loss() -> None:
    """The first SYN is told by the next one, if the kernel skips the program that would have seen it dropped."""
    filters = Filters.parse(pid=os.getpid(), probes="tracepoint")
    with contextlib.closing(loader.load(filters)) as loaded:
        (dropped,) = [probe.name for probe in loaded.probes if probe.need == "first syn" and probe.attached]
        alone = {program.name for program in loaded.alone}
    assert dropped in REPEATED
    assert dropped not in alone
    assert "packet_out" not in alone, "the kernel lets these interrupt themselves"
    assert "connect_enter" in alone


def test_who_is_closed_asks_no_program(load: Callable[[], Loaded]) -> None:
    loaded = load()
    loaded.misses()
    loaded.close()
    with pytest.raises(TracerClosed):
        loaded.misses()


def test_a_process_without_a_free_file_is_told_so(load: Callable[[], Loaded]) -> None:
    loaded = load()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(OSError, match="no more files can be opened") as failed:
            existing.read_existing(loaded)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert failed.value.errno == errno.EMFILE
    assert "existing" in attached(loaded.probes)
