"""The doctor's report reads well whatever it has to say, and its JSON has the same keys in sickness and in health."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest

from pytracecon import doctor
from pytracecon.doctor import Diagnosis, machine, report
from pytracecon.doctor.machine import Btf, Capabilities, Cgroup2, Kernel, Library, Lockdown, Machine, Memlock, Tracefs
from pytracecon.doctor.needs import CandidateReport, NeedReport, _of_candidate
from pytracecon.doctor.privileges import NeedPrivileges
from pytracecon.errors import InvalidValue, MissingPrivilege, UnsupportedKernel
from pytracecon.probes import NEEDS, Candidate

HEALTHY = Machine(
    Kernel("6.1.0-56-amd64", "x86_64"),
    Btf("/sys/kernel/btf/vmlinux", 4_360_000, None),
    Lockdown("none", None),
    Capabilities(["CAP_BPF", "CAP_SYS_ADMIN"], {}),
    dict.fromkeys(machine.SYSCTLS, 1),
    Memlock(charged=False, soft=65536, hard=65536),
    Library("1.1", "/usr/lib/x86_64-linux-gnu/libbpf.so.1.1.2", None),
    Tracefs(["/sys/kernel/tracing"], usable=True, problem=None),
    Cgroup2(["/sys/fs/cgroup"], hybrid=False, problem=None),
)
REASON = "loading it failed because of something that takes quite some words to be told in a single sentence"
MET = NeedReport("states", True, "tracepoint", ["a"], "everything", [CandidateReport("tracepoint", ["a"], works=True)])


def text(found: Machine, needs: list[NeedReport], *, traceable: bool = True) -> str:
    return "\n".join(report.lines(found, needs, traceable=traceable))


def row(name: str, shown: str) -> list[str]:
    """The cells of a need: fentry, kprobe, tracepoint (and more rungs), taken."""
    line = next(line for line in shown.splitlines() if line.startswith(name + " "))
    return line.removeprefix(name).replace(" [", "[").split()


def need(*candidates: CandidateReport, essential: bool = False, rung: str | None = None) -> NeedReport:
    return NeedReport("accepts", essential, rung, [], "no accept events", list(candidates))


def test_a_healthy_machine_fits_a_screen_of_80_columns() -> None:
    lines = text(HEALTHY, [MET] * len(NEEDS)).splitlines()
    assert len(lines) <= len(NEEDS) + 12
    assert max(map(len, lines)) < report.WIDTH
    assert lines[-1] == "TCP connections can be traced."
    assert "missing" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"btf": Btf("/b", None, "no BTF: get some")}, "BTF           no BTF: get some"),
        ({"btf": Btf(None, 5000, None)}, "BTF           found by libbpf, 5000 B"),
        ({"lockdown": Lockdown(None, "mount it")}, "lockdown      unknown: mount it"),
        ({"lockdown": Lockdown("confidentiality", "unlock")}, "lockdown      confidentiality: unlock"),
        ({"capabilities": Capabilities([], {})}, "capabilities  none of those that matter"),
        (
            {"capabilities": Capabilities(["CAP_BPF"], {"CAP_PERFMON": "probes"})},
            "capabilities  CAP_BPF\n              missing: CAP_PERFMON (probes)\n",
        ),
        ({"sysctls": {"kernel.kptr_restrict": None}}, "sysctls       kptr_restrict unknown\n"),
        ({"libbpf": Library(None, None, "none: install it")}, "libbpf        none: install it"),
        ({"tracefs": Tracefs([], usable=True, problem=None)}, "tracefs       not mounted, and reached without"),
        ({"tracefs": Tracefs([], usable=False, problem="mount it")}, "tracefs       mount it"),
        ({"cgroup2": Cgroup2(["/u"], hybrid=True, problem=None)}, "cgroup2       /u, cgroup v1 beside it"),
        ({"cgroup2": Cgroup2([], hybrid=True, problem="mount it")}, "cgroup2       mount it\n"),
        (
            {"memlock": Memlock(charged=True, soft=1, hard=65536)},
            "memlock       at most 65536 B, and BPF memory counts",
        ),
        (
            {"memlock": Memlock(charged=True, soft=1, hard=None)},
            "memlock       BPF memory counts against RLIMIT_MEMLOCK",
        ),
    ],
)
def test_what_is_missing_is_said_with_its_remedy(part: dict[str, object], said: str) -> None:
    assert said in text(replace(HEALTHY, **part), [MET])  # type: ignore[arg-type]


def test_a_limit_that_nothing_counts_against_is_not_shown() -> None:
    assert "memlock" not in text(HEALTHY, [MET])


def test_a_cell_says_what_works_best_and_why_nothing_better_does() -> None:
    refused = CandidateReport("kprobe", ["a"], works=False, reason=REASON)
    other = CandidateReport("kprobe", ["b"], works=False, reason="no")
    works = CandidateReport("kprobe", ["c"], works=True)
    lacks = CandidateReport("tracepoint", ["d"], works=True, without={"e": "no e"})
    cells = {
        "ok": [works],
        "ok[1]": [refused, works],
        "no[1,2]": [refused, other],
        "no[1]": [refused, refused],
    }
    for cell, candidates in cells.items():
        assert row("accepts", text(HEALTHY, [need(*candidates, rung="kprobe")])) == ["-", cell, "-", "kprobe"]
    shown = text(HEALTHY, [need(refused, lacks, rung="tracepoint")])
    assert row("accepts", shown) == ["-", "no[1]", "ok[2]", "tracepoint"]
    assert "\n[1] loading it failed" in shown
    assert shown.endswith("\n[2] no e\n\nTCP connections can be traced.")


def test_the_same_reason_is_told_once() -> None:
    needs = [need(CandidateReport("fentry", [name], works=False, reason=REASON)) for name in "abc"]
    shown = text(HEALTHY, needs)
    assert shown.count("no [1]") == len(needs)
    assert " ".join(shown.split()).count(REASON) == 1


def test_a_long_reason_is_wrapped_and_no_control_character_gets_through() -> None:
    shown = text(HEALTHY, [need(CandidateReport("fentry", ["a"], works=False, reason=f"{REASON} \x1b[2J {REASON}"))])
    assert max(map(len, shown.splitlines())) < report.WIDTH
    assert "\x1b" not in shown
    assert "\\x1b[2J" in shown


def test_an_unmet_need_says_what_it_costs() -> None:
    refused = CandidateReport("fentry", ["a"], works=False, reason="no")
    shown = text(HEALTHY, [MET, need(refused)])
    assert row("accepts", shown) == ["no[1]", "-", "-", "none"]
    assert "Without accepts: no accept events.\nTCP connections can be traced." in shown


def test_where_nothing_is_traced_only_the_essential_is_missed() -> None:
    refused = CandidateReport("fentry", ["a"], works=False, reason="no")
    essential = replace(MET, rung=None, costs="nothing works")
    shown = text(HEALTHY, [essential, need(refused)], traceable=False)
    assert shown.endswith("Without states: nothing works.\nTCP connections cannot be traced.")
    assert "Without accepts" not in shown


CANDIDATE = Candidate("kprobe", ("first", "second"), ("extra",), ("this", "that"))


@pytest.mark.parametrize(
    ("refused", "untried", "programs", "reason", "without"),
    [
        ((), ("that",), ["first", "second", "extra", "this"], None, []),
        (("this",), (), ["first", "second", "extra", "that"], None, []),
        (("this", "that"), (), ["first", "second", "extra"], None, ["that"]),
        (("extra",), ("that",), ["first", "second", "this"], None, ["extra"]),
        (("first",), ("second", "extra", "this", "that"), ["first", "second"], "no first", []),
        (("second",), ("this", "that"), ["first", "second"], "no second", []),
    ],
)
def test_a_candidate_is_told_from_what_became_of_its_programs(
    refused: tuple[str, ...], untried: tuple[str, ...], programs: list[str], reason: str | None, without: list[str]
) -> None:
    names = (*CANDIDATE.programs, *CANDIDATE.extras, *CANDIDATE.either)
    outcome = {
        name: UnsupportedKernel(f"no {name}") if name in refused else None for name in names if name not in untried
    }
    told = _of_candidate(CANDIDATE, outcome)
    assert told == CandidateReport("kprobe", programs, reason is None, reason, {name: f"no {name}" for name in without})


def keys(document: object) -> object:
    """The structure without the values."""
    if isinstance(document, dict):
        return {key: keys(value) for key, value in document.items()}
    return None


def test_the_document_has_the_same_keys_whatever_is_found() -> None:
    well = Diagnosis(HEALTHY, [MET], None).document()
    sick = Machine(
        HEALTHY.kernel,
        Btf(None, None, "none"),
        Lockdown(None, "unknown"),
        HEALTHY.capabilities,
        dict.fromkeys(machine.SYSCTLS),
        Memlock(charged=None, soft=None, hard=None),
        Library(None, None, "none"),
        Tracefs([], usable=False, problem="none"),
        Cgroup2([], hybrid=False, problem="none"),
    )
    ill = Diagnosis(sick, [replace(MET, rung=None)], MissingPrivilege("needs CAP_BPF: run as root")).document()
    assert keys(well) == keys(ill)
    assert (well["ok"], well["problem"], well["exit_status"]) == (True, None, 0)
    assert (ill["ok"], ill["problem"], ill["exit_status"]) == (False, "needs CAP_BPF: run as root", 77)
    assert json.loads(json.dumps(ill)) == ill


MOUNTINFO = r"""
22 28 0:20 / /sys rw,nosuid - sysfs sysfs rw
30 22 0:26 / /sys/fs/cgroup ro shared:9 - cgroup2 cgroup2 rw,nsdelegate
33 22 0:7 / /sys/kernel/security rw shared:4 - securityfs securityfs rw
41 22 0:12 / /sys/kernel/tracing rw shared:11 master:2 - tracefs tracefs rw
42 22 0:12 / /sys/kernel/debug/tracing rw - tracefs tracefs rw
"""


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("tracefs", ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]),
        ("cgroup", []),
        ("securityfs", ["/sys/kernel/security"]),
    ],
)
def test_mounts_are_found_by_their_kind(kind: str, points: list[str]) -> None:
    assert machine.mount_points(MOUNTINFO, kind) == points
    odd = f"36 35 0:39 / /mnt/a\rb\u2028c rw - {kind} x rw\n"
    assert machine.mount_points(odd + MOUNTINFO, kind) == ["/mnt/a\rb\u2028c", *points]


def run(*arguments: str, stdout: int | IO[str] = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytracecon", "doctor", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(doctor.__file__).parents[2])},
    )


def test_a_missing_libbpf_is_a_finding_and_no_traceback(tmp_path: Path) -> None:
    absent = str(tmp_path / "libbpf.so.1")
    done = run("--libbpf", absent, "--json")
    document = json.loads(done.stdout)
    assert done.returncode == document["exit_status"] == 69
    assert done.stderr == f"pytracecon: {document['problem']}\n"
    assert "install libbpf 1.1" in document["problem"]
    assert document["libbpf"] == {"version": None, "path": absent, "problem": document["problem"]}
    assert [told["need"] for told in document["needs"]] == [each.name for each in NEEDS]
    assert all(
        candidate["reason"] == document["problem"] for told in document["needs"] for candidate in told["candidates"]
    )


def test_a_reader_that_has_gone_does_not_change_the_status() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        done = run("--libbpf", "/dev/null", stdout=stdout)
    assert done.returncode == 69
    assert done.stderr.startswith("pytracecon: /dev/null cannot be used as libbpf")
    assert done.stderr.count("\n") == 1


def test_a_report_that_cannot_be_written_is_an_error() -> None:
    with Path("/dev/full").open("w") as stdout:
        done = run("--libbpf", "/dev/null", stdout=stdout)
    assert done.returncode == 74
    assert done.stderr.startswith("pytracecon: standard output cannot be written: No space left")
    assert done.stderr.count("\n") == 1


def test_a_rung_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(InvalidValue, match="--probes: uprobe"):
        doctor.diagnose(probes="uprobe")


def test_the_doctor_shows_a_row_for_each_need() -> None:
    rows = [
        NeedPrivileges("states", ["CAP_BPF", "CAP_PERFMON"], None, []),
        NeedPrivileges("attempts", ["CAP_SYS_ADMIN"], ["CAP_BPF"], ["CAP_SYS_PTRACE"]),
        NeedPrivileges("services", None, None, []),
    ]
    shown = "\n".join(report.lines(HEALTHY, [MET], traceable=True, privileges=rows))
    table = shown.partition("\nPRIVILEGES")[2].splitlines()
    assert [line.split() for line in table[1:4]] == [
        ["states", "BPF,", "PERFMON", "-"],
        ["attempts", "SYS_ADMIN;", "in", "part", "BPF", "SYS_PTRACE"],
        ["services", "not", "met", "-"],
    ]
    assert "PRIVILEGES" not in "\n".join(report.lines(HEALTHY, [MET], traceable=True))
